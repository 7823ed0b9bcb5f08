"""The loop of `integrations/diffusers/own_loop.py`: each update is the one that `EditGRPOTrainer` makes."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxKontextPipeline

from editr1_plugins.adapters.scorer import HostScorer
from editr1_plugins.errors import ReplayError, UnscoredError
from editr1_plugins.miniedit.model import load_pipeline
from editr1_plugins.miniedit.pairs import edit_dataset, split_tasks
from editr1_plugins.reward.rrm import EditRRMReward
from editr1_plugins.testing.adapter_contract import OneQuestion, ShadeVerifier
from editr1_plugins.training.edit_grpo import EditGRPOConfig, EditGRPOTrainer
from editr1_plugins.training.generation import derived_seed
from editr1_plugins.types import Edit, Verification

SCRIPT = Path(__file__).parent.parent.parent / "integrations/diffusers/own_loop.py"
ROWS = edit_dataset(split_tasks(6, seed=3, held_out=False))
SEED, UPDATES = 5, 2


@pytest.fixture(scope="module")
def loop() -> Iterator[ModuleType]:
    """The script as a module; and one thread, which is faster for tiny networks."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    spec = spec_from_file_location("own_loop", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["own_loop"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["own_loop"]
    torch.set_num_threads(before)


class Brightness(ShadeVerifier):
    """Scores by the mean of all pixels, so that no two edits are alike; exact in float32, as trainers keep rewards."""

    def _judged(self, edit: Edit, asked: Any) -> Verification:
        return Verification(score=round(float(np.asarray(edit.edited).mean()) / 25.5 * 2**16) / 2**16)


def reward(verifier: Any = None) -> EditRRMReward:
    return EditRRMReward(verifier or Brightness(), OneQuestion(), guards=())


def small(loop: ModuleType, **changes: Any) -> Any:
    return replace(loop.TINY, **{"steps": 4, "groups": 2, "group_size": 4, "batch": 4, "rank": 4, **changes})


def prepared(loop: ModuleType) -> tuple[Any, list[torch.nn.Parameter]]:
    """MiniEdit's Kontext with the loop's LoRA; its B matrices are not zero, so that gradients reach A as well."""
    pipe = load_pipeline()
    torch.manual_seed(1)
    parameters = loop.add_lora(pipe, 4)
    for name, parameter in pipe.transformer.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return pipe, parameters


def trainers_groups(loop: ModuleType, recipe: Any, number: int) -> list[Any]:
    """The groups of the trainer's `number`-th rollout, with its seeds."""
    size, groups = recipe.group_size, []
    for index in range(recipe.groups):
        row = ROWS[number * recipe.groups + index]
        seeds = [derived_seed(SEED, "row", number, index * size + position) for position in range(size)]
        start = derived_seed(SEED, "group", number, index)
        groups.append(loop.Group(image=row["image"], prompt=row["prompt"], seeds=seeds, start=start))
    return groups


def trained_by_the_trainer(pipe: Any, optimizer: Any, recipe: Any, folder: Path) -> list[dict[str, float]]:
    args = EditGRPOConfig(
        output_dir=str(folder),
        seed=SEED,
        max_steps=UPDATES,
        per_device_train_batch_size=recipe.batch,
        gradient_accumulation_steps=recipe.groups * recipe.group_size // recipe.batch,
        num_generations=recipe.group_size,
        num_inference_steps=recipe.steps,
        pipeline_kwargs=dict(recipe.call),
        window_range=[recipe.window[0], recipe.window[-1] + 1],
        noise_level=recipe.noise_level,
        shared_noise=True,
        epsilon=recipe.epsilon,
        beta=0.0,
        scale_rewards=recipe.scale_rewards,
        max_grad_norm=recipe.max_grad_norm,
        shuffle_dataset=False,
        preflight=False,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    trainer = EditGRPOTrainer(pipe, reward(), args, ROWS, optimizers=(optimizer, constant))
    trainer.train()
    return [logs for logs in trainer.state.log_history if "reward" in logs]


def flat(parameters: list[torch.nn.Parameter]) -> torch.Tensor:
    return torch.cat([parameter.detach().double().flatten() for parameter in parameters])


def far(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def keeping(cls: type, parameters: list[torch.nn.Parameter], **options: Any) -> tuple[Any, list[torch.Tensor]]:
    """An optimizer, and the gradients that each of its steps got."""
    optimizer, seen = cls(parameters, **options), list[torch.Tensor]()

    def keep(*_: Any) -> None:
        seen.append(torch.cat([parameter.grad.double().flatten() for parameter in parameters]))

    optimizer.register_step_pre_hook(keep)
    return optimizer, seen


@pytest.mark.parametrize(
    ("cls", "options", "changes"),
    [
        (torch.optim.SGD, {"lr": 1.0}, {"max_grad_norm": float("inf")}),
        (torch.optim.SGD, {"lr": 1.0}, {"max_grad_norm": float("inf"), "batch": 2, "scale_rewards": "group"}),
        pytest.param(
            *(torch.optim.AdamW, {"lr": 4e-3, "weight_decay": 1e-2}, {"max_grad_norm": 1e-3}), marks=pytest.mark.slow
        ),
    ],
    ids=["gradients", "in passes of two", "AdamW, clipped"],
)
def test_updates_are_those_of_the_trainer(
    loop: ModuleType, tmp_path: Path, cls: type, options: dict[str, Any], changes: dict[str, Any]
) -> None:
    recipe = small(loop, **changes)
    (own_pipe, own), (theirs_pipe, theirs) = prepared(loop), prepared(loop)
    before = flat(own)
    assert torch.equal(before, flat(theirs))

    optimizer, gradients = keeping(cls, own, **options)
    scorer = HostScorer(reward())
    logs = [
        loop.update(own_pipe, trainers_groups(loop, recipe, number), scorer, optimizer, recipe)
        for number in range(UPDATES)
    ]
    optimizer, expected = keeping(cls, theirs, **options)
    trainer_logs = trained_by_the_trainer(theirs_pipe, optimizer, recipe, tmp_path)
    assert len(gradients) == len(expected) == UPDATES
    assert far(gradients[0], expected[0]) <= 1e-6
    # From here on, the weights themselves are rounded differently.
    assert far(gradients[1], expected[1]) <= 1e-4
    assert far(flat(own) - before, flat(theirs) - before) <= 1e-4
    assert [each["editr1/score"] for each in logs] == pytest.approx([each["reward"] for each in trainer_logs], abs=1e-4)
    assert max(each["ratio_error"] for each in [*logs, *trainer_logs]) <= 1e-6


def test_the_pipeline_has_its_own_scheduler_again_and_edits_as_before(loop: ModuleType) -> None:
    pipe, parameters = prepared(loop)
    recipe = small(loop)
    scheduler, config, call = pipe.scheduler, dict(pipe.scheduler.config), trainers_groups(loop, recipe, 0)[0]
    edit = pipe(**call.call(recipe), generator=torch.Generator().manual_seed(1)).images[0].tobytes()
    still = torch.optim.SGD(parameters, lr=0.0)
    loop.update(pipe, trainers_groups(loop, recipe, 0), HostScorer(reward()), still, recipe)
    assert pipe.scheduler is scheduler
    assert dict(pipe.scheduler.config) == config
    assert type(pipe) is FluxKontextPipeline
    assert pipe(**call.call(recipe), generator=torch.Generator().manual_seed(1)).images[0].tobytes() == edit


def test_it_is_put_back_also_when_the_judge_fails(loop: ModuleType) -> None:
    class Silent(ShadeVerifier):
        def _judged(self, edit: Edit, asked: Any) -> Verification:
            return Verification(score=None, failure="refused: told to")

    pipe, parameters = prepared(loop)
    scheduler, before, recipe = pipe.scheduler, flat(parameters), small(loop)
    groups, optimizer = trainers_groups(loop, recipe, 0), torch.optim.SGD(parameters, lr=1.0)
    with pytest.raises(UnscoredError, match="8 of 8 edits have no score; edit 0: refused: told to"):
        loop.update(pipe, groups, HostScorer(reward(Silent())), optimizer, recipe)
    assert pipe.scheduler is scheduler
    assert torch.equal(flat(parameters), before)


def test_an_edit_that_was_not_judged_takes_no_part(loop: ModuleType) -> None:
    """Its number in other hosts is the mean of the group; here it is left out, also of the group's deviation."""

    class Misses(Brightness):
        def _judged(self, edit: Edit, asked: Any) -> Verification:
            self.seen.append((edit.source.size, edit.edited.size, edit.instruction))
            missing = len(self.seen) == 2
            return Verification(score=None, failure="timeout: 3 s") if missing else super()._judged(edit, asked)

    pipe, parameters = prepared(loop)
    recipe = small(loop, groups=1, group_size=4, scale_rewards="group", max_grad_norm=float("inf"))
    [group] = trainers_groups(loop, small(loop, groups=1), 0)

    def gradient(of: Any, judge: Any, size: int) -> tuple[torch.Tensor, float]:
        optimizer, gradients = torch.optim.SGD(parameters, lr=0.0), list[torch.Tensor]()
        optimizer.register_step_pre_hook(lambda *_: gradients.extend(p.grad.double().flatten() for p in parameters))
        found = loop.update(pipe, [of], HostScorer(reward(judge)), optimizer, replace(recipe, group_size=size))
        return torch.cat(gradients), found["editr1/missing"]

    without = replace(group, seeds=[group.seeds[index] for index in (0, 2, 3)])
    (of_four, missing), (of_three, none_missing) = gradient(group, Misses(), 4), gradient(without, Brightness(), 3)
    assert (missing, none_missing) == (0.25, 0.0)
    assert far(of_four, of_three * 3 / 4) <= 1e-4  # a mean over four rows instead of three is the only difference


def test_a_replay_that_is_not_what_was_sampled_ends_the_loop(loop: ModuleType) -> None:
    pipe, parameters = prepared(loop)
    recipe = small(loop)
    optimizer, scorer = torch.optim.SGD(parameters, lr=0.1), HostScorer(reward())

    class Meddles(ShadeVerifier):
        """Changes the weights between sampling and replay."""

        def verify(self, edits: Any, principles: Any) -> list[Verification]:
            for parameter in parameters:
                parameter.data.mul_(3.0)
            return reward().score(edits)

    loop.update(pipe, trainers_groups(loop, recipe, 0), scorer, optimizer, recipe)
    with pytest.raises(ReplayError, match="at unchanged weights"):
        loop.update(pipe, trainers_groups(loop, recipe, 1), HostScorer(reward(Meddles())), optimizer, recipe)


def test_the_lines_of_the_readme_are_an_update(loop: ModuleType) -> None:
    pipe, parameters = prepared(loop)
    before, row = flat(parameters), ROWS[0]
    given = {
        **vars(loop),
        "pipe": pipe,
        "call": {**loop.CALL, "image": row["image"], "prompt": row["prompt"], "num_inference_steps": 4},
        "source": row["image"],
        "prompt": row["prompt"],
        "scorer": HostScorer(reward()),
        "objective": loop.FlowGRPO(),
        "optimizer": torch.optim.SGD(parameters, lr=1.0),
    }
    lines = (SCRIPT.parent / "README.md").read_text().split("```python\n")[1].split("```")[0]
    exec(compile(lines, "README.md", "exec"), given)
    assert far(flat(parameters), before) > 0


def test_the_command_trains_and_saves_a_lora_that_diffusers_loads(
    loop: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = loop.main(["--updates", "1", "--output", str(tmp_path)])
    assert len(logs) == 1
    assert logs[0]["ratio_error"] <= 1e-6
    assert "update 1: editr1/missing 0, editr1/score" in capsys.readouterr().out
    pipe = load_pipeline()
    pipe.load_lora_weights(str(tmp_path))
    assert any("lora_" in name for name, _ in pipe.transformer.named_parameters())


@pytest.mark.slow
def test_the_default_run_gets_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--output", str(tmp_path)])
    logs = runpy.run_path(str(SCRIPT))["main"]([])
    scores = [each["editr1/score"] for each in logs]
    assert np.mean(scores[-10:]) > np.mean(scores[:10]) + 0.5
