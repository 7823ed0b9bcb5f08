"""The candidates that can be judged: with their source, instruction and principles, read again when they are needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...types import Edit, Principle
from .candidates import units_of
from .run import Run, principles_of

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Candidate", "judged_edits", "listed_candidates"]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One edited image of a selected row: its key, the row's key, and the names of both images."""

    key: str
    row: str
    source: str
    edited: str
    instruction: str


def listed_candidates(run: Run, *, with_principles: bool = True) -> list[Candidate]:
    """All candidates there are, in the order of the selection; with principles only, unless told otherwise."""
    made, decomposed = run.file("candidates"), run.file("decompose") if with_principles else None
    rows = {line["key"]: line for line in run.selected()}
    found = []
    for unit, (key, _, _) in units_of(run.config.candidates, list(rows)).items():
        if unit not in made or made.failed(unit):
            continue
        if decomposed is not None and (key not in decomposed or decomposed.failed(key)):
            continue
        row = rows[key]
        found += [
            Candidate(key=name, row=key, source=row["source"], edited=image, instruction=row["instruction"])
            for name, image in made.get(unit)["candidates"].items()
        ]
    return found


def judged_edits(run: Run, candidates: list[Candidate]) -> tuple[list[Edit], list[tuple[Principle, ...]]]:
    """The edits and principles of candidates; those of one row share their source.

    Raises:
        ImageError: an image that was kept is gone.
    """
    sources: dict[str, Image] = {}
    edits, principles = [], []
    for each in candidates:
        if each.source not in sources:
            sources[each.source] = run.folder.image(each.source)
        edited = run.folder.image(each.edited)
        edits.append(Edit(source=sources[each.source], edited=edited, instruction=each.instruction))
        principles.append(principles_of(run.file("decompose").get(each.row)))
    return edits, principles
