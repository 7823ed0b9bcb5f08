"""The honest numbers beside the official ones: strict, half credit, ties excluded, rates, categories, intervals.

A failed pair is wrong, never left out; the intervals are 95 % bootstrap intervals in which rows of one source are drawn
together. Shares are in percent, correlations in -1..1; None stands for what cannot be computed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np

from editr1_plugins.errors import DataError
from editr1_plugins.evaluation.items import Benchmark, Judged, JudgedPair, JudgedRating, as_pairs, as_ratings
from editr1_plugins.evaluation.metrics import (
    TIES,
    Floats,
    Ties,
    by_category,
    credits,
    group_credits,
    macro,
    mean,
    position_bias,
    rates,
)
from editr1_plugins.evaluation.statistics import (
    coded_spearman,
    fisher_mean,
    interval,
    macro_interval,
    mcnemar,
    mean_interval,
    ordered_codes,
    paired_bootstrap,
    resampled,
    spearman,
)
from editr1_plugins.reward.record import failure_kind

__all__ = ["compare_judges", "evaluate", "mean_correlations", "sane_pairs", "sane_ratings"]

#: Equal means of ratings must be equal as floats too.
_DIGITS: Final = 9
_RATING_DRAWS: Final = 1000


def evaluate(benchmark: Benchmark, judged: Sequence[Judged]) -> dict[str, Any]:
    """Both modes: {"benchmark", "items", "official": {...}, "sane": {...}}.

    Raises:
        DataError: no rows, or rows of another kind than the benchmark's.
    """
    if not judged:
        raise DataError(f"{benchmark.name}: no rows")
    if isinstance(judged[0], JudgedPair):
        sane = sane_pairs(as_pairs(judged, benchmark.name), headline=benchmark.headline, ranked=benchmark.ranked)
    else:
        sane = sane_ratings(as_ratings(judged, benchmark.name))
    # Ratings have no accuracy; the key is there for whoever reads many benchmarks.
    official = {"accuracy": None, **benchmark.official(judged)}
    return {"benchmark": benchmark.name, "items": len(judged), "official": official, "sane": sane}


def sane_pairs(pairs: Sequence[JudgedPair], *, headline: str = "", ranked: bool = False) -> dict[str, Any]:
    """What pairs come to.

    Of several rows with one key the last counts (official result files are appended to).

    Args:
        pairs: judged.
        headline: the dimension that the headline numbers are of; "" for all rows.
        ranked: the headline is the share of groups whose pairs are all right; the pairs' is "pair_accuracy".
    """
    every = list({pair.key: pair for pair in pairs}.values())
    rows = [pair for pair in every if pair.dimension == headline] if headline else every
    found: dict[str, Any] = {"dimension": headline} if rows and headline else {}
    rows = rows or every
    found |= _accuracies(rows, ranked)
    tie_rate, failure_rate = rates(_outcomes(rows))
    found |= {"tie_rate": _percent(tie_rate), "failure_rate": _percent(failure_rate), "failures": _failures(rows)}
    found["human_tie_rate"] = _percent(mean(np.array([pair.preference == 0 for pair in rows], dtype=np.float64)))
    for name, kind in (("by_category", "category"), ("by_dimension", "dimension")):
        chosen = rows if kind == "category" else every
        if len({getattr(pair, kind) for pair in chosen}) > 1:
            found[name] = _tables(chosen, kind)
    both = [pair for pair in rows if len(pair.votes) == 2]
    if both:
        bias = position_bias([pair.votes[0] for pair in both], [pair.votes[1] for pair in both])
        shares = {name: _percent(getattr(bias, name)) for name in ("consistent", "first", "flips")}
        found["position_bias"] = {"pairs": bias.pairs, **shares}
    if len(every) < len(pairs):
        found["repeated_rows"] = len(pairs) - len(every)
    return found


def _accuracies(rows: Sequence[JudgedPair], ranked: bool) -> dict[str, Any]:
    meant, said = [pair.preference for pair in rows], _outcomes(rows)
    groups, categories = _groups(rows), [pair.category for pair in rows]
    credit = {ties: credits(meant, said, ties) for ties in TIES}
    strict = credit["strict"]
    found: dict[str, Any] = {"accuracy": _percent(mean(strict)), "interval": _percents(mean_interval(strict, groups))}
    if ranked:
        _, right = group_credits(strict, groups)
        found = {
            "accuracy": _percent(mean(right)),
            "interval": _percents(mean_interval(right)),
            "rankings": int(right.size),
            "pair_accuracy": found["accuracy"],
            "pair_interval": found["interval"],
        }
    found["half_credit"] = _percent(mean(credit["half"]))
    found["half_credit_interval"] = _percents(mean_interval(credit["half"], groups))
    found["ties_excluded"] = _percent(mean(credit["excluded"]))
    found["ties_excluded_items"] = int((~np.isnan(credit["excluded"])).sum())
    found["macro"] = _percent(macro(strict, categories))
    found["macro_interval"] = _percents(macro_interval(strict, categories, groups))
    return {"items": len(rows), **found}


def _tables(rows: Sequence[JudgedPair], kind: str) -> dict[str, dict[str, Any]]:
    names = [getattr(pair, kind) for pair in rows]
    outcomes = _outcomes(rows)
    meant = [pair.preference for pair in rows]
    strict, half = credits(meant, outcomes, "strict"), credits(meant, outcomes, "half")
    failed = by_category(np.isnan(outcomes).astype(np.float64), names)
    halves = by_category(half, names)
    return {
        name: {
            "items": count,
            "accuracy": _percent(share),
            "interval": _category_interval(rows, strict, names, name),
            "half_credit": _percent(halves[name][1]),
            "failure_rate": _percent(failed[name][1]),
        }
        for name, (count, share) in by_category(strict, names).items()
    }


def _category_interval(rows: Sequence[JudgedPair], strict: Floats, names: Sequence[str], name: str) -> Any:
    chosen = [at for at, each in enumerate(names) if each == name]
    return _percents(mean_interval(strict[chosen], _groups([rows[at] for at in chosen])))


def sane_ratings(ratings: Sequence[JudgedRating]) -> dict[str, Any]:
    """Spearman's correlation with the mean rating per category, averaged by Fisher's z, plainly, and over all rows.

    Rows without scores are left out of a correlation and counted; intervals draw whole groups (sources).
    """
    rows = list({row.key: row for row in ratings}.values())
    known = [row for row in rows if row.scores]
    parts = _parts(known)
    tables = {part: _columns(known, part) for part in parts}
    found: dict[str, Any] = {"items": len(rows), "correlation": {}, "interval": {}, "plain_mean": {}, "over_all": {}}
    found["by_category"] = {}
    for part, (said, meant) in tables.items():
        chosen = _by_name([row.category for row in known])
        each = {name: spearman(said[at], meant[at]) for name, at in chosen.items()}
        found["correlation"][part] = _number(fisher_mean(list(each.values())))
        found["plain_mean"][part] = _number(mean(np.array(list(each.values()))))
        found["over_all"][part] = _number(spearman(said, meant))
        found["interval"][part] = _Correlation(known, said, meant).interval()
        for name, value in each.items():
            found["by_category"].setdefault(name, {"items": int(chosen[name].size)})[part] = _number(value)
    found["failure_rate"] = _percent((len(rows) - len(known)) / len(rows)) if rows else None
    found["failures"] = _failures(rows)
    return found


def mean_correlations(ratings: Sequence[JudgedRating]) -> dict[str, float | None]:
    """The "correlation" of `sane_ratings` alone, by part, without intervals."""
    known = [row for row in ratings if row.scores]
    return {part: _number(_Correlation(known, *_columns(known, part)).fisher()) for part in _parts(known)}


def _parts(rows: Sequence[JudgedRating]) -> list[str]:
    named = {name for row in rows for name in row.scores}
    people = rows and all(len(rating) == 2 for row in rows for rating in row.ratings)
    found: list[str] = [name for name in ("SC", "PQ") if name in named and people]
    return [*found, "O"] if "O" in named or len(found) == 2 else found


def _columns(rows: Sequence[JudgedRating], part: str) -> tuple[Floats, Floats]:
    """(what the judge said, what people said on average)."""
    said = np.array([_said(row.scores, part) for row in rows], dtype=np.float64)
    meant = np.array([np.mean([_rated(rating, part) for rating in row.ratings]) for row in rows], dtype=np.float64)
    return said.round(_DIGITS), meant.round(_DIGITS)


def _said(scores: Mapping[str, tuple[float, ...]], part: str) -> float:
    if part in scores:
        return min(scores[part])
    if part == "O" and "SC" in scores and "PQ" in scores:
        return math.sqrt(max(min(scores["SC"]), 0.0) * max(min(scores["PQ"]), 0.0))
    return math.nan


def _rated(rating: Sequence[float], part: str) -> float:
    if len(rating) == 1:
        return rating[0]
    return math.sqrt(rating[0] * rating[1]) if part == "O" else rating[("SC", "PQ").index(part)]


class _Correlation:
    """Correlation of two columns within each category, averaged by Fisher's z; bootstraps draw whole groups."""

    def __init__(self, rows: Sequence[JudgedRating], said: Floats, meant: Floats) -> None:
        self._members = list(_by_name([row.group or row.key for row in rows]).values())
        _, self._categories = np.unique([row.category for row in rows], return_inverse=True)
        self._said, self._meant = ordered_codes(said), ordered_codes(meant)

    def fisher(self, at: Any = None) -> float:
        """Of the rows `at`; None: of all."""
        at = np.arange(len(self._said)) if at is None else at
        names = self._categories[at]
        some = (at[names == name] for name in range(names.max(initial=-1) + 1))
        return fisher_mean([coded_spearman(self._said[each], self._meant[each]) for each in some])

    def interval(self, other: _Correlation | None = None) -> list[float] | None:
        """95 % interval, with `other` of the difference on the same rows; None for fewer than two groups."""
        if len(self._members) < 2:
            return None

        def statistic(drawn: Floats) -> float:
            at = np.concatenate([self._members[int(number)] for number in drawn])
            return self.fisher(at) - (0.0 if other is None else other.fisher(at))

        limits = interval(resampled(statistic, len(self._members), resamples=_RATING_DRAWS))
        return None if limits is None else [round(each, 4) for each in limits]


def _by_name(names: Sequence[str]) -> dict[str, Any]:
    places: dict[str, list[int]] = {}
    for at, name in enumerate(names):
        places.setdefault(name, []).append(at)
    return {name: np.array(places[name]) for name in sorted(places)}


def compare_judges(
    first: Sequence[Judged], second: Sequence[Judged], *, headline: str = "", ranked: bool = False
) -> dict[str, Any]:
    """Two judges on the rows that both were given: their difference with its paired interval.

    Pairs: differences in percent points, and McNemar's exact test on strict credits (a ranking counts as one item).
    Ratings: differences of correlations (see `sane_ratings`) on the rows that both have scores for.

    Raises:
        DataError: one has pairs and the other ratings, or they have no row in common, or disagree about what people
            said.
    """
    if first and isinstance(first[0], JudgedRating):
        return _compare_ratings(as_ratings(first, "a comparison"), as_ratings(second, "a comparison"))
    one = {pair.key: pair for pair in as_pairs(first, "a comparison")}
    two = {pair.key: pair for pair in as_pairs(second, "a comparison")}
    keys = [key for key, pair in one.items() if key in two and (not headline or pair.dimension == headline)]
    if not keys:
        raise DataError("the two judges have no row in common")
    for key in keys:
        if one[key].preference != two[key].preference:
            raise DataError(f"row {key!r}: the two files disagree about what people preferred")
    rows = [one[key] for key in keys]
    found: dict[str, Any] = {"items": len(keys), "only_in_first": len(one) - len(keys)}
    meant = [pair.preference for pair in rows]
    modes: tuple[Ties, ...] = ("strict", "half")
    for ties in modes:
        ours, theirs = (credits(meant, _outcomes([side[key] for key in keys]), ties) for side in (one, two))
        groups = _groups(rows)
        if ranked:
            ours, theirs = (group_credits((side == 1.0).astype(np.float64), groups)[1] for side in (ours, theirs))
        paired = paired_bootstrap(ours, theirs, None if ranked else groups)
        found[ties] = {
            "first": _percent(mean(ours)),
            "second": _percent(mean(theirs)),
            "difference": _percent(paired.difference),
            "interval": _percents(paired.interval),
        }
        if ties == "strict":
            found["mcnemar"] = asdict(mcnemar(ours, theirs))
    return found


def _compare_ratings(first: Sequence[JudgedRating], second: Sequence[JudgedRating]) -> dict[str, Any]:
    one, two = {row.key: row for row in first}, {row.key: row for row in second}
    keys = [key for key in one if key in two]
    if not keys:
        raise DataError("the two judges have no row in common")
    for key in keys:
        if one[key].ratings != two[key].ratings:
            raise DataError(f"row {key!r}: the two files disagree about what people said")
    both = [key for key in keys if one[key].scores and two[key].scores]
    sides = [one[key] for key in both], [two[key] for key in both]
    found: dict[str, Any] = {"items": len(both), "only_in_first": len(one) - len(keys), "failed": len(keys) - len(both)}
    found["correlation"] = {}
    for part in [name for name in _parts(sides[0]) if name in _parts(sides[1])]:
        ours, theirs = (_Correlation(side, *_columns(side, part)) for side in sides)
        means = ours.fisher(), theirs.fisher()
        found["correlation"][part] = {
            "first": _number(means[0]),
            "second": _number(means[1]),
            "difference": _number(means[0] - means[1]),
            "interval": ours.interval(theirs),
        }
    return found


def _outcomes(rows: Sequence[JudgedPair]) -> Floats:
    said = (pair.outcome() for pair in rows)
    return np.array([np.nan if each is None else each for each in said], dtype=np.float64)


def _groups(rows: Sequence[JudgedPair]) -> list[str]:
    return [pair.group or pair.key for pair in rows]


def _failures(rows: Sequence[Judged]) -> dict[str, int]:
    kinds = Counter(failure_kind(row.failure) for row in rows if row.failure)
    return dict(kinds.most_common(20))


def _percent(share: float) -> float | None:
    return None if math.isnan(share) else round(100 * share, 4)


def _percents(limits: tuple[float, float] | None) -> list[float] | None:
    return None if limits is None else [round(100 * each, 2) for each in limits]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)
