"""How often the verifier `measure` judges edits of text rightly: a table in Markdown.

    python tests/performance/text_rates.py [--every 3] [--details]

Signs are drawn on the test photographs, at several sizes and angles, and every edit arrives in five ways: as drawn, as
a JPEG, through something like an autoencoder, enlarged, reduced. A right edit should score 7 or more; a copy 0; a sign
with one wrong letter, half of the letters, or another word less than 7.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import islice, product
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

TESTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS / "guards"))

from guard_variants import ARRIVALS, font  # noqa: E402

from editr1_plugins.principles.rules import decompose_instruction  # noqa: E402
from editr1_plugins.types import Edit  # noqa: E402
from editr1_plugins.verifiers.measure import MeasureVerifier  # noqa: E402

#: old text, new text, one letter wrong, half of it, another word
TEXTS = (
    ("SALE", "OPEN", "OPEM", "OPLE", "CLUB"),
    ("Coffee 2.50", "Coffee 3.75", "Coffee 3.76", "Coffee 2.75", "Bananas"),
    ("NO PARKING", "FREE PARKING", "FREE PARRING", "FRNO PARKING", "EXIT ONLY"),
    ("Harbour", "Airport", "Airpork", "Airbour", "Kitchen"),
    ("1998", "2024", "2054", "2098", "7713"),
)
KINDS = ("right", "copy", "one letter wrong", "half", "another word")


def sign(image: Image.Image, text: str, size: float, angle: float) -> Image.Image:
    """A plate with text in the middle of the image; `size` is the letters' share of the image's height."""
    face = font(size * image.height)
    plate = Image.new("RGBA", (round(face.getlength("M" * 9)), round(size * image.height * 1.8)), (30, 60, 40))
    ImageDraw.Draw(plate).text((plate.width / 2, plate.height / 2), text, "white", face, anchor="mm")
    plate = plate.rotate(angle, expand=True, resample=Image.Resampling.BICUBIC)
    out = image.copy()
    out.paste(plate, ((image.width - plate.width) // 2, (image.height - plate.height) // 2), plate)
    return out


def edits() -> Iterator[tuple[str, str, Edit]]:
    """(kind, how it was made, edit)"""
    rng = np.random.default_rng(0)
    photos = {
        path.stem: Image.open(path).convert("RGB") for path in sorted((TESTS / "assets" / "photos").glob("*.jpg"))
    }
    for name, size, angle, texts in product(photos, (0.07, 0.12), (0, 12), TEXTS):
        old, new, letter, half, other = texts
        source = sign(photos[name], old, size, angle)
        for kind, shown in zip(KINDS, (new, old, letter, half, other), strict=True):
            for arrival, arrive in ARRIVALS.items():
                edited = arrive(sign(photos[name], shown, size, angle), rng)
                how = f"{shown!r}, {name}, size {size}, angle {angle}, {arrival}"
                ask = f'change the text "{old}" to "{new}"'
                yield kind, how, Edit(source=source, edited=edited, instruction=ask)


def is_right(kind: str, score: float) -> bool:
    return score >= 7 if kind == "right" else score == 0 if kind == "copy" else score < 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="use one of so many edits")
    parser.add_argument("--details", action="store_true", help="name what was judged wrongly")
    options = parser.parse_args()
    verifier = MeasureVerifier()
    seen: Counter[str] = Counter()
    unjudged: Counter[str] = Counter()
    right: Counter[str] = Counter()
    scores: defaultdict[str, list[float]] = defaultdict(list)
    for kind, how, edit in islice(edits(), 0, None, options.every):
        [found] = verifier.verify([edit], [decompose_instruction(edit.instruction)])
        seen[kind] += 1
        if found.score is None:
            unjudged[kind] += 1
        else:
            scores[kind].append(found.score)
            right[kind] += is_right(kind, found.score)
        if options.details and (found.score is None or not is_right(kind, found.score)):
            print(f"{kind}: {how}: {found.score} {found.failure or found.trace.splitlines()[0]}")
    print("| edit | N | judged rightly | not judged | mean score |\n|---|---|---|---|---|")
    for kind in KINDS:
        share = 100 * right[kind] / max(1, len(scores[kind]))
        mean = np.mean(scores[kind]) if scores[kind] else float("nan")
        print(f"| {kind} | {seen[kind]} | {share:.1f} % | {unjudged[kind]} | {mean:.2f} |")


if __name__ == "__main__":
    main()
