"""A verifier that remembers: what was judged once, by the same judge on the same pixels, is not judged again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from editr1_plugins.errors import ConfigError
from editr1_plugins.principles.cache import PrincipleCache, content_key
from editr1_plugins.types import Edit, Principle, Verdict, Verification, Verifier

__all__ = ["CachedVerifier"]

_SCHEMA: Final = "verification/1"


class CachedVerifier:
    """Wraps a verifier; the cache may be the one that holds the principles. What is found in it has no `usage`.

    Keys are the two images' pixels, the instruction, the principles and the verifier's identity. Failures are not kept,
    so they are tried again. For a verifier that samples, the first judgement stands: use it for evaluation and resumed
    bulk runs, not where fresh samples are wanted.

    Args:
        verifier: who judges what the cache lacks.
        cache: where judgements are kept.
        identity: names the verifier with everything its judgements depend on; default: its own `identity`.

    Raises:
        ConfigError: no identity is given and the verifier has none.
    """

    def __init__(self, verifier: Verifier, cache: PrincipleCache, identity: str | None = None) -> None:
        named = identity or getattr(verifier, "identity", None)
        if not isinstance(named, str) or not named:
            raise ConfigError(f"{type(verifier).__name__} has no identity; give identity=..., with its version")
        self.verifier, self.cache, self.identity = verifier, cache, named
        self.prompt_version = getattr(verifier, "prompt_version", None)
        self.model_version = getattr(verifier, "model_version", None)
        self.thread_safe = getattr(verifier, "thread_safe", False)  # the cache is

    def verify(self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]]) -> list[Verification]:
        """One verification per edit, in order.

        Raises:
            ValueError: not as many lists of principles as edits, or the verifier returned too many or too few.
        """
        keys = [self._key(edit, asked) for edit, asked in zip(edits, principles, strict=True)]
        found = [_read(self.cache.get_json(key), asked) for key, asked in zip(keys, principles, strict=True)]
        missing = [row for row, verification in enumerate(found) if verification is None]
        if missing:
            judged = self.verifier.verify([edits[row] for row in missing], [principles[row] for row in missing])
            for row, verification in zip(missing, judged, strict=True):
                found[row] = verification
                if verification.score is not None:
                    self.cache.put_json(keys[row], _as_json(verification))
        return [verification for verification in found if verification is not None]

    def _key(self, edit: Edit, principles: Sequence[Principle]) -> str:
        asked = json.dumps([[each.question, each.category] for each in principles])
        return content_key(_SCHEMA, edit.source, edit.edited, edit.instruction, asked, self.identity)


def _as_json(verification: Verification) -> dict[str, Any]:
    return {
        "score": verification.score,
        "average": verification.average,
        "trace": verification.trace,
        "flags": list(verification.flags),
        "spread": verification.spread,
        "samples": verification.samples,
        "verdicts": [[verdict.passed, verdict.reason] for verdict in verification.verdicts],
    }


def _read(value: Any, principles: Sequence[Principle]) -> Verification | None:
    """A kept verification, or None for what is not one: a cache file is data from outside."""
    try:
        verdicts = tuple(
            Verdict(principle=principle, passed=_checked(passed, bool, type(None)), reason=_checked(reason, str))
            for principle, (passed, reason) in zip(principles, value["verdicts"], strict=bool(value["verdicts"]))
        )
        return Verification(
            score=float(_checked(value["score"], float, int)),
            verdicts=verdicts,
            average=_checked(value["average"], float, int, type(None)),
            trace=_checked(value["trace"], str),
            flags=tuple(_checked(flag, str) for flag in value["flags"]),
            spread=_checked(value["spread"], float, int, type(None)),
            samples=_checked(value["samples"], int),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None


def _checked(value: Any, *kinds: type) -> Any:
    if type(value) not in kinds:
        raise TypeError(f"{type(value).__name__} where one of {kinds} belongs")
    return value
