"""What stands in for missing scores where a host asks for one edit a call."""

from __future__ import annotations

import pickle

import pytest

from editr1_plugins.adapters.missing import Filling
from editr1_plugins.errors import UnscoredError
from editr1_plugins.types import Verification


def _value(filling: Filling, group: str, score: float | None) -> float:
    outcome = Verification(score=score, failure=None if score is not None else "no reply", samples=0)
    (value,), missing = filling.numbers([group], [outcome])
    assert missing == (score is None)
    return value


def test_the_mean_of_the_group_seen_before_else_of_the_last_rows() -> None:
    filling = Filling(one_by_one=True)
    for group, score in (("a", 2.0), ("a", 4.0), ("b", 9.0)):
        assert _value(filling, group, score) == score
    assert _value(filling, "a", None) == 3.0
    assert _value(filling, "new", None) == 5.0


def test_nothing_known_is_an_error() -> None:
    with pytest.raises(UnscoredError, match="no reply"):
        _value(Filling(one_by_one=True), "a", None)


def test_a_judge_that_has_gone_ends_the_run_after_half_of_64_rows() -> None:
    filling = Filling(one_by_one=True)
    for _ in range(100):
        _value(filling, "a", 6.0)
    assert [_value(filling, "a", None) for _ in range(32)] == [6.0] * 32
    with pytest.raises(UnscoredError, match="1 of 1 edits have no score"):
        _value(filling, "a", None)


def test_one_that_comes_back_is_believed_again() -> None:
    filling = Filling(one_by_one=True)
    for _ in range(64):
        _value(filling, "a", 6.0)
        assert _value(filling, "b", None) == 6.0


def test_without_one_by_one_an_unknown_group_stays_an_error() -> None:
    filling = Filling()
    _value(filling, "a", 6.0)
    with pytest.raises(UnscoredError):
        _value(filling, "b", None)


def test_it_pickles_without_what_it_remembers() -> None:
    filling = Filling(one_by_one=True)
    _value(filling, "a", 6.0)
    copy = pickle.loads(pickle.dumps(filling))
    with pytest.raises(UnscoredError):
        _value(copy, "a", None)
    _value(copy, "a", 1.0)
    assert _value(copy, "b", None) == 1.0
