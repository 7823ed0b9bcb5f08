"""Make a blind study of two systems: a page for the raters, and the key that only its maker has.

Order and sides are drawn with a secret seed, so that nobody who has the page, the data and this code can tell the sides
from it. Within a category each system is on the left as often as on the right (one more where the number is odd).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import random
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from editr1_plugins.errors import ConfigError, DataError
from editr1_plugins.evaluation.study.key import KEY_NAME, PAGE_NAME, StudyItem, StudyKey
from editr1_plugins.evaluation.study.page import write_page
from editr1_plugins.evaluation.study.rows import Comparison
from editr1_plugins.images import keep_image

__all__ = ["StudySummary", "make_study"]


@dataclass(frozen=True, kw_only=True)
class StudySummary:
    """What was made.

    Attributes:
        study: identifier, in the page, the key and every export.
        page, key: the two files.
        systems: names of a and b.
        items: comparisons on the page.
        left_out: rows that `limit` left out.
        identical: comparisons whose two images are the same, pixel by pixel.
        bytes: size of the page.
    """

    study: str
    page: str
    key: str
    systems: tuple[str, str]
    items: int
    left_out: int
    identical: int
    bytes: int


def make_study(
    comparisons: Iterable[Comparison],
    output: str | os.PathLike[str],
    *,
    systems: tuple[str, str] | None = None,
    title: str = "Which edit is better?",
    guide: str = "",
    size: int = 768,
    limit: int | None = None,
    seed: str | None = None,
) -> StudySummary:
    """Write `study.html`, `key.json` and the original images into the folder `output`.

    Args:
        comparisons: read one at a time; not held in memory.
        output: is made; must not hold a study.
        systems: names of a and b; None: the names that the rows give, else "a" and "b". Where rows give names, a row
            that has the two the other way round is turned.
        title: of the page; raters see it.
        guide: plain text that raters read before they begin.
        size: largest width and height of an image on the page, in pixels.
        limit: most items, drawn at random.
        seed: of order, sides and draw. Who knows it can tell the sides. None: a new secret one, kept in the key.

    Raises:
        ConfigError: a wrong argument, `output` holds a study or cannot be written.
        DataError: no comparisons, two of one name, or systems that are not always the same two.
    """
    if not 16 <= size <= 4096 or (limit is not None and limit < 1):
        raise ConfigError(f"size must be in 16..4096 and limit at least 1, got {size} and {limit}")
    root = Path(output)
    if (root / KEY_NAME).exists():
        raise ConfigError(f"{root} holds a study already, whose answers need its key; name another folder")
    secret = secrets.token_hex(16) if seed is None else seed
    try:
        root.mkdir(parents=True, exist_ok=True)
        items, found = _kept(comparisons, root, systems)
    except OSError as error:
        raise ConfigError(f"cannot write below {root}: {error.strerror or error}") from None
    chosen = _drawn(items, secret, limit)
    named = systems or found or ("a", "b")
    key = StudyKey(study=_study_id(chosen, named, secret), systems=named, seed=secret, items=tuple(chosen))
    written = write_page(root, key, title=title, guide=guide, size=size)
    key.write(root)
    return StudySummary(
        study=key.study,
        page=str(root / PAGE_NAME),
        key=str(root / KEY_NAME),
        systems=named,
        items=len(chosen),
        left_out=len(items) - len(chosen),
        identical=sum(each.a == each.b for each in chosen),
        bytes=written,
    )


def _kept(
    comparisons: Iterable[Comparison], root: Path, systems: tuple[str, str] | None
) -> tuple[list[StudyItem], tuple[str, str] | None]:
    """The items with their images kept by content, identifier and side still open; and the names of the systems."""
    items: dict[str, StudyItem] = {}
    for row in comparisons:
        if row.name in items:
            raise DataError(f"two rows have the id {row.name!r}"[:300])
        pair = (row.a, row.b)
        if row.systems is not None:
            systems = systems or row.systems
            if sorted(row.systems) != sorted(systems):
                told = " and ".join(map(repr, row.systems))
                raise DataError(f"row {row.name!r} compares {told}, not {' and '.join(map(repr, systems))}"[:400])
            pair = pair if row.systems == systems else (row.b, row.a)
        if systems is not None and systems[0] == systems[1]:
            raise ConfigError(f"the two systems need different names, both are {systems[0]!r}")
        source, a, b = (keep_image(image, root) for image in (row.source, *pair))
        items[row.name] = StudyItem(
            item="",
            name=row.name,
            left="a",
            instruction=row.instruction,
            category=row.category,
            source=source,
            a=a,
            b=b,
        )
    if not items:
        raise DataError("there is nothing to compare: the data hold no rows")
    return list(items.values()), systems


def _drawn(items: Sequence[StudyItem], seed: str, limit: int | None) -> list[StudyItem]:
    """At most `limit` items in random order, with identifiers and sides."""
    draw = random.Random(f"editr1 study {seed}")
    chosen = draw.sample(items, min(limit or len(items), len(items)))
    sides = _sides([each.category for each in chosen], draw)
    names = {each.name: _hidden(f"item {each.name}", seed) for each in chosen}
    return [replace(each, item=names[each.name], left=side) for each, side in zip(chosen, sides, strict=True)]


def _sides(categories: Sequence[str], draw: random.Random) -> list[str]:
    places: Mapping[str, list[int]] = {
        name: [at for at, category in enumerate(categories) if category == name] for name in sorted(set(categories))
    }
    sides = [""] * len(categories)
    for belonging in places.values():
        first = draw.choice("ab")
        half = [first] * ((len(belonging) + 1) // 2) + ["ba"["ab".index(first)]] * (len(belonging) // 2)
        draw.shuffle(half)
        for place, side in zip(belonging, half, strict=True):
            sides[place] = side
    return sides


def _study_id(items: Sequence[StudyItem], systems: tuple[str, str], seed: str) -> str:
    told = [systems, [[each.name, each.instruction, each.left, each.source, each.a, each.b] for each in items]]
    return _hidden(json.dumps(told), seed)


def _hidden(text: str, seed: str) -> str:
    """Of the text and the seed; without the seed it tells nothing about the text."""
    return hmac.new(seed.encode(), text.encode("utf-8", "replace"), hashlib.sha256).hexdigest()[:16]
