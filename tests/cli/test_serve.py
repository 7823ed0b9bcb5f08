"""`editr1 serve`: what it refuses, and a real process that serves, drains and ends."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from PIL import Image

from editr1_plugins.cli import main
from editr1_plugins.testing.judge_server import JudgeServer, Scripted

TOKEN = "a-token-of-some-length"


def b64(grey: int) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (grey, grey, grey)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def body(instruction: str = "make the image brighter") -> dict[str, object]:
    history = [{"text": instruction, "image_b64": b64(80)}, {"text": instruction, "image_b64": b64(160)}]
    return {"requests": [{"history": history, "required_rewards": ["editr1"]}]}


@contextmanager
def serving(*arguments: object, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that serves, and its address."""
    command = [sys.executable, "-m", "editr1_plugins", "serve", "--port", "0", *(str(each) for each in arguments)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if " at http" not in line:
            process.kill()
            pytest.fail(f"it said {line!r} and {process.communicate()[1]!r}")
        yield process, line.split(" at ")[1].strip()
    finally:
        process.kill()
        process.communicate()


def test_a_sigterm_lets_what_is_under_way_be_answered() -> None:
    # The judge is slow: the request is under way when the signal comes.
    with (
        JudgeServer(Scripted(text="It is brighter. <score>7.5</score>", latency=1.5)) as judge,
        serving("--verifier", f"openai:judge@{judge.url}", EDITR1_SERVE_TOKEN=TOKEN) as (process, url),
        ThreadPoolExecutor(1) as pool,
    ):
        assert requests.post(f"{url}/score", json=body(), timeout=60).status_code == 401
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        under_way = pool.submit(requests.post, f"{url}/score", json=body(), timeout=60, headers=bearer)
        while not judge.requests:
            assert not under_way.done(), under_way.result().text
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert under_way.result().json()["scores"] == [7.5]
        _, log = process.communicate(timeout=60)
        assert process.returncode == 0, log
        assert "POST /score 200 1 edits 0 unscored" in log
        assert "POST /score 401" in log
        assert TOKEN not in log
        with pytest.raises(requests.ConnectionError):
            requests.get(f"{url}/health", timeout=5)


def test_a_judge_that_never_answers_does_not_keep_it_from_ending() -> None:
    with (
        JudgeServer(Scripted(fault="stall")) as judge,
        serving("--verifier", f"openai:judge@{judge.url}", "--drain", "1") as (process, url),
        ThreadPoolExecutor(1) as pool,
    ):
        under_way = pool.submit(requests.post, f"{url}/score", json=body(), timeout=120)
        while not judge.requests:
            assert not under_way.done(), under_way.result().text
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == 0
        # Its client hears of it at once, by an answer or by the end of the connection.
        with pytest.raises(requests.RequestException):
            under_way.result(timeout=60).raise_for_status()


def test_it_says_what_it_serves_and_records(tmp_path: Path) -> None:
    arguments = ("--verifier", "measure", "--record", tmp_path / "records", "--name", "ours", "--edit-r1-pickle")
    with serving(*arguments) as (process, url):
        assert requests.get(f"{url}/health", timeout=60).json()["rewards"] == {"ours": ["ready"]}
        asked = body()
        asked["requests"][0]["required_rewards"] = ["ours"]  # type: ignore[index]
        answer = requests.post(f"{url}/score", json=asked, timeout=60).json()
        assert answer["scores"][0] is not None, answer
        assert 'editr1_edits_total{outcome="scored"} 1.0' in requests.get(f"{url}/metrics", timeout=60).text
        process.send_signal(signal.SIGINT)
        _, log = process.communicate(timeout=60)
        assert process.returncode == 0, log
        assert "/mode/* reads pickles as data only" in log
    [record] = (tmp_path / "records").glob("*.jsonl")
    assert json.loads(record.read_text())["score"] == answer["scores"][0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--host", "0.0.0.0"), "0.0.0.0 can be reached by others: set a token"),
        (("--verifier", "nonsense"), "nonsense"),
        (("--port", "99999"), "port must lie in"),
        (("--token-file", "/nowhere/at/all"), "the token file cannot be read"),
        (("--max-missing", "2"), "must lie in 0..1"),
        (("--max-edits", "99999"), "max_waiting"),
    ],
)
def test_what_is_wrong_is_said_before_it_serves(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--verifier", "measure", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_an_empty_token_file_is_no_token(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "token").write_text("\n")
    assert main(["serve", "--verifier", "measure", "--token-file", str(tmp_path / "token")]) == 2
    assert "the token must be" in capsys.readouterr().err


def test_a_port_in_use_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with JudgeServer() as other:
        port = other.url.split(":")[2].split("/")[0]
        assert main(["serve", "--verifier", "measure", "--port", port]) == 2
    assert f"cannot listen at 127.0.0.1 port {port}" in capsys.readouterr().err


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in [name for name in sys.modules if name.startswith("editr1_plugins.adapters.server")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    assert main(["serve", "--verifier", "measure"]) == 2
    assert 'pip install "editr1-plugins[serve]"' in capsys.readouterr().err
