"""How often each guard finds its hack, and how often it objects to honest edits: a table in Markdown.

    python tests/performance/guard_rates.py --photos tests/assets/photos [--guards border,dots] [--details]

Photographs are any folder of images; `tests/guards/guard_variants.py` makes hacks and honest edits of them, and
`tests/guards/guard_scenes.py` makes honest edits of 32x32 synthetic scenes, which are counted apart. Detection is over
all strengths, on copies of the source and on honest edits; a false alarm is any alarm of that guard on an honest edit.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from PIL import Image

TESTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS / "guards"))

from guard_scenes import honest_scenes  # noqa: E402
from guard_variants import Variant, bases, hacks, honest  # noqa: E402

from editr1_plugins.guards import DEFAULT_GUARDS, PixelGuard  # noqa: E402
from editr1_plugins.types import Edit  # noqa: E402


class Rates:
    """Counts per guard; `missed` and `false` name the variants that went wrong."""

    def __init__(self) -> None:
        self.hacks: Counter[str] = Counter()
        self.found: Counter[str] = Counter()
        self.honest: Counter[str] = Counter()
        self.false: Counter[str] = Counter()
        self.honest_scenes: Counter[str] = Counter()
        self.false_scenes: Counter[str] = Counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.looked: Counter[str] = Counter()
        self.wrong: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def ask(self, name: str, guard: PixelGuard, edit: Edit) -> bool:
        started = time.perf_counter()
        [alarm] = guard.inspect([edit], [()])
        self.seconds[name] += time.perf_counter() - started
        self.looked[name] += 1
        return alarm is not None


def measure(
    guards: dict[str, PixelGuard],
    photos: dict[str, Image.Image],
    scenes: int,
    seed: int = 0,
    every: int = 1,
    every_hack: int = 1,
) -> Rates:
    """Show every guard its hacks and all honest edits of the photographs and of `scenes` synthetic scenes.

    `every`, `every_hack`: only one of so many honest or hacked variants is used, to save time.
    """
    rates = Rates()
    sources = bases(photos)
    # One run over all photographs, so that a stride meets other kinds on each.
    hacked = ((where, variant) for where, base in sources.items() for variant in hacks(base, seed))
    for where, variant in islice(hacked, 0, None, every_hack):
        guard = guards.get(variant.hack or "")
        if guard is not None and variant.hack is not None:
            rates.hacks[variant.hack] += 1
            if rates.ask(variant.hack, guard, variant.edit):
                rates.found[variant.hack] += 1
            else:
                rates.wrong[f"missed by {variant.hack}"][f"{variant.kind} ({where})"] += 1
    edited = ((where, variant) for where, base in sources.items() for variant in honest(base, seed))
    _honest(rates, guards, islice(edited, 0, None, every))
    for kind, edit in islice(honest_scenes(scenes, seed), 0, None, every):
        for name, guard in guards.items():
            rates.honest_scenes[name] += 1
            if rates.ask(name, guard, edit):
                rates.false_scenes[name] += 1
                rates.wrong[f"false alarm of {name}"][f"scene: {kind}"] += 1
    return rates


def _honest(rates: Rates, guards: dict[str, PixelGuard], variants: Iterable[tuple[str, Variant]]) -> None:
    for where, variant in variants:
        for name, guard in guards.items():
            rates.honest[name] += 1
            if rates.ask(name, guard, variant.edit):
                rates.false[name] += 1
                rates.wrong[f"false alarm of {name}"][f"{variant.kind} ({where})"] += 1


def share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} % of {whole}" if whole else "-"


def table(rates: Rates, names: Iterable[str]) -> str:
    lines = [
        "| guard | detection | false alarms, photographs | false alarms, 32x32 scenes | ms per edit |",
        "|---|---|---|---|---|",
    ]
    for name in names:
        lines.append(
            f"| {name} | {share(rates.found[name], rates.hacks[name])} "
            f"| {share(rates.false[name], rates.honest[name])} "
            f"| {share(rates.false_scenes[name], rates.honest_scenes[name])} "
            f"| {1000 * rates.seconds[name] / max(1, rates.looked[name]):.1f} |"
        )
    return "\n".join(lines)


def load(folder: Path) -> dict[str, Image.Image]:
    paths = sorted(path for path in folder.iterdir() if path.suffix in {".jpg", ".jpeg", ".png"})
    if not paths:
        raise SystemExit(f"no .jpg or .png in {folder}")
    return {path.stem: Image.open(path).convert("RGB") for path in paths}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, default=TESTS / "assets" / "photos", help="folder of photographs")
    parser.add_argument("--guards", default="", help="names, separated by commas; default: all that can be built")
    parser.add_argument("--scenes", type=int, default=100, help="synthetic scenes, 10 honest edits each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=1, help="use one of so many honest edits")
    parser.add_argument("--every-hack", type=int, default=1, help="use one of so many hacks")
    parser.add_argument("--details", action="store_true", help="name what was missed and what was a false alarm")
    options = parser.parse_args()
    wanted = [name for name in options.guards.split(",") if name]
    guards = {name: make() for name, make, _ in DEFAULT_GUARDS if not wanted or name in wanted}
    rates = measure(guards, load(options.photos), options.scenes, options.seed, options.every, options.every_hack)
    print(table(rates, guards))
    if options.details:
        for heading, kinds in sorted(rates.wrong.items()):
            print(f"\n{heading}: {sum(kinds.values())}")
            for kind, count in kinds.most_common(40):
                print(f"  {count} x {kind}")


if __name__ == "__main__":
    main()
