"""One judge on one benchmark: ask, count in both modes, and say what it took and how far the judge can be trusted."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from editr1_plugins.errors import ConfigError
from editr1_plugins.evaluation.catalogue import JUDGED
from editr1_plugins.evaluation.comparing import compare_pairs, take_comparisons
from editr1_plugins.evaluation.items import (
    Benchmark,
    Judged,
    JudgedPair,
    JudgedRating,
    first_rows,
    write_judged,
)
from editr1_plugins.evaluation.judges import WholeEdit
from editr1_plugins.evaluation.metrics import sample_counts, stability
from editr1_plugins.evaluation.pairwise import Comparer
from editr1_plugins.evaluation.running import Run, copy_outcomes, judge_edits, judged_with, take_records
from editr1_plugins.evaluation.summary import evaluate, mean_correlations
from editr1_plugins.evaluation.worst import write_worst, write_worst_votes
from editr1_plugins.reward.bulk_rows import BulkSummary
from editr1_plugins.types import Verifier

__all__ = ["Prices", "evaluate_judge", "write_judge_summary"]

#: What an unchanged picture may get at most, as for `editr1 score --probe`.
_COPY_LIMIT = 1.0


@dataclass(frozen=True, kw_only=True)
class Prices:
    """Of a million tokens, in whatever currency; `cached` of prompt tokens from a cache (None: as others)."""

    prompt: float
    completion: float
    cached: float | None = None


def evaluate_judge(
    benchmark: Benchmark,
    place: str | None,
    judge: Verifier | Comparer,
    directory: Path,
    *,
    limit: int | None = None,
    samples: int = 1,
    copies: int = 0,
    both_orders: bool = True,
    prices: Prices | None = None,
    reward: Mapping[str, Any] | None = None,
    batch_size: int = 32,
    retry_failed: bool = False,
    progress: Callable[[BulkSummary], None] | None = None,
) -> dict[str, Any]:
    """Run a judge on a benchmark; what is recorded in `directory` is not asked again.

    Writes `judged.jsonl` (a line per row, readable as predictions), `summary.json` (what is returned) and `worst.json`
    (where the judge was most wrong) there.

    Args:
        benchmark, place: what to judge; see `items.Benchmark`.
        judge: a verifier, or a comparer for benchmarks of pairs.
        directory: where records go.
        limit: the first so many rows (and what else belongs to the last ranking).
        samples: of each edit; the headline is of the mean, "stability" tells 1, 2, 4, 8, ... of them.
        copies: so many sources are judged as edits, too.
        both_orders: a comparer sees each pair twice.
        prices: for "cost_per_1000".
        reward: further arguments of `EditRRMReward` (decomposer, cache, guards; default: no guards, since they would
            answer for the judge).

    Raises:
        ConfigError, DataError, MissingExtraError, ComponentError, OSError: as `running.judge_edits`.
    """
    options: dict[str, Any] = {
        "benchmark": benchmark.name,
        "batch_size": batch_size,
        "retry_failed": retry_failed,
        "progress": progress,
    }
    items = first_rows(benchmark.items(place), limit, ranked=benchmark.ranked)
    found: dict[str, Any] = {}
    if isinstance(judge, Verifier):
        _check_samples(judge, samples)
        settings = _reward_settings(judge, reward or {})
        run = judge_edits(items, directory, reward=settings, samples=samples, copies=copies, **options)
        judged = judged_with(run, samples)
        found |= _checks(run, judged, samples)
        taken = take_records(directory)
        write_worst(directory, run, judged)
    else:
        if samples > 1 or copies or reward:
            raise ConfigError("a pairwise judge takes no samples, copies, decomposer or guards")
        judged = compare_pairs(items, directory, judge, both_orders=both_orders, **options)
        taken = take_comparisons(directory)
        again = first_rows(benchmark.items(place), limit, ranked=benchmark.ranked)
        write_worst_votes(directory, again, judged)
    found = {**evaluate(benchmark, judged), **found, "taken": {**taken, "cost_per_1000": _cost(taken, prices)}}
    write_judged(directory / JUDGED, judged)
    write_judge_summary(directory, found)
    return found


def write_judge_summary(directory: Path, found: Mapping[str, Any]) -> None:
    """Write `summary.json`, whole or not at all."""
    path = directory / "summary.json"
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(json.dumps(found, indent=2, allow_nan=False) + "\n")
    temporary.replace(path)


def _check_samples(judge: Verifier, samples: int) -> None:
    sampling = getattr(judge, "sampling", None)
    if samples > 1 and sampling is not None and (sampling.temperature == 0 or sampling.seed is not None):
        raise ConfigError(f"{samples} samples at temperature 0, or with one seed, are all the same; set a temperature")


def _reward_settings(judge: Verifier, given: Mapping[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {"guards": (), **given, "verifier": judge}
    if not getattr(judge, "needs_principles", True):
        settings["decomposer"] = WholeEdit()
    return settings


def _checks(run: Run, judged: Sequence[Judged], samples: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if run.copies:
        scores = copy_outcomes(run)
        known = [score for score in scores if score is not None]
        found["copies"] = {
            "judged": len(known),
            "unjudged": len(scores) - len(known),
            "mean": sum(known) / len(known) if known else None,
            "highest": max(known, default=None),
            "above_1": sum(score > _COPY_LIMIT for score in known),
        }
    pairs = [(blank, digests) for blank, digests in run.blanks if isinstance(blank, JudgedPair)]
    if samples > 1 and pairs:
        columns = [
            [[run.outcomes[digests[side], sample][0] for _, digests in pairs] for sample in range(samples)]
            for side in (0, 1)
        ]
        table = stability(columns[0], columns[1], [blank.preference for blank, _ in pairs])
        found["stability"] = {
            str(size): {name: round(100 * value, 4) for name, value in row.items()} for size, row in table.items()
        }
    if samples > 1 and not pairs:
        found["stability"] = {str(size): _correlations(run, size) for size in sample_counts(samples)}
    if samples > 1:
        found["spread"] = _spread(run, samples)
    return found


def _correlations(run: Run, samples: int) -> dict[str, Any]:
    """Of ratings: the correlations of the mean of so many samples."""
    rows = [row for row in judged_with(run, samples) if isinstance(row, JudgedRating)]
    failed = sum(not row.scores for row in rows)
    return {**mean_correlations(rows), "failures": round(100 * failed / len(rows), 4)}


def _spread(run: Run, samples: int) -> float | None:
    """Mean standard deviation of an edit's scores over its samples."""
    edits = {digest for digest, _ in run.outcomes}
    spreads = []
    for digest in edits:
        scores = [score for sample in range(samples) if (score := run.outcomes[digest, sample][0]) is not None]
        if len(scores) > 1:
            spreads.append(float(np.std(scores)))
    return sum(spreads) / len(spreads) if spreads else None


def _cost(taken: Mapping[str, Any], prices: Prices | None) -> float | None:
    """Of 1,000 judgements; None without prices or without counted tokens."""
    if prices is None or taken["prompt_tokens"] is None or taken["completion_tokens"] is None:
        return None
    cached = taken["cached_tokens"] or 0.0
    cheaper = prices.prompt if prices.cached is None else prices.cached
    tokens = (taken["prompt_tokens"] - cached) * prices.prompt + cached * cheaper
    return float(1000 * (tokens + taken["completion_tokens"] * prices.completion) / 1e6)
