"""The FastAPI application: routes, access, limits, one log line and one count per request."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from editr1_plugins.adapters.missing import Filling
from editr1_plugins.adapters.server.access import is_allowed
from editr1_plugins.adapters.server.bodies import Bodies, BodyTooLargeError, BodyTooSlowError
from editr1_plugins.adapters.server.calls import Answer, Call, EncodedEdit, Form, ImageReader, problem
from editr1_plugins.adapters.server.edit_r1 import ModeForm
from editr1_plugins.adapters.server.flow_factory import ComputeForm
from editr1_plugins.adapters.server.judging import RewardJudge, scores_version
from editr1_plugins.adapters.server.metrics import CONTENT_TYPE, ServerMetrics
from editr1_plugins.adapters.server.openrlhf import GetRewardForm
from editr1_plugins.adapters.server.queueing import BusyError, EditQueue
from editr1_plugins.adapters.server.settings import ServerSettings
from editr1_plugins.adapters.server.unirl import ScoreForm
from editr1_plugins.errors import DataError, UnscoredError
from editr1_plugins.reward.rrm import EditRRMReward
from editr1_plugins.types import Verification

__all__ = ["make_app"]

_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CLIENT_LEFT: Final = 499  # nobody reads it; the log and the counters do
_log = logging.getLogger(__name__)


class _TooManyEditsError(Exception):
    pass


@dataclass
class _Done:
    """What a request came to."""

    answer: Answer
    edits: int = 0
    failed: int = 0
    headers: dict[str, str] | None = None


def make_app(reward: EditRRMReward, settings: ServerSettings, filling: Filling | None = None) -> FastAPI:
    """The application that serves `reward`; its queue begins and ends with the application's lifespan.

    Args:
        reward: judges the edits; its parts are built here.
        settings: limits and access; who listens where is not decided here.
        filling: for the routes whose clients know only numbers; default `Filling()`.

    Raises:
        ConfigError, MissingExtraError, ComponentError: a part of the reward cannot be built.
    """
    service = _Service(reward, settings, filling or Filling())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.queue.start()
        yield
        await service.queue.stop()

    # No pages of documentation: they would load scripts from elsewhere.
    app = FastAPI(title="editr1", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_exception_handler(HTTPException, service.unknown)
    app.add_api_route("/health", service.health, methods=["GET"])
    app.add_api_route("/rewards", service.rewards, methods=["GET"])
    app.add_api_route("/metrics", service.metrics_page, methods=["GET"])
    for form in service.forms:
        app.add_api_route(form.route, service.endpoint(form), methods=["POST"])
    return app


class _Service:
    """One reward behind several forms."""

    def __init__(self, reward: EditRRMReward, settings: ServerSettings, filling: Filling) -> None:
        self._settings = settings
        self._version = scores_version(reward)
        self._bodies = Bodies(settings.max_body, settings.max_bodies, settings.read_timeout)
        self.queue = EditQueue(
            RewardJudge(reward, settings.max_pixels, settings.max_image_bytes),
            workers=settings.workers,
            max_batch=settings.max_batch,
            max_waiting=settings.max_waiting,
            busy_wait=settings.busy_wait,
            on_batch=lambda edits, seconds: self._metrics.batch(edits, seconds),
        )
        self._metrics = ServerMetrics(lambda: self.queue.held, lambda: self._bodies.held)
        images = ImageReader(settings.max_pixels, settings.max_image_bytes)
        self.forms: list[Form] = [
            ScoreForm(images, settings.name, self._version),
            ComputeForm(images, filling),
            GetRewardForm(images, filling),
        ]
        if settings.edit_r1_pickle:
            self.forms.append(ModeForm(images, filling))

    async def health(self) -> Response:
        """Nobody needs a token for this: it says that the server is up, and which reward it has."""
        content = {"status": "ok", "rewards": {self._settings.name: ["ready"]}, "version": self._version}
        return _response(Answer.json(content))

    async def rewards(self, request: Request) -> Response:
        """The names of the rewards served, as UniRL's own client asks for them."""
        if not self._is_allowed(request):
            return _response(_unauthorized(_id_of(request)))
        return _response(Answer.json({"rewards": [self._settings.name]}))

    async def metrics_page(self, request: Request) -> Response:
        """Prometheus' text format."""
        if not self._is_allowed(request):
            return _response(_unauthorized(_id_of(request)))
        return Response(self._metrics.text(), media_type=CONTENT_TYPE)

    async def unknown(self, request: Request, error: Exception) -> Response:
        """No such route, or not by this method."""
        status = error.status_code if isinstance(error, HTTPException) else 500
        self._metrics.request("other", status, 0.0)
        routes = ", ".join(form.route for form in self.forms)
        told = f"there is no {request.method} for this path; POST to one of {routes}, or GET /health"
        return _response(problem(status, told, _id_of(request)))

    def endpoint(self, form: Form):  # type: ignore[no-untyped-def]  # FastAPI reads the annotations of what it returns
        """The handler of a form's route."""

        async def handle(request: Request) -> Response:
            started, request_id = time.perf_counter(), _id_of(request)
            done = await self._done(request, form, request_id)
            seconds, status = time.perf_counter() - started, done.answer.status
            self._metrics.request(form.route, status, seconds)
            # Neither texts nor images nor headers: they may hold what is not ours to keep.
            _log.info(
                "%s POST %s %d %d edits %d unscored %.3f s",
                request_id,
                form.route,
                status,
                done.edits,
                done.failed,
                seconds,
            )
            return _response(done.answer, {"X-Request-ID": request_id, **(done.headers or {})})

        return handle

    async def _done(self, request: Request, form: Form, request_id: str) -> _Done:
        """Everything that can happen to a request, as its answer."""
        if not self._is_allowed(request):
            return _Done(_unauthorized(request_id), headers={"WWW-Authenticate": "Bearer"})
        try:
            return await self._scored(request, form)
        except BusyError as error:
            answer = form.problem(429, str(error), request_id)
            return _Done(answer, headers={"Retry-After": str(error.retry_after)})
        except BodyTooLargeError as error:
            return _Done(form.problem(413, str(error), request_id), headers={"Connection": "close"})
        except BodyTooSlowError as error:
            return _Done(form.problem(408, str(error), request_id), headers={"Connection": "close"})
        except _TooManyEditsError as error:
            return _Done(form.problem(413, str(error), request_id))
        except DataError as error:
            return _Done(form.problem(400, str(error), request_id))
        except UnscoredError as error:
            return _Done(form.problem(422, str(error), request_id))
        except ClientDisconnect:
            return _Done(problem(_CLIENT_LEFT, "the client left", request_id))
        except Exception:
            _log.exception("%s failed", request_id)
            return _Done(problem(500, "the server failed; its log says how", request_id))

    async def _scored(self, request: Request, form: Form) -> _Done:
        async with self._bodies.body(request) as body:
            call = await asyncio.to_thread(form.read, body)
            most = self._settings.max_edits
            if len(call.edits) > most:
                raise _TooManyEditsError(f"the request has {len(call.edits)} edits, at most {most} are taken")
            outcomes = await self._outcomes(request, call)
        failed = sum(outcome.score is None for outcome in outcomes)
        try:
            answer = call.answer(outcomes)
        except UnscoredError:
            self._metrics.judged(outcomes, 0)
            raise
        self._metrics.judged(outcomes, answer.filled)
        return _Done(answer, len(outcomes), failed)

    async def _outcomes(self, request: Request, call: Call) -> list[Verification]:
        """One verification per edit of the call, in order."""
        edits = [edit for edit in call.edits if isinstance(edit, EncodedEdit)]
        judged = iter(await self._judged(request, edits) if edits else [])
        return [
            next(judged) if isinstance(edit, EncodedEdit) else Verification(score=None, failure=edit, samples=0)
            for edit in call.edits
        ]

    async def _judged(self, request: Request, edits: Sequence[EncodedEdit]) -> list[Verification]:
        """What the queue says; if the client leaves meanwhile, what still waits is not judged."""
        job = asyncio.ensure_future(self.queue.judge(edits))
        left = asyncio.ensure_future(_left(request))
        try:
            await asyncio.wait({job, left}, return_when=asyncio.FIRST_COMPLETED)
            if not job.done():
                self._metrics.abandoned(len(edits))
                raise ClientDisconnect
            return job.result()
        finally:
            for task in (job, left):
                if not task.done():
                    task.cancel()
                    with suppress(asyncio.CancelledError, BusyError):
                        await task

    def _is_allowed(self, request: Request) -> bool:
        return is_allowed(request.headers.get("authorization"), self._settings.token)


async def _left(request: Request) -> None:
    """Returns when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _unauthorized(request_id: str) -> Answer:
    return problem(401, "show the server's token: Authorization: Bearer TOKEN", request_id)


def _id_of(request: Request) -> str:
    given = request.headers.get("x-request-id", "")
    return given if _ID.fullmatch(given) else uuid.uuid4().hex[:16]


def _response(answer: Answer, headers: dict[str, str] | None = None) -> Response:
    return Response(answer.body, answer.status, headers=headers, media_type=answer.media_type)
