"""Taped outputs in files: one folder per run, memory-mapped, gone with the run."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

__all__ = ["TapeFolder"]


class TapeFolder:
    """A folder of its own, below `parent`, that only this user can read; deleted by `close()` or with the process.

    File names are hashes of what is kept, so nothing that a dataset holds gets into a path.
    """

    def __init__(self, parent: str | os.PathLike[str]) -> None:
        Path(parent).mkdir(parents=True, exist_ok=True)
        self.path = Path(tempfile.mkdtemp(prefix="encoder-tape-", dir=parent))
        self.close = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    def keep(self, key: str, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Write the tensors and give them back memory-mapped, on the CPU, with their dimensions in the same order.

        That order (the strides) stays, since arithmetic on another one may round differently.
        """
        file = self._file(key)
        orders = [sorted(range(tensor.ndim), key=tensor.stride, reverse=True) for tensor in tensors]
        dense = [tensor.detach().permute(order).cpu() for tensor, order in zip(tensors, orders, strict=True)]
        copies = [tensor.clone(memory_format=torch.contiguous_format) for tensor in dense]
        save_file({str(index): tensor for index, tensor in enumerate(copies)}, file)
        with safe_open(file, framework="pt") as opened:
            kept = [opened.get_tensor(str(index)) for index in range(len(tensors))]
        return [tensor.permute(_inverse(order)) for tensor, order in zip(kept, orders, strict=True)]

    def drop(self, key: str) -> None:
        """Delete what is kept under `key`, if anything is."""
        self._file(key).unlink(missing_ok=True)

    def _file(self, key: str) -> Path:
        return self.path / f"{hashlib.blake2b(key.encode(), digest_size=16).hexdigest()}.safetensors"


def _inverse(order: Sequence[int]) -> list[int]:
    return sorted(range(len(order)), key=order.__getitem__)
