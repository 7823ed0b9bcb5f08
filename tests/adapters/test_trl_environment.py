"""Agents with editing tools in TRL's own `GRPOTrainer`; and the environment by itself."""

from __future__ import annotations

import json
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from transformers.utils import get_json_schema
from trl import GRPOConfig, GRPOTrainer
from trl.chat_template_utils import qwen3_chat_template, qwen3_vl_chat_template
from trl_jobs import NAME, PLANS, Painter, check_rewards, judge, rows, settings, table, trained

from editr1_plugins.adapters.trl_environment import EditingEnvironment, JudgedEditingEnvironment
from editr1_plugins.errors import ConfigError, DataError
from editr1_plugins.testing import language

SOURCE = Image.new("RGB", (16, 16), "white")
RED, MAROON = (255, 0, 0), (128, 0, 0)
CALLS = [f"<tool_call>\n{json.dumps({'name': 'edit', 'arguments': {'prompt': plan}})}\n</tool_call>" for plan in PLANS]


def agent(output: Path, factory: Any, reward: Any, *, sees: bool = False) -> GRPOTrainer:
    """A tiny random agent that calls the tool once, or says nothing."""
    template = qwen3_vl_chat_template if sees else qwen3_chat_template
    tokenizer = language.tiny_tokenizer(CALLS, chat_template=template)
    changed = {
        "max_completion_length": 2000,
        "max_tool_calling_iterations": 1,
        "log_completions": not sees,  # TRL 1.16 cannot write images of tools to its table
        "generation_kwargs": {"suppress_tokens": language.all_but(tokenizer, CALLS), "max_new_tokens": 1},
    }
    return GRPOTrainer(
        language.tiny_vision_language_model(tokenizer) if sees else language.tiny_language_model(tokenizer),
        reward,
        GRPOConfig(**settings(output, **changed)),
        rows("image" if sees else "source_image", "make it red", count=4),
        processing_class=language.tiny_vision_language_processor(tokenizer) if sees else tokenizer,
        environment_factory=factory,
    )


def colours(completions: Any) -> list[str]:
    """What each agent painted: the last word of its call; "nothing" where it made none."""
    called = [messages[0].get("tool_calls") for messages in completions]
    return [
        "nothing" if calls is None or not len(calls) else calls[0]["function"]["arguments"]["prompt"].split()[-1]
        for calls in called
    ]


def test_the_reward_finds_what_the_image_has_become(tmp_path: Path) -> None:
    trainer = agent(tmp_path, partial(EditingEnvironment, Painter()), judge())
    assert trained(trainer)
    frame = table(tmp_path)
    painted = colours(frame["completion"])
    acted = [(reward, colour) for reward, colour in zip(frame[NAME], painted, strict=True) if colour != "nothing"]
    check_rewards(*map(list, zip(*acted, strict=True)))
    assert {reward for reward, colour in zip(frame[NAME], painted, strict=True) if colour == "nothing"} <= {0.0}
    answers = {messages[1]["content"] for messages in frame["completion"] if len(messages) > 1}
    assert answers == {"Edited.", "Not edited: the editor is out of order."}


def test_an_environment_that_judges_itself(tmp_path: Path) -> None:
    trainer = agent(tmp_path, partial(JudgedEditingEnvironment, judge(), Painter()), None)
    assert trained(trainer)
    frame = table(tmp_path)
    painted = colours(frame["completion"])
    acted = [
        (reward, colour)
        for reward, colour in zip(frame["JudgedEditingEnvironment"], painted, strict=True)
        if colour != "nothing"
    ]
    check_rewards(*map(list, zip(*acted, strict=True)))


def test_a_policy_that_is_shown_its_edits(tmp_path: Path) -> None:
    trainer = agent(tmp_path, partial(EditingEnvironment, Painter(), show=True), judge(), sees=True)
    assert trained(trainer)
    logs = trainer._logs
    painted = colours(logs["completion"])
    acted = [
        (reward, colour) for reward, colour in zip(logs["rewards"][NAME], painted, strict=True) if colour != "nothing"
    ]
    check_rewards(*map(list, zip(*acted, strict=True)))
    shown = [messages[1]["content"] for messages in logs["completion"] if len(messages) > 1]
    assert {part[0]["image"].getpixel((0, 0)) for part in shown if isinstance(part, list)} == {RED, MAROON}


class TestAlone:
    @pytest.fixture
    def environment(self) -> EditingEnvironment:
        environment = EditingEnvironment(Painter(), most=2)
        environment.reset(source_image=SOURCE, prompt="make it red", instruction="make it red")
        return environment

    def test_edits_follow_one_another_and_can_be_taken_back(self, environment: EditingEnvironment) -> None:
        assert environment.image == SOURCE
        assert environment.edit("make it maroon") == "Edited."
        assert environment.edit("make it red") == "Edited."
        assert environment.image.getpixel((0, 0)) == RED
        assert environment.undo() == "The last edit is taken back."
        assert environment.image.getpixel((0, 0)) == MAROON
        assert environment.edit("make it red") == "Not edited: no more than 2 edits are allowed."
        environment.undo()
        assert environment.image == SOURCE
        assert environment.undo() == "There is no edit to take back."

    def test_the_next_row_begins_anew(self, environment: EditingEnvironment) -> None:
        environment.edit("make it red")
        other = Image.new("RGB", (16, 16), "black")
        environment.reset(images=[other])
        assert environment.image == other
        assert environment.undo() == "There is no edit to take back."

    @pytest.mark.parametrize("prompt", ["", "  ", None, 3])
    def test_an_edit_without_words(self, environment: EditingEnvironment, prompt: Any) -> None:
        assert environment.edit(prompt) == "Not edited: say in words what to change."
        assert environment.image == SOURCE

    def test_an_editor_that_fails_leaves_no_image(self, environment: EditingEnvironment) -> None:
        assert environment.edit("make it fail") == "Not edited: the editor is out of order."
        assert environment.image is None
        assert environment.edit("make it red") == "Not edited: the editor is out of order."

    def test_a_row_without_a_source(self, environment: EditingEnvironment) -> None:
        with pytest.raises(DataError, match="found no source image"):
            environment.reset(prompt="make it red")
        with pytest.raises(DataError, match="not an image in a supported format"):
            environment.reset(source_image=b"no image")

    def test_only_the_tools_are_public_methods(self) -> None:
        def public(kind: type) -> set[str]:
            return {name for name in vars(kind) if not name.startswith("_")}

        assert public(EditingEnvironment) == {"reset", "edit", "undo"}
        assert public(JudgedEditingEnvironment) == {"get_reward"}

    def test_the_tools_are_documented_as_transformers_reads_them(self, environment: EditingEnvironment) -> None:
        schema = get_json_schema(environment.edit)["function"]
        assert schema["name"] == "edit"
        assert schema["parameters"]["required"] == ["prompt"]
        assert "in one sentence" in schema["parameters"]["properties"]["prompt"]["description"]
        assert get_json_schema(environment.undo)["function"]["parameters"]["properties"] == {}

    def test_a_wrongly_set_up_editor_ends_the_run_with_the_next_row(self) -> None:
        class Broken:
            def edit(self, source: Image.Image, prompt: str) -> Image.Image:
                raise ConfigError("no such model")

        environment = JudgedEditingEnvironment(judge(), Broken())
        environment.reset(source_image=SOURCE, instruction="make it red")
        with pytest.raises(ConfigError, match="no such model"):
            environment.edit("make it red")
        with pytest.raises(ConfigError, match="no such model"):
            environment.get_reward()
        with pytest.raises(ConfigError, match="no such model"):
            environment.reset(source_image=SOURCE)

    def test_judging_itself(self) -> None:
        factory = pickle.loads(pickle.dumps(partial(JudgedEditingEnvironment, judge(), Painter())))
        environment = factory()
        environment.reset(source_image=SOURCE, edited_image=SOURCE, prompt="", instruction="make it red")
        assert environment.get_reward() == 0.0
        environment.edit("make it red")
        assert environment.get_reward() == 10.0
        environment.edit("make it fail")
        assert environment.get_reward() is None

    def test_wrong_arguments(self) -> None:
        with pytest.raises(ConfigError, match="most must be at least 1"):
            EditingEnvironment(Painter(), most=0)
