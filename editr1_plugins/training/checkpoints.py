"""Checkpoints that are there whole or not at all, whenever the process dies.

What a Trainer writes goes to `OUTPUT_DIR/.incomplete/checkpoint-N`; when all processes are done it is flushed to the
disk and renamed to `OUTPUT_DIR/checkpoint-N`. A rename either happened or did not. An older checkpoint is renamed back
into `.incomplete` before it is deleted, so nothing half-deleted stays either.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Final

import torch
from accelerate.utils import save_fsdp_optimizer
from torch import nn
from transformers import PreTrainedModel, Trainer, TrainerCallback
from transformers.trainer_utils import sort_checkpoints
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from ..errors import DataError
from .parallel import sharded
from .policy import Policy

__all__ = ["BetweenRollouts", "CheckpointFolder", "ResumableTrainer", "WholeCheckpoints"]

_INCOMPLETE: Final = ".incomplete"
_REPLACED: Final = "replaced"


class CheckpointFolder:
    """The checkpoints of one run.

    Args:
        root: the run's output folder; its file system must rename folders atomically (any local or NFS one does).
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        self.incomplete = self.root / _INCOMPLETE

    def clean(self) -> None:
        """Remove what an interrupted run left unfinished; call it where no process is writing."""
        for path in self._replaced().glob("*"):
            if not (self.root / path.name).exists():  # killed between the two renames of `publish`
                path.rename(self.root / path.name)
        shutil.rmtree(self.incomplete, ignore_errors=True)

    def publish(self, name: str) -> Path:
        """Move `.incomplete/NAME` to `NAME`, flushed to the disk first; an older one of that name is replaced.

        Raises:
            FileNotFoundError: there is nothing of that name to publish.
        """
        written, final = self.incomplete / name, self.root / name
        _flush(written)
        if final.exists():
            self._replaced().mkdir(parents=True, exist_ok=True)
            shutil.rmtree(self._replaced() / name, ignore_errors=True)
            final.rename(self._replaced() / name)
        written.rename(final)
        _flush_entry(self.root)
        shutil.rmtree(self._replaced(), ignore_errors=True)
        return final

    def rotate(self, limit: int | None, best: str | None = None) -> None:
        """Keep the `limit` latest checkpoints, as `save_total_limit` has it: never fewer than the last and the best."""
        if limit is None or limit <= 0:
            return
        ordered = [Path(path) for path in sort_checkpoints(str(self.root), use_mtime=True)]
        kept = {ordered[-1]} if ordered else set()
        if best is not None:
            kept |= {path for path in ordered if path.name == Path(best).name}
        for path in reversed(ordered):
            if len(kept) < limit:
                kept.add(path)
        for path in ordered:
            if path not in kept:
                self.delete(path)

    def delete(self, path: Path) -> None:
        """Delete a checkpoint, so that it is whole or gone at any moment."""
        self.incomplete.mkdir(exist_ok=True)
        doomed = self.incomplete / f"deleted-{path.name}"
        shutil.rmtree(doomed, ignore_errors=True)
        path.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)

    def _replaced(self) -> Path:
        return self.incomplete / _REPLACED


class WholeCheckpoints(Trainer):
    """A Trainer that publishes a checkpoint when all processes have written it, by one rename.

    With `save_only_model` nothing can be resumed, as in transformers. With several machines that share no file system,
    each publishes its own processes' files.
    """

    is_fsdp_enabled: bool
    is_deepspeed_enabled: bool
    _writing: CheckpointFolder | None = None

    def _get_output_dir(self, trial: Any) -> str:
        folder: str = super()._get_output_dir(trial)
        return folder if self._writing is None else str(self._writing.incomplete)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        name = f"checkpoint-{self.state.global_step}"
        folder = CheckpointFolder(self._get_output_dir(trial))
        self._cleaned(folder)
        self._writing = folder
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._writing = None
        written = folder.incomplete / name
        if self.state.best_model_checkpoint == str(written):
            self.state.best_model_checkpoint = str(folder.root / name)
            if self.args.should_save:
                self.state.save_to_json(str(written / "trainer_state.json"))
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            folder.publish(name)
            folder.rotate(self.args.save_total_limit, self.state.best_model_checkpoint)
        self.accelerator.wait_for_everyone()
        if self.args.local_process_index == 0 and written.exists():  # another machine, with a disk of its own
            folder.publish(name)
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(folder.root / name))

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if self._writing is None:  # else it moves before the upload is done; pushed once it is published
            super()._push_from_checkpoint(checkpoint_folder)

    def _finalize_training(self, *args: Any, **kwargs: Any) -> Any:
        best, folder = self.state.best_model_checkpoint, CheckpointFolder(self._get_output_dir(None))
        if self.args.should_save and self.args.save_total_limit == 1 and best is not None:
            for path in map(Path, sort_checkpoints(str(folder.root))):  # transformers would, file by file
                if path.name != Path(best).name:
                    folder.delete(path)
        return super()._finalize_training(*args, **kwargs)

    def _cleaned(self, folder: CheckpointFolder) -> None:
        if self.args.local_process_index == 0:
            folder.clean()
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if not self._restored(resume_from_checkpoint, self.model if model is None else model):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        if not self._restored(str(self.state.best_model_checkpoint), self.model):
            super()._load_best_model()

    def _restored(self, folder: str, model: Any) -> bool:
        """Read a whole transformers model back by `from_pretrained`; False where the checkpoint holds something else.

        The Trainer looks weights up by their names in the file. These differ from the names in the model for families
        whose files keep an older layout, Qwen2.5-VL among them; it then warns, and goes on with the weights it has.
        """
        whole = any((Path(folder) / name).is_file() for name in (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME))
        if not whole or not isinstance(model, PreTrainedModel) or self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return False
        stored = type(model).from_pretrained(folder, dtype=model.dtype, use_safetensors=True, local_files_only=True)
        model.load_state_dict(stored.state_dict())  # strict: a weight without a place is an error
        return True

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        if self.state.global_step >= self.state.max_steps:  # resumed at its end; transformers would train on
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """`Trainer.train`; what an interrupted run left half-written is removed first."""
        self._cleaned(CheckpointFolder(self.args.output_dir))
        return super().train(*args, **kwargs)


class BetweenRollouts(TrainerCallback):
    """Sets each epoch's order, and lets checkpoints wait until a rollout has been used up.

    A rollout is not stored, so a checkpoint in the midst of its passes could not be resumed exactly. Where the best
    checkpoint is to be kept, evaluations wait as well.

    Args:
        trainer: with `within_rollout`, and as `train_sampler` the `GroupSampler` of its training rows.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer, self.save_is_due, self.evaluation_is_due = trainer, False, False

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # A resumed epoch begins at a fraction; a finished one at a whole number, up to rounding.
        self.trainer.train_sampler.set_epoch(int(state.epoch + 1e-6))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        may_wait = self.trainer.within_rollout and not control.should_training_stop
        due = control.should_save or self.save_is_due
        control.should_save, self.save_is_due = due and not may_wait, due and may_wait
        if args.metric_for_best_model is not None:  # the weights that are found best must be ones that are saved
            due = control.should_evaluate or self.evaluation_is_due
            control.should_evaluate, self.evaluation_is_due = due and not may_wait, due and may_wait


class ResumableTrainer(WholeCheckpoints):
    """Saves and restores what a `Policy` trains, so that a resumed run goes on bit by bit as it would have.

    Besides the Trainer's own files (optimizer, schedule, random states of every process) a checkpoint holds the trained
    weights as diffusers reads them, and `editr1_state*.pt`: the count of replay passes, from which all seeds follow,
    and with an average the live weights. With replicated weights the number of processes may change.
    """

    policy: Policy
    _passes: int = 0  # replay passes since the start of the run
    passes_before_update: int = 0  # those that the updates so far have used
    _generation: Any = None  # the rollout that is being replayed; not stored, so a checkpoint waits for its end

    @property
    def within_rollout(self) -> bool:
        """Whether the current rollout still has passes to come."""
        raise NotImplementedError

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the (averaged) weights: a LoRA for `load_lora_weights`, a whole pipeline after full fine-tuning."""
        self._save(output_dir)
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        if self.args.should_save:
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(self.args, folder / "training_args.bin")
        self.policy.save(folder, whole=self._writing is None, write=self.args.should_save)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.is_fsdp_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        # Without the weights that transformers would write beside it once more, frozen ones included.
        plugin = self.accelerator.state.fsdp_plugin
        save_fsdp_optimizer(plugin, self.accelerator, self.optimizer, self.model, output_dir)
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / "scheduler.pt")

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        state = {"passes": self._passes, "live": self.policy.live_state(write=self.args.should_save)}
        if self.args.should_save or sharded(self.policy.network):
            torch.save(state, self._state_file(output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        path = self._state_file(resume_from_checkpoint)
        if not path.is_file():
            raise DataError(
                f"no {path.name} in {resume_from_checkpoint}: it was made with save_only_model, or sharded over another"
                " number of processes"
            )
        self.policy.load(resume_from_checkpoint)
        state = torch.load(path, weights_only=True, map_location="cpu")
        self._passes = state["passes"]
        self.policy.load_live_state(state["live"])
        self._generation = None

    def save_before_update(self) -> str:
        """Write a checkpoint of the run as the last update left it, though another has begun; all processes call this.

        Returns:
            What was done and how to go on, for a message. Where the last update is in the midst of a rollout's passes,
            nothing is written, since such a checkpoint could not be resumed exactly.
        """
        path = Path(self._get_output_dir(None)) / f"checkpoint-{self.state.global_step}"
        if not path.is_dir():
            begun, self._passes = self._passes, self.passes_before_update
            if self.within_rollout or self.args.save_only_model:
                self._passes = begun
                return "No checkpoint could be written here; resume_from_checkpoint=True goes on from the last one."
            self._save_checkpoint(self.model, None)
        return f"The run is kept in {path}: train(resume_from_checkpoint=True) goes on from there exactly."

    def _load_best_model(self) -> None:
        self.policy.load(self.state.best_model_checkpoint)

    def _state_file(self, folder: str) -> Path:
        rank = f"_{self.args.process_index}" if sharded(self.policy.network) else ""
        return Path(folder) / f"editr1_state{rank}.pt"


def _flush(folder: Path) -> None:
    """Have everything below a folder on the disk, so that the rename cannot get there before the content."""
    for parent, _, files in os.walk(folder):
        for name in files:
            with open(os.path.join(parent, name), "rb") as file:
                os.fsync(file.fileno())
        _flush_entry(Path(parent))


def _flush_entry(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
