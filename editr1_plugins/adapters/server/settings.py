"""How a reward server is set up: where it listens, who may ask, and what it takes at most."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from editr1_plugins.errors import ConfigError

__all__ = ["ServerSettings", "is_loopback"]

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_SHORTEST_TOKEN: Final = 16


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Settings of one reward server.

    Attributes:
        host, port: where it listens; port 0 takes a free one.
        token: what clients must show, as `Authorization: Bearer TOKEN` or as the password of `Basic`; None: nothing.
        allow_open: let a host other than loopback be served without a token.
        name: what clients call this reward (UniRL's `required_rewards`).
        max_body: bytes of one request's body.
        max_bodies: bytes of all bodies held at a time; a request that would exceed it is told to come again.
        max_edits: edits in one request.
        max_waiting: edits that wait or are being judged; at least `max_edits`.
        busy_wait: seconds for which a request waits for room among these before it is told to come again.
        max_pixels, max_image_bytes: of one image.
        read_timeout: seconds between two pieces of a request; a client that sends none for longer is dropped.
        max_batch: edits that are judged in one call of the reward.
        workers: calls of the reward at a time; with 2, images of one are decoded while the other waits for its judge.
        drain: seconds for which requests under way may go on after a SIGTERM.
        edit_r1_pickle: serve PKU Edit-R1's `/mode/*`, whose bodies are pickles, read as data only.

    Raises:
        ConfigError: a value out of range, or a host beyond loopback that nothing protects.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    token: str | None = None
    allow_open: bool = False
    name: str = "editr1"
    max_body: int = 64 * 2**20
    max_bodies: int = 512 * 2**20
    max_edits: int = 512
    max_waiting: int = 2048
    busy_wait: float = 20.0
    max_pixels: int = 4096 * 4096
    max_image_bytes: int = 32 * 2**20
    read_timeout: float = 60.0
    max_batch: int = 32
    workers: int = 2
    drain: float = 120.0
    edit_r1_pickle: bool = False

    def __post_init__(self) -> None:
        for field in ("max_body", "max_edits", "max_pixels", "max_image_bytes", "max_batch", "workers"):
            if getattr(self, field) < 1:
                raise ConfigError(f"{field} must be at least 1, got {getattr(self, field)}")
        for field in ("busy_wait", "drain"):
            if not 0 <= getattr(self, field) < 86400:
                raise ConfigError(f"{field} must lie in 0..86400 seconds, got {getattr(self, field)}")
        if not 0 < self.read_timeout < 86400:
            raise ConfigError(f"read_timeout must lie in 0..86400 seconds, got {self.read_timeout}")
        if not 0 <= self.port < 65536:
            raise ConfigError(f"port must lie in 0..65535, got {self.port}")
        if self.max_waiting < self.max_edits:
            raise ConfigError(f"max_waiting ({self.max_waiting}) must be at least max_edits ({self.max_edits})")
        if self.max_bodies < self.max_body:
            raise ConfigError(f"max_bodies ({self.max_bodies}) must be at least max_body ({self.max_body})")
        if not _NAME.fullmatch(self.name):
            raise ConfigError(f"name must be 1 to 64 letters, digits, '_', '.' or '-', got {self.name!r}")
        self._check_access()

    def _check_access(self) -> None:
        if self.token is not None and (len(self.token) < _SHORTEST_TOKEN or not self.token.isprintable()):
            raise ConfigError(f"the token must be printable, of at least {_SHORTEST_TOKEN} characters")
        if self.token is None and not self.allow_open and not is_loopback(self.host):
            raise ConfigError(
                f"{self.host} can be reached by others: set a token (--token-file FILE or $EDITR1_SERVE_TOKEN), or say "
                "--allow-open on a network that you trust"
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`; a name other than "localhost" is taken for no."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
