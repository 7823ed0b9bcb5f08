"""What a run would still ask for: calls, tokens and cost, before anything is asked. Reads the data, writes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from ...backends.chat import ChatRequest
from ...types import FOLLOW, Edit, Principle
from .asking import filter_request, gold_request, judge_system, trace_request
from .candidates import units_of
from .config import STAGES, ColdStartConfig, Price, Stage
from .report import Spent, cost_of, report_of
from .run import Parts, Run, parts_of
from .select import SCAN, scan_rows

__all__ = ["Estimate", "EstimateLine", "estimate_coldstart"]

_CHAT: Final = ("openai:", "transformers:", "vlm:", "first:")
_QUESTION: Final = "Is the requested change made, and is everything that nobody mentioned as it was before?"


@dataclass(frozen=True, kw_only=True)
class EstimateLine:
    """One model or editor of a stage: `calls` still to make, their tokens, and the cost (None without a price).

    `measured`: tokens per call are the mean of what earlier calls took, not an assumption.
    """

    stage: str
    who: str
    calls: int
    prompt: int = 0
    completion: int = 0
    cost: float | None = None
    measured: bool = False


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """`rows` selected or to be selected, `candidates` known or expected; `cost` is of all lines that have a price."""

    rows: int
    candidates: int
    lines: tuple[EstimateLine, ...]
    cost: float | None


def estimate_coldstart(
    config: ColdStartConfig,
    parts: Parts | None = None,
    *,
    stages: Sequence[Stage] = STAGES,
    limit: int | None = None,
) -> Estimate:
    """Count what the stages would ask for beyond what the folder holds already.

    Exact are the calls, save those of the filter, and images of columns and folders that were not looked at yet (one
    per row is assumed). Tokens are `config.estimate`'s assumptions, or the mean of earlier calls.

    Raises:
        ConfigError, DataError: as `run_coldstart`.
    """
    with Run(config, parts or Parts(), limit=limit, read_only=True) as run:
        counter = _Counter(run)
        lines = [line for stage in STAGES if stage in stages for line in counter.lines(stage)]
    costs = [line.cost for line in lines if line.cost is not None]
    return Estimate(
        rows=counter.rows, candidates=counter.candidates, lines=tuple(lines), cost=sum(costs) if costs else None
    )


class _Counter:
    def __init__(self, run: Run) -> None:
        self.run, self.config, self.assumed = run, run.config, run.config.estimate
        self._spent = report_of(run).spent
        self._keys, self._asked = self._rows()
        self.rows = len(self._keys)
        self._candidates = self._expected_candidates()
        self.candidates = len(self._candidates)
        self._requests = _typical(self.config)

    def lines(self, stage: Stage) -> Iterable[EstimateLine]:
        if stage == "select" and self.config.select.filter is not None:
            asked = self.config.select.filter
            prompt = self._tokens(filter_request(_QUESTION))
            yield self._line(stage, "select.filter", self._asked, prompt, self.assumed.filter_tokens, asked.price)
        elif stage == "decompose":
            spec = self.config.decompose.spec or "an object of the caller"
            calls = len(self._pending("decompose", self._keys))
            chat = spec.startswith(_CHAT)
            prompt = self._tokens(self._requests[0]) - self.assumed.tokens_per_image if chat else 0
            completion = self.assumed.principles_tokens if chat else 0
            yield self._line(stage, spec.partition("@http")[0], calls, prompt, completion, self.config.decompose.price)
        elif stage == "candidates":
            pending = self._pending("candidates", units := units_of(self.config.candidates, self._keys))
            for editor in self.config.candidates:
                yield EstimateLine(stage=stage, who=editor.name, calls=sum(units[key][1] is editor for key in pending))
        elif stage == "traces":
            yield from self._traces()
        elif stage == "verify":
            yield self._gold()

    def _traces(self) -> Iterable[EstimateLine]:
        from .traces import asked_judges

        keys = [f"{each}/{judge.name}" for each in self._candidates for judge in asked_judges(self.run, each)]
        pending = self._pending("traces", keys)
        for judge, request in zip(self.config.traces.judges, self._requests, strict=True):
            calls = sum(key.rpartition("/")[2] == judge.name for key in pending)
            chat = (judge.spec or "").startswith(_CHAT)
            prompt = self._tokens(request) if chat else 0
            completion = judge.samples * self.assumed.trace_tokens if chat else 0
            yield self._line("traces", f"traces.{judge.name}", calls, prompt, completion, judge.price)

    def _gold(self) -> EstimateLine:
        gold = self.config.verify
        calls = len(self._pending("verify", self._candidates))
        if gold.as_verifier and gold.spec:
            prompt = self._tokens(trace_request(_edit(), _principles(self.config), "think+verify", ""))
            return self._line("verify", "verify", calls, prompt, self.assumed.trace_tokens, gold.price)
        if not (gold.spec or "").startswith(_CHAT):
            return self._line("verify", "verify", calls, 0, 0, gold.price)
        drawn = sum(judge.samples for judge in self.config.traces.judges)
        shown = min(gold.references, drawn) * self.assumed.trace_tokens
        prompt = self._tokens(gold_request(_edit(), _principles(self.config), [])) + shown
        return self._line("verify", "verify", calls, prompt, self.assumed.gold_tokens, gold.price)

    def _line(self, stage: str, who: str, calls: int, prompt: int, done: int, price: Price | None) -> EstimateLine:
        """`prompt` and `done` are tokens of one call, unless earlier calls tell better."""
        spent = self._spent.get(who, Spent())
        measured = spent.requests > 0 and spent.prompt + spent.completion > 0
        each = (prompt, done)
        if measured:
            each = (spent.prompt // spent.requests, spent.completion // spent.requests)
        prompt, done = calls * each[0], calls * each[1]
        return EstimateLine(
            stage=stage,
            who=who,
            calls=calls,
            prompt=prompt,
            completion=done,
            cost=cost_of(price, prompt, 0, done),
            measured=measured,
        )

    def _pending(self, stage: str, keys: Iterable[str]) -> list[str]:
        return self.run.pending(self.run.file(stage), keys) if self.run.exists(stage) else list(keys)

    def _rows(self) -> tuple[list[str], int]:
        """Keys of the rows that are, or would be, selected; and how often the filter would be asked."""
        wanted = parts_of(self.config, self.run.limit)
        if self.run.exists("select") and SCAN in self.run.file("select"):
            rows = [line["key"] for line in self.run.selected()]
            if wanted["random"] is None or len(rows) >= wanted["random"] + (wanted["hard"] or 0):
                return rows, 0
        scan = scan_rows(self.run)
        hard = wanted["hard"] or 0
        keys = [row.key for row in scan.random[: wanted["random"]]]
        if self.config.select.filter is None:
            return keys + [row.key for row in scan.pool[:hard]], 0
        asked = min(len(scan.pool), round(hard / max(self.assumed.filter_keeps, 0.01)))
        pending = len(self._pending("filter", [row.key for row in scan.pool[:asked]]))
        kept = min(hard, round(asked * self.assumed.filter_keeps))
        return keys + [row.key for row in scan.pool[:kept]], pending

    def _expected_candidates(self) -> list[str]:
        """Keys of the candidates: those there are, and one for each unit that was not made yet."""
        made = self.run.file("candidates") if self.run.exists("candidates") else None
        found: list[str] = []
        for unit, (_, editor, _) in units_of(self.config.candidates, self._keys).items():
            if made is not None and unit in made:
                found += [] if made.failed(unit) else list(made.get(unit)["candidates"])
            else:
                found.append(unit if editor.column is None and editor.folder is None else f"{unit}/0")
        return found

    def _tokens(self, request: ChatRequest) -> int:
        texts = [request.system, *(part for part in request.parts if isinstance(part, str))]
        images = sum(not isinstance(part, str) for part in request.parts)
        characters = sum(len(text) for text in texts)
        return round(characters / self.assumed.characters_per_token) + images * self.assumed.tokens_per_image


def _typical(config: ColdStartConfig) -> list[ChatRequest]:
    """A request of each judge."""
    edit, asked = _edit(), _principles(config)
    return [trace_request(edit, asked, judge.mode, judge_system(judge)) for judge in config.traces.judges]


def _principles(config: ColdStartConfig) -> list[Principle]:
    return [Principle(question=_QUESTION, category=FOLLOW)] * max(1, config.estimate.principles)


def _edit() -> Edit:
    from PIL import Image

    image = Image.new("RGB", (8, 8))
    return Edit(source=image, edited=image, instruction=_QUESTION)
