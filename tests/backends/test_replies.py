"""Reading a server's bytes: whatever comes, the result is replies or a named failure, never an exception."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from editr1_plugins.backends.chat import ChatReply, TokenLogprob
from editr1_plugins.backends.replies import Failure, error_text, read_replies


def read(payload: object) -> list[ChatReply] | Failure:
    return read_replies(json.dumps(payload).encode(), "application/json")


def one(message: object, **choice: object) -> ChatReply:
    replies = read({"choices": [{"message": message, **choice}]})
    assert isinstance(replies, list)
    (reply,) = replies
    return reply


def test_a_plain_reply() -> None:
    payload = {
        "choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}},
    }
    assert read(payload) == [ChatReply(text="yes", prompt_tokens=9, completion_tokens=2, cached_tokens=4)]


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_separate_reasoning_is_never_the_answer(field: str) -> None:
    reply = one({"content": "7", field: "<score>1</score>"})
    assert (reply.text, reply.reasoning) == ("7", "<score>1</score>")
    reply = one({"content": None, field: "<score>1</score>"})
    assert (reply.text, reply.reasoning) == ("", "<score>1</score>")
    assert reply.failure is not None


def test_content_in_parts_is_joined_and_other_parts_are_not_text() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "thinking", "text": "no"}, {"type": "text", "text": "b"}, 3]
    assert one({"content": parts}).text == "ab"
    assert one({"content": [{"type": "audio"}]}).failure is not None


def test_a_refusal_is_a_failure_of_that_sample_only() -> None:
    replies = read(
        {"choices": [{"message": {"content": None, "refusal": "I cannot"}}, {"message": {"content": "fine"}}, None]}
    )
    assert isinstance(replies, list)
    assert [reply.failure for reply in replies] == [
        "refusal: 'I cannot'",
        None,
        "no_message: an entry of 'choices' has no 'message'",
    ]


@pytest.mark.parametrize(
    ("body", "kind", "word"),
    [
        (b"<html>", "text/html", "html"),
        (b"  <!DOCTYPE HTML>", "application/json", "html"),
        (b"", "application/json", "bad_json"),
        (b'{"choices": [', "application/json", "bad_json"),
        (b"\xff\xfe\x00", "application/json", "bad_json"),
        (b"[" * 100_000, "application/json", "bad_json"),
        (b"9" * 10_000, "application/json", "bad_json"),
        (b"null", "application/json", "bad_json"),
        (b"[1]", "application/json", "bad_json"),
        (b"{}", "application/json", "no_choices"),
        (b'{"choices": "many"}', "application/json", "no_choices"),
        (b'{"choices": []}', "application/json", "empty_choices"),
        (b'{"error": {"message": "out of memory"}}', "application/json", "server_error"),
        (b'{"error": "overloaded", "choices": []}', "application/json", "server_error"),
    ],
)
def test_a_broken_body_is_named_and_worth_another_try(body: bytes, kind: str, word: str) -> None:
    failure = read_replies(body, kind)
    assert isinstance(failure, Failure)
    assert failure.word == word
    assert failure.retry
    assert len(str(failure)) < 500
    assert "\n" not in str(failure)


def test_lone_surrogates_do_not_get_through() -> None:
    reply = one({"content": "a\ud800b", "reasoning": "\udfff"})
    assert reply.text.encode("utf-8") == b"a?b"
    assert reply.reasoning.encode("utf-8") == b"?"


def test_logprobs() -> None:
    def reply(*entries: object) -> ChatReply:
        return one({"content": "x"}, logprobs={"content": list(entries)})

    good = {"token": "a", "logprob": 1e-6, "top_logprobs": [{"token": "b", "logprob": -3}, {"token": "c"}, 7]}
    assert reply(good).logprobs == (TokenLogprob(token="a", logprob=0.0, top=(("b", -3.0),)),)
    # One unreadable position would shift all that follow it, so none is given.
    assert reply(good, {"token": "a", "logprob": None}).logprobs is None
    assert reply({"token": "a", "logprob": float("nan")}).logprobs is None
    assert one({"content": "x"}, logprobs=None).logprobs is None


def test_counts_that_are_not_counts_are_left_out() -> None:
    for usage in (None, [], {"prompt_tokens": "9"}, {"prompt_tokens": -1}, {"prompt_tokens": True}):
        replies = read({"choices": [{"message": {"content": "x"}}], "usage": usage})
        assert replies == [ChatReply(text="x")]


def test_messages_of_errors_are_found() -> None:
    assert error_text({"error": {"message": "too long"}}) == "too long"
    assert (
        error_text({"detail": [{"loc": ["n"], "msg": "not allowed"}, {"msg": "nor this"}]}) == "not allowed; nor this"
    )
    deep: Any = "bottom"
    for _ in range(5000):
        deep = {"error": deep}
    assert error_text(deep)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
messages = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("content", "reasoning", "reasoning_content", "refusal"), json_values)
)
choices = st.fixed_dictionaries(
    {}, optional={"message": messages | json_values, "finish_reason": json_values, "logprobs": json_values}
)
payloads = st.fixed_dictionaries(
    {}, optional={"choices": st.lists(choices | json_values, max_size=3) | json_values, "usage": json_values}
)


@settings(max_examples=150, deadline=None)
@given(payloads | json_values)
def test_any_json_gives_replies_or_a_failure(payload: object) -> None:
    result = read(payload)
    if isinstance(result, Failure):
        assert result.word
    else:
        assert result
        for reply in result:
            assert reply.failure is None or reply.text == ""
            reply.text.encode("utf-8")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_give_replies_or_a_failure(body: bytes) -> None:
    assert read_replies(body, "application/json")


def test_large_hostile_bodies_are_read_quickly() -> None:
    started = time.process_time()
    for body in (b"{" * 2**20, b'{"a":' * 2**18, b'"' + b"\\" * 2**20, b"<" * 2**20, b" " * 2**20):
        read_replies(body, "text/html")
    assert time.process_time() - started < 2.0
