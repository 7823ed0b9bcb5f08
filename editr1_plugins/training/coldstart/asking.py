"""What a cold start asks its models, beside the judge's own request: the filter, the strong judge, system variants.

The wording is in `prompts/*.txt`. Instructions, principles and traces are quoted: they cannot pose as part of a prompt.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from ...backends.chat import ChatRequest
from ...errors import ConfigError
from ...principles.prompt_text import Prompt, digest, load_prompt, quoted
from ...types import Edit, Principle
from ...verifiers.prompting import Mode, judge_request
from .config import JudgeConfig

__all__ = [
    "filter_request",
    "filter_version",
    "gold_request",
    "gold_version",
    "judge_system",
    "read_filter",
    "read_gold",
    "trace_request",
]

#: Longest trace shown to the strong judge, and longest reason kept, in characters.
_MAX_SHOWN: Final = 6000
_MAX_REASON: Final = 500
_MAX_ARRAYS: Final = 50
_MAX_SYSTEM: Final = 20_000
_SIMPLE: Final = re.compile(r"[\"']?simple[\"']?\s{0,8}[:=]\s{0,8}[\"']?(true|false|yes|no)\b", re.IGNORECASE)


def filter_version() -> str:
    """Names the wording of the filter; changes with any of its files."""
    return f"filter-{digest(_prompt('filter').text, _prompt('filter_task').text)}"


def filter_request(instruction: str) -> ChatRequest:
    """Asks whether an instruction is a simple one-step edit."""
    task = _prompt("filter_task").fill(instruction=quoted(instruction))
    return ChatRequest(system=_prompt("filter").fill(), parts=(task,))


def read_filter(text: str) -> bool | None:
    """The answer to `filter_request`: whether the edit is simple; None where the text says nothing, or both."""
    said = {match[1].lower() in ("true", "yes") for match in _SIMPLE.finditer(text.rpartition("</think>")[2])}
    return said.pop() if len(said) == 1 else None


def judge_system(judge: JudgeConfig) -> str:
    """The judge's variant of the system prompt; "" where it has none.

    Raises:
        ConfigError: its file cannot be read, or the text is too long.
    """
    text = judge.system
    if judge.system_file is not None:
        try:
            text = Path(judge.system_file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"traces.judges.{judge.name}: cannot read {os.fspath(judge.system_file)}: {error}"
            ) from None
    if len(text) > _MAX_SYSTEM:
        raise ConfigError(f"traces.judges.{judge.name}: the system text is longer than {_MAX_SYSTEM} characters")
    return text.strip()


def trace_request(edit: Edit, principles: Sequence[Principle], mode: Mode, system: str) -> ChatRequest:
    """`judge_request` with a variant of the system prompt before the rules; the form of the answer stays last.

    Raises:
        DataError: as `judge_request`.
    """
    request = judge_request(edit, principles, mode)
    return replace(request, system=f"{system}\n\n{request.system}") if system else request


def gold_version() -> str:
    """Names the wording of the strong judge; changes with any of its files."""
    return f"gold-{digest(*(_prompt(name).text for name in ('gold', 'gold_task', 'gold_edited', 'gold_references')))}"


def gold_request(edit: Edit, principles: Sequence[Principle], traces: Sequence[str]) -> ChatRequest:
    """Asks for the truth about each principle; `traces` are shown as others' opinions, the images come first."""
    lines = "\n".join(
        f'{{"id": {number}, "category": {json.dumps(each.category)}, "question": {quoted(each.question)}}}'
        for number, each in enumerate(principles, start=1)
    )
    task = _prompt("gold_task").fill(instruction=quoted(edit.instruction), principles=lines, count=str(len(principles)))
    shown = "\n".join(f'{{"trace": {n}, "text": {quoted(_cut(text))}}}' for n, text in enumerate(traces, start=1))
    references = _prompt("gold_references").fill(traces=shown or "(none)", count=str(len(principles)))
    return ChatRequest(
        system=_prompt("gold").fill(),
        parts=(task, edit.source, _prompt("gold_edited").fill(), edit.edited, references),
    )


def read_gold(text: str, count: int) -> tuple[list[int], list[str]] | str:
    """The verdicts (0 or 1) and reasons of a reply to `gold_request`, or why it cannot be used.

    The last JSON array of objects with an "id" counts; it must answer each of the `count` principles once.
    """
    rows = _last_array(text.rpartition("</think>")[2])
    if rows is None:
        return "no_answer: no JSON array of verdicts"
    found: dict[int, dict[str, Any]] = {}
    for row in rows:
        number = row.get("id")
        if isinstance(number, str) and number.isdecimal() and len(number) < 4:
            number = int(number)
        if type(number) is not int or not 1 <= number <= count or number in found:
            return f"wrong_ids: the answer's ids are not those of the {count} principles, each once"
        found[number] = row
    if len(found) < count:
        return f"incomplete: {len(found)} of {count} principles are answered"
    verdicts = [_verdict(found[number].get("score")) for number in range(1, count + 1)]
    if None in verdicts:
        return "wrong_score: a score that is neither 0 nor 1"
    reasons = [" ".join(str(found[number].get("reason") or "").split())[:_MAX_REASON] for number in range(1, count + 1)]
    return [verdict for verdict in verdicts if verdict is not None], reasons


def _verdict(score: object) -> int | None:
    if isinstance(score, str):
        score = {"0": 0, "1": 1}.get(score.strip())
    return int(score) if isinstance(score, (bool, int, float)) and score in (0, 1) else None


def _last_array(text: str) -> list[dict[str, Any]] | None:
    decoder = json.JSONDecoder()
    places = [match.start() for match in re.finditer(r"\[(?=\s{0,40}\{)", text)][-_MAX_ARRAYS:]
    for place in reversed(places):
        try:
            found, _ = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            continue
        if all(isinstance(row, dict) and "id" in row for row in found):
            return list(found)
    return None


def _cut(text: str) -> str:
    if len(text) <= _MAX_SHOWN:
        return text
    return f"{text[: _MAX_SHOWN // 2]} [...] {text[-_MAX_SHOWN // 2 :]}"


def _prompt(name: str) -> Prompt:
    return load_prompt("editr1_plugins.training.coldstart", name)
