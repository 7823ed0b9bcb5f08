"""A judge in training, measured on held-out pairs and traces: it is asked, answers, and is read as a judge is later.

    trainer = JudgeSFTTrainer(..., eval_dataset=traces)
    trainer.add_callback(JudgeEvaluation(trainer, pairs=pairs, traces=traces))

At every evaluation the live model generates its traces by the code path of `transformers:PATH` (the same prompt, the
same parser) and this is logged, as `eval_judge/...` in `log_history` and `eval/judge/...` in trackers:

    parse_rate                      share of replies with a score; `failures/WORD` counts the others by their reason
    completion_tokens               mean length of a reply
    pair_accuracy                   share of pairs where the winner's score is above the loser's
    pair_tie_rate, pair_failure_rate  equal scores; a side has none. The rest prefers the loser
    verdict_accuracy                share of gold verdicts the judge gave, also per category; one it left out is wrong
    score_error                     mean distance to the score of the held-out trace, over replies with a score

Nothing random of the training run is drawn or seeded: it goes on as it would have without.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from transformers import Trainer, TrainerCallback

from ..backends.local_model import LocalModel
from ..backends.transformers import TransformersBackend
from ..errors import ConfigError, DataError
from ..images import read_image_cell
from ..types import Edit, Principle, Verification
from ..verifiers.generative import Aggregate, GenerativeVerifier
from ..verifiers.prompting import Mode, asks_for_verdicts
from .preference_pairs import SIDES
from .trace_data import read_principles

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["JudgeEvaluation", "JudgeSettings", "judge_in_training", "judge_metrics"]

_PREFIX: Final = "eval_judge/"
_BATCH: Final = 16  # rows whose images are held at once


@dataclass(frozen=True, kw_only=True)
class JudgeSettings:
    """How a judge in training is asked.

    Attributes:
        mode: how it answers.
        max_tokens: of one reply.
        temperature: 0 is greedy.
        samples: replies per edit, whose scores are averaged; more than 1 needs a temperature.
        seed: of the samples.
        max_batch: most replies generated at once.
        aggregate: what is the score of an edit, as for `GenerativeVerifier`.
    """

    mode: Mode = "think+verify"
    max_tokens: int = 2048
    temperature: float = 0.0
    samples: int = 1
    seed: int = 0
    max_batch: int = 16
    aggregate: Aggregate = "score"

    def verifier(self, backend: TransformersBackend) -> GenerativeVerifier:
        """
        Raises:
            ConfigError: a setting out of range.
        """
        return GenerativeVerifier(
            backend,
            mode=self.mode,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            samples=self.samples,
            seed=self.seed,
            aggregate=self.aggregate,
        )


@contextmanager
def judge_in_training(model: Any, processor: Any, settings: JudgeSettings) -> Iterator[GenerativeVerifier]:
    """A model that is being trained, with or without a LoRA, as a judge; afterwards it is as it was.

    Args:
        model: unwrapped (no DDP around it); a `PeftModel` will do.
        processor: its processor.
        settings: how it is asked.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    training, generation = model.training, base.generation_config
    live = LocalModel(base, processor, "the model in training")
    backend = TransformersBackend.around(live, "in-training", max_batch=settings.max_batch)
    model.eval()
    base.generation_config = live.own_generation_config
    try:
        yield settings.verifier(backend)
    finally:
        base.generation_config = generation
        model.train(training)


def judge_metrics(
    verifier: GenerativeVerifier, *, pairs: Dataset | None = None, traces: Dataset | None = None
) -> dict[str, float]:
    """Ask a judge about held-out pairs and traces; the metrics that this module's docstring names, without prefix.

    Args:
        verifier: the judge.
        pairs: rows with `source`, `winner`, `loser`, `instruction` and `principles`.
        traces: rows as `load_traces` gives them; where `gold` is missing, verdicts are not compared.

    Raises:
        DataError: a row is wrong.
    """
    return _rates(_counted(verifier, pairs, traces, (0, 1)))


class JudgeEvaluation(TrainerCallback):
    """Measures the judge at every evaluation of its trainer; any `transformers.Trainer` of a VLM, SFT or GCPO.

    Args:
        trainer: the trainer that this is added to.
        pairs: held-out pairs with `principles` (`preference_pairs.with_principles` makes them).
        traces: held-out traces (`load_traces`).
        settings: how the judge is asked.

    Raises:
        ConfigError: nothing to measure on, no evaluation in the trainer's arguments, or FSDP, under which processes
            cannot generate texts of different lengths.
        DataError: pairs without principles.
    """

    def __init__(
        self,
        trainer: Trainer,
        *,
        pairs: Dataset | None = None,
        traces: Dataset | None = None,
        settings: JudgeSettings | None = None,
    ) -> None:
        if pairs is None and traces is None:
            raise ConfigError("nothing to evaluate the judge on: give held-out pairs, traces or both")
        if trainer.args.eval_strategy == "no":
            raise ConfigError("the judge is evaluated when the trainer evaluates: set eval_strategy")
        if trainer.is_fsdp_enabled:
            raise ConfigError(
                "under FSDP the judge cannot be evaluated while it trains; use DeepSpeed ZeRO, or leave the held-out "
                "data out and score checkpoints afterwards"
            )
        if pairs is not None and "principles" not in pairs.column_names:
            raise DataError("the held-out pairs have no column principles; with_principles makes it")
        self.trainer, self.pairs, self.traces = trainer, pairs, traces
        self.settings = settings or JudgeSettings()
        self._known: tuple[int, dict[str, float]] | None = None

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        if self._known is None or self._known[0] != state.global_step:  # once, also with several evaluation sets
            self._known = (state.global_step, self.measure())
            # Not the trainer's own `log`, which adds averages of its training metrics and empties them.
            Trainer.log(self.trainer, dict(self._known[1]))
        if metrics is not None:
            metrics.update(self._known[1])

    def measure(self) -> dict[str, float]:
        """The metrics now, the same in every process."""
        from accelerate.utils import gather_object
        from trl.models.utils import unwrap_model_for_generation

        trainer, accelerator = self.trainer, self.trainer.accelerator
        share = (accelerator.process_index, accelerator.num_processes)
        with (
            unwrap_model_for_generation(
                trainer.model_wrapped,
                accelerator,
                gradient_checkpointing_kwargs=trainer.args.gradient_checkpointing_kwargs,
            ) as model,
            accelerator.autocast(),
            judge_in_training(model, trainer.processing_class, self.settings) as verifier,
        ):
            counted = _counted(verifier, self.pairs, self.traces, share)
        total: _Counts = defaultdict(float)
        for part in gather_object([counted]):
            for name, count in part.items():
                total[name] += count
        return {_PREFIX + name: value for name, value in _rates(total).items()}


_Counts = defaultdict[str, float]


def _counted(
    verifier: GenerativeVerifier, pairs: Dataset | None, traces: Dataset | None, share: tuple[int, int]
) -> _Counts:
    """What `_rates` divides; `share` is (process, processes): every process takes its own rows."""
    counts: _Counts = defaultdict(float)
    for rows in _chunks(pairs, share):
        edits, asked = [], []
        for number, row in rows:
            edits += [_edit(row, side, f"pair {number}") for side in SIDES]
            asked += [_principles(row, f"pair {number}")] * len(SIDES)
        found = verifier.verify(edits, asked)
        for winner, loser in zip(found[::2], found[1::2], strict=True):
            _count_pair(counts, winner, loser)
        _count_replies(counts, found)
    for rows in _chunks(traces, share):
        edits = [_edit(row, "edited", f"trace {number}") for number, row in rows]
        asked = [_principles(row, f"trace {number}") for number, row in rows]
        found = verifier.verify(edits, asked)
        for (number, row), principles, verification in zip(rows, asked, found, strict=True):
            if verification.score is not None and row.get("score") is not None:
                counts["scores"] += 1
                counts["score error"] += abs(verification.score - row["score"])
            if asks_for_verdicts(verifier.mode) and row.get("gold") is not None:
                _count_verdicts(counts, row["gold"], principles, verification, f"trace {number}")
        _count_replies(counts, found)
    return counts


def _rates(counts: Mapping[str, float]) -> dict[str, float]:
    """Rates and means; what has no denominator is left out."""

    def share(name: str, part: str, whole: str) -> dict[str, float]:
        return {name: counts.get(part, 0.0) / counts[whole]} if counts.get(whole) else {}

    made = {
        **share("parse_rate", "parsed", "edits"),
        **share("completion_tokens", "tokens", "replies"),
        **share("pair_accuracy", "pairs right", "pairs"),
        **share("pair_tie_rate", "pairs tied", "pairs"),
        **share("pair_failure_rate", "pairs failed", "pairs"),
        **share("verdict_accuracy", "verdicts right", "verdicts"),
        **share("score_error", "score error", "scores"),
    }
    for name in sorted(counts):
        kind, _, rest = name.partition("/")
        if kind == "verdicts" and rest:
            made |= share(f"verdict_accuracy/{rest}", f"verdicts right/{rest}", name)
        elif kind == "failures":
            made[name] = counts[name]
    return made


def _chunks(dataset: Dataset | None, share: tuple[int, int]) -> Iterator[list[tuple[int, dict[str, Any]]]]:
    numbers = range(share[0], 0 if dataset is None else len(dataset), share[1])
    for start in range(0, len(numbers), _BATCH):
        assert dataset is not None
        yield [(number, dataset[number]) for number in numbers[start : start + _BATCH]]


def _edit(row: Mapping[str, Any], edited: str, where: str) -> Edit:
    source, other = (read_image_cell(row[name], name, f"{where}: ") for name in ("source", edited))
    return Edit(source=source, edited=other, instruction=row["instruction"])


def _principles(row: Mapping[str, Any], where: str) -> list[Principle]:
    try:
        return read_principles(row["principles"])
    except DataError as error:
        raise DataError(f"{where}: {error}") from error


def _count_pair(counts: _Counts, winner: Verification, loser: Verification) -> None:
    counts["pairs"] += 1
    if winner.score is None or loser.score is None:
        counts["pairs failed"] += 1
    elif winner.score == loser.score:
        counts["pairs tied"] += 1
    elif winner.score > loser.score:
        counts["pairs right"] += 1


def _count_replies(counts: _Counts, found: Sequence[Verification]) -> None:
    for verification in found:
        counts["edits"] += 1
        if verification.score is not None:
            counts["parsed"] += 1
        else:
            counts[f"failures/{(verification.failure or '').partition(':')[0]}"] += 1
        if verification.usage is not None and verification.usage.completion_tokens is not None:
            counts["replies"] += 1
            counts["tokens"] += verification.usage.completion_tokens


def _count_verdicts(
    counts: _Counts,
    gold: Sequence[int | None],
    principles: Sequence[Principle],
    verification: Verification,
    where: str,
) -> None:
    if len(gold) != len(principles):
        raise DataError(f"{where}: {len(gold)} gold verdicts for {len(principles)} principles")
    said = [verdict.passed for verdict in verification.verdicts] or [None] * len(principles)
    for principle, truth, verdict in zip(principles, gold, said, strict=True):
        if truth is None:
            continue
        for name in ("", f"/{principle.category.lower().replace(' ', '_')}"):
            counts[f"verdicts{name}"] += 1
            counts[f"verdicts right{name}"] += verdict is not None and verdict == bool(truth)
