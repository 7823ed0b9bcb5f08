"""For diffusers: `JudgeAndRetry`, a block of Modular Pipelines that judges edits and makes others until one is good.

    blocks = FluxKontextAutoBlocks()
    judge = JudgeAndRetry.taking(blocks, verifier="openai:MODEL@URL", until=8.0, max_rounds=4)
    blocks.sub_blocks.insert("judge", judge, len(blocks.sub_blocks))

diffusers is imported when the block is first asked for. For training in a loop of one's own no adapter is needed: the
seam is `training.rollout.record` and `visit` (`integrations/diffusers/own_loop.py` shows all of such a loop).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from editr1_plugins.errors import MissingExtraError

if TYPE_CHECKING:
    from editr1_plugins.adapters.diffusers_judge import JudgeAndRetry

__all__ = ["JudgeAndRetry"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from editr1_plugins.adapters import diffusers_judge
    except ImportError as error:
        raise MissingExtraError(f'{name} needs Modular Pipelines: pip install "diffusers>=0.42.1" ({error})') from error
    return getattr(diffusers_judge, name)
