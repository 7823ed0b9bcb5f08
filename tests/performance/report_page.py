"""A page of many edits: its size, how long it takes to make, and how quick it is in a real browser.

    python tests/performance/report_page.py [--edits 1000] [--side 512]

Each edit has two images of its own, nine verdicts and a trace of 2,000 characters. In Chromium: seconds until the list
stands, then milliseconds of the slowest of five for drawing thirty more cards, a sort and a text filter, each until the
next frame is painted.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from editr1_plugins.images import content_hash
from editr1_plugins.report.page import write_report
from editr1_plugins.types import CATEGORIES

sys.path.insert(0, str(Path(__file__).parent.parent))
from chromium import NAMES, Browser

TIMED = """(async () => {
  const start = performance.now();
  await new Promise((done) => {
    new MutationObserver((_, observer) => {
      observer.disconnect();
      requestAnimationFrame(() => setTimeout(done, 0));
    }).observe(document.getElementById("list"), { childList: true });
    const set = (name, value) => {
      const field = document.forms[0].elements[name];
      field.value = value;
      field.dispatchEvent(new Event("input", { bubbles: true }));
    };
    %s
  });
  return performance.now() - start;
})()"""
ACTIONS = {
    "thirty more cards": "document.getElementById('more').click()",
    "sort": "set('sort', document.forms[0].elements.sort.value ? '' : 'high')",
    "text filter (120 ms of it wait for more typing)": "set('q', 'edit 7')",
}


def make_records(folder: Path, edits: int, side: int) -> None:
    (folder / "images").mkdir(parents=True)
    noise = Image.effect_noise((side, side), 60).convert("RGB").resize((side // 8, side // 8)).resize((side, side))
    with (folder / "records-1.jsonl").open("w") as file:
        for at in range(edits):
            names = []
            for shift in (2 * at, 2 * at + 1):
                image = noise.point(lambda level, shift=shift: (level + shift) % 256)
                image.paste((shift % 256, shift // 256, 9), (0, 0, 16, 16))
                names.append(f"images/{content_hash(image)[:32]}.png")
                image.save(folder / names[-1], compress_level=1)
            verdicts = [
                {"question": f"Question {n} about edit {at}?", "category": CATEGORIES[n // 3], "passed": n != 4}
                for n in range(9)
            ]
            row = {"instruction": f"edit {at}", "score": at % 101 / 10, "verdicts": verdicts, "trace": "words " * 333}
            file.write(json.dumps(row | {"source_image": names[0], "edited_image": names[1]}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--edits", type=int, default=1000)
    parser.add_argument("--side", type=int, default=512)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_records(folder / "records", args.edits, args.side)
        started = time.perf_counter()
        made = write_report(folder / "records", folder / "page.html", limit=args.edits)
        seconds = time.perf_counter() - started
        print(f"{made.listed} edits, {made.images} images: {made.bytes / 1e6:.1f} MB in {seconds:.1f} s")
        program = next(filter(None, map(shutil.which, NAMES)), None)
        if program is None:
            print("no Chromium here")
            return
        browser = Browser(program, folder / "profile")
        started = time.perf_counter()
        browser.open(folder / "page.html")
        seconds = time.perf_counter() - started
        cards = browser.run("document.querySelectorAll('.card').length")
        print(f"open: {seconds:.2f} s until the first {cards} cards stand")
        for name, action in ACTIONS.items():
            print(f"{name}: {max(browser.run(TIMED % action) for _ in range(5)):.0f} ms")
        browser.close()


if __name__ == "__main__":
    main()
