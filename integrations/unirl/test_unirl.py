"""The backend within UniRL's own code (commit 1a7b501): `RewardService.score_and_attach`, its request and its track.

EDITR1_HOST_UNIRL=/path/to/UniRL pytest integrations/unirl        # in an environment with torch, hydra-core, requests
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

if not os.environ.get("EDITR1_HOST_UNIRL"):
    pytest.skip(
        "EDITR1_HOST_UNIRL names no checkout of Tencent-Hunyuan/UniRL; these tests were run at commit 1a7b501",
        allow_module_level=True,
    )
sys.path.insert(0, os.environ["EDITR1_HOST_UNIRL"])

import numpy as np
import torch
from omegaconf import OmegaConf
from PIL import Image
from unirl.reward.base import RewardBackend
from unirl.reward.service import RewardService
from unirl.types.primitives import Images, Texts
from unirl.types.rollout_req import RolloutReq
from unirl.types.rollout_resp import RolloutTrack

from editr1_plugins.adapters.unirl import EditBackend
from editr1_plugins.testing import AdapterContract
from editr1_plugins.testing.adapter_contract import OneQuestion, ShadeVerifier
from editr1_plugins.types import Edit

HERE = Path(__file__).parent


def images(pictures: Sequence[Image.Image]) -> Images:
    pixels = [torch.from_numpy(np.array(picture)).movedim(-1, 0).float() / 255 for picture in pictures]
    return Images(pixels=torch.stack(pixels))


def attached(service: RewardService, edits: Sequence[Edit], repeats: int = 1) -> RolloutTrack:
    """One step's call: `repeats` edits per prompt, of which the request holds each once."""
    names = [f"s{number}" for number in range(len(edits))]
    prompts = list(edits)[::repeats]
    req = RolloutReq(
        sample_ids=names[::repeats],
        group_ids=names[::repeats],
        primitives={
            "text": Texts(texts=[edit.instruction for edit in prompts]),
            "image": images([edit.source for edit in prompts]),
        },
    )
    if repeats > 1:
        from unirl.types.sampling import DiffusionSamplingParams

        req.sampling_params = DiffusionSamplingParams(samples_per_prompt=repeats)
    track = RolloutTrack(sample_ids=names, decoded=images([edit.edited for edit in edits]))
    return service.score_and_attach(req=req, track=track)


class Kept:
    """Keeps what the backend answered, since UniRL's track holds 32-bit floats."""

    def __init__(self, backend: Any) -> None:
        self.backend, self.said = backend, []
        self.preferred_input_kind = backend.preferred_input_kind

    def get_model_name(self) -> str:
        return str(self.backend.get_model_name())

    def compute_rewards(self, request: Any) -> Any:
        answer = self.backend.compute_rewards(request)
        self.said = answer.rewards
        return answer


class TestUniRL(AdapterContract):
    def build(self, **settings: Any) -> Any:
        backend = EditBackend(base_device="cpu", **settings)
        assert isinstance(backend, RewardBackend)
        return backend

    def ask(self, adapter: Any, edits: Sequence[Edit]) -> list[float]:
        if len({edit.source.size for edit in edits}) > 1:  # a batch of UniRL's has one size
            return [value for edit in edits for value in self.ask(adapter, [edit])]
        kept = Kept(adapter)
        track = attached(RewardService(backend=kept), edits)
        assert track.rewards.tolist() == torch.tensor(kept.said).tolist()
        return kept.said


def edit(red: int = 255, instruction: str = "make it red") -> Edit:
    side = (16, 16)
    return Edit(source=Image.new("RGB", side), edited=Image.new("RGB", side, (red, 1, 1)), instruction=instruction)


def settings() -> dict[str, Any]:
    return {"verifier": ShadeVerifier(), "decomposer": OneQuestion(), "guards": ()}


def test_several_edits_per_prompt_and_what_only_stands_in_is_a_component() -> None:
    service = RewardService(backend=EditBackend(**settings()))
    assert service.is_available()
    track = attached(service, [edit(255, "refuse"), edit(1, "refuse"), edit(0), edit(51)], repeats=2)
    assert track.rewards.tolist() == [10.0, 10.0, 0.0, 2.0]
    assert track.component_rewards["editr1_missing"].tolist() == [0.0, 1.0, 0.0, 0.0]


def test_the_recipe_of_the_local_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    hydra = pytest.importorskip("hydra")
    monkeypatch.setenv("EDITR1_VERIFIER", "measure")
    recipe = OmegaConf.load(HERE / "local.yaml")
    service = hydra.utils.instantiate(recipe.reward)
    assert isinstance(service, RewardService)
    assert isinstance(service.backend, EditBackend)
    grey = Image.new("RGB", (32, 32), (128,) * 3)
    dark = Image.new("RGB", (32, 32), (90,) * 3)
    track = attached(service, [Edit(source=grey, edited=dark, instruction="make the image darker")])
    assert 0 <= track.rewards[0] <= 10


def test_the_recipe_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read by UniRL's own client; that it is served well is in tests/adapters/server and docs/serving.md."""
    hydra = pytest.importorskip("hydra")
    monkeypatch.setenv("REWARD_SERVICE_URL", "http://127.0.0.1:9")  # nothing listens there
    client = hydra.utils.instantiate(OmegaConf.load(HERE / "server.yaml").reward).backend
    assert (client.base_url, client.required_rewards, client.image_format) == ("http://127.0.0.1:9", ["editr1"], "PNG")
    assert not client.is_available()
