"""Plain data out of pickles, and nothing else; and numbers for missing scores."""

from __future__ import annotations

import collections
import contextlib
import datetime
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from serving_kit import SOURCE, picture

from editr1_plugins.adapters.missing import Filling
from editr1_plugins.adapters.server.calls import EncodedEdit
from editr1_plugins.adapters.server.data_pickle import read_data
from editr1_plugins.adapters.server.filling import filled_rewards
from editr1_plugins.errors import ConfigError, DataError, UnscoredError
from editr1_plugins.types import Verification

PLAIN = some.recursive(
    some.none()
    | some.booleans()
    | some.integers(-(2**70), 2**70)
    | some.floats(allow_nan=False)
    | some.text(max_size=300)
    | some.binary(max_size=300),
    lambda inner: (
        some.lists(inner, max_size=5)
        | some.tuples(inner, inner, inner, inner)
        | some.dictionaries(some.text(max_size=5), inner, max_size=5)
    ),
    max_leaves=20,
)


class TestPickles:
    @given(PLAIN, some.sampled_from([3, 4, 5]))
    @settings(max_examples=80, deadline=None, derandomize=True)
    def test_plain_data_is_read_as_it_is(self, data: object, protocol: int) -> None:
        assert read_data(pickle.dumps(data, protocol)) == data

    def test_a_batch_of_images_is_read(self) -> None:
        data = {"images": [os.urandom(70_000) for _ in range(64)], "same": ["x"] * 300}
        assert read_data(pickle.dumps(data)) == data

    class Runs:
        def __init__(self, place: Path) -> None:
            self.place = place

        def __reduce__(self) -> tuple[Any, ...]:
            return (open, (str(self.place), "w"))

    class Extension:
        pass

    def hostile(self, place: Path) -> dict[str, bytes]:
        return {
            "a call": pickle.dumps(self.Runs(place)),
            "a call, protocol 2": pickle.dumps(self.Runs(place), 2),
            "a call, protocol 0": pickle.dumps(self.Runs(place), 0),
            "a call, deep inside": pickle.dumps({"images": [{"x": (1, [self.Runs(place)])}]}),
            "an image": pickle.dumps({"images": [picture(9)]}),
            "an array": pickle.dumps({"a": np.zeros(2)}),
            "a numpy float": pickle.dumps({"a": np.float64(1)}),
            "an ordered dict": pickle.dumps(collections.OrderedDict(a=1)),
            "a date": pickle.dumps(datetime.date(2020, 1, 1)),
            "a set": pickle.dumps({1, 2}),
            "a bytearray": pickle.dumps(bytearray(b"x")),
            "a class": pickle.dumps(collections.OrderedDict),
            "an instance": pickle.dumps(ConfigError("x")),
            "protocol 0": pickle.dumps({"a": 1}, 0),
            "an extension": b"\x80\x04\x82\x01.",
            "a persistent id": b"\x80\x04\x8c\x01xQ.",
            "an instance by opcode": b"(ios\nsystem\n.",
            "a huge memo index": b"\x80\x04}r\xff\xff\xff\x7f.",
            "a memo index that is not there": b"\x80\x04h\x09.",
            "a huge length": b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x0f.",
            "a huge frame": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x0f}.",
            "an unhashable key": b"\x80\x04}]K\x01s.",
            "an empty stack": b"\x80\x04s.",
            "no mark": b"\x80\x04e.",
            "a protocol to come": b"\x80\xff}.",
            "cut off": pickle.dumps({"a": "b" * 99})[:-20],
            "with more behind it": pickle.dumps({"a": 1}) + b"x",
            "two of them": pickle.dumps({"a": 1}) + pickle.dumps(self.Runs(place)),
            "JSON": b"{}",
            "nothing": b"",
            "too long": pickle.dumps(list(range(300_000))),
            "no UTF-8": b"\x80\x04\x8c\x01\xff.",
        }

    def test_everything_else_is_refused_and_nothing_runs(self, tmp_path: Path) -> None:
        place = tmp_path / "made"
        cases = self.hostile(place)
        for name, body in cases.items():
            with pytest.raises(DataError, match="the pickle"):
                pytest.fail(f"{name}: {read_data(body)!r}")
        assert not place.exists()
        pickle.loads(cases["a call"])
        assert place.exists(), "the hostile pickle does nothing, hence shows nothing"

    @given(some.binary(max_size=200))
    @settings(max_examples=200, deadline=None, derandomize=True)
    def test_any_bytes_are_data_or_refused(self, body: bytes) -> None:
        with contextlib.suppress(DataError):
            read_data(b"\x80\x04" + body)


def edit(instruction: str = "a") -> EncodedEdit:
    return EncodedEdit(source=SOURCE, edited=SOURCE, instruction=instruction, pixels=1)


def said(*scores: float | None) -> list[Verification]:
    return [Verification(score=score, failure=None if score is not None else "refused: no") for score in scores]


class TestFilling:
    def test_the_mean_of_the_same_source_and_instruction(self) -> None:
        edits = [edit("a"), edit("a"), edit("a"), edit("b"), edit("b")]
        rewards, filled = filled_rewards(Filling(), edits, said(1, None, 3, 9, None))
        assert rewards == [1, 2, 3, 9, 9]
        assert filled == 2

    def test_else_the_mean_of_what_was_scored_before_else_of_the_request(self) -> None:
        filling = Filling()
        assert filled_rewards(filling, [edit("a"), edit("b")], said(8, None)) == ([8, 8], 1)
        filled_rewards(filling, [edit("b"), edit("b")], said(2, 4))
        assert filled_rewards(filling, [edit("a"), edit("b")], said(8, None)) == ([8, 3], 1)
        assert filled_rewards(filling, [edit("b")], said(None)) == ([3], 1)

    def test_there_must_be_something_to_fill_from(self) -> None:
        with pytest.raises(UnscoredError, match=r"1 of 1 edits have no score; edit 0: refused: no"):
            filled_rewards(Filling(), [edit()], said(None))
        with pytest.raises(UnscoredError, match="2 of 3"):
            filled_rewards(Filling(most=0.5), [edit()] * 3, said(None, 1, None))
        assert filled_rewards(Filling(most=0.7), [edit()] * 3, said(None, 1, None)) == ([1, 1, 1], 2)

    def test_a_malformed_edit_is_never_filled(self) -> None:
        outcome = Verification(score=None, failure="bad_request: no image", samples=0)
        with pytest.raises(UnscoredError, match="edit 1: bad_request: no image"):
            filled_rewards(Filling(), [edit(), "bad_request: no image"], [*said(1), outcome])

    def test_the_policy_error(self) -> None:
        assert filled_rewards(Filling("error"), [edit()], said(4)) == ([4], 0)
        with pytest.raises(UnscoredError):
            filled_rewards(Filling("error"), [edit()] * 9, said(*[1.0] * 8, None))

    def test_wrong_arguments(self) -> None:
        with pytest.raises(ConfigError, match="mean, error"):
            Filling("zero")  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="share"):
            Filling(most=2)
