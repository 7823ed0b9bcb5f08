"""Makes control tokens in text harmless before the text reaches a server that would tokenise them as control.

A chat server tokenises the whole prompt, so `<|im_end|>` inside an instruction would end the turn. Nobody but the
server's tokenizer can encode it as plain text, so it is shown with a space after its bracket: readable, and no token.
"""

from __future__ import annotations

import re

__all__ = ["inert"]

#: Names of control tokens that are written like a tag, across the VLM families in use (Gemma, Llava, InternVL, Idefics,
#: SmolVLM, Pixtral, T5-like, sentencepiece). Tags that prompts and answers use, such as <score>, are not in it.
_TAG_NAMES = (
    "s|bos|eos|pad|unk|mask|cls|sep|sot|eot|turn|start_of_turn|end_of_turn|start_of_image|end_of_image|"
    "image_soft_token|image|image_start|image_end|img|IMG_CONTEXT|video|audio|global-img|fake_token_around_image|"
    r"end_of_utterance|row_\d{1,3}_col_\d{1,3}|extra_id_\d{1,4}|unused\d{1,4}|reserved_\d{1,4}|"
    "tool_call|tool_response|quad|ref|box"
)
#: `<|name|>` and its full-width spelling, tags, and bracketed control words. Every branch is bounded: linear time.
_CONTROL = re.compile(
    rf"[<\uff1c](?=[|\uff5c]|/?(?:{_TAG_NAMES})[>\uff1e])|[|\uff5c](?=[>\uff1e])"
    r"|\[(?=/?(?:INST|IMG|IMG_BREAK|IMG_END|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\])",
    re.IGNORECASE,
)


def inert(text: str) -> str:
    """Return `text` with a space inside every spelling of a control token: `<|im_end|>` -> `< |im_end| >`.

    Args:
        text: any text. Linear in its length. Lone surrogates, which no request can carry, become "?"; text without
            either comes back unchanged.
    """
    text = text.encode("utf-8", "replace").decode("utf-8")
    return _CONTROL.sub(r"\g<0> ", text)
