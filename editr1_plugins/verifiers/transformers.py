"""Verifier `transformers:PATH_OR_ID`: a vision-language model in this process as the judge.

Everything about the model is `backends.transformers`, everything about judging is `verifiers.generative`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from editr1_plugins.backends.model_files import split_spec
from editr1_plugins.backends.transformers import TransformersBackend
from editr1_plugins.verifiers.generative import GenerativeVerifier

if TYPE_CHECKING:
    import torch

__all__ = ["TransformersVerifier"]


class TransformersVerifier(GenerativeVerifier):
    """`GenerativeVerifier` on a `TransformersBackend`.

    Picklable; the weights are not carried along, an unpickled verifier loads them where it is first used.

    Args:
        model: a folder, or a hub id.
        adapter: a LoRA adapter for it: a folder, or a hub id.
        revision: of a hub id.
        device: where to load it; None: the process's GPU, else the CPU.
        dtype: e.g. "bfloat16"; None: as in the checkpoint.
        max_batch: most replies generated at once.
        judge: `mode`, `samples`, `aggregate`, `min_samples`, `max_spread`, ... as for `GenerativeVerifier`.

    Raises:
        ConfigError: a setting is wrong, or the model cannot be loaded.
        MissingExtraError: the model's processor needs a package that is not installed.
    """

    backend: TransformersBackend

    def __init__(
        self,
        model: str,
        adapter: str | None = None,
        *,
        revision: str | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        max_batch: int = 16,
        **judge: Any,
    ) -> None:
        backend = TransformersBackend(
            model, adapter=adapter, revision=revision, device=device, dtype=dtype, max_batch=max_batch
        )
        super().__init__(backend, **judge)

    @classmethod
    def from_spec(cls, argument: str, **options: Any) -> TransformersVerifier:
        """Build a verifier from what follows `transformers:` in a spec string; options as for the class.

        The spec is `PATH_OR_ID[?adapter=PATH_OR_ID&revision=...&device=...&dtype=...&max_batch=...]`.

        Raises:
            ConfigError: the spec cannot be read, and as for the class.
        """
        model, settings = split_spec(argument)
        return cls(model, **{**settings, **options})

    def close(self) -> None:
        """Let go of the weights; the next `verify` loads them again."""
        self.backend.close()

    def __repr__(self) -> str:
        return f"TransformersVerifier({self.identity!r})"
