"""The raters' page of a study: one self-contained HTML file that loads nothing and tells nothing about the sides.

Images are data URIs; style and script are named by their hash in a Content Security Policy that forbids everything
else, the network above all. Texts of the data are JSON that cannot end its element, and the script only ever sets them
as text.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from io import BytesIO
from pathlib import Path
from string import Template
from typing import Any, Final

from editr1_plugins.errors import ConfigError
from editr1_plugins.evaluation.study.key import PAGE_NAME, StudyItem, StudyKey
from editr1_plugins.images import read_image
from editr1_plugins.reward.edit_rows import file_below

__all__ = ["write_page"]

_HERE: Final = Path(__file__).parent
#: Up to this size, in pixels, an image is kept as it is: lossy formats ruin drawings that small.
_SMALL: Final = 96
_QUALITY: Final = 92  # raters judge details


def write_page(folder: Path, key: StudyKey, *, title: str, guide: str, size: int) -> int:
    """Write `study.html` into the study's folder, whole or not at all; one item in memory at a time.

    Args:
        folder: of the study; holds the images that the key names.
        key: of the study.
        title, guide: plain texts.
        size: largest width and height of an image, in pixels.

    Returns:
        The size of the page in bytes.

    Raises:
        ConfigError: it cannot be written.
        ImageError: an image cannot be read.
    """
    style, script = ((_HERE / name).read_text("utf-8") for name in ("page.css", "page.js"))
    values = {
        "title": html.escape(title),
        "style": style,
        "script": script,
        "style_hash": _csp_hash(style),
        "script_hash": _csp_hash(script),
        "study": _json({"study": key.study, "guide": guide}),
    }
    # Cut first, filled after: what is filled in is never looked at again.
    head, tail = (
        Template(part).substitute(values) for part in (_HERE / "page.html").read_text("utf-8").split("$items")
    )
    path, temporary = folder / PAGE_NAME, folder / f".{PAGE_NAME}.part"
    try:
        with open(temporary, "wb") as file:
            file.write(head.encode("utf-8", "replace"))
            for item in key.items:
                shown = _json(_shown(folder, item, size))
                line = f'<script type="application/json" class="item" data-item="{item.item}">{shown}</script>\n'
                file.write(line.encode("ascii"))
            file.write(tail.encode("utf-8", "replace"))
        temporary.replace(path)
        return path.stat().st_size
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)


def _shown(folder: Path, item: StudyItem, size: int) -> dict[str, str]:
    left, right = (item.a, item.b) if item.left == "a" else (item.b, item.a)
    uris = {
        name: _data_uri(folder, file, size)
        for name, file in (("source", item.source), ("left", left), ("right", right))
    }
    return {"instruction": item.instruction, **uris}


def _data_uri(folder: Path, name: str, size: int) -> str:
    from PIL import features

    small = read_image(file_below(folder, name)).copy()
    small.thumbnail((size, size))
    kind = "PNG" if max(small.size) <= _SMALL else "WEBP" if features.check("webp") else "JPEG"
    buffer = BytesIO()
    small.save(buffer, kind, quality=_QUALITY)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _json(value: Any) -> str:
    """JSON that no HTML parser can take for the end of its element."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _csp_hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"
