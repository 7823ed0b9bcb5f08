"""A verifier that is called by workers of Ray, also on other machines; for verifiers that compute."""

from __future__ import annotations

from collections.abc import Sequence
from queue import SimpleQueue
from typing import Any, Final

from ...errors import MissingExtraError
from ...plugins import resolve
from ...types import Edit, Principle, Verification, Verifier

__all__ = ["RayVerifier"]


class RayVerifier:
    """`verify` by a pool of Ray actors, each with a verifier of its own; starts Ray, or joins `$RAY_ADDRESS`'s cluster.

    An actor that dies is started anew, and its batch is tried once more.

    Args:
        verifier: a spec, or an object that can be pickled.
        workers: actors, and batches judged at a time.
        gpus: of each actor.

    Raises:
        MissingExtraError: Ray is not installed.
    """

    thread_safe: Final = True

    def __init__(self, verifier: str | Verifier, workers: int, *, gpus: float | None = None) -> None:
        try:
            import ray
        except ImportError:
            raise MissingExtraError('workers of Ray need it: pip install "editr1-plugins[ray]"') from None
        if not ray.is_initialized():
            ray.init(include_dashboard=False, log_to_driver=False)
        self.threads = workers
        options = {"max_restarts": -1, "max_task_retries": 1} | ({} if gpus is None else {"num_gpus": gpus})
        actor = ray.remote(**options)(_Worker)
        self._free: SimpleQueue[Any] = SimpleQueue()
        for _ in range(workers):
            self._free.put(actor.remote(verifier))

    def verify(self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]]) -> list[Verification]:
        """As the verifier does it; waits for a free worker. What it raises is raised here."""
        import ray

        worker = self._free.get()
        try:
            found: list[Verification] = ray.get(worker.verify.remote(list(edits), list(principles)))
            return found
        finally:
            self._free.put(worker)


class _Worker:
    def __init__(self, verifier: str | Verifier) -> None:
        self._verifier = resolve("verifier", verifier)

    def verify(self, edits: list[Edit], principles: list[Sequence[Principle]]) -> list[Verification]:
        return self._verifier.verify(edits, principles)
