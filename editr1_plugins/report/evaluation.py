"""One self-contained HTML page about an evaluation, of a judge or of an editor, from the folder of its run.

As every page here it loads nothing, and it needs no script at all: pictures are data URIs, and a Content Security
Policy forbids the rest. Texts of the run are escaped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from editr1_plugins.errors import ConfigError, DataError
from editr1_plugins.evaluation.catalogue import JUDGED
from editr1_plugins.evaluation.editors.items import IMAGE_NAME, JudgedEdit, read_judged_edits
from editr1_plugins.evaluation.editors.running import SUMMARY
from editr1_plugins.evaluation.worst import WORST
from editr1_plugins.report.editor_page import editor_sections, editor_tiles
from editr1_plugins.report.judge_page import judge_sections, judge_tiles
from editr1_plugins.report.page import (
    ReportSummary,
    csp_hash,
    replace_page,
    report_environment,
    report_style,
)
from editr1_plugins.report.sections import Figure, Pictures, table_in, text_in
from editr1_plugins.report.thumbnails import make_thumbnails

__all__ = ["is_evaluation", "write_evaluation_report"]

#: Who judged and how, as the resumable client keeps it.
_SETTINGS: Final = "run.json"
_MAX_JSON: Final = 64 * 2**20


def is_evaluation(directory: str | os.PathLike[str]) -> bool:
    """Whether a folder is that of an evaluation that has ended, not of records only."""
    return (Path(directory) / SUMMARY).is_file() and (Path(directory) / JUDGED).is_file()


def write_evaluation_report(
    directory: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    title: str | None = None,
    thumbnail: int = 288,
) -> ReportSummary:
    """Write the page of a folder as `editr1 eval` leaves it.

    Args:
        directory: of the run.
        output: the HTML file; replaced whole, or not at all.
        title: of the page; default: the directory's name.
        thumbnail: largest width and height of an image on the page, in pixels.

    Raises:
        ConfigError: a wrong argument, or `output` cannot be written.
        DataError: the folder is none of an evaluation, or broken.
        MissingExtraError: jinja2 is not installed.
    """
    if not 16 <= thumbnail <= 2048:
        raise ConfigError(f"thumbnail must be in 16..2048, got {thumbnail}")
    environment = report_environment()
    root = Path(directory)
    found = table_in(_json_of(root / SUMMARY))
    if found.get("kind") == "editor":
        rows = read_judged_edits(root / JUDGED)
        sections, tiles = editor_sections(found, rows, _values(rows, found)), editor_tiles(found)
    else:
        worst = _json_of(root / WORST) if (root / WORST).is_file() else []
        sections, tiles = judge_sections(found, worst if isinstance(worst, list) else []), judge_tiles(found)
    thumbnails = make_thumbnails(root, _image_names(sections), thumbnail)
    style = report_style("page.css") + report_style("evaluation.css")
    from markupsafe import Markup

    page = environment.get_template("evaluation.html.jinja").render(
        title=title or root.resolve().name,
        benchmark=text_in(found.get("benchmark")),
        about="editor" if found.get("kind") == "editor" else "judge",
        lead=_lead(found, root),
        facts=list(_facts(found, root)),
        tiles=tiles,
        sections=sections,
        images={name: made for name, made in thumbnails.items() if made is not None},
        style=Markup(style),
        style_hash=csp_hash(style),
    )
    data = page.encode("utf-8", "replace")
    replace_page(Path(output), data)
    made = sum(each is not None for each in thumbnails.values())
    listed = sum(len(section.cards) for section in sections if isinstance(section, Pictures))
    items = found.get("items")
    return ReportSummary(
        records=items if type(items) is int else 0,
        listed=listed,
        images=made,
        missing=len(thumbnails) - made,
        bytes=len(data),
    )


def _values(rows: Sequence[JudgedEdit], found: Mapping[str, Any]) -> dict[str, float]:
    """The overall number by key, as the run counted it."""
    from editr1_plugins.evaluation.editors.catalogue import find_editor_benchmark
    from editr1_plugins.evaluation.editors.summary import numbers_of

    benchmark, overall = find_editor_benchmark(text_in(found.get("benchmark"))), text_in(found.get("overall"))
    numbers = ((row.key, numbers_of(benchmark, row).get(overall)) for row in rows)
    return {key: value for key, value in numbers if value is not None}


def _lead(found: Mapping[str, Any], root: Path) -> list[tuple[str, str]]:
    """In a few words who was evaluated, against what, and by whom; the whole of it stands at the end of the page."""
    if found.get("kind") != "editor":
        settings = table_in(_json_of(root / _SETTINGS)) if (root / _SETTINGS).is_file() else {}
        return [("Judge", text_in(settings.get("verifier") or settings.get("comparer")))]
    judge = found.get("judge")
    lead = [("Editor", _editor(table_in(found.get("editor"))))]
    lead.append(("Before", _editor(table_in(table_in(found.get("comparison")).get("before")))))
    lead.append(("Judge", text_in(judge if isinstance(judge, str) else table_in(judge).get("verifier"))))
    return [(name, told) for name, told in lead if told]


def _editor(settings: Mapping[str, Any]) -> str:
    if settings.get("images") is True:
        return "images that were made already"
    model, lora = text_in(settings.get("model")), text_in(settings.get("lora"))
    return f"{model} with the LoRA {lora}" if model and lora else model


def _facts(found: Mapping[str, Any], root: Path) -> Iterator[tuple[str, str]]:
    """Who was evaluated, by whom."""
    path = root / _SETTINGS
    settings = table_in(_json_of(path)) if path.is_file() else {}
    for part in ("editor", "judge"):
        value = found.get(part, settings if part == "judge" else None)
        if isinstance(value, str):
            yield part, text_in(value)
        for name, each in table_in(value).items():
            if each not in (None, [], {}):
                told = ", ".join(map(str, each)) if isinstance(each, list) else each
                told = ", ".join(f"{key}={one}" for key, one in told.items()) if isinstance(told, dict) else told
                yield f"{part}: {name}".replace("_", " "), text_in(str(told))


def _image_names(sections: Sequence[Any]) -> Iterator[str]:
    for section in sections:
        for card in section.cards if isinstance(section, Pictures) else ():
            yield from (name for figure in card.figures if (name := _known(figure)) is not None)


def _known(figure: Figure) -> str | None:
    return figure.name if figure.name and IMAGE_NAME.fullmatch(figure.name) else None


def _json_of(path: Path) -> Any:
    try:
        if path.stat().st_size > _MAX_JSON:
            raise DataError(f"{path} has more than {_MAX_JSON} bytes")
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error})"[:300]) from None
