"""The edit trainers: `EditGRPOTrainer` for any pipeline, and the published recipe of a model family.

trainer = KontextGRPOTrainer(
    "black-forest-labs/FLUX.1-Kontext-dev",
    reward_funcs=EditRRMReward(verifier="openai:MODEL@URL"),
    args=KontextGRPOConfig(output_dir="out"),
    train_dataset=dataset,
)
trainer.train()
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from peft import LoraConfig

from ..errors import ConfigError
from .edit_config import EditGRPOConfig, KontextGRPOConfig, QwenImageEditGRPOConfig
from .edit_trainer import EditGRPOTrainer
from .reward_call import RewardFunction

__all__ = [
    "EditGRPOConfig",
    "EditGRPOTrainer",
    "KontextGRPOConfig",
    "KontextGRPOTrainer",
    "QwenImageEditGRPOConfig",
    "QwenImageEditGRPOTrainer",
    "recipe_lora",
]


def recipe_lora(target_modules: Sequence[str], r: int | None = None, lora_alpha: int | None = None) -> LoraConfig:
    """The LoRA of the published recipes: rank 64, a scale of twice the rank, gaussian start."""
    rank = 64 if r is None else r
    return LoraConfig(
        r=rank,
        lora_alpha=2 * rank if lora_alpha is None else lora_alpha,
        init_lora_weights="gaussian",
        target_modules=list(target_modules),
    )


class KontextGRPOTrainer(EditGRPOTrainer):
    """`EditGRPOTrainer` with the published recipe for FLUX.1 Kontext (`KontextGRPOConfig`, LoRA of rank 64)."""

    config_class = KontextGRPOConfig
    lora_targets: ClassVar[tuple[str, ...]] = (
        *("attn.to_k", "attn.to_q", "attn.to_v", "attn.to_out.0"),
        *("attn.add_k_proj", "attn.add_q_proj", "attn.add_v_proj", "attn.to_add_out"),
        *("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"),
        *("proj_mlp", "proj_out"),
    )

    def __init__(
        self,
        model: Any,
        reward_funcs: RewardFunction | Sequence[RewardFunction],
        args: EditGRPOConfig | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        peft_config: LoraConfig | str | None = "recipe",
        **more: Any,
    ) -> None:
        """As `EditGRPOTrainer`; `peft_config="recipe"` is the published LoRA, None trains the whole transformer."""
        if isinstance(peft_config, str):
            if peft_config != "recipe":
                raise ConfigError(f"peft_config={peft_config!r}: a LoraConfig, None or 'recipe'")
            peft_config = recipe_lora(self.lora_targets)
        super().__init__(model, reward_funcs, args, train_dataset, eval_dataset, peft_config, **more)


class QwenImageEditGRPOTrainer(KontextGRPOTrainer):
    """`EditGRPOTrainer` with the published recipe for Qwen-Image-Edit, also 2509 and 2511."""

    config_class = QwenImageEditGRPOConfig
    lora_targets = (
        *("attn.to_k", "attn.to_q", "attn.to_v", "attn.to_out.0"),
        *("attn.add_k_proj", "attn.add_q_proj", "attn.add_v_proj", "attn.to_add_out"),
        *("img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.0.proj", "txt_mlp.net.2"),
    )
