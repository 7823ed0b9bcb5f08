"""A cold start in miniature: MiniEdit rows with edits that are there already, and judges behind a scripted server."""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from editr1_plugins.miniedit.pairs import sample_pairs
from editr1_plugins.miniedit.world import draw
from editr1_plugins.testing.judge_server import Received
from editr1_plugins.types import Edit, Principle, Verdict, Verification

STRICT = "You are hard to please."


def rows(count: int, *, seed: int = 5) -> list[dict[str, Any]]:
    """Rows with a source, an instruction that no other has, an id and one or two edits."""
    made: list[dict[str, Any]] = []
    drawn = {pair.task.instruction: pair for pair in sample_pairs(4 * count, seed=seed, wrong=0.5)}
    for number, pair in enumerate(list(drawn.values())[:count]):
        edited = [draw(pair.target)] + ([draw(pair.task.scene)] if number % 3 == 0 else [])
        source, instruction = draw(pair.task.scene), pair.task.instruction
        made.append({"id": number, "source": source, "instruction": instruction, "edited": edited})
    return made


def write_rows(folder: Path, count: int) -> Path:
    """The same rows as JSON lines with image files."""
    (folder / "images").mkdir(parents=True)
    lines = []
    for row in rows(count):
        names = [f"images/{row['id']}-edit-{place}.png" for place in range(len(row["edited"]))]
        for name, image in zip(names, row["edited"], strict=True):
            image.save(folder / name)
        source = f"images/{row['id']}.png"
        row["source"].save(folder / source)
        lines.append(json.dumps({**row, "source": source, "edited": names}))
    path = folder / "edits.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def config(output: Path, url: str = "", **more: Any) -> dict[str, Any]:
    """Two judges and a strong one behind `url`, or three verifiers of the caller's."""
    price = {"prompt": 1.0, "cached": 0.5, "completion": 4.0}
    judges: list[dict[str, Any]] = [
        {"name": "plain", "samples": 2},
        {"name": "strict", "system": STRICT, "temperature": 1.0, "mode": "verify"},
    ]
    verify: dict[str, Any] = {}
    if url:
        for judge in judges:
            judge |= {"spec": f"openai:judge-{judge['name']}@{url}", "price": price, "options": {"concurrency": 4}}
        verify = {"spec": f"openai:gold@{url}", "price": price, "options": {"concurrency": 4}}
    base: dict[str, Any] = {
        "output": str(output),
        "seed": 3,
        "candidates": [{"name": "made", "column": "edited"}],
        "traces": {"judges": judges},
        "verify": verify,
    }
    return {**base, **more}


def answer(request: Received) -> str:
    """What a model says; a function of what it is asked, so that the order of requests changes nothing."""
    coin = _coin(json.dumps(request.body, sort_keys=True))
    if "You sort instructions" in request.texts[0]:
        return json.dumps({"simple": coin(0) < 0.5})
    numbers = [int(found) for found in re.findall(r'^\{"id": (\d+),', "\n".join(request.texts), re.MULTILINE)]
    questions = re.findall(r'"question": ("(?:[^"\\]|\\.)*")\}$', "\n".join(request.texts), re.MULTILINE)
    if request.body["model"] == "gold":
        found = [{"id": n, "reason": f"seen at {coin(n):.3f}", "score": int(coin(n) < 0.7)} for n in numbers]
        return "I looked.\n" + json.dumps(found)
    if coin(-1) < 0.15:
        return "I would rather not say."
    verdicts = ", ".join(
        f'{{"question": {question}, "score": {int(coin(number) < 0.6)}}}'
        for number, question in zip(numbers, questions, strict=True)
    )
    met = sum(coin(number) < 0.6 for number in numbers) / len(numbers)
    think = "" if request.body["model"] == "judge-strict" else f"I see it at {coin(-2):.3f}.\n"
    return f'{think}[{verdicts}]\n{{"average_score": {met:.2f}}}\n<score>{10 * coin(-3):.1f}</score>'


def _coin(text: str) -> Any:
    def flip(number: int) -> float:
        digest = hashlib.sha256(f"{text} {number}".encode()).digest()
        return int.from_bytes(digest[:4], "big") / 2**32

    return flip


class CountingVerifier:
    """Says yes to all questions but every `wrong`-th, writes no trace, and counts the edits that it was asked about."""

    def __init__(self, name: str, wrong: int = 0, *, fails: Sequence[str] = ()) -> None:
        self.identity, self.wrong, self.fails, self.asked = name, wrong, fails, 0

    def verify(self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]]) -> list[Verification]:
        self.asked += len(edits)
        return [self._one(edit, asked) for edit, asked in zip(edits, principles, strict=True)]

    def _one(self, edit: Edit, principles: Sequence[Principle]) -> Verification:
        if any(word in edit.instruction for word in self.fails):
            return Verification(score=None, failure=f"no_idea: {edit.instruction}", samples=0)
        verdicts = tuple(
            Verdict(principle=each, passed=not self.wrong or place % self.wrong != 0, reason=f"reason {place}")
            for place, each in enumerate(principles)
        )
        return Verification(score=5.0, verdicts=verdicts)


def files_below(folder: Path) -> dict[str, bytes]:
    """Every file by name, bytes and all."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def lines_of(folder: Path, stage: str) -> list[dict[str, Any]]:
    """The whole lines of a stage's file, as far as they are written; without the first one."""
    path = folder / "stages" / f"{stage}.jsonl"
    text = path.read_text() if path.exists() else ""
    lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return lines if stage == "choose" else lines[1:]
