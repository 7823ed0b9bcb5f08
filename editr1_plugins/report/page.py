"""One self-contained HTML page from a directory of records: figures, and every edit with its verdicts.

The page loads nothing: images are data URIs, style and script are inside and named by their hash in a Content Security
Policy that forbids everything else, the network above all. Texts of records reach the page as escaped HTML or as JSON
that cannot end its element, and the script only ever sets them as text.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from editr1_plugins.errors import ConfigError, DataError, MissingExtraError
from editr1_plugins.report.charts import distribution, stacked_rates
from editr1_plugins.report.entries import Entry, read_entry
from editr1_plugins.report.summary import Summary
from editr1_plugins.report.thumbnails import Thumbnail, make_thumbnails
from editr1_plugins.reward.bulk import latest_records
from editr1_plugins.types import CATEGORIES

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["ReportSummary", "csp_hash", "replace_page", "report_environment", "report_style", "write_report"]

_HERE: Final = Path(__file__).parent
_SHOWN: Final = 30  # failures, flags and judges that are listed, most frequent first


@dataclass(frozen=True, kw_only=True)
class ReportSummary:
    """What a page holds.

    Attributes:
        records: edits that the figures are over.
        listed: edits that are shown one by one.
        images: different images on the page.
        missing: different images that could not be read.
        bytes: size of the page.
    """

    records: int
    listed: int
    images: int
    missing: int
    bytes: int


def write_report(
    directory: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    title: str | None = None,
    limit: int = 1000,
    thumbnail: int = 288,
) -> ReportSummary:
    """Write the page of a directory as `EditRRMReward(record=...)` or `reward.bulk.score_file` leaves it.

    Args:
        directory: holds the records.
        output: the HTML file; replaced whole, or not at all.
        title: of the page; default: the directory's name.
        limit: most edits that are listed, drawn evenly from all; the figures are over all of them.
        thumbnail: largest width and height of an image on the page, in pixels.

    Raises:
        ConfigError: a wrong argument, or `output` cannot be written.
        DataError: no records, or broken ones.
        MissingExtraError: jinja2 is not installed.
    """
    if limit < 1 or not 16 <= thumbnail <= 2048:
        raise ConfigError(f"limit must be at least 1 and thumbnail in 16..2048, got {limit} and {thumbnail}")
    environment = report_environment()
    root = Path(directory)
    summary = Summary()
    for record in latest_records(root):
        summary.add(read_entry(record))
    if not summary.count:
        raise DataError(f"{root} holds no records")
    listed = list(_evenly(latest_records(root), summary.count, limit))
    thumbnails = make_thumbnails(root, _image_names(listed), thumbnail)
    page = _render(environment, title or root.resolve().name, summary, listed, thumbnails)
    data = page.encode("utf-8", "replace")  # a judge's text may hold halves of surrogate pairs
    replace_page(Path(output), data)
    found = sum(made is not None for made in thumbnails.values())
    return ReportSummary(
        records=summary.count,
        listed=len(listed),
        images=found,
        missing=len(thumbnails) - found,
        bytes=len(data),
    )


def _evenly(records: Iterable[dict[str, Any]], total: int, limit: int) -> Iterator[Entry]:
    taken = min(total, limit)
    for at, record in zip(count(), records, strict=False):
        # `taken` of the `total` positions, evenly: those where the rounded-down share goes up.
        if (at + 1) * taken // total > at * taken // total:
            yield read_entry(record)


def _image_names(entries: Iterable[Entry]) -> Iterator[str]:
    for entry in entries:
        yield from (name for name in (entry.source, entry.edited) if name is not None)


def report_environment() -> Environment:
    """Of the templates here: everything is escaped, and nothing undefined is passed over.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError:
        raise MissingExtraError('a report needs jinja2: pip install "editr1-plugins[report]"') from None
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "ensure_ascii": True, "separators": (",", ":")}
    return environment


def report_style(name: str) -> str:
    """A style or script of this room, the same for every page."""
    return (_HERE / name).read_text("utf-8")


def _render(
    environment: Environment,
    title: str,
    summary: Summary,
    entries: list[Entry],
    thumbnails: dict[str, Thumbnail | None],
) -> str:
    from markupsafe import Markup

    style, script = (report_style(name) for name in ("page.css", "page.js"))
    bars = distribution(summary.bins)
    judges = list(dict.fromkeys(entry.judge for entry in entries))
    categories = [name for name in [*CATEGORIES, "Other"] if name in summary.categories]
    return environment.get_template("page.html.jinja").render(
        title=title,
        summary=summary,
        listed=len(entries),
        bars=bars,
        peak=max(bars, key=lambda bar: bar.height),
        rates=[(name, summary.categories[name], stacked_rates(summary.categories[name])) for name in categories],
        categories=categories,
        failures=summary.failures.most_common(_SHOWN),
        flags=summary.flags.most_common(_SHOWN),
        judges=summary.judges.most_common(_SHOWN),
        # Our own files, the same for every page; all else is escaped.
        style=Markup(style),
        script=Markup(script),
        style_hash=csp_hash(style),
        script_hash=csp_hash(script),
        data={
            "judges": judges,
            "entries": [_entry_data(entry, judges.index(entry.judge), number) for number, entry in enumerate(entries)],
            "images": {name: asdict(made) for name, made in thumbnails.items() if made is not None},
        },
    )


def _entry_data(entry: Entry, judge: int, number: int) -> dict[str, Any]:
    return asdict(entry) | {"judge": judge, "number": number + 1}


def csp_hash(text: str) -> str:
    """As a Content Security Policy names an inline style or script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"


def replace_page(path: Path, data: bytes) -> None:
    """Write a page whole, or not at all.

    Raises:
        ConfigError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from None
