"""Milliseconds per edit of each guard at some image sizes: a table in Markdown.

    python tests/performance/guard_speed.py [--sizes 512,1024] [--edits 8]

CPU time on one thread, so that other work on the machine matters less. The edits are honest local ones of the test
photographs, every one different, since the guard that reads text remembers what it has read; "text" reads the edited
image and, only where it found words, the source: the second row for it is of edits with painted words.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageOps

TESTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS / "guards"))

from guard_variants import ellipse, paste, tinted, write  # noqa: E402

from editr1_plugins.guards import PixelGuard, default_guards  # noqa: E402
from editr1_plugins.types import Edit  # noqa: E402


def edits(size: int, count: int, words: str = "") -> list[Edit]:
    """Square photographs of `size` pixels with a recoloured spot, each at another place."""
    photos = [Image.open(path).convert("RGB") for path in sorted((TESTS / "assets" / "photos").glob("*.jpg"))]
    found = []
    for number in range(count):
        source = ImageOps.fit(photos[number % len(photos)], (size, size), Image.Resampling.BICUBIC)
        spot = ellipse(source.size, (0.3 + 0.4 * number / count, 0.5), 0.3)
        edited = paste(source, tinted(source, (30, 60, 220)), spot)
        edited = write(edited, f"{words} {number}", 0.1) if words else edited
        found.append(Edit(source=source, edited=edited, instruction="Make the cup blue"))
    return found


def milliseconds(guard: PixelGuard, shown: Sequence[Edit]) -> float:
    guard.inspect(shown[:1], [()])  # what is loaded once is not counted
    start = time.process_time()
    guard.inspect(shown[1:], [()] * (len(shown) - 1))
    return 1000 * (time.process_time() - start) / (len(shown) - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="512,1024", help="pixels a side, separated by commas")
    parser.add_argument("--edits", type=int, default=8, help="edits per size, one more than is measured")
    options = parser.parse_args()
    sizes = [int(size) for size in options.sizes.split(",")]
    print(f"| guard | {' | '.join(f'{size} px' for size in sizes)} |\n|---|{'---|' * len(sizes)}")
    for guard in default_guards():
        for words in ("", "SCORE 10/10") if "Text" in type(guard).__name__ else ("",):
            spent = [milliseconds(guard, edits(size, options.edits, words)) for size in sizes]
            name = type(guard).__name__ + (", painted words" if words else "")
            print(f"| {name} | {' | '.join(f'{each:.1f}' for each in spent)} |")


if __name__ == "__main__":
    main()
