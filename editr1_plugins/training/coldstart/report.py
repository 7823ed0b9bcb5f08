"""What a cold start came to, counted from its files: items and failures per stage, tokens and their cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from ...reward.record import failure_kind
from .config import Price
from .run import Run, chosen_lines
from .store import Line

__all__ = ["ColdStartReport", "Spent", "StageCounts", "cost_of", "report_of"]

_FILES: Final = ("filter", "select", "decompose", "candidates", "traces", "verify")


@dataclass(frozen=True, kw_only=True)
class StageCounts:
    """Items of a stage; `failed` of them have a reason, counted by kind in `failures`, most frequent first."""

    items: int = 0
    failed: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What one model took: requests, tokens, and their cost by the configuration's price (None without one)."""

    requests: int = 0
    prompt: int = 0
    cached: int = 0
    completion: int = 0
    cost: float | None = None


@dataclass(frozen=True, kw_only=True)
class ColdStartReport:
    """Counts of a cold start.

    Attributes:
        examples: rows of the data set.
        stages: by name.
        scan: what selecting found in the data: rows, duplicates, unusable rows by reason.
        parts, traits, categories: of the selected rows.
        example_categories: of the data set's rows.
        chosen: examples by judge.
        judged: traces with a score, and all traces, by judge.
        accuracy: mean agreement of the chosen traces with the gold verdicts, 0..1; None without examples.
        met: share of all gold verdicts that are 1; None without examples.
        spent: by model: "select.filter", "traces.NAME", "verify".
        cost: sum over all models with a price; None where no model has one.
    """

    examples: int = 0
    stages: Mapping[str, StageCounts] = field(default_factory=dict)
    scan: Mapping[str, object] = field(default_factory=dict)
    parts: Mapping[str, int] = field(default_factory=dict)
    traits: Mapping[str, int] = field(default_factory=dict)
    categories: Mapping[str, int] = field(default_factory=dict)
    example_categories: Mapping[str, int] = field(default_factory=dict)
    chosen: Mapping[str, int] = field(default_factory=dict)
    judged: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    accuracy: float | None = None
    met: float | None = None
    spent: Mapping[str, Spent] = field(default_factory=dict)
    cost: float | None = None


def report_of(run: Run) -> ColdStartReport:
    """Count what is in the folder so far, within the run's limit where items are concerned."""
    stages = {name: _counts(_latest(run, name)) for name in _FILES if run.exists(name)}
    chosen = list(chosen_lines(run)) if run.exists("verify") else []
    if chosen:
        stages["choose"] = _counts(chosen)
    selected = run.selected() if run.exists("select") else []
    category = {line["key"]: line["category"] for line in selected}
    examples = [line for line in chosen if line.get("failure") is None]
    spent = _spent(run)
    costs = [each.cost for each in spent.values() if each.cost is not None]
    gold = [
        verdict for line in examples for verdict in run.file("verify").get(line["key"])["gold"] if verdict is not None
    ]
    scan = run.file("select").get("#scan") if run.exists("select") and "#scan" in run.file("select") else {}
    return ColdStartReport(
        examples=len(examples),
        stages=stages,
        scan={name: value for name, value in scan.items() if name not in ("key", "asked")},
        parts=_sorted(Counter(line["part"] for line in selected)),
        traits=_sorted(Counter(trait for line in selected for trait in line["traits"])),
        categories=_sorted(Counter(category.values())),
        example_categories=_sorted(Counter(category[line["key"].split("/")[0]] for line in examples)),
        chosen=_sorted(Counter(line["judge"] for line in examples)),
        judged=_judged(run),
        accuracy=sum(line["accuracy"] for line in examples) / len(examples) if examples else None,
        met=sum(gold) / len(gold) if gold else None,
        spent=spent,
        cost=sum(costs) if costs else None,
    )


def cost_of(price: Price | None, prompt: int, cached: int, completion: int) -> float | None:
    """What tokens cost; `prompt` counts the cached ones too. None without a price."""
    if price is None:
        return None
    cheap = price.prompt if price.cached is None else price.cached
    cached = min(cached, prompt)
    return ((prompt - cached) * price.prompt + cached * cheap + completion * price.completion) / 1e6


def _latest(run: Run, stage: str) -> Iterable[Line]:
    file = run.file(stage)
    return (file.get(key) for key in file if not key.startswith("#"))


def _counts(lines: Iterable[Line]) -> StageCounts:
    items, failures = 0, Counter[str]()
    for line in lines:
        items += 1
        if (failure := line.get("failure")) is not None:
            failures[failure_kind(failure)] += 1
    return StageCounts(items=items, failed=failures.total(), failures=_sorted(failures))


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    """Most frequent first, then by name: the same after any order of work."""
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def _judged(run: Run) -> dict[str, tuple[int, int]]:
    if not run.exists("traces"):
        return {}
    scored, written = Counter[str](), Counter[str]()
    for line in _latest(run, "traces"):
        judge = line["key"].rpartition("/")[2]
        samples = line.get("samples", ())
        written[judge] += len(samples)
        scored[judge] += sum(sample["score"] is not None for sample in samples)
    return {judge: (scored[judge], written[judge]) for judge in sorted(written)}


def _spent(run: Run) -> dict[str, Spent]:
    """Tokens of every request with an answer, those of earlier attempts included."""
    asked = run.config.select.filter
    prices = {f"traces.{judge.name}": judge.price for judge in run.config.traces.judges}
    prices |= {"select.filter": asked.price if asked else None, "verify": run.config.verify.price}
    tokens: dict[str, Counter[str]] = {}
    for stage, prefix in (("filter", "select.filter"), ("traces", ""), ("verify", "verify")):
        for line in run.file(stage).lines() if run.exists(stage) else ():
            if "tokens" in line:
                name = prefix or f"traces.{line['key'].rpartition('/')[2]}"
                tokens.setdefault(name, Counter()).update({**line["tokens"], "requests": 1})
    spent = {}
    for name in sorted(tokens):
        count = {kind: tokens[name][kind] for kind in ("requests", "prompt", "cached", "completion")}
        cost = cost_of(prices.get(name), count["prompt"], count["cached"], count["completion"])
        spent[name] = Spent(**count, cost=cost)
    return spent
