"""Judge `pairwise:MODEL@URL`: sees both edits at once and says which is better; for evaluation only.

It gives no score, so it is no verifier. Whoever compares asks in both orders and finds out what the order does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

from editr1_plugins.backends.chat import ChatBackend, ChatReply, ChatRequest, Sampling
from editr1_plugins.errors import ConfigError
from editr1_plugins.evaluation.replies import tagged, trace_of, usage_of, why_missing
from editr1_plugins.principles.asking import ask
from editr1_plugins.principles.prompt_text import Prompt, digest, load_prompt, quoted
from editr1_plugins.types import Edit, Usage

__all__ = ["Comparer", "Comparison", "PairwiseJudge"]

_PROMPTS: Final = ("pairwise", "pairwise_task", "pairwise_a", "pairwise_b")
_ANSWERS: Final = {"a": 1, "b": -1, "tie": 0}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Which of two edits is better: 1 the first, -1 the second, 0 a tie; None, with a failure, if it is not known."""

    better: int | None
    failure: str | None = None
    trace: str = ""
    usage: Usage | None = None

    def __post_init__(self) -> None:
        if self.better not in (1, -1, 0, None) or (self.better is None) != bool(self.failure):
            raise ValueError(f"a comparison has an answer or a failure: {self.better!r}, {self.failure!r}")


@runtime_checkable
class Comparer(Protocol):
    """Compares edits of the same source and instruction. Batched, synchronous, order kept.

    What cannot be judged is a `Comparison` with a failure, not an exception. `identity` goes into records.
    """

    identity: str

    def compare(self, pairs: Sequence[tuple[Edit, Edit]]) -> list[Comparison]: ...


class PairwiseJudge:
    """Any VLM behind a `ChatBackend` as a comparer.

    Args:
        backend: the VLM.
        temperature, max_tokens, seed: of the one reply per comparison.

    Raises:
        ConfigError: a setting out of range.
    """

    def __init__(
        self, backend: ChatBackend, *, temperature: float = 0.0, max_tokens: int = 1024, seed: int | None = None
    ) -> None:
        try:
            self.sampling = Sampling(temperature=temperature, max_tokens=max_tokens, seed=seed)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        self.backend = backend
        version = digest(*(_prompt(name).text for name in _PROMPTS))
        self.identity = f"pairwise-{version} at {temperature:g}, {max_tokens} tokens by {backend.identity}"

    def compare(self, pairs: Sequence[tuple[Edit, Edit]]) -> list[Comparison]:
        """One comparison per pair, in order, in the order shown."""
        replies = ask(self.backend, [_request(*pair) for pair in pairs], self.sampling)
        return [_comparison(some[0]) for some in replies]

    def __repr__(self) -> str:
        return f"PairwiseJudge({self.identity!r})"


def _prompt(name: str) -> Prompt:
    return load_prompt("editr1_plugins.evaluation", name)


def _request(first: Edit, second: Edit) -> ChatRequest:
    task = _prompt("pairwise_task").fill(instruction=quoted(first.instruction))
    shown = (_prompt("pairwise_a").fill(), first.edited, _prompt("pairwise_b").fill(), second.edited)
    return ChatRequest(system=_prompt("pairwise").fill(), parts=(task, first.source, *shown))


def _comparison(reply: ChatReply) -> Comparison:
    trace, usage = trace_of([reply]), usage_of([[reply]])
    if reply.failure is not None:
        return Comparison(better=None, failure=reply.failure or "no reason given", trace=trace, usage=usage)
    better = _ANSWERS.get((tagged(reply.text, "better") or "").lower())
    failure = None if better is not None else why_missing(reply, "no_label")
    return Comparison(better=better, failure=failure, trace=trace, usage=usage)
