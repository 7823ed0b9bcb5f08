"""The tables of replies in `parsing_cases*.py`, read by `parse_trace`."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from editr1_plugins.verifiers.parsing import FAILURES, FLAGS, parse_trace

_TABLES = [runpy.run_path(str(path)) for path in sorted(Path(__file__).parent.glob("parsing_cases*.py"))]
_CASES = [{"questions": table["QUESTIONS"]} | case for table in _TABLES for case in table["CASES"]]
_SAID = {"1": True, "0": False, "-": None}


@pytest.mark.parametrize("case", _CASES, ids=lambda case: case["name"])
def test_case(case: dict[str, Any]) -> None:
    questions = case["questions"]
    trace = parse_trace(case["text"], questions, case.get("finish_reason", "stop"))

    wanted = case["score"] if isinstance(case["score"], tuple) else (case["score"],)
    assert (trace.failure if trace.score is None else trace.score) in wanted, trace
    assert (trace.score is None) == (trace.failure is not None)
    assert trace.failure is None or trace.failure in FAILURES
    assert set(trace.flags) <= set(FLAGS)
    assert len(trace.verdicts) == len(questions)
    if case["verdicts"] is not None:
        assert trace.verdicts == tuple(_SAID[said] for said in case["verdicts"]), trace
    if "flags" in case:
        assert trace.flags == case["flags"], trace
    if "average" in case:
        assert trace.average == case["average"], trace


def test_the_tables_are_large_and_names_are_unique() -> None:
    assert len(_TABLES) == 2
    for table in _TABLES:
        names = [case["name"] for case in table["CASES"]]
        assert len(names) == len(set(names)) >= 250
