"""flow_grpo's reward: the contract of an adapter, and the arithmetic and conventions of the host around it.

The host's `multi_score` is written anew here as far as a caller sees it; `integrations/flow_grpo` asks the real one.
"""

from __future__ import annotations

import logging
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from editr1_plugins.adapters.flow_grpo import UNSCORED, host_config, install
from editr1_plugins.errors import ConfigError, DataError, MissingExtraError, UnscoredError
from editr1_plugins.testing import AdapterContract
from editr1_plugins.testing.adapter_contract import OneQuestion, ShadeVerifier
from editr1_plugins.types import Edit

JUDGE: dict[str, Any] = {"verifier": ShadeVerifier(), "decomposer": OneQuestion(), "guards": ()}


def _multi_score(device: Any, score_dict: Mapping[str, float]) -> Callable[..., Any]:
    """The host's convention, with one reward: the brightness of an edit."""
    if unknown := set(score_dict) - {"bright"}:
        raise KeyError(unknown.pop())

    def reward(
        images: Any, prompts: Any, metadata: Any, ref_images: Any = None, only_strict: bool = True
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        bright = images.mean(dim=(1, 2, 3))
        return {"bright": bright, "avg": [score_dict["bright"] * each for each in bright]}, {}

    return reward


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    package, rewards = types.ModuleType("flow_grpo"), types.ModuleType("flow_grpo.rewards")
    rewards.multi_score = _multi_score  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flow_grpo", package)
    monkeypatch.setitem(sys.modules, "flow_grpo.rewards", rewards)
    return rewards


def tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def made(*reds: int, side: int = 16) -> torch.Tensor:
    """A batch of edits as the host has them."""
    return torch.stack([tensor(Image.new("RGB", (side, side), (red, 1, 1))) for red in reds])


def sources(rows: int, side: int = 16) -> list[Image.Image]:
    return [Image.new("RGB", (side, side), (0, 0, 60))] * rows


class TestFlowGrpo(AdapterContract):
    top = 1.0

    def build(self, **settings: Any) -> Any:
        install(**settings)
        return sys.modules["flow_grpo.rewards"].multi_score("cpu", {"editr1": 1.0})  # type: ignore[attr-defined]

    def ask(self, adapter: Any, edits: Sequence[Edit]) -> list[float]:
        # The host's batch is one tensor; here a list, since the contract's edits have several sizes.
        images = [tensor(edit.edited) for edit in edits]
        prompts = [edit.instruction for edit in edits]
        details, _ = adapter(images, prompts, [{}] * len(edits), [edit.source for edit in edits], only_strict=True)
        assert details["avg"] == details["editr1"]
        return details["editr1"]  # type: ignore[no-any-return]


def test_beside_the_hosts_own_rewards(host: Any) -> None:
    install(**JUDGE)
    reward = host.multi_score("cpu", {"editr1": 0.5, "bright": 2.0})
    details, _ = reward(made(255, 51), ["make it red"] * 2, [{}] * 2, sources(2), only_strict=True)
    assert set(details) == {"editr1", "editr1_missing", "bright", "avg"}
    assert details["editr1"] == [1.0, 0.2]
    assert details["avg"] == [2.0 * details["bright"][row] + 0.5 * ours for row, ours in enumerate((1.0, 0.2))]
    # What the trainer does with each entry.
    assert all(torch.as_tensor(value).float().shape == (2,) for value in details.values())


def test_without_our_name_the_host_is_as_it_was(host: Any) -> None:
    install(**JUDGE)
    details, _ = host.multi_score("cpu", {"bright": 1.0})(made(9), ["x"], [{}], sources(1))
    assert set(details) == {"bright", "avg"}
    with pytest.raises(KeyError, match="typo"):
        host.multi_score("cpu", {"typo": 1.0})


def test_installed_twice_it_wraps_once(host: Any) -> None:
    install(**JUDGE)
    install(**JUDGE, top=100.0)
    assert host.multi_score.editr1_wraps is _multi_score
    details, _ = host.multi_score("cpu", {"editr1": 1.0})(made(255), ["make it red"], [{}], sources(1))
    assert details["editr1"] == [100.0]


def test_under_a_name_of_the_hosts(host: Any) -> None:
    install(**JUDGE, name="bright")
    details, _ = host.multi_score("cpu", {"bright": 1.0})(made(51), ["make it red"], [{}], sources(1))
    assert details == {"bright": [0.2], "bright_missing": [0.0], "avg": [0.2]}


def test_training_fills_and_counts(host: Any) -> None:
    install(**JUDGE)
    reward = host.multi_score("cpu", {"editr1": 1.0})
    prompts = ["refuse"] * 3
    details, _ = reward(made(255, 1, 51), prompts, [{}] * 3, sources(3), only_strict=True)
    assert details["editr1"] == [1.0, pytest.approx(0.6), 0.2]
    assert details["editr1_missing"] == [0.0, 1.0, 0.0]
    # A batch of one that cannot be judged gets the mean of what was seen of its group.
    details, _ = reward(made(1), ["refuse"], [{}], sources(1), only_strict=True)
    assert details["avg"] == [pytest.approx(0.6)]


def test_evaluation_leaves_out_what_has_no_score(host: Any) -> None:
    install(**JUDGE)
    reward = host.multi_score("cpu", {"editr1": 0.5, "bright": 1.0})
    details, _ = reward(made(255, 1, 51), ["refuse"] * 3, [{}] * 3, sources(3), only_strict=False)
    assert details["editr1"] == [1.0, UNSCORED, 0.2]
    assert details["avg"][1] == UNSCORED
    values = np.array(details["editr1"])
    assert np.mean(values[values != -10]) == pytest.approx(0.6)  # as the host does
    nothing, _ = reward(made(1), ["refuse"], [{}], sources(1), only_strict=False)
    assert nothing["editr1"] == nothing["avg"] == [UNSCORED]


def test_a_broken_edit_has_a_reason(host: Any) -> None:
    install(**JUDGE, missing="error")
    images = made(255, 255)
    images[1] = float("nan")
    with pytest.raises(UnscoredError, match=r"1 of 2 .* edited image: .* pixels"):
        host.multi_score("cpu", {"editr1": 1.0})(images, ["make it red"] * 2, [{}] * 2, sources(2))


def test_sources_from_the_metadata(host: Any, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path.parent):
        Image.new("RGB", (32, 16)).save(folder / "before.png")
    verifier = ShadeVerifier()
    install(**{**JUDGE, "verifier": verifier}, image_folder=tmp_path)
    host.multi_score("cpu", {"editr1": 1.0})(made(255), ["make it red"], [{"image": "before.png"}], only_strict=True)
    assert verifier.seen == [((32, 16), (16, 16), "make it red")]

    reward = host.multi_score("cpu", {"editr1": 1.0})
    for metadata in ([{"image": ""}], [{}], {}):
        with pytest.raises(DataError, match="hands over no ref_images"):
            reward(made(255), ["make it red"], metadata)
    for outside in ("../before.png", str(tmp_path.parent / "before.png")):
        # Not opened, whether or not it is there: the row has no score, in evaluation here.
        details, _ = reward(made(255), ["make it red"], [{"image": outside}], only_strict=False)
        assert details["editr1"] == [UNSCORED]
    assert len(verifier.seen) == 1


def test_a_path_is_not_opened_unless_a_folder_is_named(host: Any) -> None:
    install(**JUDGE)
    with pytest.raises(DataError, match="only below a folder that you name"):
        host.multi_score("cpu", {"editr1": 1.0})(made(255), ["make it red"], [{"image": "before.png"}])


def test_rows_that_do_not_fit(host: Any) -> None:
    install(**JUDGE)
    with pytest.raises(DataError, match="2 edits, 2 prompts and 1 source images"):
        host.multi_score("cpu", {"editr1": 1.0})(made(1, 2), ["make it red"] * 2, [{}] * 2, sources(1))


def test_an_older_host_hands_over_no_sources(host: Any) -> None:
    def older(device: Any, score_dict: Any) -> Callable[..., Any]:
        return lambda images, prompts, metadata, only_strict=True: ({"bright": [1.0], "avg": [1.0]}, {})

    host.multi_score = older
    install(**JUDGE)
    reward = host.multi_score("cpu", {"bright": 1.0, "editr1": 1.0})
    assert reward(made(255), ["make it red"], [{"image": sources(1)[0]}])[0]["avg"] == [2.0]


def test_wrong_settings_end_the_run_before_it_samples(host: Any, caplog: pytest.LogCaptureFixture) -> None:
    install(verifier="no-such-judge")
    with pytest.raises(ConfigError, match="no-such-judge"):
        host.multi_score("cpu", {"editr1": 1.0})
    install(verifier="measure", sample=2)
    with pytest.raises(ConfigError, match="'sample'"):
        host.multi_score("cpu", {"editr1": 1.0})
    install(verifier="measure")
    with caplog.at_level(logging.INFO):
        host.multi_score("cpu", {"editr1": 1.0})
    assert "reward 'editr1' with weight 1.0: {'verifier'" in caplog.text


def test_no_such_host(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingExtraError, match="pip install -e"):
        install(module="no_such_flow_grpo.rewards")
    monkeypatch.setitem(sys.modules, "flow_grpo.rewards", types.ModuleType("flow_grpo.rewards"))
    with pytest.raises(ConfigError, match="has no function multi_score"):
        install()


HOST_CONFIG = """
from types import SimpleNamespace

def edit():
    return SimpleNamespace(resolution=512, reward_fn={"geneval": 1.0})

def get_config(name):
    return globals()[name]()
"""


def test_the_hosts_configuration_with_other_rewards(tmp_path: Path) -> None:
    file = tmp_path / "grpo.py"
    file.write_text(HOST_CONFIG)
    config = host_config(file, "edit")
    assert config.resolution == 512
    assert config.reward_fn == {"editr1": 1.0}
    assert host_config(file, "edit", {"editr1": 0.7, "geneval": 0.3}).reward_fn == {"editr1": 0.7, "geneval": 0.3}
    with pytest.raises(ConfigError, match="no configuration 'typo'"):
        host_config(file, "typo")
    with pytest.raises(ConfigError, match="start the trainer in the host's own folder"):
        host_config("config/no_such.py", "edit")
