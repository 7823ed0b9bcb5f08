"""Publishing a run on the hub: `push_to_hub`, `hub_strategy` and the model card, for weights as diffusers has them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import Trainer

from .model_card import model_card
from .policy import Policy

__all__ = ["PublishedTrainer"]


class PublishedTrainer(Trainer):
    """A Trainer whose checkpoints are pushed with their weights, and whose card says what was trained and how."""

    policy: Policy

    def create_model_card(
        self,
        language: str | None = None,
        license: str | None = None,
        tags: str | list[str] | None = None,
        model_name: str | None = None,
        finetuned_from: str | None = None,
        tasks: str | list[str] | None = None,
        dataset_tags: str | list[str] | None = None,
        dataset: str | list[str] | None = None,
        dataset_args: str | list[str] | None = None,
        results: Mapping[str, float] | None = None,
    ) -> None:
        """Write `README.md` into the output folder; see `model_card`. Arguments as for `Trainer.create_model_card`.

        Args:
            results: more measures to be stated, e.g. of a gold measure or a benchmark, by name.
        """
        if not self.is_world_process_zero():
            return
        given = {
            "language": language,
            "license": license,
            "tags": tags,
            "base_model": finetuned_from,
            "pipeline_tag": tasks,
            "datasets": dataset_tags or dataset,
        }
        named = {name: value for name, value in given.items() if value is not None}
        title = model_name or Path(self.args.output_dir).absolute().name
        card: Any = model_card(self, title, results, **named)
        Path(self.args.output_dir).mkdir(parents=True, exist_ok=True)
        card.save(Path(self.args.output_dir) / "README.md")

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """`Trainer`'s, which only knows the names of transformers' weights and pushes what is in the output folder."""
        if self.is_world_process_zero() and self.args.hub_strategy != "end":
            source, target = Path(checkpoint_folder), Path(self.args.output_dir)
            for path in (*source.glob("*.safetensors"), source / self.policy.part):
                if path.is_dir():
                    shutil.copytree(path, target / path.name, dirs_exist_ok=True)
                elif path.is_file():
                    shutil.copy(path, target / path.name)
            self.create_model_card(model_name=(self.args.hub_model_id or "").rpartition("/")[2] or None)
        super()._push_from_checkpoint(checkpoint_folder)
