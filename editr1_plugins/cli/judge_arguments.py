"""What `editr1 sft` and `editr1 gcpo` share: the model, its LoRA, and how the judge in training is measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError

if TYPE_CHECKING:
    from ..verifiers.prompting import Mode

__all__ = ["EvaluationArguments", "add_evaluation", "finish", "model_settings", "resumed"]


def _help(text: str) -> dict[str, str]:
    return {"help": text}


@dataclass
class EvaluationArguments:
    """Held-out data, on which the judge in training is asked as a judge is."""

    eval_traces: str | None = field(
        default=None, metadata=_help("Held-out traces (folder, file or hub id): parse rate, verdicts against gold.")
    )
    eval_pairs: str | None = field(
        default=None, metadata=_help("Held-out preference pairs (folder, file or hub id): pair accuracy and ties.")
    )
    eval_max_tokens: int = field(default=2048, metadata=_help("Most tokens of a reply in evaluation."))
    eval_temperature: float = field(default=0.0, metadata=_help("Of replies in evaluation; 0 is greedy."))
    eval_samples: int = field(default=1, metadata=_help("Replies per edit in evaluation; their scores are averaged."))
    eval_batch: int = field(default=16, metadata=_help("Most replies generated at once in evaluation."))


def add_evaluation(trainer: Any, arguments: EvaluationArguments, mode: Mode, decomposer: str, split: str) -> None:
    """Have `trainer` measure the judge at its evaluations, where held-out data are given.

    Raises:
        ConfigError: a setting is wrong.
        DataError: the data are.
    """
    if arguments.eval_pairs is None and arguments.eval_traces is None:
        return
    from ..plugins import resolve
    from ..training.judge_evaluation import JudgeEvaluation, JudgeSettings
    from ..training.preference_files import load_pairs
    from ..training.preference_pairs import with_principles
    from ..training.trace_data import load_traces

    with trainer.args.main_process_first(desc="reading held-out data"):
        traces = None if arguments.eval_traces is None else load_traces(arguments.eval_traces, split)
        pairs = None if arguments.eval_pairs is None else load_pairs(arguments.eval_pairs, split)
    if pairs is not None:
        pairs = with_principles(pairs, resolve("decomposer", decomposer))
    settings = JudgeSettings(
        mode=mode,
        max_tokens=arguments.eval_max_tokens,
        temperature=arguments.eval_temperature,
        samples=arguments.eval_samples,
        seed=trainer.args.seed,
        max_batch=arguments.eval_batch,
    )
    trainer.add_callback(JudgeEvaluation(trainer, pairs=pairs, traces=traces, settings=settings))


def model_settings(model: Any, config: Any) -> dict[str, Any]:
    """Arguments `peft_config` and `quantization_config` of a TRL trainer; and the model's own, put into `config`.

    Args:
        model: a `trl.ModelConfig`; without target modules a LoRA is put on the language model's linear layers.
        config: the trainer's configuration.

    Raises:
        ConfigError: no model.
    """
    from trl import get_peft_config, get_quantization_config

    from ..training.judge_model import LORA_TARGETS
    from ..training.model_arguments import set_model_arguments

    if not model.model_name_or_path:
        raise ConfigError("no model: give model_name_or_path, the id or folder of a vision-language model")
    set_model_arguments(model, config)
    if model.use_peft and model.lora_target_modules is None:
        model.lora_target_modules = LORA_TARGETS
    return {"peft_config": get_peft_config(model), "quantization_config": get_quantization_config(model)}


def resumed(config: Any) -> str | None:
    """The checkpoint to go on from: a folder, or "latest" (also "true"): the last one, if there is one yet."""
    from pathlib import Path

    from transformers.trainer_utils import get_last_checkpoint

    named = config.resume_from_checkpoint
    if named is None or str(named).lower() not in ("latest", "true"):
        return None if named is None else str(named)
    folder = Path(config.output_dir)
    return get_last_checkpoint(str(folder)) if folder.is_dir() else None


def finish(trainer: Any, dataset_name: str) -> None:
    """Save the model with its card, push it where that is asked for, and end the trackers."""
    from pathlib import Path

    config = trainer.args
    trainer.save_model(config.output_dir)
    trainer.create_model_card(model_name=Path(config.output_dir).name, dataset_name=dataset_name)
    trainer.accelerator.print(f"saved to {config.output_dir}")
    if config.push_to_hub:
        trainer.push_to_hub(dataset_name=dataset_name)
    trainer.end()
