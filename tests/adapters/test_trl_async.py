"""Asynchronous GRPO: TRL's own trainer and rollout loop with our rewards and environments, without vLLM or a GPU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from trl.chat_template_utils import qwen3_chat_template
from trl_async import Sampler, ThreadWorker, torch_attention
from trl_jobs import NAME, PLANS, REWARDS, Painter, judge, logged, rows

from editr1_plugins.adapters.trl_environment import JudgedEditingEnvironment
from editr1_plugins.adapters.trl_plans import PlannedEditReward
from editr1_plugins.testing import language

pytest.importorskip("aiohttp", reason="TRL's asynchronous GRPO needs aiohttp")
async_grpo = pytest.importorskip("trl.experimental.async_grpo", reason="needs TRL 1.16")
CALLS = [f'<tool_call>\n{{"name": "edit", "arguments": {{"prompt": "{plan}"}}}}\n</tool_call>' for plan in PLANS]


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from trl.experimental.async_grpo import async_grpo_trainer, async_rollout_worker, packing

    monkeypatch.setattr(async_grpo_trainer, "get_peak_flops_per_device", lambda *_: None)  # asks CUDA for its name
    monkeypatch.setattr(packing, "_flash_attn", torch_attention)
    monkeypatch.setattr(async_rollout_worker, "is_vllm_available", lambda *_: True)  # its server is `Sampler`


def train(tmp_path: Path, sentences: Sequence[str], *, own_process: bool, **given: Any) -> tuple[Any, Sampler]:
    """Three real steps of a tiny random policy that says `sentences`."""
    folder = language.save_tiny_language_model(tmp_path / "policy", sentences, chat_template=qwen3_chat_template)
    tokenizer = language.tiny_tokenizer(sentences, chat_template=qwen3_chat_template)
    server = Sampler(folder, tokenizer.convert_tokens_to_ids(list(sentences)))
    config = async_grpo.AsyncGRPOConfig(
        output_dir=str(tmp_path / "out"),
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=1,
        max_tool_calling_iterations=1,
        max_steps=3,
        max_staleness=3,
        learning_rate=1e-2,
        vllm_server_base_url=server.url,
        use_cpu=True,
        bf16=False,
        dtype="float32",
        gradient_checkpointing=False,
        token_budget=-1,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    worker = None
    if not own_process:
        worker = ThreadWorker(
            model_name=str(folder),
            dataset=rows(),
            processing_class=tokenizer,
            eos_token_ids=[tokenizer.eos_token_id],
            num_generations=config.num_generations,
            max_inflight_tasks=8,
            vllm_server_url=server.url,
            max_tokens=config.max_completion_length,
            max_tool_calling_iterations=config.max_tool_calling_iterations,
            reward_funcs=given.get("reward_funcs", []),
            environment_factory=given.get("environment_factory"),
        )
    trainer = async_grpo.AsyncGRPOTrainer(
        str(folder),
        args=config,
        train_dataset=rows(),
        processing_class=tokenizer,
        rollout_worker=worker,
        weight_transfer=server,
        **given,
    )
    before = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    trainer.train()
    server.close()
    assert any(not value.equal(before[name]) for name, value in trainer.model.named_parameters())
    for name, value in server.model.named_parameters():
        assert value.equal(dict(trainer.model.named_parameters())[name])  # it samples from what was learnt
    return trainer, server


def check(trainer: Any, server: Sampler, column: str) -> None:
    assert trainer.state.global_step == 3
    assert server.syncs == 4  # before the first step, and after each
    rewards = logged(trainer, f"rewards/{column}")
    assert len(rewards) == 3
    known = [reward for reward in REWARDS.values() if reward is not None]
    assert all(min(known) <= reward <= max(known) for reward in rewards if reward is not None)
    # TRL takes the ratio of its own probabilities to the server's: near 1 where both hold the same weights.
    assert logged(trainer, "ratio")[0] == pytest.approx(1.0, abs=0.01)
    assert all(math.isfinite(loss) for loss in logged(trainer, "loss"))


def test_a_reward_that_edits(tmp_path: Path) -> None:
    reward = PlannedEditReward(judge(), Painter())
    trainer, server = train(tmp_path, PLANS, own_process=False, reward_funcs=[reward])
    check(trainer, server, NAME)


def test_an_agent_that_judges_itself(tmp_path: Path) -> None:
    factory = partial(JudgedEditingEnvironment, judge(), Painter())
    trainer, server = train(tmp_path, CALLS, own_process=False, environment_factory=factory)
    check(trainer, server, "JudgedEditingEnvironment")
    assert max(logged(trainer, "tools/call_frequency")) == 1.0
    assert logged(trainer, "tools/failure_frequency") == [0.0] * 3


@pytest.mark.slow  # the process that TRL spawns imports all of it again
@pytest.mark.parametrize("how", ["reward", "agent"])
def test_in_the_process_that_trl_spawns(tmp_path: Path, how: str) -> None:
    given: dict[str, Any] = (
        {"reward_funcs": [PlannedEditReward(judge(), Painter())]}
        if how == "reward"
        else {"environment_factory": partial(JudgedEditingEnvironment, judge(), Painter())}
    )
    trainer, server = train(tmp_path, PLANS if how == "reward" else CALLS, own_process=True, **given)
    check(trainer, server, NAME if how == "reward" else "JudgedEditingEnvironment")


def test_the_attention_that_stands_in() -> None:
    # Two segments; the second's keys hold a path of two earlier tokens before its own three.
    torch.manual_seed(0)
    query, key, value = torch.randn(5, 2, 4), torch.randn(7, 1, 4), torch.randn(7, 1, 4)
    bounds = torch.tensor([0, 2, 5]), torch.tensor([0, 2, 7])
    found = torch_attention().flash_attn_varlen_func(query, key, value, *bounds, 3, 5, softmax_scale=0.5)
    for row, keys in ((0, [0]), (1, [0, 1]), (2, [2, 3, 4]), (4, [2, 3, 4, 5, 6])):
        weights = (torch.einsum("hd,kd->hk", query[row], key[keys, 0]) * 0.5).softmax(-1)
        torch.testing.assert_close(found[row], weights @ value[keys, 0])
