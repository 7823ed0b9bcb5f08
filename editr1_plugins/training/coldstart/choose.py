"""Stage "choose": of a candidate's traces the one to learn from. Pure: no model, no disk.

Source: Edit-R1 (arXiv 2604.27505), section 3.2: highest accuracy against the gold verdicts, then the higher average,
then the higher final score, then the lower index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["TraceFacts", "accuracy_of", "choose_trace"]


@dataclass(frozen=True, kw_only=True)
class TraceFacts:
    """What a choice looks at.

    Attributes:
        verdicts: one per principle, 1, 0 or None; empty where the trace has none.
        average: as the trace reports it, 0..1; None where it does not.
        score: tau, 0..10; None where none was read, and then the trace is never chosen.
    """

    verdicts: tuple[int | None, ...]
    average: float | None
    score: float | None


def accuracy_of(verdicts: Sequence[int | None], gold: Sequence[int | None]) -> float:
    """Share of the principles with a gold verdict where the trace says the same; a missing verdict is wrong.

    Raises:
        ValueError: no gold verdict at all.
    """
    judged = [place for place, truth in enumerate(gold) if truth is not None]
    if not judged:
        raise ValueError("no gold verdict to compare with")
    return sum(place < len(verdicts) and verdicts[place] == gold[place] for place in judged) / len(judged)


def choose_trace(traces: Sequence[TraceFacts], gold: Sequence[int | None]) -> int | None:
    """The index of the trace to learn from, or None where none has a score.

    A trace that reports no average counts by the share of its verdicts that are met, one without verdicts lowest.

    Raises:
        ValueError: no gold verdict at all.
    """
    scored = [index for index, trace in enumerate(traces) if trace.score is not None]
    if not scored:
        return None

    def rank(index: int) -> tuple[float, float, float, int]:
        trace = traces[index]
        return accuracy_of(trace.verdicts, gold), _average(trace), trace.score or 0.0, -index

    return max(scored, key=rank)


def _average(trace: TraceFacts) -> float:
    if trace.average is not None:
        return trace.average
    judged = [verdict for verdict in trace.verdicts if verdict is not None]
    return sum(judged) / len(judged) if judged else -1.0
