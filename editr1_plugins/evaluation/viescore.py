"""Verifier `viescore:MODEL@URL`: a judge in the manner of VIEScore (arXiv 2312.14867), the paper's baseline.

Two questions per edit: semantic consistency (SC, from source, edit and instruction: how well it follows, how little
else it changed) and perceptual quality (PQ, from the edit alone: how natural, how clean). The score is sqrt(SC x PQ)
in 0..10, where SC and PQ are the lower of their two numbers. The wording is our own; no principles are asked about.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from editr1_plugins.backends.chat import ChatBackend, ChatReply, ChatRequest, Sampling
from editr1_plugins.errors import ConfigError
from editr1_plugins.evaluation.replies import number_in, trace_of, usage_of, why_missing
from editr1_plugins.principles.asking import ask
from editr1_plugins.principles.prompt_text import Prompt, digest, load_prompt, quoted
from editr1_plugins.types import MAX_SCORE, Edit, Principle, Verdict, Verification

__all__ = ["VIEScoreVerifier"]

_SC: Final = ("follow", "keep")
_PQ: Final = ("natural", "clean")
_PROMPTS: Final = ("sc", "sc_task", "sc_edited", "pq", "pq_task")
_WARM: Final = 0.7


class VIEScoreVerifier:
    """See the module's text.

    Args:
        backend: the VLM.
        samples: replies drawn per question; each pair of replies gives a score, of which the mean is taken.
        temperature: None means 0 for one sample, 0.7 for several.
        max_tokens: of one reply.
        seed: passed on where the backend supports one.

    Raises:
        ConfigError: a setting out of range.
    """

    thread_safe: Final = True  # as every backend is
    needs_principles: Final = False

    def __init__(
        self,
        backend: ChatBackend,
        *,
        samples: int = 1,
        temperature: float | None = None,
        max_tokens: int = 1024,
        seed: int | None = None,
    ) -> None:
        if temperature is None:
            temperature = _WARM if samples > 1 else 0.0
        try:
            self.sampling = Sampling(temperature=temperature, max_tokens=max_tokens, samples=samples, seed=seed)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        self.backend = backend
        self.prompt_version = f"viescore-{digest(*(_prompt(name).text for name in _PROMPTS))}"
        self.model_version = backend.identity
        drawn = f"{samples} at {temperature:g}, {max_tokens} tokens"
        self.identity = f"{self.prompt_version} {drawn} by {self.model_version}"

    def verify(self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]]) -> list[Verification]:
        """One verification per edit, in order; the principles are not read, so every verdict is None.

        Raises:
            ValueError: not as many lists of principles as edits.
        """
        if len(edits) != len(principles):
            raise ValueError(f"{len(edits)} edits but {len(principles)} lists of principles")
        requests = [request for edit in edits for request in (_sc_request(edit), _pq_request(edit))]
        replies = ask(self.backend, requests, self.sampling)
        judged = [_verification(replies[at], replies[at + 1]) for at in range(0, len(replies), 2)]
        return [replace(each, verdicts=_not_asked(asked)) for each, asked in zip(judged, principles, strict=True)]

    def __repr__(self) -> str:
        return f"VIEScoreVerifier({self.identity!r})"


def _prompt(name: str) -> Prompt:
    return load_prompt("editr1_plugins.evaluation", name)


def _sc_request(edit: Edit) -> ChatRequest:
    task = _prompt("sc_task").fill(instruction=quoted(edit.instruction))
    return ChatRequest(system=_prompt("sc").fill(), parts=(task, edit.source, _prompt("sc_edited").fill(), edit.edited))


def _pq_request(edit: Edit) -> ChatRequest:
    return ChatRequest(system=_prompt("pq").fill(), parts=(_prompt("pq_task").fill(), edit.edited))


def _not_asked(principles: Sequence[Principle]) -> tuple[Verdict, ...]:
    return tuple(Verdict(principle=each, passed=None, reason="not asked") for each in principles)


def _verification(consistency: Sequence[ChatReply], quality: Sequence[ChatReply]) -> Verification:
    usage = usage_of([consistency, quality])
    scores, failures = list[float](), list[str]()
    parts = list[tuple[float, float, float]]()
    for one, two in zip(consistency, quality, strict=True):
        first, second = _numbers(one, _SC), _numbers(two, _PQ)
        if isinstance(first, str) or isinstance(second, str):
            failures.append(f"sc_{first}" if isinstance(first, str) else f"pq_{second}")
        else:
            scores.append(math.sqrt(min(first) * min(second)))
            parts.append((first[0], first[1], min(second)))
    trace = trace_of([consistency[0], quality[0]])
    if not scores:
        return Verification(score=None, failure=failures[0], trace=trace, samples=0, usage=usage)
    mean = min(math.fsum(scores) / len(scores), MAX_SCORE)
    spread = math.sqrt(math.fsum((each - mean) ** 2 for each in scores) / len(scores)) if len(scores) > 1 else None
    flags = ("samples_failed",) if failures else ()
    follow, keep, clean = (math.fsum(some) / len(parts) for some in zip(*parts, strict=True))
    # Ours, hence last: a record of this judge tells its parts (`editors.parts`).
    trace = f"{trace}\n\n[follow {follow:.4f}, keep {keep:.4f}, quality {clean:.4f}]"
    return Verification(score=mean, trace=trace, flags=flags, spread=spread, samples=len(scores), usage=usage)


def _numbers(reply: ChatReply, names: Sequence[str]) -> list[float] | str:
    """The numbers in 0..10 of these names, all of which must be there, or a word for why one is not."""
    if reply.failure is not None:
        return reply.failure
    numbers = [number_in(reply.text, name) for name in names]
    for number in numbers:
        if isinstance(number, str):
            return why_missing(reply, number)
    return [number for number in numbers if not isinstance(number, str)]
