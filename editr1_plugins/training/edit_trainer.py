"""`EditGRPOTrainer`: RL of an unmodified diffusers editing pipeline, as a `transformers.Trainer`.

Configuration, callbacks, trackers, checkpoints, resume, optimizers and launchers are the Trainer's. Overridden are: the
sampler (groups of the same prompt, as TRL's), the rollout (in `_prepare_inputs`), the replay (in `training_step`),
evaluation with the ODE sampler, and saving through the pipeline's own LoRA format. Rewards are called as TRL does.

    trainer = EditGRPOTrainer(
        pipe,
        reward_funcs=EditRRMReward(verifier="openai:MODEL@URL"),
        args=EditGRPOConfig(output_dir="out"),
        train_dataset=dataset,  # columns `image` and `prompt`; the rest goes to the rewards
    )
    trainer.train()

Left out of GRPO as TRL has it: everything about tokens. The transformer is never wrapped (pipelines read its
attributes): with several processes its gradients are averaged, as DDP does, or `fsdp=True` shards it in place
(`parallel.py`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from accelerate.utils import gather_object
from diffusers import DiffusionPipeline
from peft import LoraConfig
from torch import Tensor, nn
from transformers import TrainerCallback
from transformers.trainer_utils import EvalLoopOutput

from ..errors import ConfigError, DataError, JudgeUnavailableError
from ..plugins import resolve
from .advantage import Advantages, group_advantages
from .algorithms import Objective, accumulate
from .checkpoints import ResumableTrainer
from .edit_callbacks import Bookkeeping, TrackedConfig
from .edit_config import EditGRPOConfig
from .edit_evaluation import EvalSheets, evaluate_edits, rewards_by_category
from .generation import Chunk, EditSampler, check_columns, derived_seed
from .group_sampler import GroupSampler
from .hub import PublishedTrainer
from .judging import Judge, Judgement, Judging
from .metrics import MAXIMA, Metrics, PassMetrics, reward_means, std_within_groups, total_rewards
from .parallel import average_gradients, check_launch, everywhere, reshard, shard_on_cpu, sharded, start_alike
from .pending import PendingRollout, agreed_judgement, print_of_all
from .policy import Policy
from .preflight import PreflightReport, preflight, require_ratio_of_one
from .reward_call import RewardFunction, RewardFunctions
from .tape import patched

__all__ = ["EditGRPOTrainer"]


class EditGRPOTrainer(ResumableTrainer, PublishedTrainer):
    """Trains a diffusers editing pipeline with rewards on the edits it makes.

    Args:
        model: a diffusers pipeline, or the id or path of one. Only its scheduler is exchanged, while it runs.
        reward_funcs: one or several callables with TRL's reward signature; `completions` are edited PIL images.
        args: an `EditGRPOConfig`.
        train_dataset: rows with `image` (a PIL image, or a list of them) and `prompt`; other columns go to the rewards.
        eval_dataset: the same, for `evaluate`; or a dict of such.
        peft_config: the LoRA to train; None: an adapter that the pipeline has, else the whole transformer.
        callbacks, optimizers: as in `transformers.Trainer`.
        objective: the algorithm; None: the one that `args.objective` names.

    Raises:
        ConfigError: arguments that do not fit the pipeline or each other.
        DataError: a dataset without the columns `image` and `prompt`.
        ReplayError: (in `train`) the pipeline does not replay exactly what it samples.
        JudgeUnavailableError: (in `train`) nobody has judged for `judge_patience` seconds; a checkpoint was written.
    """

    config_class: ClassVar[type[EditGRPOConfig]] = EditGRPOConfig

    def __init__(
        self,
        model: Any,
        reward_funcs: RewardFunction | Sequence[RewardFunction],
        args: EditGRPOConfig | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        peft_config: LoraConfig | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        objective: Objective[Any] | None = None,
    ) -> None:
        args = args or self.config_class(output_dir="tmp_trainer")
        check_launch(args)
        self.pipe = DiffusionPipeline.from_pretrained(model) if isinstance(model, (str, os.PathLike)) else model
        self.reward_functions = RewardFunctions(reward_funcs)
        self.reward_weights = self.reward_functions.checked_weights(args.reward_weights)
        for name, dataset in (("train_dataset", train_dataset), ("eval_dataset", eval_dataset)):
            check_columns(name, dataset)
        found = objective if objective is not None else resolve("algorithm", args.objective)
        self.objective: Objective[Any] = found.configured(args)
        self.policy = Policy(
            self.pipe, peft_config, args.ema_decay, with_reference=self.objective.needs_reference, seed=args.seed
        )
        super().__init__(
            model=self.policy.network,
            args=args,
            data_collator=_rows_as_they_are,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            callbacks=[Bookkeeping(self), *(callbacks or [])],
            optimizers=optimizers,
        )
        self.model_accepts_loss_kwargs = False  # losses are averaged over accumulation here, not by the model
        self.pipe.to(self.accelerator.device)
        start_alike(self.accelerator, self.policy.parameters)
        self.policy.start_average()
        self.pipe.set_progress_bar_config(disable=True)
        self.sampler = EditSampler(
            self.pipe, args, stochastic=self.objective.stochastic, autocast=self.accelerator.autocast
        )
        self._metrics = Metrics()
        self._sheets = EvalSheets(self)
        self.add_callback(self._sheets)
        self.judge = Judge(
            self.reward_functions,
            calls=args.judge_calls,
            patience=args.judge_patience,
            device=self.accelerator.device,
        )
        self._judging: Judging | None = None  # of the rollout, while it is judged
        self._pending: PendingRollout | None = None  # the rollout, until all its rewards are known

    # Data: groups of the same row, each rollout's rows as often as they are replayed

    @property
    def _passes_per_rollout(self) -> int:
        return int(self.args.steps_per_generation * self.args.num_iterations)

    @property
    def within_rollout(self) -> bool:
        """Whether the current rollout still has passes to come."""
        return self._passes % self._passes_per_rollout != 0

    def get_train_dataloader(self) -> Any:
        """Batches of a whole rollout's rows, repeated for every replay pass, as in TRL's GRPOTrainer."""
        if self.train_dataset is None:
            raise ConfigError("training needs a train_dataset")
        return self._get_dataloader(
            dataset=self.train_dataset,
            description="Training",
            batch_size=self._train_batch_size * self.args.steps_per_generation,
            sampler_fn=self._get_train_sampler,
            is_training=True,
        )

    def _get_train_sampler(self, dataset: Any = None) -> GroupSampler:
        prompts = self.args.generation_batch_size // self.args.num_generations
        rows = self.train_dataset if dataset is None else dataset
        if len(rows) < prompts:
            raise DataError(f"train_dataset has {len(rows)} rows, but one rollout takes {prompts} different ones")
        self.train_sampler = GroupSampler(
            rows,
            mini_repeat_count=self.args.num_generations,
            batch_size=prompts,
            repeat_count=self._passes_per_rollout,
            shuffle=self.args.shuffle_dataset,
            seed=self.args.seed,
        )
        return self.train_sampler

    def _get_eval_sampler(self, eval_dataset: Any) -> Any:
        return torch.utils.data.SequentialSampler(eval_dataset)

    # Training

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """`Trainer.train`; first proves on one row that the pipeline replays exactly (`preflight`)."""
        network, checkpointing = self.policy.network, self.args.activation_checkpointing
        if checkpointing:
            network.enable_gradient_checkpointing()
        if self.args.preflight and not sharded(network):
            self.prove_replay()
        # diffusers' networks have their own switch, thrown above; the Trainer only knows transformers'.
        self.args.activation_checkpointing = False
        try:
            with patched(network, "_internal_dict", TrackedConfig(network.config)):
                return super().train(*args, **kwargs)
        except JudgeUnavailableError as error:
            raise JudgeUnavailableError(f"{error}. {self.save_before_update()}") from error
        finally:
            self.sampler.close()
            self._close_judging()
            self.args.activation_checkpointing = checkpointing

    def prove_replay(self) -> PreflightReport:
        """`preflight` of the first training row, as the run would sample it.

        Raises:
            ReplayError: the pipeline cannot be trained exactly.
        """
        if self.args.activation_checkpointing:
            self.policy.network.enable_gradient_checkpointing()
        with self.accelerator.autocast(), self.policy.few_parameters() as parameters:
            call = self.sampler.call(self.train_dataset[0], self.args.num_inference_steps)
            report = preflight(
                self.pipe,
                call,
                parameters,
                rows=min(2, self.args.per_device_train_batch_size),
                window=self.args.trainable_range if self.objective.stochastic else None,
                sampler=self.args.sampler,
                noise_level=self.args.noise_level,
            )
        self.sampler.rows_per_call = report.rows_per_call
        return report

    def create_accelerator_and_postprocess(self) -> None:
        """`Trainer`'s; FSDP2 also works on CPU processes."""
        super().create_accelerator_and_postprocess()
        self.is_fsdp_enabled = shard_on_cpu(self.accelerator, self.args) or self.is_fsdp_enabled

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: Any) -> Any:
        # Unwrapped: a pipeline reads attributes of its transformer, which a DDP wrapper hides. FSDP2 works in place.
        prepare, replicated = self.accelerator.prepare_model, not sharded(self.policy.network)
        self.accelerator.prepare_model = lambda model, *a, **k: prepare(model, *a, **{**k, "evaluation_mode": True})
        try:
            prepared = super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        finally:
            self.accelerator.prepare_model = prepare
        if replicated and sharded(self.policy.network) and resume_from_checkpoint is None:
            self.policy.start_average()  # again, sharded
        self.policy.keep_reference()
        return prepared

    def _prepare_inputs(self, inputs: list[dict[str, Any]]) -> list[Chunk]:
        """The chunks of this replay pass; every so many passes, `inputs` are first sampled, judged and compared."""
        step = self._passes % self._passes_per_rollout
        last = step == self.args.steps_per_generation - 1
        if step == 0 or self._generation is None:
            last = last or step > 0
            self._generate(inputs, self._passes // self._passes_per_rollout)
        index = step % self.args.steps_per_generation
        chunks: list[Chunk] = self._generation.of_pass(index, self.args.per_device_train_batch_size)
        if self._pending is not None:
            # Until the first update, passes need no more than their own groups' rewards, where groups are independent.
            if last or self.accelerator.sync_gradients or not self._groups_are_independent(self._pending):
                self._settle(self._pending)
            else:
                self._pending.compare(chunks, self._advantages)
        return chunks

    def _generate(self, rows: list[dict[str, Any]], number: int) -> None:
        """Sample the rollout; each group goes to the judge when its last edit is there."""
        offset = self.accelerator.process_index * len(rows)
        self._close_judging()
        judging = self._judging = self.judge.begin(rows, self.state)
        self._generation = self.sampler.sample(rows, number, offset, judging.submit)
        judging.finish()
        self._pending = PendingRollout(
            generation=self._generation,
            judging=judging,
            rows=rows,
            offset=offset,
            group_size=self.args.num_generations,
            prepare=partial(self._prepare_points, number=number),
            idle=self.objective.idle,
            # Sharded weights, or ones that are swapped for the reference's: all at once, and the same everywhere.
            in_step=self.is_fsdp_enabled or self.policy.frozen is not None,
        )

    def _groups_are_independent(self, pending: PendingRollout) -> bool:
        alone = self.args.scale_rewards != "batch" and self.args.multi_objective_aggregation == "sum_then_normalize"
        ours = type(self).compute_advantages is EditGRPOTrainer.compute_advantages  # another may look at all rows
        return alone and ours and pending.groups_are_independent

    def _settle(self, pending: PendingRollout) -> None:
        """Wait for the rest of the rewards, and make every chunk ready."""
        pending.prepare_while_waiting()
        judgement = agreed_judgement(pending.judging, self.accelerator)
        self._metrics.add("judge_wait", pending.judging.waited)
        self._metrics.update(judgement.metrics)
        self._print_edits(pending.rows, judgement)
        rewards = self.accelerator.gather(judgement.rewards.to(self.accelerator.device)).cpu()
        pending.settle(self.compute_advantages(rewards))
        self._pending = self._judging = None

    def _close_judging(self) -> None:
        if self._judging is not None:
            self._judging.close()
        self._pending = self._judging = None

    def _prepare_points(self, chunks: list[Chunk], number: int) -> None:
        """Points of the chunks that are learned from; if weights are sharded, on any process, as all must take part."""
        learns = [chunk.learns for chunk in chunks]
        visited = everywhere(self.accelerator, learns) if self.is_fsdp_enabled else learns
        chosen = [chunk for chunk, wanted in zip(chunks, visited, strict=True) if wanted]
        with self.accelerator.autocast():
            for chunk in chosen:
                seed = derived_seed(self.args.seed, "points", number)  # rows have seeds of their own
                chunk.points = self.objective.prepare(self.pipe, chunk.rollout, seed=seed)
            if chosen and self.objective.needs_reference:
                with self.policy.reference():
                    for chunk in chosen:
                        chunk.points = self.objective.refer(self.pipe, chunk.rollout, chunk.points)

    def compute_advantages(self, rewards: Tensor) -> Advantages:
        """Advantages of all processes' rows from their rewards, (rows, functions); 0 where a row was not judged."""
        found = self._advantages(rewards)
        self._metrics.update(reward_means(rewards, self.reward_weights, self.reward_functions.names))
        self._metrics.add("reward_std", std_within_groups(found.rewards, self.args.num_generations))
        self._metrics.add("frac_reward_zero_std", found.frac_reward_zero_std)
        groups = zip(found.skipped.tolist(), found.values.view(-1, self.args.num_generations), strict=True)
        self._metrics.add("groups_skipped", sum(skipped or self.objective.idle(values) for skipped, values in groups))
        return found

    def _advantages(self, rewards: Tensor) -> Advantages:
        return group_advantages(
            rewards,
            self.args.num_generations,
            weights=self.args.reward_weights,
            scale_rewards=self.args.scale_rewards,
            aggregation=self.args.multi_objective_aggregation,
            clip=self.args.advantage_clip,
        )

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """One replay pass: backward through every trained step of `per_device_train_batch_size` edits."""
        chunks = self._prepare_inputs(inputs)
        if sharded(self.policy.network):
            self.policy.network.set_requires_gradient_sync(True)  # a pass may have no backward that would catch up
        count = sum(len(chunk.rollout) for chunk in chunks)
        metrics = PassMetrics()
        for chunk in chunks:
            if not chunk.points:
                continue
            share = len(chunk.rollout) / count
            with self.accelerator.autocast():
                found = accumulate(
                    self.objective,
                    self.pipe,
                    chunk.rollout,
                    chunk.points,
                    chunk.advantages,
                    scale=share / self.current_gradient_accumulation_steps if chunk.learns else 0.0,
                    skip_idle=not self.is_fsdp_enabled,
                )
            if chunk.learns:
                metrics.add(found, share)
        self._log_pass(metrics)
        self._passes += 1
        reshard(self.policy.network)
        if self.accelerator.sync_gradients:
            average_gradients(self.accelerator, self.policy.parameters)
        return torch.tensor(metrics.loss / self.current_gradient_accumulation_steps, device=self.accelerator.device)

    # Evaluation

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Edit every held-out row once with the pipeline's own (ODE) scheduler and averaged weights, and judge it."""
        found = evaluate_edits(self, dataloader)
        scores = total_rewards(found.rewards, self.reward_weights)
        self._sheets.add(metric_key_prefix, found.shown, scores.tolist())
        by_category = {f"reward/{name}": v for name, v in rewards_by_category(scores, found.categories).items()}
        means = reward_means(found.rewards, self.reward_weights, self.reward_functions.names)
        metrics = {**found.metrics, **means, **by_category}
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=metrics, num_samples=len(scores))

    # Metrics

    def _log_pass(self, metrics: PassMetrics) -> None:
        step = self._passes % self._passes_per_rollout
        for name, (value, weight) in metrics.means().items():
            # Later passes are off the sampling policy, so only the first says whether replay is exact.
            if name != "loss" and (name not in MAXIMA or step < self.args.gradient_accumulation_steps):
                self._metrics.add(name, value, weight)
                if name == "ratio_error":
                    require_ratio_of_one(value)
        if step == self._passes_per_rollout - 1 and self._generation is not None:
            self._metrics.add("encoder_calls", self._generation.encoder_calls)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """`Trainer.log`; training logs carry what was gathered since the last one."""
        super().log({**logs, **self._metrics.drain(gather_object)} if "loss" in logs else logs, start_time)

    def _print_edits(self, rows: Sequence[dict[str, Any]], judgement: Judgement) -> None:
        if self.args.log_completions:
            lines = judgement.lines([row["prompt"] for row in rows], self.reward_functions.names)
            print_of_all(self.accelerator, [f"rollout at update {self.state.global_step}", *lines])


def _rows_as_they_are(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return rows
