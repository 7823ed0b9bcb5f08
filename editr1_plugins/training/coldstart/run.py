"""What the stages of one cold start share: its folder and stage files, the parts it uses, its limit, its progress."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ...reward.record import identity_of
from ...types import Decomposer, Principle, Verifier
from .asking import filter_version, gold_version, judge_system
from .config import ColdStartConfig, JudgeConfig
from .running import Lane, T, drain
from .store import Line, StageFile, StageFolder

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Editor", "Parts", "Progress", "Run", "chosen_lines", "parts_of", "principles_of", "settings_of"]

#: An editor of the caller's: (source, instruction, seed) -> the edited image.
Editor = Callable[["Image", str, int], "Image"]

#: What a stage's outcomes depend on beside its own settings.
_BEFORE: Final[Mapping[str, tuple[str, ...]]] = {
    "filter": (),
    "select": (),
    "decompose": ("select",),
    "candidates": ("select",),
    "traces": ("decompose", "candidates"),
    "verify": ("traces",),
}
#: Settings that change how fast or how dear a stage is, or where a model is served, but no outcome.
_RUNTIME: Final = ("price", "batch_size", "device", "ray", "ray_gpus")
_RUNTIME_OPTIONS: Final = ("concurrency", "timeout", "max_retries", "api_key", "max_response_bytes")
_ADDRESS: Final = re.compile(r"@https?://\S+")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a stage is: `done` of `total` items, `failed` of them with a reason, `resumed` by earlier runs."""

    stage: str
    done: int
    total: int
    failed: int
    resumed: int


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the caller gives as objects, in the place of specs: by the names in the configuration."""

    rows: Sequence[Mapping[str, Any]] | None = None
    judges: Mapping[str, Verifier] = field(default_factory=dict)
    gold: Verifier | None = None
    decomposer: Decomposer | None = None
    editors: Mapping[str, Editor] = field(default_factory=dict)


class Run:
    """One run over a folder; use it as a context, so that files are closed.

    With `read_only`, nothing is written and only stages that were begun (`exists`) have a file.
    """

    def __init__(
        self,
        config: ColdStartConfig,
        parts: Parts,
        *,
        limit: int | None = None,
        retry_failed: bool = False,
        progress: Callable[[Progress], None] | None = None,
        read_only: bool = False,
    ) -> None:
        self.config, self.parts, self.limit, self.retry_failed = config, parts, limit, retry_failed
        self.folder = StageFolder(config.output, read_only=read_only)
        self._progress = progress
        self._files: dict[str, StageFile] = {}
        self._selected: list[Line] | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._files.clear()

    def file(self, stage: str) -> StageFile:
        """The file of a stage, opened with those that it builds on.

        Raises:
            ConfigError, DataError: as `StageFile`.
        """
        if stage not in self._files:
            before = "+".join(self.file(name).digest for name in _BEFORE[stage])
            made = StageFile(
                self.folder.stage(stage),
                stage,
                settings_of(self.config, stage, self.parts),
                before,
                read_only=self.folder.read_only,
            )
            self._stack.callback(made.close)
            self._files[stage] = made
        return self._files[stage]

    def exists(self, stage: str) -> bool:
        """Whether the stage was begun, by this run or an earlier one."""
        begun = stage in self._files or self.folder.stage(stage).exists()
        return begun and all(self.exists(name) for name in _BEFORE[stage])

    def pending(self, file: StageFile, keys: Iterable[str]) -> list[str]:
        """The items that have no outcome yet (or, with `retry_failed`, a reason instead of one)."""
        return [key for key in keys if key not in file or (self.retry_failed and file.failed(key))]

    def attempt(self, file: StageFile, key: str) -> int:
        """How often the item was tried before: it takes another seed each time."""
        return int(file.get(key).get("attempt", 0)) + 1 if key in file else 0

    def work(self, file: StageFile, keys: Sequence[str], lanes: Sequence[Lane[T]]) -> None:
        """Work lanes off and write what they find; `keys` are all items of the stage, for the progress."""
        wanted = set(keys)
        done = {key for key in keys if key in file}
        failed = {key for key in done if file.failed(key)}
        resumed = len(done)

        def report() -> None:
            if self._progress is not None:
                self._progress(
                    Progress(stage=file.stage, done=len(done), total=len(wanted), failed=len(failed), resumed=resumed)
                )

        def write(lines: list[Line]) -> None:
            file.append(lines)
            self._selected = None if file.stage == "select" else self._selected
            for line in lines:
                if line["key"] in wanted:
                    done.add(line["key"])
                    (failed.discard if line.get("failure") is None else failed.add)(line["key"])
            report()

        report()
        drain(lanes, write)

    def selected(self) -> list[Line]:
        """The rows that were selected and whose source is kept, in their order, up to the limit."""
        if self._selected is None:
            self._selected = self._read_selected()
        return self._selected

    def _read_selected(self) -> list[Line]:
        file = self.file("select")
        lines = [file.get(key) for key in file if not key.startswith("#")]
        lines.sort(key=lambda line: (line["place"], line["part"]))
        allowed = parts_of(self.config, self.limit)
        return [
            line
            for line in lines
            if line.get("failure") is None and (allowed[line["part"]] is None or line["place"] < allowed[line["part"]])
        ]


def parts_of(config: ColdStartConfig, limit: int | None) -> dict[str, int | None]:
    """How many random and hard rows are wanted, None for all: a limit takes the first of both in their proportion."""
    random, hard = config.select.random, config.select.hard
    if limit is None:
        return {"random": random, "hard": hard}
    if random is None:
        return {"random": limit, "hard": 0}
    few = min(random, -(-limit * random // max(1, random + hard)))
    return {"random": few, "hard": min(hard, limit - few)}


def settings_of(config: ColdStartConfig, stage: str, parts: Parts) -> dict[str, Any]:
    """What a stage's outcomes depend on, as data."""
    if stage == "filter":
        return {"filter": _filter(config)}
    if stage == "select":
        data = {name: value for name, value in asdict(config.data).items() if name != "images"}
        data["name"] = "rows of the caller" if parts.rows is not None else Path(config.data.name).name
        columns = sorted(each.column for each in config.candidates if each.column is not None)
        select = {name: value for name, value in asdict(config.select).items() if name != "filter"}
        select["filter"] = _filter(config)
        return {"seed": config.seed, "data": data, "candidates.columns": columns, "select": select}
    if stage == "decompose":
        who = _who(config.decompose.spec, parts.decomposer)
        return {"decompose": {"spec": who}}
    if stage == "candidates":
        return {"seed": config.seed, "candidates": {each.name: _kept(each) for each in config.candidates}}
    if stage == "traces":
        judges = {each.name: _judge(each, parts.judges.get(each.name)) for each in config.traces.judges}
        return {"seed": config.seed, "traces": {"judges_per_edit": config.traces.judges_per_edit, "judges": judges}}
    gold = {**_kept(config.verify), "spec": _who(config.verify.spec, parts.gold), "prompt": gold_version()}
    return {"seed": config.seed, "verify": gold}


def _filter(config: ColdStartConfig) -> dict[str, Any] | None:
    asked = config.select.filter
    return None if asked is None else {**_kept(asked), "prompt": filter_version()}


def _judge(config: JudgeConfig, given: Verifier | None) -> dict[str, Any]:
    kept = _kept(config) | {"spec": _who(config.spec, given), "system": judge_system(config)}
    del kept["system_file"], kept["name"]
    return kept


def _kept(config: Any) -> dict[str, Any]:
    kept = {name: value for name, value in asdict(config).items() if name not in _RUNTIME}
    if "options" in kept:
        kept["options"] = {name: value for name, value in kept["options"].items() if name not in _RUNTIME_OPTIONS}
    if isinstance(kept.get("spec"), str):
        kept["spec"] = _ADDRESS.sub("", kept["spec"])
    if isinstance(kept.get("folder"), str):
        kept["folder"] = Path(kept["folder"]).name
    return kept


def _who(spec: str | None, given: object) -> str:
    """A spec without its address, or who the caller's object is."""
    return _ADDRESS.sub("", identity_of(given) if given is not None else spec or "")


def principles_of(line: Line) -> tuple[Principle, ...]:
    """The principles in a line of the stage "decompose"."""
    return tuple(Principle(question=each["question"], category=each["category"]) for each in line["principles"])


def chosen_lines(run: Run) -> Iterator[Line]:
    """The lines of the stage "choose"; none where it was not run."""
    path = run.folder.stage("choose")
    if path.exists():
        with open(path, encoding="ascii") as file:
            for line in file:
                yield json.loads(line)
