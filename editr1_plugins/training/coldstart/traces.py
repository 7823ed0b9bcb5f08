"""Stage "traces": a pool of judges, each with its own model, words and temperature, writes traces of each candidate."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Final

from ...backends.chat import ChatBackend, ChatReply, Sampling
from ...errors import ConfigError, DataError
from ...reward.containment import Failure, contained
from ...types import Edit, Principle, Verification, Verifier
from ...verifiers.parsing import parse_trace
from ...verifiers.prompting import Mode, asks_for_verdicts
from ..traces import compose_trace
from .asking import judge_system, trace_request
from .chat import ask_one, backend_of, is_remote, threads_of, usage_of, verifier_from
from .config import JudgeConfig
from .edits import Candidate, judged_edits, listed_candidates
from .run import Run
from .running import Lane, batches, seed_of
from .store import Line

__all__ = ["add_tokens", "asked_judges", "called", "plain_threads", "trace_keys", "verdict_row", "write_traces"]

_MAX_TRACE: Final = 20_000
_THREADS: Final = 4


def write_traces(run: Run) -> None:
    """Write `samples` traces of each candidate by each judge that is asked about it.

    Raises:
        ConfigError: no judges, or one that cannot be made.
    """
    file = run.file("traces")
    if not run.config.traces.judges:
        raise ConfigError("traces.judges is empty: name at least one judge")
    candidates = listed_candidates(run)
    keys = trace_keys(run, candidates)
    pending = set(run.pending(file, keys))
    lanes: list[Lane[list[Candidate]]] = []
    locks: defaultdict[int, AbstractContextManager[Any]] = defaultdict(threading.Lock)
    for judge in run.config.traces.judges:
        own = [keys[key] for key in _pending_of(keys, pending, judge.name)]
        if own:
            verifier = _verifier(run, judge)
            # The same object may be given under two names.
            lock = nullcontext() if getattr(verifier, "thread_safe", False) else locks[id(verifier)]
            lanes.append(_lane(run, judge, verifier, lock, own))
    run.work(file, list(keys), lanes)


def asked_judges(run: Run, candidate: str) -> list[JudgeConfig]:
    """The judges that are asked about a candidate, in their order: all, or a draw that depends on the candidate."""
    judges, count = list(run.config.traces.judges), run.config.traces.judges_per_edit
    if count is None or count >= len(judges):
        return judges
    drawn = sorted(judges, key=lambda judge: seed_of(run.config.seed, "judge", candidate, judge.name))[:count]
    return [judge for judge in judges if judge in drawn]


def trace_keys(run: Run, candidates: Sequence[Candidate]) -> dict[str, Candidate]:
    """What is asked at a time: a candidate by its key and a judge's name."""
    return {f"{each.key}/{judge.name}": each for each in candidates for judge in asked_judges(run, each.key)}


def _pending_of(keys: dict[str, Candidate], pending: set[str], judge: str) -> list[str]:
    """The keys of one judge that have no traces yet, in order."""
    return [key for key in keys if key in pending and key.rpartition("/")[2] == judge]


def _verifier(run: Run, judge: JudgeConfig) -> Verifier:
    verifier = verifier_from(judge.spec, run.parts.judges.get(judge.name), judge.options, f"traces.judges.{judge.name}")
    if judge.ray is None:
        return verifier
    if backend_of(verifier) is not None:
        raise ConfigError(f"traces.judges.{judge.name}.ray: a chat model is no work for Ray; its server has workers")
    from .ray_verifier import RayVerifier

    given = run.parts.judges.get(judge.name)
    return RayVerifier(judge.spec if given is None and judge.spec else verifier, judge.ray, gpus=judge.ray_gpus)


def _lane(
    run: Run, config: JudgeConfig, verifier: Verifier, lock: AbstractContextManager[Any], own: list[Candidate]
) -> Lane[list[Candidate]]:
    backend = backend_of(verifier)
    ask = _plain(config, verifier, lock) if backend is None else _chat(run, config, backend)

    def work(part: list[Candidate]) -> list[Line]:
        try:
            edits, principles = judged_edits(run, part)
        except DataError as error:
            if len(part) > 1:
                return [line for each in part for line in work([each])]
            return [{"key": f"{part[0].key}/{config.name}", "failure": f"bad_image: {error}"}]
        lines = []
        for each, outcome in zip(part, ask(part, edits, principles), strict=True):
            line = {"key": f"{each.key}/{config.name}", **outcome}
            samples = line["samples"]
            if all(sample["score"] is None for sample in samples):
                line["failure"] = samples[0]["failure"]
            lines.append(line)
        return lines

    if backend is not None and is_remote(backend):
        return Lane(([each] for each in own), work, threads_of(backend))
    parts = (list(part) for part in batches(own, run.config.traces.batch_size))
    return Lane(parts, work, 1 if backend is not None else plain_threads(verifier))


_Ask = Callable[[list[Candidate], list[Edit], list[tuple[Principle, ...]]], list[Line]]


def _chat(run: Run, config: JudgeConfig, backend: ChatBackend) -> _Ask:
    """Ask a chat model; a server with a seed for each candidate, a local model with one for the judge."""
    system = judge_system(config)
    if config.samples > 1 and config.temperature == 0.0:
        raise ConfigError(f"traces.judges.{config.name}: {config.samples} samples at temperature 0 are all the same")
    sampling = Sampling(temperature=config.temperature, max_tokens=config.max_tokens, samples=config.samples)

    def ask(part: list[Candidate], edits: list[Edit], principles: list[tuple[Principle, ...]]) -> list[Line]:
        found: list[Line] = []
        for each, edit, asked in zip(part, edits, principles, strict=True):
            item = each.key if is_remote(backend) else ""
            attempt = run.attempt(run.file("traces"), f"{each.key}/{config.name}")
            seed = seed_of(run.config.seed, "trace", item, config.name, *([attempt] if attempt else []))
            seeded = replace(sampling, seed=seed)
            try:
                request = trace_request(edit, asked, config.mode, system)
            except DataError as error:
                found.append({"samples": [_unread(f"bad_request: {error}", "")]})
                continue
            replies = ask_one(backend, request, seeded)
            samples = [_read(reply, asked, config.mode) for reply in replies]
            found.append({"samples": samples, "tokens": usage_of(replies), "attempt": attempt})
        return found

    return ask


def _plain(config: JudgeConfig, verifier: Verifier, lock: AbstractContextManager[Any]) -> _Ask:
    """Call any other verifier, `samples` times; what it raises is a reason."""

    def ask(part: list[Candidate], edits: list[Edit], principles: list[tuple[Principle, ...]]) -> list[Line]:
        found: list[Line] = [{"samples": []} for _ in part]
        for _ in range(config.samples):
            with lock:
                answers = called(verifier, edits, principles, [each.row for each in part])
            for line, answer, asked in zip(found, answers, principles, strict=True):
                line["samples"].append(_sample(answer, asked, config.mode))
                if isinstance(answer, Verification):
                    add_tokens(line, answer)
        return found

    return ask


def called(
    verifier: Verifier, edits: list[Edit], principles: list[tuple[Principle, ...]], groups: list[str]
) -> list[Verification | Failure]:
    """One verification or reason per edit, whatever the verifier does."""

    def call(rows: list[int]) -> object:
        return verifier.verify([edits[row] for row in rows], [principles[row] for row in rows])

    def check(row: int, answer: object) -> Verification:
        if not isinstance(answer, Verification):
            raise TypeError(f"returned a {type(answer).__name__}, not a Verification")
        texts = [answer.trace, answer.failure or "", *(verdict.reason for verdict in answer.verdicts)]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("a trace, failure or reason that is no text")
        if answer.verdicts and len(answer.verdicts) != len(principles[row]):
            raise ValueError(f"returned {len(answer.verdicts)} verdicts for {len(principles[row])} principles")
        return answer

    return contained("verifier", call, check, groups)


def plain_threads(verifier: Verifier) -> int:
    """Threads that call a verifier: one, unless it says that it is `thread_safe`."""
    return int(getattr(verifier, "threads", _THREADS)) if getattr(verifier, "thread_safe", False) else 1


def _read(reply: ChatReply, principles: Sequence[Principle], mode: Mode) -> Line:
    text = "\n\n".join(part for part in (reply.reasoning, reply.text) if part)
    if reply.failure is not None:
        return _unread(reply.failure, text)
    if len(text) > _MAX_TRACE:
        return _unread(f"too_long: {len(text)} characters", "")
    read = parse_trace(reply.text, [principle.question for principle in principles], reply.finish_reason)
    if read.score is None:
        return _unread(read.failure or "no_score", text)
    verdicts = read.verdicts if asks_for_verdicts(mode) else ()
    average = read.average if asks_for_verdicts(mode) else None
    return {"trace": text, "verdicts": verdict_row(verdicts), "average": average, "score": read.score, "failure": None}


def _sample(answer: Verification | Failure, principles: Sequence[Principle], mode: Mode) -> Line:
    if isinstance(answer, Failure):
        return _unread(answer.reason, "")
    if answer.score is None:
        return _unread(answer.failure or "no_score", answer.trace[:_MAX_TRACE])
    verdicts = verdict_row([verdict.passed for verdict in answer.verdicts])
    judged = [verdict for verdict in verdicts if verdict is not None]
    average = answer.average if answer.average is not None else sum(judged) / len(judged) if judged else None
    trace = answer.trace[:_MAX_TRACE]
    if not trace:
        try:
            trace = compose_trace("", principles, verdicts, average, answer.score, mode)
        except DataError as error:
            return _unread(f"no_trace: {error}", "")
    return {"trace": trace, "verdicts": verdicts, "average": average, "score": answer.score, "failure": None}


def verdict_row(verdicts: Sequence[bool | None]) -> list[int | None]:
    """Verdicts as 1, 0 and None."""
    return [None if verdict is None else int(verdict) for verdict in verdicts]


def _unread(failure: str, trace: str) -> Line:
    return {"trace": trace, "verdicts": [], "average": None, "score": None, "failure": failure}


def add_tokens(line: Line, answer: Verification) -> None:
    """Add what a verification took to the line's tokens, where it says so."""
    if answer.usage is None:
        return
    tokens = line.setdefault("tokens", {"prompt": 0, "cached": 0, "completion": 0})
    tokens["prompt"] += answer.usage.prompt_tokens or 0
    tokens["cached"] += answer.usage.cached_tokens or 0
    tokens["completion"] += answer.usage.completion_tokens or 0
