"""`openai:MODEL@URL` end to end: edits in, a real HTTP server that looks at the images, verifications out."""

from __future__ import annotations

import io
import json
import os
import pickle
import re

import pytest
from PIL import Image

from editr1_plugins.backends.openai import OpenAIBackend
from editr1_plugins.errors import ConfigError
from editr1_plugins.testing import VerifierContract
from editr1_plugins.testing.judge_server import JudgeServer, Received, Scripted
from editr1_plugins.types import FOLLOW, KEEP, QUALITY, Edit, Principle, Verification
from editr1_plugins.verifiers.openai import OpenAIVerifier

SECRET = "sk-very-secret-0123456789"
PRINCIPLES = (
    Principle(question="Is the square lighter?", category=FOLLOW),
    Principle(question="Is the format unchanged?", category=KEEP),
    Principle(question="Is it free of noise?", category=QUALITY),
)
SOURCE = Image.new("RGB", (40, 40), (0, 0, 0))


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "EDITR1_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


def edit(shade: int, instruction: str = "make the square lighter") -> Edit:
    return Edit(source=SOURCE, edited=Image.new("RGB", (40, 40), (shade,) * 3), instruction=instruction)


def answer(score: float | str, questions: list[str], verdicts: list[int]) -> str:
    array = [{"question": asked, "score": met} for asked, met in zip(questions, verdicts, strict=True)]
    average = sum(verdicts) / max(1, len(verdicts))
    return f'I looked.\n{json.dumps(array)}\n{{"average_score": {average:.2f}}}\n<score>{score}</score>'


def looking_judge(request: Received) -> str:
    """Scores by what it sees: the lighter the last image, the better; answers the questions it was asked."""
    shade = Image.open(io.BytesIO(request.images[-1])).getpixel((5, 5))[0]  # type: ignore[index]
    questions = re.findall(r'"question": ("(?:[^"\\]|\\.)*")', request.texts[1])
    met = int(shade > 100)
    return answer(shade / 25.5, [json.loads(question) for question in questions], [met] * len(questions))


def verifier(server: JudgeServer, **options: object) -> OpenAIVerifier:
    settings: dict[str, object] = {"timeout": 5.0, "max_retries": 0, **options}
    return OpenAIVerifier("judge", server.url, **settings)  # type: ignore[arg-type]


class TestContract(VerifierContract):
    @pytest.fixture
    def verifier(self):  # type: ignore[no-untyped-def, override]
        with JudgeServer(looking_judge) as server:
            made = OpenAIVerifier("judge", server.url, timeout=5.0, max_retries=0)
            yield made
            made.close()


def test_each_edit_is_judged_by_its_own_image() -> None:
    shades = [0, 51, 102, 153, 204, 255] * 4
    with JudgeServer(looking_judge) as server:
        judge = verifier(server)
        found = judge.verify([edit(shade) for shade in shades], [PRINCIPLES] * len(shades))
        judge.close()
    assert [each.score for each in found] == pytest.approx([shade / 25.5 for shade in shades])
    assert [each.verdicts[0].passed for each in found] == [shade > 100 for shade in shades]
    assert len({request.images[0] for request in server.requests}) == 1


def test_a_group_shares_everything_but_the_edited_image() -> None:
    with JudgeServer(looking_judge) as server:
        judge = verifier(server)
        judge.verify([edit(shade) for shade in range(0, 240, 10)], [PRINCIPLES] * 24)
        judge.close()
    bodies = [request.body for request in server.requests]
    parts = [[body["messages"][0], *body["messages"][1]["content"]] for body in bodies]
    # Equal prompts up to the last image, which is the end: nothing may follow that differs.
    assert len({json.dumps(row[:-1]) for row in parts}) == 1
    assert len({json.dumps(row[-1]) for row in parts}) == 24
    assert parts[0][-1]["type"] == "image_url"
    assert all(len(body["messages"]) == 2 for body in bodies)


def test_samples_are_pooled_and_doubt_is_seen() -> None:
    def text(score: float) -> str:
        return answer(score, [each.question for each in PRINCIPLES], [1, 1, 0])

    script = Scripted(text=(text(6), text(8), "I cannot say.", text(7)))
    with JudgeServer(script) as server:
        judge = verifier(server, samples=4, min_samples=3)
        (found,) = judge.verify([edit(9)], [PRINCIPLES])
        strict = verifier(server, samples=4, min_samples=4)
        (abstained,) = strict.verify([edit(9)], [PRINCIPLES])
        judge.close()
        strict.close()
    assert (found.score, found.samples) == (pytest.approx(7.0), 3)
    assert found.spread == pytest.approx((2 / 3) ** 0.5)
    assert abstained.score is None
    assert abstained.failure is not None
    assert [request.body["n"] for request in server.requests] == [4, 4]


FAULTS = {
    "html200": "html: ",
    "cut_json": "bad_json: ",
    "no_choices": "no_choices: ",
    "empty_choices": "empty_choices: ",
    "null_content": "null_content: ",
    "401": "unauthorized: ",
    "404": "not_found: ",
    "413": "too_large: ",
    "422": "unprocessable: ",
    "429": "rate_limited: ",
    "500": "server_error: ",
    "503": "server_error: ",
    "reset": "connection: ",
    "stall": "timeout: ",
    "drip": "timeout: ",
    "endless": "reply_too_large: ",
    "length": "truncated",
    "content_filter": "",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_costs_its_own_edit_only(fault: str) -> None:
    def script(request: Received) -> Scripted:
        text = looking_judge(request)
        return Scripted(text=text, fault=fault if "BAD" in request.texts[1] else None)

    with JudgeServer(script) as server:
        judge = verifier(server, timeout=1.0 if fault in ("stall", "drip") else 20.0)
        good, bad, last = judge.verify([edit(255), edit(255, "BAD"), edit(102)], [PRINCIPLES] * 3)
        judge.close()
    assert (good.score, last.score) == (10.0, 4.0)
    assert bad.score is None
    assert bad.failure
    assert bad.failure.startswith(FAULTS[fault])


def test_separate_reasoning_is_trace_and_never_a_score() -> None:
    thought = "the answer might be <score>9</score>"
    with JudgeServer(
        [Scripted(text="No tag here.", reasoning=thought), Scripted(text="", reasoning=thought)]
    ) as server:
        judge = verifier(server)
        found = [judge.verify([edit(9)], [PRINCIPLES])[0] for _ in range(2)]
        judge.close()
    for each in found:
        assert each.score is None
        assert thought in each.trace


def test_expected_scores_use_the_servers_logprobs() -> None:
    text = answer("7", [each.question for each in PRINCIPLES], [1, 1, 1])
    head, digit, tail = text[: text.rindex("7")], "7", text[text.rindex("7") + 1 :]

    def entry(token: str, top: list[tuple[str, float]]) -> dict[str, object]:
        alternatives = [{"token": other, "logprob": logprob} for other, logprob in top]
        return {"token": token, "logprob": top[0][1] if top else 0.0, "top_logprobs": alternatives}

    half = -0.6931471805599453
    logprobs = {"content": [entry(head, []), entry(digit, [("7", half), ("8", half)]), entry(tail, [])]}
    with JudgeServer(Scripted(text=text, logprobs=logprobs)) as server:
        judge = verifier(server, aggregate="expected")
        (found,) = judge.verify([edit(9)], [PRINCIPLES])
        judge.close()
    assert server.requests[0].body["logprobs"] is True
    assert found.score == pytest.approx(7.5, abs=0.01)


def test_tokens_and_seconds_are_counted() -> None:
    def script(request: Received) -> Scripted:
        return Scripted(text=looking_judge(request), cached_tokens=64)

    with JudgeServer(script) as server:
        judge = verifier(server)
        (judged,) = judge.judge([edit(255)], [PRINCIPLES])
        judge.close()
    assert isinstance(judged.verification, Verification)
    assert judged.usage.cached_tokens == 64
    assert judged.usage.prompt_tokens
    assert judged.usage.completion_tokens
    assert judged.usage.latency


def test_specs() -> None:
    made = OpenAIVerifier.from_spec("Qwen/Qwen2.5-VL-7B-Instruct@http://u:hunter22@h:1/v1,http://i/v1", samples=2)
    assert isinstance(made.backend, OpenAIBackend)
    assert made.backend.model == "Qwen/Qwen2.5-VL-7B-Instruct"
    assert made.backend.base_urls == ("http://***@h:1/v1", "http://i/v1")
    assert made.identity.endswith("openai:Qwen/Qwen2.5-VL-7B-Instruct@http://***@h:1/v1,http://i/v1")
    for wrong, fix in (("judge", "the URL is missing; write MODEL@URL"), ("@http://h", "the model is missing")):
        with pytest.raises(ConfigError, match=fix):
            OpenAIVerifier.from_spec(wrong)


def test_settings_of_the_judge_are_checked() -> None:
    with pytest.raises(ConfigError, match="min_samples"):
        OpenAIVerifier("judge", "http://h/v1", min_samples=2)


def test_the_key_is_in_nothing_that_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(10)
    with JudgeServer([Scripted(fault="401"), Scripted(text=f"{SECRET} <score>5</score>")]) as server:
        judge = verifier(server, api_key=SECRET)
        found = [judge.verify([edit(9)], [PRINCIPLES])[0] for _ in range(2)]
        judge.close()
    assert server.requests[0].headers["authorization"] == f"Bearer {SECRET}"
    kept = [repr(judge), judge.identity, repr(found), caplog.text, repr(pickle.dumps(judge))]
    assert not any(SECRET in text for text in kept)
