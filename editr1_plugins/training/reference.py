"""The reference policy of full fine-tuning: a frozen copy of the weights that the run started from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..errors import DataError
from .parallel import local

__all__ = ["FrozenCopy"]


class FrozenCopy:
    """Weights as they were, kept in host memory and exchanged with the live ones for the time of a reference pass.

    The pipeline and its modules stay as they are; only the contents of the parameters change places. Costs: the size of
    the trained weights (of this process's shards under FSDP2) in host memory, none on the device, and moving them to
    the device and back twice per rollout. A LoRA needs none of this: its adapters are switched off.

    Args:
        parameters: gives the trained parameters; asked again for each exchange, since sharding replaces them.
    """

    def __init__(self, parameters: Callable[[], Sequence[nn.Parameter]]) -> None:
        self._parameters = parameters
        self._kept = [_to_host(local(parameter.detach())) for parameter in parameters()]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The frozen weights in the parameters' place."""
        pairs = list(zip((local(p.detach()) for p in self._parameters()), self._kept, strict=True))
        exchanged: list[tuple[Tensor, Tensor]] = []
        try:
            for pair in pairs:
                _exchange(*pair)
                exchanged.append(pair)
            yield
        finally:
            for pair in exchanged:
                _exchange(*pair)

    def fingerprint(self) -> Tensor:
        """One number per weight, float64: tells this copy from that of another start."""
        return torch.stack([weight.double().sum() for weight in self._kept])

    def require(self, fingerprint: Tensor) -> None:
        """Check that this is the copy that a checkpoint's run was compared with.

        Raises:
            DataError: it is not: the pipeline that was passed is another one than the run started from.
        """
        own = self.fingerprint()
        if own.shape != fingerprint.shape or not torch.allclose(own, fingerprint, rtol=1e-6, atol=1e-6):
            raise DataError(
                "the reference policy differs from that of the checkpoint: resume with the pipeline that the run"
                " started from, not with a trained one"
            )


def _to_host(weight: Tensor) -> Tensor:
    copy = torch.empty_like(weight, device="cpu", pin_memory=weight.is_cuda)
    return copy.copy_(weight)


@torch.no_grad()
def _exchange(live: Tensor, kept: Tensor) -> None:
    before = live.clone()
    live.copy_(kept)
    kept.copy_(before)
