"""The edit trainer and its judge: overlap changes no weight, a dead judge costs no update."""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from editr1_plugins.errors import ConfigError, JudgeUnavailableError
from editr1_plugins.reward.rrm import EditRRMReward
from editr1_plugins.testing.pipelines import picture, tiny_pipeline
from editr1_plugins.training import edit_trainer
from editr1_plugins.training import judging as judging_module
from editr1_plugins.training.edit_grpo import EditGRPOConfig, EditGRPOTrainer
from editr1_plugins.types import Edit, Verification

ROWS = 6
GROUP = 2


def redness(image: Any) -> float:
    pixels = np.asarray(image, np.float32)
    return float(pixels[..., 0].mean() - pixels[..., 1:].mean()) / 10


class Redness:
    """A row-wise reward, and by its flag one that is called once."""

    def __init__(self, row_wise: bool = True) -> None:
        self.row_wise, self.__name__ = row_wise, "redness"
        self.calls = 0

    def __call__(self, completions: Any, log_metric: Any, log_extra: Any, **_: Any) -> list[float]:
        self.calls += 1
        log_metric("rows", len(completions))
        log_extra("note", [str(round(redness(image), 3)) for image in completions])
        return [redness(image) for image in completions]


def trainer(folder: Path, reward: Any, **changes: Any) -> EditGRPOTrainer:
    pipe, call = tiny_pipeline("kontext", lora_rank=4)
    set_by_trainer = ("image", "prompt", "num_inference_steps", "output_type")
    options: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": GROUP,
        "gradient_accumulation_steps": 3,
        "num_generations": GROUP,
        "num_inference_steps": 3,
        "max_steps": 2,
        "learning_rate": 5e-3,
        "pipeline_kwargs": {name: value for name, value in call.items() if name not in set_by_trainer},
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "preflight": False,
    }
    more = {name: changes.pop(name) for name in ("eval_dataset", "callbacks", "cls") if name in changes}
    rows = Dataset.from_list([{"image": picture(32, seed), "prompt": "make the sky red"} for seed in range(ROWS)])
    cls = more.pop("cls", EditGRPOTrainer)
    built: EditGRPOTrainer = cls(pipe, reward, EditGRPOConfig(**{**options, **changes}), rows, **more)
    return built


def weights(of: EditGRPOTrainer) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in of.policy.parameters]


def same_weights(one: EditGRPOTrainer, other: EditGRPOTrainer) -> bool:
    return all(torch.equal(*pair) for pair in zip(weights(one), weights(other), strict=True))


def history(of: EditGRPOTrainer, name: str) -> list[float]:
    return [logs[name] for logs in of.state.log_history if name in logs]


SETTINGS = {
    "plain": {},
    "passes smaller than groups": {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 6},
    "batch std": {"scale_rewards": "batch"},
    "each reward normalised": {"multi_objective_aggregation": "normalize_then_sum"},
    "two updates a rollout": {"gradient_accumulation_steps": 1, "steps_per_generation": 3, "max_steps": 6},
    "two iterations": {"num_iterations": 2, "max_steps": 4},
    "two rollouts an update": {"gradient_accumulation_steps": 4, "steps_per_generation": 2},
    "no KL": {"beta": 0.0},
    "nft": {"objective": "nft"},
}


def cases(settings: dict[str, Any], *quick: str) -> list[Any]:
    """All settings, of which only some run by default."""
    marks = {name: () if name in quick else (pytest.mark.slow,) for name in settings}
    return [
        pytest.param(*(value if isinstance(value, tuple) else (value,)), id=name, marks=marks[name])
        for name, value in settings.items()
    ]


@pytest.mark.parametrize("changes", cases(SETTINGS, "plain", "two updates a rollout"))
def test_overlap_changes_nothing(tmp_path: Path, changes: dict[str, Any]) -> None:
    serial, overlapped = Redness(row_wise=False), Redness(row_wise=True)
    one, other = trainer(tmp_path, serial, **changes), trainer(tmp_path, overlapped, **changes)
    start = weights(one)
    one.train()
    other.train()
    assert overlapped.calls == serial.calls * one.args.generation_batch_size // GROUP
    assert same_weights(one, other)
    assert not all(torch.equal(*pair) for pair in zip(start, weights(one), strict=True))
    for name in ("reward", "reward_std", "loss", "grad_norm"):
        assert history(one, name) == history(other, name), name


def test_earlier_groups_are_replayed_while_the_last_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replayed, order, groups = threading.Event(), [], itertools.count(1)

    def reward(completions: Any, **_: Any) -> list[float]:
        if next(groups) == ROWS // GROUP:
            order.append("waited" if replayed.wait(60) else "gave up")
        return [redness(image) for image in completions]

    accumulate = edit_trainer.accumulate

    def watched(*args: Any, **kwargs: Any) -> Any:
        found = accumulate(*args, **kwargs)
        replayed.set()
        return found

    monkeypatch.setattr(edit_trainer, "accumulate", watched)
    run = trainer(tmp_path, reward, judge_calls="group", max_steps=1)
    run.train()
    assert order == ["waited"]
    assert history(run, "judge_wait")[0] < 30


def test_the_whole_batch_is_there_for_rewards_that_compare_it(tmp_path: Path) -> None:
    def rank(completions: Any, **_: Any) -> list[float]:
        values = [redness(image) for image in completions]
        return [float(sorted(values).index(value)) for value in values]

    run = trainer(tmp_path, rank, max_steps=1)
    run.train()
    assert history(run, "reward") == [2.5]  # ranks 0..5, which no call by groups could give


def test_an_override_of_the_advantages_sees_all_rows(tmp_path: Path) -> None:
    seen: list[int] = []

    class Watching(EditGRPOTrainer):
        def compute_advantages(self, rewards: torch.Tensor) -> Any:
            seen.append(int((~rewards.isnan()).sum()))
            return super().compute_advantages(rewards)

    trainer(tmp_path, Redness(), cls=Watching, max_steps=2).train()
    assert seen == [6, 6]


def test_notes_of_all_groups_are_printed_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trainer(tmp_path, Redness(), log_completions=True, max_steps=1)
    run.train()
    lines = [line for line in capsys.readouterr().out.splitlines() if "note: " in line]
    assert len(lines) == ROWS
    for line in lines:
        assert float(line.split("note: ")[1]) == pytest.approx(float(line.split("redness ")[1].split(" ")[0]), abs=0.01)
    assert history(run, "rows") == [GROUP]


# A judge that is away


class Judge:
    """A verifier whose server is away during some calls."""

    identity = "judge/1"
    prompt_version = "v1"

    def __init__(self, away: Any = ()) -> None:
        self.away, self.calls = away, 0

    def verify(self, edits: list[Edit], principles: Any) -> list[Verification]:
        self.calls += 1
        if self.calls in self.away:
            return [Verification(score=None, failure="connection: refused", samples=0) for _ in edits]
        return [Verification(score=min(10.0, max(0.0, 5 + redness(edit.edited)))) for edit in edits]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging_module, "FIRST_WAIT", 0.01)


def judged(away: Any = ()) -> EditRRMReward:
    return EditRRMReward(Judge(away), guards=())


LOST = {
    "first rollout": (range(2, 10**9), {}, 0),
    "third rollout": (range(8, 10**9), {}, 2),
    "two updates a rollout": (range(4, 10**9), {"gradient_accumulation_steps": 1, "steps_per_generation": 3}, 3),
    "ema": (range(4, 10**9), {"ema_decay": 0.9}, 1),
    "in the midst of an update": (range(9, 10**9), {"gradient_accumulation_steps": 4, "steps_per_generation": 2}, 2),
}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("away", "changes", "step"), cases(LOST, "first rollout"))
def test_a_dead_judge_ends_the_run_which_goes_on_exactly(
    tmp_path: Path, away: Any, changes: dict[str, Any], step: int
) -> None:
    options = {"max_steps": 6 if "steps_per_generation" in changes else 3, **changes}
    whole = trainer(tmp_path / "whole", judged(), **options)
    whole.train()
    lost = trainer(tmp_path / "lost", judged(away), judge_patience=0.1, **options)
    with pytest.raises(JudgeUnavailableError, match=f"connection: refused.*checkpoint-{step}.*resume_from_checkpoint"):
        lost.train()
    assert [path.name for path in (tmp_path / "lost").glob("checkpoint-*")] == [f"checkpoint-{step}"]
    resumed = trainer(tmp_path / "lost", judged(), judge_patience=0.1, **options)
    resumed.train(resume_from_checkpoint=True)
    assert same_weights(whole, resumed)
    assert history(whole, "reward") == history(resumed, "reward")


@pytest.mark.usefixtures("quick")
def test_the_last_checkpoint_stands_where_none_could_be_resumed_from(tmp_path: Path) -> None:
    options = {"num_iterations": 2, "max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    rows = Dataset.from_list([{"image": picture(32, 9), "prompt": "make the sky red"}])
    # Evaluated after the third update, in the midst of the second rollout's passes.
    evaluation = {"eval_strategy": "steps", "eval_steps": 3, "eval_num_inference_steps": 2, "eval_dataset": rows}
    lost = trainer(tmp_path, judged(range(7, 10**9)), judge_patience=0.1, **options, **evaluation)
    with pytest.raises(JudgeUnavailableError, match="goes on from the last one"):
        lost.train()
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]


@pytest.mark.usefixtures("quick")
def test_a_judge_that_comes_back_costs_nothing(tmp_path: Path) -> None:
    whole, paused = trainer(tmp_path, judged()), trainer(tmp_path, judged([2, 3, 4, 5]), judge_patience=60.0)
    whole.train()
    paused.train()
    assert same_weights(whole, paused)


def test_without_patience_the_run_goes_on_unjudged(tmp_path: Path) -> None:
    run = trainer(tmp_path, judged(range(1, 10**9)), judge_patience=None)
    run.train()
    assert history(run, "frac_unscored") == [1.0, 1.0]
    assert history(run, "edit_rrm_Judge/unavailable_rate") == [1.0, 1.0]


TWO_PROCESSES = """
    import os
    import sys
    from accelerate import Accelerator
    from editr1_plugins.training.judging import Judge
    from editr1_plugins.training.pending import agreed_judgement
    from editr1_plugins.training.reward_call import RewardFunctions

    accelerator, faults = Accelerator(cpu=True), sys.argv[1:]
    assert accelerator.num_processes == 2
    def say(*words):  # one write, which the other process cannot break into
        os.write(1, ("RESULT " + " ".join(map(str, words)) + chr(10)).encode())
    def reward(**_):
        fault = faults[accelerator.process_index]
        if fault != "fine":
            raise {"away": ConnectionError, "wrong": KeyError}[fault]("it is " + fault)
        return [1.0]
    judging = Judge(RewardFunctions([reward]), patience=0.0).begin([{"prompt": "p"}], None)
    judging.submit(slice(0, 1), ["edit"])
    judging.finish()
    try:
        say(agreed_judgement(judging, accelerator).rewards.item())
    except Exception as error:
        say(type(error).__name__, error)
    accelerator.end_training()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("faults", "said"),
    [
        (("fine", "away"), ("JudgeUnavailableError process 1", "JudgeUnavailableError reward")),
        (("away", "wrong"), ("ComponentError a reward function failed on process 1", "KeyError")),
        (("fine", "fine"), ("1.0", "1.0")),
    ],
)
def test_processes_end_together(tmp_path: Path, faults: tuple[str, str], said: tuple[str, str]) -> None:
    script = tmp_path / "two.py"
    script.write_text(textwrap.dedent(TWO_PROCESSES))
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", str(script)]
    done = subprocess.run([*launch, *faults], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    results = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    assert len(results) == 2
    for words in said:
        assert any(words in line for line in results), results


def test_a_reward_that_raises_ends_the_run_and_leaves_no_thread(tmp_path: Path) -> None:
    def broken(**_: Any) -> list[float]:
        raise ZeroDivisionError("half a pixel")

    with pytest.raises(ZeroDivisionError, match="half a pixel"):
        trainer(tmp_path, broken, judge_calls="group").train()
    for thread in threading.enumerate():
        if thread.name == "editr1-judge":
            thread.join(10)
            assert not thread.is_alive()


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"judge_calls": "batch"}, "one of auto, group, rollout"), ({"judge_patience": -1.0}, "judge_patience=-1")],
)
def test_settings_that_cannot_be_are_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        trainer(tmp_path, Redness(), **changes)


@pytest.mark.parametrize("aggregation", ["sum_then_normalize", "normalize_then_sum"])
def test_several_rewards_are_weighted_as_asked(tmp_path: Path, aggregation: str) -> None:
    """Advantages in the trainer, against the two published formulas."""
    found: list[tuple[torch.Tensor, torch.Tensor]] = []

    class Watching(EditGRPOTrainer):
        def compute_advantages(self, rewards: torch.Tensor) -> Any:
            made = super().compute_advantages(rewards)
            found.append((rewards.double(), made.values))
            return made

    def blueness(completions: Any, **_: Any) -> list[float]:
        return [float(np.asarray(image, np.float32)[..., 2].mean()) for image in completions]

    options = {"multi_objective_aggregation": aggregation, "reward_weights": [1.0, 0.25], "max_steps": 1}
    sizes = {"num_generations": 3, "per_device_train_batch_size": 3, "gradient_accumulation_steps": 2}
    run = trainer(tmp_path, [Redness(), blueness], cls=Watching, **sizes, **options)
    run.train()
    (rewards, advantages), weight = found[0], torch.tensor([1.0, 0.25]).double()
    groups = rewards.view(2, 3, 2)
    if aggregation == "sum_then_normalize":
        total = groups @ weight
        expected = (total - total.mean(1, keepdim=True)) / (total.std(1, keepdim=True) + 1e-4)
    else:
        each = (groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-4)
        total = each @ weight
        expected = (total - total.mean()) / (total.std() + 1e-4)
    assert torch.allclose(advantages.double(), expected.flatten(), atol=1e-5)
    assert history(run, "reward")[0] == pytest.approx(float((rewards @ weight).mean()), abs=1e-4)


@pytest.mark.usefixtures("quick")
def test_a_server_that_is_not_there_is_a_dead_judge(tmp_path: Path) -> None:
    from editr1_plugins.verifiers.openai import OpenAIVerifier

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    verifier = OpenAIVerifier("judge", f"http://127.0.0.1:{port}/v1", max_retries=0)
    run = trainer(tmp_path, EditRRMReward(verifier, guards=()), judge_patience=0.2)
    with pytest.raises(JudgeUnavailableError, match=f"connection: .*127.0.0.1:{port}"):
        run.train()
    assert (tmp_path / "checkpoint-0").is_dir()
