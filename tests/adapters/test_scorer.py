"""The scorer that all hosts share keeps the contract of an adapter, and is built late and once per process."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence

import pytest

from editr1_plugins.adapters.scorer import SCORER_VARIABLE, HostScorer, shared_scorer
from editr1_plugins.errors import ConfigError
from editr1_plugins.reward.rrm import EditRRMReward
from editr1_plugins.testing import AdapterContract
from editr1_plugins.types import Edit


class TestScorer(AdapterContract):
    def build(self, **settings: object) -> HostScorer:
        return HostScorer(**settings)

    def ask(self, adapter: HostScorer, edits: Sequence[Edit]) -> list[float]:
        return adapter.score(edits).values


class TestScorerFromZeroToOne(TestScorer):
    top = 1.0

    def build(self, **settings: object) -> HostScorer:
        return HostScorer(top=1.0, **settings)


def test_it_counts_what_it_filled() -> None:
    from editr1_plugins.testing.adapter_contract import ShadeVerifier, _edit, _refused, _settings

    scored = HostScorer(**_settings(ShadeVerifier())).score([_edit(255, "refuse", side=(9, 9)), _refused(), _edit(0)])
    assert scored.missing == 1
    assert [outcome.score is None for outcome in scored.outcomes] == [False, True, False]
    assert scored.metrics == {"editr1/missing": pytest.approx(1 / 3), "editr1/score": 5.0}


def test_a_row_without_an_edit_is_filled_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    from editr1_plugins.testing.adapter_contract import ShadeVerifier, _edit, _settings

    scored = HostScorer(**_settings(ShadeVerifier())).score([_edit(255), "edited image: it is truncated"])
    assert scored.values[0] == scored.values[1]
    assert scored.outcomes[1].failure == "edited image: it is truncated"
    assert "1 of 2 edits have no score and get a mean; the first: edited image: it is truncated" in caplog.text


def test_nothing_is_built_before_it_is_asked() -> None:
    scorer = HostScorer(verifier="measure", nonsense=1)
    with pytest.raises(ConfigError, match="nonsense"):
        scorer.score([])


def test_wrong_arguments() -> None:
    with pytest.raises(ConfigError, match="top"):
        HostScorer(top=0)
    with pytest.raises(ConfigError, match="takes no settings, got samples"):
        HostScorer(EditRRMReward("measure"), samples=2)


def test_one_scorer_for_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shared_scorer(verifier="measure") is shared_scorer(verifier="measure")
    assert shared_scorer(verifier="measure") is not shared_scorer(verifier="measure", top=1.0)
    monkeypatch.setenv(SCORER_VARIABLE, '{"verifier": "measure", "top": 2}')
    assert shared_scorer() is shared_scorer(verifier="measure", top=2)
    monkeypatch.setenv(SCORER_VARIABLE, "[1]")
    with pytest.raises(ConfigError, match=f"{SCORER_VARIABLE} must be a JSON object, got list"):
        shared_scorer()


def _scorers(number: int) -> int:
    from editr1_plugins.adapters import scorer

    return len(scorer._shared)


def test_a_forked_worker_builds_its_own() -> None:
    shared_scorer(verifier="measure")
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.map(_scorers, [0]) == [0]
