"""A judge whose scores can be told from the picture, a server in a thread, and what goes over the wire."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from editr1_plugins import Edit, EditRRMReward, Principle, Verification
from editr1_plugins.adapters.missing import Filling
from editr1_plugins.adapters.server.app import make_app
from editr1_plugins.adapters.server.running import listening_socket, make_server
from editr1_plugins.adapters.server.settings import ServerSettings


class Shade:
    """Scores an edit by the red of its first pixel, 0..10; what is called "refuse" has no score, "raise" raises."""

    identity = "shade"
    thread_safe = True

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()

    def verify(self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]]) -> list[Verification]:
        self.batches.append([edit.instruction for edit in edits])
        self.entered.set()
        assert self.open.wait(60), "nobody opened the gate"
        return [self._judged(edit) for edit in edits]

    @staticmethod
    def _judged(edit: Edit) -> Verification:
        if edit.instruction == "raise":
            raise RuntimeError("the judge fell over")
        if edit.instruction == "refuse":
            return Verification(score=None, failure="refused: not today", samples=0)
        return Verification(score=expected(edit.edited.getpixel((0, 0))[0]))


class OnePrinciple:
    """A decomposer with the same question for all."""

    identity = "one principle"
    thread_safe = True

    def decompose(self, requests: Sequence[tuple[Image.Image, str]]) -> list[tuple[Principle, ...]]:
        return [(Principle(question="Is it red?", category="Instruction Following"),) for _ in requests]


def expected(red: int) -> float:
    """The score of a picture of this red."""
    return red / 25.5


def reward_of(verifier: Any) -> EditRRMReward:
    """A reward without guards, so that any picture may be judged."""
    return EditRRMReward(verifier=verifier, decomposer=OnePrinciple(), guards=())


class Running:
    """A context in which `reward` is served by a real HTTP server in a thread; `url` is its address."""

    def __init__(self, reward: EditRRMReward, settings: ServerSettings, filling: Filling | None = None) -> None:
        self.reward = reward
        self._socket = listening_socket(settings)
        self.address = self._socket.getsockname()[:2]
        self.url = f"http://127.0.0.1:{self.address[1]}"
        self._server = make_server(make_app(reward, settings, filling), settings)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)

    def __enter__(self) -> Running:
        self._thread.start()
        wait_until(lambda: self._server.started)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join(30)
        self._socket.close()
        assert not self._thread.is_alive(), "the server did not end"


def wait_until(condition: Any, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def picture(red: int, side: int = 16) -> Image.Image:
    """A picture whose first pixel has this red; lossless formats keep it."""
    pixels = np.zeros((side, side, 3), np.uint8)
    pixels[..., 0] = red
    pixels[1:, :, 1] = np.arange(side, dtype=np.uint8)
    return Image.fromarray(pixels)


def png(image: Image.Image) -> bytes:
    return encoded(image, "PNG")


def encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


SOURCE = png(picture(100))


def item(red: int, instruction: str = "make it red", **more: Any) -> dict[str, Any]:
    """One item of `/score`."""
    history = [
        {"text": instruction, "image_b64": b64(SOURCE)},
        {"text": instruction, "image_b64": b64(png(picture(red)))},
    ]
    return {"history": history, "required_rewards": ["editr1"], "metadata": None, **more}
