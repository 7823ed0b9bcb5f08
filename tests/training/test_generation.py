"""Sampling for the trainer: chunks of its own, encoders that wait on the CPU, and a tape that lasts for the run."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from PIL import Image

from editr1_plugins.errors import ConfigError, DataError
from editr1_plugins.testing.pipelines import lora_parameters, picture, tiny_pipeline
from editr1_plugins.training.edit_config import EditGRPOConfig
from editr1_plugins.training.edit_grpo import EditGRPOTrainer
from editr1_plugins.training.generation import EditSampler
from editr1_plugins.training.rollout import visit

ROWS = [{"image": picture(64, seed), "prompt": f"edit {seed}"} for seed in (1, 2)]
GROUP = 4


def config(tmp_path, call, **options):
    kwargs = {name: value for name, value in call.items() if name not in ("image", "prompt", "num_inference_steps")}
    chosen = {
        "num_generations": GROUP,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 4,
        "num_inference_steps": 3,
        "pipeline_kwargs": kwargs,
        "beta": 0.0,
        "use_cpu": True,
        "report_to": [],
        "save_strategy": "no",
    }
    return EditGRPOConfig(output_dir=str(tmp_path), **{**chosen, **options})


def sampler(tmp_path, *, dtype=None, name="kontext", **options):
    pipe, call = tiny_pipeline(name, dtype=dtype)
    return EditSampler(pipe, config(tmp_path, call, **options), stochastic=True, autocast=nullcontext)


def both(sampler, number=0):
    return sampler.sample([row for row in ROWS for _ in range(GROUP)], number, 0)


def worst_ratio(sampler, generation):
    found = []
    for chunk in generation.chunks:
        steps = chunk.rollout.transitions

        def on_velocity(index, velocity, steps=steps):
            step = steps[index]
            log_prob = step.noise.log_prob(step.x, velocity, step.x_next)
            found.append(((log_prob - step.log_prob).exp() - 1).abs().max().item())

        visit(sampler.pipe, chunk.rollout, [step.visit() for step in steps], on_velocity, grad=False)
    return max(found)


@pytest.mark.parametrize("chunk", [1, 3, 4])
def test_sampling_in_other_chunks_gives_the_same_edits_and_passes(tmp_path, chunk):
    usual = both(sampler(tmp_path))
    ours = sampler(tmp_path, generation_chunk=chunk)
    calls = []
    ours.pipe.vae.decoder.register_forward_hook(lambda *_: calls.append(1))
    found = both(ours)
    assert len(calls) == 2 * -(-GROUP // chunk)
    assert [part.rows for part in found.chunks] == [part.rows for part in usual.chunks]
    assert all(len(part.rollout) == part.rollout.chunk == 2 for part in found.chunks)
    assert (torch.stack(found.edits) - torch.stack(usual.edits)).abs().max() <= 1e-5
    assert worst_ratio(ours, found) <= 1e-6


def test_below_full_precision_old_log_probabilities_are_those_of_the_replay(tmp_path):
    ours = sampler(tmp_path, dtype=torch.bfloat16, generation_chunk=3)
    assert worst_ratio(ours, both(ours)) <= 1e-6


def test_a_pipeline_that_makes_one_row_a_call_is_sampled_and_replayed_row_by_row(tmp_path):
    ours = sampler(tmp_path)
    ours.rows_per_call = 1
    found = both(ours)
    assert [len(chunk.rollout) for chunk in found.chunks] == [1] * 2 * GROUP
    assert [len(found.of_pass(index, 2)) for index in range(GROUP)] == [2] * GROUP


def test_a_row_seen_before_calls_no_encoder_again(tmp_path):
    ours = sampler(tmp_path)
    runs = []
    ours.pipe.text_encoder_2.encoder.final_layer_norm.register_forward_hook(lambda *_: runs.append(1))
    first, second = both(ours), both(ours, number=1)
    assert (first.encoder_calls, second.encoder_calls, len(runs)) == (3.0, 0.0, 2)
    assert not torch.equal(first.edits[0], second.edits[0])  # a rollout of its own


def test_the_tape_is_bounded_and_forgets_what_was_not_used_for_longest(tmp_path):
    ours = sampler(tmp_path)
    one = [ROWS[0]] * GROUP
    ours.sample(one, 0, 0)
    ours.tape_limit = ours.tape.kept_bytes
    ours.sample([ROWS[1]] * GROUP, 1, 0)
    assert ours.sample(one, 2, 0).encoder_calls > 0
    assert ours.tape.kept_bytes <= 2 * ours.tape_limit  # the bound, and the rollout that is trained on


def test_the_tape_may_lie_on_disk_and_is_gone_with_the_run(tmp_path):
    folder = tmp_path / "tape"
    kept = sampler(tmp_path)
    ours = sampler(tmp_path, tape_dir=str(folder))
    expected, found = both(kept), both(ours)
    assert all(torch.equal(*pair) for pair in zip(found.edits, expected.edits, strict=True))
    files = list(folder.rglob("*.safetensors"))
    assert len(files) == len(ours.tape) == 6
    assert all(len(file.stem) == 32 and set(file.stem) <= set("0123456789abcdef") for file in files)
    assert str(files[0]) in Path("/proc/self/maps").read_text()  # memory-mapped
    assert worst_ratio(ours, found) <= 1e-6
    assert both(ours, number=1).encoder_calls == 0
    ours.tape.trim(0)
    assert list(folder.rglob("*.safetensors")) == []
    ours.tape.folder.close()
    assert list(folder.iterdir()) == []


class Moves:
    """Counts the real moves of a pipeline's networks."""

    def __init__(self, pipe):
        self.log = []
        for name in ("vae", "text_encoder", "text_encoder_2", "transformer"):
            self._watch(name, getattr(pipe, name))

    def _watch(self, name, network):
        move = network.to

        def to(*args, **kwargs):
            self.log.append(name)
            return move(*args, **kwargs)

        network.to = to


def test_encoders_leave_after_sampling_and_are_back_for_the_next_rollout(tmp_path):
    ours = sampler(tmp_path, offload_encoders=True)
    moves = Moves(ours.pipe)
    decoding = []
    ours.pipe.vae.decoder.register_forward_hook(lambda *_: decoding.append(len(moves.log)))
    found = both(ours)
    away = ["vae", "text_encoder", "text_encoder_2"]
    assert sorted(moves.log) == sorted(away)
    assert set(decoding) == {0}  # decoded before they left
    worst_ratio(ours, found)
    assert len(moves.log) == 3  # replay needs none of them
    both(ours, number=1)
    assert len(moves.log) == 9  # back and away
    assert set(decoding[4:]) == {6}  # back before the next decoding
    ours.evaluate(ROWS[0], 0)
    assert len(moves.log) == 15
    ours.close()
    assert (len(moves.log), ours.encoders.moves) == (18, 6)
    assert "transformer" not in moves.log


def test_without_offloading_nothing_moves(tmp_path):
    ours = sampler(tmp_path)
    moves = Moves(ours.pipe)
    both(ours)
    ours.close()
    assert moves.log == []


def test_a_whole_run_with_everything_offloaded_learns_the_same(tmp_path):
    weights = []
    for options in ({}, {"offload_encoders": True, "tape_dir": str(tmp_path / "tape"), "generation_chunk": 4}):
        pipe, call = tiny_pipeline("kontext")
        del call["output_type"]
        trainer = EditGRPOTrainer(
            pipe,
            reward_funcs=brightness,
            args=config(tmp_path, call, max_steps=3, shuffle_dataset=False, learning_rate=1e-3, **options),
            train_dataset=ROWS,
        )
        trainer.train()
        weights.append(torch.cat([p.detach().flatten() for p in lora_parameters(pipe).values()]))
        calls = [entry["encoder_calls"] for entry in trainer.state.log_history if "encoder_calls" in entry]
        assert calls == [3.0, 0.0, 0.0]  # the second and third update are later epochs
        assert max(entry.get("ratio_error", 0.0) for entry in trainer.state.log_history) <= 1e-6
    assert (weights[0] - weights[1]).abs().max() <= 1e-4


def brightness(completions, **_):
    return [float(image.convert("L").resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))) for image in completions]


def test_masks_and_other_columns_that_the_pipeline_knows_are_passed_on(tmp_path):
    mask = Image.new("L", (64, 64), 255)
    ours = sampler(tmp_path, name="flux_inpaint")
    call = ours.call({**ROWS[0], "mask_image": mask, "negative_prompt": "ugly", "answer": "unknown"}, 3)
    assert call["mask_image"].size == (64, 64)
    assert call["negative_prompt"] == "ugly"
    assert "answer" not in call
    with pytest.raises(DataError, match="holds a path"):
        ours.call({**ROWS[0], "mask_image": "/etc/passwd"}, 3)
    assert "mask_image" not in sampler(tmp_path).call({**ROWS[0], "mask_image": mask}, 3)


def test_bad_chunks_and_pipelines_without_a_source_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="generation_chunk=0"):
        sampler(tmp_path, generation_chunk=0)
    with pytest.raises(ConfigError, match="takes no source image"):
        sampler(tmp_path, name="flux")


@pytest.mark.parametrize("name", ["kontext_modular", "sd3_img2img"])
def test_a_modular_pipeline_and_one_that_makes_one_row_a_call_train_and_evaluate(tmp_path, name):
    pipe, call = tiny_pipeline(name)
    del call["output_type"]
    before = torch.cat([p.detach().flatten().clone() for p in lora_parameters(pipe).values()])
    trainer = EditGRPOTrainer(
        pipe,
        reward_funcs=brightness,
        args=config(tmp_path, call, max_steps=1, learning_rate=1e-3),
        train_dataset=ROWS,
        eval_dataset=ROWS,
    )
    trainer.train()
    entry = trainer.state.log_history[0]
    assert entry["ratio_error"] <= 1e-6
    assert entry["grad_norm"] > 0
    assert not torch.equal(torch.cat([p.detach().flatten() for p in lora_parameters(pipe).values()]), before)
    assert trainer.evaluate()["eval_reward"] > 0


@pytest.mark.parametrize(("size", "expected"), [((64, 64), (64, 64)), ((300, 100), (112, 36)), ((100, 400), (32, 128))])
def test_an_edit_keeps_the_proportions_of_its_source(tmp_path, size, expected):
    pipe, call = tiny_pipeline("kontext")
    for name in ("height", "width", "max_area", "_auto_resize", "output_type"):
        call.pop(name, None)
    ours = EditSampler(pipe, config(tmp_path, call, resolution=64), stochastic=True, autocast=nullcontext)
    row = {"image": picture(8, 1).resize(size), "prompt": "edit"}
    made = ours.call(row, 3)
    assert (made["width"], made["height"]) == expected
    assert made["image"].size == expected  # and not Kontext's own preferred size of a megapixel
    assert abs(made["width"] * made["height"] / 64**2 - 1) < 0.15
    edits = ours.sample([row] * GROUP, 0, 0).edits
    assert {edit.size for edit in edits} == {expected}
    assert ours.evaluate(row, 0).size == expected


def test_an_explicit_size_is_not_touched(tmp_path):
    call = sampler(tmp_path, resolution=128).call(ROWS[0], 3)
    assert (call["height"], call["width"]) == (32, 32)  # of its pipeline_kwargs
    assert call["image"].size == ROWS[0]["image"].size
