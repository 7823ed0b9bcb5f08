"""`EditRRMReward` in a real `trl.GRPOTrainer`, and in the real `trl grpo` command, unchanged on either side."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
from PIL import Image, ImageStat
from transformers import PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer
from trl.chat_template_utils import qwen3_chat_template, qwen3_vl_chat_template

from editr1_plugins.reward.rrm import EditRRMReward
from editr1_plugins.testing import language
from editr1_plugins.types import FOLLOW, Edit, Principle, Verdict, Verification

EXAMPLE = Path(__file__).parents[2] / "examples" / "third_party_plugin"
SOURCE = Image.new("RGB", (16, 16), "white")
COLOURS = ("red", "maroon", "blue")
#: What `Redness` says of an image of each colour; blue it cannot judge.
REWARDS = {"red": 10.0, "maroon": 5.0, "blue": None}
#: One token each, so that a random policy calls the tool.
CALLS = [f'<tool_call>\n{{"name": "paint", "arguments": {{"colour": "{colour}"}}}}\n</tool_call>' for colour in COLOURS]
NAME = "edit_rrm_Redness"


class Redness:
    """How red the edited image is; an image without red cannot be judged."""

    def verify(self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]]) -> list[Verification]:
        return [self.judge(edit, asked) for edit, asked in zip(edits, principles, strict=True)]

    def judge(self, edit: Edit, asked: Sequence[Principle]) -> Verification:
        assert edit.source.getpixel((0, 0)) == (255, 255, 255)
        assert edit.instruction == "make it red"
        red = ImageStat.Stat(edit.edited).mean[0]
        if not red:
            return Verification(score=None, failure="no red at all", samples=0)
        score = 10.0 if red > 200 else 5.0
        return Verification(score=score, verdicts=tuple(Verdict(principle=each, passed=score > 5) for each in asked))


class OneQuestion:
    def decompose(self, requests: Sequence[tuple[Image.Image, str]]) -> list[tuple[Principle, ...]]:
        return [(Principle(question="Is it red?", category=FOLLOW),) for _ in requests]


def filled(colour: str) -> Image.Image:
    return Image.new("RGB", (16, 16), colour)


def rows(**columns: Any) -> datasets.Dataset:
    """Two rows with the same request; images as `datasets` keeps them."""
    prompt = [{"role": "user", "content": "make it red"}]
    return datasets.Dataset.from_dict({"prompt": [prompt, prompt], **columns})


def train(
    reward: Callable[..., Any],
    dataset: datasets.Dataset,
    output: Path,
    *,
    words: Sequence[str] = (),
    template: str = language.CHAT_TEMPLATE,
    sees: bool = False,
    steps: int = 2,
    tabulated: bool = True,
    **arguments: Any,
) -> GRPOTrainer:
    """`steps` real steps of GRPO with a tiny random policy that says nothing but `words`."""
    tokenizer = language.tiny_tokenizer(words, chat_template=template)
    model = language.tiny_vision_language_model(tokenizer) if sees else language.tiny_language_model(tokenizer)
    config = GRPOConfig(
        output_dir=str(output),
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=2000 if words else 4,
        max_tool_calling_iterations=1,
        max_steps=steps,
        learning_rate=1e-2,
        use_cpu=True,
        bf16=False,
        logging_steps=1,
        log_completions=tabulated,
        num_completions_to_print=0,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        generation_kwargs={"suppress_tokens": language.all_but(tokenizer, words)} if words else None,
    )
    trainer = GRPOTrainer(
        model,
        reward_funcs=reward,
        args=config,
        train_dataset=dataset,
        processing_class=language.tiny_vision_language_processor(tokenizer) if sees else tokenizer,
        **arguments,
    )
    before = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    trainer.train()
    moved = any(not value.equal(before[name]) for name, value in trainer.model.named_parameters())
    trainer.moved = moved  # type: ignore[attr-defined]
    return trainer


def table(output: Path) -> pd.DataFrame:
    """TRL's own table of completions, rewards and advantages, all steps."""
    return pd.concat([pd.read_parquet(path) for path in sorted((output / "completions").glob("*.parquet"))])


def last_batch(trainer: GRPOTrainer) -> pd.DataFrame:
    """The same for the last batch, from memory: TRL 1.16 cannot write tool messages with image parts to its table."""
    logs = trainer._logs
    columns = {"completion": logs["completion"], **logs["rewards"], **logs["extra"], "advantage": logs["advantages"]}
    return pd.DataFrame({name: list(values) for name, values in columns.items()})


def logged(trainer: GRPOTrainer, name: str) -> list[float]:
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def check_group_arithmetic(frame: pd.DataFrame, group: int = 4) -> None:
    """A None row is left out of its group's baseline and gets no advantage; the others compare among themselves."""
    for start in range(0, len(frame), group):
        part = frame.iloc[start : start + group]
        judged = part[NAME].dropna()
        for reward, advantage in zip(part[NAME], part["advantage"], strict=True):
            if math.isnan(reward):
                assert advantage == 0.0
            elif len(judged) > 1:
                assert advantage == pytest.approx((reward - judged.mean()) / (judged.std() + 1e-4), abs=1e-4)


def check_rewards(frame: pd.DataFrame, painted: Sequence[str | None]) -> None:
    """The reward of each row is that of the colour it painted last; None (NaN in TRL) where there is none."""
    for reward, colour, outcome in zip(frame[NAME], painted, frame[f"{NAME}_outcome"], strict=True):
        expected = REWARDS[colour] if colour else None
        if expected is None:
            assert math.isnan(reward)
            assert outcome == ("not judged: no red at all" if colour else "not judged: no edited image in this row")
        else:
            assert reward == expected
            assert outcome == f"{expected:g}"


@pytest.fixture
def reward() -> EditRRMReward:
    return EditRRMReward(Redness(), OneQuestion())


def last_calls(frame: pd.DataFrame) -> list[str | None]:
    """The colour of each completion's last executed tool call; in one round, only the first message's are."""
    painted = []
    for messages in frame["completion"]:
        calls = next(iter(messages)).get("tool_calls")
        names = [call["function"]["arguments"]["colour"] for call in calls] if calls is not None else []
        painted.append(names[-1] if names else None)
    return painted


def test_the_last_image_part_of_the_completion(tmp_path: Path, reward: EditRRMReward) -> None:
    # A vision-language policy calls a tool that returns images; TRL puts them into the completion's messages. The
    # source is the `image` column, which TRL also inserts into the prompt.
    def paint(colour: str) -> list[dict[str, Any]]:
        """Paint the image.

        Args:
            colour: what to paint it with
        """
        return [{"type": "image", "image": filled(colour)}, {"type": "text", "text": "done"}]

    dataset = rows(image=[SOURCE, SOURCE])
    trainer = train(
        reward,
        dataset,
        tmp_path,
        words=CALLS,
        template=qwen3_vl_chat_template,
        sees=True,
        tabulated=False,
        tools=[paint],
    )
    frame = last_batch(trainer)
    painted = last_calls(frame)
    assert len(frame) == 8
    assert {None, *COLOURS} == set(painted)
    check_rewards(frame, painted)
    check_group_arithmetic(frame)
    assert trainer.moved  # type: ignore[attr-defined]
    failures = sum(REWARDS.get(colour or "") is None for colour in painted) / 8
    assert logged(trainer, f"{NAME}/failure_rate")[-1] == pytest.approx(failures)
    assert len(logged(trainer, f"rewards/{NAME}/mean")) == 2


def test_an_edited_image_column(tmp_path: Path, reward: EditRRMReward) -> None:
    images = datasets.Features(
        prompt=rows().features["prompt"], source_image=datasets.Image(), edited_image=datasets.Image()
    )
    dataset = rows(source_image=[SOURCE, SOURCE], edited_image=[filled("red"), filled("blue")]).cast(images)
    trainer = train(reward, dataset, tmp_path)
    frame = table(tmp_path)
    assert sorted(frame[NAME].dropna()) == [10.0] * 8
    assert frame[NAME].isna().sum() == 8
    check_group_arithmetic(frame)
    assert set(frame[f"{NAME}_verdicts"]) == {"yes: Is it red?", ""}
    assert logged(trainer, f"{NAME}/failure_rate") == [0.5, 0.5]
    assert logged(trainer, f"{NAME}/pass_rate/instruction_following") == [1.0, 1.0]
    assert logged(trainer, "reward") == [10.0, 10.0]


def test_the_images_column_of_a_vision_language_dataset(tmp_path: Path, reward: EditRRMReward) -> None:
    dataset = rows(images=[[SOURCE], [SOURCE]], edited_image=[filled("red"), filled("maroon")])
    train(reward, dataset, tmp_path, sees=True, steps=1)
    assert sorted(table(tmp_path)[NAME]) == [5.0] * 4 + [10.0] * 4


def test_an_extra_field_of_a_rollout_function(tmp_path: Path, reward: EditRRMReward) -> None:
    drawn: list[str] = []

    def rollout(prompts: list[Any], trainer: GRPOTrainer) -> dict[str, list[Any]]:
        """Real sampling; the first token decides the colour, as an image decoder would."""
        tokenizer: PreTrainedTokenizerFast = trainer.processing_class
        encoded = tokenizer.apply_chat_template(
            prompts, add_generation_prompt=True, return_tensors="pt", padding=True, return_dict=True
        )
        sampled = trainer.accelerator.unwrap_model(trainer.model).generate(**encoded, max_new_tokens=3, do_sample=True)
        prompt_ids = [row[mask.bool()].tolist() for row, mask in zip(*encoded.values(), strict=True)]
        completion_ids = sampled[:, encoded["input_ids"].shape[1] :].tolist()
        colours = [COLOURS[ids[0] % 3] for ids in completion_ids]
        drawn.extend(colours)
        return {
            "prompt_ids": prompt_ids,
            "completion_ids": completion_ids,
            "logprobs": [[0.0] * len(ids) for ids in completion_ids],
            "edited_image": [filled(colour) for colour in colours],
        }

    trainer = train(reward, rows(source_image=[SOURCE, SOURCE]), tmp_path, rollout_func=rollout)
    frame = table(tmp_path)
    assert set(drawn) == set(COLOURS)
    check_rewards(frame, drawn)
    check_group_arithmetic(frame)
    assert trainer.moved  # type: ignore[attr-defined]


class Canvas:
    """An environment that holds the image being edited."""

    def __init__(self) -> None:
        self.image: Image.Image | None = None

    def reset(self, source_image: Image.Image, **row: Any) -> None:
        self.image = None

    def paint(self, colour: str) -> str:
        """Paint the image.

        Args:
            colour: what to paint it with
        """
        self.image = filled(colour)
        return f"painted {colour}"


def test_the_image_of_an_environment(tmp_path: Path, reward: EditRRMReward) -> None:
    trainer = train(
        reward,
        rows(source_image=[SOURCE, SOURCE]),
        tmp_path,
        words=CALLS,
        template=qwen3_chat_template,
        environment_factory=Canvas,
    )
    frame = table(tmp_path)
    painted = last_calls(frame)
    assert {None, *COLOURS} == set(painted)
    check_rewards(frame, painted)
    check_group_arithmetic(frame)
    assert trainer.moved  # type: ignore[attr-defined]


class Faulty(Redness):
    """Does something else wrong in each call: raises, answers too few, invents NaN, answers nothing."""

    calls = 0

    def verify(self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]]) -> list[Verification]:
        if len(edits) > 1:
            self.calls += 1
        answers = super().verify(edits, principles)
        if any(answer.score is None for answer in answers):
            kind = self.calls % 4
            if kind == 0:
                raise ConnectionError("judge is gone")
            if kind == 1:
                return answers[:-1]
            if kind == 2:
                return [Verification(score=math.nan)]
            return None  # type: ignore[return-value]
        return answers


def test_a_faulty_verifier_never_ends_a_run(tmp_path: Path) -> None:
    verifier = Faulty()
    judge = EditRRMReward(verifier, OneQuestion(), name=NAME, record=tmp_path / "records")
    dataset = rows(source_image=[SOURCE, SOURCE], edited_image=[filled("red"), filled("blue")])
    trainer = train(judge, dataset, tmp_path, steps=4)
    assert trainer.state.global_step == 4
    assert verifier.calls == 4
    assert logged(trainer, f"{NAME}/failure_rate") == [0.5] * 4
    frame = table(tmp_path)
    assert sorted(frame[NAME].dropna()) == [10.0] * 16
    (path,) = (tmp_path / "records").glob("*.jsonl")
    reasons = {str(json.loads(line)["failure"]) for line in path.read_text().splitlines()}
    for words in ("ConnectionError: judge is gone", "0 verifications for 1 edits", "got nan", "NoneType, not a list"):
        assert any(words in reason for reason in reasons), (words, reasons)


CONFIG = """
model_name_or_path: {model}
dataset_name: {data}
reward_funcs: [editr1_plugins.rewards.palette]
output_dir: {output}
max_steps: 2
per_device_train_batch_size: 4
num_generations: 2
max_completion_length: 4
use_cpu: true
bf16: false
logging_steps: 1
report_to: none
save_strategy: "no"
dtype: float32
"""


@pytest.mark.slow
def test_the_trl_command_with_the_verifier_of_an_installed_plugin(tmp_path: Path) -> None:
    installed = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    copy = tmp_path / "example"
    subprocess.run(["cp", "-r", str(EXAMPLE), str(copy)], check=True)  # a build leaves its traces in the tree
    subprocess.run([*pip, "--target", str(installed), str(copy)], check=True)

    model = language.save_tiny_language_model(tmp_path / "model")
    prompt = [{"role": "user", "content": "Use at most 4 colours"}]
    blocks = Image.new("RGB", (16, 16), "white")
    blocks.paste((220, 30, 30), (0, 0, 8, 16))
    source = Image.new("RGB", (16, 16), "white")
    source.paste("red", (0, 0, 8, 16))  # near the edit, but no copy, which would earn nothing
    ramp = Image.linear_gradient("L").resize((16, 16)).convert("RGB")
    dataset = datasets.Dataset.from_dict(
        {"prompt": [prompt] * 2, "source_image": [source] * 2, "edited_image": [blocks, ramp]}
    )
    (tmp_path / "data").mkdir()
    dataset.to_parquet(tmp_path / "data" / "train.parquet")
    config = tmp_path / "grpo.yaml"
    config.write_text(CONFIG.format(model=model, data=tmp_path / "data", output=tmp_path / "out"))

    paths = [str(installed), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "EDITR1_DECOMPOSER": "palette",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "hf"),
    }
    command = [str(Path(sys.executable).with_name("trl")), "grpo", "--config", str(config)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    lines = [line for line in done.stdout.splitlines() if "rewards/edit_rrm_palette/mean" in line]
    assert len(lines) == 2, done.stdout[-3000:]
    # Blocks earn 10, the ramp 0; both rows are in each step.
    assert all(re.search(r"'rewards/edit_rrm_palette/mean': '?5(\.0)?'?", line) for line in lines), lines
    assert all(re.search(r"'edit_rrm_palette/failure_rate': '?0(\.0)?'?", line) for line in lines), lines
