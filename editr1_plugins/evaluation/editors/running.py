"""One editor on one benchmark: make the edits, have them judged, count in both modes, compare with a run before."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

from editr1_plugins.errors import ConfigError, DataError, ImageError
from editr1_plugins.evaluation.catalogue import JUDGED
from editr1_plugins.evaluation.editors.answers import judge_made, measured
from editr1_plugins.evaluation.editors.catalogue import read_recorded_edits
from editr1_plugins.evaluation.editors.generating import Progress, make_edits, settled
from editr1_plugins.evaluation.editors.items import (
    EditorBenchmark,
    EditorItem,
    JudgedEdit,
    distinct,
    write_judged_edits,
)
from editr1_plugins.evaluation.editors.sampling import Editor
from editr1_plugins.evaluation.editors.summary import (
    compare_edits,
    evaluate_edits,
    moved_most,
    numbers_of,
    overall_name,
)
from editr1_plugins.evaluation.judges import WholeEdit
from editr1_plugins.evaluation.sources import load_json
from editr1_plugins.reward.bulk_rows import BulkSummary
from editr1_plugins.reward.edit_rows import file_below
from editr1_plugins.types import Verifier

__all__ = ["SUMMARY", "compare_with", "evaluate_editor", "first_edits", "only_make", "write_summary"]

SUMMARY: Final = "summary.json"
#: Pictures that are shown of those that moved up, and of those that moved down.
_MOVED: Final = 12


def first_edits(benchmark: EditorBenchmark, place: str | None, limit: int | None) -> list[EditorItem]:
    """The first `limit` items (None: all); their pictures are read when they are needed.

    Raises:
        ConfigError: a wrong limit.
        DataError: the data do not fit, two items have one key, or there are none.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"limit must be at least 1, got {limit}")
    items = list(distinct(islice(benchmark.edits(place), limit)))
    if not items:
        raise DataError(f"{benchmark.name}: no rows")
    return items


def only_make(
    items: Sequence[EditorItem],
    directory: Path,
    editor: Editor,
    *,
    benchmark: EditorBenchmark,
    shard: tuple[int, int],
    retry_failed: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> dict[str, Any]:
    """Make one shard's edits and judge nothing; {"made", "failed"} of them.

    Raises: as `generating.make_edits`.
    """
    settled(directory, {"benchmark": benchmark.name, **editor.settings})
    made = make_edits(items, directory, editor, shard=shard, retry_failed=retry_failed, progress=progress)
    failed = sum(each.failure is not None for each in made.values())
    return {"kind": "shard", "shard": list(shard), "made": len(made) - failed, "failed": failed}


def evaluate_editor(
    benchmark: EditorBenchmark,
    items: Sequence[EditorItem],
    editor: Editor,
    judge: Verifier | None,
    directory: Path,
    *,
    reward: Mapping[str, Any] | None = None,
    batch_size: int = 32,
    retry_failed: bool = False,
    making: Callable[[Progress], None] | None = None,
    judging: Callable[[BulkSummary], None] | None = None,
) -> dict[str, Any]:
    """Make the edits, have them judged, and count; what `directory` holds is neither made nor judged again.

    Writes `judged.jsonl` (a row per edit) and `summary.json` (what is returned) there.

    Args:
        benchmark, items: what to edit.
        editor: makes the edits.
        judge: a verifier; None for items that have a gold measure.
        directory: where edits, images and records go.
        reward: further arguments of `EditRRMReward` (decomposer, cache, guards; default: no guards).
        batch_size: edits per call of the judge.
        retry_failed: try again what failed, both making and judging.
        making, judging: called as the work goes on.

    Raises:
        ConfigError: no judge for items without gold, or a directory of another editor or judge.
        DataError, MissingExtraError, ComponentError, OSError: as `make_edits` and `judge_made`.
    """
    if judge is None and not all(item.gold for item in items):
        raise ConfigError(f"{benchmark.name} has no gold measure: give a verifier")
    settled(directory, {"benchmark": benchmark.name, **editor.settings})
    made = make_edits(items, directory, editor, retry_failed=retry_failed, progress=making)
    if judge is None:
        rows = [_unjudged(item, made[item.key].source, made[item.key].edited, made[item.key].failure) for item in items]
    else:
        rows = judge_made(
            items,
            made,
            directory,
            benchmark=benchmark.name,
            reward=_reward_settings(judge, reward or {}),
            batch_size=batch_size,
            retry_failed=retry_failed,
            progress=judging,
        )
    rows = _with_gold(rows, measured(items, made, directory))
    found = evaluate_edits(benchmark, rows)
    found |= {"editor": editor.settings, "judge": _judge_of(directory) if judge is not None else "gold measure"}
    found["seconds_per_edit"] = _mean_seconds([each.seconds for each in made.values() if each.edited is not None])
    write_judged_edits(directory / JUDGED, rows)
    write_summary(directory, found)
    return found


def compare_with(
    benchmark: EditorBenchmark,
    rows: Sequence[JudgedEdit],
    directory: Path | None,
    other: Path,
    place: str | None,
) -> dict[str, Any]:
    """The comparison with a run before, for a summary; its "moved" names the pictures that moved most.

    The pictures of the other run that are named are copied into `directory`, so that a report needs that alone.

    Raises:
        DataError: `other` cannot be read, or is of other data.
    """
    before = read_recorded_edits(benchmark, other, place)
    found = compare_edits(benchmark, before, rows)
    if (other / SUMMARY).is_file():
        found["before"] = _editor_of(other)
    if directory is not None:
        overall = overall_name(benchmark, rows)
        found["moved"] = {
            way: [_move(benchmark, overall, move, other, directory) for move in moves]
            for way, moves in moved_most(benchmark, before, rows, _MOVED).items()
        }
    return found


def write_summary(directory: Path, found: Mapping[str, Any]) -> None:
    """Write `summary.json`, whole or not at all."""
    path = directory / SUMMARY
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(json.dumps(found, indent=2, allow_nan=False) + "\n")
    temporary.replace(path)


def _move(
    benchmark: EditorBenchmark,
    overall: str,
    move: tuple[float, JudgedEdit, JudgedEdit],
    other: Path,
    directory: Path,
) -> dict[str, Any]:
    difference, before, after = move
    return {
        "key": after.key,
        "instruction": after.instruction,
        "category": after.category,
        "difference": round(difference, 4),
        "source": after.source,
        "before": {"edited": _copied(before.edited, other, directory), **_numbers(benchmark, overall, before)},
        "after": {"edited": after.edited, **_numbers(benchmark, overall, after)},
    }


def _numbers(benchmark: EditorBenchmark, overall: str, row: JudgedEdit) -> dict[str, float]:
    return {overall: round(numbers_of(benchmark, row)[overall], 4)}


def _copied(name: str | None, other: Path, directory: Path) -> str | None:
    """The image's name if `directory` holds it now; None where the other run has none."""
    if name is None or not other.is_dir():
        return None
    try:
        here, there = file_below(directory, name), file_below(other, name)
    except ImageError:
        return None
    if there.is_file() and not here.exists():
        here.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(there, here)
    return name if here.exists() else None


def _reward_settings(judge: Verifier, given: Mapping[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {"guards": (), **given, "verifier": judge}
    if not getattr(judge, "needs_principles", True):
        settings["decomposer"] = WholeEdit()
    return settings


def _unjudged(item: EditorItem, source: str | None, edited: str | None, failure: str | None) -> JudgedEdit:
    return JudgedEdit(
        key=item.key,
        instruction=item.instruction,
        category=item.category,
        group=item.group,
        tags=item.tags,
        failure=failure or "not_measured: the gold measure does not fit this edit",
        source=source,
        edited=edited,
    )


def _with_gold(rows: Sequence[JudgedEdit], gold: Mapping[str, Mapping[str, float]]) -> list[JudgedEdit]:
    found = []
    for row in rows:
        if row.key in gold:
            judged = row.failure is None or row.failure.startswith("not_measured")
            row = replace(row, numbers={**row.numbers, **gold[row.key]}, failure=None if judged else row.failure)
        found.append(row)
    return found


def _editor_of(directory: Path) -> Any:
    """Which editor a run before was of, None where it does not tell."""
    told = load_json(directory / SUMMARY)
    return told.get("editor") if isinstance(told, dict) else None


def _judge_of(directory: Path) -> dict[str, Any]:
    """Who judged, as the resumable client keeps it."""
    settings = json.loads((directory / "run.json").read_bytes())
    return {name: settings[name] for name in ("verifier", "decomposer", "guards", "samples") if name in settings}


def _mean_seconds(seconds: Sequence[float]) -> float | None:
    return round(sum(seconds) / len(seconds), 4) if seconds else None
