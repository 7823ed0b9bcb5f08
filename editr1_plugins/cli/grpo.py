"""Train an editor with the verified reward.

  editr1 grpo --config kontext.yaml
  editr1 grpo --config kontext.yaml --check
  editr1 grpo --model_name_or_path black-forest-labs/FLUX.1-Kontext-dev --dataset_name edits.jsonl \\
      --verifier openai:MODEL@URL --output_dir out
  torchrun --nproc_per_node 8 -m editr1_plugins grpo --config kontext.yaml

The conventions are those of `trl grpo`: options stand in a YAML file, as flags, or both, and flags win. They are the
fields of the recipe's configuration (KontextGRPOConfig, QwenImageEditGRPOConfig, else EditGRPOConfig, all of them
transformers.TrainingArguments), and these:

  model_name_or_path  id or folder of a diffusers pipeline; its class decides the recipe, unless `recipe` names one
  dataset_name        id of a data set, or a .jsonl, .parquet or .tar (WebDataset) file, or a folder of such
  reward_funcs        dotted paths; default: edit_rrm, which verifier, decomposer, guards, cache and record set up
  use_peft, lora_r, lora_alpha, lora_target_modules

The data need columns `image` and `prompt` (or image_column and prompt_column). Broken rows are listed before anything
else is loaded; skip_broken leaves them out. resume_from_checkpoint takes a folder, or "latest".

Exit status: 0 done; 1 failed, or --check found that it would; 2 usage or bad input; 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from ..errors import ComponentError, ConfigError, DataError, ReplayError
from . import printable
from .grpo_arguments import GRPOArguments, ScriptArguments, parse_arguments, print_options

if TYPE_CHECKING:
    from datasets import Dataset

    from ..training.edit_data import EditRows
    from ..training.edit_grpo import EditGRPOTrainer

__all__ = ["SUMMARY", "TAKES_MORE", "add_arguments", "run"]

SUMMARY = "train an editor with the verified reward (YAML and flags)"

#: Flags that are not declared here go to `run` as `args.more`.
TAKES_MORE: Final = True

_DEFAULT_REWARD: Final = "edit_rrm"
_REWARD_SETTINGS: Final = ("verifier", "decomposer", "guards", "samples", "aggregate", "cache", "record")
_FAILED: Final = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--check", action="store_true", help="check data, rewards and replay; train nothing")
    parser.add_argument("--json", action="store_true", help="with --check: print one JSON object")
    parser.add_argument("--options", action="store_true", help="list every option of the recipe or model, and exit")


def run(args: argparse.Namespace) -> int:
    if args.options:
        print_options(args.more)
        return 0
    if args.json and not args.check:
        raise ConfigError("--json goes with --check; training logs to the terminal and to trackers (report_to)")
    arguments = parse_arguments(args.more)
    return _check(arguments, args.json) if args.check else _train(arguments)


def _train(arguments: GRPOArguments) -> int:
    config = arguments.config
    trainer = _trainer(arguments, {})
    resume = config.resume_from_checkpoint
    trainer.train(resume_from_checkpoint=True if str(resume).lower() in ("latest", "true") else resume)
    trainer.save_model(config.output_dir)
    trainer.accelerator.print(f"saved to {config.output_dir}")
    if config.push_to_hub:
        trainer.push_to_hub(dataset_name=arguments.script.dataset_name)
    trainer.end()
    return 0


# What a run is made of


def _trainer(arguments: GRPOArguments, found: dict[str, Any]) -> EditGRPOTrainer:
    """Everything in the order in which it is cheap to find it wrong; `found` gets what --check tells of it."""
    from transformers import set_seed

    config = arguments.config
    train = _dataset(arguments, arguments.script.dataset_train_split, found)
    evaluated = config.eval_strategy != "no"
    held_out = _dataset(arguments, arguments.script.dataset_test_split, found) if evaluated else None
    rewards = _rewards(arguments.script)
    found["rewards"] = [_described_reward(reward) for reward in rewards]
    pipe = _pipeline(arguments)
    found |= {"pipeline": type(pipe).__name__, "dtype": str(pipe.dtype).removeprefix("torch.")}
    set_seed(config.seed)  # the LoRA is drawn before the Trainer does this: it must be the same in every process
    try:
        trainer = arguments.trainer_class(pipe, rewards, config, train, held_out, peft_config=arguments.lora())
    except ValueError as error:  # PEFT's, about modules that are not there
        raise error if isinstance(error, (ConfigError, DataError)) else ConfigError(str(error)) from error
    found["plan"] = _plan(trainer, len(train))
    return trainer


def _dataset(arguments: GRPOArguments, split: str, found: dict[str, Any]) -> Dataset:
    """One split, checked by the main process for all."""
    from accelerate.utils import broadcast_object_list

    from ..training.edit_data import load_edit_data

    script, config = arguments.script, arguments.config
    if not script.dataset_name:
        raise ConfigError("no data: give dataset_name, a data set of the hub, a file or a folder")
    with config.main_process_first(desc="reading data"):
        rows: EditRows = load_edit_data(
            script.dataset_name,
            config=script.dataset_config,
            split=split,
            image_column=script.image_column or "image",
            prompt_column=script.prompt_column,
        )
    broken: list[Any] = [None]
    if config.process_index == 0:
        broken = [rows.broken(decode=script.decode_images, workers=script.check_workers)]
    broadcast_object_list(broken)
    listed = [asdict(row) for row in broken[0][:20]]
    found.setdefault("data", {})[split] = {"name": rows.name, "rows": len(rows), "broken": len(broken[0])}
    found["data"][split]["first_broken"] = listed
    if broken[0] and script.skip_broken and config.process_index == 0:
        shown = "; ".join(printable(str(row)) for row in broken[0][:3])
        print(f"{rows.name}: {len(broken[0])} of {len(rows)} rows are left out: {shown}", file=sys.stderr)
    return rows.without(broken[0], skip=script.skip_broken)


def _rewards(script: ScriptArguments) -> list[Any]:
    from ..reward.rrm import DEFAULT_GUARD_NAMES, EditRRMReward

    names = script.reward_funcs or [_DEFAULT_REWARD]
    untouched = ScriptArguments()
    given = [name for name in _REWARD_SETTINGS if getattr(script, name) != getattr(untouched, name)]
    if given and _DEFAULT_REWARD not in names:
        raise ConfigError(f"{', '.join(given)} set up {_DEFAULT_REWARD!r}, which is not among reward_funcs: {names}")
    guards = DEFAULT_GUARD_NAMES if script.guards is None else [name for name in script.guards if name != "none"]
    if script.aggregate not in ("score", "average"):
        raise ConfigError(f"aggregate={script.aggregate!r}: 'score' or 'average'")
    made = []
    for name in names:
        if name != _DEFAULT_REWARD:
            made.append(_by_path(name))
            continue
        reward = EditRRMReward(
            script.verifier,
            script.decomposer,
            guards,
            samples=script.samples,
            aggregate="average" if script.aggregate == "average" else "score",
            cache=script.cache,
            record=script.record,
        )
        made.append(reward)
    return made


def _by_path(name: str) -> Any:
    """What a dotted path leads to; modules beside the working directory count, as in `trl grpo`."""
    from importlib import import_module

    path, _, attribute = name.rpartition(".")
    if not path:
        raise ConfigError(f"reward_funcs: {name!r} is no dotted path (MODULE.FUNCTION), nor {_DEFAULT_REWARD!r}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return getattr(import_module(path), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"reward_funcs: {name!r} cannot be imported: {error}") from error


def _described_reward(reward: Any) -> dict[str, Any]:
    from ..reward.rrm import EditRRMReward

    name = getattr(reward, "__name__", type(reward).__name__)
    return {"name": name, **(reward.settings if isinstance(reward, EditRRMReward) else {})}


def _pipeline(arguments: GRPOArguments) -> Any:
    import torch
    from diffusers import DiffusionPipeline

    model, config = arguments.model, arguments.config
    types = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    chosen = model.dtype or ("float32" if config.device.type == "cpu" or not model.use_peft else "bfloat16")
    if chosen not in types:
        raise ConfigError(f"dtype={chosen!r}: one of {', '.join(types)}")
    try:
        return DiffusionPipeline.from_pretrained(
            model.model_name_or_path,
            revision=model.model_revision,
            dtype=types[chosen],
            use_safetensors=True,  # the alternative is unpickling
        )
    except Exception as error:  # the hub raises many kinds
        raise ConfigError(f"{model.model_name_or_path!r} cannot be loaded: {error}") from error


# --check


def _check(arguments: GRPOArguments, as_json: bool) -> int:
    """Build everything, replay a tiny rollout, and say what would be trained."""
    config = arguments.config
    config.push_to_hub, config.report_to = False, []  # checking leaves no trace
    model = arguments.model.model_name_or_path
    found: dict[str, Any] = {"ok": True, "problem": None, "recipe": arguments.recipe, "model": model}
    replay = ""
    try:
        report = _trainer(arguments, found).prove_replay()
        found["replay"], replay = report.as_dict(), str(report)
    except (DataError, ReplayError, ComponentError) as error:
        found |= {"ok": False, "problem": str(error)}
    if config.process_index == 0:
        print(json.dumps(found, indent=2, allow_nan=False) if as_json else "\n".join(_as_text(found, replay)))
    return 0 if found["ok"] else _FAILED


def _plan(trainer: EditGRPOTrainer, rows: int) -> dict[str, Any]:
    """What a run does, in numbers."""
    args, policy = trainer.args, trainer.policy
    prompts = args.generation_batch_size // args.num_generations
    updates = args.steps_per_generation * args.num_iterations / args.gradient_accumulation_steps
    epochs = int(args.num_train_epochs * (rows // prompts) * updates)
    trained = sum(parameter.numel() for parameter in policy.parameters)
    return {
        "trains": "LoRA" if policy.uses_lora else "all weights",
        "trained_parameters": trained,
        "parameters": sum(parameter.numel() for parameter in policy.network.parameters()),
        "objective": args.objective,
        "beta": args.beta,
        "learning_rate": args.learning_rate,
        "processes": args.world_size,
        "device": args.device.type,
        "num_generations": args.num_generations,
        "prompts_per_rollout": prompts,
        "edits_per_rollout": args.generation_batch_size,
        "updates_per_rollout": updates,
        "updates": args.max_steps if args.max_steps > 0 else epochs,
        "num_inference_steps": args.num_inference_steps,
        "trained_steps_per_edit": args.window or len(args.trainable_range),
        "sampler": args.sampler,
        "output_dir": args.output_dir,
    }


def _as_text(found: dict[str, Any], replay: str) -> list[str]:
    parts = {"model": [f"{found['model']} ({found.get('pipeline', 'not loaded')}, recipe {found['recipe']})"]}
    parts["data"] = [
        f"{split['name']}: {split['rows']} rows, {split['broken']} broken" for split in found.get("data", {}).values()
    ]
    parts["reward"] = [_reward_text(reward) for reward in found.get("rewards", [])]
    if plan := found.get("plan"):
        parts |= _plan_text(plan, found["dtype"])
    parts["replay"] = replay.splitlines()
    lines = [f"{name:<9}{printable(line)}" for name, each in parts.items() for line in each]
    return [*lines, "ready to train" if found["ok"] else f"cannot train: {printable(found['problem'])}"]


def _reward_text(reward: dict[str, Any]) -> str:
    settings = [f"{name} {value}" for name, value in reward.items() if name != "name" and value is not None]
    return str(reward["name"]) + (f" ({'; '.join(settings)})" if settings else "")


def _plan_text(plan: dict[str, Any], dtype: str) -> dict[str, list[str]]:
    share = plan["trained_parameters"] / plan["parameters"]
    trains = f"{plan['trains']}, {plan['trained_parameters']:,} parameters ({share:.1%} of the denoiser's), {dtype}"
    steps = f"{plan['trained_steps_per_edit']} of {plan['num_inference_steps']} steps trained ({plan['sampler']})"
    update = f"{plan['objective']}, KL {plan['beta']:g}, learning rate {plan['learning_rate']:g}"
    return {
        "trains": [f"{trains}; {plan['device']}, {plan['processes']} process(es)"],
        "rollout": [f"{plan['prompts_per_rollout']} prompts x {plan['num_generations']} edits, {steps}"],
        "updates": [f"{plan['updates']:,}, {plan['updates_per_rollout']:g} per rollout; {update}"],
    }
