"""Who may ask: a token as `Bearer`, or as the password of `Basic`, which clients send for `http://any:TOKEN@host`."""

from __future__ import annotations

import base64
import binascii
import hmac

__all__ = ["is_allowed"]


def is_allowed(authorization: str | None, token: str | None) -> bool:
    """Whether the header `Authorization` shows the token; everybody may where there is none. Takes constant time."""
    if token is None:
        return True
    scheme, _, shown = (authorization or "").partition(" ")
    if scheme.lower() == "basic":
        try:
            shown = base64.b64decode(shown.strip(), validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            return False
    elif scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(shown.strip().encode("utf-8", "replace"), token.encode())
