"""What `editr1 grpo` takes: YAML and flags, by `trl.TrlParser`, for the configuration class that fits the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ..errors import ConfigError
from .trl_arguments import parse_dataclasses, preview, print_dataclasses, separated

if TYPE_CHECKING:
    from ..training.edit_grpo import EditGRPOConfig, EditGRPOTrainer

__all__ = ["RECIPES", "GRPOArguments", "ModelArguments", "ScriptArguments", "parse_arguments", "print_options"]

#: Recipes by the beginning of the pipeline class's name; "generic" fits every other pipeline.
RECIPES: Final = {"kontext": "FluxKontext", "qwen-image-edit": "QwenImageEdit", "generic": ""}

#: What is read first, since it decides which options there are.
_DECIDING: Final = ("model_name_or_path", "model_revision", "recipe")
_GENERIC_TARGETS: Final = ("to_q", "to_k", "to_v", "to_out.0")  # attention, as diffusers' networks call it


def _help(text: str) -> dict[str, str]:
    return {"help": text}


@dataclass
class ScriptArguments:
    """Data and rewards; the names are those of `trl grpo` where it has them."""

    dataset_name: str | None = field(
        default=None,
        metadata=_help(
            "Id of a data set on the hub; or a .jsonl, .parquet or .tar (WebDataset) file, or a folder of such."
        ),
    )
    dataset_config: str | None = field(default=None, metadata=_help("Configuration of a data set on the hub."))
    dataset_train_split: str = field(
        default="train", metadata=_help("Split, or name of the files in a folder, to train on.")
    )
    dataset_test_split: str = field(
        default="test", metadata=_help("The same for evaluation; read when eval_strategy is not 'no'.")
    )
    image_column: list[str] | None = field(
        default=None, metadata=_help("Column of the source image; several: several sources a row.")
    )
    prompt_column: str = field(default="prompt", metadata=_help("Column of the instruction."))
    skip_broken: bool = field(
        default=False, metadata=_help("Leave broken rows out and count them, instead of stopping.")
    )
    decode_images: bool = field(
        default=False, metadata=_help("Check images by decoding them, not only their headers and ends.")
    )
    check_workers: int = field(default=1, metadata=_help("Processes that check the rows."))
    reward_funcs: list[str] | None = field(
        default=None,
        metadata=_help(
            "Dotted paths of reward functions; 'edit_rrm' is EditRRMReward with the settings below, and the default."
        ),
    )
    verifier: str | None = field(
        default=None, metadata=_help("Spec of the judge; None: $EDITR1_VERIFIER, else measure.")
    )
    decomposer: str | None = field(
        default=None, metadata=_help("Spec of who writes principles; None: $EDITR1_DECOMPOSER, else rules.")
    )
    guards: list[str] | None = field(
        default=None, metadata=_help("Guards against reward hacks; 'none' for none; None: the default ones.")
    )
    samples: int = field(default=1, metadata=_help("How often each edit is judged; scores are averaged."))
    aggregate: str = field(default="score", metadata=_help("'score' as judged, or 'average' of the verdicts."))
    cache: str | None = field(
        default=None, metadata=_help("sqlite file of principles, as `editr1 decompose` fills it.")
    )
    record: str | None = field(
        default=None, metadata=_help("Folder for a record of every judged edit, for `editr1 report`.")
    )


@dataclass
class ModelArguments:
    """The pipeline and what of it is trained; the names are those of TRL's ModelConfig where it has them."""

    model_name_or_path: str | None = field(default=None, metadata=_help("Id or folder of a diffusers pipeline."))
    model_revision: str | None = field(default=None, metadata=_help("Branch, tag or commit of a model on the hub."))
    dtype: str | None = field(
        default=None,
        metadata=_help("float32, bfloat16 or float16; None: float32 on a CPU and for full fine-tuning, else bfloat16."),
    )
    recipe: str | None = field(
        default=None,
        metadata=_help(f"{', '.join(RECIPES)}: defaults and LoRA modules; None: what fits the pipeline's class."),
    )
    use_peft: bool = field(default=True, metadata=_help("Train a LoRA; false trains the whole transformer."))
    lora_r: int | None = field(default=None, metadata=_help("Rank; None: that of the published LoRAs, 64."))
    lora_alpha: int | None = field(default=None, metadata=_help("Scale; None: twice the rank."))
    lora_target_modules: list[str] | None = field(
        default=None, metadata=_help("Modules with a LoRA; None: the recipe's.")
    )


@dataclass(frozen=True, kw_only=True)
class GRPOArguments:
    """Everything parsed; `recipe` is a name in `RECIPES`."""

    script: ScriptArguments
    model: ModelArguments
    config: EditGRPOConfig
    recipe: str

    @property
    def trainer_class(self) -> type[EditGRPOTrainer]:
        return _trainer_class(self.recipe)

    def lora(self) -> Any:
        """The `LoraConfig` to train with, or None for full fine-tuning."""
        from ..training.edit_grpo import recipe_lora

        if not self.model.use_peft:
            return None
        targets: Sequence[str] = getattr(self.trainer_class, "lora_targets", _GENERIC_TARGETS)
        return recipe_lora(self.model.lora_target_modules or targets, self.model.lora_r, self.model.lora_alpha)


def parse_arguments(argv: Sequence[str]) -> GRPOArguments:
    """Parse `--config FILE` and flags.

    The recipe decides which class of configuration is parsed, hence defaults; it is the one named, or follows from the
    class of the pipeline, which is read before anything else.

    Raises:
        ConfigError: a flag or key that does not exist, a wrong value, no model, an unknown recipe.
    """
    named, _ = preview(separated(argv), _DECIDING)
    if not named.model_name_or_path:
        raise ConfigError("no model: give model_name_or_path, the id or folder of a diffusers pipeline")
    recipe = named.recipe or _recipe_of(named.model_name_or_path, named.model_revision)
    if recipe not in RECIPES:
        raise ConfigError(f"recipe={recipe!r}: one of {', '.join(RECIPES)}")
    script, model, config = parse_dataclasses(_types(recipe), argv, "grpo")
    return GRPOArguments(script=script, model=model, config=config, recipe=recipe)


def print_options(argv: Sequence[str]) -> None:
    """Print every option with its default, for the recipe or model named in `argv`, else for any pipeline."""
    named, _ = preview(separated(argv), _DECIDING)
    recipe = named.recipe or (named.model_name_or_path and _recipe_of(named.model_name_or_path, named.model_revision))
    print_dataclasses(_types(recipe or "generic"), "grpo")


def _recipe_of(model: str, revision: str | None) -> str:
    from diffusers import DiffusionPipeline

    try:
        name = DiffusionPipeline.load_config(model, revision=revision).get("_class_name")
    except Exception as error:  # the hub raises many kinds
        raise ConfigError(f"{model!r} is no diffusers pipeline that can be read: {error}") from error
    return next(recipe for recipe, beginning in RECIPES.items() if str(name).startswith(beginning))


def _trainer_class(recipe: str) -> type[EditGRPOTrainer]:
    from ..training import edit_grpo

    if recipe == "kontext":
        return edit_grpo.KontextGRPOTrainer
    return edit_grpo.QwenImageEditGRPOTrainer if recipe == "qwen-image-edit" else edit_grpo.EditGRPOTrainer


def _types(recipe: str) -> tuple[type, ...]:
    return ScriptArguments, ModelArguments, _trainer_class(recipe).config_class
