"""GCPO: a pointwise judge learns from pairwise human labels (Edit-R1, section 3.3), as a thin `trl.GRPOTrainer`.

    trainer = GCPOTrainer(
        "Qwen/Qwen2.5-VL-7B-Instruct",
        args=GCPOConfig(output_dir="out", num_generations=8),
        train_dataset=pairs,  # columns `source`, `winner`, `loser`, `instruction`, and `principles` if they were made
    )
    trainer.train()

For each pair, N traces are sampled for the winner's image and N for the loser's. A winner's trace earns the share of
the loser's traces that it scores above, a loser's the share of the winner's that it scores below; ties, and traces
without a score, earn nothing. Within each group of N the mean is taken off: TRL's advantage without std. Everything
else, from vLLM to PEFT, is TRL's. A killed run goes on, with `train(resume_from_checkpoint=True)`, as if it had
not been.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, cast

import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor
from trl import GRPOConfig, GRPOTrainer

from ..backends.local_model import forbidden_tokens
from ..errors import ConfigError
from ..plugins import resolve
from ..verifiers.parsing import parse_trace
from ..verifiers.prompting import MODES, Mode
from .checkpoints import BetweenRollouts, WholeCheckpoints
from .group_sampler import GroupSampler
from .judge_model import judge_processor, limit_pixels
from .preference_pairs import SIDES, add_principles, missing_principles, pair_rows, synthetic_count

__all__ = ["GCPOConfig", "GCPOTrainer", "contrastive_rewards"]


def contrastive_rewards(winner: Tensor, loser: Tensor) -> tuple[Tensor, Tensor]:
    """Rewards of the traces of both sides of each pair (Edit-R1, section 3.3).

        r^w_j = 1/N sum_k [tau^w_j > tau^l_k]        r^l_j = 1/N sum_k [tau^l_j < tau^w_k]

    Args:
        winner, loser: scores tau of the traces, each (pairs, N); NaN where a trace has no score, which earns 0 and
            beats nobody.

    Returns:
        The rewards of the winners' and of the losers' traces, each (pairs, N), in 0..1.
    """
    above = (winner.unsqueeze(2) > loser.unsqueeze(1)).float()
    return above.mean(2), above.mean(1)


@dataclass
class GCPOConfig(GRPOConfig):
    """`trl.GRPOConfig` with GCPO's advantage: no division by std, the mean over each trace's own tokens.

    A generation batch holds whole pairs: batch x processes x steps_per_generation is a multiple of 2 x num_generations,
    and so is the global evaluation batch (with num_generations_eval).

    Raises:
        ConfigError: (a ValueError) values that would tear pairs apart or are not GCPO.
    """

    scale_rewards: str = field(default="none", metadata={"help": "GCPO's advantage is reward - group mean: 'none'."})
    loss_type: str = field(default="grpo", metadata={"help": "GCPO's loss: the mean of each trace's own mean, 'grpo'."})
    mode: str = field(default="think+verify", metadata={"help": "'think', 'verify' or 'think+verify'."})
    decomposer: str = field(default="rules", metadata={"help": "Spec of who writes principles where a pair has none."})
    max_pixels: int | None = field(default=None, metadata={"help": "Images are made smaller to so many pixels each."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in MODES:
            raise ConfigError(f"mode={self.mode!r}: one of {', '.join(MODES)}")
        if self.remove_unused_columns:
            raise ConfigError("remove_unused_columns would remove the questions that traces are read by")
        _check_whole_pairs("generation_batch_size", self.generation_batch_size, self.num_generations)
        if self.eval_strategy != "no":
            batch = self.per_device_eval_batch_size * self.world_size
            eval_generations = self.num_generations_eval or self.num_generations
            _check_whole_pairs("per_device_eval_batch_size x processes", batch, eval_generations)


def _check_whole_pairs(what: str, batch: int | None, generations: int) -> None:
    if batch is None or batch % (2 * generations):
        raise ConfigError(
            f"{what} = {batch} must be a multiple of 2 x num_generations = {2 * generations}: whole pairs"
        )


class _PairSampler(GroupSampler):
    """Shuffles pairs; the rows of each follow each other, the winner's `group` times, then the loser's."""

    def __init__(self, rows: Any, *, group: int, **options: Any) -> None:
        super().__init__(range(len(rows) // 2), mini_repeat_count=1, **options)
        self._group = group

    def __iter__(self) -> Iterator[int]:
        for pair in super().__iter__():
            for row in (2 * pair, 2 * pair + 1):
                yield from [row] * self._group

    def __len__(self) -> int:
        return int(2 * self._group * super().__len__())


class GCPOTrainer(WholeCheckpoints, GRPOTrainer):
    """Trains a VLM judge by Group Contrastive Preference Optimization.

    No control token but the end is sampled: a sampled image placeholder would count as an image when the trace is
    scored. With vLLM this is a `logit_bias`, else `suppress_tokens`; `generation_kwargs` may add to it.

    Args:
        model: as for GRPOTrainer, a VLM.
        args: a `GCPOConfig`.
        train_dataset, eval_dataset: pairs (`preference_files.load_pairs`): `source`, `winner`, `loser`, `instruction`,
            and `principles` where they were made before; else the main process has them made.
        reward_funcs: more rewards with TRL's signature beside the contrastive one, which is the first.
        processing_class: None: the model's, which reads images without torchvision too.
        more: everything else that GRPOTrainer takes.

    Logs, beside TRL's: `gcpo/pair_accuracy` (the winner's mean score is above the loser's; a side without any score
    makes the pair wrong), `gcpo/tie_rate`, `gcpo/parse_failure` (traces without a score), `gcpo/weighted_advantage`
    (mean of A_i / L_i; negative: longer traces when right), `gcpo/score_winner` and `gcpo/score_loser` (left out where
    no trace has a score).

    Raises:
        ConfigError: arguments that do not fit; while training, a data loader that tears pairs apart.
        DataError: pairs without the columns, or none with principles.
    """

    _tag_names: ClassVar[list[str]] = ["trl", "gcpo", "edit-r1"]
    _name = "GCPO"
    _paper: ClassVar[dict[str, str]] = {"title": "Edit-R1", "id": "2604.27505"}

    def __init__(
        self,
        model: Any,
        args: GCPOConfig | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        reward_funcs: Sequence[Any] | Any = (),
        processing_class: Any = None,
        **more: Any,
    ) -> None:
        args = args or GCPOConfig(output_dir="tmp_trainer")
        if not isinstance(args, GCPOConfig):
            raise ConfigError(f"args must be a GCPOConfig, not {type(args).__name__}")
        others = list(reward_funcs) if isinstance(reward_funcs, (list, tuple)) else [reward_funcs]
        if processing_class is None:
            name = model if isinstance(model, str) else model.config._name_or_path
            revision = None if os.path.isdir(name) else (args.model_init_kwargs or {}).get("revision")
            processing_class = judge_processor(name, revision, args.max_pixels)
        elif args.max_pixels is not None:
            limit_pixels(processing_class, args.max_pixels)
        self.synthetic_pairs = 0 if train_dataset is None else synthetic_count(train_dataset)
        super().__init__(
            model=model,
            reward_funcs=[self.gcpo, *others],
            args=args,
            train_dataset=_prepared(train_dataset, args),
            eval_dataset=_prepared(eval_dataset, args),
            processing_class=processing_class,
            **more,
        )
        self._forbid_control_tokens()
        self.add_callback(BetweenRollouts(self))

    def gcpo(
        self, completions: Sequence[Any], completion_ids: Sequence[Sequence[int]], questions: Sequence[Any], **_: Any
    ) -> list[float]:
        """tau of each trace, or `_NO_SCORE`: what TRL calls as the first reward; pairs are contrasted afterwards."""
        ends = {*self.eos_token_ids, self._tokenizer.pad_token_id}
        scores = []
        for completion, ids, asked in zip(completions, completion_ids, questions, strict=True):
            text = completion if isinstance(completion, str) else _text(completion[-1]["content"])
            finish_reason = "stop" if len(ids) and ids[-1] in ends else "length"
            score = parse_trace(text, asked, finish_reason).score
            scores.append(_NO_SCORE if score is None else score)
        return scores

    @property
    def within_rollout(self) -> bool:
        """Whether the traces sampled last still have passes to come."""
        return bool(self._step % (self.args.steps_per_generation * self.num_iterations))

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """TRL's card; pairs that no human labelled are told."""
        super().create_model_card(*args, **kwargs)
        card = Path(self.args.output_dir) / "README.md"
        if self.synthetic_pairs and self.is_world_process_zero() and card.is_file():
            told = f"{self.synthetic_pairs} of {len(self.train_dataset) // 2} training pairs are synthetic"
            text = f"\n## Data\n\n{told}: a trained judge chose winner and loser, no human did.\n"
            card.write_text(card.read_text(encoding="utf-8") + text, encoding="utf-8")

    def _forbid_control_tokens(self) -> None:
        forbidden = forbidden_tokens(self._tokenizer, self.model.config, self.eos_token_ids)
        if self.use_vllm:
            given = self.vllm_generation.generation_kwargs.get("logit_bias") or {}
            bias = {**dict.fromkeys(forbidden, -100.0), **given}
            self.vllm_generation.generation_kwargs["logit_bias"] = bias
            return
        suppressed = sorted({*forbidden, *(self.generation_kwargs.get("suppress_tokens") or ())})
        self.generation_kwargs["suppress_tokens"] = self.generation_config.suppress_tokens = suppressed

    def _get_train_sampler(self, dataset: Any = None) -> _PairSampler:
        self.train_sampler = _PairSampler(
            self.train_dataset if dataset is None else dataset,
            group=self.num_generations,
            batch_size=self.args.generation_batch_size // (2 * self.num_generations),
            repeat_count=self.num_iterations * self.args.steps_per_generation,
            shuffle=self.shuffle_dataset,
            seed=self.args.seed,
        )
        return self.train_sampler

    def _get_eval_sampler(self, eval_dataset: Any) -> _PairSampler:
        return _PairSampler(eval_dataset, group=self.num_generations_eval, batch_size=1, shuffle=False)

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        rewards: Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        mode, group = ("train", self.num_generations) if self.model.training else ("eval", self.num_generations_eval)
        pairs = self._whole_pairs(inputs, group)
        scores = rewards[:, 0].masked_fill(rewards[:, 0] == _NO_SCORE, torch.nan).view(-1, 2, group)
        contrasted = torch.stack(contrastive_rewards(scores[:, 0], scores[:, 1]), dim=1)
        rewards[:, 0] = contrasted.flatten()
        lengths = self._gathered([len(ids) for ids in completion_ids_list]).view(-1, 2, group)
        # The last batch of an evaluation by several processes is filled up with pairs from its beginning.
        count = len(pairs) if mode == "train" else 1 + int((pairs.diff() > 0).long().cumprod(0).sum())
        for name, value in _pair_metrics(scores[:count], contrasted[:count], lengths[:count]).items():
            if not math.isnan(value):
                self._metrics[mode][f"gcpo/{name}"].append(value)
        return rewards

    def _whole_pairs(self, inputs: Any, group: int) -> Tensor:
        """Numbers of the pairs in the batch of all processes, in the order of TRL's gathered rewards."""
        rows = self._gathered([2 * each["pair"] + SIDES.index(each["side"]) for each in inputs])
        if len(rows) % (2 * group) == 0:
            sides = rows.view(-1, 2, group)
            first = sides[:, :1, :1]
            if bool((first % 2 == 0).all()) and bool((sides == first + torch.tensor([[0], [1]]).to(rows)).all()):
                return first.flatten() // 2
        raise ConfigError(
            f"a batch of {len(rows)} rows does not hold whole pairs of 2 x {group} traces; use batch sizes that are"
            " multiples of that over all processes, and neither dispatch_batches nor split_batches"
        )

    def _gathered(self, values: list[int]) -> Tensor:
        gathered: Tensor = self.accelerator.gather(torch.tensor(values, device=self.accelerator.device))
        return gathered


#: In TRL a missing reward is worth a warning and leaves the group's mean; a trace without a score earns 0 and stays.
_NO_SCORE: Final = -1.0


def _prepared(pairs: Any, args: GCPOConfig) -> Any:
    """The rows of pairs, with principles that are the same in all processes: a decomposer may answer anew each time."""
    if pairs is None:
        return None
    if isinstance(pairs, dict):
        return {name: _prepared(part, args) for name, part in pairs.items()}
    made: list[Any] = [None]
    if args.process_index == 0:
        made = [missing_principles(pairs, resolve("decomposer", args.decomposer))]
    broadcast_object_list(made)
    return pair_rows(add_principles(pairs, made[0]), cast(Mode, args.mode))


def _text(content: Any) -> str:
    """A message's content, which with images may be a list of parts."""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content if part.get("type") == "text")


def _pair_metrics(scores: Tensor, rewards: Tensor, lengths: Tensor) -> dict[str, float]:
    """Of (pairs, side, N): scores with NaN, contrastive rewards, lengths in tokens."""
    means = scores.nanmean(2)  # NaN where no trace of a side has a score: neither right nor a tie
    advantages = rewards - rewards.mean(2, keepdim=True)
    return {
        "pair_accuracy": (means[:, 0] > means[:, 1]).float().mean().item(),
        "tie_rate": (means[:, 0] == means[:, 1]).float().mean().item(),
        "parse_failure": scores.isnan().float().mean().item(),
        "weighted_advantage": (advantages / lengths.clamp(min=1)).mean().item(),
        "score_winner": scores[:, 0].nanmean().item(),
        "score_loser": scores[:, 1].nanmean().item(),
    }
