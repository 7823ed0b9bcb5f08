"""Supervised fine-tuning of a judge on chosen traces (Edit-R1, section 3.2), as a thin `trl.SFTTrainer`.

    trainer = JudgeSFTTrainer(
        "Qwen/Qwen2.5-VL-7B-Instruct",
        args=JudgeSFTConfig(output_dir="out", mode="think+verify"),
        train_dataset=load_traces("traces"),
        peft_config=LoraConfig(target_modules=LORA_TARGETS),
    )
    trainer.train()

The prompt is the one that the judge is asked with later, token for token; the completion is the trace in the form the
prompt asks for, up to the token that ends it. Only the completion is learned, and nothing is ever cut: a truncated
image or trace would teach a judge to answer what it did not see.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

import torch
from accelerate.utils import broadcast_object_list
from trl import SFTConfig, SFTTrainer

from ..backends.local_model import forbidden_tokens
from ..errors import ConfigError, DataError
from ..images import read_image_cell
from ..types import Edit
from ..verifiers.prompting import MODES, Mode, asks_for_verdicts
from .checkpoints import WholeCheckpoints
from .image_rows import then
from .judge_model import judge_processor, limit_pixels
from .preference_pairs import judge_messages
from .trace_data import read_principles
from .traces import compose_trace

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["JudgeSFTConfig", "JudgeSFTTrainer", "token_counts", "trace_rows", "trace_text", "usable_traces"]

_log = logging.getLogger(__name__)
_SHOWN: Final = 5
_IGNORED: Final = -100  # torch's and transformers' label of what is not learned


@dataclass
class JudgeSFTConfig(SFTConfig):
    """`trl.SFTConfig` for judges: whole sequences, and the loss on the trace alone.

    Raises:
        ConfigError: (a ValueError) a setting that would cut sequences, or learn more than the trace.
    """

    max_length: int | None = field(
        default=None, metadata={"help": "Must stay unset: what it cuts off is images or the score."}
    )
    remove_unused_columns: bool | None = field(
        default=False, metadata={"help": "Must stay false: rows are made when they are taken."}
    )
    mode: str = field(default="think+verify", metadata={"help": "'think', 'verify' or 'think+verify'."})
    max_pixels: int | None = field(
        default=None,
        metadata={"help": "Larger images are scaled down to so many pixels, in training and by the trained judge."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in MODES:
            raise ConfigError(f"mode={self.mode!r}: one of {', '.join(MODES)}")
        if self.max_length is not None:
            raise ConfigError(
                f"max_length={self.max_length} would cut image tokens out of prompts or scores off traces, without a "
                "word; leave it unset, and make images smaller with max_pixels"
            )
        for name, wrong, why in (
            ("remove_unused_columns", True, "rows are made from these columns when they are taken"),
            ("packing", True, "sequences with images cannot be packed"),
            ("completion_only_loss", False, "the prompt is not learned"),
            ("assistant_only_loss", True, "the loss is on the completion already"),
        ):
            if getattr(self, name) is wrong:
                raise ConfigError(f"{name}={str(wrong).lower()} does not go with a judge: {why}")


class JudgeSFTTrainer(WholeCheckpoints, SFTTrainer):
    """Trains a VLM judge on traces.

    Args:
        model: as for SFTTrainer, a VLM.
        args: a `JudgeSFTConfig`.
        train_dataset, eval_dataset: traces, as `load_traces` gives them. Rows that make no trace in this mode (a
            verdict or the reasoning is missing, or the parser would read something else) are left out and logged.
        processing_class: None: the model's, which reads images without torchvision too.
        more: everything else that SFTTrainer takes.

    Raises:
        ConfigError: arguments that do not fit.
        DataError: traces without the columns, or none that can be used. While training: an image or row is broken, or a
            sequence is longer than the model takes.
    """

    _tag_names: ClassVar[list[str]] = ["trl", "sft", "edit-r1"]
    _paper: ClassVar[dict[str, str]] = {"title": "Edit-R1", "id": "2604.27505"}
    data_collator: Any

    def __init__(
        self,
        model: Any,
        args: JudgeSFTConfig | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        **more: Any,
    ) -> None:
        args = args or JudgeSFTConfig(output_dir="tmp_trainer")
        if not isinstance(args, JudgeSFTConfig):
            raise ConfigError(f"args must be a JudgeSFTConfig, not {type(args).__name__}")
        if train_dataset is None:
            raise ConfigError("train_dataset is missing: give traces, as load_traces returns them")
        if processing_class is None:
            name = model if isinstance(model, str) else model.config._name_or_path
            revision = None if os.path.isdir(name) else (args.model_init_kwargs or {}).get("revision")
            processing_class = judge_processor(name, revision, args.max_pixels)
        elif args.max_pixels is not None:
            limit_pixels(processing_class, args.max_pixels)
        super().__init__(
            model=model,
            args=args,
            train_dataset=_prepared(train_dataset, args),
            eval_dataset=_prepared(eval_dataset, args),
            processing_class=processing_class,
            **more,
        )
        if "data_collator" not in more:
            self.data_collator = _WholeTraces(self.data_collator, self.model.config)

    def evaluate(self, *args: Any, **more: Any) -> dict[str, float]:
        """As SFTTrainer's; training goes on as if there had been no evaluation, whose loaders draw random numbers."""
        device = self.args.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            metrics: dict[str, float] = super().evaluate(*args, **more)
        return metrics


def trace_rows(traces: Dataset, mode: Mode = "think+verify") -> Dataset:
    """The traces with the columns that `SFTTrainer` takes, made when a row is taken: prompt, completion and images.

    `prompt` is the judge's request and `completion` the trace in this mode, both as chat messages; `images` the source
    and the edited image.

    Raises:
        DataError: when a row is taken, something of it is wrong.
    """
    return then(traces, _TraceRows(mode))


def trace_text(row: Mapping[str, Any], mode: Mode = "think+verify") -> str:
    """The completion of a row: its trace in this mode, with the average that its verdicts have.

    Raises:
        DataError: a verdict or the reasoning that this mode writes is missing, or as `compose_trace`.
    """
    principles, verdicts, reasoning = read_principles(row["principles"]), row["verdicts"], row["reasoning"] or ""
    average = None
    if asks_for_verdicts(mode):
        if None in verdicts:
            raise DataError("a verdict is missing")
        average = round(sum(verdicts) / len(verdicts), 2)  # the prompt shows two decimals
    if mode != "verify" and not reasoning.strip():
        raise DataError("the reasoning is missing")
    return compose_trace(reasoning, principles, verdicts, average, row["score"], mode)


def usable_traces(traces: Dataset, mode: Mode, workers: int | None = None) -> Dataset:
    """The traces that can be written in this mode; others are left out and logged. Only texts are looked at.

    Args:
        traces: as `load_traces` gives them.
        mode: how the judge answers.
        workers: processes; a trace takes a few milliseconds, most of them to read back what was written.

    Raises:
        DataError: a column is missing, or no trace can be used.
    """
    return _without(traces, _problems(traces, mode, workers), mode)


def _problems(traces: Dataset, mode: Mode, workers: int | None) -> dict[int, str]:
    """Why traces cannot be written, by their number."""
    needed = ("principles", "verdicts", "score", "reasoning")
    missing = [name for name in (*needed, "source", "edited", "instruction") if name not in traces.column_names]
    if missing:
        raise DataError(f"the traces have no column {' and no '.join(missing)}; load_traces reads them")
    found = (
        traces.select_columns(list(needed))
        .with_format(None)
        .map(
            _Problems(mode),
            batched=True,
            remove_columns=list(needed),
            num_proc=workers,
            load_from_cache_file=False,  # it would not notice another version of the parser
            desc="composing traces",
        )
    )
    return {number: reason for number, reason in enumerate(found["problem"]) if reason is not None}


@dataclass(frozen=True)
class _Problems:
    mode: Mode

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[str | None]]:
        return {
            "problem": [self.problem(dict(zip(batch, row, strict=True))) for row in zip(*batch.values(), strict=True)]
        }

    def problem(self, row: Mapping[str, Any]) -> str | None:
        try:
            trace_text(row, self.mode)
        except DataError as error:
            return str(error)
        return None


def _without(traces: Dataset, problems: Mapping[int, str], mode: Mode) -> Dataset:
    if not problems:
        return traces
    reasons = Counter(reason.partition(":")[0] for reason in problems.values()).most_common(_SHOWN)
    told = "; ".join(f"{count}: {reason}" for reason, count in reasons)
    if len(problems) == len(traces):
        raise DataError(f"none of {len(traces)} traces can be learned in mode {mode!r}: {told}")
    _log.warning(
        "%d of %d traces cannot be learned in mode %r and are left out: %s", len(problems), len(traces), mode, told
    )
    return traces.select([index for index in range(len(traces)) if index not in problems])


def token_counts(row: Mapping[str, Any], mode: Mode, processor: Any) -> dict[str, int]:
    """How many tokens a row of traces is: of the prompt's text, of its images, of the trace, and in all.

    Raises:
        DataError: something of the row is wrong.
    """
    made = _TraceRows(mode)({name: [value] for name, value in row.items()})
    prompt, trace = made["prompt"][0], made["completion"][0][0]["content"][0]["text"]
    text = processor.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    encoded = processor(text=[text], images=[made["images"][0]], return_tensors="pt", add_special_tokens=False)
    total = encoded["input_ids"].shape[1]
    images = int((encoded["input_ids"] == processor.image_token_id).sum())
    learned = len(processor.tokenizer(trace, add_special_tokens=False)["input_ids"]) + 1
    return {"prompt": total - images, "images": images, "trace": learned, "total": total + learned}


@dataclass(frozen=True)
class _TraceRows:
    """Turns rows of traces into rows to train on; picklable."""

    mode: Mode

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        made: dict[str, list[Any]] = {"prompt": [], "completion": [], "images": []}
        for values in zip(*batch.values(), strict=True):
            row = dict(zip(batch, values, strict=True))
            try:
                source, edited = (read_image_cell(row[name], name) for name in ("source", "edited"))
                edit = Edit(source=source, edited=edited, instruction=row["instruction"])
                prompt, images = judge_messages(edit, read_principles(row["principles"]), self.mode)
                text = trace_text(row, self.mode)
            except (DataError, ValueError, TypeError, KeyError) as error:
                raise DataError(f"trace {row.get('row', '')}: {error}") from error
            made["prompt"].append(prompt)
            made["completion"].append([{"role": "assistant", "content": [{"type": "text", "text": text}]}])
            made["images"].append(images)
        return made


def _prepared(traces: Any, args: JudgeSFTConfig) -> Any:
    if traces is None:
        return None
    if isinstance(traces, dict):
        return {name: _prepared(part, args) for name, part in traces.items()}
    mode = cast(Mode, args.mode)
    found: list[Any] = [None]
    if args.process_index == 0:
        found = [_problems(traces, mode, args.dataset_num_proc)]
    broadcast_object_list(found)  # minutes of work for a large data set, which one process does for all
    return trace_rows(_without(traces, found[0], mode), mode)


class _WholeTraces:
    """TRL's collator, and what must hold of every batch: whole sequences, no control token from the data's text, and
    nothing learned after a trace's end.
    """

    def __init__(self, collator: Any, config: Any) -> None:
        self.collator = collator
        tokenizer = collator.processor.tokenizer
        self.end = tokenizer.eos_token_id
        numbers = set(forbidden_tokens(tokenizer, config, ()))
        numbers |= {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        self.control = sorted(token for token, number in tokenizer.get_vocab().items() if number in numbers)
        self.longest: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)

    def __call__(self, examples: list[dict[str, Any]]) -> Any:
        sizes = ", ".join(f"{image.width}x{image.height}" for each in examples for image in each["images"])
        for each in examples:
            self._check_text(each)
        try:
            batch = self.collator(examples)
        except ValueError as error:  # the image processor's, about sizes
            raise DataError(f"the model's processor refuses a trace (images {sizes}): {error}") from error
        longest = batch["attention_mask"].sum(1).max().item()
        if self.longest is not None and longest > self.longest:
            raise DataError(
                f"a prompt and its trace have {longest} tokens, and the model takes {self.longest}; "
                "make images smaller with max_pixels"
            )
        labels = batch["labels"]
        # The chat template goes on after the end of the turn; a judge stops there.
        ends = (labels == self.end).long()
        if not ends.any(1).all():
            raise ConfigError("the chat template does not end an answer with the tokenizer's end token")
        labels[(ends.cumsum(1) - ends) > 0] = _IGNORED
        return batch

    def _check_text(self, example: Mapping[str, Any]) -> None:
        # Spellings that models are known to use were made harmless when the row was made; this finds any other.
        for message in (*example["prompt"], *example["completion"]):
            for part in message["content"]:
                for token in self.control if part["type"] == "text" else ():
                    if token in part["text"]:
                        raise DataError(f"a trace spells {token!r}, which this model's tokenizer takes for control")
