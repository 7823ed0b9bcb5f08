"""Milliseconds per edit of the verifier `measure`: groups of candidates as in RL, and one photograph at a time.

    python tests/performance/measure_speed.py [EDITS]

Prints CPU time, so that other work on the machine matters less.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageEnhance

from editr1_plugins.miniedit.pairs import sample_tasks
from editr1_plugins.miniedit.world import draw, render, to_image
from editr1_plugins.principles.rules import decompose_instruction
from editr1_plugins.types import Edit
from editr1_plugins.verifiers.measure import MeasureVerifier

GROUP = 12
PHOTOS = Path(__file__).parent.parent / "assets" / "photos"


def report(name: str, edits: Sequence[Edit]) -> None:
    verifier = MeasureVerifier()
    principles = [decompose_instruction(edit.instruction) for edit in edits]
    verifier.verify(edits[:4], principles[:4])
    start = time.process_time()
    verifications = verifier.verify(edits, principles)
    spent = time.process_time() - start
    judged = sum(verification.score is not None for verification in verifications)
    print(f"{name}: {1000 * spent / len(edits):.2f} ms per edit ({len(edits)} edits, {judged} judged)")


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1200
    groups, singles = [], []
    for task in sample_tasks(max(1, count // GROUP), seed=3):
        source = draw(task.scene)
        for step in range(GROUP):
            share = step / (GROUP - 1)
            edited = to_image(render(task.scene) * share + render(task.goal) * (1 - share))
            groups.append(Edit(source=source, edited=edited, instruction=task.instruction))
    for task in sample_tasks(max(4, count // 4), seed=4):
        singles.append(Edit(source=draw(task.scene), edited=draw(task.goal), instruction=task.instruction))
    report(f"MiniEdit 32x32, groups of {GROUP}", groups)
    report("MiniEdit 32x32, every source once", singles)
    photos = [Image.open(path).convert("RGB") for path in sorted(PHOTOS.glob("*.jpg"))]
    brighter = [(photo, ImageEnhance.Brightness(photo).enhance(1.3)) for photo in photos]
    report(
        "photographs of 320 pixels, tone",
        [Edit(source=source, edited=edited, instruction="make it brighter") for source, edited in brighter * 5],
    )


if __name__ == "__main__":
    main()
