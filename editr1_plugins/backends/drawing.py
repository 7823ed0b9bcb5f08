"""Draws tokens inside `generate`: from each reply's own random numbers, never a control token, with log-probabilities.

`generate` itself samples from the global random state of torch, for the whole batch at once. Here noise is added to the
logits instead and the largest taken (the Gumbel-max trick, which draws from exactly the same distribution), so a reply
depends on its own seed alone, not on its neighbours in the batch, and nobody else's random numbers are touched.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

import torch
from transformers import LogitsProcessor

if TYPE_CHECKING:
    from torch import Tensor

    from editr1_plugins.backends.chat import ChatRequest

__all__ = ["TOP_LOGPROBS", "Drawing", "Step", "generators", "request_digest"]

#: Alternatives kept per token when log-probabilities are asked for.
TOP_LOGPROBS: Final = 20

#: Of one step: drawn token, its log-probability, likeliest tokens, theirs; shapes (B,), (B,), (B, k), (B, k).
Step = tuple["Tensor", "Tensor", "Tensor", "Tensor"]


class Drawing(LogitsProcessor):
    """Makes the largest score the drawn token, for a `generate` that takes the largest (`do_sample=False`).

    Args:
        forbidden: ids that are never drawn, on the device of the scores.
        temperature: 0 takes the likeliest token.
        generators: one per row, on that device; unused at temperature 0.
        keep_logprobs: fill `steps`.

    Attributes:
        steps: one `Step` per generated token. Log-probabilities are natural, at temperature 1, of allowed tokens.
        broken: per row, whether the model's logits were not numbers at some step (shape (B,)); None before the first.
    """

    def __init__(
        self,
        forbidden: Tensor,
        *,
        temperature: float = 0.0,
        generators: Sequence[torch.Generator] = (),
        keep_logprobs: bool = False,
    ) -> None:
        self.forbidden = forbidden
        self.temperature = temperature
        self.generators = generators
        self.keep_logprobs = keep_logprobs
        self.steps: list[Step] = []
        self.broken: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores of shape (B, V) in, scores out whose largest is the drawn token."""
        broken = scores.isnan().any(dim=-1)
        self.broken = broken if self.broken is None else self.broken | broken
        scores = scores.float().index_fill(-1, self.forbidden, -torch.inf)
        drawn = scores if self.temperature == 0.0 else scores / self.temperature + self._gumbel(scores)
        if self.keep_logprobs:
            self._keep(scores, drawn.argmax(dim=-1))
        return drawn

    def _gumbel(self, scores: Tensor) -> Tensor:
        noise = torch.empty_like(scores)
        for row, generator in zip(noise, self.generators, strict=True):
            row.exponential_(generator=generator)
        return -noise.clamp_min_(torch.finfo(noise.dtype).tiny).log_()

    def _keep(self, scores: Tensor, chosen: Tensor) -> None:
        logprobs = scores.log_softmax(dim=-1)
        values, ids = logprobs.topk(min(TOP_LOGPROBS, logprobs.shape[-1]), dim=-1)
        own = logprobs.gather(-1, chosen[:, None])[:, 0]
        self.steps.append((chosen.cpu(), own.cpu(), ids.cpu(), values.cpu()))


def generators(device: torch.device, seed: int | None, draws: Sequence[tuple[bytes, int]]) -> list[torch.Generator]:
    """One generator per row, which is sample number j of a request with some `request_digest`.

    Two requests draw different numbers, also with the same seed: with the same ones, a winner's and a loser's scores
    would be equal more often than by chance. Without a seed each draws from the system's own. The same seed gives the
    same numbers on the same kind of device only.
    """
    made = []
    for digest, sample in draws:
        own = os.urandom(8) if seed is None else blake2b(b"%d %d " % (seed, sample) + digest, digest_size=8).digest()
        made.append(torch.Generator(device=device).manual_seed(int.from_bytes(own, "big") % 2**63))
    return made


def request_digest(request: ChatRequest) -> bytes:
    """Sixteen bytes that change with any of the request's texts and pixels."""
    found = blake2b(digest_size=16)
    for part in (request.system, *request.parts):
        found.update(part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part.tobytes())
        found.update(b"\0")
    return found.digest()
