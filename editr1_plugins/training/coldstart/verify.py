"""Stage "verify": a strong judge sees both images and all traces, and writes a gold 0/1 and one line per principle.

Source: Edit-R1 (arXiv 2604.27505), section 3.2. The prompt is ours (`prompts/gold*.txt`). A verifier that is no chat
model, such as `measure`, is asked as any verifier is, without the traces; its verdicts are the gold ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ...backends.chat import ChatBackend, Sampling
from ...errors import DataError
from ...reward.containment import Failure
from ...types import Edit, Principle, Verification, Verifier
from .asking import gold_request, read_gold
from .chat import ask_one, backend_of, is_remote, threads_of, usage_of, verifier_from
from .edits import Candidate, judged_edits, listed_candidates
from .run import Run
from .running import Lane, batches, seed_of
from .store import Line
from .traces import add_tokens, asked_judges, called, plain_threads, verdict_row

__all__ = ["traces_of", "verifiable", "write_gold"]

_Ask = Callable[[list[Candidate], list[Edit], list[tuple[Principle, ...]]], list[Line]]


def write_gold(run: Run) -> None:
    """Write the gold verdicts of each candidate with at least one trace that has a score.

    Raises:
        ConfigError: there is no strong judge, or it cannot be made.
    """
    file = run.file("verify")
    candidates = {each.key: each for each in verifiable(run)}
    pending = run.pending(file, candidates)
    if not pending:
        return run.work(file, list(candidates), [])
    config = run.config.verify
    verifier = verifier_from(config.spec, run.parts.gold, config.options, "verify")
    backend = None if config.as_verifier else backend_of(verifier)
    ask = _plain(verifier) if backend is None else _chat(run, backend)

    def work(keys: list[str]) -> list[Line]:
        part = [candidates[key] for key in keys]
        try:
            edits, principles = judged_edits(run, part)
        except DataError as error:
            if len(part) > 1:
                return [line for key in keys for line in work([key])]
            return [{"key": keys[0], "failure": f"bad_image: {error}"}]
        return [{"key": key, **found} for key, found in zip(keys, ask(part, edits, principles), strict=True)]

    if backend is not None and is_remote(backend):
        lane = Lane(([key] for key in pending), work, threads_of(backend))
    else:
        threads = 1 if backend is not None else plain_threads(verifier)
        lane = Lane((list(part) for part in batches(pending, config.batch_size)), work, threads)
    run.work(file, list(candidates), [lane])


def verifiable(run: Run) -> list[Candidate]:
    """The candidates with a trace that has a score."""
    traces = run.file("traces")
    return [
        each
        for each in listed_candidates(run)
        if any(
            (key := f"{each.key}/{judge.name}") in traces and not traces.failed(key)
            for judge in asked_judges(run, each.key)
        )
    ]


def traces_of(run: Run, candidate: str) -> list[tuple[str, Line]]:
    """(judge's name, trace) of a candidate in the order of the judges and their samples, failed ones among them."""
    file = run.file("traces")
    found = []
    for judge in asked_judges(run, candidate):
        key = f"{candidate}/{judge.name}"
        if key in file:
            found += [(judge.name, sample) for sample in file.get(key).get("samples", ())]
    return found


def _chat(run: Run, backend: ChatBackend) -> _Ask:
    config = run.config.verify
    sampling = Sampling(temperature=config.temperature, max_tokens=config.max_tokens)

    def ask(part: list[Candidate], edits: list[Edit], principles: list[tuple[Principle, ...]]) -> list[Line]:
        return [_asked(run, backend, sampling, *each) for each in zip(part, edits, principles, strict=True)]

    return ask


def _asked(
    run: Run,
    backend: ChatBackend,
    sampling: Sampling,
    candidate: Candidate,
    edit: Edit,
    principles: tuple[Principle, ...],
) -> Line:
    usable = [trace["trace"] for _, trace in traces_of(run, candidate.key) if trace["score"] is not None]
    attempt = run.attempt(run.file("verify"), candidate.key)
    item = candidate.key if is_remote(backend) else ""
    seed = seed_of(run.config.seed, "gold", item, *([attempt] if attempt else []))
    request = gold_request(edit, principles, usable[: run.config.verify.references])
    replies = ask_one(backend, request, replace(sampling, seed=seed))
    line: Line = {"tokens": usage_of(replies), "attempt": attempt}
    if replies[0].failure is not None:
        return line | {"failure": replies[0].failure}
    if replies[0].finish_reason == "length":
        return line | {"failure": "truncated: the answer was cut at verify.max_tokens"}
    read = read_gold(replies[0].text, len(principles))
    return line | ({"failure": read} if isinstance(read, str) else {"gold": read[0], "reasons": read[1]})


def _plain(verifier: Verifier) -> _Ask:
    def ask(part: list[Candidate], edits: list[Edit], principles: list[tuple[Principle, ...]]) -> list[Line]:
        answers = called(verifier, edits, principles, [each.row for each in part])
        return [_taken(answer) for answer in answers]

    return ask


def _taken(answer: Verification | Failure) -> Line:
    if isinstance(answer, Failure):
        return {"failure": answer.reason}
    line: Line = {}
    add_tokens(line, answer)
    gold = verdict_row([verdict.passed for verdict in answer.verdicts])
    if all(verdict is None for verdict in gold):
        return line | {"failure": answer.failure or "no_verdicts: none of the principles was judged"}
    return line | {"gold": gold, "reasons": [verdict.reason for verdict in answer.verdicts]}
