"""Serve a judge as a reward over HTTP, to trainers that take nothing but a URL.

  editr1 serve --verifier openai:MODEL@URL --port 8080
  curl -s http://127.0.0.1:8080/health

Routes: /score (UniRL; the canonical one), /compute (Flow-Factory), /get_reward (OpenRLHF), /health, /metrics. Clients
show the token of --token-file or $EDITR1_SERVE_TOKEN; without one, only this machine is served. docs/serving.md tells
the forms, the limits, and what each client makes of a missing score.

Exit status: 0 stopped by SIGTERM or Ctrl-C, with everything under way answered; 2 usage, or no judge; 1 anything else.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..errors import ConfigError, MissingExtraError
from . import printable

if TYPE_CHECKING:
    from ..adapters.server.settings import ServerSettings

__all__ = ["SUMMARY", "TOKEN_VARIABLE", "add_arguments", "run"]

SUMMARY = "serve a judge over HTTP to trainers that take a URL"

#: The environment variable of the token that clients must show.
TOKEN_VARIABLE: Final = "EDITR1_SERVE_TOKEN"

_MIB: Final = 2**20
_MEGAPIXEL: Final = 10**6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--verifier", metavar="SPEC", help="judge; default: $EDITR1_VERIFIER, else measure")
    parser.add_argument(
        "--decomposer", metavar="SPEC", help="who writes the principles; default: $EDITR1_DECOMPOSER, else rules"
    )
    parser.add_argument("--cache", metavar="FILE", help="sqlite file of principles, as `editr1 decompose` fills it")
    parser.add_argument(
        "--record", metavar="DIR", help="keep a record of every edit and its images, for `editr1 report`"
    )
    access = parser.add_argument_group("who may ask")
    access.add_argument("--host", default="127.0.0.1", help="where to listen; default: 127.0.0.1")
    access.add_argument("--port", metavar="N", type=int, default=8080, help="0: a free one; default: 8080")
    access.add_argument(
        "--token-file", metavar="FILE", help=f"holds the token that clients must show; default: ${TOKEN_VARIABLE}"
    )
    access.add_argument(
        "--allow-open", action="store_true", help="without a token, serve a host that others can reach all the same"
    )
    access.add_argument(
        "--edit-r1-pickle", action="store_true", help="serve PKU Edit-R1's /mode/*, whose bodies are pickles"
    )
    scores = parser.add_argument_group("scores")
    scores.add_argument("--name", default="editr1", help="what UniRL calls the reward; default: editr1")
    scores.add_argument(
        "--missing",
        choices=("mean", "error"),
        default="mean",
        help="where a client knows only numbers, a missing score is the group's mean, or an error; default: mean",
    )
    scores.add_argument(
        "--max-missing", metavar="SHARE", type=float, default=0.5, help="more of a request is an error; default: 0.5"
    )
    limits = parser.add_argument_group("limits")
    limits.add_argument("--max-body", metavar="MIB", type=int, default=64, help="of one request; default: 64")
    limits.add_argument("--max-bodies", metavar="MIB", type=int, default=512, help="held at a time; default: 512")
    limits.add_argument("--max-megapixels", metavar="N", type=float, default=16.8, help="of an image; default: 16.8")
    limits.add_argument("--max-edits", metavar="N", type=int, default=512, help="in one request; default: 512")
    limits.add_argument("--max-waiting", metavar="N", type=int, default=2048, help="edits held; default: 2048")
    limits.add_argument(
        "--busy-wait", metavar="S", type=float, default=20.0, help="wait for room before 429; default: 20"
    )
    limits.add_argument("--read-timeout", metavar="S", type=float, default=60.0, help="of a request; default: 60")
    limits.add_argument(
        "--drain",
        metavar="S",
        type=float,
        default=120.0,
        help="to answer what is under way after SIGTERM; default: 120",
    )
    limits.add_argument("--batch-size", metavar="N", type=int, default=32, help="edits judged at a time; default: 32")
    limits.add_argument("--workers", metavar="N", type=int, default=2, help="batches judged at a time; default: 2")


def run(args: argparse.Namespace) -> int:
    settings = _settings(args)
    try:
        from ..adapters.server.app import make_app
        from ..adapters.server.running import run_server
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "uvicorn", "prometheus_client"):
            raise
        raise MissingExtraError(
            f'editr1 serve needs {error.name}. Install it with: pip install "editr1-plugins[serve]"'
        ) from error
    from ..adapters.missing import Filling
    from ..reward.rrm import EditRRMReward

    reward = EditRRMReward(args.verifier, args.decomposer, cache=args.cache, record=args.record)
    app = make_app(reward, settings, Filling(args.missing, args.max_missing))
    if settings.edit_r1_pickle:
        print(
            "editr1: note: /mode/* reads pickles as data only, and its clients unpickle the answers: serve it to "
            "clients and on a network that you trust",
            file=sys.stderr,
        )
    with _log_to_stderr():
        run_server(app, settings, lambda address: print(f"serving {printable(repr(reward))} at {address}", flush=True))
    return 0


def _settings(args: argparse.Namespace) -> ServerSettings:
    from ..adapters.server.settings import ServerSettings

    return ServerSettings(
        host=args.host,
        port=args.port,
        token=_token(args.token_file),
        allow_open=args.allow_open,
        name=args.name,
        max_body=args.max_body * _MIB,
        max_bodies=args.max_bodies * _MIB,
        max_edits=args.max_edits,
        max_waiting=args.max_waiting,
        busy_wait=args.busy_wait,
        max_pixels=round(args.max_megapixels * _MEGAPIXEL),
        max_image_bytes=min(32, args.max_body) * _MIB,
        read_timeout=args.read_timeout,
        max_batch=args.batch_size,
        workers=args.workers,
        drain=args.drain,
        edit_r1_pickle=args.edit_r1_pickle,
    )


def _token(path: str | None) -> str | None:
    if path is None:
        return os.environ.get(TOKEN_VARIABLE, "").strip() or None
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the token file cannot be read: {error}") from error


@contextmanager
def _log_to_stderr() -> Iterator[None]:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    loggers = [logging.getLogger(name) for name in ("editr1_plugins", "uvicorn")]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate
