"""Stage "select": which rows; a share at random, a share of hard ones, each drawn by the digest of its content.

Sorting rows by a digest of (seed, row) is a random draw that does not depend on their order, on restarts or on the
limit: a smaller selection is the beginning of a larger one.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from ...backends.chat import Sampling
from ...errors import ComponentError, DataError
from .asking import filter_request, read_filter
from .chat import ask_one, backend_of, is_remote, threads_of, usage_of, verifier_from
from .config import ColdStartConfig
from .rows import InputRow, InputRows
from .run import Run, parts_of
from .running import Lane, batches, seed_of
from .store import Line
from .traits import category_of, traits_of

__all__ = ["SCAN", "Scan", "input_rows", "scan_rows", "select_rows"]

#: Key of the line that says what the scan of all rows found.
SCAN: Final = "#scan"
_BATCH: Final = 32
_FEWEST_FAILURES: Final = 8
_MAX_KINDS: Final = 20


class Scan:
    """All rows of the data by what they say: who may be drawn at random, who counts as hard before any filter.

    Attributes:
        random: the rows drawn at random, in order.
        pool: rows with a trait that were not drawn, in the order in which the filter is asked.
        rows, duplicates: how many there are; a row that says what an earlier one says is left out.
        unusable: rows without an instruction and the like, by reason.
    """

    def __init__(self, rows: InputRows, config: ColdStartConfig) -> None:
        seen: set[str] = set()
        usable: list[tuple[int, InputRow]] = []
        self.rows, self.duplicates, self.unusable = 0, 0, Counter[str]()
        for row in rows:
            self.rows += 1
            if row.problem is not None:
                kind = row.problem[:120]
                self.unusable[kind if kind in self.unusable or len(self.unusable) < _MAX_KINDS else "other"] += 1
            elif row.key in seen:
                self.duplicates += 1
            else:
                seen.add(row.key)
                usable.append((seed_of(config.seed, "select", row.key), row))
        usable.sort(key=lambda ranked: (ranked[0], ranked[1].key))
        count = len(usable) if config.select.random is None else config.select.random
        self.random = [row for _, row in usable[:count]]
        wanted = set(config.select.traits)
        rest = (row for _, row in usable[count:]) if config.select.hard else iter(())
        self.pool = [row for row in rest if not wanted or wanted.intersection(traits_of(row.instruction))]

    def facts(self) -> dict[str, Any]:
        """Counts, as the stage's file keeps them."""
        return {
            "rows": self.rows,
            "duplicates": self.duplicates,
            "unusable": dict(sorted(self.unusable.items())),
            "hard_by_rules": len(self.pool),
        }


def input_rows(run: Run) -> InputRows:
    """The data of a run."""
    made = sorted(each.column for each in run.config.candidates if each.column is not None)
    return InputRows(run.config.data, made, run.parts.rows)


def scan_rows(run: Run) -> Scan:
    """Read all rows, without decoding an image."""
    return Scan(input_rows(run), run.config)


def select_rows(run: Run) -> None:
    """Draw the rows, keep their sources, and write a line for each: its part, place, traits and category.

    Raises:
        ComponentError: the filter answers nothing at all.
        ConfigError, DataError: as `InputRows` and `StageFile`.
    """
    file = run.file("select")
    wanted = parts_of(run.config, run.limit)
    if SCAN in file and not run.retry_failed and _covers(file.get(SCAN)["asked"], wanted):
        return
    rows = input_rows(run)
    scan = Scan(rows, run.config)
    chosen: dict[str, tuple[InputRow, str, int]] = {}
    for place, row in enumerate(scan.random[: wanted["random"]]):
        chosen[row.key] = (row, "random", place)
    for place, row in enumerate(_hard(run, scan.pool, wanted["hard"] or 0)):
        chosen[row.key] = (row, "hard", place)

    def kept(keys: list[str]) -> list[Line]:
        return [_line(run, rows, *chosen[key]) for key in keys]

    pending = run.pending(file, chosen)
    run.work(file, list(chosen), [Lane((list(part) for part in batches(pending, _BATCH)), kept)])
    file.append([{"key": SCAN, "asked": wanted, **scan.facts()}])


def _covers(before: dict[str, int | None], now: dict[str, int | None]) -> bool:
    """Whether an earlier run took at least as many rows of each part."""

    def enough(had: int | None, want: int | None) -> bool:
        return had is None or (want is not None and had >= want)

    return all(enough(before[part], now[part]) for part in now)


def _line(run: Run, rows: InputRows, row: InputRow, part: str, place: int) -> Line:
    line = {"key": row.key, "index": row.index, "id": row.identifier, "part": part, "place": place}
    line |= {"instruction": row.instruction, "category": category_of(row.instruction)}
    line["traits"] = list(traits_of(row.instruction))
    try:
        return line | {"source": run.folder.keep(rows.source(row.index))}
    except DataError as error:
        return line | {"failure": f"bad_image: {error}"}


def _hard(run: Run, pool: list[InputRow], count: int) -> list[InputRow]:
    """The first `count` rows of the pool that the filter, if there is one, does not call simple."""
    asked = run.config.select.filter
    if asked is None or not count:
        return pool[:count]
    backend = backend_of(verifier := verifier_from(asked.spec, None, asked.options, "select.filter"))
    if backend is None:
        raise ComponentError(f"select.filter: {type(verifier).__name__} is no chat model that can be asked")
    file, seed = run.file("filter"), seed_of(run.config.seed, "filter")
    sampling = Sampling(max_tokens=asked.max_tokens, seed=seed)
    taken: list[InputRow] = []

    def judged(keys: list[str]) -> list[Line]:
        return [_filtered(key, ask_one(backend, filter_request(texts[key]), sampling)) for key in keys]

    # A local model works through one request after the other; a server gets all at once.
    step = max(_BATCH, threads_of(backend)) if is_remote(backend) else _BATCH
    for piece in batches(pool, step):
        texts = {row.key: row.instruction for row in piece}
        pending = run.pending(file, texts)
        run.work(file, list(texts), [Lane(([key] for key in pending), judged, threads_of(backend))])
        if len(pending) >= _FEWEST_FAILURES and all(file.failed(key) for key in pending):
            raise ComponentError(
                f"select.filter answers nothing: {file.get(pending[0])['failure']}; rerun with --retry-failed"
            )
        taken += [row for row in piece if not file.failed(row.key) and not file.get(row.key)["simple"]]
        if len(taken) >= count:
            break
    return taken[:count]


def _filtered(key: str, replies: list[Any]) -> Line:
    line: Line = {"key": key, "tokens": usage_of(replies)}
    if replies[0].failure is not None:
        return line | {"failure": replies[0].failure}
    simple = read_filter(replies[0].text)
    return line | ({"failure": "no_answer: neither simple nor not"} if simple is None else {"simple": simple})
