"""What each field of a flow_grpo configuration is here (used by `migrate.py`; read at flow_grpo 9745241)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["KNOWN_UNREAD", "LORA_TARGETS", "READ", "WHOLE", "family_of", "write_all"]

_BOTH: Final = [
    "dataset",
    "resolution",
    "seed",
    "logdir",
    "run_name",
    "num_checkpoint_limit",
    "mixed_precision",
    "allow_tf32",
    "use_lora",
    "save_freq",
    "eval_freq",
    "save_dir",
    "reward_fn",
    "per_prompt_stat_tracking",
    "num_epochs",
    "pretrained.model",
    "sample.num_steps",
    "sample.eval_num_steps",
    "sample.guidance_scale",
    "sample.train_batch_size",
    "sample.num_image_per_prompt",
    "sample.test_batch_size",
    "sample.num_batches_per_epoch",
    "sample.global_std",
    "sample.noise_level",
    "sample.same_latent",
    "train.batch_size",
    "train.use_8bit_adam",
    "train.learning_rate",
    "train.adam_beta1",
    "train.adam_beta2",
    "train.adam_weight_decay",
    "train.adam_epsilon",
    "train.gradient_accumulation_steps",
    "train.max_grad_norm",
    "train.num_inner_epochs",
    "train.adv_clip_max",
    "train.clip_range",
    "train.beta",
    "train.lora_path",
    "train.ema",
]

#: Fields that flow_grpo's trainer of a model family reads (scripts/train_flux_kontext.py, train_qwenimage_edit.py), and
#: num_epochs, which both overrule by running until they are stopped.
READ: Final = {
    "kontext": frozenset([*_BOTH, "train.timestep_fraction"]),
    "qwen-image-edit": frozenset(
        [
            *_BOTH,
            *("sample.sde_window_size", "sample.sde_window_range"),
            *("activation_checkpointing", "fsdp_optimizer_offload"),
        ]
    ),
}

#: Fields of its base configuration that neither trainer reads.
KNOWN_UNREAD: Final = frozenset(
    [
        "debug",
        "resume_from",
        "pretrained.revision",
        "sample.eval_guidance_scale",
        "sample.batch_size",
        "train.cfg",
        "train.clip_range_lt",
        "train.clip_range_gt",
        "train.timestep_shift",
        "prompt_fn",
        "prompt_fn_kwargs",
    ]
)

#: Fields that are one mapping.
WHOLE: Final = ("reward_fn", "prompt_fn_kwargs")

_ATTENTION: Final = [
    *("attn.to_k", "attn.to_q", "attn.to_v", "attn.to_out.0"),
    *("attn.add_k_proj", "attn.add_q_proj", "attn.add_v_proj", "attn.to_add_out"),
]

#: Modules with a LoRA in flow_grpo's trainers; they stand in its code, not in its configuration.
LORA_TARGETS: Final = {
    "kontext": [
        *_ATTENTION,
        *("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2", "proj_mlp"),
    ],
    "qwen-image-edit": [
        *_ATTENTION,
        *("img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.0.proj", "txt_mlp.net.2"),
    ],
}

#: Fields that become a key of the same meaning: (theirs, ours, how it differs).
_SAME: Final = (
    ("seed", "seed", "the draws are not the same"),
    ("sample.num_steps", "num_inference_steps", ""),
    ("sample.eval_num_steps", "eval_num_inference_steps", ""),
    ("sample.num_image_per_prompt", "num_generations", "groups are rows; theirs are texts, cut at 256 tokens"),
    ("sample.noise_level", "noise_level", ""),
    ("sample.same_latent", "shared_noise", ""),
    ("sample.test_batch_size", "per_device_eval_batch_size", ""),
    ("train.learning_rate", "learning_rate", ""),
    ("train.adam_beta1", "adam_beta1", ""),
    ("train.adam_beta2", "adam_beta2", ""),
    ("train.adam_weight_decay", "weight_decay", ""),
    ("train.adam_epsilon", "adam_epsilon", ""),
    ("train.max_grad_norm", "max_grad_norm", ""),
    ("train.num_inner_epochs", "num_iterations", ""),
    ("train.adv_clip_max", "advantage_clip", ""),
    ("train.clip_range", "epsilon", "log-probabilities are means over dimensions in both, so the scale is the same"),
    ("num_checkpoint_limit", "save_total_limit", "a checkpoint here also holds optimiser and progress, and resumes"),
    ("activation_checkpointing", "activation_checkpointing", ""),
    ("use_lora", "use_peft", ""),
)

_Written = dict[str, tuple[Any, str, str]]


def family_of(model: str) -> str:
    """The recipe for a model's name; ValueError for a model that this script does not convert."""
    for family, part in (("kontext", "kontext"), ("qwen-image-edit", "qwen-image-edit")):
        if part in model.lower():
            return family
    raise ValueError(f"pretrained.model={model!r}: only FLUX.1 Kontext and Qwen-Image-Edit are converted")


def write_all(
    written: _Written, missing: dict[str, str], config: Mapping[str, Any], family: str, host_gpus: int, gpus: int
) -> None:
    """Fill `written` (our key: value, origin, difference) and `missing` (theirs: what to do)."""
    absent = sorted(READ[family] - set(config) - {"train.lora_path", "fsdp_optimizer_offload", "run_name", "logdir"})
    if absent:
        raise ValueError(f"fields that flow_grpo's trainer reads are not there: {', '.join(absent)}")
    _write_names(written, config, family)
    for theirs, ours, differs in _SAME:
        if theirs in READ[family] and theirs in config:
            written[ours] = (config[theirs], theirs, differs)
    updates = _write_epoch(written, config, host_gpus, gpus)
    _write_steps(written, config, family)
    _write_objective(written, config)
    _write_optimiser(written, config, family)
    _write_schedule(written, config, updates)
    _list_missing(missing, config, family)


def _write_names(written: _Written, config: Mapping[str, Any], family: str) -> None:
    here = os.getcwd() + os.sep
    written["model_name_or_path"] = (config["pretrained.model"], "pretrained.model", "")
    written["recipe"] = (family, "pretrained.model", "")
    folder = str(config["dataset"]).removeprefix(here)
    written["dataset_name"] = (folder, "dataset", "rows with `image` (below the folder) and `prompt`, as there")
    written["dataset_train_split"] = ("train_metadata", "the file's name in flow_grpo's code", "")
    written["dataset_test_split"] = ("test_metadata", "the file's name in flow_grpo's code", "")
    written["output_dir"] = (config["save_dir"] or "outputs", "save_dir", "")
    if config.get("run_name"):
        written["run_name"] = (config["run_name"], "run_name", "theirs gets the date appended")
    square = "theirs stretches sources to a square of this side; here they keep their proportions, at as many pixels"
    written["resolution"] = (config["resolution"], "resolution", square)


def _write_epoch(written: _Written, config: Mapping[str, Any], host_gpus: int, gpus: int) -> float:
    """Sizes; returns updates per epoch of theirs (one rollout of ours, num_iterations included)."""
    batch, sampled = config["train.batch_size"], config["sample.train_batch_size"]
    edits = sampled * config["sample.num_batches_per_epoch"] * host_gpus
    update = batch * config["train.gradient_accumulation_steps"] * host_gpus
    group = config["sample.num_image_per_prompt"]
    if edits % (batch * gpus) or update % (batch * gpus) or edits % group or update < 1:
        raise ValueError(
            f"an epoch of {edits} edits in groups of {group} and updates of {update} cannot be shared by {gpus}"
            f" process(es) with {batch} edits a pass: choose another --gpus"
        )
    sizes = f"{edits} edits a rollout ({edits // group} groups), {edits / update:g} updates from it, as there"
    written["per_device_train_batch_size"] = (batch, "train.batch_size", "edits in one replay pass")
    written["generation_chunk"] = (sampled, "sample.train_batch_size", "")
    written["steps_per_generation"] = (edits // (batch * gpus), "sample.num_batches_per_epoch", sizes)
    accumulated = "counts passes over edits; a pass has all its timesteps, so nothing is multiplied by them"
    written["gradient_accumulation_steps"] = (
        update // (batch * gpus),
        "train.gradient_accumulation_steps",
        accumulated,
    )
    return float(edits / update * config["train.num_inner_epochs"])


def _write_steps(written: _Written, config: Mapping[str, Any], family: str) -> None:
    steps = config["sample.num_steps"]
    guidance = "guidance_scale" if family == "kontext" else "true_cfg_scale"
    written[guidance] = (config["sample.guidance_scale"], "sample.guidance_scale", "in evaluation too, as there")
    written["sampler"] = ("flow_grpo", "flow_grpo's code", "its SDE")
    if family == "kontext":
        end = int(steps * config["train.timestep_fraction"])
        written["window"] = (None, "train.timestep_fraction", f"the first {end} of {steps} steps, no window")
        noise = "trained steps are the stochastic ones; theirs adds noise in the untrained last step too"
        written["window_range"] = ([0, end], "train.timestep_fraction", noise)
    elif config["sample.sde_window_size"]:
        draw = "drawn anew for each group; theirs draws the same in every epoch, as it seeds by rank before"
        written["window"] = (config["sample.sde_window_size"], "sample.sde_window_size", draw)
        written["window_range"] = (list(config["sample.sde_window_range"]), "sample.sde_window_range", "")
        written["window_strategy"] = ("random", "flow_grpo's code", "")
    else:
        written["window"] = (None, "sample.sde_window_size", "0 there: all steps but the last")
        written["window_range"] = ([0, steps - 1], "sample.sde_window_size", "sde_window_range is not used at 0")


def _write_objective(written: _Written, config: Mapping[str, Any]) -> None:
    written["objective"] = ("flow_grpo", "flow_grpo's code", "")
    spread = "batch" if config["sample.global_std"] else "group"
    written["scale_rewards"] = (spread, "sample.global_std", "std over the whole rollout, or the group's")
    exact = "exact KL here; theirs lacks the step's 1/dt, so at T steps the same number weighs about T times more here"
    written["beta"] = (config["train.beta"], "train.beta", exact)


def _write_optimiser(written: _Written, config: Mapping[str, Any], family: str) -> None:
    kind = "adamw_bnb_8bit" if config["train.use_8bit_adam"] else "adamw_torch"
    written["optim"] = (kind, "train.use_8bit_adam", "")
    written["lr_scheduler_type"] = (
        "constant",
        "flow_grpo's code",
        "it has no schedule; transformers' default is linear",
    )
    precision = config["mixed_precision"]
    written["bf16"] = (precision == "bf16", "mixed_precision", "log-probabilities and trajectories are float32 here")
    written["fp16"] = (precision == "fp16", "mixed_precision", "")
    ema = 0.987 if config["train.ema"] else None
    rule = "theirs: 0.9 each 8th update, = 0.9 ** (1/8) each update; evaluated and saved in both"
    written["ema_decay"] = (ema, "train.ema", rule if ema else "")
    if config["use_lora"]:
        written["lora_r"] = (64, "flow_grpo's code", "")
        written["lora_alpha"] = (128, "flow_grpo's code", "")
        more = "our recipe also has proj_out" if family == "kontext" else ""
        written["lora_target_modules"] = (LORA_TARGETS[family], "flow_grpo's code", more)


def _write_schedule(written: _Written, config: Mapping[str, Any], updates: float) -> None:
    """Their epochs, in our updates."""
    each = f"in updates: {updates:g} to an epoch"
    written["max_steps"] = (int(config["num_epochs"] * updates), "num_epochs", f"{each}; theirs runs until stopped")
    written["save_strategy"] = ("steps", "save_freq", "")
    written["save_steps"] = (int(config["save_freq"] * updates), "save_freq", each)
    written["eval_strategy"] = ("steps", "eval_freq", "")
    written["eval_steps"] = (int(config["eval_freq"] * updates), "eval_freq", each)


def _list_missing(missing: dict[str, str], config: Mapping[str, Any], family: str) -> None:
    for name, weight in config["reward_fn"].items():
        missing[f"reward_fn.{name} = {weight}"] = (
            "its rewards are not ours; set `verifier` (what was asked is done, the rest kept), or `reward_funcs` and"
            " `reward_weights` with a function of your own. Learning rate and clip range were found with theirs"
        )
    if not config["per_prompt_stat_tracking"]:
        missing["per_prompt_stat_tracking = False"] = "advantages are always relative to the group's mean here"
    if config.get("train.lora_path"):
        missing[f"train.lora_path = {config['train.lora_path']}"] = "merge it into the pipeline before training"
    if config["allow_tf32"]:
        missing["allow_tf32 = True"] = "set `tf32: true` on an Ampere GPU or newer; elsewhere it is refused"
    if config.get("fsdp_optimizer_offload"):
        missing["fsdp_optimizer_offload = True"] = "belongs in the configuration of accelerate's FSDP"
    if config.get("logdir"):
        missing[f"logdir = {config['logdir']}"] = "logs are below output_dir; choose a tracker with report_to"
    if family == "kontext":
        missing["samples with advantage 0"] = "its trainer drops them; here they stay, at no effect unless beta > 0"
