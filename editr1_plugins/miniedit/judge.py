"""The verifier `rrm-mini`: a tiny trained judge, asked, sampled and read by the code path of a 7B judge.

A Qwen2.5-VL of 0.15 M parameters, trained on MiniEdit by cold start, SFT and GCPO (`examples/miniature/`). It knows
32x32 scenes of coloured shapes and the questions of the `rules` decomposer, and nothing else. It thinks and verifies,
and its score is the one it expects over all it could have said: the one it says is too often the same.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from editr1_plugins.verifiers.transformers import TransformersVerifier

__all__ = ["judge_path", "load_judge"]

#: The longest answer it was taught has 76 tokens.
_MAX_TOKENS: Final = 160
_MAX_BATCH: Final = 256


def judge_path() -> Path:
    """The folder of the shipped weights, as `transformers:PATH` takes it."""
    return Path(str(files("editr1_plugins.miniedit") / "judge"))


def load_judge(path: str | Path | None = None, **settings: Any) -> TransformersVerifier:
    """The judge on the CPU; `settings` go to `TransformersVerifier` (`mode`, `samples`, `temperature`, ...).

    Args:
        path: a folder that `examples/miniature/train_judge.py` wrote; None: the shipped weights.

    Raises:
        ConfigError: a setting is wrong.
    """
    from editr1_plugins.verifiers.transformers import TransformersVerifier

    defaults: dict[str, Any] = {"device": "cpu", "max_tokens": _MAX_TOKENS, "max_batch": _MAX_BATCH}
    defaults |= {"mode": "think+verify", "aggregate": "expected"}
    return TransformersVerifier(str(path or judge_path()), **{**defaults, **settings})
