"""Table: reward accuracy on human pairs, by mode and stage, for two sizes; judges behind an API as rows to be filled.

    python examples/tables/accuracy.py examples/tables/accuracy.json --data human_pairs.jsonl --output outputs/accuracy
    python examples/tables/accuracy.py examples/tables/accuracy_miniature.json --miniedit 200 --output outputs/mini
    python examples/tables/accuracy.py examples/tables/editreward_bench.json --bench editscore --output outputs/bench

A plan is a JSON list of cells: `row`, `column`, `verifier` (any spec of `editr1 eval judge`), perhaps `mode`. A cell
with `"verifier": null`, or whose judge cannot be loaded, stays empty, with its command below the table. --only NAME
fills the rows of that name. A rerun asks nothing twice. --results FOLDER adds what `examples/miniature/tables.py`
measured while it trained, over its seeds.

The second table of the paper, EditReward-Bench, is the same script with the plan `editreward_bench.json`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from cells import markdown, read_plan, run, slug, with_interval

from editr1_plugins.miniedit.compounds import draw_attempt, sample_attempt, sample_compound
from editr1_plugins.miniedit.gold import gold_score
from editr1_plugins.miniedit.world import draw

#: Stages of `examples/miniature/tables.py`, and the paper's columns.
COLUMNS: Final = {
    "sft-think": "T (think)",
    "sft-verify": "V (verify)",
    "sft-think+verify": "T+V",
    "gcpo": "T+V + GCPO",
}
LEAST_GAP: Final = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--bench", default="pairs")
    parser.add_argument("--data", help="of the benchmark")
    parser.add_argument("--miniedit", type=int, metavar="N", help="draw N pairs of MiniEdit instead of --data")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--only", help="rows whose name contains this")
    parser.add_argument("--results", type=Path, help="folder that examples/miniature/tables.py wrote")
    arguments = parser.parse_args()
    data = arguments.data
    if arguments.miniedit is not None:
        data = str(draw_pairs(arguments.output / f"miniedit-{arguments.miniedit}", arguments.miniedit))
    plan = read_plan(arguments.plan, ("row", "column", "verifier"))
    columns = list(dict.fromkeys(cell["column"] for cell in plan))
    rows: dict[str, dict[str, str]] = {cell["row"]: {} for cell in plan}
    for cell in plan:
        if cell["verifier"] is not None and (arguments.only is None or arguments.only in cell["row"]):
            rows[cell["row"]][cell["column"]] = filled(cell, arguments, data)
    if arguments.results is not None:
        columns = list(dict.fromkeys([*columns, *COLUMNS.values()]))
        for name, column, text in measured(arguments.results):
            rows.setdefault(name, {})[column] = text
    table = markdown("accuracy, %", columns, rows)
    empty = [cell for cell in plan if not rows[cell["row"]].get(cell["column"])]
    text = "\n\n".join([table, *(f"{cell['row']}, {cell['column']}: `{command_of(cell)}`" for cell in empty)]) + "\n"
    (arguments.output / "table.md").write_text(text)
    print(text)


def filled(cell: dict[str, Any], arguments: argparse.Namespace, data: str | None) -> str:
    folder = arguments.output / slug(f"{cell['row']} {cell['column']}")
    command = ["eval", "judge", "--bench", arguments.bench, "--verifier", cell["verifier"], "--output", str(folder)]
    command += ["--mode", cell["mode"]] if cell.get("mode") else []
    command += ["--data", data] if data is not None else []
    command += ["--limit", str(arguments.limit)] if arguments.limit is not None else []
    found = run(command)
    return "" if found is None else with_interval(found["sane"]["accuracy"], found["sane"]["interval"])


def command_of(cell: dict[str, Any]) -> str:
    """How to fill an empty cell."""
    mode = f" --mode {cell['mode']}" if cell.get("mode") else ""
    return cell.get("command") or f"editr1 eval judge --bench BENCH --verifier {cell['verifier']}{mode} --output DIR"


def measured(folder: Path) -> Iterator[tuple[str, str, str]]:
    """(row, column, text) from the records of trained judges: the mean over seeds, and the seeds' extremes."""
    found: dict[tuple[str, str], list[float]] = {}
    for path in sorted(folder.rglob("*.json")):
        record = json.loads(path.read_text())
        if isinstance(record, dict) and record.get("stage") in COLUMNS and "metrics" in record:
            accuracy = record["metrics"]["sampled"]["pair_accuracy"]
            key = (f"miniature, {record['size']} (trained)", COLUMNS[record["stage"]])
            found.setdefault(key, []).append(100 * accuracy)
    for (row, column), values in found.items():
        extremes = [min(values), max(values)]
        yield row, column, f"{with_interval(float(np.mean(values)), extremes)}, {len(values)} seeds"


def draw_pairs(folder: Path, count: int) -> Path:
    """Pairs of edits of MiniEdit, ordered by the gold measure, which no judge sees."""
    path = folder / "pairs.jsonl"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    rng, rows = np.random.default_rng(20_260), list[dict[str, str]]()
    while len(rows) < count:
        compound = sample_compound(rng, parts=1)
        edits = [draw_attempt(compound, sample_attempt(rng, compound)) for _ in range(2)]
        scores = [gold_score(compound.task, edit).score for edit in edits]
        if abs(scores[0] - scores[1]) < LEAST_GAP:
            continue
        better = 0 if scores[0] > scores[1] else 1
        row = {"instruction": compound.task.instruction, "category": compound.task.operation, "id": str(len(rows))}
        pictures = {"source": draw(compound.task.scene), "winner": edits[better], "loser": edits[1 - better]}
        for name, image in pictures.items():
            row[name] = f"{len(rows):05}-{name}.png"
            image.save(folder / row[name])
        rows.append(row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


if __name__ == "__main__":
    main()
