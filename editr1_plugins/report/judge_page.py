"""The sections of a page about a judge on a benchmark: how well it agrees with people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from editr1_plugins.report.sections import (
    FEW,
    UNKNOWN,
    Card,
    Figure,
    Pictures,
    Table,
    TableRow,
    curve,
    list_in,
    number_in,
    shown,
    spanned,
    table_in,
    text_in,
)

__all__ = ["judge_sections", "judge_tiles"]

_HEADLINES: Final = {
    "accuracy": ("strict accuracy, %", "interval"),
    "pair_accuracy": ("accuracy of single pairs, %", "pair_interval"),
    "half_credit": ("half credit for ties, %", "half_credit_interval"),
    "ties_excluded": ("ties left out, %", ""),
    "macro": ("mean of categories, %", "macro_interval"),
    "tie_rate": ("judge says tie, %", ""),
    "human_tie_rate": ("people say tie, %", ""),
    "failure_rate": ("failed answers, %", ""),
}


_MEANINGS: Final = {
    "accuracy": ("strict accuracy", "right only where judge and people say the same, ties included"),
    "pair_accuracy": ("accuracy of single pairs", "the rows' own; the headline asks for whole rankings"),
    "half_credit": ("half credit for ties", "half a point where just one of judge and people says tie"),
    "ties_excluded": ("ties left out", "of the pairs in which neither judge nor people say tie"),
    "macro": ("mean of categories", "each category counts alike, however many rows it has"),
    "position_bias": (
        "position bias",
        "each pair shown in both orders: how often the answer is the same (consistent), goes to the edit shown first "
        "(first; 50 is no bias), and turns round with the order (flips)",
    ),
}
_TAKEN: Final = {
    "calls": "answers, or comparisons in one order",
    "seconds_per_1000": "seconds for 1,000 of them, as they were asked (side by side)",
    "prompt_tokens": "prompt tokens of one, mean",
    "cached_tokens": "of them from a cache, mean",
    "completion_tokens": "tokens of the answer, mean",
    "latency_p50": "seconds until an answer, median",
    "latency_p95": "seconds until an answer, 95 % of them",
    "cost_per_1000": "cost of 1,000, in the currency of the prices given",
}


def judge_tiles(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The figures at the top of the page: (value, what it is)."""
    sane, official = table_in(found.get("sane")), table_in(found.get("official"))
    tiles = [(shown(found.get("items")), "rows")]
    if "accuracy" in sane:
        tiles += [(f"{shown(sane.get('accuracy'))} %", "accuracy"), (shown(sane.get("interval")), "95 % interval")]
        if number_in(official.get("accuracy")) is not None:
            tiles.append((f"{shown(official.get('accuracy'))} %", "official accuracy"))
    else:
        overall = table_in(sane.get("correlation"))
        tiles += [(shown(value), f"correlation {name}") for name, value in overall.items()]
    return [*tiles, (f"{shown(sane.get('failure_rate'))} %", "failed")]


def judge_sections(found: Mapping[str, Any], worst: Sequence[Any]) -> list[Any]:
    """All sections, in reading order.

    Args:
        found: the run's `summary.json`.
        worst: its `worst.json`.
    """
    sane = table_in(found.get("sane"))
    sections: list[Any] = [_headlines(sane) if "accuracy" in sane else _correlations(sane)]
    if table_in(found.get("comparison")):
        sections.append(_comparison(table_in(found.get("comparison"))))
    for name, title in (("by_category", "By category"), ("by_dimension", "By dimension")):
        if table_in(sane.get(name)):
            sections.append(_groups(title, table_in(sane.get(name))))
    sections += _curves(table_in(found.get("stability")))
    official = "The published script's arithmetic, with its faults."
    counted = _flat("Official count", table_in(found.get("official")), official)
    sections += [counted] if counted.rows else []
    for name, title in (("position_bias", "Position bias"), ("failures", "Failed answers, by reason")):
        if table_in(sane.get(name)):
            sections.append(_flat(title, table_in(sane.get(name)), ""))
    if table_in(found.get("copies")):
        note = "A judge must give an unchanged picture about 0 of 10."
        sections.append(_flat("Unchanged sources judged as edits", table_in(found.get("copies")), note))
    taken = {_TAKEN.get(name, name): value for name, value in table_in(found.get("taken")).items()}
    sections += [_flat("What it took", taken, "")] if taken else []
    meanings = [TableRow(name=name, cells=[told]) for key, (name, told) in _MEANINGS.items() if key in sane]
    sections += [Table(title="What the numbers mean", columns=["meaning"], rows=meanings)] if meanings else []
    return [*sections, *_worst(worst)]


def _headlines(sane: Mapping[str, Any]) -> Table:
    rows = []
    for name, (title, interval) in _HEADLINES.items():
        if number_in(sane.get(name)) is not None:
            limits = sane.get(interval) if interval else None
            axis = spanned(limits, sane.get(name), 0, 100) if limits else None
            rows.append(TableRow(name=title, cells=[shown(sane.get(name)), shown(limits)], axis=axis))
    note = f"A failed answer is wrong, never left out. Bars are 95 % bootstrap intervals on 0 to 100 %.{FEW}"
    return Table(title="Agreement with people", columns=["value", "95 %"], rows=rows, note=note, ends=("0", "100"))


def _correlations(sane: Mapping[str, Any]) -> Table:
    interval = table_in(sane.get("interval"))
    rows = [
        TableRow(
            name=text_in(name),
            cells=[shown(value), shown(interval.get(name)), shown(table_in(sane.get("over_all")).get(name))],
            axis=spanned(interval.get(name), value, -1, 1),
        )
        for name, value in table_in(sane.get("correlation")).items()
    ]
    note = "Spearman's correlation with the mean rating per category, averaged by Fisher's z."
    columns = ["correlation", "95 %", "over all rows"]
    return Table(title="Agreement with people", columns=columns, rows=rows, note=note, ends=("-1", "1"))


def _comparison(found: Mapping[str, Any]) -> Table:
    columns = ["first", "second", "difference", "95 %"]
    title = "Two judges on the same rows"
    rows = []
    for name, each in table_in(found.get("correlation")).items():
        table = table_in(each)
        cells = [shown(table.get(part)) for part in ("first", "second", "difference", "interval")]
        axis = spanned(table.get("interval"), table.get("difference"), -1, 1, signed=True)
        rows.append(TableRow(name=text_in(name), cells=cells, axis=axis))
    if rows:
        note = "Correlations, first less second, with paired bootstrap intervals; first is this page's judge."
        return Table(title=title, columns=columns, rows=rows, note=note, ends=("-1", "1"))
    for name in ("strict", "half"):
        table = table_in(found.get(name))
        cells = [shown(table.get(part)) for part in ("first", "second", "difference", "interval")]
        axis = spanned(table.get("interval"), table.get("difference"), -100, 100, signed=True)
        rows.append(TableRow(name=name, cells=cells, axis=axis))
    test = table_in(found.get("mcnemar"))
    p_value = number_in(test.get("p_value"))
    told = UNKNOWN if p_value is None else f"{p_value:.2g}"
    note = f"First (this page's judge) less second, percent points. McNemar's exact test: p = {told}."
    return Table(title=title, columns=columns, rows=rows, note=note, ends=("-100", "100"))


def _groups(title: str, table: Mapping[str, Any]) -> Table:
    names = list(dict.fromkeys(name for row in table.values() for name in table_in(row)))
    rows = [
        TableRow(name=text_in(group), cells=[shown(table_in(row).get(name)) for name in names])
        for group, row in table.items()
    ]
    return Table(title=title, columns=[name.replace("_", " ") for name in names], rows=rows)


def _curves(stability: Mapping[str, Any]) -> list[Any]:
    accuracies = {size: number_in(table_in(row).get("accuracy")) for size, row in stability.items()}
    known = {size: value for size, value in accuracies.items() if value is not None}
    if not known:
        hundred = {size: number_in(table_in(row).get("O")) for size, row in stability.items()}
        known = {size: 100 * value for size, value in hundred.items() if value is not None}
        note = "Correlation times 100 of the mean of 1, 2, 4, ... answers per edit."
        drawn = curve("Correlation by samples", known, note)
    else:
        drawn = curve("Accuracy by samples", known, "Accuracy, %, of the mean of 1, 2, 4, ... answers per edit.")
    return [] if drawn is None else [drawn]


def _flat(title: str, table: Mapping[str, Any], note: str) -> Table:
    rows = []
    for name, value in table.items():
        if isinstance(value, dict):
            cells = ", ".join(f"{part} {shown(each)}" for part, each in value.items() if not isinstance(each, dict))
            rows.append(TableRow(name=text_in(name).replace("_", " "), cells=[cells or UNKNOWN]))
        elif number_in(value) is not None:
            rows.append(TableRow(name=text_in(name).replace("_", " "), cells=[shown(value)]))
    return Table(title=title, columns=["value"], rows=rows, note=f"{note} {text_in(table.get('note'))}".strip())


def _worst(worst: Sequence[Any]) -> list[Pictures]:
    cards = []
    for each in worst:
        row = table_in(each)
        figures = [Figure(name=text_in(row.get("source")), caption="source")]
        for one in list_in(row.get("edits")):
            edit = table_in(one)
            told = f"{text_in(edit.get('name'))} {shown(edit.get('score'))}".strip()
            figures.append(Figure(name=text_in(edit.get("edited")), caption=told))
        facts = [f"people: {text_in(row.get('people'))}", text_in(row.get("category")), text_in(row.get("key"))]
        wrong = number_in(row.get("wrong"))
        badge = "the other edit in every order" if wrong is None else f"off by {wrong:.2f}"
        cards.append(
            Card(instruction=text_in(row.get("instruction")), figures=figures, badge=badge, kind="down", facts=facts)
        )
    note = "Where judge and people differ most, the worst first; below each edit the judge's score."
    return [Pictures(title="Worst disagreements", cards=cards, note=note)] if cards else []
