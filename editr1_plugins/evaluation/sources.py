"""Rows of a benchmark from a local folder or file, or from the hub, with the columns checked.

Parquet, Arrow and JSON (one list, or lines) are read where they lie, a few rows at a time. What a file says is data: an
image is bytes, or the name of a file below the folder; nothing is ever fetched or executed for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from editr1_plugins.errors import ConfigError, DataError, ImageError
from editr1_plugins.images import read_image, read_image_cell
from editr1_plugins.reward.edit_rows import file_below, numbered_lines

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Row", "fetched", "load_json", "read_rows", "require_place"]

#: Rows of a Parquet file decoded at a time; a row may hold several images.
_CHUNK: Final = 16
#: Columns are read in pieces of so many bytes, not a row group at once.
_BUFFER: Final = 1 << 20
_MAX_JSON: Final = 512 * 2**20
_ENDINGS: Final = (".parquet", ".arrow", ".jsonl", ".json")
#: What a column may hold, and how messages name it.
_KINDS: Final = {"text": "text", "image": "an image", "images": "a list of images", "texts": "a list of texts"}


@dataclass(frozen=True)
class Row:
    """One row: its cells, where it stands, and the folder that image names are relative to (None: no names)."""

    cells: Mapping[str, Any]
    where: str
    folder: Path | None

    def text(self, column: str, default: str | None = None) -> str:
        """A text cell; `default` where the row has none.

        Raises:
            DataError: it holds something else, or nothing and there is no default.
        """
        value = self.cells.get(column)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            raise DataError(f"{self.where}: {column!r} must be text, not {type(value).__name__}")
        return value

    def image(self, column: str) -> Image:
        """The decoded image of a cell.

        Raises:
            DataError: it holds no image, or one that cannot be read.
        """
        return self._decoded(self.cells.get(column), column)

    def image_list(self, column: str, count: int | None = None) -> list[Image]:
        """The decoded images of a cell that holds a list.

        Raises:
            DataError: it holds no list, not `count` images, or one that cannot be read.
        """
        cell = self.cells.get(column)
        if not isinstance(cell, (list, tuple)) or (count is not None and len(cell) != count):
            wanted = "a list of images" if count is None else f"a list of {count} images"
            raise DataError(f"{self.where}: {column!r} must be {wanted}")
        return [self._decoded(each, f"{column}[{place}]") for place, each in enumerate(cell)]

    def _decoded(self, cell: Any, column: str) -> Image:
        try:
            if isinstance(cell, str) and self.folder is not None:
                return read_image(file_below(self.folder, cell))
            return read_image_cell(cell, column)
        except ImageError as error:
            raise ImageError(f"{self.where}, {column!r}: {error}") from None
        except DataError as error:
            raise DataError(f"{self.where}: {error}") from None


def read_rows(
    place: str,
    columns: Mapping[str, str],
    *,
    config: str | None = None,
    split: str | None = None,
    pattern: str = "",
) -> Iterator[Row]:
    """The rows of a local folder or file, or of a hub data set.

    Args:
        place: a path that exists, else a hub id.
        columns: what each needed column holds: "text", "texts", "image", "images" or "any".
        config, split: of a hub data set; of local files, those below a folder called `config` and of a name that
            begins with `split` are taken where there are any.
        pattern: text that names of local files must contain, where several kinds lie in one folder.

    Raises:
        DataError: nothing can be read there, or a column is missing or of another kind; names the column.
    """
    path = Path(place)
    if not path.exists():
        yield from _hub_rows(place, columns, config, split)
        return
    folder = path if path.is_dir() else path.parent
    files = _chosen(path, config, split, pattern)
    for file in files:
        yield from _file_rows(file, folder, columns)


def fetched(place: str) -> Path:
    """The local folder or file of that name, else the files of that hub data set, downloaded (code is never run).

    For data sets whose rows name image files.

    Raises:
        DataError: neither.
    """
    path = Path(place)
    if path.exists():
        return path
    _check_hub_id(place)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(place, repo_type="dataset"))
    except Exception as error:  # the hub, the network, a gate, the disk: each has errors of its own
        raise DataError(f"the data set {place} cannot be fetched: {type(error).__name__}: {error}") from None


def load_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        DataError: it cannot be read, is too large, or is not JSON.
    """
    try:
        if path.stat().st_size > _MAX_JSON:
            raise DataError(f"{path} has more than {_MAX_JSON} bytes")
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error})"[:300]) from None


def _chosen(path: Path, config: str | None, split: str | None, pattern: str) -> list[Path]:
    if path.is_file():
        return [path]
    found = [each for each in sorted(path.rglob("*")) if each.suffix in _ENDINGS and each.is_file()]
    found = [each for each in found if pattern in each.name and not each.name.startswith(("dataset_info", "state."))]
    # The first kind of file that is there: a folder may hold a JSON beside the Parquet files it describes.
    for ending in _ENDINGS:
        kind = [each for each in found if each.suffix == ending]
        if kind:
            below = [each for each in kind if config in each.relative_to(path).parts] if config else []
            named = [each for each in below or kind if split and _is_split(each, path, split)]
            return named or below or kind
    raise DataError(
        f"{path} holds no {', '.join(_ENDINGS)} file" + (f" with {pattern!r} in its name" if pattern else "")
    )


def _is_split(file: Path, root: Path, split: str) -> bool:
    return file.name.startswith((f"{split}-", f"{split}.", f"{split}_")) or split in file.relative_to(root).parts[:-1]


def _file_rows(file: Path, folder: Path, columns: Mapping[str, str]) -> Iterator[Row]:
    if file.suffix in (".parquet", ".arrow"):
        batches = _parquet(file, columns) if file.suffix == ".parquet" else _arrow(file, columns)
        for number, cells in enumerate(batches):
            yield Row(cells, f"{file.name}, row {number}", folder)
    elif file.suffix == ".jsonl":
        yield from _json_lines(file, columns)
    else:
        rows = load_json(file)
        if not isinstance(rows, list):
            raise DataError(f"{file} must hold a JSON list of rows, not {type(rows).__name__}")
        for number, cells in enumerate(rows):
            yield _checked(cells, columns, f"{file.name}, row {number}", file.parent)


def _json_lines(file: Path, columns: Mapping[str, str]) -> Iterator[Row]:
    for number, line in numbered_lines(file):
        where = f"{file.name}, line {number}"
        try:
            cells = json.loads(line or b"")
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: not JSON ({error})"[:300]) from None
        yield _checked(cells, columns, where, file.parent)


def _checked(cells: Any, columns: Mapping[str, str], where: str, folder: Path) -> Row:
    if not isinstance(cells, dict):
        raise DataError(f"{where}: a JSON object is needed, not {type(cells).__name__}")
    for name, kind in columns.items():
        if name not in cells:
            raise DataError(f"{where} has no column {name!r}; it has: {', '.join(map(str, cells))}"[:500])
        value = cells[name]
        fits = {
            "text": isinstance(value, str),
            "image": isinstance(value, str),
            "images": isinstance(value, list) and all(isinstance(each, str) for each in value),
            "texts": isinstance(value, list) and all(isinstance(each, str) for each in value),
        }
        if not fits.get(kind, True):
            raise DataError(f"{where}: column {name!r} must hold {_KINDS[kind]}, not {type(value).__name__}")
    return Row(cells, where, folder)


def _parquet(file: Path, columns: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file, buffer_size=_BUFFER) as table:
            _check_schema(table.schema_arrow, columns, str(file))
            for batch in table.iter_batches(batch_size=_CHUNK):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file} is no Parquet file that can be read: {error}") from None


def _arrow(file: Path, columns: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    import pyarrow as pa

    try:
        with pa.memory_map(str(file)) as memory, pa.ipc.open_stream(memory) as stream:
            _check_schema(stream.schema, columns, str(file))
            for batch in stream:
                for start in range(0, batch.num_rows, _CHUNK):
                    yield from batch.slice(start, _CHUNK).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file} is no Arrow file that can be read: {error}") from None


def _check_schema(schema: Any, columns: Mapping[str, str], where: str) -> None:
    import pyarrow.types as kinds

    for name, kind in columns.items():
        if name not in schema.names:
            raise DataError(f"{where} has no column {name!r}; it has: {', '.join(schema.names)}")
        found = schema.field(name).type
        listed = kinds.is_list(found) or kinds.is_large_list(found)
        inner = found.value_type if listed else found
        text = kinds.is_string(inner) or kinds.is_large_string(inner)
        # A text is the name of a file.
        image = text or kinds.is_binary(inner) or kinds.is_large_binary(inner)
        image = image or (
            kinds.is_struct(inner) and "bytes" in [inner.field(at).name for at in range(inner.num_fields)]
        )
        fits = {"text": text and not listed, "texts": text and listed}
        fits |= {"image": image and not listed, "images": image and listed, "any": True}
        if not fits[kind]:
            raise DataError(f"{where}: column {name!r} must hold {_KINDS[kind]}, not {found}")


def _hub_rows(place: str, columns: Mapping[str, str], config: str | None, split: str | None) -> Iterator[Row]:
    _check_hub_id(place)
    from datasets import Image as ImageFeature
    from datasets import load_dataset

    try:
        rows = load_dataset(place, config, split=split or "train")
    except Exception as error:  # the hub, the network, a gate, the disk: each has errors of its own
        raise DataError(
            f"the data set {place} cannot be loaded from the hub: {type(error).__name__}: {error}"
        ) from None
    for name, feature in dict(rows.features).items():
        if isinstance(feature, ImageFeature):
            rows = rows.cast_column(name, ImageFeature(decode=False))
        elif isinstance(getattr(feature, "feature", None), ImageFeature):
            rows = rows.cast_column(name, type(feature)(ImageFeature(decode=False)))
    _check_schema(rows.features.arrow_schema, columns, place)
    for number, cells in enumerate(rows):
        yield Row(cells, f"{place}, row {number}", None)


def _check_hub_id(place: str) -> None:
    if place.startswith((".", "/", "~")) or place.count("/") != 1:
        raise DataError(f"no file or folder {place}, and no hub id (owner/name) either")


def require_place(place: str | None, what: str) -> str:
    """The place, for a benchmark that has none of its own.

    Raises:
        ConfigError: there is none.
    """
    if place is None:
        raise ConfigError(f"give {what} (--data)")
    return place
