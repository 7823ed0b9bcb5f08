"""`EditRRMReward`: edits in, verified rewards out; the reward that TRL, the edit trainers and everybody else call."""

from __future__ import annotations

import logging
import os
import re
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from editr1_plugins.errors import ConfigError
from editr1_plugins.principles.cache import MemoryCache, SqliteCache, principle_key
from editr1_plugins.reward.aggregate import (
    AGGREGATES,
    Aggregate,
    abstain,
    aggregate,
    apply_alarms,
    as_reward,
    merge_samples,
    settle_early,
)
from editr1_plugins.reward.answers import as_alarm, as_principles, as_verifications, per_edit
from editr1_plugins.reward.columns import EditColumns
from editr1_plugins.reward.containment import Failure, contained
from editr1_plugins.reward.journal import RecordWriter
from editr1_plugins.reward.metrics import BatchLogger
from editr1_plugins.reward.parts import Part, as_parts
from editr1_plugins.reward.record import EditRecord, RaisedAlarm, versions_of
from editr1_plugins.types import Alarm, Decomposer, Edit, Guard, NoPrinciples, Principle, Verification, Verifier

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "DECOMPOSER_VARIABLE",
    "DEFAULT_GUARD_NAMES",
    "VERIFIER_VARIABLE",
    "EditRRMReward",
    "PrincipleStore",
    "RecordSink",
]

#: The environment variables that name the verifier and the decomposer of `EditRRMReward()`.
VERIFIER_VARIABLE: Final = "EDITR1_VERIFIER"
DECOMPOSER_VARIABLE: Final = "EDITR1_DECOMPOSER"

#: The guards of `EditRRMReward()`. "drift" has to tell local from global edits by the instruction's words, and "text"
#: needs an extra and time: both are opt-in.
DEFAULT_GUARD_NAMES: Final = ("no-edit", "border", "size", "saturation", "sharpness", "dots", "collage")

_log = logging.getLogger(__name__)


class PrincipleStore(Protocol):
    """What `cache=` takes besides a path: see `editr1_plugins.principles.cache`; must not raise, and be thread-safe."""

    def get(self, key: str) -> tuple[Principle, ...] | None: ...

    def put(self, key: str, principles: tuple[Principle, ...]) -> object: ...


class RecordSink(Protocol):
    """What `record=` takes besides a directory; must be thread-safe."""

    def write(self, edit: Edit, record: EditRecord) -> object: ...


@dataclass
class _Case:
    """One edit on its way through the reward; `outcome` is set when nothing more is to be asked."""

    edit: Edit
    key: str = ""
    principles: tuple[Principle, ...] = ()
    judged: Verification | None = None
    scored: Verification | None = None
    outcome: Verification | None = None
    alarms: list[tuple[str, Alarm]] = field(default_factory=list)
    seconds: float | None = None
    batch: int = 0

    def raised(self) -> list[Alarm]:
        return [alarm for _, alarm in self.alarms]


class EditRRMReward:
    """The verifier-based reasoning reward of Edit-R1 (arXiv 2604.27505, section 3) as a reward function.

    Called with TRL's keyword signature it returns one float in 0..10 per completion, or None where the edit could not
    be judged; `score(edits)` is the same for everybody else. The way of every edit: principles (made once per source
    and instruction) -> guards that need no judge -> verifier -> aggregate -> guards -> reward and record.

    Whatever a verifier, decomposer or guard raises or returns, the call goes on: the rows concerned are None with the
    reason, and counted (`containment.contained` says how neighbours are spared). A guard that fails voids the scores it
    was to protect. What does end a call is a wrong set-up: a part that cannot be built, or edits that cannot be found.

    Args:
        verifier: an instance or a spec such as "measure"; default `$EDITR1_VERIFIER`, else the embedded `measure`.
        decomposer: an instance or a spec; default `$EDITR1_DECOMPOSER`, else "rules".
        guards: instances or specs; default `DEFAULT_GUARD_NAMES`, `()` for none.
        samples: how often each edit is judged; the scores are averaged. Each sample is one more item in the verifier's
            batch, so a backend that samples by itself (`n=` of a server) is cheaper told so in its own settings.
        aggregate: "score" (tau as judged) or "average" (10 x mean verdict, gated by Follow).
        min_samples: fewer usable samples give None.
        max_spread: a larger standard deviation of the samples' scores gives None.
        cache: where principles are kept: an object with `get` and `put`, or the path of an sqlite file that many
            processes can share; default: in memory.
        columns: where source, instruction and edited image are found, see `EditColumns`.
        record: a directory for one JSON line per edit and its images, or an object with `write(edit, record)`.
        name: `__name__`, under which trainers log; default "edit_rrm", or "edit_rrm_VERIFIER" when one is given.

    `row_wise` says that each edit is judged alone: the edit trainers judge a group while they sample another.

    An instance is thread-safe: parts that do not say `thread_safe = True` of themselves are called by one thread at a
    time. It pickles where the given instances do; parts from specs are rebuilt in the new process.

    Raises:
        ConfigError: a wrong argument, including an unknown or malformed spec.
    """

    row_wise: Final = True

    def __init__(
        self,
        verifier: Verifier | str | None = None,
        decomposer: Decomposer | str | None = None,
        guards: Sequence[Guard | str] = DEFAULT_GUARD_NAMES,
        *,
        samples: int = 1,
        aggregate: Aggregate = "score",
        min_samples: int = 1,
        max_spread: float | None = None,
        cache: PrincipleStore | str | os.PathLike[str] | None = None,
        columns: Mapping[str, str | Sequence[str]] | None = None,
        record: RecordSink | str | os.PathLike[str] | None = None,
        name: str | None = None,
    ) -> None:
        if aggregate not in AGGREGATES:
            raise ConfigError(f"aggregate must be one of {', '.join(AGGREGATES)}, got {aggregate!r}")
        if samples < 1 or min_samples < 1:
            raise ConfigError(f"samples and min_samples must be at least 1, got {samples} and {min_samples}")
        self._verifier: Part[Verifier] = Part("verifier", _default_verifier() if verifier is None else verifier)
        self._decomposer: Part[Decomposer] = Part(
            "decomposer", _default_decomposer() if decomposer is None else decomposer
        )
        self._guards: tuple[Part[Guard], ...] = as_parts("guard", guards)
        self._samples, self._aggregate = samples, aggregate
        self._min_samples, self._max_spread = min_samples, max_spread
        self._cache = _as_cache(cache)
        self._columns = EditColumns(columns)
        self._sink = _as_sink(record)
        self.__name__ = name or ("edit_rrm" if verifier is None else f"edit_rrm_{_word(self._verifier.name)}")
        self._logger = BatchLogger(self.__name__)

    def __repr__(self) -> str:
        guards = ", ".join(guard.name for guard in self._guards)
        return f"{type(self).__name__}({self._verifier.name}, {self._decomposer.name}, guards=[{guards}])"

    @property
    def settings(self) -> dict[str, Any]:
        """What the scores depend on besides the edits, as JSON-able data; builds the parts."""
        return {
            "verifier": self._verifier.identity,
            "decomposer": self._decomposer.identity,
            "guards": [guard.identity for guard in self._guards],
            "samples": self._samples,
            "aggregate": self._aggregate,
            "min_samples": self._min_samples,
            "max_spread": self._max_spread,
        }

    @property
    def versions(self) -> dict[str, str]:
        """`prompt_version` and `model_version` of the verifier, where it tells them; builds it."""
        found = zip(("prompt_version", "model_version"), versions_of(self._verifier.get()), strict=True)
        return {name: version for name, version in found if version is not None}

    def __call__(self, *, prompts: Sequence[Any], completions: Sequence[Any], **kwargs: Any) -> list[float | None]:
        """One reward in 0..10 per completion, or None; TRL's signature, see `EditColumns` for where edits are found.

        Raises:
            DataError: source, instruction or edited image is nowhere, or ambiguous.
            ConfigError, MissingExtraError, ComponentError: a part cannot be built.
        """
        found = self._columns.find(prompts, completions, kwargs)
        outcomes = self.score_rows(found)
        self._logger.log(outcomes, kwargs)
        return [as_reward(outcome) for outcome in outcomes]

    def score_rows(self, rows: Sequence[Edit | str]) -> list[Verification]:
        """`score`, where a text in an edit's place is the failure of a row that has none."""
        judged = iter(self.score([row for row in rows if isinstance(row, Edit)]))
        return [
            next(judged) if isinstance(row, Edit) else Verification(score=None, failure=row, samples=0) for row in rows
        ]

    def score(self, edits: Sequence[Edit]) -> list[Verification]:
        """One `Verification` per edit, in order; what could not be judged has a failure instead of a score.

        Raises:
            ConfigError, MissingExtraError, ComponentError: a part cannot be built.
        """
        cases = [_Case(edit=edit) for edit in edits]
        if not cases:
            return []
        self._decompose(cases)
        early = [guard for guard in self._guards if not guard.get().needs_judge]
        self._inspect(early, [case for case in cases if case.outcome is None])
        for case in cases:
            case.outcome = case.outcome or settle_early(case.raised())
        asked = [case for case in cases if case.outcome is None]
        self._verify(asked)
        self._inspect([guard for guard in self._guards if guard not in early], asked)
        outcomes = [_finished(case) for case in cases]
        self._write(cases, outcomes)
        return outcomes

    def _decompose(self, cases: Sequence[_Case]) -> None:
        """Give every case its principles, or the outcome that there are none; one request per (source, instruction)."""
        decomposer, identity = self._decomposer.get(), self._decomposer.identity
        digests: dict[tuple[int, str], str] = {}
        known: dict[str, tuple[Principle, ...] | None] = {}
        missing: dict[str, tuple[Image, str]] = {}
        for case in cases:
            source, instruction = case.edit.source, case.edit.instruction
            seen = (id(source), instruction)
            case.key = digests[seen] = digests.get(seen) or principle_key(source, instruction, identity)
            if case.key not in known:
                known[case.key] = self._cache.get(case.key)
                if not known[case.key]:
                    missing[case.key] = (source, instruction)
        requests = list(missing.values())
        made = contained(
            self._decomposer.label,
            lambda rows: self._decomposer.in_turn(decomposer.decompose, [requests[row] for row in rows]),
            lambda _, answer: as_principles(answer),
            list(missing),
        )
        failures: dict[str, str] = {}
        for key, answer in zip(missing, made, strict=True):
            if isinstance(answer, (Failure, NoPrinciples)):
                failures[key] = answer.reason if isinstance(answer, Failure) else answer.failure
            else:
                known[key] = answer
                self._cache.put(key, answer)
        for case in cases:
            case.principles = known[case.key] or ()
            if case.key in failures:
                case.outcome = Verification(score=None, failure=f"no_principles: {failures[case.key]}", samples=0)

    def _verify(self, cases: Sequence[_Case]) -> None:
        """Ask the verifier for all cases at once: `judged` is what it said, `scored` what the aggregate makes of it."""
        verifier, samples = self._verifier.get(), self._samples

        def ask(rows: list[int]) -> object:
            # Samples of one edit stay together, so that a backend can share their prompt.
            asked = [cases[row] for row in rows for _ in range(samples)]
            edits, principles = [case.edit for case in asked], [case.principles for case in asked]
            answers = self._verifier.in_turn(verifier.verify, edits, principles)
            return per_edit(answers, len(asked), samples)

        started = time.perf_counter()
        answers = contained(
            self._verifier.label,
            ask,
            lambda row, answer: merge_samples(as_verifications(answer, cases[row].principles)),
            [case.key for case in cases],
        )
        seconds = time.perf_counter() - started
        for case, answer in zip(cases, answers, strict=True):
            case.seconds, case.batch = seconds, len(cases)
            if isinstance(answer, Failure):
                case.judged = case.scored = Verification(score=None, failure=answer.reason, samples=0)
            else:
                case.judged, case.scored = answer, self._number(answer)

    def _number(self, judged: Verification) -> Verification:
        sure = abstain(judged, min_samples=self._min_samples, max_spread=self._max_spread)
        # "average" may find a number where tau is missing, but not where the judge was too unsure of its tau.
        return sure if sure != judged else aggregate(judged, self._aggregate)

    def _inspect(self, guards: Sequence[Part[Guard]], cases: Sequence[_Case]) -> None:
        """Collect the guards' alarms; a guard that fails voids, since nobody looked."""
        for part in guards:
            guard = part.get()

            def look(rows: list[int], part: Part[Guard] = part, guard: Guard = guard) -> object:
                chosen = [cases[row] for row in rows]
                scored = [case.scored for case in chosen if case.scored is not None]
                edits, principles = [case.edit for case in chosen], [case.principles for case in chosen]
                return part.in_turn(guard.inspect, edits, principles, scored)

            answers = contained(part.label, look, lambda _, answer: as_alarm(answer), [case.key for case in cases])
            for case, answer in zip(cases, answers, strict=True):
                if isinstance(answer, Failure):
                    answer = Alarm(flag="guard_failed", reason=answer.reason, cap=None)
                if answer is not None:
                    case.alarms.append((part.name, answer))

    def _write(self, cases: Sequence[_Case], outcomes: Sequence[Verification]) -> None:
        if self._sink is None:
            return
        prompt_version, model_version = versions_of(self._verifier.get())
        for case, outcome in zip(cases, outcomes, strict=True):
            record = EditRecord(
                instruction=case.edit.instruction,
                principles=case.principles,
                verification=outcome,
                judged_score=case.judged.score if case.judged else None,
                alarms=tuple(
                    RaisedAlarm(guard=guard, flag=alarm.flag, reason=alarm.reason, cap=alarm.cap)
                    for guard, alarm in case.alarms
                ),
                verifier=self._verifier.identity,
                decomposer=self._decomposer.identity,
                aggregate=self._aggregate,
                seconds=case.seconds,
                batch=case.batch,
                prompt_version=prompt_version,
                model_version=model_version,
            )
            try:
                self._sink.write(case.edit, record)
            except (OSError, TypeError, ValueError):
                # Neither a full disk nor a plugin's answer that is no JSON may cost the run.
                _log.warning("a record could not be written", exc_info=True)


def _finished(case: _Case) -> Verification:
    if case.outcome is not None:
        return case.outcome
    assert case.scored is not None  # every case without an early outcome was asked
    return apply_alarms(case.scored, case.raised())


def _as_cache(cache: PrincipleStore | str | os.PathLike[str] | None) -> PrincipleStore:
    if cache is None:
        return MemoryCache()
    return SqliteCache(cache) if isinstance(cache, (str, os.PathLike)) else cache


def _as_sink(record: RecordSink | str | os.PathLike[str] | None) -> RecordSink | None:
    return RecordWriter(record) if isinstance(record, (str, os.PathLike)) else record


def _word(name: str) -> str:
    return re.sub(r"\W+", "_", name)


def _default_decomposer() -> str:
    return os.environ.get(DECOMPOSER_VARIABLE, "").strip() or "rules"


_warned = threading.Event()


def _default_verifier() -> str:
    """The spec of the verifier nobody chose."""
    spec = os.environ.get(VERIFIER_VARIABLE, "").strip()
    if not spec and not _warned.is_set():
        _warned.set()
        warnings.warn(
            f"no verifier was given and ${VERIFIER_VARIABLE} is not set: using the embedded `measure`, which needs no "
            "model and judges what pixels can tell (recolour, remove, add, replace, background, tone; text with the "
            "extra [ocr]); other edits get None with the reason. Choose a judge with EditRRMReward(verifier=...) or "
            "the variable.",
            stacklevel=4,
        )
    return spec or "measure"
