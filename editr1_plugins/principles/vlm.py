"""Decomposer `vlm`: a VLM, shown a few worked examples, writes the principles (Edit-R1, section 3.1)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from editr1_plugins.backends.chat import ChatBackend, ChatReply, ChatRequest, Sampling
from editr1_plugins.errors import ConfigError
from editr1_plugins.principles.answers import COUNTS, read_principles
from editr1_plugins.principles.asking import ask
from editr1_plugins.principles.cache import content_key
from editr1_plugins.principles.exemplars import Exemplar, draw, load_exemplars
from editr1_plugins.principles.prompt_text import Prompt, digest, load_prompt, quoted
from editr1_plugins.types import FOLLOW, KEEP, QUALITY, Category, NoPrinciples, Principle

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["MAX_INSTRUCTION", "VlmDecomposer"]

#: Longest instruction, in characters.
MAX_INSTRUCTION: Final = 10_000

_PROMPTS: Final = ("decompose", "decompose_example", "decompose_task", "decompose_again")


class VlmDecomposer:
    """Asks a VLM for principles, checks what it says, and asks once more with the reason where it cannot be used.

    Equal requests in one call are asked once. What fails in the end is `NoPrinciples` with the reason; nothing a model
    or server does raises.

    `identity` names everything an answer depends on (wording, exemplars, settings, model): part of every cache key.

    Args:
        backend: the VLM.
        exemplars: the pool of worked examples; None: the sixty shipped with this package.
        shots: how many are drawn for each request, 0 for none; the draw depends on seed, instruction and source alone.
        seed: of the draw, and of the model's sampling where the backend supports one.
        retries: how often an unusable answer is asked for again.
        counts: fewest and most questions per category; default 3-4 Follow, 3-4 Keep, 2-3 Quality.
        temperature: of the model's sampling.
        max_tokens: of one answer.

    Raises:
        ConfigError: more shots than exemplars, or a number below 0.
    """

    def __init__(
        self,
        backend: ChatBackend,
        *,
        exemplars: Sequence[Exemplar] | None = None,
        shots: int = 4,
        seed: int = 0,
        retries: int = 1,
        counts: Mapping[Category, tuple[int, int]] = COUNTS,
        temperature: float = 0.0,
        max_tokens: int = 2048,
    ) -> None:
        pool = load_exemplars() if exemplars is None else tuple(exemplars)
        if not 0 <= shots <= len(pool):
            raise ConfigError(f"shots must lie in 0..{len(pool)}, the number of exemplars, got {shots}")
        if retries < 0:
            raise ConfigError(f"retries must be at least 0, got {retries}")
        self.backend = backend
        self.exemplars = pool
        self.shots, self.seed, self.retries = shots, seed, retries
        self.counts = {**COUNTS, **counts}
        self.sampling = Sampling(temperature=temperature, max_tokens=max_tokens, seed=seed)
        self.identity = self._identity()

    @classmethod
    def from_spec(cls, argument: str, **options: Any) -> VlmDecomposer:
        """Build one from what follows `vlm:` in a spec string: `MODEL@URL[,URL2]` of an OpenAI-compatible server.

        Raises:
            ConfigError: the model or the URL is missing or wrong.
            MissingExtraError: the `openai` package is not installed.
        """
        from editr1_plugins.backends.endpoints import split_spec
        from editr1_plugins.backends.openai import OpenAIBackend

        return cls(OpenAIBackend(*split_spec(argument)), **options)

    def decompose(self, requests: Sequence[tuple[Image, str]]) -> list[tuple[Principle, ...]]:
        """Principles per (source image, instruction), in order; `NoPrinciples` where there are none."""
        answers: dict[str, tuple[Principle, ...]] = {}
        open_requests: dict[str, ChatRequest] = {}
        keys = [content_key("decompose", source, instruction) for source, instruction in requests]
        for key, (source, instruction) in zip(keys, requests, strict=True):
            if not instruction.strip() or len(instruction) > MAX_INSTRUCTION:
                answers[key] = NoPrinciples(f"the instruction is blank or longer than {MAX_INSTRUCTION} characters")
            elif key not in open_requests:
                open_requests[key] = self._request(key, source, instruction)
        for attempt in range(self.retries + 1):
            open_requests = self._ask(open_requests, answers, last=attempt == self.retries)
        return [answers[key] for key in keys]

    def _identity(self) -> str:
        texts = [_prompt(name).text for name in _PROMPTS] + [_as_text(each) for each in self.exemplars]
        ranges = " ".join(f"{fewest}-{most}" for fewest, most in self.counts.values())
        settings = f"shots={self.shots} seed={self.seed} counts={ranges} temperature={self.sampling.temperature:g}"
        return f"vlm-{digest(*texts)} {settings} by {self.backend.identity}"

    def _ask(
        self, requests: dict[str, ChatRequest], answers: dict[str, tuple[Principle, ...]], last: bool
    ) -> dict[str, ChatRequest]:
        """Fill in `answers`; returns the requests to ask again."""
        again = {}
        replies = ask(self.backend, list(requests.values()), self.sampling)
        for (key, request), (reply, *_) in zip(requests.items(), replies, strict=True):
            made = self._read(reply)
            if not isinstance(made, str):
                answers[key] = made
            elif last:
                answers[key] = NoPrinciples(f"the model's answer could not be used: {made}")
            else:
                again[key] = self._with_reason(request, made)
        return again

    def _read(self, reply: ChatReply) -> tuple[Principle, ...] | str:
        if reply.failure is not None:
            return NoPrinciples(f"the model did not answer: {reply.failure or 'no reason given'}")
        return read_principles(reply.text, reply.finish_reason, self.counts)

    def _request(self, key: str, source: Image, instruction: str) -> ChatRequest:
        follow, keep, quality = (f"{fewest} to {most}" for fewest, most in (self.counts[c] for c in _ORDER))
        shown = draw(self.exemplars, self.shots, self.seed, key)
        examples = [
            _prompt("decompose_example").fill(
                number=str(number),
                source=exemplar.source,
                instruction=quoted(exemplar.instruction),
                principles=_as_json(exemplar.principles),
            )
            for number, exemplar in enumerate(shown, start=1)
        ]
        task = _prompt("decompose_task").fill(instruction=quoted(instruction))
        return ChatRequest(
            system=_prompt("decompose").fill(follow=follow, keep=keep, quality=quality),
            parts=("\n\n".join([*examples, task]), source),
            group=key[:32],
        )

    def _with_reason(self, request: ChatRequest, reason: str) -> ChatRequest:
        text, source = request.parts[:2]
        return ChatRequest(
            system=request.system,
            parts=(text, source, _prompt("decompose_again").fill(reason=reason)),
            group=request.group,
        )


_ORDER: Final = (FOLLOW, KEEP, QUALITY)


def _prompt(name: str) -> Prompt:
    return load_prompt("editr1_plugins.principles", name)


def _as_json(principles: Sequence[Principle]) -> str:
    rows = [{"question": each.question, "category": each.category} for each in principles]
    return json.dumps(rows, ensure_ascii=False)


def _as_text(exemplar: Exemplar) -> str:
    return "\n".join((exemplar.source, exemplar.instruction, _as_json(exemplar.principles)))
