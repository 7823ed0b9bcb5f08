"""Policies that write plans, in TRL's own GRPO and RLOO trainers: each plan's edit is made, and judged."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer
from trl_jobs import NAME, PLANS, Painter, check_rewards, judge, last_batch, logged, rows, settings, table, trained

from editr1_plugins.adapters.trl_plans import EditingRollout, PlannedEditReward
from editr1_plugins.errors import ConfigError, DataError
from editr1_plugins.testing import language


def only(tokenizer: Any) -> dict[str, Any]:
    """Generation settings with which a random policy writes one of `PLANS`."""
    return {"suppress_tokens": [*language.all_but(tokenizer, PLANS), tokenizer.eos_token_id]}


def said(frame: Any) -> list[str]:
    """The last word of each completion, which is a colour."""
    return [messages[0]["content"].split()[-1] for messages in frame["completion"]]


@pytest.mark.parametrize(("kind", "config"), [(GRPOTrainer, GRPOConfig), (RLOOTrainer, RLOOConfig)])
def test_the_edit_is_made_in_the_reward(tmp_path: Path, kind: Any, config: Any) -> None:
    painter, tokenizer = Painter(), language.tiny_tokenizer(PLANS)
    trainer = kind(
        language.tiny_language_model(tokenizer),
        PlannedEditReward(judge(), painter),
        config(
            **settings(
                tmp_path,
                beta=0.0,
                per_device_train_batch_size=16,
                max_completion_length=1,
                generation_kwargs=only(tokenizer),
            )
        ),
        rows(count=4),
        processing_class=tokenizer,
    )
    assert trained(trainer)
    frame = last_batch(trainer)
    check_rewards(list(frame[NAME]), said(frame))
    assert list(frame["edit_plan"]) == [messages[0]["content"] for messages in frame["completion"]]
    assert painter.told[-16:] == list(frame["edit_plan"])
    failed = said(frame).count("fail") / 16
    assert logged(trainer, f"{NAME}/edit_failure_rate")[-1] == pytest.approx(failed)
    assert logged(trainer, f"{NAME}/failure_rate")[-1] == pytest.approx(failed)
    # No edit, no reward: the row is left out, it neither gains nor loses.
    assert set(frame["advantage"][frame[NAME].isna()]) == {0.0}
    assert frame["advantage"].abs().sum() > 0


def test_the_edit_is_made_in_the_rollout(tmp_path: Path) -> None:
    painter, tokenizer = Painter(), language.tiny_tokenizer(PLANS)
    trainer = GRPOTrainer(
        language.tiny_vision_language_model(tokenizer),
        judge(),
        GRPOConfig(
            **settings(
                tmp_path,
                beta=0.0,
                max_completion_length=1,
                generation_kwargs=only(tokenizer),
            )
        ),
        rows("image"),
        processing_class=language.tiny_vision_language_processor(tokenizer),
        rollout_func=EditingRollout(painter),
    )
    assert trained(trainer)
    frame = table(tmp_path)
    check_rewards(list(frame[NAME]), said(frame))
    assert painter.told == [messages[0]["content"] for messages in frame["completion"]]
    assert set(frame["advantage"][frame[NAME].isna()]) == {0.0}


def test_a_plan_that_says_nothing_edits_nothing() -> None:
    painter = Painter()
    reward = PlannedEditReward(judge(), painter)
    columns = rows().to_dict() | {"source_image": list(rows()["source_image"])}
    completions = ["  ", "<think>make it red</think>"]
    assert reward(prompts=columns.pop("prompt"), completions=completions, **columns) == [0.0, 0.0]
    assert painter.told == []


def test_a_data_sets_own_edits_are_not_taken_for_ours() -> None:
    data = rows()
    sources = list(data["source_image"])
    reward = PlannedEditReward(
        verifier=judge()._verifier.get(), decomposer=judge()._decomposer.get(), guards=(), editor=Painter()
    )
    scores = reward(
        prompts=["", ""],
        completions=["make it maroon", "make it red"],
        source_image=sources,
        edited_image=sources,
        instruction=["make it red"] * 2,
    )
    assert scores == [pytest.approx(10 * 128 / 255), 10.0]


def test_wrong_arguments() -> None:
    with pytest.raises(ConfigError, match="takes no settings, got samples"):
        PlannedEditReward(judge(), samples=2)
    with pytest.raises(ConfigError, match="'edited' is what the editor makes"):
        PlannedEditReward(columns={"edited": "edited_image"})


def test_it_pickles() -> None:
    reward = pickle.loads(pickle.dumps(PlannedEditReward(judge(), Painter())))
    columns = {"source_image": [rows()[0]["source_image"]], "instruction": ["make it red"]}
    assert reward(prompts=[""], completions=["make it red"], **columns) == [10.0]
    assert reward.__name__ == NAME


def test_a_rollout_needs_the_image_in_the_prompt() -> None:
    with pytest.raises(DataError, match="needs the source in a column 'image'"):
        EditingRollout(Painter())([[{"role": "user", "content": "make it red"}]], trainer=None)


def test_a_trainer_that_samples_in_another_way() -> None:
    prompt = [{"role": "user", "content": [{"type": "image", "image": rows()[0]["source_image"]}]}]
    with pytest.raises(ConfigError, match=r"GRPOTrainer of TRL 1\.16"):
        EditingRollout(Painter())([prompt], trainer=object())
