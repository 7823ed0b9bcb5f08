"""The sections of a page about an editor on a benchmark, and before against after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from editr1_plugins.evaluation.editors.items import JudgedEdit
from editr1_plugins.report.sections import (
    FEW,
    UNKNOWN,
    Card,
    Figure,
    Pictures,
    Table,
    TableRow,
    histogram,
    list_in,
    number_in,
    shown,
    spanned,
    table_in,
    text_in,
)

__all__ = ["editor_sections", "editor_tiles"]

_WORST: Final = 12
_FAILED: Final = 8
_MEANINGS: Final = {
    "gold": "truth of the drawn world, 0..10: 10 x (change made) x (rest kept)",
    "score": "the judge's score of an edit, 0..10",
    "SC": "semantic consistency, 0..10: the lower of following the instruction and keeping the rest",
    "PQ": "perceptual quality, 0..10",
    "O": "overall, 0..10: the square root of SC x PQ",
    "follow": "share of the judge's questions about the instruction that were met, 0..10",
    "keep": "share of the judge's questions about what was to stay that were met, 0..10",
    "quality": "share of the judge's questions about image quality that were met, 0..10",
    "average": "mean of the benchmark's own numbers",
    "overall": "the benchmark's weighted number",
}


def editor_tiles(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The figures at the top of the page: (value, what it is)."""
    overall, sane = text_in(found.get("overall")), table_in(found.get("sane"))
    tiles = [
        (shown(found.get("items")), "edits"),
        (shown(table_in(sane.get("mean")).get(overall)), f"mean {overall}"),
        (shown(table_in(sane.get("interval")).get(overall)), "95 % interval"),
        (f"{shown(sane.get('failure_rate'))} %", "failed"),
    ]
    change = table_in(table_in(table_in(found.get("comparison")).get("numbers")).get(overall))
    if change:
        difference = number_in(change.get("difference"))
        tiles.append((UNKNOWN if difference is None else f"{difference:+.2f}", f"{overall} against before"))
    return tiles


def editor_sections(found: Mapping[str, Any], rows: Sequence[JudgedEdit], values: Mapping[str, float]) -> list[Any]:
    """All sections, in reading order.

    Args:
        found: the run's `summary.json`.
        rows: its judged edits.
        values: of the overall number by key.
    """
    overall, sane = text_in(found.get("overall")), table_in(found.get("sane"))
    limits = [number_in(each) for each in list_in(found.get("limits"))]
    low, high = (limits[0] or 0.0, limits[1] or 10.0) if len(limits) == 2 else (0.0, 10.0)
    sections: list[Any] = []
    comparison = table_in(found.get("comparison"))
    if comparison:
        sections += _before_and_after(comparison, overall)
    sections.append(_categories(sane, overall, low, high))
    if values:
        note = "How many edits lie where; a good editor's bars stand at the right."
        sections.append(histogram(f"Distribution of {overall}", list(values.values()), low, high, note))
    official = _official(table_in(found.get("official")))
    sections += [official] if official.rows else []
    if table_in(sane.get("failures")):
        sections.append(_failures(sane))
    if comparison:
        sections += _moved(table_in(comparison.get("moved")), overall)
    return [*sections, *_worst(rows, values, overall), _meanings(sane)]


def _before_and_after(comparison: Mapping[str, Any], overall: str) -> list[Table]:
    numbers, categories = table_in(comparison.get("numbers")), table_in(comparison.get("by_category"))
    by_category = {name: table_in(table).get(overall) for name, table in categories.items()}
    only = [shown(comparison.get(f"only_{side}_failed")) for side in ("before", "after")]
    note = (
        "The same edits before and after, after less before, with 95 % paired bootstrap intervals. A bar that does not "
        f"touch the line in the middle is a difference that chance does not explain. {only[0]} failed only before, "
        f"{only[1]} only after; those are not compared."
    )
    note += FEW
    first = _differences("Before and after", {overall: numbers.get(overall), **numbers}, note, bold=overall)
    if not by_category:
        return [first]
    return [first, _differences(f"{overall} before and after, by category", by_category, "")]


def _differences(title: str, table: Mapping[str, Any], note: str, *, bold: str = "") -> Table:
    seen = [[*list_in(table_in(row).get("interval")), table_in(row).get("difference")] for row in table.values()]
    ends = [abs(end) for some in seen for each in some if (end := number_in(each)) is not None]
    far = max([*ends, 0.1])
    rows = []
    for name, each in table.items():
        row = table_in(each)
        difference = number_in(row.get("difference"))
        rows.append(
            TableRow(
                name=text_in(name),
                cells=[
                    shown(row.get("items")),
                    shown(row.get("before")),
                    shown(row.get("after")),
                    UNKNOWN if difference is None else f"{difference:+.2f}",
                    shown(row.get("interval")),
                ],
                axis=spanned(row.get("interval"), difference, -far, far, signed=True),
                kind="all" if bold and name == bold else "",
            )
        )
    columns = ["edits", "before", "after", "difference", "95 %"]
    return Table(title=title, columns=columns, rows=rows, note=note, ends=(f"{-far:.1f}", f"+{far:.1f}"))


def _categories(sane: Mapping[str, Any], overall: str, low: float, high: float) -> Table:
    mean, interval = table_in(sane.get("mean")), table_in(sane.get("interval"))
    columns = sorted(mean, key=lambda name: name != overall)

    def row(name: str, values: Mapping[str, Any], told: Sequence[object], limits: object, kind: str = "") -> TableRow:
        cells = [*(shown(each) for each in told), *(shown(values.get(column)) for column in columns), shown(limits)]
        return TableRow(name=name, cells=cells, kind=kind, axis=spanned(limits, values.get(overall), low, high))

    rows = [row("all edits", mean, [sane.get("items"), sane.get("failure_rate")], interval.get(overall), "all")]
    if table_in(sane.get("by_category")):
        limits = table_in(sane.get("macro_interval")).get(overall)
        rows.append(row("mean of categories", table_in(sane.get("macro")), [None, None], limits, "all"))
        for name, each in table_in(sane.get("by_category")).items():
            table = table_in(each)
            told = [table.get("items"), table.get("failure_rate")]
            rows.append(row(text_in(name), table, told, table.get("interval")))
    note = f"A failed edit has no number: it is counted, not taken for 0. The bar is the 95 % interval of {overall}."
    if number_in(sane.get("failure_rate")):
        note += (
            f" If all failed edits were the worst or the best possible, its mean would be {shown(sane.get('range'))}."
        )
    head = ["edits", "failed, %", *columns, f"95 % of {overall}"]
    return Table(title="Numbers by category", columns=head, rows=rows, note=note, ends=(f"{low:g}", f"{high:g}"))


def _official(official: Mapping[str, Any]) -> Table:
    rows = []
    for name, value in official.items():
        if number_in(value) is not None:
            rows.append(TableRow(name=text_in(name), cells=[shown(value)]))
    for group in ("by_category", "by_knowledge", "intersection", "en", "cn"):
        for name, value in table_in(official.get(group)).items():
            if isinstance(value, dict):
                known = {part: each for part, each in value.items() if not isinstance(each, (dict, str))}
                cells = ", ".join(f"{part} {shown(each)}" for part, each in known.items())
                rows.append(TableRow(name=text_in(name), cells=[cells]))
            elif not isinstance(value, str):
                rows.append(TableRow(name=f"{group}, {name}", cells=[shown(value)]))
    note = f"The published script's arithmetic, with its faults. {text_in(official.get('note'))}".strip()
    return Table(title="Official count", columns=["value"], rows=rows, note=note)


def _failures(sane: Mapping[str, Any]) -> Table:
    rows = [TableRow(name=text_in(kind), cells=[str(count)]) for kind, count in table_in(sane.get("failures")).items()]
    return Table(title="What failed, by reason", columns=["edits"], rows=rows)


def _moved(moved: Mapping[str, Any], overall: str) -> list[Pictures]:
    found = []
    for way, title in (("up", "Moved up most"), ("down", "Moved down most")):
        cards = []
        for each in list_in(moved.get(way)):
            row = table_in(each)
            before, after = table_in(row.get("before")), table_in(row.get("after"))
            difference = number_in(row.get("difference"))
            cards.append(
                Card(
                    instruction=text_in(row.get("instruction")),
                    badge="" if difference is None else f"{difference:+.2f}",
                    kind=way,
                    facts=[text_in(row.get("category")), text_in(row.get("key"))],
                    figures=[
                        Figure(name=text_in(row.get("source")), caption="source"),
                        Figure(name=text_in(before.get("edited")), caption=f"before {shown(before.get(overall))}"),
                        Figure(name=text_in(after.get("edited")), caption=f"after {shown(after.get(overall))}"),
                    ],
                )
            )
        if cards:
            note = f"The edits whose {overall} changed most between the two runs."
            found.append(Pictures(title=title, cards=cards, note=note))
    return found


def _worst(rows: Sequence[JudgedEdit], values: Mapping[str, float], overall: str) -> list[Pictures]:
    ranked = sorted((row for row in rows if row.key in values), key=lambda row: (values[row.key], row.key))
    found = []
    if ranked:
        cards = [_card(row, f"{values[row.key]:.2f}", "down") for row in ranked[:_WORST]]
        found.append(Pictures(title="Worst edits", cards=cards, note=f"Lowest {overall}, the worst first."))
    failed = [row for row in rows if row.failure is not None][:_FAILED]
    if failed:
        cards = [_card(row, "failed", "down") for row in failed]
        found.append(Pictures(title="Failed edits", cards=cards, note="The first of them, each with its reason."))
    return found


def _card(row: JudgedEdit, badge: str, kind: str) -> Card:
    facts = [row.category, row.key, *([text_in(row.failure)] if row.failure else [])]
    figures = [Figure(name=row.source, caption="source"), Figure(name=row.edited, caption="edited")]
    return Card(instruction=text_in(row.instruction), figures=figures, badge=badge, kind=kind, facts=facts)


def _meanings(sane: Mapping[str, Any]) -> Table:
    names = [name for name in table_in(sane.get("mean")) if name in _MEANINGS]
    rows = [TableRow(name=name, cells=[_MEANINGS[name]]) for name in names]
    return Table(title="What the numbers mean", columns=["meaning"], rows=rows)
