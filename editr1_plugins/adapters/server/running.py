"""Listening, and ending well: a SIGTERM lets what is under way be answered."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from editr1_plugins.adapters.server.settings import ServerSettings
from editr1_plugins.errors import ConfigError

__all__ = ["listening_socket", "make_server", "run_server"]


def listening_socket(settings: ServerSettings) -> socket.socket:
    """A socket that listens where the settings say.

    Raises:
        ConfigError: nobody can listen there.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        where = f"{settings.host} port {settings.port}"
        raise ConfigError(f"cannot listen at {where}: {error.strerror or error}") from error


def make_server(app: FastAPI, settings: ServerSettings) -> uvicorn.Server:
    """A uvicorn server for `app`, to be run with a `listening_socket`."""
    config = uvicorn.Config(
        app,
        http=_protocol(settings.read_timeout),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(settings.drain)),
    )
    return uvicorn.Server(config)


def run_server(app: FastAPI, settings: ServerSettings, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; then take no more connections, answer what is under way, and return.

    Args:
        ready: called with the server's address when it listens.

    Raises:
        ConfigError: nobody can listen there.
    """
    with listening_socket(settings) as listening, _signals_end_it():
        host, port = listening.getsockname()[:2]
        ready(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
        make_server(app, settings).run(sockets=[listening])


@contextmanager
def _signals_end_it() -> Iterator[None]:
    """uvicorn raises the signal that ended it once more; to have ended well is no reason to die of it."""
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _protocol(silence: float) -> type[asyncio.Protocol]:
    """uvicorn's HTTP protocol, which closes connections that begin no request within `silence` seconds."""

    class Protocol(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._seen: Any = None
            self._look = self.loop.call_later(silence, self._close_if_silent)

        def connection_lost(self, exc: Exception | None) -> None:
            self._look.cancel()
            super().connection_lost(exc)

        def _close_if_silent(self) -> None:
            between = self.cycle is None or self.cycle.response_complete
            if between and self.cycle is self._seen:
                self.transport.close()
                return
            self._seen = self.cycle
            self._look = self.loop.call_later(silence, self._close_if_silent)

    return Protocol
