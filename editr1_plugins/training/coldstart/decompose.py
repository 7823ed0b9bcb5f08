"""Stage "decompose": the principles of each selected row, for all its candidates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import ConfigError, ImageError
from ...plugins import resolve
from ...principles.chain import decompose_contained
from ...types import Decomposer
from .run import Run
from .running import Lane, batches
from .store import Line

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["decompose_rows"]


def decompose_rows(run: Run) -> None:
    """Write the principles of each selected row, or why there are none.

    Raises:
        ConfigError: there is no decomposer.
    """
    file = run.file("decompose")
    rows = {line["key"]: line for line in run.selected()}
    pending = run.pending(file, rows)
    decomposer = _decomposer(run) if pending else None

    def made(keys: list[str]) -> list[Line]:
        assert decomposer is not None
        requests: dict[str, tuple[Image, str]] = {}
        lines: list[Line] = []
        for key in keys:
            try:
                requests[key] = (run.folder.image(rows[key]["source"]), rows[key]["instruction"])
            except ImageError as error:
                lines.append({"key": key, "failure": f"bad_image: {error}"})
        answers = decompose_contained(decomposer, list(requests.values()))
        for key, principles in zip(requests, answers, strict=True):
            if principles:
                listed = [{"question": each.question, "category": each.category} for each in principles]
                lines.append({"key": key, "principles": listed})
            else:
                failure = str(getattr(principles, "failure", "")) or "no reason given"
                lines.append({"key": key, "failure": f"no_principles: {failure}"})
        return lines

    # More requests at a time would not be faster: a decomposer asks its model for the whole batch at once.
    lane = Lane((list(part) for part in batches(pending, run.config.decompose.batch_size)), made)
    run.work(file, list(rows), [lane])


def _decomposer(run: Run) -> Decomposer:
    if run.parts.decomposer is not None:
        return resolve("decomposer", run.parts.decomposer)
    if run.config.decompose.spec is None:
        raise ConfigError("decompose.spec is missing: rules, vlm:MODEL@URL, or a plugin's")
    return resolve("decomposer", run.config.decompose.spec)
