"""Where edits come from: a pipeline, or a folder of images that somebody made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from editr1_plugins.errors import ComponentError, ConfigError, DataError, ImageError, boundary
from editr1_plugins.evaluation.editors.items import EditorItem, Sources
from editr1_plugins.images import read_image
from editr1_plugins.reward.edit_rows import file_below

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Editor", "FolderEditor", "PipelineEditor"]

_ENDINGS: Final = (".png", ".jpg", ".jpeg", ".webp")


class Editor(Protocol):
    """Makes one edit at a time; `settings` is what the edits depend on besides the items, as JSON-able data."""

    @property
    def settings(self) -> dict[str, Any]: ...

    def stamp(self, item: EditorItem) -> list[int] | None:
        """Changes when the edit that is there already is to be read again; None: it never is."""
        ...

    def edit(self, item: EditorItem, sources: Sources) -> Image:
        """The edit as an RGB image; raises DataError or ComponentError, which fail this item only."""
        ...


class PipelineEditor:
    """A diffusers editing pipeline, called as it is, once per edit.

    The seed of an edit follows from `seed` and the item's key alone, on a CPU generator: neither the order, nor a
    limit, nor the number of processes changes an edit.

    Args:
        pipe: the pipeline.
        call: further arguments of its call.
        seed: of the run.
        told: what the edits depend on, e.g. the model's name and the LoRA.

    Raises:
        ConfigError: the pipeline takes no source image, or not one of the arguments.
    """

    def __init__(
        self, pipe: Any, *, call: Mapping[str, Any] | None = None, seed: int = 0, told: Mapping[str, Any] | None = None
    ) -> None:
        from editr1_plugins.training.pipelines import accepted_arguments, image_argument

        self._pipe, self._call, self._seed = pipe, dict(call or {}), seed
        self._image, accepted = image_argument(pipe), accepted_arguments(pipe)
        taken = [name for name in self._call if name in (self._image, "prompt", "generator", "num_images_per_prompt")]
        unknown = [name for name in self._call if name not in accepted]
        if unknown or taken:
            who = type(pipe).__name__
            raise ConfigError(f"{who} takes no {', '.join(unknown)}" if unknown else f"call sets {', '.join(taken)}")
        if "output_type" in accepted:
            self._call["output_type"] = "pil"
        self._told = {"pipeline": type(pipe).__name__, **(told or {})}

    @property
    def settings(self) -> dict[str, Any]:
        return {**self._told, "call": {name: repr(value) for name, value in self._call.items()}, "seed": self._seed}

    def stamp(self, item: EditorItem) -> list[int] | None:
        return None

    def edit(self, item: EditorItem, sources: Sources) -> Image:
        import torch

        from editr1_plugins.training.generation import derived_seed
        from editr1_plugins.training.pipelines import images_of

        given = list(sources.given) if len(sources.given) > 1 else sources.given[0]
        generator = torch.Generator().manual_seed(derived_seed(self._seed, "edit", item.key))
        who = f"pipeline {type(self._pipe).__name__}"
        arguments = {**self._call, self._image: given, "prompt": item.instruction, "generator": generator}
        with boundary(who), torch.no_grad():
            images = images_of(self._pipe, self._pipe(**arguments))
        if not len(images):
            raise ComponentError(f"{who} returned no image")
        return read_image(images[0])


class FolderEditor:
    """Images that were made already, found by the key of their item: `KEY.png`, also JPEG and WebP.

    Args:
        folder: holds them.

    Raises:
        ConfigError: there is no such folder.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ConfigError(f"no folder {folder}")
        self._folder = folder

    @property
    def settings(self) -> dict[str, Any]:
        return {"images": True}

    def stamp(self, item: EditorItem) -> list[int] | None:
        path = self._path(item)
        if path is None:
            return None
        told = path.stat()
        return [told.st_size, told.st_mtime_ns]

    def edit(self, item: EditorItem, sources: Sources) -> Image:
        path = self._path(item)
        if path is None:
            name = (item.names or (item.key,))[0]
            raise DataError(f"no_image: none named {name}{_ENDINGS[0]} (or {', '.join(_ENDINGS[1:])})"[:300])
        return read_image(path)

    def _path(self, item: EditorItem) -> Path | None:
        for name in item.names or (item.key,):
            for ending in _ENDINGS:
                try:
                    path = file_below(self._folder, name + ending)
                except ImageError:  # a key that is no file name
                    continue
                if path.is_file():
                    return path
        return None
