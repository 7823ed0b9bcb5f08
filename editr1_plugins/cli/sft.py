"""Fine-tune a vision-language model as a judge, on chosen traces.

  editr1 sft --config judge.yaml
  editr1 sft --config judge.yaml --check
  editr1 sft --model_name_or_path Qwen/Qwen2.5-VL-7B-Instruct --traces traces --use_peft --output_dir out
  accelerate launch -m editr1_plugins sft --config judge.yaml
  editr1 sft --merge out out-merged

The conventions are those of `trl sft`: options stand in a YAML file, as flags, or both, and flags win. They are the
fields of JudgeSFTConfig (trl.SFTConfig, with mode and max_pixels), of trl.ModelConfig, and these:

  traces       what `editr1 coldstart` writes: a folder, a .jsonl or .parquet file, or the id of a data set
  eval_traces  the same, held out: loss, parse rate, verdicts against gold; eval_strategy says when
  eval_pairs   held-out preference pairs (source, winner, loser, instruction): pair accuracy, ties, failures

Sequences are never cut: max_length stays unset, max_pixels makes images smaller. --check reads and composes all rows,
and counts the tokens of some. --merge writes a trained LoRA and its base model as one model, for servers.
resume_from_checkpoint takes a folder, or "latest".

Exit status: 0 done; 1 failed; 2 usage or bad input; 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

from ..errors import ConfigError
from . import printable
from .judge_arguments import EvaluationArguments, add_evaluation, finish, model_settings, resumed
from .trl_arguments import parse_dataclasses, preview, print_dataclasses, separated

if TYPE_CHECKING:
    from datasets import Dataset

    from ..training.judge_sft import JudgeSFTConfig
    from ..verifiers.prompting import Mode

__all__ = ["SUMMARY", "TAKES_MORE", "TraceArguments", "add_arguments", "option_types", "run"]

SUMMARY = "train a judge on chosen traces (YAML and flags)"

#: Flags that are not declared here go to `run` as `args.more`.
TAKES_MORE: Final = True


def _help(text: str) -> dict[str, str]:
    return {"help": text}


@dataclass
class TraceArguments(EvaluationArguments):
    """The data."""

    traces: str | None = field(
        default=None, metadata=_help("Traces to learn: a folder, a .jsonl or .parquet file, or the id of a data set.")
    )
    train_split: str = field(default="train", metadata=_help("Split of traces to train on."))
    test_split: str = field(default="train", metadata=_help("Split of eval_traces and eval_pairs."))
    decomposer: str = field(default="rules", metadata=_help("Spec of who writes principles for pairs without."))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--check", action="store_true", help="read the data, compose rows, count tokens; train nothing")
    parser.add_argument(
        "--check-rows", type=int, default=200, metavar="N", help="with --check: rows whose tokens count"
    )
    parser.add_argument("--json", action="store_true", help="with --check: print one JSON object")
    parser.add_argument("--options", action="store_true", help="list every option, and exit")
    parser.add_argument(
        "--merge", nargs=2, metavar=("ADAPTER", "OUT"), help="write a LoRA and its base as one model, and exit"
    )


def run(args: argparse.Namespace) -> int:
    if args.options:
        print_dataclasses(option_types(), "sft")
        return 0
    if args.merge:
        adapter, out = args.merge
        return _merge(adapter, out, args.more)
    if args.json and not args.check:
        raise ConfigError("--json goes with --check; training logs to the terminal and to trackers (report_to)")
    more = [*args.more, "--use_cpu", "true"] if args.check else args.more  # a machine without the GPU can check
    script, model, config = parse_dataclasses(option_types(), more, "sft")
    _complete(script, model, config)
    return _check(script, model, config, args) if args.check else _train(script, model, config)


def option_types() -> tuple[type, ...]:
    """The dataclasses whose fields are the options."""
    from trl import ModelConfig

    from ..training.judge_sft import JudgeSFTConfig

    return TraceArguments, ModelConfig, JudgeSFTConfig


def _complete(script: TraceArguments, model: Any, config: JudgeSFTConfig) -> None:
    if not script.traces:
        raise ConfigError("no data: give traces, what `editr1 coldstart` wrote, or another folder, file or data set")
    if not model.model_name_or_path:
        raise ConfigError("no model: give model_name_or_path, the id or folder of a vision-language model")
    evaluates = config.eval_strategy != "no"
    if evaluates and not script.eval_traces:
        raise ConfigError("eval_strategy needs eval_traces: held-out traces, whose loss is the trainer's own metric")
    if not evaluates and (script.eval_traces or script.eval_pairs):
        raise ConfigError("eval_traces and eval_pairs are held out for evaluation: say when with eval_strategy")


def _train(script: TraceArguments, model: Any, config: JudgeSFTConfig) -> int:
    from ..training.judge_sft import JudgeSFTTrainer

    settings = model_settings(model, config)
    train, held_out = _traces(script, config, script.traces, script.train_split), None
    if script.eval_traces:
        held_out = _traces(script, config, script.eval_traces, script.test_split)
    try:
        trainer = JudgeSFTTrainer(model.model_name_or_path, config, train, held_out, **settings)
    except ValueError as error:  # TRL's and PEFT's, about settings
        raise error if isinstance(error, ConfigError) else ConfigError(str(error)) from error
    add_evaluation(trainer, script, cast("Mode", config.mode), script.decomposer, script.test_split)
    trainer.train(resume_from_checkpoint=resumed(config))
    finish(trainer, str(script.traces))
    return 0


def _traces(script: TraceArguments, config: JudgeSFTConfig, name: str | None, split: str) -> Dataset:
    from ..training.trace_data import load_traces

    with config.main_process_first(desc="reading traces"):
        return load_traces(str(name), split)


def _merge(adapter: str, out: str, more: Sequence[str]) -> int:
    from ..backends.model_files import find_adapter
    from ..training.judge_model import merge_adapter

    named, _ = preview(separated(more), ("model_name_or_path", "dtype"))
    model = named.model_name_or_path
    if model is None:
        described = json.loads((find_adapter(adapter).path / "adapter_config.json").read_text(encoding="utf-8"))
        model = described.get("base_model_name_or_path")
    if not model:
        raise ConfigError(f"{adapter} does not name its base model: give --model_name_or_path")
    found = merge_adapter(model, adapter, out, dtype=named.dtype)
    print(f"{printable(model)} with {printable(adapter)} is in {printable(out)}")
    print(f"rounding changed the weights by {found['rounding_error']:.1%} of what the adapter adds to them")
    return 0


# --check


def _check(script: TraceArguments, model: Any, config: JudgeSFTConfig, args: argparse.Namespace) -> int:
    from ..training.judge_model import judge_processor
    from ..training.judge_sft import token_counts, usable_traces
    from ..training.trace_data import load_traces

    if args.check_rows < 1:
        raise ConfigError(f"--check-rows must be at least 1, got {args.check_rows}")
    mode = cast("Mode", config.mode)
    processor = judge_processor(model.model_name_or_path, _revision(model), config.max_pixels)
    found: dict[str, Any] = {"mode": mode, "data": {}}
    for name, split in ((script.traces, script.train_split), (script.eval_traces, script.test_split)):
        if name is None:
            continue
        traces = load_traces(name, split)
        usable = usable_traces(traces, mode, config.dataset_num_proc)
        step = max(1, len(usable) // args.check_rows)
        rows = range(0, len(usable), step)
        counts = [token_counts(usable[row], mode, processor) for row in rows]
        found["data"][f"{name} ({split})"] = {
            "rows": len(traces),
            "left_out": len(traces) - len(usable),
            "counted": len(counts),
            "tokens": {part: _spread([each[part] for each in counts]) for part in counts[0]},
        }
    print(json.dumps(found, indent=2) if args.json else "\n".join(_as_text(found)))
    return 0


def _revision(model: Any) -> str | None:
    from pathlib import Path

    return None if Path(model.model_name_or_path).is_dir() else model.model_revision


def _spread(values: Sequence[int]) -> dict[str, float]:
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def _as_text(found: dict[str, Any]) -> list[str]:
    lines = [f"mode     {found['mode']}"]
    for name, data in found["data"].items():
        lines.append(f"data     {printable(name)}: {data['rows']} rows, {data['left_out']} left out")
        for part, spread in data["tokens"].items():
            numbers = ", ".join(f"{word} {value:g}" for word, value in spread.items())
            lines.append(f"tokens   {part}: {numbers} (of {data['counted']} rows)")
    return lines
