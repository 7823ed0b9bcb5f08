"""Our reward in verifiers' own eval: its runner, agent harness, tool server, traces; only the model is scripted.

The scripted model is an HTTP server that calls the tool it is offered, then says that it is done. The harness's program
is set up by `uv`, which must be installed and may ask a package index.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("verifiers.v1", reason="needs verifiers (run with 0.4.0): pip install verifiers==0.4.0 uv")

import verifiers.v1 as vf
from verifiers.v1.cli.eval.runner import run_eval
from verifiers.v1.configs.cli.eval import EvalConfig
from verifiers.v1.graph import MessageNode
from verifiers.v1.types import ToolMessage, UserMessage

from editr1_plugins.backends.image_uri import ImageURIs
from editr1_plugins.miniedit.pairs import split_tasks
from editr1_plugins.miniedit.world import draw

FOLDER = Path(__file__).parent
REWARD = {"edit_rrm": {"fn": "editr1_plugins.adapters.verifiers:edit_rrm"}}
uri_of = ImageURIs()


class Data(vf.TaskData):
    source: str = ""
    instruction: str = ""


class Judged(vf.Task[Data]):
    pass


def trace_and_task(edited: str | None, **rewards: Any) -> tuple[vf.Trace, Judged]:
    (drawn,) = split_tasks(1, seed=3, held_out=True)
    data = Data(idx=0, prompt="edit", source=uri_of(draw(drawn.scene)), instruction=drawn.instruction)
    task = Judged(data, vf.TaskConfig(rewards=rewards or REWARD))
    nodes = [MessageNode(parent=None, message=UserMessage(content="edit"), sampled=False)]
    if edited is not None:
        content = [
            {"type": "image_url", "image_url": {"url": uri_of(draw(drawn.goal)) if edited == "goal" else edited}}
        ]
        nodes.append(MessageNode(parent=0, message=ToolMessage(tool_call_id="1", content=content), sampled=False))
    made = vf.Trace(
        agent=vf.AgentInfo(config=vf.AgentConfig()), task=vf.TraceTask(type="Judged", data=data), nodes=nodes
    )
    return made, task


@pytest.fixture(autouse=True)
def measure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITR1_SCORER", '{"verifier": "measure", "top": 1.0}')


def test_task_score_records_our_reward() -> None:
    trace, task = trace_and_task("goal", edit_rrm={**REWARD["edit_rrm"], "weight": 2.0})
    asyncio.run(task.score(trace))
    found = trace.rewards["edit_rrm"]
    assert found is not None
    assert found.score > 0.9
    assert trace.reward == 2 * found.score
    assert trace.metrics["editr1_missing"] == 0.0
    assert json.loads(trace.model_dump_json())["info"]["editr1"]["score"] == found.score * 10


def test_a_missing_score_is_a_task_error_and_no_reward() -> None:
    trace, task = trace_and_task(None)
    with pytest.raises(vf.TaskError, match="no edited image"):
        asyncio.run(task.score(trace))
    assert trace.rewards == {"edit_rrm": None}
    assert trace.metrics["editr1_missing"] == 1.0


class Scripted(BaseHTTPRequestHandler):
    """Paints once with the tool it is offered, then stops."""

    paints = True

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        names = [tool["function"]["name"] for tool in body.get("tools") or []]
        message: dict[str, Any] = {"role": "assistant", "content": "Done."}
        if self.paints and names and not any(each["role"] == "tool" for each in body["messages"]):
            call = {"left": 2, "top": 2, "right": 9, "bottom": 9, "colour": "#ff0000"}
            function = {"name": names[0], "arguments": json.dumps(call)}
            message = {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c1", "type": "function", "function": function}],
            }
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if "tool_calls" in message else "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        answer = {"id": "x", "created": 0, "model": body["model"], "usage": usage}
        if body.get("stream"):
            for number, tool_call in enumerate(message.get("tool_calls", [])):
                tool_call["index"] = number
            choice["delta"] = choice.pop("message")
            chunk = json.dumps({**answer, "object": "chat.completion.chunk", "choices": [choice]})
            self._send("text/event-stream", f"data: {chunk}\n\ndata: [DONE]\n\n")
        else:
            self._send("application/json", json.dumps({**answer, "object": "chat.completion", "choices": [choice]}))

    def _send(self, kind: str, text: str) -> None:
        payload = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Scripted, "paints", True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


@pytest.fixture
def run(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs `eval.toml` with this model; returns the traces."""
    tomllib = pytest.importorskip("tomllib")
    if shutil.which("uv") is None:
        pytest.skip("verifiers sets its agent programs up by uv: pip install uv")
    monkeypatch.syspath_prepend(str(FOLDER))
    # The tool server is a process of its own.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FOLDER), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("JUDGED_API_KEY", "none")
    settings = tomllib.loads((FOLDER / "eval.toml").read_text())
    settings["client"]["base_url"] = model
    settings["env"]["taskset"]["count"] = 2
    settings.update(num_rollouts=1, rich=None, output_dir=tmp_path, run={"dir": "run"})

    def traces() -> list[vf.Trace]:
        records = asyncio.run(run_eval(EvalConfig(**settings)))
        return [trace for record in records for trace in record.traces]

    return traces


def test_an_agent_paints_and_is_judged(run: Any) -> None:
    traces = run()
    assert [error.message for trace in traces for error in trace.errors] == []
    assert len(traces) == 2
    for trace in traces:
        found = trace.rewards["edit_rrm"]
        assert found is not None
        assert found.weight == 0.1
        assert 0 <= found.score <= 1
        assert trace.metrics["editr1_missing"] == 0.0
        assert len(trace.info["editr1"]["verdicts"]) > 0 or trace.info["editr1"]["flags"]


def test_an_agent_that_paints_nothing_has_no_reward(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scripted, "paints", False)
    for trace in run():
        assert not trace.ok
        assert trace.errors[-1].type == "TaskError"
        assert "no edited image" in trace.errors[-1].message
        assert trace.rewards["edit_rrm"] is None
        assert trace.metrics["editr1_missing"] == 1.0
