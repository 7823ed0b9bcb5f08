"""How much of a group's prompt a prefix cache saves: our prompts, Qwen2.5-VL's image tokens, G candidates of one edit.

    python tests/performance/prefix_share.py [--group 24] [--side 512] [--tokenizer FOLDER]

The requests are the real ones (`verifiers.prompting.judge_request`); their common prefix is found by comparing them.
An image of Qwen2.5-VL costs one token per 28 x 28 pixels after rounding each side to a multiple of 28, and two borders.
Text is counted by the tokenizer in FOLDER, else as characters / 4, which the output says. A cache shares whole blocks
of 16 tokens (vLLM), and a group's first request has nothing to share: both are taken off. Target: >= 60 %.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from PIL import Image

from editr1_plugins.backends.chat import ChatRequest
from editr1_plugins.images import content_hash
from editr1_plugins.types import FOLLOW, KEEP, QUALITY, Edit, Principle
from editr1_plugins.verifiers.prompting import MODES, judge_request

TARGET = 0.60
PATCH = 28
BLOCK = 16
#: Tokens of the chat template before the first part and after the last: role names, turn markers, line ends.
TEMPLATE_HEAD, TEMPLATE_TAIL = 8, 5

INSTRUCTION = "Replace the red car on the left with a blue bicycle and make the sky look like a sunset."
QUESTIONS = [
    ("Has the red car on the left been removed completely?", FOLLOW),
    ("Is there a blue bicycle where the red car stood?", FOLLOW),
    ("Does the sky show the warm colours of a sunset?", FOLLOW),
    ("Are the buildings in the background unchanged in shape and position?", KEEP),
    ("Do the people on the pavement keep their identity, pose and clothes?", KEEP),
    ("Is the framing of the picture the same as in the source?", KEEP),
    ("Is the bicycle complete and anatomically plausible, with two wheels and a frame?", QUALITY),
    ("Is the light on the street consistent with the new sky?", QUALITY),
    ("Is the picture free of blur, noise, seams and borders?", QUALITY),
]


def image_tokens(image: Image.Image) -> int:
    """Qwen2.5-VL: one token per 28 x 28 pixels, and the two tokens around them (no limit on pixels applies here)."""
    width, height = (max(PATCH, round(side / PATCH) * PATCH) for side in image.size)
    return width * height // PATCH**2 + 2


def segments(request: ChatRequest, count: Callable[[str], int]) -> list[tuple[str, int]]:
    """(content, tokens) of the prompt in the order the model reads it."""
    parts = [("system " + request.system, count(request.system) + TEMPLATE_HEAD)]
    for part in request.parts:
        parts.append((part, count(part)) if isinstance(part, str) else (content_hash(part), image_tokens(part)))
    return [*parts, ("assistant", TEMPLATE_TAIL)]


def share(requests: list[ChatRequest], count: Callable[[str], int]) -> tuple[float, int, int]:
    """Share of all prompt tokens that a cache serves, tokens of the common prefix, tokens of one prompt."""
    rows = [segments(request, count) for request in requests]
    prefix = 0
    for column in zip(*rows, strict=True):
        if len({content for content, _ in column}) > 1:
            break
        prefix += column[0][1]
    total = sum(tokens for row in rows for _, tokens in row)
    saved = (len(rows) - 1) * (prefix // BLOCK * BLOCK)
    return saved / total, prefix, total // len(rows)


def images_first(request: ChatRequest) -> ChatRequest:
    """The usual order of other judges: both images, then all text."""
    images = tuple(part for part in request.parts if not isinstance(part, str))
    texts = tuple(part for part in request.parts if isinstance(part, str))
    return ChatRequest(parts=(*images, request.system, *texts))


def counter(folder: str | None) -> tuple[Callable[[str], int], str]:
    if folder is None:
        return (lambda text: round(len(text) / 4)), "text counted as characters / 4 (no tokenizer given)"
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    return (lambda text: len(tokenizer.encode(text, add_special_tokens=False))), f"text counted by {folder}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--group", type=int, default=24)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--tokenizer")
    options = parser.parse_args()
    count, how = counter(options.tokenizer)
    size = (options.side, options.side)
    source = Image.new("RGB", size, "white")
    candidates = [Image.new("RGB", size, (index, 0, 0)) for index in range(options.group)]
    principles = [Principle(question=question, category=category) for question, category in QUESTIONS]
    print(f"G = {options.group}, {options.side} px, {len(principles)} principles; {how}")
    for mode in MODES:
        requests = [
            judge_request(Edit(source=source, edited=edited, instruction=INSTRUCTION), principles, mode)
            for edited in candidates
        ]
        ours, prefix, total = share(requests, count)
        other, _, _ = share([images_first(request) for request in requests], count)
        verdict = "met" if ours >= TARGET else "MISSED"
        print(
            f"{mode:13s} prefix {prefix} of {total} tokens: {ours:.1%} from the cache "
            f"(target >= {TARGET:.0%}: {verdict}); images first would give {other:.1%}"
        )


if __name__ == "__main__":
    main()
