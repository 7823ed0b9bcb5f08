"""Text encoders and VAE leave the accelerator while the denoiser is trained, and come back for the next rollout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from .tape import DENOISERS

__all__ = ["EncoderOffload"]


class EncoderOffload:
    """Moves a pipeline's frozen networks, all but the denoisers, between the accelerator and the CPU.

    Args:
        pipe: a diffusers pipeline, on its device.
        enabled: False: nothing is ever moved.

    Attributes:
        moves: how often the networks changed places.
    """

    def __init__(self, pipe: Any, *, enabled: bool) -> None:
        self.pipe, self.enabled, self.moves = pipe, enabled, 0
        self._homes: dict[str, torch.device] = {}
        self._depth = 0

    @contextmanager
    def needed(self) -> Iterator[None]:
        """The encoders are on their device while this is open, and on the CPU afterwards."""
        self.back()
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                self._away()

    def back(self) -> None:
        """Put every network that was moved back where it was."""
        for name, home in self._homes.items():
            getattr(self.pipe, name).to(home)
        self.moves += bool(self._homes)
        self._homes = {}

    def _away(self) -> None:
        if not self.enabled:
            return
        for name, part in self.pipe.components.items():
            frozen = isinstance(part, nn.Module) and not any(p.requires_grad for p in part.parameters())
            if frozen and name not in DENOISERS:
                self._homes[name] = next((p.device for p in part.parameters()), torch.device("cpu"))
                part.to("cpu")
        self.moves += bool(self._homes)
        if any(home.type == "cuda" for home in self._homes.values()):
            torch.cuda.empty_cache()
