"""Stages "choose" and "dataset": one trace per candidate, written as Parquet shards with images by content.

Both are made anew on each run from what the other stages found, so they are the same after any number of kills.
Columns: see `COLUMNS`; `training.trace_data.load_traces` reads them.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..traces import reasoning_of
from .card import card_text
from .choose import TraceFacts, accuracy_of, choose_trace
from .edits import Candidate, listed_candidates
from .report import ColdStartReport, report_of
from .run import Run, chosen_lines
from .store import Line
from .verify import traces_of

if TYPE_CHECKING:
    import pyarrow

__all__ = ["COLUMNS", "choose_traces", "write_dataset"]

#: Columns of the data set, in order, with what they hold.
COLUMNS: Final = {
    "source": "file name of the image before the edit, relative to this folder",
    "edited": "file name of the edited image",
    "instruction": "what was asked for",
    "principles": "list of {question, category}",
    "gold": "list of 1, 0 or null per principle: the strong judge's verdicts",
    "reasons": "list of one line per principle, by the strong judge",
    "reasoning": "free text of the chosen trace, before its verdicts",
    "verdicts": "list of 1, 0 or null per principle: the chosen trace's verdicts",
    "average": "share of principles met as the chosen trace reports it, 0..1, or null",
    "score": "final score of the chosen trace, 0..10",
    "judge": "who wrote the chosen trace",
    "category": "kind of edit",
}


def choose_traces(run: Run) -> None:
    """Choose a trace of each candidate and write `stages/choose.jsonl`: what was chosen, or why nothing was."""
    path = run.folder.stage("choose")
    temporary = path.with_suffix(".new")
    with open(temporary, "w", encoding="ascii") as file:
        for each in listed_candidates(run):
            file.write(json.dumps(_chosen(run, each), separators=(",", ":")) + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _chosen(run: Run, candidate: Candidate) -> Line:
    line: Line = {"key": candidate.key}
    traces = traces_of(run, candidate.key)
    facts = [
        TraceFacts(verdicts=tuple(trace["verdicts"]), average=trace["average"], score=trace["score"])
        for _, trace in traces
    ]
    if not any(each.score is not None for each in facts):
        return line | {"failure": "no_trace: no judge wrote a trace with a score"}
    golden = run.file("verify")
    if candidate.key not in golden or golden.failed(candidate.key):
        return line | {"failure": "no_gold: the strong judge gave no verdicts"}
    gold = golden.get(candidate.key)["gold"]
    index = choose_trace(facts, gold)
    assert index is not None
    accuracy = accuracy_of(facts[index].verdicts, gold)
    if accuracy < run.config.choose.min_accuracy:
        return line | {"failure": f"low_accuracy: the best trace agrees in less than {run.config.choose.min_accuracy}"}
    return line | {"trace": index, "judge": traces[index][0], "accuracy": accuracy}


def write_dataset(run: Run) -> ColdStartReport:
    """Write the data set to `dataset/`, in the order of the candidates' keys, and count what became of everything."""
    target = run.folder.path / "dataset"
    new = target.with_name(".dataset.new")
    shutil.rmtree(new, ignore_errors=True)
    (new / "data").mkdir(parents=True)
    keys = sorted(line["key"] for line in chosen_lines(run) if line.get("failure") is None)
    _write_rows(run, keys, new)
    report = report_of(run)
    (new / "README.md").write_text(card_text(run.config, report, COLUMNS), encoding="utf-8")
    old = target.with_name(".dataset.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    return report


def _write_rows(run: Run, keys: list[str], folder: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    chosen = {line["key"]: line for line in chosen_lines(run)}
    candidates = {each.key: each for each in listed_candidates(run)}
    categories = {line["key"]: line["category"] for line in run.selected()}
    size = run.config.dataset.shard_rows
    count = max(1, -(-len(keys) // size))
    for number in range(count):
        rows = []
        for key in keys[number * size : (number + 1) * size]:
            each = candidates[key]
            rows.append(_row(run, each, chosen[key], categories[each.row]))
            for name in (each.source, each.edited):
                _link(run.folder.path / name, folder / name)
        table = pyarrow.Table.from_pylist(rows, schema=_schema())
        parquet.write_table(table, folder / "data" / f"train-{number:05d}-of-{count:05d}.parquet")


def _row(run: Run, each: Candidate, chosen: Line, category: str) -> dict[str, Any]:
    principles = run.file("decompose").get(each.row)["principles"]
    gold = run.file("verify").get(each.key)
    judge, trace = traces_of(run, each.key)[chosen["trace"]]
    return {
        "source": each.source,
        "edited": each.edited,
        "instruction": _text(each.instruction),
        "principles": [{name: _text(text) for name, text in principle.items()} for principle in principles],
        "gold": gold["gold"],
        "reasons": [_text(reason) for reason in gold["reasons"]],
        "reasoning": _text(reasoning_of(trace["trace"])),
        "verdicts": trace["verdicts"] or [None] * len(principles),
        "average": trace["average"],
        "score": trace["score"],
        "judge": judge,
        "category": category,
    }


def _text(text: str) -> str:
    """Text that can be written as UTF-8; models now and then send half of a surrogate pair."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _schema() -> pyarrow.Schema:
    import pyarrow as pa

    text, number = pa.string(), pa.float64()
    verdicts = pa.list_(pa.int8())
    types = {
        "principles": pa.list_(pa.struct([("question", text), ("category", text)])),
        "gold": verdicts,
        "reasons": pa.list_(text),
        "verdicts": verdicts,
        "average": number,
        "score": number,
    }
    return pa.schema([(name, types.get(name, text)) for name in COLUMNS])


def _link(source: Path, target: Path) -> None:
    """The same file under another name, or a copy where the disk has no links."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
