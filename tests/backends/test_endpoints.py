"""Addresses without secrets, and who gets a request."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest

import editr1_plugins.backends.endpoints as module
from editr1_plugins.backends.endpoints import Endpoint, EndpointPool, parse_address, split_spec
from editr1_plugins.errors import ConfigError


def pool(count: int) -> tuple[EndpointPool, list[Endpoint]]:
    endpoints = [Endpoint(parse_address(f"http://host{number}:8000/v1"), None) for number in range(count)]
    return EndpointPool(endpoints), endpoints


@pytest.mark.parametrize(
    ("given", "url", "shown"),
    [
        ("http://host:8000/v1", "http://host:8000/v1", "http://host:8000/v1"),
        (" https://Host/v1/ ", "https://host/v1", "https://host/v1"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1", "http://[::1]:8000/v1"),
        ("https://user:pass@host/v1", "https://host/v1", "https://***@host/v1"),
        ("https://token@host", "https://host", "https://***@host"),
    ],
)
def test_addresses(given: str, url: str, shown: str) -> None:
    address = parse_address(given)
    assert (address.url, address.shown) == (url, shown)
    assert "pass" not in repr(address)


@pytest.mark.parametrize("wrong", ["", "host/v1", "ftp://host", "http:///v1", "http://[::1", "file:///etc/passwd"])
def test_what_is_no_address(wrong: str) -> None:
    with pytest.raises(ConfigError):
        parse_address(wrong)


def test_losing_an_endpoint_moves_only_its_own_groups() -> None:
    endpoints, members = pool(4)
    groups = [f"group {number}" for number in range(400)]
    before = {group: endpoints.choose(group) for group in groups}
    share = Counter(id(endpoint) for endpoint in before.values())
    assert min(share.values()) > 60
    members[2].note_refused()
    for group in groups:
        after = endpoints.choose(group)
        assert after is not members[2]
        if before[group] is not members[2]:
            assert after is before[group]
    members[2].note_reply()
    assert {group: endpoints.choose(group) for group in groups} == before


def test_the_least_busy_serves_what_has_no_group() -> None:
    endpoints, members = pool(3)
    members[0].in_flight, members[1].in_flight, members[2].in_flight = 2, 1, 3
    assert endpoints.choose("") is members[1]
    assert endpoints.choose("", avoid=[members[1]]) is members[0]
    assert endpoints.choose("", avoid=members) is members[1]


def test_when_all_are_down_one_is_still_asked_but_not_a_hung_one() -> None:
    endpoints, members = pool(2)
    for _ in range(module._STALL_LIMIT):
        members[0].note_timeout()
    members[1].note_refused()
    assert members[0].is_hung
    assert not members[1].is_hung
    assert endpoints.choose("") is members[1]
    assert not endpoints.has_fresh([])


def test_a_refusal_is_forgotten_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    _, (endpoint,) = pool(1)
    endpoint.note_refused()
    assert not endpoint.is_up
    later = time.monotonic() + module._COOL_DOWN
    monkeypatch.setattr(module.time, "monotonic", lambda: later)
    assert endpoint.is_up


def test_one_reply_clears_a_row_of_timeouts() -> None:
    _, (endpoint,) = pool(1)
    for _ in range(module._STALL_LIMIT - 1):
        endpoint.note_timeout()
    endpoint.note_reply()
    endpoint.note_timeout()
    assert endpoint.is_up


def test_an_endpoint_that_asks_to_wait_yields_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoints, _ = pool(2)
    first = endpoints.choose("group")
    first.note_wait(60.0)
    second = endpoints.choose("group")
    assert second is not first
    started = time.monotonic()
    second.note_wait(0.2)
    asyncio.run(second.wait_for_permission())
    assert 0.2 <= time.monotonic() - started < 60.0
    later = time.monotonic() + 60.0
    monkeypatch.setattr(module.time, "monotonic", lambda: later)
    assert endpoints.choose("group") is first


@pytest.mark.parametrize(
    ("argument", "model", "urls"),
    [
        ("judge@http://h:1/v1", "judge", ("http://h:1/v1",)),
        ("Qwen/Qwen2.5-VL-7B-Instruct@https://h/v1", "Qwen/Qwen2.5-VL-7B-Instruct", ("https://h/v1",)),
        ("org/model@revision@http://h/v1,http://i/v1", "org/model@revision", ("http://h/v1", "http://i/v1")),
        ("m@http://user:p@ss@h/v1", "m", ("http://user:p@ss@h/v1",)),
        ("/models/tiny vlm@http://h/v1, http://i/v1 ", "/models/tiny vlm", ("http://h/v1", "http://i/v1")),
    ],
)
def test_specs(argument: str, model: str, urls: tuple[str, ...]) -> None:
    assert split_spec(argument) == (model, urls)


@pytest.mark.parametrize(
    ("argument", "missing"),
    [("judge", "URL"), ("judge@host:8000", "URL"), ("http://secret@h/v1", "model"), ("@http://h/v1", "model")],
)
def test_incomplete_specs_say_what_is_missing_and_quote_nothing(argument: str, missing: str) -> None:
    with pytest.raises(ConfigError, match=f"the {missing} is missing; write MODEL@URL") as caught:
        split_spec(argument)
    assert "secret" not in str(caught.value)
