"""Edits per second through a reward server against the same reward called directly, in interleaved rounds.

    python tests/performance/serve_load.py [--judge fixed] [--edits 512] [--clients 16] [--each 8] [--side 256]
        [--latency 0.5] [--rounds 3]

`--judge fixed` is a verifier that takes `--latency` seconds a batch of 32 and does one batch at a time, as a model on a
GPU does: its own speed is 32 / latency. `--judge measure` is the embedded one, all of it CPU time. The server is a
process of its own; the clients are threads that send `--each` edits a request as PNG and wait for the answer. The
direct call gets decoded images in batches of 32. Printed: both rates, their ratio (target: median >= 0.90), the
requests' p50 and p99, and the CPU time per edit of both, which can be compared on a busy machine.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent / "adapters" / "server"))
from serving_kit import OnePrinciple, b64, png

from editr1_plugins import Edit, EditRRMReward, Principle, Verification

TARGET = 0.90
BATCH = 32


class FixedLatency:
    """Takes the same time for every batch, and does one at a time."""

    identity = "fixed latency"

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def verify(self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]]) -> list[Verification]:
        time.sleep(self._seconds)
        return [Verification(score=5.0) for _ in edits]


def make_reward(judge: str, latency: float) -> EditRRMReward:
    if judge == "measure":
        return EditRRMReward("measure")
    return EditRRMReward(FixedLatency(latency), OnePrinciple(), guards=())


def serve(pipe: Connection, judge: str, latency: float) -> None:
    from editr1_plugins.adapters.server.app import make_app
    from editr1_plugins.adapters.server.running import run_server
    from editr1_plugins.adapters.server.settings import ServerSettings

    settings = ServerSettings(port=0, max_batch=BATCH)
    run_server(make_app(make_reward(judge, latency), settings), settings, pipe.send)


def make_edits(count: int, side: int) -> list[Edit]:
    """Groups of eight with one source, made darker by different amounts."""
    draw = np.random.default_rng(0)
    made = []
    for index in range(count):
        if index % 8 == 0:
            # Smooth, as photographs are: noise would not compress.
            small = Image.fromarray(draw.integers(60, 220, (8, 8, 3), dtype=np.uint8))
            source = small.resize((side, side), Image.Resampling.BICUBIC)
        share = draw.uniform(0.4, 0.8)
        edited = source.point([int(value * share) for value in range(256)] * 3)
        made.append(Edit(source=source, edited=edited, instruction="make the image darker"))
    return made


def bodies_of(edits: Sequence[Edit], each: int) -> list[bytes]:
    def turn(image: Image.Image) -> dict[str, str]:
        return {"text": "make the image darker", "image_b64": b64(png(image))}

    items = [{"history": [turn(edit.source), turn(edit.edited)], "required_rewards": ["editr1"]} for edit in edits]
    return [json.dumps({"requests": items[at : at + each]}).encode() for at in range(0, len(items), each)]


def directly(reward: EditRRMReward, edits: Sequence[Edit]) -> tuple[float, float, list[float | None]]:
    """Seconds, CPU seconds, and scores."""
    started, cpu = time.perf_counter(), time.process_time()
    judged = [each for at in range(0, len(edits), BATCH) for each in reward.score(edits[at : at + BATCH])]
    return time.perf_counter() - started, time.process_time() - cpu, [each.score for each in judged]


def by_server(address: str, bodies: Sequence[bytes], clients: int) -> tuple[float, list[float | None], list[float]]:
    answers: list[list[float | None]] = [[] for _ in bodies]
    seconds = [0.0] * len(bodies)
    todo = iter(range(len(bodies)))
    lock = threading.Lock()

    def work() -> None:
        connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=600)
        while True:
            with lock:
                at = next(todo, None)
            if at is None:
                return
            started = time.perf_counter()
            connection.request("POST", "/score", bodies[at])
            answers[at] = json.loads(connection.getresponse().read())["scores"]
            seconds[at] = time.perf_counter() - started

    threads = [threading.Thread(target=work) for _ in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started, [score for answer in answers for score in answer], seconds


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(argv: Sequence[str] | None = None) -> float:
    """Run, print, and return the median ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judge", choices=("fixed", "measure"), default="fixed")
    parser.add_argument("--edits", type=int, default=512)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--each", type=int, default=8)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--latency", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args(argv)
    edits = make_edits(args.edits, args.side)
    bodies = bodies_of(edits, args.each)
    reward = make_reward(args.judge, args.latency)
    reward.score(edits[:1])

    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, args.judge, args.latency), daemon=True)
    process.start()
    address = ours.recv()
    assert process.pid is not None
    ratios, waits = [], []
    try:
        by_server(address, bodies[:2], 2)
        for number in range(args.rounds):
            own, own_cpu, expected = directly(reward, edits)
            before = cpu_seconds(process.pid)
            served, scores, seconds = by_server(address, bodies, args.clients)
            cpu = (cpu_seconds(process.pid) - before) / len(edits)
            assert scores == expected, "the server gave other scores"
            ratios.append(own / served)
            waits += seconds
            rates = f"{len(edits) / own:7.1f} directly, {len(edits) / served:7.1f} served"
            print(f"round {number}: {rates} edits/s, ratio {ratios[-1]:.3f}; ", end="")
            print(f"CPU per edit {1e3 * own_cpu / len(edits):.1f} ms directly, {1e3 * cpu:.1f} ms served", flush=True)
    finally:
        process.terminate()
        process.join(60)
    ratio = statistics.median(ratios)
    p50, p99 = np.quantile(waits, [0.5, 0.99])
    verdict = "reached" if ratio >= TARGET else "MISSED"
    print(f"{args.judge}: median ratio {ratio:.3f} (target {TARGET:.2f}: {verdict}), ", end="")
    print(f"{args.clients} clients x {args.each} edits: p50 {p50:.2f} s, p99 {p99:.2f} s; exit {process.exitcode}")
    return ratio


if __name__ == "__main__":
    main()
