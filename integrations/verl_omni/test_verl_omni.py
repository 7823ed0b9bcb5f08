"""The adapter within verl-omni's own reward managers, on verl 0.9.1 (verl-omni at a1139ba, from its checkout).

    EDITR1_HOST_VERL_OMNI=CHECKOUT pytest integrations/verl_omni        # in an environment that has verl

An empty package stands in for `verl_omni/__init__.py`, see conftest.py. The reward loop, the reward functions and the
configuration are the real ones.
"""

from __future__ import annotations

import asyncio
import io
import os
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("verl", reason="verl is not installed; these tests were run with verl==0.9.1")
if not os.environ.get("EDITR1_HOST_VERL_OMNI"):
    pytest.skip("set EDITR1_HOST_VERL_OMNI to a checkout of verl-omni (run with a1139ba)", allow_module_level=True)

import numpy as np
import torch
from PIL import Image
from verl import DataProto
from verl.trainer.ppo import reward as host
from verl_omni.reward_loop.reward_manager import MultiVisualRewardManager, VisualRewardManager

from editr1_plugins.adapters import verl_omni
from editr1_plugins.errors import DataError
from editr1_plugins.reward.rrm import EditRRMReward
from editr1_plugins.testing import AdapterContract
from editr1_plugins.testing.adapter_contract import OneQuestion, ShadeVerifier
from editr1_plugins.types import Edit

HERE = Path(__file__).parent
CHECKOUT = os.environ["EDITR1_HOST_VERL_OMNI"]
KWARGS = "reward.custom_reward_function.reward_kwargs"


@cache
def composed(name: str, *overrides: str) -> Any:
    """The configuration a job gets from our YAML and verl-omni's own."""
    from hydra import compose, initialize_config_dir

    where = f"hydra.searchpath=[file://{CHECKOUT}/verl_omni/trainer/config]"
    with initialize_config_dir(str(HERE), version_base=None):
        return compose(name, overrides=[where, *overrides])


def pixels(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def messages(edit: Edit) -> list[dict[str, Any]]:
    """The prompt as verl's data set makes it of `Picture 1: <image>...` and the column `images`."""
    from verl.utils.dataset.rl_dataset import RLHFDataset

    builder = RLHFDataset.__new__(RLHFDataset)
    builder.image_key, builder.video_key, builder.audio_key = "images", "videos", "audios"
    builder.processor = object()
    prompt = [
        {"role": "system", "content": "Edit the picture."},
        {"role": "user", "content": f"Picture 1: <image>{edit.instruction}"},
    ]
    return builder._build_messages({"prompt": prompt, "images": [{"bytes": png(edit.source)}]}, key="prompt")


def data_of(edit: Edit, **extra_info: Any) -> DataProto:
    """A sample as verl-omni's agent loop hands it to a reward worker: it wraps each field in an array."""
    fields = {
        "data_source": "image_edit",
        "reward_model": {"style": "model", "ground_truth": edit.instruction},
        "extra_info": {"split": "train", "index": 0, **extra_info},
        "raw_prompt": messages(edit),
    }
    arrays = {name: np.array([value]) for name, value in fields.items()}
    arrays["tool_extra_fields"] = np.array([{}], dtype=object)
    arrays["__num_turns__"] = np.array([1])
    return DataProto.from_dict(tensors={"responses": pixels(edit.edited)[None]}, non_tensors=arrays)


class Worker:
    """One of the managers in the event loop of a thread, as an actor of Ray holds it."""

    def __init__(self, config: Any, settings: dict[str, Any]) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.manager = asyncio.run_coroutine_threadsafe(self._made(config, settings), self.loop).result()

    async def _made(self, config: Any, settings: dict[str, Any]) -> Any:
        manager = host.load_reward_manager(config, None)
        if settings:
            # Objects do not fit a configuration; verl keeps its reward_kwargs here.
            manager.compute_score.args[1].update(settings)
        return manager

    def ask(self, data: DataProto) -> dict[str, Any]:
        return asyncio.run_coroutine_threadsafe(self.manager.run_single(data), self.loop).result(60)


class TestVisual(AdapterContract):
    """The contract of an adapter, through `EditRewardManager`: the source comes from the prompt."""

    one_by_one = True
    picklable = False  # the manager holds an event loop; Ray makes one in each worker
    function = "compute_score"

    def build(self, **settings: Any) -> Worker:
        config = composed("edit", f"reward.custom_reward_function.name={self.function}")
        return Worker(config, {"top": 10.0, **settings})

    def ask(self, adapter: Worker, edits: Sequence[Edit]) -> list[float]:
        rows = [data_of(edit) for edit in edits]
        scores = [adapter.ask(row)["reward_score"] for row in rows]
        rewards = adapter.manager.assemble_rm_scores(DataProto.concat(rows[:1]), scores)
        assert rewards.squeeze(-1).tolist() == pytest.approx(scores)
        return scores


class TestVisualAsync(TestVisual):
    function = "compute_score_async"


@pytest.fixture
def darker() -> Edit:
    photo = Image.effect_noise((64, 48), 60).convert("RGB")
    return Edit(source=photo, edited=photo.point(lambda value: value // 2), instruction="make the image darker")


def test_the_configuration_is_all_that_a_job_needs(darker: Edit) -> None:
    worker = Worker(composed("edit", f"{KWARGS}.verifier=measure"), {})
    assert isinstance(worker.manager, VisualRewardManager)
    answer = worker.ask(data_of(darker))
    (said,) = EditRRMReward("measure").score([darker])
    assert said.score is not None
    assert answer == {"reward_score": said.score * 0.1, "reward_extra_info": {"editr1/missing": 0.0}}


def test_the_stock_manager_takes_the_source_from_the_data(darker: Edit, tmp_path: Path) -> None:
    stock = (
        "reward.reward_manager.name=VisualRewardManager",
        "reward.reward_manager.module.path=pkg://verl_omni.reward_loop.reward_manager",
    )
    worker = Worker(composed("edit", *stock, f"{KWARGS}.verifier=measure"), {})
    with pytest.raises(DataError, match="no image 'source'"):
        worker.ask(data_of(darker))
    with_source = worker.ask(data_of(darker, source={"bytes": png(darker.source)}))
    darker.source.save(tmp_path / "one.png")
    # Its prepare_data.py for Qwen-Image-Edit leaves the file's name under `image`.
    folder = (f"+{KWARGS}.source_key=image", f"+{KWARGS}.image_folder={tmp_path}")
    by_name = Worker(composed("edit", *stock, f"{KWARGS}.verifier=measure", *folder), {})
    assert by_name.ask(data_of(darker, image="one.png")) == with_source
    assert with_source["reward_score"] > 0.9


def test_one_of_several_rewards(darker: Edit) -> None:
    entry = "reward.reward_functions.editr1"
    worker = Worker(composed("several", f"{entry}.verifier=measure"), {})
    assert isinstance(worker.manager, MultiVisualRewardManager)
    answer = worker.ask(data_of(darker))
    (said,) = EditRRMReward("measure").score([darker])
    info = answer["reward_extra_info"]
    assert said.score is not None
    assert info["reward/editr1"] == said.score * 0.1
    assert info["reward/editr1/editr1/missing"] == 0.0
    assert answer["reward_score"] == pytest.approx(0.8 * info["reward/editr1"] + 0.2 * info["reward/small_file"])


@pytest.mark.parametrize("required", [True, False])
def test_a_reward_that_is_not_required_fails_as_a_silent_zero(darker: Edit, required: bool) -> None:
    entry = "reward.reward_functions.editr1"
    settings = (f"{entry}.verifier=measure", f"+{entry}.missing=error", f"{entry}.required={required}")
    worker = Worker(composed("several", *settings), {})
    impossible = Edit(source=darker.source, edited=darker.edited, instruction="zzz")
    if required:
        with pytest.raises(RuntimeError, match=r"Required sub-reward 'editr1' failed: .*no score"):
            worker.ask(data_of(impossible))
    else:
        assert worker.ask(data_of(impossible))["reward_extra_info"]["reward/editr1"] == 0.0


def test_what_verl_omni_makes_of_a_missing_score() -> None:
    with pytest.raises(TypeError):
        VisualRewardManager.assemble_rm_scores(None, [None])
    assert VisualRewardManager.assemble_rm_scores(None, [float("nan")]).isnan().all()


def test_objects_in_the_place_of_names(darker: Edit) -> None:
    settings = {"verifier": ShadeVerifier(), "decomposer": OneQuestion(), "guards": ()}
    assert verl_omni.compute_score("d", pixels(darker.edited), "x", {"source": darker.source}, **settings)["score"] > 0
