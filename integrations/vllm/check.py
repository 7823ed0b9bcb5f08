"""Judges a group of candidates through a running server and prints what its prefix cache saved, as the server says it.

    python integrations/vllm/check.py MODEL@http://127.0.0.1:8000/v1 [--group 24] [--side 512] [--samples 1]

The verifier and decomposer are the package's own; pictures are random, so scores say nothing. Cached tokens are those
of the replies' `prompt_tokens_details` (vLLM: `--enable-prompt-tokens-details`), which the verifier keeps as `usage`.
Exit status 1 when no candidate's request came through.
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np
from PIL import Image

from editr1_plugins.reward.record import failure_kind
from editr1_plugins.types import FOLLOW, KEEP, QUALITY, Edit, Principle
from editr1_plugins.verifiers.openai import OpenAIVerifier

INSTRUCTION = "Replace the red car on the left with a blue bicycle."
PRINCIPLES = [
    Principle(question="Has the red car on the left been removed?", category=FOLLOW),
    Principle(question="Is there a blue bicycle where the red car stood?", category=FOLLOW),
    Principle(question="Are the buildings in the background unchanged?", category=KEEP),
    Principle(question="Is the bicycle complete, with two wheels and a frame?", category=QUALITY),
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", metavar="MODEL@URL")
    parser.add_argument("--group", type=int, default=24)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--max-tokens", type=int, default=512)
    options = parser.parse_args()
    model, _, url = options.server.rpartition("@")
    random = np.random.default_rng(0)
    source, *candidates = (
        Image.fromarray(random.integers(0, 256, (options.side, options.side, 3), dtype=np.uint8))
        for _ in range(options.group + 1)
    )
    edits = [Edit(source=source, edited=edited, instruction=INSTRUCTION) for edited in candidates]
    verifier = OpenAIVerifier(model, url, samples=options.samples, max_tokens=options.max_tokens, timeout=600)
    found = verifier.verify(edits, [PRINCIPLES] * len(edits))
    print(f"{len(found)} candidates: {sum(each.score is not None for each in found)} scored;", end=" ")
    print(dict(Counter(failure_kind(each.failure) for each in found if each.failure)) or "no failures")
    usages = [each.usage for each in found if each.usage and each.usage.prompt_tokens]
    if not usages:
        return 1
    prompt = sum(usage.prompt_tokens or 0 for usage in usages)
    completion = sum(usage.completion_tokens or 0 for usage in usages)
    print(f"prompt tokens {prompt}, completion tokens {completion}, over {len(usages)} replies")
    if all(usage.cached_tokens is None for usage in usages):
        print("the server says nothing of its cache (vLLM: --enable-prompt-tokens-details)")
    else:
        cached = sum(usage.cached_tokens or 0 for usage in usages)
        print(f"from the prefix cache: {cached} tokens, {cached / prompt:.1%} of the prompts")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
