"""The embedded verifier: measures in the two images what a principle asks, without a model.

It reads the questions that the `rules` decomposer writes (principles/phrases.py) and measures: objects and background
of flat scenes (plain shapes on a plain ground), the global tone of any image, text in any image (with the extra [ocr]),
sharpness, noise, proportions, borders.
Each measurement is a degree in 0..1; a verdict is that degree against a threshold. The score is

    tau = 10 * follow * keep * quality

with follow = mean over the requested changes of the least fulfilled question about each, keep = product over the Keep
questions, quality = product over the Quality questions. So an untouched copy earns exactly 0 however well it keeps
everything (Follow gates), one lost object costs most of the score, and half a change earns about half. What it cannot
measure is not judged, and without every Follow question there is no score.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from editr1_plugins.principles.phrases import parse_question, subject_of
from editr1_plugins.types import FOLLOW, KEEP, MAX_SCORE, QUALITY, Category, Edit, Principle, Verdict, Verification
from editr1_plugins.verifiers.measuring.bench import Bench, SourceImage
from editr1_plugins.verifiers.measuring.comparison import Finding, unmeasured

__all__ = ["MeasureVerifier"]

#: Degrees from which a question counts as met, by category.
_MET: Final[dict[Category, float]] = {FOLLOW: 0.65, KEEP: 0.6, QUALITY: 0.6}


class MeasureVerifier:
    """Verifier `measure`: needs no model. See the module docstring for what it measures and how it scores.

    Images of any size: another size with the same proportions is resized for comparison and flagged `size_changed`;
    with other proportions it is flagged `aspect_changed`, and what depends on places in the image is not judged.
    """

    identity = "measure/2"

    def verify(self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]]) -> list[Verification]:
        """One verification per edit, in order. Candidates of one source share the work of reading it.

        Raises:
            ValueError: `edits` and `principles` differ in length.
        """
        if len(edits) != len(principles):
            raise ValueError(f"one list of principles per edit: got {len(principles)} for {len(edits)} edits")
        sources: dict[tuple[tuple[int, int], bytes], SourceImage] = {}
        verifications = []
        for edit, asked in zip(edits, principles, strict=True):
            image = edit.source.convert("RGB")
            key = (image.size, image.tobytes())
            if key not in sources:
                sources[key] = SourceImage(image)
            asks = [parse_question(principle.question) for principle in asked]
            bench = Bench(sources[key], edit.edited.convert("RGB"), [ask for ask in asks if ask is not None])
            findings = [
                bench.measure(ask) if ask else unmeasured("this verifier cannot measure such a question")
                for ask in asks
            ]
            verifications.append(_verification(asked, findings, bench.flags))
        return verifications


def _verification(asked: Sequence[Principle], findings: Sequence[Finding], flags: tuple[str, ...]) -> Verification:
    verdicts = tuple(
        Verdict(
            principle=principle,
            passed=None if finding.degree is None else finding.degree >= _MET[principle.category],
            reason=finding.reason,
        )
        for principle, finding in zip(asked, findings, strict=True)
    )
    judged = [verdict.passed for verdict in verdicts if verdict.passed is not None]
    score, failure, parts = _score(asked, findings)
    lines = [
        f"[{principle.category}] {principle.question} {'not measured' if degree is None else f'{degree:.2f}'}: {reason}"
        for principle, degree, reason in ((p, f.degree, f.reason) for p, f in zip(asked, findings, strict=True))
    ]
    return Verification(
        score=score,
        verdicts=verdicts,
        average=float(np.mean(judged)) if judged else None,
        failure=failure,
        trace="\n".join([*lines, parts]),
        flags=flags,
        samples=1 if score is not None else 0,
    )


def _score(asked: Sequence[Principle], findings: Sequence[Finding]) -> tuple[float | None, str | None, str]:
    """(tau or None, why there is none, the line of arithmetic for the trace)."""
    changes: dict[tuple[str, str], list[float]] = {}
    factors: dict[Category, float] = {KEEP: 1.0, QUALITY: 1.0}
    for principle, finding in zip(asked, findings, strict=True):
        if principle.category == FOLLOW:
            if finding.degree is None:
                failure = f"not measured: {principle.question} ({finding.reason})"
                return None, failure, f"no score: {failure}"
            ask = parse_question(principle.question)
            changes.setdefault(subject_of(ask) if ask else ("", principle.question), []).append(finding.degree)
        elif finding.degree is not None:
            factors[principle.category] *= finding.degree
    if not changes:
        failure = "no Instruction Following principle to measure"
        return None, failure, f"no score: {failure}"
    follow = float(np.mean([min(degrees) for degrees in changes.values()]))
    score = float(np.clip(MAX_SCORE * follow * factors[KEEP] * factors[QUALITY], 0.0, MAX_SCORE))
    parts = f"follow {follow:.3f} x keep {factors[KEEP]:.3f} x quality {factors[QUALITY]:.3f}"
    return score, None, f"score = 10 x {parts} = {score:.2f}"
