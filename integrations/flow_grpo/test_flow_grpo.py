"""The adapter within flow_grpo's own reward module, statistics, configuration and training script.

    EDITR1_HOST_FLOW_GRPO=CHECKOUT[:CHECKOUT...] pytest integrations/flow_grpo [-m slow]

Run with flow_grpo at 9745241 and ac4c86e, and with PKU-YuanGroup/Edit-R1 at 4217f25, whose reward module is a fork of
it. Nothing of the host is replaced but what `tiny_run.py` names. The configuration needs ml_collections.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from editr1_plugins.adapters.flow_grpo import UNSCORED, install
from editr1_plugins.testing import AdapterContract
from editr1_plugins.testing.adapter_contract import OneQuestion, ShadeVerifier
from editr1_plugins.types import Edit

HERE = Path(__file__).parent
HOSTS = [Path(each) for each in os.environ.get("EDITR1_HOST_FLOW_GRPO", "").split(os.pathsep) if each]
JUDGE: dict[str, Any] = {"verifier": ShadeVerifier(), "decomposer": OneQuestion(), "guards": ()}

pytestmark = pytest.mark.skipif(
    not HOSTS, reason="$EDITR1_HOST_FLOW_GRPO names no checkout of flow_grpo; run with 9745241"
)


@pytest.fixture(params=HOSTS or [Path("none")], ids=lambda path: path.name, autouse=True)
def host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The checkout; `flow_grpo` is imported from it, and forgotten afterwards."""
    _forget()
    monkeypatch.syspath_prepend(request.param)
    monkeypatch.chdir(request.param)
    yield request.param
    _forget()


def _forget() -> None:
    for name in [each for each in sys.modules if each.partition(".")[0] == "flow_grpo"]:
        del sys.modules[name]


def multi_score(weights: dict[str, float]) -> Any:
    """The trainers' own expression."""
    rewards = importlib.import_module("flow_grpo.rewards")
    return getattr(rewards, "multi_score")("cpu", weights)  # noqa: B009


def made(*reds: int) -> torch.Tensor:
    pixels = torch.zeros(len(reds), 3, 16, 16)
    pixels[:, 0] = torch.tensor(reds)[:, None, None] / 255
    pixels[:, 1:] = 1 / 255
    return pixels


def sources(rows: int) -> list[Image.Image]:
    return [Image.new("RGB", (16, 16), (0, 0, 60))] * rows


def advantages(prompts: Sequence[str], rewards: Sequence[float], *, global_std: bool = True) -> Any:
    tracker = importlib.import_module("flow_grpo.stat_tracking").PerPromptStatTracker(global_std)
    found = tracker.update(list(prompts), np.array(rewards))
    return found[0] if isinstance(found, tuple) else found  # Edit-R1 returns deviations and means as well


class TestInTheHost(AdapterContract):
    top = 1.0

    def build(self, **settings: Any) -> Any:
        install(**settings)
        return multi_score({"editr1": 1.0})

    def ask(self, adapter: Any, edits: Sequence[Edit]) -> list[float]:
        pixels = [torch.from_numpy(np.array(edit.edited)).permute(2, 0, 1).float() / 255 for edit in edits]
        prompts = [edit.instruction for edit in edits]
        details, _ = adapter(pixels, prompts, [{}] * len(edits), [edit.source for edit in edits], only_strict=True)
        return details["editr1"]  # type: ignore[no-any-return]


def test_beside_a_reward_of_the_host() -> None:
    images, prompts, metadata = made(255, 51, 0), ["make it red"] * 3, [{}] * 3
    alone, _ = multi_score({"jpeg_compressibility": 0.3})(images, prompts, metadata)
    install(**JUDGE)
    together = multi_score({"jpeg_compressibility": 0.3, "editr1": 0.7})
    details, _ = together(images, prompts, metadata, sources(3), only_strict=True)
    assert details["editr1"] == [1.0, 0.2, 0.0]
    assert list(details["jpeg_compressibility"]) == list(alone["jpeg_compressibility"])
    assert details["avg"] == [a + 0.7 * b for a, b in zip(alone["avg"], details["editr1"], strict=True)]
    for value in details.values():
        assert torch.as_tensor(value).float().shape == (3,)


def test_what_a_missing_score_does_to_the_advantages() -> None:
    prompts = ["p", "p", "p", "q", "q"]
    assert np.isnan(advantages(prompts, [float("nan"), 0.2, 0.4, 0.1, 0.2])).all()  # hence no NaN from us
    install(**JUDGE)
    told = ["refuse"] * 3 + ["make it red"] * 2
    details, _ = multi_score({"editr1": 1.0})(made(1, 51, 102, 25, 51), told, [{}] * 5, sources(5), only_strict=True)
    assert details["editr1_missing"] == [1.0, 0.0, 0.0, 0.0, 0.0]
    for global_std in (True, False):
        found = advantages(prompts, details["avg"], global_std=global_std)
        assert found[0] == pytest.approx(0.0, abs=1e-9)
        assert np.isfinite(found).all()
        assert abs(found[1]) > 0.3


def test_evaluation() -> None:
    install(**JUDGE)
    reward = multi_score({"editr1": 1.0})
    details, _ = reward(made(255, 1, 51), ["refuse"] * 3, [{}] * 3, sources(3), only_strict=False)
    values = torch.as_tensor(details["editr1"]).numpy()
    assert values[1] == UNSCORED
    assert np.mean(values[values != -10]) == pytest.approx(0.6)  # the scripts' own expression


@pytest.mark.parametrize("name", ["counting_flux_kontext", "counting_qwenimage_edit_8gpu"])
def test_the_configuration_file(host: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ml_collections")
    from absl import flags
    from ml_collections import config_flags

    if not (host / "config" / "grpo.py").is_file() or name not in (host / "config" / "grpo.py").read_text():
        pytest.skip(f"this checkout has no configuration {name}")
    monkeypatch.setenv("EDITR1_VERIFIER", "measure")
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", "config/base.py", flag_values=values)
    # ml_collections looks for overrides in the command line itself.
    monkeypatch.setattr(
        sys,
        "argv",
        ["script", f"--config={HERE / 'editr1.py'}:{name}", "--config.dataset=mine", "--config.resolution=384"],
    )
    values(sys.argv)
    config = values.config
    assert config.reward_fn.to_dict() == {"editr1": 1.0}
    assert (config.dataset, config.resolution) == ("mine", 384)
    assert config.pretrained.model in ("black-forest-labs/FLUX.1-Kontext-dev", "Qwen/Qwen-Image-Edit")
    details, _ = multi_score(config.reward_fn)(made(0), ["make it darker"], [{}], sources(1), only_strict=True)
    assert set(details) == {"editr1", "editr1_missing", "avg"}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_its_training_script(host: Path, tmp_path: Path) -> None:
    for module in ("ml_collections", "peft", "diffusers"):
        pytest.importorskip(module)
    if not (host / "scripts" / "train_flux_kontext.py").is_file():
        pytest.skip("this checkout has no script that trains FLUX.1 Kontext")
    subprocess.run([sys.executable, HERE / "tiny_run.py", tmp_path], cwd=host, check=True)
    logged = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    rewards = [row for row in logged if "reward_editr1" in row]
    assert [row["epoch"] for row in rewards] == [0.0, 1.0, 2.0]
    assert all(row["reward_editr1_missing"] == 0.0 for row in rewards)
    assert all(0 <= row["reward_editr1"] <= 1 for row in rewards)
    assert [row["reward_avg"] for row in rewards] == pytest.approx([row["reward_editr1"] for row in rewards])
    assert any(0 <= row["eval_reward_editr1"] <= 1 for row in logged if "eval_reward_editr1" in row)
    losses = [row["policy_loss"] for row in logged if "policy_loss" in row]
    assert losses
    assert np.isfinite(losses).all()
