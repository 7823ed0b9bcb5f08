"""The configuration of a cold start; `config_file` reads it from YAML.

Paths are relative to the working directory. Prices are those that the configuration gives; none are built in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from ...errors import ConfigError
from ...verifiers.prompting import MODES, Mode

__all__ = [
    "STAGES",
    "TRAITS",
    "ChooseConfig",
    "ColdStartConfig",
    "DataConfig",
    "DatasetConfig",
    "DecomposeConfig",
    "EditorConfig",
    "EstimateConfig",
    "FilterConfig",
    "GoldConfig",
    "JudgeConfig",
    "Price",
    "SelectConfig",
    "Stage",
    "TracesConfig",
]

Stage = Literal["select", "decompose", "candidates", "traces", "verify", "choose", "dataset"]
STAGES: Final[tuple[Stage, ...]] = get_args(Stage)
#: What makes an instruction hard (see `select.traits_of`).
TRAITS: Final = ("multi-step", "fine-grained", "implicit", "spatial")


@dataclass(frozen=True, kw_only=True)
class Price:
    """What a million tokens cost, in any currency; `cached`: prompt tokens from a cache (None: as the others)."""

    prompt: float
    completion: float
    cached: float | None = None


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where (source, instruction) rows come from: a file, folder or id that `training.edit_data.load_edit_data` reads.

    `images` is the folder below which names in columns of ready candidates lie; default: that of the file.
    """

    name: str = ""
    config: str | None = None
    split: str = "train"
    source_column: str = "source"
    instruction_column: str = "instruction"
    id_column: str = "id"
    images: str | None = None


@dataclass(frozen=True, kw_only=True)
class FilterConfig:
    """A model that is asked whether an instruction is a simple one-step edit; such rows are no hard ones.

    `options` go to the client of an `openai:` spec: `concurrency`, `timeout`, `max_retries`, `extra_body`.
    """

    spec: str | None = None
    max_tokens: int = 512
    options: Mapping[str, Any] = field(default_factory=dict)
    price: Price | None = None


@dataclass(frozen=True, kw_only=True)
class SelectConfig:
    """How many rows: `random` ones (None: all), and `hard` ones among the others.

    A row is hard where its instruction has one of the `traits` (none named: any row may be) and where the `filter`, if
    there is one, does not call it simple.
    """

    random: int | None = None
    hard: int = 0
    traits: tuple[str, ...] = TRAITS
    filter: FilterConfig | None = None


@dataclass(frozen=True, kw_only=True)
class DecomposeConfig:
    """Who writes the principles."""

    spec: str | None = "rules"
    batch_size: int = 32
    price: Price | None = None


@dataclass(frozen=True, kw_only=True)
class EditorConfig:
    """Who makes candidates: a diffusers `pipeline` (folder or hub id), or images that are there already.

    These stand in a `column` (an image, a file name, or a list of either), or in a `folder` whose files have the row's
    id as their name, with "-1", "-2", ... added where there are several.

    `call` holds arguments of the pipeline's call, `load` those of `from_pretrained` (`dtype`: float32 on a CPU, else
    bfloat16, unless given); `count` is of candidates per row.
    With none of the three, an editor of this name is given to `run_coldstart`.
    """

    name: str
    pipeline: str | None = None
    column: str | None = None
    folder: str | None = None
    call: Mapping[str, Any] = field(default_factory=dict)
    load: Mapping[str, Any] = field(default_factory=dict)
    device: str | None = None
    count: int = 1


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """One judge of the pool: a verifier's spec and how it is asked; `samples` traces of each candidate.

    `system` (or the text of `system_file`) is put before the judge's own rules; the form of the answer stays. Where the
    spec is no chat model (`measure`, a plugin), it is called `samples` times and `system`, `temperature` and
    `max_tokens` have no meaning; `mode` says in what form a trace is written that it does not give itself. `ray` is
    how many workers of Ray (extra [ray]) call such a verifier, `ray_gpus` the GPUs that each of them takes.
    """

    name: str
    spec: str | None = None
    mode: Mode = "think+verify"
    samples: int = 1
    temperature: float = 0.7
    max_tokens: int = 2048
    system: str = ""
    system_file: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    price: Price | None = None
    ray: int | None = None
    ray_gpus: float | None = None


@dataclass(frozen=True, kw_only=True)
class TracesConfig:
    """The pool. `judges_per_edit`: so many of them, drawn for each candidate; None: all."""

    judges: tuple[JudgeConfig, ...] = ()
    judges_per_edit: int | None = None
    batch_size: int = 32


@dataclass(frozen=True, kw_only=True)
class GoldConfig:
    """The strong judge. A chat model gets our prompt with up to `references` traces.

    The verdicts of any other verifier are taken as they are; with `as_verifier` those of a chat model as well, which is
    asked as its spec asks any edit then.
    """

    spec: str | None = None
    temperature: float = 0.0
    max_tokens: int = 4096
    references: int = 8
    as_verifier: bool = False
    batch_size: int = 32
    options: Mapping[str, Any] = field(default_factory=dict)
    price: Price | None = None


@dataclass(frozen=True, kw_only=True)
class ChooseConfig:
    """`min_accuracy`: a candidate whose best trace agrees less often with the gold verdicts (0..1) is left out."""

    min_accuracy: float = 0.0


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """`title` and `license` stand in the data card; `shard_rows` is the most rows of one Parquet file."""

    title: str = "Edit judge traces"
    license: str | None = None
    shard_rows: int = 10_000


@dataclass(frozen=True, kw_only=True)
class EstimateConfig:
    """What `--dry-run` assumes where nothing was measured yet: tokens of one image and of one reply of each kind,
    principles per row, and the share of rows that the filter does not call simple."""

    tokens_per_image: int = 1300
    filter_tokens: int = 20
    principles_tokens: int = 500
    trace_tokens: int = 700
    gold_tokens: int = 600
    characters_per_token: float = 4.0
    principles: int = 10
    filter_keeps: float = 0.5


@dataclass(frozen=True, kw_only=True)
class ColdStartConfig:
    """Everything about one cold start. `output` is its folder; `seed` and a row's content decide what is drawn."""

    output: str
    seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    select: SelectConfig = field(default_factory=SelectConfig)
    decompose: DecomposeConfig = field(default_factory=DecomposeConfig)
    candidates: tuple[EditorConfig, ...] = ()
    traces: TracesConfig = field(default_factory=TracesConfig)
    verify: GoldConfig = field(default_factory=GoldConfig)
    choose: ChooseConfig = field(default_factory=ChooseConfig)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    estimate: EstimateConfig = field(default_factory=EstimateConfig)

    def __post_init__(self) -> None:
        _check(self)


def _check(config: ColdStartConfig) -> None:
    least = {
        "select.random": (config.select.random or 0, 0),
        "select.hard": (config.select.hard, 0),
        "decompose.batch_size": (config.decompose.batch_size, 1),
        "traces.batch_size": (config.traces.batch_size, 1),
        "traces.judges_per_edit": (config.traces.judges_per_edit or 1, 1),
        "verify.batch_size": (config.verify.batch_size, 1),
        "verify.references": (config.verify.references, 0),
        "dataset.shard_rows": (config.dataset.shard_rows, 1),
        **{f"candidates.{each.name}.count": (each.count, 1) for each in config.candidates},
        **{f"traces.judges.{each.name}.samples": (each.samples, 1) for each in config.traces.judges},
        **{f"traces.judges.{each.name}.ray": (each.ray or 1, 1) for each in config.traces.judges},
    }
    for name, (value, bound) in least.items():
        if value < bound:
            raise ConfigError(f"{name} must be at least {bound}, got {value}")
    if unknown := [trait for trait in config.select.traits if trait not in TRAITS]:
        raise ConfigError(f"select.traits: no trait {unknown[0]!r}; there are: {', '.join(TRAITS)}")
    if not 0.0 <= config.choose.min_accuracy <= 1.0:
        raise ConfigError(f"choose.min_accuracy must lie in 0..1, got {config.choose.min_accuracy}")
    _check_names("candidates", [each.name for each in config.candidates])
    _check_names("traces.judges", [each.name for each in config.traces.judges])
    for editor in config.candidates:
        if sum(way is not None for way in (editor.pipeline, editor.column, editor.folder)) > 1:
            raise ConfigError(f"candidates.{editor.name}: give one of pipeline, column and folder")
    for judge in config.traces.judges:
        if judge.mode not in MODES:
            raise ConfigError(f"traces.judges.{judge.name}.mode={judge.mode!r}: one of {', '.join(MODES)}")
        if judge.system and judge.system_file:
            raise ConfigError(f"traces.judges.{judge.name}: give either system or system_file")


def _check_names(where: str, names: list[str]) -> None:
    for name in names:
        # A name is part of item keys and of files that people read.
        if not name or not all(character.isalnum() or character in "._-" for character in name):
            raise ConfigError(f"{where}: the name {name!r} is malformed; use letters, digits, '.', '_' and '-'")
        if names.count(name) > 1:
            raise ConfigError(f"{where}: two are named {name!r}")
