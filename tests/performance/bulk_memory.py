"""Memory of bulk judging while it works through many edits: the process's own size, every thousand rows.

    python tests/performance/bulk_memory.py [--edits 10000] [--side 256]

Rows name noise images of the given side, darkened by various amounts; `measure` judges each of them.
The promise: flat after the first thousand. Printed: rows, MiB resident, edits per second; then the growth, and how long
a second run takes that finds everything done.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from PIL import Image

from editr1_plugins.reward.bulk import BulkSummary, score_file


def resident() -> float:
    """MiB of this process in memory now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def make_input(folder: Path, edits: int, side: int) -> Path:
    """Rows that name 8 sources and 64 edited images by turns, each with an instruction that `rules` knows."""
    for number in range(8):
        source = Image.effect_noise((side, side), 40 + number).convert("RGB")
        source.save(folder / f"source-{number}.png")
        for step in range(8):
            source.point(lambda level, step=step: level * (9 - step) // 10).save(folder / f"edited-{number}-{step}.png")
    path = folder / "edits.jsonl"
    with path.open("w") as file:
        for at in range(edits):
            row = {"source": f"source-{at % 8}.png", "edited": f"edited-{at % 8}-{at // 8 % 8}.png", "id": at}
            file.write(json.dumps(row | {"instruction": "make the image darker"}) + "\n")
    return path


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--edits", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=256)
    args = parser.parse_args()
    sizes: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        path = make_input(Path(scratch), args.edits, args.side)
        started = time.perf_counter()

        def watch(summary: BulkSummary) -> None:
            if summary.rows // 1000 > max(sizes, default=0) // 1000 or not sizes:
                sizes[summary.rows] = resident()
                speed = summary.rows / (time.perf_counter() - started)
                print(f"{summary.rows:>7} rows  {sizes[summary.rows]:7.1f} MiB  {speed:6.1f} edits/s", flush=True)

        output = Path(scratch) / "out"
        score_file(path, output, progress=watch, verifier="measure", decomposer="rules")
        later = [size for rows, size in sizes.items() if rows >= 1000]
        if later:
            print(f"growth after the first thousand: {later[-1] - later[0]:+.1f} MiB")
        started = time.perf_counter()
        summary = score_file(path, output, verifier="measure", decomposer="rules")
        print(f"second run: {summary.resumed} found done in {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
