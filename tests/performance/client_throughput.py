"""Requests per second of `OpenAIBackend` against raw asyncio clients on the same server, in interleaved rounds.

    python tests/performance/client_throughput.py [--requests 512] [--rounds 5] [--latency 0.25] [--side 0]

The server is a process of its own that answers every request after `--latency` seconds, as many at once as come. The
raw clients are a semaphore and a gather: `openai` on the official AsyncOpenAI, `httpx2` on the HTTP library below it.
With `--side N` every request carries two N x N images; every client encodes them within its time, in threads, the raw
ones as they come, ours each picture once. Besides the rate, the CPU time of this process per request is shown: it is
what can be compared on a busy machine. Target: median ratio to `openai` >= 0.90.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import multiprocessing
import statistics
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from typing import Any

import httpx2
import numpy as np
import openai
from PIL import Image

from editr1_plugins.backends.chat import ChatRequest, Sampling
from editr1_plugins.backends.openai import OpenAIBackend

TARGET = 0.90
GROUP = 24
REPLY = json.dumps(
    {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "x" * 800}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1500, "completion_tokens": 200},
    }
).encode()


def serve(pipe: Connection, latency: float) -> None:
    """A bare HTTP server: cheap enough not to be what is measured."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(REPLY)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                headers = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(headers.split(b"content-length:")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                await asyncio.sleep(latency)
                writer.write(head + REPLY)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def main() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=512, limit=2**22)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


def requests(count: int, side: int) -> list[ChatRequest]:
    """Groups of `GROUP` with one source and its own text each; without images when `side` is 0."""
    draw = np.random.default_rng(0)

    def picture() -> Image.Image:
        # Smooth, as photographs are: noise would not compress.
        small = Image.fromarray(draw.integers(0, 255, (16, 16, 3), dtype=np.uint8))
        return small.resize((side, side), Image.Resampling.BICUBIC)

    made = []
    for index in range(count):
        if index % GROUP == 0:
            source = picture() if side else None
        text = f"group {index // GROUP}. " + "Judge this edit by the principles below. " * 100
        parts: tuple[Any, ...] = (text, source, "Edited image:", picture()) if side else (text,)
        made.append(ChatRequest(parts=parts, group=f"g{index // GROUP}"))
    return made


def body(request: ChatRequest) -> dict[str, Any]:
    def part(item: str | Image.Image) -> dict[str, Any]:
        if isinstance(item, str):
            return {"type": "text", "text": item}
        buffer = io.BytesIO()
        item.save(buffer, "PNG", compress_level=1)
        uri = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
        return {"type": "image_url", "image_url": {"url": uri}}

    content = [part(item) for item in request.parts]
    return {
        "model": "judge",
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 2048,
        "temperature": 0.0,
    }


async def bounded(
    post: Callable[[dict[str, Any]], Awaitable[object]], batch: list[ChatRequest], concurrency: int
) -> None:
    slots = asyncio.Semaphore(concurrency)

    async def one(request: ChatRequest) -> None:
        async with slots:
            await post(body(request) if len(request.parts) == 1 else await asyncio.to_thread(body, request))

    await asyncio.gather(*map(one, batch))


async def raw_openai(url: str, batch: list[ChatRequest], concurrency: int) -> None:
    async with openai.AsyncOpenAI(base_url=url, api_key="x", max_retries=0) as client:
        await bounded(lambda payload: client.chat.completions.create(**payload), batch, concurrency)


async def raw_httpx2(url: str, batch: list[ChatRequest], concurrency: int) -> None:
    limits = httpx2.Limits(max_connections=concurrency)
    async with httpx2.AsyncClient(timeout=60, limits=limits) as client:

        async def post(payload: dict[str, Any]) -> object:
            return (await client.post(f"{url}/chat/completions", json=payload)).json()

        await bounded(post, batch, concurrency)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--latency", type=float, default=0.25)
    parser.add_argument("--side", type=int, default=0)
    parser.add_argument("--concurrency", type=int, default=64)
    options = parser.parse_args()

    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(there, options.latency), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{here.recv()}/v1"
    batch = requests(options.requests, options.side)

    def ours() -> None:
        # A new backend per round: connections, thread and image cache are part of its cost, as for the raw clients.
        backend = OpenAIBackend("judge", url, max_retries=0, concurrency=options.concurrency)
        replies = backend.complete(batch, Sampling())
        backend.close()
        assert all(reply.failure is None for (reply,) in replies)

    runs: dict[str, Callable[[], None]] = {
        "ours": ours,
        "openai": lambda: asyncio.run(raw_openai(url, batch, options.concurrency)),
        "httpx2": lambda: asyncio.run(raw_httpx2(url, batch, options.concurrency)),
    }
    rates: dict[str, list[float]] = {name: [] for name in runs}
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(options.rounds + 1):
        for name, run in runs.items():
            started, cpu = time.perf_counter(), time.process_time()
            run()
            if turn:  # the first round warms up imports
                rates[name].append(options.requests / (time.perf_counter() - started))
                spent[name].append((time.process_time() - cpu) / options.requests)
    server.terminate()

    print(
        f"{options.requests} requests, {options.concurrency} at once, {options.latency} s latency, side {options.side}"
    )
    for name, values in rates.items():
        rate, low, high, cpu = statistics.median(values), min(values), max(values), statistics.median(spent[name])
        print(f"{name:7s} {rate:7.1f} requests/s ({low:.1f} to {high:.1f}), {1e3 * cpu:.2f} ms CPU per request")
    for name in ("openai", "httpx2"):
        ratio = statistics.median(mine / raw for mine, raw in zip(rates["ours"], rates[name], strict=True))
        print(f"ratio to {name}: {ratio:.3f}" + (f" (target >= {TARGET:.2f})" if name == "openai" else ""))


if __name__ == "__main__":
    main()
