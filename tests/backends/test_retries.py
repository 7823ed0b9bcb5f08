"""When to try again, and what to say when not."""

from __future__ import annotations

import statistics
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest

from editr1_plugins.backends.retries import MAX_WAIT, backoff, read_error, retry_after


def test_retry_after_in_all_spellings() -> None:
    assert retry_after({}) is None
    assert retry_after({"retry-after": "7"}) == 7.0
    assert retry_after({"retry-after": "1.5"}) == 1.5
    assert retry_after({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    assert retry_after({"retry-after": "-3"}) == 0.0
    for nonsense in ("soon", "", "nan", "inf", "Wed, 99 Foo", "1e999"):
        assert retry_after({"retry-after": nonsense}) is None


def test_retry_after_as_a_date() -> None:
    moment = datetime.now(timezone.utc) + timedelta(seconds=30)
    wait = retry_after({"retry-after": format_datetime(moment, usegmt=True)})
    assert wait is not None
    assert 27.0 < wait <= 30.0
    past = format_datetime(moment - timedelta(days=1))
    assert retry_after({"retry-after": past}) == 0.0


def test_backoff_doubles_with_jitter_up_to_a_limit() -> None:
    for attempt, most in ((0, 0.5), (1, 1.0), (4, 8.0), (5, 8.0), (10_000, 8.0)):
        delays = [backoff(attempt) for _ in range(200)]
        assert most / 2 <= min(delays) < max(delays) <= most
        assert statistics.stdev(delays) > 0.05 * most


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_passing_troubles_are_tried_again(status: int) -> None:
    assert read_error(status, {}, b"").retry
    assert read_error(status, {"retry-after": "3"}, b"").wait == 3.0
    assert not read_error(status, {"retry-after": str(MAX_WAIT + 1)}, b"").retry


@pytest.mark.parametrize("status", [301, 307, 400, 401, 403, 404, 405, 410, 413, 414, 415, 422, 451])
def test_lasting_troubles_are_not(status: int) -> None:
    failure = read_error(status, {"retry-after": "3"}, b'{"error": {"message": "because"}}')
    assert not failure.retry
    assert str(status) in failure.detail


def test_the_server_is_quoted_except_about_keys() -> None:
    body = b'{"error": {"message": "max_model_len is 4096"}}'
    assert "max_model_len is 4096" in str(read_error(400, {}, body))
    assert "max_model_len" not in str(read_error(401, {}, body))
    assert len(str(read_error(500, {}, b"x" * 100_000))) < 500
