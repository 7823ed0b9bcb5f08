"""No control token may arise from text; everything else must arrive unchanged."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from editr1_plugins.backends.control_tokens import inert

TOKENS = [
    *("<|im_start|>", "<|im_end|>", "<|image_pad|>", "<|vision_start|>", "<|endoftext|>", "<|eot_id|>"),
    *("<s>", "</s>", "<bos>", "<pad>", "<image>", "<start_of_turn>", "<end_of_turn>", "<image_soft_token>"),
    *("<img>", "</img>", "<IMG_CONTEXT>", "<fake_token_around_image>", "<row_1_col_2>", "<global-img>"),
    *("[INST]", "[/INST]", "[IMG]", "[IMG_END]", "<tool_call>", "</tool_call>"),
    *("<\uff5cbegin\u2581of\u2581sentence\uff5c>", "<\uff5cUser\uff5c>", "\uff1c\uff5cim_end\uff5c\uff1e"),
]


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("around", ["{}", "make it{}red", "<{}>", "<|{}|>", "{0}{0}"])
def test_every_family_of_control_tokens_is_broken_up(token: str, around: str) -> None:
    text = around.format(token)
    made = inert(text)
    assert token not in made
    assert made.replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize(
    "text",
    [
        "Make the car red, 10 < 20 | 30 > 20.",
        "<score>7.5</score>",
        '[{"question": "Is it <b>bold</b>?", "score": 1}]',
        "<think>no control</think>",
        "a[0] [1] [INSTALL]",
        "\u628a\u8f66\u6539\u6210\u7ea2\u8272 <3 |x|",
        "",
    ],
)
def test_ordinary_text_is_unchanged(text: str) -> None:
    assert inert(text) == text


@given(st.text(alphabet="<|>/ims_end[]INST \uff5c\uff1c\uff1e", max_size=60))
def test_nothing_is_left_after_one_pass(text: str) -> None:
    made = inert(text)
    assert inert(made) == made
    assert made.replace(" ", "") == text.replace(" ", "")
    assert "<|" not in made


@pytest.mark.parametrize("unit", ["<", "<|", "<row_1", "[", "|>", "</", "<extra_id_1"])
def test_it_is_linear_in_hostile_text(unit: str) -> None:
    def seconds(length: int) -> float:
        text = unit * (length // len(unit))
        started = time.process_time()
        inert(text)
        return time.process_time() - started

    # Eight times the text: linear is 8 times the time, quadratic 64; the small constant is for the clock.
    assert seconds(2**15) < 24 * seconds(2**12) + 0.05


def test_lone_surrogates_become_question_marks() -> None:
    assert inert("a\ud800b") == "a?b"
