"""The expected score: arithmetic by hand on tokens as real tokenizers cut them, and a reason where there is none."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from editr1_plugins.backends.chat import TokenLogprob
from editr1_plugins.verifiers.expected import expected_score


def token(text: str, **probabilities: float) -> TokenLogprob:
    """A drawn token with its alternatives; `_` in a name stands for the drawn text itself."""
    top = tuple((name, math.log(p)) for name, p in probabilities.items())
    return TokenLogprob(token=text, logprob=math.log(probabilities.get(text, 1.0)), top=top)


def tokens(*middle: TokenLogprob) -> list[TokenLogprob]:
    begin = [token("Fine"), token(" <"), token("score"), token(">")]
    return [*begin, *middle, token("</"), token("score"), token(">"), token("<|im_end|>")]


def drawn(text: str, **more: float) -> TokenLogprob:
    return token(text, **more)


def test_one_digit_is_weighted_by_its_alternatives() -> None:
    seven = drawn("7", **{"7": 0.5, "8": 0.3, "2": 0.2})
    assert expected_score(tokens(seven), 7.0) == pytest.approx(0.5 * 7 + 0.3 * 8 + 0.2 * 2)


def test_what_spells_no_number_is_left_out_and_the_rest_renormalised() -> None:
    seven = drawn("7", **{"7": 0.4, "8": 0.4, "x": 0.1, "-": 0.1})
    assert expected_score(tokens(seven), 7.0) == pytest.approx(7.5)


def test_decimals_hang_on_the_digit_that_was_drawn() -> None:
    number = [drawn("7", **{"7": 0.8, "8": 0.2}), drawn(".", **{".": 1.0}), drawn("5", **{"5": 0.5, "0": 0.5})]
    assert expected_score(tokens(*number), 7.5) == pytest.approx(0.8 * 7.25 + 0.2 * 8)


def test_ten_in_two_tokens_and_the_one_that_might_have_become_ten() -> None:
    ten = [drawn("1", **{"1": 0.9, "9": 0.1}), drawn("0", **{"0": 0.8, ".": 0.1, "</": 0.1})]
    # "1" then "." or the closing tag is 1.
    assert expected_score(tokens(*ten), 10.0) == pytest.approx(0.9 * (0.8 * 10 + 0.2 * 1) + 0.1 * 9)
    one = [*tokens(drawn("1", **{"1": 1.0}))]
    one[5] = token("</", **{"</": 0.75, "0": 0.25})
    assert expected_score(one, 1.0) == pytest.approx(0.75 * 1 + 0.25 * 10)


def test_a_number_in_one_token_and_tokens_that_hold_the_bracket() -> None:
    assert expected_score(tokens(drawn("10", **{"10": 0.5, "9": 0.5})), 10.0) == pytest.approx(9.5)
    merged = [token("<score"), drawn(">7", **{">7": 0.5, ">8": 0.5}), token("</score>")]
    assert expected_score(merged, 7.0) == pytest.approx(7.5)


def test_numbers_above_ten_are_no_alternatives() -> None:
    assert expected_score(tokens(drawn("9", **{"9": 0.5, "95": 0.25, "11": 0.25})), 9.0) == pytest.approx(9.0)


def test_the_last_score_counts_not_the_first() -> None:
    draft = tokens(drawn("2", **{"2": 0.5, "3": 0.5}))[:-1]
    final = tokens(drawn("7", **{"7": 0.5, "8": 0.5}))
    assert expected_score([*draft, *final], 7.0) == pytest.approx(7.5)


@pytest.mark.parametrize(
    ("given_tokens", "score", "reason"),
    [
        (None, 7.0, "no_logprobs"),
        ((), 7.0, "no_logprobs"),
        (tokens(TokenLogprob(token="7", logprob=-0.1)), 7.0, "no_logprobs"),
        (tokens(drawn("7", **{"7": 1.0})), 6.0, "logprobs_without_score"),
        ([token("Final"), token(" 7")], 7.0, "logprobs_without_score"),
        (tokens(TokenLogprob(token="7", logprob=math.nan, top=(("8", -1.0),))), 7.0, "bad_logprobs"),
        (tokens(TokenLogprob(token="7", logprob=-math.inf)), 7.0, "bad_logprobs"),
    ],
)
def test_without_probabilities_there_is_a_reason(given_tokens: list[TokenLogprob], score: float, reason: str) -> None:
    assert expected_score(given_tokens, score) == reason


@given(
    st.lists(
        st.builds(
            TokenLogprob,
            token=st.sampled_from(["<score>", "</score>", "7", ".", "5", "10", "<", "score", ">", "", "x", " "]),
            logprob=st.floats(),
            top=st.lists(st.tuples(st.sampled_from(["7", "1", "", "0", "\u0667"]), st.floats()), max_size=3).map(tuple),
        ),
        max_size=8,
    ),
    st.floats(0, 10),
)
def test_whatever_comes_the_answer_is_in_range_or_a_reason(given_tokens: list[TokenLogprob], score: float) -> None:
    answer = expected_score(given_tokens, score)
    assert isinstance(answer, str) or 0.0 <= answer <= 10.0
