"""A score tag's content: a number in 0..10 or the word for why it is none."""

from __future__ import annotations

import pytest

from editr1_plugins.verifiers._score import foreign_scale, is_placeholder, read_score

NUMBERS = {
    "7.5": 7.5,
    " 7.5 ": 7.5,
    "\n7.5\n": 7.5,
    "0": 0.0,
    "0.0": 0.0,
    "-0": 0.0,
    "10": 10.0,
    "10.0": 10.0,
    ".5": 0.5,
    "7.": 7.0,
    "+7.5": 7.5,
    "7,5": 7.5,
    "7,25": 7.25,
    "10,0": 10.0,
    "**7.5**": 7.5,
    "*7.5*": 7.5,
    "__7.5__": 7.5,
    "`7.5`": 7.5,
    '"7.5"': 7.5,
    "Score: 7.5": 7.5,
    "score = 7.5": 7.5,
    "**Score:** 7.5": 7.5,
    "Final score: **7.5**": 7.5,
    "The final score is 7.5": 7.5,
    "Final Score: 8.5/10": 8.5,
    "Score (0-10): 7.5": 7.5,
    "Final score (out of 10): 7.5": 7.5,
    "y = 6": 6.0,
    "评分:7.5": 7.5,
    "最终得分: 8": 8.0,
    "8/10": 8.0,
    "8 / 10": 8.0,
    "8.5/10.0": 8.5,
    "**8**/10": 8.0,
    "10/10": 10.0,
    "0/10": 0.0,
    "7.5 out of 10": 7.5,
    "7.5 (out of 10)": 7.5,
    "8分": 8.0,
    "8.5 分": 8.5,
    "8分/10分": 8.0,
    "8分(满分10分)": 8.0,
    "7.5 points": 7.5,
    "7.5.": 7.5,
    "8/10.": 8.0,
}

FAILURES = {
    "": "not_a_number",
    "   ": "not_a_number",
    "NaN": "not_a_number",
    "nan": "not_a_number",
    "inf": "not_a_number",
    "Infinity": "not_a_number",
    "-inf": "not_a_number",
    "true": "not_a_number",
    "null": "not_a_number",
    "N/A": "not_a_number",
    "n/a": "not_a_number",
    "none": "not_a_number",
    "seven": "not_a_number",
    "七": "not_a_number",
    "high": "not_a_number",
    "7.5.0": "not_a_number",
    "7..5": "not_a_number",
    "7½": "not_a_number",
    "7e0": "not_a_number",
    "1e1": "not_a_number",
    "\u0667": "not_a_number",
    "about 7": "not_a_number",
    "~7": "not_a_number",
    "~~7~~": "not_a_number",
    ">7": "not_a_number",
    "7+": "not_a_number",
    "7.5 because the hat is blue": "not_a_number",
    "8/": "not_a_number",
    "07.5": "not_a_number",
    "0x7": "ambiguous",
    "7·5": "ambiguous",
    "-1": "out_of_range",
    "-0.5": "out_of_range",
    "\u22121": "out_of_range",
    "11": "out_of_range",
    "10.01": "out_of_range",
    "10.00000000000000000001": "out_of_range",
    "75": "out_of_range",
    "100": "out_of_range",
    "12/10": "out_of_range",
    "score: -1": "out_of_range",
    "9" * 21: "not_a_number",
    "4/5": "out_of_scale",
    "4 / 5": "out_of_scale",
    "4 out of 5": "out_of_scale",
    "**4**/5": "out_of_scale",
    "80/100": "out_of_scale",
    "4分(满分5分)": "out_of_scale",
    "75%": "out_of_scale",
    "7.5 %": "out_of_scale",
    "75 percent": "out_of_scale",
    "7/8": "out_of_scale",
    "7-8": "ambiguous",
    "7 - 8": "ambiguous",
    "7\u20138": "ambiguous",
    "7 to 8": "ambiguous",
    "7~8": "ambiguous",
    "7至8": "ambiguous",
    "7 or 8": "ambiguous",
    "between 7 and 8": "ambiguous",
    "7, 8": "ambiguous",
    "7 8": "ambiguous",
    "7\n8": "ambiguous",
    "1*0": "ambiguous",
    "7,500": "ambiguous",
    "8,10": "ambiguous",
    "7\uff0c5": "ambiguous",
    "7、5": "ambiguous",
    "[7, 8]": "ambiguous",
    "[7.5]": "ambiguous",
    "7,5,3": "ambiguous",
    "7. 5": "ambiguous",
    "score: 7-8": "ambiguous",
    "Score (1-5): 4": "ambiguous",
    "Score (0-10)": "format_echo",
    "8/10, 9/10": "ambiguous",
    "y": "format_echo",
    "X": "format_echo",
    "X.X": "format_echo",
    "x.xx": "format_echo",
    "{score}": "format_echo",
    "{{score}}": "format_echo",
    "[score]": "format_echo",
    "YOUR_SCORE": "format_echo",
    "your score here": "format_echo",
    "final_score": "format_echo",
    "number": "format_echo",
    "...": "format_echo",
    "0-10": "format_echo",
    "[0-10]": "format_echo",
    "0.0-10.0": "format_echo",
    "0 to 10": "format_echo",
    "0~10": "format_echo",
    "a number from 0 to 10": "format_echo",
    "number between 0 and 10": "format_echo",
    "0到10之间的数字": "format_echo",
    "X/10": "format_echo",
    "分数": "format_echo",
}


@pytest.mark.parametrize(("content", "score"), NUMBERS.items())
def test_reads_what_is_clearly_one_number(content: str, score: float) -> None:
    assert read_score(content) == score


@pytest.mark.parametrize(("content", "word"), FAILURES.items())
def test_refuses_with_a_reason(content: str, word: str) -> None:
    assert read_score(content) == word


def test_long_contents_are_prose() -> None:
    assert read_score("7" + " " * 500 + "x") == "not_a_number"
    assert read_score("score " * 50 + "7") == "not_a_number"


def test_a_scale_beside_the_tag_is_seen() -> None:
    assert foreign_scale("Score (1-5): ", "")
    assert foreign_scale("Score out of 100: ", "")
    assert foreign_scale("评分(满分5分): ", "")
    assert foreign_scale("", "/5")
    assert foreign_scale("", " out of 5")
    assert foreign_scale("", "%")
    assert not foreign_scale("Score (0-10): ", "/10")
    assert not foreign_scale("**Final score:** ", "\n")
    assert not foreign_scale("I counted 3/5 leaves. ", "")


@pytest.mark.parametrize("content", ["7", "7.5", "10", "0", "7-8", "N/A"])
def test_numbers_and_words_are_no_placeholders(content: str) -> None:
    assert not is_placeholder(content)
