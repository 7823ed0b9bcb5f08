"""Which HTTP answers are worth another try, after how long, and what to tell the user about the others."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

from editr1_plugins.backends.replies import Failure, error_text, quote

__all__ = ["MAX_WAIT", "backoff", "read_error", "retry_after"]

#: Longest Retry-After that is waited for, in seconds; a server that asks for more gets no second request.
MAX_WAIT = 120.0
_FIRST_BACKOFF = 0.5
_LAST_BACKOFF = 8.0

#: status: (word, what to do)
_FIXES = {
    400: (
        "bad_request",
        "check the model's name and context length; a field it does not know is dropped by extra_body={field: None}",
    ),
    401: ("unauthorized", "pass api_key=... or set EDITR1_API_KEY (keys are not carried in pickles)"),
    403: ("forbidden", "this key may not use the model; ask the server's owner or use another key"),
    404: ("not_found", "check the model's name against GET /models, and that base_url ends in /v1"),
    405: ("not_found", "base_url is not a chat API; it usually ends in /v1"),
    413: ("too_large", "the images are too large for the server: send smaller ones or raise its body limit"),
    422: ("unprocessable", "is it a vision model? a field it does not know is dropped by extra_body={field: None}"),
}
_RETRIED = frozenset({408, 409, 425, 429})


def read_error(status: int, headers: Mapping[str, str], body: bytes) -> Failure:
    """Turn an HTTP status outside 2xx into a `Failure`."""
    if 300 <= status < 400:
        return Failure(word="redirect", detail=f"status {status}: redirects are not followed; name the final base_url")
    wait = retry_after(headers)
    # What a server says about a rejected key may quote the key, so it is left out.
    said = "" if status in (401, 403) else f": {quote(_message(body))}"
    if status in _RETRIED or status >= 500:
        word = "rate_limited" if status == 429 else "server_error"
        if wait is not None and wait > MAX_WAIT:
            detail = f"status {status}: the server asks to wait {wait:.0f} s, more than {MAX_WAIT:.0f} s{said}"
            return Failure(word=word, detail=detail)
        return Failure(word=word, detail=f"status {status}{said}", retry=True, wait=wait)
    word, fix = _FIXES.get(status, ("bad_request", "the server refuses the request"))
    return Failure(word=word, detail=f"status {status}: {fix}{said}", field=_refused_field(body))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds a server asks to wait (`retry-after-ms`, `Retry-After` in seconds or as a date); None when it does not.

    Args:
        headers: response headers, looked up case-insensitively by the mapping itself.
    """
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * scale
        except ValueError:
            continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    try:
        moment = parsedate_to_datetime(headers.get("retry-after", ""))
    except (TypeError, ValueError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return max(0.0, (moment - datetime.now(timezone.utc)).total_seconds())


def backoff(attempt: int) -> float:
    """Seconds before attempt + 1 (attempt counts from 0): doubling from 0.5 to 8 s, of which a random half to all."""
    return min(_LAST_BACKOFF, _FIRST_BACKOFF * 2.0 ** min(attempt, 10)) * random.uniform(0.5, 1.0)


def _refused_field(body: bytes) -> str | None:
    """`error.param`, with which OpenAI names the field it refuses."""
    try:
        error = json.loads(body)["error"]
        return str(error["param"]) if error["param"] else None
    except (ValueError, RecursionError, LookupError, TypeError):
        return None


def _message(body: bytes) -> str:
    try:
        return error_text(json.loads(body))
    except (ValueError, RecursionError):
        return body[:1000].decode("utf-8", "replace")
