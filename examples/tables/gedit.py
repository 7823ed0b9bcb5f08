"""Table: SC, PQ and O of editors before and after RL, overall and per category.

    python examples/tables/gedit.py examples/tables/gedit.json --bench gedit --verifier viescore:MODEL@URL --output DIR
    python examples/tables/gedit.py examples/tables/gedit_miniature.json --bench miniedit:60 --output DIR

A plan is a JSON list of editors: `row`, `model`, perhaps `lora` and `before` (the row that it is compared with),
`steps` and `call`. An editor whose `lora` is not there yet is trained where the plan says so (`train`: how MiniEdit's
RL differs from the demo's, and its judge), else it stays empty, with its `command` below the table. A rerun makes and
asks nothing twice; `editr1 report DIR/ROW -o page.html` shows what moved.

The published table is made by GPT-4.1 with VIEScore's prompts. Numbers of another judge compare among themselves only.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

from cells import markdown, read_plan, run, slug, with_interval

from editr1_plugins.miniedit.demo_run import DemoSettings, run_arm

PARTS: Final = ("SC", "PQ", "O")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--bench", default="gedit")
    parser.add_argument("--data", help="of the benchmark")
    parser.add_argument("--verifier", default="measure", help="the judge of all editors; default: measure")
    parser.add_argument("--limit", type=int)
    arguments = parser.parse_args()
    plan = read_plan(arguments.plan, ("row", "model"))
    found = {row["row"]: evaluated(row, arguments) for row in plan}
    parts = [overall_table(found)]
    parts += [category_table(name, each) for name, each in found.items() if each and "comparison" in each]
    parts += [f"{row['row']}: `{row['command']}`" for row in plan if found[row["row"]] is None]
    text = "\n\n".join(parts) + "\n"
    (arguments.output / "table.md").write_text(text)
    print(text)


def evaluated(row: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any] | None:
    """What `editr1 eval editor` found; None where the editor is not there."""
    lora = row.get("lora")
    if lora is not None:
        path = Path(lora) if "train" not in row else arguments.output / lora
        if not path.exists():
            if "train" not in row:
                return None
            print(f"training {row['row']}", flush=True)
            run_arm("trained", 0, DemoSettings(held_out=8, **row["train"]), lora=path)
        lora = str(path)
    command = ["eval", "editor", "--bench", arguments.bench, "--model", row["model"], "--verifier", arguments.verifier]
    command += ["--output", str(arguments.output / slug(row["row"]))]
    options = {"--lora": lora, "--data": arguments.data, "--limit": arguments.limit}
    options |= {"--steps": row.get("steps"), "--call": row.get("call")}
    for name, value in options.items():
        command += [name, str(value)] if value is not None else []
    if "before" in row:
        command += ["--compare", str(arguments.output / slug(row["before"]))]
    return run(command)


def overall_table(found: dict[str, dict[str, Any] | None]) -> str:
    """Means of categories, as the published table has them, with 95 % intervals."""
    rows = {}
    for name, each in found.items():
        sane = each["sane"] if each else {"mean": {}, "interval": {}}
        means, limits = sane.get("macro", sane["mean"]), sane.get("macro_interval", sane["interval"])
        rows[name] = {part: with_interval(means[part], limits[part]) for part in (*PARTS, "gold") if part in means}
        if each:
            rows[name]["failed, %"] = f"{sane['failure_rate']:g}"
    columns = [part for part in (*PARTS, "gold", "failed, %") if any(part in row for row in rows.values())]
    return markdown("mean of categories", columns, rows)


def category_table(name: str, found: dict[str, Any]) -> str:
    """Before and after per category: the two means, and of O the difference with its paired interval."""
    rows = {}
    for category, numbers in found["comparison"].get("by_category", {}).items():
        known = {part: numbers[part] for part in PARTS if part in numbers}
        cells = {part: f"{shown(each['before'])} / {shown(each['after'])}" for part, each in known.items()}
        if "O" in known:
            cells["O, difference"] = with_interval(known["O"]["difference"], known["O"]["interval"])
        rows[category] = {**cells, "edits": str(next(iter(numbers.values()))["items"])}
    return markdown(f"{name}: before / after", ["edits", *PARTS, "O, difference"], rows)


def shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    main()
