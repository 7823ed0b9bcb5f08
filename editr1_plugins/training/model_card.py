"""The model card of a run: base model, judge, recipe, data, curves, results, versions, as the trainer knows them.

Everything that comes from a configuration, a data set or a judge is written as plain text without credentials
(`card_text`), and local paths by their last part only.
"""

from __future__ import annotations

import dataclasses
import math
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from transformers import TrainingArguments

from ..errors import Editr1Error
from .card_text import known_secrets, plain_text, redacted

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

    from .edit_trainer import EditGRPOTrainer

__all__ = ["draw_curves", "model_card"]

_TEMPLATE: Final = Path(__file__).with_name("model_card_template.md")
_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_CURVES: Final = "curves.png"
_SHOWN_INSTRUCTIONS: Final = 4
_PACKAGES: Final = ("editr1-plugins", "torch", "transformers", "diffusers", "peft", "accelerate", "trl", "datasets")
#: Settings of `TrainingArguments` that decide what is learned; the rest says where and how it ran.
_RECIPE: Final = (
    *("learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "optim"),
    *("lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "max_steps", "num_train_epochs", "seed", "data_seed"),
    *("per_device_train_batch_size", "gradient_accumulation_steps", "bf16", "activation_checkpointing"),
)
#: Settings of ours that do not change what is learned.
_ELSEWHERE: Final = frozenset({"eval_images", "judge_patience", "log_completions", "preflight"})


def model_card(
    trainer: EditGRPOTrainer, title: str, results: Mapping[str, float] | None = None, **data: Any
) -> ModelCard:
    """The card of what `trainer` has trained; draws `curves.png` into its output folder where matplotlib is installed.

    Args:
        title: of the card.
        results: more measures, e.g. of a gold measure or a benchmark, by name.
        data: metadata of the card (`license`, `language`, `tags`, ...), as `huggingface_hub.ModelCardData` takes it.
    """
    from huggingface_hub import ModelCard, ModelCardData

    secrets = known_secrets(trainer.args.hub_token)
    base, history = _base(trainer), trainer.state.log_history
    folder = Path(trainer.args.output_dir)
    tags = list(dict.fromkeys(["image-to-image", "editr1-plugins", "grpo", *_as_list(data.pop("tags", None))]))
    if trainer.policy.uses_lora:
        tags.append("lora")
    metadata = {"library_name": "diffusers", "pipeline_tag": "image-to-image", "base_model": base, "tags": tags, **data}
    found = {name: value for name, value in metadata.items() if value}

    def plain(value: object) -> str:
        return plain_text(value, secrets)

    content = _template().render(
        card_data=ModelCardData(**found).to_yaml(),
        title=plain(title),
        kind="A LoRA adapter" if trainer.policy.uses_lora else "A fine-tuned version",
        base=f"[{base}](https://huggingface.co/{base})" if base else plain(_pipeline_name(trainer)),
        usage=_usage(trainer, base),
        judges=_judges(trainer, plain),
        summary=_summary(trainer),
        config=type(trainer.args).__name__,
        recipe=[[plain(cell) for cell in line] for line in _recipe(trainer.args)],
        adapter=[plain(line) for line in _adapter(trainer)],
        data=[{name: plain(cell) for name, cell in part.items()} for part in _data(trainer)],
        instructions=[plain(text) for text in _instructions(trainer)],
        results=[[plain(cell) for cell in line] for line in _results(history, results or {})],
        curve=_CURVES if draw_curves(history, folder / _CURVES) else None,
        sheet=_latest_sheet(folder),
        versions=_versions(),
    )
    # Once more over the whole, metadata included: a value may have come in by a way that nobody thought of.
    return ModelCard(redacted(content, secrets))


def _template() -> Any:
    import jinja2  # which torch brings along

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATE.parent),
        autoescape=False,  # Markdown; every value goes through `plain_text`
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(_TEMPLATE.name)


def _base(trainer: EditGRPOTrainer) -> str | None:
    """The hub id that the pipeline came from; None for a local one."""
    name = str(getattr(trainer.pipe, "name_or_path", "") or "")
    return name if _HUB_ID.fullmatch(name) and not Path(name).exists() else None


def _pipeline_name(trainer: EditGRPOTrainer) -> str:
    name = Path(str(getattr(trainer.pipe, "name_or_path", "") or "")).name
    return f"{type(trainer.pipe).__name__} {name}".strip()


def _usage(trainer: EditGRPOTrainer, base: str | None) -> str:
    repository = trainer.args.hub_model_id or ""
    mine = repository if _HUB_ID.fullmatch(repository) else "THIS_REPOSITORY"
    if not trainer.policy.uses_lora:
        return f'from diffusers import DiffusionPipeline\n\npipe = DiffusionPipeline.from_pretrained("{mine}")'
    loaded = f'pipe = DiffusionPipeline.from_pretrained("{base or "THE_BASE_MODEL"}")\npipe.load_lora_weights("{mine}")'
    return f"from diffusers import DiffusionPipeline\n\n{loaded}"


def _judges(trainer: EditGRPOTrainer, plain: Any) -> list[dict[str, Any]]:
    functions, weights = trainer.reward_functions, trainer.reward_weights.tolist()
    judges = []
    for function, name, weight in zip(functions.functions, functions.names, weights, strict=True):
        try:
            told = [getattr(function, name, None) for name in ("settings", "versions")]
        except Editr1Error as error:  # a part that cannot be built here
            told = [{"settings": f"not known ({error})"}]
        shown = [pair for part in told if isinstance(part, Mapping) for pair in part.items()]
        what = getattr(function, "__qualname__", type(function).__qualname__)
        judges.append(
            {
                "name": plain(name),
                "weight": f"{weight:g}",
                "settings": [(plain(key), plain(_listed(value))) for key, value in shown],
                "what": f"the function {plain(what)}",
            }
        )
    return judges


def _listed(value: Any) -> Any:
    return (", ".join(map(str, value)) or "none") if isinstance(value, (list, tuple)) else value


def _summary(trainer: EditGRPOTrainer) -> str:
    args, state = trainer.args, trainer.state
    rollouts = math.ceil(trainer._passes / (args.steps_per_generation * args.num_iterations))
    prompts = args.generation_batch_size // args.num_generations
    return (
        f"Objective {plain_text(args.objective)}: {state.global_step} updates from {rollouts} rollouts of {prompts} x"
        f" {args.num_generations} edits, learning rate {args.learning_rate:g}, on {trainer.accelerator.num_processes}"
        " process(es). Settings that differ from the defaults:"
    )


def _recipe(args: Any) -> list[tuple[str, Any, Any]]:
    """(name, value, default) of every setting that matters and is not the default of `EditGRPOConfig`'s own class."""
    hosts = {field.name for field in dataclasses.fields(TrainingArguments)}
    changed = []
    for field in dataclasses.fields(args):
        if field.name in _ELSEWHERE or (field.name in hosts and field.name not in _RECIPE):
            continue
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        value = getattr(args, field.name)
        if value != default and not (
            field.name == "steps_per_generation" and value == args.gradient_accumulation_steps
        ):
            changed.append((field.name, getattr(value, "value", value), default))
    return changed


def _adapter(trainer: EditGRPOTrainer) -> list[str]:
    count = sum(parameter.numel() for parameter in trainer.policy.network.parameters() if parameter.requires_grad)
    lines = [f"{count:,} trained parameters of {type(trainer.policy.network).__name__}"]
    if trainer.policy.uses_lora:
        config = trainer.policy.network.peft_config[trainer.policy.adapter]
        targets = config.target_modules
        named = ", ".join(sorted(targets)) if isinstance(targets, (set, list, tuple)) else targets
        lines.append(f"LoRA rank {config.r}, alpha {config.lora_alpha}, on {named}")
    if trainer.args.ema_decay is not None:
        lines.append(f"weights are the moving average with decay {trainer.args.ema_decay:g}")
    return lines


def _data(trainer: EditGRPOTrainer) -> list[dict[str, Any]]:
    held_out = trainer.eval_dataset if isinstance(trainer.eval_dataset, dict) else {"": trainer.eval_dataset}
    sets = {"training": trainer.train_dataset, **{f"held out {name}".strip(): each for name, each in held_out.items()}}
    return [_described(role, dataset) for role, dataset in sets.items() if dataset is not None]


def _described(role: str, dataset: Any) -> dict[str, Any]:
    info = getattr(dataset, "info", None)
    name = getattr(info, "dataset_name", None) or getattr(info, "builder_name", None)
    split = getattr(dataset, "split", None)
    return {
        "role": role,
        "rows": len(dataset) if hasattr(dataset, "__len__") else "a stream",
        "name": " ".join(str(part) for part in (name, split) if part) or type(dataset).__name__,
        "fingerprint": getattr(dataset, "_fingerprint", None) or "none",
        "columns": ", ".join(getattr(dataset, "column_names", None) or ()) or "not told",
    }


def _instructions(trainer: EditGRPOTrainer) -> list[str]:
    """Some different instructions of the training set."""
    dataset = trainer.train_dataset
    if dataset is None or not hasattr(dataset, "__len__"):
        return []
    prompts: Iterable[Any]
    if "prompt" in (getattr(dataset, "column_names", None) or ()):
        prompts = (dataset["prompt"][i] for i in range(min(len(dataset), 100)))
    else:
        prompts = (dataset[i]["prompt"] for i in range(min(len(dataset), 100)))
    return [str(prompt) for prompt in islice(dict.fromkeys(prompts), _SHOWN_INSTRUCTIONS)]


def _series(history: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
    found = [(int(logs["step"]), float(logs[name])) for logs in history if name in logs and "step" in logs]
    return [(step, value) for step, value in found if math.isfinite(value)]


def _measures(history: Sequence[Mapping[str, Any]]) -> list[str]:
    names = dict.fromkeys(name for logs in history for name in logs)
    timing = ("_runtime", "_per_second", "_unscored")
    held_out = [name for name in names if name.startswith("eval_") and "reward" in name and not name.endswith(timing)]
    return ["reward", *held_out] if "reward" in names else held_out


def _results(history: Sequence[Mapping[str, Any]], more: Mapping[str, float]) -> list[tuple[str, str, str, str]]:
    lines = []
    for name in _measures(history):
        if values := [value for _, value in _series(history, name)]:
            shown = "reward while training" if name == "reward" else name
            lines.append((shown, f"{values[0]:.3f}", f"{max(values):.3f}", f"{values[-1]:.3f}"))
    return [*lines, *((name, "", "", f"{value:.3f}") for name, value in more.items())]


def draw_curves(history: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """Draw reward and held-out reward over updates into a PNG; False without values, or without matplotlib."""
    names = [name for name in _measures(history) if name == "reward" or name.endswith("_reward")]
    series = {name: points for name in names if len(points := _series(history, name)) > 1}
    if not series or find_spec("matplotlib") is None:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, points in series.items():
        label = "while training" if name == "reward" else f"held out ({name})"
        axes.plot(*zip(*points, strict=True), label=label.replace("$", r"\$"), alpha=0.6 if name == "reward" else 1.0)
    axes.set(xlabel="updates", ylabel="reward")
    axes.grid(alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")
    return True


def _latest_sheet(folder: Path) -> str | None:
    sheets = [path for path in (folder / "eval").glob("step-*.jpg") if path.stem.partition("-")[2].isdigit()]
    latest = max(sheets, key=lambda path: int(path.stem.partition("-")[2]), default=None)
    return f"eval/{latest.name}" if latest else None


def _versions() -> list[tuple[str, str]]:
    found = [("Python", platform.python_version())]
    for name in _PACKAGES:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return found


def _as_list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())
