"""record() and visit() on unmodified diffusers pipelines: exact, cheap, and leaving no trace."""

from __future__ import annotations

import random
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from editr1_plugins.errors import ConfigError, ReplayError
from editr1_plugins.testing.pipelines import lora_parameters, picture, tiny_pipeline
from editr1_plugins.training.rollout import (
    denoisers,
    record,
    record_group,
    velocities,
    visit,
    without_adapters,
)
from editr1_plugins.training.schedulers import Visit

GROUP, STEPS = 3, 4
SEEDS, WINDOW = range(10, 10 + GROUP), range(STEPS - 1)
# klein_kv is there to be refused: see test_preflight.py
PIPELINES = ["kontext", "flux_img2img", "flux_inpaint", "kontext_inpaint", "klein", "qwen_edit", "qwen_edit_plus"]


def replay(pipe, rollout, rows=slice(None), steps=None):
    """Ratios at unchanged weights, (steps, rows); adds the gradient of minus the sum of log-probabilities."""
    steps = [step.rows(rows) for step in (rollout.transitions if steps is None else steps)]
    ratios = []

    def on_velocity(index, velocity):
        step = steps[index]
        log_prob = step.noise.log_prob(step.x, velocity, step.x_next)
        ratios.append((log_prob.detach() - step.log_prob).exp())
        (-log_prob.sum()).backward()

    visit(pipe, rollout, [step.visit() for step in steps], on_velocity)
    return torch.stack(ratios)


def gradient(pipe):
    """The LoRA's gradient as one vector, taken away."""
    parts = []
    for p in lora_parameters(pipe).values():
        parts.append(torch.zeros_like(p).flatten() if p.grad is None else p.grad.double().flatten())
        p.grad = None
    return torch.cat(parts)


def error(ratios):
    return (ratios - 1).abs().max().item()


def far(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


VARIANTS = {
    "fp32": {},
    "checkpointing": {"checkpointing": True},
    "bf16": {"dtype": torch.bfloat16},
    "bf16, checkpointing": {"dtype": torch.bfloat16, "checkpointing": True},
    "bf16 autocast": {"autocast": True},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("guided", [False, True], ids=["plain", "cfg"])
def test_kontexts_ratio_is_one_at_unchanged_weights(guided, variant):
    options = VARIANTS[variant]
    pipe, call = tiny_pipeline("kontext", guided=guided, steps=STEPS, dtype=options.get("dtype"))
    if options.get("checkpointing"):
        pipe.transformer.enable_gradient_checkpointing()
        pipe.transformer.train()
    with torch.autocast("cpu", torch.bfloat16) if options.get("autocast") else nullcontext():
        rollout = record(pipe, call, seeds=SEEDS, window=WINDOW)
        ratios = replay(pipe, rollout)
    assert ratios.shape == (STEPS - 1, GROUP)
    assert error(ratios) <= 1e-6
    assert gradient(pipe).norm() > 0


@pytest.mark.parametrize("name", PIPELINES)
def test_rows_and_steps_replay_alone_and_their_gradients_add_up(name):
    pipe, call = tiny_pipeline(name, guided=True, steps=3)
    rollout = record(pipe, call, seeds=(10, 11), window=(0, 1))
    misses = rollout.tape.misses
    assert error(replay(pipe, rollout)) <= 1e-6
    whole = gradient(pipe)
    assert whole.norm() > 0
    assert rollout.tape.misses == misses  # no encoder in replay

    assert max(error(replay(pipe, rollout, slice(row, row + 1))) for row in range(2)) <= 1e-6
    assert far(gradient(pipe), whole) <= 1e-5
    assert max(error(replay(pipe, rollout, steps=[step])) for step in rollout.transitions) <= 1e-6
    assert far(gradient(pipe), whole) <= 1e-6


def test_the_ratio_moves_when_the_weights_move():
    pipe, call = tiny_pipeline(steps=STEPS)
    rollout = record(pipe, call, seeds=SEEDS, window=WINDOW)
    for p in lora_parameters(pipe).values():
        p.data.mul_(1.5)
    assert error(replay(pipe, rollout)) > 1e-3


@pytest.mark.parametrize("guided", [False, True], ids=["plain", "cfg"])
def test_gradients_equal_a_hand_written_loop(guided):
    pipe, call = tiny_pipeline("kontext", guided=guided, steps=STEPS)
    rollout = record(pipe, call, seeds=SEEDS, window=WINDOW)
    replay(pipe, rollout)
    ours = gradient(pipe)

    with torch.no_grad():  # Kontext spelled out
        image = pipe.image_processor.preprocess(pipe.image_processor.resize(call["image"], 64, 64), 64, 64)
        _, source, ids, source_ids = pipe.prepare_latents(image, GROUP, 4, 32, 32, torch.float32, "cpu")
        prompts = [call["prompt"]] + ([call["negative_prompt"]] if guided else [])
        encoded = [pipe.encode_prompt(p, num_images_per_prompt=GROUP, max_sequence_length=24) for p in prompts]
    loss = torch.zeros(())
    for step in rollout.transitions:
        found = [
            pipe.transformer(
                hidden_states=torch.cat([step.x, source], dim=1),
                timestep=step.timestep.expand(GROUP) / 1000,
                guidance=torch.full([GROUP], 3.5),
                pooled_projections=pooled,
                encoder_hidden_states=tokens,
                txt_ids=text_ids,
                img_ids=torch.cat([ids, source_ids]),
                return_dict=False,
            )[0][:, : step.x.shape[1]]
            for tokens, pooled, text_ids in encoded
        ]
        velocity = found[1] + 4.0 * (found[0] - found[1]) if guided else found[0]
        normal = torch.distributions.Normal(step.noise.on_x * step.x + step.noise.on_v * velocity, step.noise.std)
        loss = loss - normal.log_prob(step.x_next).mean((1, 2)).sum()
    loss.backward()
    assert far(ours, gradient(pipe)) <= 1e-6


class SavedTensors:
    """Bytes that autograd holds for backward: now, and at the worst moment."""

    def __init__(self) -> None:
        self.live = self.peak = 0

    def keep(self, tensor):
        meter = self

        class Kept:
            def __init__(self) -> None:
                self.tensor = tensor
                meter.live += tensor.nbytes
                meter.peak = max(meter.peak, meter.live)

            def __del__(self) -> None:
                meter.live -= self.tensor.nbytes

        return Kept()


def test_autograd_memory_does_not_grow_with_the_trained_steps():
    peaks = {}
    for steps in (2, 4, 8):
        pipe, call = tiny_pipeline(steps=steps)
        rollout = record(pipe, call, seeds=SEEDS, window=range(steps))
        meter, losses = SavedTensors(), []
        with saved_tensors_hooks(meter.keep, lambda kept: kept.tensor):
            replay(pipe, rollout)
        assert meter.live == 0
        peaks[steps] = meter.peak
    assert len(set(peaks.values())) == 1
    # The meter would see it: one backward at the end holds every step.
    with saved_tensors_hooks(meter.keep, lambda kept: kept.tensor):
        visits = [step.visit() for step in rollout.transitions]
        visit(pipe, rollout, visits, lambda _, velocity: losses.append(velocity.square().mean()))
        sum(losses).backward()
    assert meter.peak > 5 * peaks[8]


def count_calls(network, calls):
    for module in network.modules():
        if not any(module.children()):
            module.register_forward_hook(lambda *_: calls.append(1))


@pytest.mark.parametrize("name", ["kontext", "flux_inpaint", "klein"])
def test_encoders_run_once_per_image_and_instruction(name):
    pipe, call = tiny_pipeline(name, guided=True, steps=STEPS)
    encoding, decoding = [], []
    for part in (getattr(pipe, "text_encoder", None), getattr(pipe, "text_encoder_2", None), pipe.vae.encoder):
        if part is not None:
            count_calls(part, encoding)
    count_calls(pipe.vae.decoder, decoding)
    pipe(**call)
    once = len(encoding)

    rollout = record_group(pipe, call, seeds=range(4), chunk=2, window=WINDOW)
    assert 0 < len(encoding) <= 2 * once  # the second chunk, and the epochs to come, play the tape
    again = record(pipe, call, seeds=SEEDS, window=WINDOW, tape=rollout.tape)
    assert again.tape is rollout.tape
    assert len(encoding) <= 2 * once
    seen = len(encoding), len(decoding)
    for row in range(GROUP):
        replay(pipe, again, slice(row, row + 1))
    assert (len(encoding), len(decoding)) == seen  # replay neither encodes nor decodes

    misses = rollout.tape.misses
    record(pipe, {**call, "prompt": "make the sea blue"}, seeds=SEEDS, window=WINDOW, tape=rollout.tape)
    assert rollout.tape.misses > misses


@pytest.mark.parametrize("name", ["kontext", "klein", "kontext_inpaint"])
def test_without_a_window_sampling_is_the_pipelines_own(name):
    pipe, call = tiny_pipeline(name, guided=True, steps=2)
    generators = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    own = pipe(**call, num_images_per_prompt=2, generator=generators).images
    rollout = record(pipe, call, seeds=(3, 4), window=())
    assert torch.equal(own, rollout.images)
    assert rollout.transitions == ()


@pytest.mark.parametrize("output_type", ["pt", "np", "pil"])
def test_a_group_may_be_sampled_in_chunks(output_type):
    pipe, call = tiny_pipeline("kontext", guided=True, steps=STEPS)
    call["output_type"] = output_type
    whole = record(pipe, call, seeds=range(4), window=WINDOW)
    parts = record_group(pipe, call, seeds=range(4), chunk=3, window=WINDOW)
    assert len(parts) == len(whole) == len(parts.images) == 4
    assert (parts.seeds, parts.chunk, whole.chunk) == (whole.seeds, 3, 4)
    assert torch.allclose(parts.final, whole.final, atol=1e-5)
    for one, other in zip(parts.transitions, whole.transitions, strict=True):
        assert one.index == other.index
        assert torch.allclose(one.x_next, other.x_next, atol=1e-5)
        assert torch.allclose(one.log_prob, other.log_prob, atol=1e-5)
    first, last = (np.asarray(images[3], dtype=float) for images in (parts.images, whole.images))
    assert np.abs(first - last).max() <= (1 if output_type == "pil" else 1e-4)
    assert error(replay(pipe, parts, slice(0, 3))) <= 1e-6


def test_rows_depend_on_their_own_seeds_only():
    pipe, call = tiny_pipeline(steps=STEPS)
    rollout = record(pipe, call, seeds=[5, 6, 5], window=WINDOW)
    assert torch.equal(rollout.images[0], rollout.images[2])
    assert not torch.equal(rollout.images[0], rollout.images[1])
    shared = record(pipe, call, seeds=[5, 6, 7], start_seeds=[9, 9, 9], window=WINDOW).transitions[0]
    assert torch.equal(shared.x[0], shared.x[2])
    assert not torch.equal(shared.x_next[0], shared.x_next[2])


def test_the_steps_noise_is_not_the_initial_noise_again():
    """CPU generators read 32 bits of a seed: seed + 2**32 would be the same stream."""
    pipe, call = tiny_pipeline(steps=STEPS)
    first, second, *_ = record(pipe, call, seeds=range(8), window=WINDOW).transitions
    start = first.x.flatten(1).sort().values
    drawn = [(step.x_next - step.noise.mean(step.x, step.velocity)) / step.noise.std for step in (first, second)]
    assert not torch.allclose(drawn[0].flatten(1).sort().values, start, atol=0.05)
    assert not torch.allclose(drawn[0], drawn[1], atol=0.05)
    assert torch.cat(drawn).std().item() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("window", [range(1, 3), {0, 2}, (3,)], ids=str)
@pytest.mark.parametrize("sampler", ["flow_grpo", "dance", "cps"])
def test_windows_train_only_their_steps(sampler, window):
    pipe, call = tiny_pipeline(steps=5)
    rollout = record(pipe, call, seeds=SEEDS, window=window, sampler=sampler, noise_level=0.5)
    assert [step.index for step in rollout.transitions] == sorted(window)
    assert error(replay(pipe, rollout)) <= 1e-6
    assert error(replay(pipe, rollout, steps=rollout.transitions[::-1])) <= 1e-6  # in any order


def test_steps_are_counted_as_they_are_made():
    """An image-to-image pipeline of strength 0.75 makes three of four steps; the first it makes is step 0."""
    pipe, call = tiny_pipeline("flux_img2img", steps=4)
    rollout = record(pipe, call, seeds=SEEDS, window=[0])
    assert rollout.transitions[0].index == 0
    assert rollout.transitions[0].timestep < 1000
    with pytest.raises(ConfigError, match=r"steps \[3\], but 3 steps were made"):
        record(pipe, call, seeds=SEEDS, window=[0, 3])
    del call["strength"]  # the pipeline's default is below 1 as well, and replay must not cut its schedule
    call["num_inference_steps"] = 6
    assert error(replay(pipe, record(pipe, call, seeds=SEEDS, window=range(3)))) <= 1e-6


def test_a_loop_that_cannot_be_entered_at_the_first_visit_spends_an_iteration():
    pipe, call = tiny_pipeline("kontext", guided=True, steps=STEPS)
    rollout = record(pipe, call, seeds=SEEDS, window=WINDOW)
    assert rollout.entry == 0
    replay(pipe, rollout)
    expected = gradient(pipe)
    assert error(replay(pipe, replace(rollout, entry=None))) <= 1e-6
    assert far(gradient(pipe), expected) <= 1e-6


def test_velocities_at_any_timestep_one_per_row():
    """What forward-process objectives need: noised final latents, another noise level in each row, one call."""
    pipe, call = tiny_pipeline("kontext", guided=True, steps=STEPS)
    rollout = record(pipe, call, seeds=SEEDS, window=())
    generator = torch.Generator().manual_seed(0)
    t = torch.rand(GROUP, generator=generator)
    noise = torch.randn(rollout.final.shape, generator=generator)
    point = Visit(t * 1000, torch.lerp(rollout.final, noise, t[:, None, None]))
    together = []

    def on_velocity(_, velocity):
        together.append(velocity.detach())
        velocity.square().mean().backward()

    visit(pipe, rollout, [point], on_velocity)
    assert gradient(pipe).norm() > 0
    alone = [velocities(pipe, rollout, [Visit(t[b] * 1000, point.latents[b : b + 1])])[0] for b in range(GROUP)]
    assert (together[0] - torch.cat(alone)).abs().max() <= 1e-5
    chunked = velocities(pipe, replace(rollout, chunk=2), [point])[0]
    assert (together[0] - chunked).abs().max() <= 1e-5
    assert velocities(pipe, rollout, []) == []


def test_the_reference_is_the_same_weights_without_the_lora():
    pipe, call = tiny_pipeline("kontext", guided=True, steps=STEPS)
    rollout = record(pipe, call, seeds=SEEDS, window=WINDOW)
    visits = [step.visit() for step in rollout.transitions]
    flags = [p.requires_grad for p in pipe.transformer.parameters()]
    with without_adapters(*denoisers(pipe)):
        reference = velocities(pipe, rollout, visits)
    assert [p.requires_grad for p in pipe.transformer.parameters()] == flags
    current = velocities(pipe, rollout, visits)
    kl = [
        step.noise.kl(*pair).min().item() for step, *pair in zip(rollout.transitions, current, reference, strict=True)
    ]
    assert min(kl) > 0
    pipe.transformer.delete_adapters("default")
    assert all(torch.equal(*pair) for pair in zip(velocities(pipe, rollout, visits), reference, strict=True))
    with pytest.raises(ConfigError, match="there is no adapter"), without_adapters(pipe.transformer):
        pass
    trained, _ = tiny_pipeline("kontext")
    trained.transformer.x_embedder.requires_grad_(True)
    with (
        pytest.raises(ConfigError, match=r"x_embedder.weight is trained outside any adapter"),
        without_adapters(trained.transformer),
    ):
        pass


def traces(pipe):
    """Everything that a call could leave behind on the pipeline, its scheduler and its components."""
    parts = [pipe, pipe.scheduler, *(c for c in pipe.components.values() if isinstance(c, torch.nn.Module))]
    return [dict(vars(part)) for part in parts], dict(pipe.config), pipe.scheduler.timesteps.tolist()


def random_states():
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()


def test_the_pipeline_is_untouched_afterwards():
    pipe, call = tiny_pipeline("kontext", guided=True, steps=STEPS)
    with without_adapters(pipe.transformer):
        before_pixels = pipe(**call, generator=torch.Generator().manual_seed(1)).images
    scheduler, before, drawn = pipe.scheduler, traces(pipe), random_states()
    rollout = record(pipe, call, seeds=SEEDS, window=WINDOW)
    replay(pipe, rollout)
    assert pipe.scheduler is scheduler
    assert torch.is_grad_enabled()
    assert random_states() == drawn
    assert str(traces(pipe)) == str(before)
    for p in lora_parameters(pipe).values():  # an update of the adapter changes nothing beneath it
        p.data -= 0.1 * p.grad
    with without_adapters(pipe.transformer):
        after_pixels = pipe(**call, generator=torch.Generator().manual_seed(1)).images
    assert torch.equal(before_pixels, after_pixels)


def test_errors_leave_unchanged_and_leave_no_trace():
    pipe, call = tiny_pipeline("kontext", steps=STEPS)
    rollout = record(pipe, call, seeds=SEEDS, window=WINDOW)
    visits = [step.visit() for step in rollout.transitions]
    before, drawn, calls = str(traces(pipe)), random_states(), []

    def from_the_loss(index, _):
        calls.append(index)
        raise KeyError("from the loss")

    def from_a_callback(*_):
        raise KeyError("from a callback")

    for grad in (True, False):
        with pytest.raises(KeyError, match="from the loss"):
            visit(pipe, rollout, visits, from_the_loss, grad=grad)
    assert calls == [0, 0]  # asked once, not again by another way of entering the loop
    with pytest.raises(KeyError, match="from a callback"):
        record(pipe, {**call, "callback_on_step_end": from_a_callback}, seeds=SEEDS, window=WINDOW)
    assert torch.is_grad_enabled()
    assert random_states() == drawn
    assert str(traces(pipe)) == before


def test_a_condition_that_changed_is_encoded_anew_and_noticed_by_the_ratio():
    pipe, call = tiny_pipeline(steps=STEPS)
    rollout = record(pipe, call, seeds=SEEDS, window=WINDOW)
    misses = rollout.tape.misses
    changed = replace(rollout, call={**call, "image": picture(64, seed=1)})
    assert error(replay(pipe, changed)) > 1e-5
    assert rollout.tape.misses == misses + 1


def test_latents_changed_between_steps_are_noticed():
    """A callback that moves the latents in sampling only: the recorded path cannot be walked."""
    pipe, call = tiny_pipeline(steps=STEPS)
    rollout = record(pipe, call, seeds=SEEDS, window=WINDOW)

    def nudge(pipe, step, timestep, values):
        return {"latents": values["latents"] + 0.1}

    with pytest.raises(ReplayError, match="changed the latents"):
        replay(pipe, replace(rollout, call={**call, "callback_on_step_end": nudge}))


def test_a_pipeline_with_its_own_timesteps_is_noticed():
    pipe, call = tiny_pipeline(steps=STEPS)
    rollout = record(pipe, call, seeds=SEEDS, window=WINDOW)
    point = rollout.transitions[0].visit()

    class Short(type(pipe)):
        @torch.no_grad()
        def __call__(self, num_images_per_prompt=1, **arguments):
            self.scheduler.set_timesteps(2)
            self.scheduler.step(point.latents, point.timestep, point.latents)

    class Elsewhere(type(pipe)):
        @torch.no_grad()
        def __call__(self, num_images_per_prompt=1, **arguments):
            self.scheduler.set_timesteps(2)
            self.scheduler.step(point.latents, point.timestep / 2, point.latents)

    visits = [step.visit() for step in rollout.transitions]
    pipe.__class__ = Short
    with pytest.raises(ReplayError, match="made 1 of 3 visits"):
        visit(pipe, rollout, visits, lambda *_: None)
    pipe.__class__ = Elsewhere
    with pytest.raises(ReplayError, match="at timestep 500"):
        visit(pipe, rollout, visits, lambda *_: None)


@pytest.mark.parametrize(
    ("call", "options", "message"),
    [
        ({"latents": None}, {}, "latents: set by the rollout"),
        ({"num_images_per_prompt": 2}, {}, "num_images_per_prompt: set by the rollout"),
        ({}, {"seeds": []}, "at least one seed"),
        ({}, {"seeds": [2**32]}, "2\\*\\*32 - 1"),
        ({}, {"seeds": [-1]}, "got -1"),
        ({}, {"start_seeds": [1]}, "1 start_seeds for 3 seeds"),
        ({}, {"window": [9]}, r"steps \[9\], but 4 steps were made"),
        ({}, {"sampler": "euler"}, "unknown sampler 'euler'"),
        ({}, {"sampler": "cps", "window": [3]}, "step 3 adds no noise"),
        ({}, {"noise_level": 0.0}, "step 0 adds no noise"),
    ],
)
def test_bad_arguments_are_refused(call, options, message):
    pipe, own = tiny_pipeline(steps=STEPS)
    with pytest.raises(ConfigError, match=message):
        record(pipe, {**own, **call}, **{"seeds": SEEDS, "window": WINDOW, **options})
    with pytest.raises(ConfigError):
        record_group(pipe, own, seeds=SEEDS, chunk=0, window=WINDOW)
