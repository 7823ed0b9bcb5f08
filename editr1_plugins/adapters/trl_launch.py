"""Start TRL's trainers with what `trl grpo` cannot name: a rollout function, an environment, asynchronous GRPO.

  python -m editr1_plugins.adapters.trl_launch grpo --config agent.yaml
  accelerate launch -m editr1_plugins.adapters.trl_launch grpo --config agent.yaml
  python -m editr1_plugins.adapters.trl_launch async-grpo --config async.yaml

Options are those of `trl grpo` and `trl rloo`, in YAML or as flags, and these, each a dotted path to an object that is
there when its module is imported:

  rollout_func         of GRPOTrainer, e.g. editr1_plugins.adapters.trl.editing_rollout
  environment_factory  of GRPOTrainer and AsyncGRPOTrainer, e.g. editr1_plugins.adapters.trl.editing_environment

`async-grpo` takes the options of `trl.experimental.async_grpo.AsyncGRPOConfig` (TRL has no command for it), the model's
model_name_or_path, model_revision, lora_r, lora_alpha and lora_target_modules, and rewards and environment as above.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Final

from editr1_plugins.errors import ConfigError, Editr1Error, MissingExtraError
from editr1_plugins.training.model_arguments import set_model_arguments

__all__ = ["COMMANDS", "AsyncModelArguments", "HookArguments", "build_trainer", "main", "parse"]

COMMANDS: Final = ("grpo", "rloo", "async-grpo")
_USAGE: Final = f"python -m editr1_plugins.adapters.trl_launch {{{','.join(COMMANDS)}}} --config FILE [options]"


def _help(text: str) -> dict[str, str]:
    return {"help": text}


@dataclass
class HookArguments:
    """What a run is given besides TRL's own settings; each path is imported."""

    reward_funcs: list[str] | None = field(default=None, metadata=_help("Rewards, each by its dotted path."))
    rollout_func: str | None = field(default=None, metadata=_help("GRPO: dotted path of a rollout function."))
    environment_factory: str | None = field(default=None, metadata=_help("GRPO: dotted path that makes environments."))


@dataclass
class AsyncModelArguments:
    """The model of asynchronous GRPO, whose configuration shares names with `trl.ModelConfig`."""

    model_name_or_path: str | None = field(default=None, metadata=_help("Folder or hub id, as vLLM serves it."))
    model_revision: str = field(default="main", metadata=_help("Of a hub id."))
    lora_r: int | None = field(default=None, metadata=_help("Rank of a LoRA; None: all weights are trained."))
    lora_alpha: int = field(default=32, metadata=_help("Scale of the LoRA."))
    lora_target_modules: list[str] | None = field(default=None, metadata=_help("Layers; default: all linear ones."))


def main(argv: Sequence[str] | None = None) -> int:
    """Train; the exit status: 0 done, 1 failed, 2 usage."""
    given = list(sys.argv[1:] if argv is None else argv)
    if not given or given[0] not in COMMANDS:
        print(f"usage: {_USAGE}", file=sys.stderr)
        return 0 if given and given[0] in ("-h", "--help") else 2
    try:
        hooks, script, config, model = parse(given[0], given[1:])
        trainer = build_trainer(given[0], hooks, script, config, model)
        trainer.train(resume_from_checkpoint=config.resume_from_checkpoint)
        _finish(trainer, script)
    except Editr1Error as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, (ConfigError, MissingExtraError)) else 1
    return 0


def parse(command: str, argv: Sequence[str]) -> tuple[HookArguments, Any, Any, Any]:
    """Hooks, `trl.ScriptArguments`, the trainer's configuration, and the model's.

    Raises:
        ConfigError: an option that does not exist, or a wrong value.
    """
    import trl

    kinds: dict[str, tuple[Any, Any]] = {
        "grpo": (trl.GRPOConfig, trl.ModelConfig),
        "rloo": (trl.RLOOConfig, trl.ModelConfig),
    }
    config, model = kinds[command] if command in kinds else (_async_grpo().AsyncGRPOConfig, AsyncModelArguments)
    parser = trl.TrlParser((HookArguments, trl.ScriptArguments, config, model), prog=f"{command} of trl_launch")
    try:
        hooks, script, settings, of_model = parser.parse_args_and_config(list(argv))
    except (ValueError, TypeError, OSError) as error:
        raise error if isinstance(error, ConfigError) else ConfigError(str(error)) from error
    return hooks, script, settings, of_model


def build_trainer(command: str, hooks: HookArguments, script: Any, config: Any, model: Any) -> Any:
    """The trainer, with its data read and its hooks imported.

    Raises:
        ConfigError: no model or data, a path that names nothing, or a hook that the trainer does not have.
        MissingExtraError: what asynchronous GRPO needs is not installed.
    """
    if not model.model_name_or_path or not script.dataset_name:
        raise ConfigError("give model_name_or_path and dataset_name")
    if hooks.rollout_func and command != "grpo":
        raise ConfigError(
            f"{command} of TRL 1.16 takes no rollout_func; reward_funcs: "
            "[editr1_plugins.adapters.trl.planned_edit] makes the edits in the reward"
        )
    if hooks.environment_factory and command == "rloo":
        raise ConfigError("rloo of TRL 1.16 takes no environment_factory; grpo and async-grpo do")
    train, held_out = _data(script, config)
    arguments: dict[str, Any] = {
        "args": config,
        "reward_funcs": [_imported(path, "reward_funcs") for path in hooks.reward_funcs or []] or None,
        "train_dataset": train,
    }
    for name in ("rollout_func", "environment_factory"):
        if path := getattr(hooks, name):
            arguments[name] = _imported(path, name)
    if command == "async-grpo":
        return _asynchronous(model, arguments)
    return _synchronous(command, model, {**arguments, "eval_dataset": held_out})


def _synchronous(command: str, model: Any, arguments: dict[str, Any]) -> Any:
    import trl

    set_model_arguments(model, arguments["args"])
    trainer = trl.GRPOTrainer if command == "grpo" else trl.RLOOTrainer
    return trainer(
        model=model.model_name_or_path,
        processing_class=_image_processor(model.model_name_or_path, model.model_revision),
        quantization_config=trl.get_quantization_config(model),
        peft_config=trl.get_peft_config(model),
        **arguments,
    )


def _asynchronous(model: AsyncModelArguments, arguments: dict[str, Any]) -> Any:
    module = _async_grpo()
    if model.lora_r is not None:
        from peft import LoraConfig

        arguments["peft_config"] = LoraConfig(
            r=model.lora_r,
            lora_alpha=model.lora_alpha,
            target_modules=model.lora_target_modules or "all-linear",
            task_type="CAUSAL_LM",
        )
    config = arguments["args"]
    config.model_init_kwargs = {"revision": model.model_revision, **(config.model_init_kwargs or {})}
    try:
        return module.AsyncGRPOTrainer(model=model.model_name_or_path, **arguments)
    except ImportError as error:
        raise MissingExtraError(f"asynchronous GRPO: {error}") from error


def _async_grpo() -> Any:
    try:
        return import_module("trl.experimental.async_grpo")
    except ImportError as error:
        raise MissingExtraError(f"this TRL has no asynchronous GRPO ({error}): pip install 'trl>=1.16'") from error


def _image_processor(model: str, revision: str) -> Any:
    """The processor of a vision-language policy, also where torchvision is not installed; None: TRL's own choice."""
    from transformers import AutoConfig

    from editr1_plugins.backends.image_only import QWEN_VL
    from editr1_plugins.training.judge_model import judge_processor

    kind = AutoConfig.from_pretrained(model, revision=revision, trust_remote_code=False).model_type
    return judge_processor(model, None if os.path.isdir(model) else revision) if kind in QWEN_VL else None


def _data(script: Any, config: Any) -> tuple[Any, Any]:
    from datasets import load_dataset

    data = load_dataset(script.dataset_name, name=script.dataset_config, streaming=script.dataset_streaming)
    evaluates = getattr(config, "eval_strategy", "no") != "no"
    try:
        return data[script.dataset_train_split], data[script.dataset_test_split] if evaluates else None
    except KeyError as error:
        raise ConfigError(f"{script.dataset_name} has no split {error}; it has {', '.join(data)}") from None


def _imported(path: str, option: str) -> Any:
    """The object of a dotted path, which the user of the job named; modules beside the job are found, as by TRL."""
    module, _, name = path.rpartition(".")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{option}: {path!r} cannot be imported: {error}") from error


def _finish(trainer: Any, script: Any) -> None:
    trainer.save_model(trainer.args.output_dir)
    trainer.accelerator.print(f"saved to {trainer.args.output_dir}")
    if trainer.args.push_to_hub:
        trainer.push_to_hub(dataset_name=script.dataset_name)
    trainer.end()


if __name__ == "__main__":
    sys.exit(main())
