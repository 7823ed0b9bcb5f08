"""Our scorers, task and solver in inspect_ai's own eval; only the model that answers is scripted (its `mockllm`)."""

from __future__ import annotations

import importlib.metadata
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("inspect_ai", reason="needs inspect_ai (run with 0.3.285): pip install inspect-ai==0.3.285")

from inspect_ai import eval as run_eval
from inspect_ai import score
from inspect_ai.log import read_eval_log
from inspect_ai.model import ChatMessageTool, ContentImage, ContentText, ModelOutput, ModelUsage, get_model
from inspect_ai.solver import solver

from editr1_plugins.adapters.inspect_ai import edit_rrm, image_edits, unscored
from editr1_plugins.backends.image_uri import ImageURIs
from editr1_plugins.miniedit.pairs import split_tasks
from editr1_plugins.miniedit.world import draw

GOALS = {task.instruction: ImageURIs()(draw(task.goal)) for task in split_tasks(5, seed=7, held_out=True)}


def answer(messages: list[Any], *args: Any) -> ModelOutput:
    """The gold edit; no image to the first drawing, a URL to the second."""
    instruction = messages[-1].content[-1].text
    place = list(GOALS).index(instruction)
    said: Any = [ContentText(text="Done."), ContentImage(image=GOALS[instruction])]
    if place == 0:
        said = "I cannot edit images."
    elif place == 1:
        said = [ContentImage(image="https://example.org/edited.png")]
    output = ModelOutput.from_content("mockllm", said)
    output.usage = ModelUsage()  # else mockllm counts tokens with a tokenizer that it downloads
    return output


def metrics_of(log: Any) -> dict[str, tuple[int, int | None, dict[str, float]]]:
    found = {each.name: each for each in log.results.scores}
    return {
        name: (each.scored_samples, each.unscored_samples, {key: value.value for key, value in each.metrics.items()})
        for name, each in found.items()
    }


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Any:
    model = get_model("mockllm/model", custom_outputs=answer)
    folder = tmp_path_factory.mktemp("logs")
    (log,) = run_eval(
        image_edits("miniedit:5", verifier="measure"), model=model, log_dir=str(folder), display="none", epochs=2
    )
    return log


def test_what_cannot_be_judged_is_left_out_of_the_mean_and_counted(log: Any) -> None:
    assert log.status == "success"
    found = metrics_of(log)
    scored, without, numbers = found["edit_rrm"]
    assert (scored, without) == (3, 2)
    assert numbers["mean"] > 7  # gold edits alone; as zeros the two would make it less than 6
    assert found["unscored"] == (5, 0, {"unscored_share": pytest.approx(0.4)})
    reasons = {sample.id: sample.scores["edit_rrm"].reason for sample in log.samples}
    assert [reasons[key] for key in sorted(reasons)] == ["no_response", "invalid_response_format", None, None, None]


def test_the_log_keeps_nan_and_is_scored_again_the_same(log: Any) -> None:
    kept = read_eval_log(log.location)
    values = {(sample.id, sample.epoch): sample.scores["edit_rrm"].value for sample in kept.samples}
    assert sum(math.isnan(value) for value in values.values()) == 4
    again = score(kept, [edit_rrm(verifier="measure"), unscored()], action="overwrite", display="none")
    for sample in again.samples:
        value, before = sample.scores["edit_rrm"].value, values[sample.id, sample.epoch]
        assert value == before or (math.isnan(value) and math.isnan(before))
    assert metrics_of(again) == metrics_of(kept)


@solver
def painting_agent() -> Any:
    """An agent whose tool has returned the edited image; its last word is text."""

    async def solve(state: Any, generate: Any) -> Any:
        edited = ContentImage(image=GOALS[state.metadata["instruction"]])
        state.messages.append(ChatMessageTool(content=[edited], tool_call_id="1", function="paint"))
        state.output = ModelOutput.from_content("none", "Painted.")
        state.messages.append(state.output.message)
        return state

    return solve


def test_an_agent_by_a_tool(tmp_path: Path) -> None:
    task = image_edits("miniedit:5", first=3, verifier="measure", top=1.0)
    (log,) = run_eval(task, solver=painting_agent(), model="none/none", log_dir=str(tmp_path), display="none")
    scored, without, numbers = metrics_of(log)["edit_rrm"]
    assert (scored, without) == (3, 0)
    assert 0.7 < numbers["mean"] <= 1


def test_the_command_finds_us_by_the_entry_point(tmp_path: Path) -> None:
    """`inspect eval` in a process of its own: task, scorers and solver by name; the tiny editor makes the edits."""
    names = [each.name for each in importlib.metadata.entry_points(group="inspect_ai")]
    if "editr1_plugins" not in names:  # installed before the entry point was declared
        made = tmp_path / "dist" / "editr1_entry-0.dist-info"
        made.mkdir(parents=True)
        (made / "METADATA").write_text("Metadata-Version: 2.1\nName: editr1-entry\nVersion: 0\n")
        (made / "entry_points.txt").write_text("[inspect_ai]\neditr1_plugins = editr1_plugins.adapters.inspect_ai\n")
    paths = os.pathsep.join([str(tmp_path / "dist"), os.environ.get("PYTHONPATH", "")])
    command = [Path(sys.executable).parent / "inspect", "eval", "editr1_plugins/image_edits", "-T", "verifier=measure"]
    command += ["-T", "benchmark=miniedit:3", "--solver", "editr1_plugins/pipeline_editor", "-S", "model=miniedit"]
    command += ["--model", "none/none", "--display", "plain", "--log-dir", tmp_path / "logs"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=250, env={**os.environ, "PYTHONPATH": paths}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = (tmp_path / "logs").glob("*.eval")
    log = read_eval_log(str(file))
    assert log.status == "success", log.error
    assert metrics_of(log)["unscored"] == (3, 0, {"unscored_share": 0.0})
    assert all(0 <= sample.scores["edit_rrm"].value <= 10 for sample in log.samples)
