"""What verifiers, decomposers and guards answer, checked: their code may be anybody's."""

from __future__ import annotations

from collections.abc import Sequence

from editr1_plugins.types import Alarm, NoPrinciples, Principle, Verification

__all__ = ["as_alarm", "as_principles", "as_verifications", "per_edit"]


def per_edit(answers: object, asked: int, samples: int) -> object:
    """A verifier's flat answer as one list of `samples` per edit; what is no list is passed on, to be refused later.

    Raises:
        ValueError: not as many answers as were asked for.
    """
    if isinstance(answers, (str, bytes)) or not isinstance(answers, Sequence):
        return answers
    if len(answers) != asked:
        raise ValueError(f"{len(answers)} verifications for {asked} edits")
    return [answers[at : at + samples] for at in range(0, asked, samples)]


def as_verifications(answer: object, principles: Sequence[Principle]) -> list[Verification]:
    """The samples of one edit: what a verifier answered, or a list of that.

    Raises:
        TypeError: something else than verifications.
        ValueError: verdicts that are not one per principle.
    """
    samples: list[Verification] = []
    for sample in answer if isinstance(answer, Sequence) else [answer]:
        if not isinstance(sample, Verification):
            raise TypeError(f"returned {type(sample).__name__} {sample!r}, not a Verification")
        if len(sample.verdicts) not in (0, len(principles)):
            raise ValueError(f"returned {len(sample.verdicts)} verdicts for {len(principles)} principles")
        samples.append(sample)
    return samples


def as_principles(answer: object) -> tuple[Principle, ...]:
    """What a decomposer answered for one edit; `NoPrinciples` where it found none.

    Raises:
        TypeError: no tuple or list of principles.
    """
    if isinstance(answer, NoPrinciples):
        return answer
    if not isinstance(answer, (tuple, list)) or not all(isinstance(each, Principle) for each in answer):
        raise TypeError(f"returned a {type(answer).__name__}, not a tuple of principles")
    return tuple(answer) or NoPrinciples("the decomposer returned no principle")


def as_alarm(answer: object) -> Alarm | None:
    """What a guard answered for one edit.

    Raises:
        TypeError: neither an alarm nor None.
    """
    if answer is not None and not isinstance(answer, Alarm):
        raise TypeError(f"returned a {type(answer).__name__}, not an Alarm or None")
    return answer
