"""A reward server under mixed faults: nothing is lost, nothing mixed up, and its memory stays flat.

    python tests/performance/serve_soak.py [--seconds 600] [--clients 8]

The server is a process of its own with tight limits and a judge that raises, refuses and dawdles. Some clients send
good requests on every route and check each answer against what the picture says; what is told to come again does so.
Others send broken images, cut JSON, bodies too large, hostile pickles and garbage, leave while they send or wait, or
send slowly. At the end the server must hold nothing, its resident memory must not have grown since the warm-up, and a
SIGTERM must end it well. Exit status 0 if all of that holds.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import logging
import multiprocessing
import pickle
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "adapters" / "server"))
from serving_kit import SOURCE, Shade, b64, expected, item, picture, png, reward_of

from editr1_plugins import Edit, Principle, Verification

MIB = 2**20
#: Resident memory may differ by this much between the end of the warm-up and the end: allocators breathe.
GROWTH = 24 * MIB


class Faulty(Shade):
    """`Shade` that sometimes takes its time, and sometimes returns nonsense for a whole batch."""

    def __init__(self) -> None:
        super().__init__()
        self._draw = random.Random(1)

    def verify(self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]]) -> list[Verification]:
        self.batches.clear()  # a log of hours is not what is measured
        if len(edits) > 1 and self._draw.random() < 0.05:
            return []
        time.sleep(self._draw.random() * 0.03)
        return super().verify(edits, principles)


def serve(pipe: Connection) -> None:
    from editr1_plugins.adapters.server.app import make_app
    from editr1_plugins.adapters.server.running import run_server
    from editr1_plugins.adapters.server.settings import ServerSettings

    logging.basicConfig(level=logging.ERROR)  # faults are what this is about; their warnings would fill the terminal
    settings = ServerSettings(
        port=0,
        max_body=MIB,
        max_bodies=4 * MIB,
        max_edits=16,
        max_waiting=24,
        busy_wait=0.2,
        max_batch=8,
        read_timeout=1.0,
        edit_r1_pickle=True,
    )
    run_server(make_app(reward_of(Faulty()), settings), settings, pipe.send)


class Client:
    """One thread's draws, requests and counts."""

    def __init__(self, host: str, port: int, seed: int) -> None:
        self.host, self.port = host, port
        self.draw = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []

    def post(self, route: str, body: bytes) -> tuple[int, bytes]:
        """The answer; asks again while it is told to come again."""
        while True:
            connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
            try:
                connection.request("POST", route, body)
                response = connection.getresponse()
                status, content = response.status, response.read()
                if status != 429:
                    return status, content
                self.counts["told to come again"] += 1
                time.sleep(min(0.2, float(response.headers["Retry-After"])))
            finally:
                connection.close()

    def check(self, name: str, holds: bool, said: object) -> None:
        self.counts[name] += 1
        if not holds:
            self.wrong.append(f"{name}: {str(said)[:300]}")

    def reds(self) -> list[int]:
        return [self.draw.randrange(256) for _ in range(self.draw.randint(1, 12))]

    # Good requests: every score is checked.

    def score(self) -> None:
        reds = self.reds()
        told = [self.draw.choice(["make it red", "make it red", "refuse", "raise"]) for _ in reds]
        rows = [item(red, text, request_id=str(row)) for row, (red, text) in enumerate(zip(reds, told, strict=True))]
        status, content = self.post("/score", json.dumps({"requests": rows}).encode())
        found = json.loads(content)
        wanted = [expected(red) if text == "make it red" else None for red, text in zip(reds, told, strict=True)]
        ids = [identity["request_id"] for identity in found.get("identities", [])]
        holds = status == 200 and found["scores"] == wanted and ids == [row["request_id"] for row in rows]
        self.check("score", holds, found)

    def compute(self) -> None:
        reds = self.reds()
        content = {
            "prompt": ["make it red"] * len(reds),
            "image": [b64(png(picture(red))) for red in reds],
            "condition_images": [[b64(SOURCE)]] * len(reds),
        }
        status, answer = self.post("/compute", json.dumps(content).encode())
        found = json.loads(answer)
        self.check("compute", status == 200 and found["rewards"] == [expected(red) for red in reds], found)

    def get_reward(self) -> None:
        [red] = self.reds()[:1]
        label = json.dumps({"source": b64(SOURCE), "edited": b64(png(picture(red))), "instruction": "make it red"})
        status, answer = self.post("/get_reward", json.dumps({"query": ["x"], "labels": [label]}).encode())
        found = json.loads(answer)
        self.check("get_reward", status == 200 and found["rewards"] == [expected(red)], found)

    def mode(self) -> None:
        reds = self.reds()
        images = [png(picture(red)) for red in reds]
        body = {"ref_images": [SOURCE] * len(reds), "images": images, "prompts": ["make it red"] * len(reds)}
        status, answer = self.post("/mode/logits_non_cot", pickle.dumps(body))
        holds = status == 200 and pickle.loads(answer)["scores"] == [expected(red) / 10 for red in reds]
        self.check("mode", holds, answer)

    # Bad ones: the answer's status is checked.

    def broken_image(self) -> None:
        rows = [item(51), item(51)]
        data = png(picture(51, 32))
        rows[0]["history"][1]["image_b64"] = b64(data[: self.draw.randrange(len(data) * 3 // 4)])
        status, content = self.post("/score", json.dumps({"requests": rows}).encode())
        self.check("broken image", status == 200 and json.loads(content)["scores"] == [None, 2.0], content)

    def cut_json(self) -> None:
        body = json.dumps({"requests": [item(51)]}).encode()
        status, content = self.post("/score", body[: self.draw.randrange(len(body))])
        self.check("cut JSON", status == 400, content)

    def too_large(self) -> None:
        with contextlib.suppress(ConnectionError):  # it may be cut off while it sends
            status, content = self.post("/score", b"x" * (2 * MIB))
            self.check("too large", status == 413, content)

    def too_many(self) -> None:
        status, content = self.post("/score", json.dumps({"requests": [item(51)] * 17}).encode())
        self.check("too many edits", status == 413, content)

    def hostile_pickle(self) -> None:
        status, content = self.post("/mode/x", pickle.dumps({"images": [Path("x")]}))
        self.check("hostile pickle", status == 400, content)

    def garbage(self) -> None:
        with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), timeout=10) as raw:
            raw.sendall(self.draw.randbytes(500) + b"\r\n\r\n")
            raw.recv(100)
        self.counts["garbage"] += 1

    def leaves(self) -> None:
        """Leaves while it sends, or while it waits."""
        body = json.dumps({"requests": [item(51)] * 4}).encode()
        head = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        sent = self.draw.choice([len(body), self.draw.randrange(len(body))])
        with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), timeout=10) as raw:
            raw.sendall(head + body[:sent])
            time.sleep(self.draw.random() * 0.02)
        self.counts["left"] += 1

    def slow(self) -> None:
        with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), timeout=10) as raw:
            raw.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
            for _ in range(30):
                raw.sendall(b" ")
                time.sleep(0.1)
        self.counts["slow"] += 1

    def run(self, end: float) -> None:
        good = [self.score, self.compute, self.get_reward, self.mode]
        bad: list[Callable[[], None]] = [
            self.broken_image,
            self.cut_json,
            self.too_large,
            self.too_many,
            self.hostile_pickle,
            self.garbage,
            self.leaves,
        ]
        while time.monotonic() < end:
            kind = self.draw.random()
            try:
                self.draw.choice(good if kind < 0.6 else bad)() if kind < 0.99 else self.slow()
            except Exception as error:
                self.wrong.append(f"{type(error).__name__}: {error}")


def resident(pid: int) -> int:
    """Bytes of a process' resident memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


def metrics(host: str, port: int) -> dict[str, float]:
    connection = http.client.HTTPConnection(host, port, timeout=60)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def settled(host: str, port: int) -> dict[str, float]:
    """The metrics once nothing is under way any more, or after 30 seconds."""
    for _ in range(60):
        found = metrics(host, port)
        if not found["editr1_waiting_edits"] and not found["editr1_body_bytes"]:
            break
        time.sleep(0.5)
    return found


def soak(seconds: float, clients: int) -> tuple[list[str], dict[str, Any]]:
    """Everything that went wrong, and what was counted."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs,), daemon=True)
    process.start()
    host, _, port = ours.recv().removeprefix("http://").partition(":")
    assert process.pid is not None
    started = time.monotonic()
    made = [Client(host, int(port), seed) for seed in range(clients)]
    threads = [threading.Thread(target=client.run, args=(started + seconds,), daemon=True) for client in made]
    for thread in threads:
        thread.start()
    time.sleep(seconds / 3)
    memory = [resident(process.pid)]
    while any(thread.is_alive() for thread in threads):
        time.sleep(min(5.0, seconds / 20))
        memory.append(resident(process.pid))
    found = settled(host, int(port))
    memory.append(resident(process.pid))
    files = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
    process.terminate()
    process.join(60)
    wrong = [each for client in made for each in client.wrong]
    if found["editr1_waiting_edits"] or found["editr1_body_bytes"]:
        wrong.append(f"held at the end: {found['editr1_waiting_edits']} edits, {found['editr1_body_bytes']} bytes")
    if memory[-1] - memory[0] > GROWTH:
        wrong.append(f"memory grew from {memory[0] / MIB:.0f} to {memory[-1] / MIB:.0f} MiB")
    if files > 60:
        wrong.append(f"{files} files are open at the end")
    if process.exitcode != 0:
        wrong.append(f"the server's exit status is {process.exitcode}")
    counts: Counter[str] = sum((client.counts for client in made), Counter())
    told = {name: value for name, value in found.items() if name.startswith("editr1_edits_total")}
    mib = [round(each / MIB, 1) for each in (memory[0], max(memory), memory[-1])]
    return wrong, {"requests": dict(counts), "edits": told, "memory MiB (warm, most, end)": mib, "open files": files}


def main(argv: Sequence[str] | None = None) -> int:
    """Run and print; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--clients", type=int, default=8)
    args = parser.parse_args(argv)
    wrong, told = soak(args.seconds, args.clients)
    for name, value in told.items():
        print(f"{name}: {value}")
    print("\n".join(wrong[:20]) or "nothing lost, nothing mixed up, memory flat")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
