"""Stage "candidates": edits of each selected row by several editors, or images that were made before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, DataError
from ...images import read_image
from .config import EditorConfig
from .rows import InputRow, InputRows, files_of
from .run import Editor, Run
from .running import Lane, batches, seed_of
from .select import input_rows
from .store import Line

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["PipelineEditor", "make_candidates", "units_of"]

_BATCH = 32


def make_candidates(run: Run) -> None:
    """Write, for each row and editor, the names of its candidates and the seed of each, or why there are none.

    A seed is a function of the run's seed, the row, the editor and the candidate's number.

    Raises:
        ConfigError: no editors, or one that cannot be loaded.
    """
    file = run.file("candidates")
    if not run.config.candidates:
        raise ConfigError("candidates is empty: name at least one pipeline, column or folder of edited images")
    rows = {line["key"]: line for line in run.selected()}
    units = units_of(run.config.candidates, list(rows))
    pending = run.pending(file, units)
    lanes = []
    data: InputRows | None = None
    for editor in run.config.candidates:
        own = [key for key in pending if units[key][1] is editor]
        if not own:
            continue
        if editor.column is not None and data is None:
            data = input_rows(run)
        lanes.append(_lane(run, editor, own, rows, data))
    for lane in lanes:  # one after the other: each may fill the machine
        run.work(file, list(units), [lane])


def units_of(editors: Sequence[EditorConfig], keys: Sequence[str]) -> dict[str, tuple[str, EditorConfig, int]]:
    """What is made at a time, by key: (row, editor, number); images that are there already count as one unit."""
    units = {}
    for key in keys:
        for editor in editors:
            if editor.column is not None or editor.folder is not None:
                units[f"{key}/{editor.name}"] = (key, editor, 0)
                continue
            for number in range(editor.count):
                units[f"{key}/{editor.name}/{number}"] = (key, editor, number)
    return units


def _lane(run: Run, config: EditorConfig, keys: list[str], rows: dict[str, Line], data: InputRows | None) -> Any:
    def found(part: list[str]) -> list[Line]:
        return [_kept(run, key, rows[key.split("/")[0]], config, data) for key in part]

    if config.column is not None or config.folder is not None:
        return Lane((list(part) for part in batches(keys, _BATCH)), found, 2)
    editor = run.parts.editors.get(config.name) or PipelineEditor(config)

    def made(key: str) -> list[Line]:
        row_key, _, number = key.split("/")
        seed = seed_of(run.config.seed, "candidate", row_key, config.name, number)
        return [_edited(run, key, rows[row_key], editor, config.name, seed)]

    return Lane(iter(keys), made)


def _kept(run: Run, key: str, row: Line, config: EditorConfig, data: InputRows | None) -> Line:
    line: Line = {"key": key, "row": row["key"], "editor": config.name}
    try:
        if config.column is not None:
            assert data is not None
            selected = InputRow(
                index=row["index"], key=row["key"], instruction=row["instruction"], identifier=row["id"], problem=None
            )
            images = data.candidates(selected, config.column)
        else:
            assert config.folder is not None
            images = [read_image(path) for path in files_of(config.folder, row["id"])]
        if not images:
            return line | {"failure": "no_image: the row has none"}
        names = [run.folder.keep(image) for image in images]
    except DataError as error:
        return line | {"failure": f"bad_image: {error}"}
    return line | {"candidates": {f"{key}/{number}": name for number, name in enumerate(names)}}


def _edited(run: Run, key: str, row: Line, editor: Editor, name: str, seed: int) -> Line:
    line: Line = {"key": key, "row": row["key"], "editor": name, "seed": seed}
    try:
        image = run.folder.image(row["source"])
        edited = read_image(editor(image, row["instruction"], seed))
        return line | {"candidates": {key: run.folder.keep(edited)}}
    except DataError as error:
        return line | {"failure": f"bad_image: {error}"}
    except (ConfigError, OSError):
        raise  # not this row's fault: every other one would fail as well
    except Exception as error:
        return line | {"failure": f"editor raised {type(error).__name__}: {error}"[:500]}


class PipelineEditor:
    """A diffusers pipeline as an editor; loaded at the first call.

    Raises:
        ConfigError: it cannot be loaded, takes no source image, or does not know an argument of `call`.
    """

    def __init__(self, config: EditorConfig) -> None:
        if config.pipeline is None:
            raise ConfigError(f"candidates.{config.name}: name a pipeline, a column or a folder")
        self.config = config
        self._pipe: Any = None
        self._image = ""

    def __call__(self, source: Image, instruction: str, seed: int) -> Any:
        import torch

        from ..pipelines import images_of

        if self._pipe is None:
            self._load()
        generator = torch.Generator("cpu").manual_seed(seed)  # the same noise on every device
        call = {**self.config.call, self._image: source, "prompt": instruction, "generator": generator}
        with torch.no_grad():
            return images_of(self._pipe, self._pipe(**call))[0]

    def _load(self) -> None:
        import torch
        from diffusers import DiffusionPipeline

        from ..pipelines import accepted_arguments, image_argument

        device = self.config.device or ("cuda" if torch.cuda.is_available() else "cpu")
        options = dict(self.config.load)
        wanted = options.pop("dtype", "float32" if device == "cpu" else "bfloat16")
        dtype = getattr(torch, str(wanted), None)
        if not isinstance(dtype, torch.dtype):
            raise ConfigError(f"candidates.{self.config.name}.load.dtype={wanted!r}: such as bfloat16 or float32")
        try:
            # safetensors only: the alternative is unpickling
            pipe = DiffusionPipeline.from_pretrained(
                self.config.pipeline, **options, dtype=dtype, use_safetensors=True
            ).to(device)
        except Exception as error:  # the hub raises many kinds
            raise ConfigError(
                f"candidates.{self.config.name}: {self.config.pipeline!r} cannot be loaded: {error}"
            ) from error
        pipe.set_progress_bar_config(disable=True)
        self._image = image_argument(pipe)
        if unknown := [name for name in self.config.call if name not in accepted_arguments(pipe)]:
            raise ConfigError(
                f"candidates.{self.config.name}.call: {type(pipe).__name__} takes no {', '.join(unknown)}"
            )
        self._pipe = pipe
