"""Memory of `editr1 eval judge` while it works through many edits: the process's own size, every thousand answers.

    python tests/performance/eval_memory.py [--pairs 5000] [--side 256] [--parquet]

Pairs of noise images, darkened by various amounts; every edit has a name of its own, so none is judged only once.
`measure` judges them. The promise: flat after the first thousand. Printed: answers, MiB resident, edits per second;
then the growth, and how long a second run takes that finds everything done.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from editr1_plugins.evaluation.benchmarks.own import OwnPairs
from editr1_plugins.evaluation.judging import evaluate_judge
from editr1_plugins.reward.bulk_rows import BulkSummary
from editr1_plugins.verifiers.measure import MeasureVerifier

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def resident() -> float:
    """MiB of this process in memory now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def pictures(side: int) -> list[bytes]:
    """A noise image and eight darker ones, encoded."""
    source = Image.effect_noise((side, side), 40).convert("RGB")
    found = []
    for step in range(9):
        buffer = BytesIO()
        source.point(lambda level, step=step: level * (10 - step) // 10).save(buffer, "PNG")
        found.append(buffer.getvalue())
    return found


def write_lines(folder: Path, pairs: int, encoded: list[bytes]) -> Path:
    """JSON lines; each edit is a link of its own to one of the few files."""
    for step, data in enumerate(encoded):
        (folder / f"{step}.png").write_bytes(data)
    path = folder / "pairs.jsonl"
    with path.open("w") as file:
        for at in range(pairs):
            names = {}
            for kind, step in (("winner", 5 + at % 4), ("loser", 1 + at % 4)):
                names[kind] = f"{at}-{kind}.png"
                (folder / names[kind]).hardlink_to(folder / f"{step}.png")
            row = {"source": "0.png", "instruction": "make the image darker", **names}
            file.write(json.dumps(row) + "\n")
    return path


def write_parquet(folder: Path, pairs: int, encoded: list[bytes]) -> Path:
    """One file with the pictures inside."""
    path = folder / "pairs.parquet"
    schema = pa.schema([(name, IMAGE) for name in ("source", "winner", "loser")] + [("instruction", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, pairs, 100):
            rows = [
                {"source": 0, "winner": 5 + at % 4, "loser": 1 + at % 4} for at in range(start, min(start + 100, pairs))
            ]
            cells = [
                {name: {"bytes": encoded[step], "path": None} for name, step in row.items()}
                | {"instruction": "make the image darker"}
                for row in rows
            ]
            writer.write_table(pa.Table.from_pylist(cells, schema=schema))
    return path


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=5_000)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--parquet", action="store_true")
    args = parser.parse_args()
    sizes: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        write = write_parquet if args.parquet else write_lines
        path = write(Path(scratch), args.pairs, pictures(args.side))
        started = time.perf_counter()

        def watch(summary: BulkSummary) -> None:
            if summary.rows // 1000 > max(sizes, default=0) // 1000 or not sizes:
                sizes[summary.rows] = resident()
                speed = summary.rows / (time.perf_counter() - started)
                print(f"{summary.rows:>7} answers  {sizes[summary.rows]:7.1f} MiB  {speed:6.1f} edits/s", flush=True)

        output, reward = Path(scratch) / "out", {"decomposer": "rules"}
        found = evaluate_judge(OwnPairs(), str(path), MeasureVerifier(), output, reward=reward, progress=watch)
        later = [size for rows, size in sizes.items() if rows >= 1000]
        if later:
            print(f"growth after the first thousand: {later[-1] - later[0]:+.1f} MiB, at the end {resident():.1f} MiB")
        print(f"accuracy {found['sane']['accuracy']:.2f}, failures {found['sane']['failures']}")
        started = time.perf_counter()
        evaluate_judge(OwnPairs(), str(path), MeasureVerifier(), output, reward=reward)
        print(f"second run: everything found done in {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
