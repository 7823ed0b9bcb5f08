"""The adapter within verl's own code: its configuration, reward managers and reward workers (verl 0.9.1 from PyPI).

pytest integrations/verl        # in an environment that has verl
"""

from __future__ import annotations

import asyncio
import io
import os
import threading
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("verl", reason="verl is not installed; these tests were run with verl==0.9.1")
try:
    from verl.experimental.reward_loop import RewardLoopManager
except ImportError as error:
    pytest.skip(
        f"this verl has no reward loop; these tests were run with verl==0.9.1 ({error})", allow_module_level=True
    )

import numpy as np
import torch
from PIL import Image
from verl import DataProto
from verl.experimental.reward_loop.reward_loop import migrate_legacy_reward_impl
from verl.trainer.ppo import reward as host

from editr1_plugins.reward.rrm import EditRRMReward
from editr1_plugins.testing import AdapterContract
from editr1_plugins.testing.adapter_contract import OneQuestion, ShadeVerifier
from editr1_plugins.testing.judge_server import JudgeServer
from editr1_plugins.types import Edit

HERE = Path(__file__).parent
REPLY = """It is red now.
[{"question": "Was it done?", "score": 1}]
{"average_score": 1.0}
<score>7.5</score>"""


class Tokenizer:
    """Decodes a reply from its bytes."""

    def decode(self, ids: Any, skip_special_tokens: bool = True) -> str:
        return bytes(int(each) for each in ids).decode()


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def data_of(edits: Sequence[Edit], text: str = "done", ground_truth: str | None = None) -> DataProto:
    """A batch as the agent loop hands it to a reward worker; the tool left its edit in `extra_fields`."""
    reply = torch.tensor([list(text.encode())])
    count = len(edits)
    objects = {
        "data_source": ["editr1"] * count,
        "reward_model": [{"ground_truth": ground_truth or edit.instruction} for edit in edits],
        "extra_info": [{"source": {"bytes": png(edit.source), "path": None}, "index": 0} for edit in edits],
        "tool_extra_fields": [{"edited": edit.edited, "turn_scores": []} for edit in edits],
        "__num_turns__": [2] * count,
    }
    arrays = {}
    for name, values in objects.items():
        arrays[name] = np.empty(count, dtype=object)
        arrays[name][:] = values
    tensors = {
        "prompts": torch.ones(count, 3, dtype=torch.long),
        "responses": reply.repeat(count, 1),
        "attention_mask": torch.ones(count, 3 + reply.shape[1], dtype=torch.long),
    }
    return DataProto.from_dict(tensors=tensors, non_tensors=arrays)


@cache
def composed(name: str, *overrides: str) -> Any:
    """The configuration a job gets from our YAML and verl's own, as `main_ppo` prepares it."""
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(HERE), version_base=None):
        return migrate_legacy_reward_impl(compose(name, overrides=list(overrides)))


def edit(red: int = 255, instruction: str = "make it red") -> Edit:
    side = (16, 16)
    return Edit(source=Image.new("RGB", side), edited=Image.new("RGB", side, (red, 1, 1)), instruction=instruction)


def settings(verifier: Any) -> dict[str, Any]:
    return {"verifier": verifier, "decomposer": OneQuestion(), "guards": ()}


NAME = "reward.custom_reward_function.name"
KWARGS = "reward.custom_reward_function.reward_kwargs"


class Worker:
    """One of verl's reward managers in the event loop of a thread, as an actor of Ray holds it."""

    def __init__(self, config: Any, settings: dict[str, Any]) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.manager = asyncio.run_coroutine_threadsafe(self._made(config, settings), self.loop).result()

    async def _made(self, config: Any, settings: dict[str, Any]) -> Any:
        manager = host.load_reward_manager(config, Tokenizer())
        # Objects do not fit a configuration; verl keeps its reward_kwargs here.
        manager.compute_score.args[1].update(settings)
        return manager

    def ask(self, data: DataProto) -> list[dict[str, Any]]:
        return [
            asyncio.run_coroutine_threadsafe(self.manager.run_single(data[row : row + 1]), self.loop).result(60)
            for row in range(len(data))
        ]


class TestNaive(AdapterContract):
    """The contract of an adapter, through verl's `naive` manager."""

    one_by_one = True
    picklable = False  # verl's manager holds an event loop; Ray makes one in each worker
    function = "compute_score"

    def build(self, **settings: Any) -> Worker:
        return Worker(composed("edit", f"{NAME}={self.function}"), {"top": 10.0, **settings})

    def ask(self, adapter: Worker, edits: Sequence[Edit]) -> list[float]:
        data = data_of(edits)
        answers = adapter.ask(data)
        scores = [answer["reward_score"] for answer in answers]
        rewards = adapter.manager.assemble_rm_scores(data, scores)
        assert rewards.sum(-1).tolist() == pytest.approx(scores)
        return scores


class TestNaiveAsync(TestNaive):
    function = "compute_score_async"


def test_the_rate_limited_manager_makes_a_zero_of_every_error() -> None:
    """Why the README says `naive`: no error of ours ends a run there, it becomes a 0, and its keys are others."""
    worker = Worker(composed("edit", "reward.reward_manager.name=rate_limited"), settings(ShadeVerifier()))
    refused = edit(1, "refuse")
    (answer,) = worker.ask(data_of([refused]))
    assert answer["reward_score"] == 0.0
    assert "have no score" in answer["reward_extra_info"]["error"]


def test_the_configuration_is_all_that_a_job_needs() -> None:
    config = composed("edit", f"{KWARGS}.verifier=measure")
    photo = Image.effect_noise((64, 48), 60).convert("RGB")
    darker = Edit(source=photo, edited=photo.point(lambda value: value // 2), instruction="make the image darker")
    (answer,) = Worker(config, {}).ask(data_of([darker]))
    (said,) = EditRRMReward("measure").score([darker])
    assert said.score is not None
    assert answer["reward_score"] == said.score * 0.1
    assert answer["reward_extra_info"] == {"score": said.score * 0.1, "editr1/missing": 0.0}


def test_a_policy_that_judges() -> None:
    worker = Worker(composed("judge"), {})
    (answer,) = worker.ask(data_of([edit()], text=REPLY, ground_truth="5"))
    assert answer["reward_score"] == 0.75
    assert answer["reward_extra_info"] == {"score": 0.75, "editr1/error": 2.5, "editr1/unread": 0.0}
    (unread,) = worker.ask(data_of([edit()], text="Fine.", ground_truth="5"))
    assert unread["reward_score"] == 0.0


def test_the_rows_of_a_judge_are_read_by_the_host(tmp_path: Path) -> None:
    import json
    import subprocess
    import sys

    import datasets
    from verl.utils.dataset.rl_dataset import RLHFDataset

    edit(9).source.save(tmp_path / "a.png")
    line = {"source": "a.png", "edited": "a.png", "instruction": "make the image darker", "score": 7}
    (tmp_path / "edits.jsonl").write_text(json.dumps(line))
    made = tmp_path / "judge.parquet"
    subprocess.run([sys.executable, HERE / "judge_rows.py", tmp_path / "edits.jsonl", made], check=True)
    builder = RLHFDataset.__new__(RLHFDataset)
    builder.image_key, builder.video_key, builder.audio_key = "images", "videos", "audios"
    builder.processor = object()
    (row,) = datasets.load_dataset("parquet", data_files=str(made), split="train", cache_dir=str(tmp_path / "cache"))
    messages = builder._build_messages(row, key="prompt")
    kinds = [part["type"] for part in messages[1]["content"]]
    assert kinds == ["text", "image", "text", "image"]
    (answer,) = Worker(composed("judge"), {}).ask(data_of([edit()], REPLY, row["reward_model"]["ground_truth"]))
    assert answer["reward_score"] == 0.95


def test_settings_that_are_containers_of_the_configuration() -> None:
    config = composed(
        "edit", f"{KWARGS}.verifier=measure", f"+{KWARGS}.guards=[border,size]", f"{KWARGS}.no_edit=source"
    )
    unedited = data_of([edit(instruction="make the image darker")])
    unedited.non_tensor_batch["tool_extra_fields"][0].pop("edited")
    (answer,) = Worker(config, {}).ask(unedited)
    assert answer["reward_score"] == 0.0


def test_what_verl_makes_of_a_missing_score() -> None:
    from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager

    data = data_of([edit()])
    with pytest.raises(TypeError):
        NaiveRewardManager.assemble_rm_scores(data, [None])
    assert NaiveRewardManager.assemble_rm_scores(data, [float("nan")]).isnan().any()


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Tokenizer as Fast
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tokenizer")
    fast = Fast(WordLevel({chr(each): each for each in range(128)}, unk_token="\x00"))
    PreTrainedTokenizerFast(tokenizer_object=fast, eos_token="\x01", pad_token="\x02").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    # A busy machine takes its time.
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "300")
    os.environ.setdefault("RAY_agent_register_timeout_ms", "300000")
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False, object_store_memory=200 << 20)
    yield
    ray.shutdown()


@pytest.mark.timeout(1200)
def test_eight_reward_workers_build_nothing_before_they_are_asked(ray_here: None, tokenizer_folder: Path) -> None:
    with JudgeServer(REPLY) as server:
        config = composed(
            "edit",
            "reward.num_workers=8",
            f"actor_rollout_ref.model.path={tokenizer_folder}",
            f"{KWARGS}.verifier='openai:judge@{server.url}'",
            f"+{KWARGS}.guards=[]",
        )
        manager = RewardLoopManager(config)
        assert len(manager.reward_loop_worker_handles) == 8
        edits = [edit(red, "make the image darker") for red in range(16)]
        data = data_of(edits)
        assert server.requests == []
        found = manager.compute_rm_score(data)
        assert len(server.requests) == 16
    assert found.batch["rm_scores"].sum(-1).tolist() == [0.75] * 16
    assert found.non_tensor_batch["editr1/missing"].tolist() == [0.0] * 16
