"""The choice of a trace, against an independent statement of the paper's order."""

import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from editr1_plugins.training.coldstart.choose import TraceFacts, accuracy_of, choose_trace

verdict = st.sampled_from([0, 1, None])
traces = st.builds(
    lambda verdicts, average, score: TraceFacts(verdicts=tuple(verdicts), average=average, score=score),
    st.lists(verdict, max_size=4),
    st.sampled_from([None, 0.0, 0.25, 0.5, 1.0]),
    st.sampled_from([None, 0.0, 3.5, 7.0]),
)


def better(gold: list[int | None], a: TraceFacts, b: TraceFacts) -> int:
    """1 where `a` is to be preferred to `b`, -1 where `b` is, 0 where the index decides."""

    def right(trace: TraceFacts) -> int:
        padded = [*trace.verdicts, *[None] * len(gold)]
        return sum(1 for said, truth in zip(padded, gold, strict=False) if truth is not None and said == truth)

    def average(trace: TraceFacts) -> float:
        given = [each for each in trace.verdicts if each is not None]
        if trace.average is not None:
            return trace.average
        return sum(given) / len(given) if given else -1.0

    for measure in (right, average, lambda trace: trace.score):
        if measure(a) != measure(b):
            return 1 if measure(a) > measure(b) else -1
    return 0


@given(st.lists(traces, max_size=6), st.lists(verdict, min_size=1, max_size=4).filter(lambda g: set(g) != {None}))
def test_the_chosen_trace_is_preferred_to_all_others(given_traces: list[TraceFacts], gold: list[int | None]) -> None:
    chosen = choose_trace(given_traces, gold)
    scored = [index for index, trace in enumerate(given_traces) if trace.score is not None]
    if not scored:
        assert chosen is None
        return
    prefer = functools.partial(better, gold)
    winner = functools.reduce(lambda a, b: b if prefer(given_traces[b], given_traces[a]) > 0 else a, scored)
    assert chosen == winner


def test_each_rule_breaks_the_tie_of_the_one_before() -> None:
    right, wrong = (1, 0), (1, 1)
    low = TraceFacts(verdicts=right, average=0.5, score=2.0)
    assert choose_trace([TraceFacts(verdicts=wrong, average=1.0, score=9.0), low], (1, 0)) == 1
    assert choose_trace([low, TraceFacts(verdicts=right, average=0.6, score=1.0)], (1, 0)) == 1
    assert choose_trace([low, TraceFacts(verdicts=right, average=0.5, score=2.5)], (1, 0)) == 1
    assert choose_trace([low, low], (1, 0)) == 0


def test_a_missing_verdict_is_wrong_and_a_missing_gold_verdict_counts_for_nobody() -> None:
    assert accuracy_of((1, None), (1, 0)) == 0.5
    assert accuracy_of((), (1, 0)) == 0.0
    assert accuracy_of((1, 1), (1, None)) == 1.0
    with pytest.raises(ValueError, match="no gold verdict"):
        accuracy_of((1,), (None,))
