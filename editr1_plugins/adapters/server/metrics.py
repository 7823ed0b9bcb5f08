"""What the server counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from editr1_plugins.reward.record import failure_kind
from editr1_plugins.types import Verification

__all__ = ["CONTENT_TYPE", "ServerMetrics"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS: Final = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)
_EDITS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_KINDS: Final = 40  # kinds of failures told apart; verifiers make their own, and each is a time series


class ServerMetrics:
    """The metrics of one server, in a registry of their own.

    Args:
        waiting: how many edits wait or are being judged now.
        bodies: bytes of the bodies held now.
    """

    def __init__(self, waiting: Callable[[], float], bodies: Callable[[], float]) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "editr1_requests", "Requests by route and status.", ["route", "status"], registry=registry
        )
        self._seconds = Histogram(
            "editr1_request_seconds", "Seconds a request took.", ["route"], buckets=_SECONDS, registry=registry
        )
        self._edits = Counter("editr1_edits", "Edits by outcome.", ["outcome"], registry=registry)
        self._failures = Counter("editr1_failures", "Edits without a score, by kind.", ["kind"], registry=registry)
        self._filled = Counter("editr1_filled", "Rewards that stood in for a missing score.", registry=registry)
        self._batch = Histogram("editr1_batch_edits", "Edits judged at a time.", buckets=_EDITS, registry=registry)
        self._batch_seconds = Histogram(
            "editr1_batch_seconds", "Seconds a batch took.", buckets=_SECONDS, registry=registry
        )
        held = Gauge("editr1_waiting_edits", "Edits that wait or are being judged.", registry=registry)
        held.set_function(waiting)
        held = Gauge("editr1_body_bytes", "Bytes of request bodies held.", registry=registry)
        held.set_function(bodies)
        self._kinds: set[str] = set()

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def judged(self, outcomes: Sequence[Verification], filled: int) -> None:
        """Count what was said about the edits of a request."""
        for outcome in outcomes:
            self._edits.labels("scored" if outcome.score is not None else "failed").inc()
            if outcome.failure is not None:
                self._failures.labels(self._kind(outcome.failure)).inc()
        self._filled.inc(filled)

    def abandoned(self, edits: int) -> None:
        """Count edits whose client left before they were answered."""
        self._edits.labels("abandoned").inc(edits)

    def batch(self, edits: int, seconds: float) -> None:
        """Count one call of the reward."""
        self._batch.observe(edits)
        self._batch_seconds.observe(seconds)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)

    def _kind(self, failure: str) -> str:
        kind = failure_kind(failure)
        if kind not in self._kinds and len(self._kinds) >= _KINDS:
            return "other"
        self._kinds.add(kind)
        return kind
