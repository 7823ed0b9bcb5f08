"""Preference pairs from files and the hub, in the forms that teams have them, and written as a data set.

    pairs = load_pairs("pairs.jsonl")
    pairs = pairs_from_scores("judged", min_gap=2)  # a folder that `editr1 score --input ... --output judged` wrote
    save_pairs(pairs, "pairs")

Every row has `source` and `instruction`, and one of these:

- `winner`, `loser`;
- `image_a`, `image_b` and `label`: "a", "b", or "same", which is dropped and counted;
- `images` (a list) and `ranks` (a list of numbers, 1 is best): all pairs of unequal rank.

Images stand in the rows, or are named relative to the folder of the data set (see `image_rows`). Edit-R1, section 3.3,
takes 10,000 pairs that humans labelled.
"""

from __future__ import annotations

import logging
import math
import os
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..errors import ConfigError, DataError
from ..images import keep_image, read_image
from ..reward.bulk_rows import latest_records
from ..reward.edit_rows import file_below
from .edit_data import load_edit_data
from .image_rows import load_image_rows

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["load_pairs", "pairs_from_scores", "save_pairs"]

_log = logging.getLogger(__name__)

_IMAGES: Final = ("source", "winner", "loser")
_LABELLED: Final = ("image_a", "image_b", "label")
_RANKED: Final = ("images", "ranks")
_LABELS: Final = ("a", "b", "same")
#: Columns that a pair keeps, where the data have them.
_KEPT: Final = ("instruction", "principles", "synthetic", "judge", "gap")
_SHOWN: Final = 10


@dataclass(frozen=True)
class _Pair:
    """Which cells of the stored data are a pair: a row, and for winner and loser (column, place in a list or None)."""

    row: int
    winner: tuple[str, int | None]
    loser: tuple[str, int | None]


def load_pairs(
    name: str | os.PathLike[str], split: str = "train", *, max_pairs_per_ranking: int | None = None, seed: int = 0
) -> Dataset:
    """Pairs from a folder, a `.jsonl` or `.parquet` file, or a data set of the hub.

    Texts and labels of all rows are checked at once; images are decoded, and checked, when a row is taken.

    Args:
        name: where the pairs are, in one of the forms above.
        split: as `load_edit_data` takes it.
        max_pairs_per_ranking: of a ranking's pairs, at most so many, drawn at random; None: all.
        seed: of that draw.

    Returns:
        The columns `source`, `winner`, `loser` (RGB PIL images), `instruction`, `row` (number in the data), and
        `principles` (list of `question` and `category`), `synthetic`, `judge`, `gap` where the data have them.

    Raises:
        ConfigError: no such file, folder or data set.
        DataError: none of the forms, or a row is wrong: the message names the row and the column.
    """
    if max_pairs_per_ranking is not None and max_pairs_per_ranking < 1:
        raise ConfigError(f"max_pairs_per_ranking={max_pairs_per_ranking}: at least 1")
    told = os.fspath(name)
    columns = load_edit_data(name, split=split, image_column="source", prompt_column="instruction").stored.column_names
    if {"winner", "loser"} <= set(columns):
        loaded = load_image_rows(name, images=_IMAGES, split=split)
        _check_texts(loaded, told)
        return loaded.select_columns([*_IMAGES, *(each for each in (*_KEPT, "row") if each in loaded.column_names)])
    if set(_LABELLED) <= set(columns):
        loaded = load_image_rows(name, images=("source", *_LABELLED[:2]), split=split)
        pairs = _labelled(loaded, told)
    elif set(_RANKED) <= set(columns):
        loaded = load_image_rows(name, images=("source", _RANKED[0]), split=split)
        pairs = _ranked(loaded, told, max_pairs_per_ranking, random.Random(seed))
    else:
        forms = "; ".join(", ".join(form) for form in (_IMAGES[1:], _LABELLED, _RANKED))
        raise DataError(f"{told} holds no pairs: beside source and instruction it needs {forms}; it has {columns}")
    _check_texts(loaded, told)
    if not pairs:
        raise DataError(f"{told} holds no pair with a winner: all are the same")
    return _picked(loaded, pairs)


def pairs_from_scores(directory: str | os.PathLike[str], *, min_gap: float = 1.0) -> Dataset:
    """Synthetic pairs: of the edits of each (source, instruction) that a judge scored, the best against the worst.

    The judge runs before, as `editr1 score --input candidates.jsonl --output directory`, which goes on where it was
    stopped. Edits without a score take no part.

    Args:
        directory: records and images of judged edits.
        min_gap: least difference of the two scores, in points of 0..10; more than 0.

    Returns:
        As `load_pairs`, with `synthetic` (true), `judge` and `gap` (difference of the scores).

    Raises:
        ConfigError: `min_gap` is not above 0.
        DataError: no records there, one that cannot be read, or no group with such a gap.
    """
    if not min_gap > 0:
        raise ConfigError(f"min_gap={min_gap}: the two scores of a pair must differ")
    root, groups = Path(directory), dict[tuple[str, str], list[dict[str, Any]]]()
    for record in latest_records(root):
        if isinstance(record.get("score"), (int, float)) and record.get("source_image"):
            groups.setdefault((record["source_image"], record["instruction"]), []).append(record)
    if not groups:
        raise DataError(f"{root} holds no edit with a score")
    rows = []
    for (source, instruction), records in groups.items():
        best, worst = max(records, key=_score), min(records, key=_score)  # of equals the first
        if _score(best) - _score(worst) >= min_gap:
            pair = {"source": source, "winner": best["edited_image"], "loser": worst["edited_image"]}
            principles = [{"question": each["question"], "category": each["category"]} for each in best["principles"]]
            more = {"principles": principles, "judge": str(best["verifier"]), "gap": _score(best) - _score(worst)}
            rows.append({**pair, "instruction": instruction, "synthetic": True, **more})
    if not rows:
        raise DataError(f"{root}: none of {len(groups)} groups of judged edits has two that differ by {min_gap:g}")
    _log.warning(
        "%d synthetic pairs of %d groups: the judge %s chose them, no human did",
        len(rows),
        len(groups),
        rows[0]["judge"],
    )
    return _named(root, rows)


def save_pairs(pairs: Dataset | Iterable[Mapping[str, Any]], directory: str | os.PathLike[str]) -> Path:
    """Write pairs as a data set: `data/train-00000-of-00001.parquet` with names, the images by content below `images`.

    An image that is there already is not written again. `load_pairs(directory)` reads it.

    Args:
        pairs: rows with `source`, `winner`, `loser` (PIL images) and `instruction`, and what else `load_pairs` returns.
        directory: is made; a data set that is there is replaced.

    Returns:
        The Parquet file.

    Raises:
        DataError: there are no pairs, or a row is wrong.
    """
    from datasets import Dataset

    root, rows = Path(directory), []
    for number, row in enumerate(pairs):
        missing = [name for name in (*_IMAGES, "instruction") if row.get(name) is None]
        if missing:
            raise DataError(f"pair {number} has no {' and no '.join(missing)}")
        names = {name: keep_image(row[name], root) for name in _IMAGES}
        rows.append({**names, **{name: row.get(name) for name in _KEPT}})
    if not rows:
        raise DataError("there are no pairs to save")
    path = root / "data" / "train-00000-of-00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    kept = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    Dataset.from_list(rows).select_columns(kept).to_parquet(temporary)
    temporary.replace(path)
    (root / "README.md").write_text(_card(rows), encoding="utf-8")
    return path


# What a row says


def _check_texts(loaded: Dataset, name: str) -> None:
    wrong = [
        f"row {number}, column 'instruction': {'blank' if isinstance(text, str) else type(text).__name__}"
        for number, text in enumerate(_column(loaded, "instruction"))
        if not isinstance(text, str) or not text.strip()
    ]
    _raise_for(name, wrong, len(loaded), "must be a text that is not blank")


def _labelled(loaded: Dataset, name: str) -> list[_Pair]:
    labels = [label.strip().lower() if isinstance(label, str) else label for label in _column(loaded, "label")]
    wrong = [f"row {row}, column 'label': {label!r}" for row, label in enumerate(labels) if label not in _LABELS]
    _raise_for(name, wrong, len(labels), f"must be one of {', '.join(_LABELS)}")
    counts = Counter(labels)
    if counts["same"]:
        _log.warning("%s: %d of %d pairs are labelled 'same' and are dropped", name, counts["same"], len(labels))
    sides = {"a": ("image_a", "image_b"), "b": ("image_b", "image_a")}
    return [
        _Pair(row, *((column, None) for column in sides[label])) for row, label in enumerate(labels) if label != "same"
    ]


def _ranked(loaded: Dataset, name: str, most: int | None, draw: random.Random) -> list[_Pair]:
    pairs, ties, wrong = list[_Pair](), 0, list[str]()
    lengths = _lengths(loaded, "images")
    for row, (length, ranks) in enumerate(zip(lengths, _column(loaded, "ranks"), strict=True)):
        if length is None or not isinstance(ranks, list) or len(ranks) != length or not all(map(_is_number, ranks)):
            wrong.append(f"row {row}, column 'ranks': {ranks!r} for {length or 'no list of'} images"[:200])
            continue
        found = []
        for first, second in combinations(range(length), 2):
            if ranks[first] == ranks[second]:
                ties += 1
                continue
            order = (first, second) if ranks[first] < ranks[second] else (second, first)
            found.append(_Pair(row, *(("images", place) for place in order)))
        if most is not None and len(found) > most:
            found = [found[place] for place in sorted(draw.sample(range(len(found)), most))]
        pairs += found
    _raise_for(name, wrong, len(lengths), "must be a list of one number per image")
    if ties:
        _log.warning("%s: %d pairs of equal rank are dropped", name, ties)
    return pairs


def _lengths(loaded: Dataset, name: str) -> list[int | None]:
    """Of the lists of a column, None where there is none; what they hold is not read."""
    import pyarrow
    import pyarrow.compute

    cells = loaded.data.column(name)
    is_list = pyarrow.types.is_list(cells.type) or pyarrow.types.is_large_list(cells.type)
    return list(pyarrow.compute.list_value_length(cells).to_pylist()) if is_list else [None] * len(loaded)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _column(loaded: Dataset, name: str) -> list[Any]:
    """A column as stored: of images their places, not their pixels."""
    return list(loaded.with_format(None)[name])


def _raise_for(name: str, wrong: Sequence[str], rows: int, rule: str) -> None:
    if wrong:
        more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise DataError(f"{name}: {len(wrong)} of {rows} rows are wrong, {rule}: {'; '.join(wrong[:_SHOWN])}{more}")


# Pairs that point into stored rows


def _picked(loaded: Dataset, pairs: Sequence[_Pair]) -> Dataset:
    """A data set of pairs whose image cells say where they are; reading a row reads and decodes them there."""
    from datasets import Dataset

    columns: dict[str, list[Any]] = {
        "source": [_cell(pair.row, "source", None) for pair in pairs],
        "winner": [_cell(pair.row, *pair.winner) for pair in pairs],
        "loser": [_cell(pair.row, *pair.loser) for pair in pairs],
        "row": [pair.row for pair in pairs],
    }
    for name in _KEPT:
        if name in loaded.column_names:
            values = _column(loaded, name)
            columns[name] = [values[pair.row] for pair in pairs]
    return Dataset.from_dict(columns).with_transform(_Picker(loaded))


def _cell(row: int, column: str, place: int | None) -> dict[str, Any]:
    return {"row": row, "column": column, "place": -1 if place is None else place}


@dataclass(frozen=True)
class _Picker:
    loaded: Dataset

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        made = dict(batch)
        stored, decode = self.loaded.with_format(None), self.loaded.format["format_kwargs"]["transform"]
        for name in set(_IMAGES) & batch.keys():
            made[name] = []
            for where in batch[name]:
                row, column = where["row"], where["column"]
                cell = stored[row][column]
                cell = cell if where["place"] < 0 else cell[where["place"]]
                made[name] += decode({column: [cell], "row": [row]})[column]
        return made


# Files


def _score(record: Mapping[str, Any]) -> float:
    return float(record["score"])


def _named(root: Path, rows: Sequence[Mapping[str, Any]]) -> Dataset:
    """Pairs whose images are files below a folder."""
    from datasets import Dataset

    return Dataset.from_list([{**row, "row": number} for number, row in enumerate(rows)]).with_transform(_Opener(root))


@dataclass(frozen=True)
class _Opener:
    root: Path

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        named = set(_IMAGES) & batch.keys()
        return {**batch, **{name: [read_image(file_below(self.root, cell)) for cell in batch[name]] for name in named}}


def _card(rows: Sequence[Mapping[str, Any]]) -> str:
    synthetic = sum(bool(row.get("synthetic")) for row in rows)
    judges = sorted({str(row["judge"]) for row in rows if row.get("judge")})
    told = f"{synthetic} of {len(rows)} pairs are synthetic: a judge ({', '.join(judges)}) chose them, no human did."
    head = "---\ntask_categories:\n- image-to-image\n---\n\n# Preference pairs of image edits\n\n"
    body = f"{len(rows)} pairs: `source`, `winner`, `loser` (names below this folder) and `instruction`.\n"
    return head + body + (f"\n{told}\n" if synthetic else "")
