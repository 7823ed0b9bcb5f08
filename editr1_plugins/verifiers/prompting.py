"""What a judge is asked: the rules, the instruction with its principles, the source, and last the edited image.

In this order everything but the edited image is a prefix that all candidates of one (source, instruction) share, which
a server's prefix cache then computes once (Edit-R1, section 3.1, for the rules and the form of the answer).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final, Literal, get_args

from editr1_plugins.backends.chat import ChatRequest
from editr1_plugins.errors import ConfigError, DataError
from editr1_plugins.principles.cache import content_key
from editr1_plugins.principles.prompt_text import Prompt, digest, load_prompt, quoted
from editr1_plugins.types import Edit, Principle

__all__ = ["MAX_INSTRUCTION", "MODES", "Mode", "asks_for_verdicts", "judge_request", "prompt_version"]

#: The judges of the paper's ablation: T (reasoning and score), V (verdicts and score), T+V (all three).
Mode = Literal["think", "verify", "think+verify"]
MODES: Final[tuple[Mode, ...]] = get_args(Mode)

#: Longest instruction, in characters; no honest one comes near, and a cut one would be judged wrongly.
MAX_INSTRUCTION: Final = 10_000

_ANSWERS: Final = {"think": "answer_think", "verify": "answer_verify", "think+verify": "answer_think_verify"}


def judge_request(edit: Edit, principles: Sequence[Principle], mode: Mode = "think+verify") -> ChatRequest:
    """The request that asks a VLM to judge one edit; equal source, instruction and principles make one group.

    Instruction and questions are quoted (`principles.prompt_text.quoted`): they can neither pose as part of the prompt
    nor spell a control token or an answer.

    Raises:
        ConfigError: an unknown mode.
        DataError: a blank or overlong instruction, or no principles.
    """
    if not edit.instruction.strip():
        raise DataError("the instruction is blank; an edit is judged by what was asked for")
    if len(edit.instruction) > MAX_INSTRUCTION:
        raise DataError(f"the instruction has {len(edit.instruction)} characters, more than {MAX_INSTRUCTION}")
    if not principles:
        raise DataError("no principles to judge the edit by")
    rules, answer = _prompt("judge_rules"), _prompt(_answer(mode))
    lines = "\n".join(_line(number, principle) for number, principle in enumerate(principles, start=1))
    task = _prompt("judge_task").fill(
        instruction=quoted(edit.instruction), principles=lines, count=str(len(principles))
    )
    return ChatRequest(
        system=f"{rules.fill()}\n\n{answer.fill()}",
        parts=(task, edit.source, _prompt("judge_edited").fill(), edit.edited),
        group=content_key("judge", edit.source, task, mode)[:32],
    )


def prompt_version(mode: Mode) -> str:
    """Names the wording that judges in `mode`, e.g. "judge-think+verify-1f0c..."; changes with any of its files.

    Raises:
        ConfigError: an unknown mode.
    """
    names = ("judge_rules", "judge_task", "judge_edited", _answer(mode))
    return f"judge-{mode}-{digest(*(_prompt(name).text for name in names))}"


def asks_for_verdicts(mode: Mode) -> bool:
    """Whether answers in this mode hold one verdict per principle."""
    return mode != "think"


def _prompt(name: str) -> Prompt:
    return load_prompt("editr1_plugins.verifiers", name)


def _answer(mode: Mode) -> str:
    if mode not in _ANSWERS:
        raise ConfigError(f"unknown mode {mode!r} of the judge; one of: {', '.join(MODES)}")
    return _ANSWERS[mode]


def _line(number: int, principle: Principle) -> str:
    return f'{{"id": {number}, "category": {json.dumps(principle.category)}, "question": {quoted(principle.question)}}}'
