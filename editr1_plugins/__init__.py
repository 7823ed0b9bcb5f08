"""Edit-R1 (arXiv 2604.27505) as plugins: a verified reward for image editing, and RL of unmodified diffusers editors.

The plan of the package is the README.md beside this file. Names below are imported when first used, so that
`import editr1_plugins` costs little and loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .hookspecs import hookimpl
    from .plugins import resolve
    from .reward.rrm import EditRRMReward
    from .training.edit_grpo import (
        EditGRPOConfig,
        EditGRPOTrainer,
        KontextGRPOConfig,
        KontextGRPOTrainer,
        QwenImageEditGRPOConfig,
        QwenImageEditGRPOTrainer,
    )
    from .types import Edit, Principle, Verdict, Verification

    __version__: str

__all__ = [
    "Edit",
    "EditGRPOConfig",
    "EditGRPOTrainer",
    "EditRRMReward",
    "KontextGRPOConfig",
    "KontextGRPOTrainer",
    "Principle",
    "QwenImageEditGRPOConfig",
    "QwenImageEditGRPOTrainer",
    "Verdict",
    "Verification",
    "__version__",
    "hookimpl",
    "resolve",
]

_HOMES = {
    "Edit": "types",
    "EditGRPOConfig": "training.edit_grpo",
    "EditGRPOTrainer": "training.edit_grpo",
    "EditRRMReward": "reward.rrm",
    "KontextGRPOConfig": "training.edit_grpo",
    "KontextGRPOTrainer": "training.edit_grpo",
    "Principle": "types",
    "QwenImageEditGRPOConfig": "training.edit_grpo",
    "QwenImageEditGRPOTrainer": "training.edit_grpo",
    "Verdict": "types",
    "Verification": "types",
    "hookimpl": "hookspecs",
    "resolve": "plugins",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("editr1-plugins")
    elif name in _HOMES:
        from importlib import import_module

        value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
