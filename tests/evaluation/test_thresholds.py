"""Accuracies with tuned tie thresholds: the official arithmetic with its faults, and the one without."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from editr1_plugins.evaluation.thresholds import best_threshold, running_accuracy_with_ties, untied_accuracy

labels = st.sampled_from([1, -1, 0])
rows = st.lists(st.tuples(labels, st.floats(-5, 5, allow_nan=False)), min_size=1, max_size=25)
whole = st.lists(st.tuples(labels, st.integers(-2, 2).map(float)), min_size=1, max_size=25)


def official_by_definition(meant: list[int], said: list[float]) -> float:
    """The official loop by its definition: after row i, in order of |difference|, rows 0..i are ties and no others."""
    order = sorted(zip(meant, said, strict=True), key=lambda pair: abs(pair[1]))
    best = 0.0
    for last in range(len(order)):
        right = sum(label == 0 if place <= last else label * value > 0 for place, (label, value) in enumerate(order))
        best = max(best, right / len(order))
    return best


@given(rows)
def test_the_running_count_is_the_official_one(pairs: list[tuple[int, float]]) -> None:
    meant, said = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    assert running_accuracy_with_ties(meant, said) == pytest.approx(official_by_definition(meant, said))


@given(rows)
def test_the_best_threshold_is_the_best_of_all(pairs: list[tuple[int, float]]) -> None:
    meant, said = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    accuracy, threshold = best_threshold(meant, said)

    def at(limit: float) -> float:
        return sum((m == 0) if abs(s) <= limit else m * s > 0 for m, s in pairs) / len(pairs)

    assert accuracy == pytest.approx(at(threshold))
    assert all(at(abs(s)) <= accuracy + 1e-12 for s in said)


def test_whole_numbers_make_the_official_one_too_high_and_depend_on_the_order() -> None:
    said = [0.0, 0.0, 0.0, 1.0, -1.0, 1.0]
    meant = [0, 0, 1, 0, 0, 1]
    assert running_accuracy_with_ties(meant, said) > best_threshold(meant, said)[0]
    turned = running_accuracy_with_ties(meant[::-1], said[::-1])
    assert turned != running_accuracy_with_ties(meant, said)


def test_a_constant_scorer_gets_the_share_of_ties() -> None:
    assert running_accuracy_with_ties([1] * 263 + [-1] * 240 + [0] * 416, [0.0] * 919) == pytest.approx(416 / 919)


def test_untied_pairs() -> None:
    assert untied_accuracy([1, -1, 0, 1], [0.5, 0.5, 3.0, 0.0]) == pytest.approx(1 / 3)
    assert untied_accuracy([0], [1.0]) == 0.0
    assert running_accuracy_with_ties([], []) == 0.0
    assert best_threshold([], []) == (0.0, 0.0)
