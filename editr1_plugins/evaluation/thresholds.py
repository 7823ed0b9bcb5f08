"""Accuracies of scored pairs for which the threshold of a tie is tuned on the test set, as official scripts do.

Source: "Ties Matter" (arXiv 2305.14324), and what TIGER-AI-Lab's evaluation scripts for EditReward make of it.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["best_threshold", "running_accuracy_with_ties", "untied_accuracy"]


def best_threshold(preferences: Sequence[int], differences: Sequence[float]) -> tuple[float, float]:
    """The highest accuracy that any tie threshold gives, and the lowest threshold that gives it.

    A pair is a tie where |difference| <= threshold. Optimistic: the threshold is chosen by the answers.

    Returns:
        (accuracy in 0..1, threshold); (0, 0) without pairs.
    """
    if not preferences:
        return 0.0, 0.0
    best = (-1.0, 0.0)
    for threshold in [0.0, *sorted({abs(each) for each in differences})]:
        right = sum(_right(meant, said, threshold) for meant, said in zip(preferences, differences, strict=True))
        if right / len(preferences) > best[0]:
            best = (right / len(preferences), threshold)
    return best


def running_accuracy_with_ties(preferences: Sequence[int], differences: Sequence[float]) -> float:
    """The official `calc_accuracy_with_ties`, which walks the pairs by |difference| and keeps running counts.

    Where several pairs have the same |difference| the counts are those of a threshold that takes in some of them and
    not others: the best running value exceeds every true threshold's, and depends on the order of the rows. With
    integer scores most pairs are like that. `best_threshold` has no such fault.

    Returns:
        Accuracy in 0..1; 0 without pairs, as there.
    """
    if not preferences:
        return 0.0
    order = sorted(zip(preferences, differences, strict=True), key=lambda pair: abs(pair[1]))
    # Nothing is a tie at first.
    right = sum(1 for meant, said in order if meant != 0 and meant * said > 0)
    best = float("-inf")
    for meant, said in order:
        # The pair becomes a tie; those after it, of the same difference, are not yet.
        if meant == 0:
            right += 1
        elif meant * said > 0:
            right -= 1
        best = max(best, right / len(order))
    return best


def untied_accuracy(preferences: Sequence[int], differences: Sequence[float]) -> float:
    """The official `calc_accuracy_without_ties`: pairs that people call a tie are left out; 0 without others.

    Equal scores are wrong there, since no threshold makes them a tie.
    """
    decided = [(meant, said) for meant, said in zip(preferences, differences, strict=True) if meant != 0]
    return sum(meant * said > 0 for meant, said in decided) / len(decided) if decided else 0.0


def _right(meant: int, said: float, threshold: float) -> bool:
    if abs(said) <= threshold:
        return meant == 0
    return meant * said > 0
