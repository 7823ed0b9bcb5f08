"""Two processes (gloo, CPU) against one: the same global batch is the same update, replicated or sharded by FSDP2.

This file is also the program of the two processes: `torchrun ... test_distributed.py FOLDER CASE [CASE ...]`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from datasets import Dataset
from diffusers import FluxTransformer2DModel
from peft import LoraConfig
from transformers import TrainerCallback

from editr1_plugins.errors import ConfigError
from editr1_plugins.testing.pipelines import lora_parameters, picture, tiny_pipeline
from editr1_plugins.training.edit_grpo import EditGRPOConfig, EditGRPOTrainer
from editr1_plugins.training.parallel import check_launch, sharded
from editr1_plugins.training.rollout import velocities, without_adapters

ROWS = 6
FSDP = {"fsdp": True, "fsdp_config": {"version": 2}}

#: Settings of one process; two take half of the `halved` setting each.
CASES: dict[str, dict[str, Any]] = {
    "lora": {
        "ema_decay": 0.5,
        "eval_strategy": "steps",
        "eval_steps": 1,
        "eval_num_inference_steps": 2,
        "per_device_eval_batch_size": 2,
    },
    "group over processes": {
        "num_generations": 8,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "halved": "gradient_accumulation_steps",
        "window": 1,
        "num_inference_steps": 4,
    },
    "accumulation": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
    "iterations": {"num_iterations": 2, "max_steps": 4},
    "one process idle": {"beta": 0.0, "reward": "half"},
    "nothing judged at first": {"beta": 0.0, "reward": "late", "max_steps": 3},
    # One update by its gradient: a new adapter begins at 0, so nothing hides what Adam and rewards make of rounding.
    "new adapter": {"adapter": "new", "optim": "sgd", "learning_rate": 0.5, "max_steps": 1},
    "unlike adapters": {"adapter": "unlike"},
    "full": {"full": True, "learning_rate": 1e-4, "beta": 1.0},
}
SHARDED = {f"fsdp {name}": {**CASES[name], **FSDP} for name in ("lora", "one process idle", "accumulation", "full")}
SHARDED["fsdp full"]["fsdp_config"] = {"version": 2, "state_dict_type": "SHARDED_STATE_DICT"}
SHARDED["fsdp lora checkpointing"] = {**SHARDED["fsdp lora"], "activation_checkpointing": True}
#: Two of the replicated cases run by default; the processes alone take a quarter of a minute to start.
QUICK = ("lora", "new adapter")
SLOW = ("fsdp accumulation", "fsdp lora checkpointing")


def redness(completions: list[Any], **_: Any) -> list[float]:
    pixels = [np.asarray(image, np.float32) for image in completions]
    return [float(p[..., 0].mean() - p[..., 1:].mean()) / 10 for p in pixels]


def half(completions: list[Any], prompts: list[str], **_: Any) -> list[float]:
    """Every other group (that of the second process) gets the same reward throughout."""
    second = int(os.environ.get("RANK", "0")) == 1
    found = redness(completions)
    alone = len(prompts) == 8
    return [0.0 if second or (alone and i >= 4) else value for i, value in enumerate(found)]


def noisy(completions: list[Any], **_: Any) -> list[float]:
    return [value + 0.1 * torch.rand(()).item() for value in redness(completions)]


def late(completions: list[Any], trainer_state: Any, **_: Any) -> list[float | None]:
    return [None] * len(completions) if trainer_state.global_step == 1 else list(redness(completions))


REWARDS = {"half": half, "late": late, "noisy": noisy, "redness": redness}


class Seen(TrainerCallback):
    """What each update was made from."""

    def __init__(self) -> None:
        self.trainer: Any = None
        self.found: list[Any] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        chunks = self.trainer._generation.chunks
        steps = [[t.index for t in chunk.rollout.transitions] for chunk in chunks]
        rows = [(chunk.rollout.call["prompt"], seed) for chunk in chunks for seed in chunk.rollout.seeds]
        self.found.append(
            {"rows": rows, "windows": [w for w, c in zip(steps, chunks, strict=True) for _ in c.rollout.seeds]}
        )


def build(folder: Path, name: str, processes: int, **changes: Any) -> EditGRPOTrainer:
    options = {**({**CASES, **SHARDED}[name]), **changes}
    halved = options.pop("halved", "per_device_train_batch_size")
    full, reward = options.pop("full", False), REWARDS[options.pop("reward", "redness")]
    adapter, rank = options.pop("adapter", ""), int(os.environ.get("RANK", "0"))
    pipe, call = tiny_pipeline("kontext", lora_rank=0 if full or adapter == "new" else 4)
    torch.manual_seed(rank)
    if adapter == "unlike":
        for parameter in lora_parameters(pipe).values():
            parameter.data += 0.01 * rank
    peft_config = LoraConfig(r=2, init_lora_weights="gaussian", target_modules=["to_q", "to_v"])
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "num_inference_steps": 3,
        "beta": 0.1,
        "max_steps": 2,
        "learning_rate": 5e-3,
        "max_grad_norm": 0.002,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "preflight": False,
        "pipeline_kwargs": {k: v for k, v in call.items() if k not in ("image", "prompt", "num_inference_steps")},
    }
    settings["pipeline_kwargs"].pop("output_type")
    settings |= options
    if processes == 1:
        settings = {k: v for k, v in settings.items() if k not in FSDP}
    else:
        settings[halved] //= processes
    rows = Dataset.from_list([{"image": picture(32, seed), "prompt": f"redder {seed}"} for seed in range(ROWS)])
    held_out = rows.select(range(5))  # not a multiple of the processes
    seen = Seen()
    lora = peft_config if adapter == "new" else None
    run = EditGRPOTrainer(pipe, reward, EditGRPOConfig(**settings), rows, held_out, lora, callbacks=[seen])
    seen.trainer = run
    return run


def outcome(run: EditGRPOTrainer) -> dict[str, Any]:
    """Whole weights and averages by name, and the logs; every process must call this."""

    def whole(tensors: Any) -> dict[str, torch.Tensor]:
        names = [name for name, p in run.policy.network.named_parameters() if p.requires_grad]
        found = [t.full_tensor() if hasattr(t, "full_tensor") else t for t in tensors]
        return {
            n.replace("_checkpoint_wrapped_module.", ""): t.detach().clone() for n, t in zip(names, found, strict=True)
        }

    logs = [
        {k: v for k, v in entry.items() if not any(word in k for word in ("time", "second", "wait"))}
        for entry in run.state.log_history
    ]
    average = {} if run.policy.ema is None else whole(run.policy.ema.shadow_params)
    (seen,) = (c for c in run.callback_handler.callbacks if isinstance(c, Seen))
    return {"weights": whole(run.policy.parameters), "average": average, "logs": logs, "seen": seen.found}


def train_case(folder: Path, name: str, processes: int, rank: int = 0) -> None:
    run = build(folder / "out", name, processes)
    run.train()
    torch.save(outcome(run), folder / f"{name}-{processes}-{rank}.pt")


def resume_case(folder: Path, name: str, processes: int, rank: int) -> None:
    """Train, then again from the checkpoint in the middle; the judge's noise is drawn from each process's generator."""
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "save_total_limit": 2, "reward": "noisy"}
    out = folder / f"resumed {name}"
    for _ in range(rank):
        torch.rand(1)
    whole = build(out, name, processes, **options)
    whole.train()
    again = build(out, name, processes, **options)
    again.train(resume_from_checkpoint=str(out / "checkpoint-2"))
    found = {"whole": outcome(whole), "again": outcome(again), "sharded": sharded(again.policy.network)}
    torch.save(found, folder / f"resume {name}-{processes}-{rank}.pt")


def ddp_case(folder: Path, processes: int, rank: int) -> None:
    """The gradient of the trainer's first update, and that of a step written by hand around torch's own DDP."""
    gradients: dict[str, torch.Tensor] = {}

    class Watch(TrainerCallback):
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            gradients.update({n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad})

    run = build(folder / "ddp", "lora", processes, max_steps=1, max_grad_norm=0.0)
    before = {n: p.detach().clone() for n, p in run.policy.network.named_parameters() if p.requires_grad}
    run.add_callback(Watch())
    run.train()
    with torch.no_grad():
        for name, parameter in run.policy.network.named_parameters():
            if name in before:
                parameter.copy_(before[name])
    by_hand = _step_by_hand(run)
    torch.save({"trainer": gradients, "by hand": by_hand}, folder / f"ddp-{processes}-{rank}.pt")


def _step_by_hand(run: EditGRPOTrainer) -> dict[str, torch.Tensor]:
    network, generation, called = run.pipe.transformer, run._generation, []
    wrapped = torch.nn.parallel.DistributedDataParallel(network)
    network.zero_grad()
    for chunk in generation.chunks:
        visits = [step.visit() for step in chunk.rollout.transitions]
        handle = network.register_forward_pre_hook(lambda _, args, kwargs: called.append(kwargs), with_kwargs=True)
        velocities(run.pipe, chunk.rollout, visits)
        handle.remove()
        with without_adapters(network):
            references = velocities(run.pipe, chunk.rollout, visits)
        for step, reference, kwargs in zip(chunk.rollout.transitions, references, called, strict=True):
            velocity = wrapped(**kwargs)[0][:, : step.x.shape[1]]
            new, ref = (
                torch.distributions.Normal(step.noise.on_x * step.x + step.noise.on_v * v, step.noise.std)
                for v in (velocity, reference)
            )
            ratio = (new.log_prob(step.x_next).mean((1, 2)) - step.log_prob).exp()
            kl = torch.distributions.kl_divergence(new, ref).mean((1, 2))
            loss = (-ratio * chunk.advantages + run.args.beta * kl).mean() / len(visits)
            loss.backward()  # DDP averages each; their sum is the average of the sums
        called.clear()
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.requires_grad}


def main(folder: Path, names: list[str]) -> None:
    torch.set_num_threads(1)
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    assert world == 2
    for name in names:
        if name == "ddp":
            ddp_case(folder, world, rank)
        elif name.startswith("resume "):
            resume_case(folder, name.removeprefix("resume "), world, rank)
        else:
            train_case(folder, name, world, rank)
        AcceleratorState._reset_state()
        os.environ.pop("ACCELERATE_USE_FSDP", None)


def launch(folder: Path, names: list[str]) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", __file__]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run([*command, str(folder), *names], env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]


@pytest.fixture(scope="module")
def replicated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("replicated")
    launch(folder, [*QUICK])
    return folder


@pytest.fixture(scope="module")
def replicated_longer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("replicated")
    launch(folder, [*(name for name in CASES if name not in QUICK), "resume lora", "ddp"])
    return folder


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    launch(folder, [name for name in SHARDED if name not in SLOW])
    return folder


@pytest.fixture(scope="module")
def split_longer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    launch(folder, [*SLOW, "resume fsdp lora", "resume fsdp full"])
    return folder


def compare(folder: Path, name: str, tmp_path: Path) -> None:
    train_case(tmp_path, name, 1)
    (one,) = (torch.load(path) for path in tmp_path.glob("*.pt"))
    first, second = (torch.load(folder / f"{name}-2-{rank}.pt") for rank in (0, 1))
    for part in ("weights", "average"):
        assert one[part].keys() == first[part].keys() == second[part].keys()
        for key, value in one[part].items():
            assert torch.equal(first[part][key], second[part][key]), key
            assert (first[part][key] - value).norm() <= 1e-5 * value.norm(), key
    assert len(one["logs"]) == len(first["logs"])
    assert any("eval_reward" in entry for entry in first["logs"]) is ("lora" in name)
    for single, both in zip(one["logs"], first["logs"], strict=True):
        assert single == {key: pytest.approx(value, rel=1e-3, abs=2e-6) for key, value in both.items()}
    for step, (single, a, b) in enumerate(zip(one["seen"], first["seen"], second["seen"], strict=True)):
        assert single["rows"] == a["rows"] + b["rows"], step
        assert single["windows"] == a["windows"] + b["windows"]


@pytest.mark.parametrize("name", QUICK)
def test_two_processes_make_the_update_of_one(replicated: Path, tmp_path: Path, name: str) -> None:
    compare(replicated, name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if name not in QUICK])
def test_two_processes_make_the_update_of_one_in_every_way(replicated_longer: Path, tmp_path: Path, name: str) -> None:
    compare(replicated_longer, name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SHARDED if name not in SLOW])
def test_sharded_weights_make_the_update_of_one_process(split: Path, tmp_path: Path, name: str) -> None:
    compare(split, name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_sharded_weights_wait_for_one_another(split_longer: Path, tmp_path: Path, name: str) -> None:
    compare(split_longer, name, tmp_path)


@pytest.mark.slow
def test_groups_have_their_size_from_the_first_step_and_may_span_processes(replicated_longer: Path) -> None:
    for name, size in (("one process idle", 4), ("group over processes", 8)):
        both = [torch.load(replicated_longer / f"{name}-2-{rank}.pt")["seen"] for rank in (0, 1)]
        for first, second in zip(*both, strict=True):
            rows = first["rows"] + second["rows"]
            groups = [rows[i : i + size] for i in range(0, len(rows), size)]
            assert all(len({prompt for prompt, _ in group}) == 1 for group in groups)
            assert len({group[0][0] for group in groups}) == len(groups)
            assert len({seed for _, seed in rows}) == len(rows) == 8
    assert first["windows"] == second["windows"]
    assert {len(window) for window in first["windows"]} == {1}


@pytest.mark.slow
def test_what_no_process_learned_from_moves_nothing(replicated_longer: Path) -> None:
    logs = torch.load(replicated_longer / "nothing judged at first-2-0.pt")["logs"]
    assert [entry["frac_unscored"] for entry in logs if "frac_unscored" in entry] == [0.0, 1.0, 0.0]
    assert [entry["groups_skipped"] for entry in logs if "groups_skipped" in entry] == [0.0, 2.0, 0.0]
    assert logs[1]["grad_norm"] == 0.0


@pytest.mark.slow
def test_the_gradient_is_that_of_ddp(replicated_longer: Path) -> None:
    for rank in (0, 1):
        found = torch.load(replicated_longer / f"ddp-2-{rank}.pt")
        assert found["trainer"].keys() == found["by hand"].keys()
        for name, gradient in found["trainer"].items():
            assert gradient.norm() > 0
            assert (gradient - found["by hand"][name]).norm() <= 1e-5 * gradient.norm(), name


def resumed_exactly(folder: Path, name: str, is_sharded: bool) -> None:
    for rank in (0, 1):
        found = torch.load(folder / f"resume {name}-2-{rank}.pt")
        assert found["sharded"] is is_sharded
        whole, again = found["whole"], found["again"]
        for part in ("weights", "average"):
            assert whole[part].keys() == again[part].keys()
            assert all(torch.equal(value, again[part][key]) for key, value in whole[part].items())
        assert whole["seen"][2:] == again["seen"]
        assert len([entry for entry in again["logs"] if "reward" in entry]) == 4
        assert whole["logs"][:-1] == again["logs"][:-1]  # the last one sums up the time of this run


@pytest.mark.slow
def test_two_processes_resume_bit_by_bit(replicated_longer: Path) -> None:
    resumed_exactly(replicated_longer, "lora", is_sharded=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fsdp lora", "fsdp full"])
def test_sharded_processes_resume_bit_by_bit(split_longer: Path, name: str) -> None:
    resumed_exactly(split_longer, name, is_sharded=True)


@pytest.mark.slow
def test_what_sharded_processes_save_is_plain_diffusers(split_longer: Path) -> None:
    state = torch.load(split_longer / "resume fsdp lora-2-0.pt")["again"]
    pipe, _ = tiny_pipeline("kontext", lora_rank=0)
    pipe.load_lora_weights(str(split_longer / "resumed fsdp lora" / "checkpoint-4"), adapter_name="default")
    loaded = dict(pipe.transformer.named_parameters())
    assert all(torch.equal(loaded[name], value) for name, value in state["average"].items())

    state = torch.load(split_longer / "resume fsdp full-2-0.pt")["again"]
    folder = split_longer / "resumed fsdp full" / "checkpoint-4" / "transformer"
    assert json.loads((folder / "config.json").read_text())["_class_name"] == "FluxTransformer2DModel"
    network = FluxTransformer2DModel.from_pretrained(folder)
    assert all(torch.equal(value, state["weights"][name]) for name, value in network.named_parameters())


def test_launches_that_cannot_work_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="fp16"):
        build(tmp_path, "lora", 1, fp16=True)
    config = EditGRPOConfig(
        output_dir=str(tmp_path),
        num_generations=4,
        per_device_train_batch_size=6,
        use_cpu=True,
        gradient_accumulation_steps=2,
    )
    config.fsdp_plugin_args = {"fsdp_version": 2}
    with pytest.raises(ConfigError, match="must divide num_generations"):
        check_launch(config)
    config.per_device_train_batch_size = 4
    check_launch(config)
    config.fsdp_plugin_args = {"fsdp_version": 1}
    with pytest.raises(ConfigError, match="version 1"):
        check_launch(config)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")  # as `accelerate launch --use_fsdp` does, whose default it is
    config.fsdp_plugin_args = None
    with pytest.raises(ConfigError, match="version 1"):
        check_launch(config)
    monkeypatch.setenv("FSDP_VERSION", "2")
    check_launch(config)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
