"""Train a pointwise judge on pairwise preferences (GCPO, Edit-R1 section 3.3).

  editr1 gcpo --config judge.yaml
  editr1 gcpo --config judge.yaml --check
  editr1 gcpo --model_name_or_path sft-judge --pairs pairs.jsonl --use_peft --num_generations 8 --output_dir out
  accelerate launch -m editr1_plugins gcpo --config judge.yaml
  editr1 gcpo --make-pairs judged pairs --min-gap 2

The conventions are those of `trl grpo`: options stand in a YAML file, as flags, or both, and flags win. They are the
fields of GCPOConfig (trl.GRPOConfig, with mode, decomposer and max_pixels), of trl.ModelConfig, and these:

  pairs        a folder, a .jsonl or .parquet file, or the id of a data set, with source and instruction, and winner and
               loser; or image_a, image_b and label (a, b, same); or images and ranks
  eval_pairs   the same, held out: the trainer's own measures (eval_gcpo/...), and pair accuracy, ties and failures of
               the judge as it is used (eval_judge/...); eval_strategy says when
  eval_traces  held-out traces: parse rate, verdicts against gold

A batch holds whole pairs: batch x processes x accumulation is a multiple of 2 x num_generations. --check reads the
data, counts the tokens of some prompts and tells what a run does. --make-pairs FROM TO writes a data set of pairs: FROM
is a file of any of the forms above, or a folder that `editr1 score --input FILE --output FROM` wrote, of whose edits
with the same source and instruction the best stands against the worst. Those pairs are synthetic and stay marked.
resume_from_checkpoint takes a folder, or "latest".

Exit status: 0 done; 1 failed; 2 usage or bad input; 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from ..errors import ConfigError
from . import printable
from .judge_arguments import EvaluationArguments, add_evaluation, finish, model_settings, resumed
from .trl_arguments import parse_dataclasses, print_dataclasses

if TYPE_CHECKING:
    from datasets import Dataset

    from ..training.gcpo import GCPOConfig
    from ..verifiers.prompting import Mode

__all__ = ["SUMMARY", "TAKES_MORE", "PairArguments", "add_arguments", "option_types", "run"]

SUMMARY = "train a judge on preference pairs (YAML and flags)"

#: Flags that are not declared here go to `run` as `args.more`.
TAKES_MORE: Final = True


def _help(text: str) -> dict[str, str]:
    return {"help": text}


@dataclass
class PairArguments(EvaluationArguments):
    """The data."""

    pairs: str | None = field(
        default=None, metadata=_help("Pairs to learn: a folder, a .jsonl or .parquet file, or the id of a data set.")
    )
    train_split: str = field(default="train", metadata=_help("Split of pairs to train on."))
    test_split: str = field(default="train", metadata=_help("Split of eval_pairs and eval_traces."))
    max_pairs_per_ranking: int | None = field(
        default=None, metadata=_help("Where the data are rankings: pairs of each, drawn at random; None: all.")
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--check", action="store_true", help="read the data and tell what a run does; train nothing")
    parser.add_argument(
        "--check-rows", type=int, default=100, metavar="N", help="with --check: pairs whose tokens count; default: 100"
    )
    parser.add_argument("--json", action="store_true", help="with --check: print one JSON object")
    parser.add_argument("--options", action="store_true", help="list every option, and exit")
    parser.add_argument("--make-pairs", nargs=2, metavar=("FROM", "TO"), help="write a data set of pairs, and exit")
    parser.add_argument(
        "--min-gap",
        type=float,
        default=1.0,
        metavar="POINTS",
        help="with --make-pairs: least difference of the judge's scores, 0..10; default: 1",
    )


def run(args: argparse.Namespace) -> int:
    if args.options:
        print_dataclasses(option_types(), "gcpo")
        return 0
    if args.make_pairs:
        source, target = args.make_pairs
        return _make_pairs(source, target, args.min_gap, args.more)
    if args.json and not args.check:
        raise ConfigError("--json goes with --check; training logs to the terminal and to trackers (report_to)")
    script, model, config = parse_dataclasses(option_types(), args.more, "gcpo")
    _complete(script, model, config)
    return _check(script, model, config, args) if args.check else _train(script, model, config)


def option_types() -> tuple[type, ...]:
    """The dataclasses whose fields are the options."""
    from trl import ModelConfig

    from ..training.gcpo import GCPOConfig

    return PairArguments, ModelConfig, GCPOConfig


def _complete(script: PairArguments, model: Any, config: GCPOConfig) -> None:
    if not script.pairs:
        raise ConfigError("no data: give pairs, a folder, file or data set of preference pairs")
    if not model.model_name_or_path:
        raise ConfigError("no model: give model_name_or_path, the id or folder of a vision-language model")
    evaluates = config.eval_strategy != "no"
    if evaluates and not script.eval_pairs:
        raise ConfigError("eval_strategy needs eval_pairs: held-out preference pairs")
    if not evaluates and (script.eval_traces or script.eval_pairs):
        raise ConfigError("eval_traces and eval_pairs are held out for evaluation: say when with eval_strategy")


def _train(script: PairArguments, model: Any, config: GCPOConfig) -> int:
    from ..training.gcpo import GCPOTrainer

    settings = model_settings(model, config)
    train = _pairs(script, config, str(script.pairs), script.train_split)
    held_out = _pairs(script, config, script.eval_pairs, script.test_split) if script.eval_pairs else None
    try:
        trainer = GCPOTrainer(model.model_name_or_path, config, train, held_out, **settings)
    except ValueError as error:  # TRL's and PEFT's, about settings
        raise error if isinstance(error, ConfigError) else ConfigError(str(error)) from error
    add_evaluation(trainer, script, cast("Mode", config.mode), config.decomposer, script.test_split)
    trainer.train(resume_from_checkpoint=resumed(config))
    finish(trainer, str(script.pairs))
    return 0


def _pairs(script: PairArguments, config: GCPOConfig, name: str, split: str) -> Dataset:
    from ..training.preference_files import load_pairs

    with config.main_process_first(desc="reading pairs"):
        return load_pairs(name, split, max_pairs_per_ranking=script.max_pairs_per_ranking, seed=config.seed)


def _make_pairs(source: str, target: str, min_gap: float, more: Sequence[str]) -> int:
    from ..training.preference_files import load_pairs, pairs_from_scores, save_pairs

    if more:
        raise ConfigError(f"--make-pairs takes no further options: {' '.join(more)}")
    judged = Path(source).is_dir() and any(Path(source).glob("records-*.jsonl"))
    pairs = pairs_from_scores(source, min_gap=min_gap) if judged else load_pairs(source)
    path = save_pairs(pairs, target)
    print(f"{len(pairs)} {'synthetic ' if judged else ''}pairs are in {printable(str(path))}")
    return 0


# --check


def _check(script: PairArguments, model: Any, config: GCPOConfig, args: argparse.Namespace) -> int:
    from ..training.judge_model import judge_processor

    if args.check_rows < 1:
        raise ConfigError(f"--check-rows must be at least 1, got {args.check_rows}")
    revision = None if Path(model.model_name_or_path).is_dir() else model.model_revision
    processor = judge_processor(model.model_name_or_path, revision, config.max_pixels)
    found: dict[str, Any] = {"mode": config.mode, "data": {}}
    for name, split in ((script.pairs, script.train_split), (script.eval_pairs, script.test_split)):
        if name is not None:
            pairs = _pairs(script, config, name, split)
            found["data"][f"{name} ({split})"] = _described(pairs, config, processor, args.check_rows)
    rows = found["data"][f"{script.pairs} ({script.train_split})"]["pairs"]
    found["plan"] = _plan(config, rows)
    if config.process_index == 0:
        print(json.dumps(found, indent=2) if args.json else "\n".join(_as_text(found)))
    return 0


def _described(pairs: Dataset, config: GCPOConfig, processor: Any, most: int) -> dict[str, Any]:
    from ..plugins import resolve
    from ..training.preference_pairs import pair_rows, synthetic_count, with_principles

    given = list(pairs.with_format(None)["principles"]) if "principles" in pairs.column_names else []
    some = pairs.select(range(0, len(pairs), -(-len(pairs) // most)))
    rows = pair_rows(with_principles(some, resolve("decomposer", config.decomposer)), cast("Mode", config.mode))
    tokens, principles = [], []
    for row in rows:  # also decodes the images: a broken one is told here
        tokens.append(_prompt_tokens(row, processor))
        principles.append(len(row["questions"]))
    return {
        "pairs": len(pairs),
        "synthetic": synthetic_count(pairs),
        "without_principles": len(pairs) - sum(map(bool, given)),
        "counted": len(rows) // 2,
        "principles": _spread(principles),
        "prompt_tokens": _spread(tokens),
    }


def _prompt_tokens(row: dict[str, Any], processor: Any) -> int:
    from trl.data_utils import prepare_multimodal_messages

    prompt = prepare_multimodal_messages(row["prompt"], images=row["images"])
    asked = processor.apply_chat_template([prompt], add_generation_prompt=True, tokenize=True, return_dict=True)
    return len(asked["input_ids"][0])


def _plan(config: GCPOConfig, pairs: int) -> dict[str, Any]:
    """What a run does, in numbers; rollouts hold whole pairs, and an epoch leaves out those that fill none."""
    batch = config.generation_batch_size // (2 * config.num_generations)
    per_rollout = config.steps_per_generation * config.num_iterations / config.gradient_accumulation_steps
    epochs = int(config.num_train_epochs * (pairs // batch) * per_rollout)
    return {
        "pairs_per_rollout": batch,
        "traces_per_rollout": config.generation_batch_size,
        "updates_per_rollout": per_rollout,
        "updates": config.max_steps if config.max_steps > 0 else epochs,
        "num_generations": config.num_generations,
        "max_completion_length": config.max_completion_length,
        "processes": config.world_size,
        "beta": config.beta,
        "learning_rate": config.learning_rate,
        "output_dir": config.output_dir,
    }


def _spread(values: Sequence[int]) -> dict[str, float]:
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def _as_text(found: dict[str, Any]) -> list[str]:
    lines, plan = [f"mode     {found['mode']}"], found["plan"]
    for name, data in found["data"].items():
        made = f"{data['pairs']} pairs, {data['synthetic']} synthetic, {data['without_principles']} without principles"
        lines.append(f"data     {printable(name)}: {made}")
        for part in ("principles", "prompt_tokens"):
            numbers = ", ".join(f"{word} {value:g}" for word, value in data[part].items())
            lines.append(f"         {part.replace('_', ' ')}: {numbers} (of {data['counted']} pairs)")
    rollout = f"{plan['pairs_per_rollout']} pairs x 2 x {plan['num_generations']} = {plan['traces_per_rollout']} traces"
    lines.append(
        f"rollout  {rollout} of at most {plan['max_completion_length']} tokens, {plan['processes']} process(es)"
    )
    update = f"KL {plan['beta']:g}, learning rate {plan['learning_rate']:g}"
    lines.append(f"updates  {plan['updates']:,}, {plan['updates_per_rollout']:g} per rollout; {update}")
    return lines
