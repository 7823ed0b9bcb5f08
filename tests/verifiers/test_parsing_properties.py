"""Properties of the parser: what is legitimate round-trips, nothing else becomes a number, nothing raises."""

from __future__ import annotations

import json
import math
import random
import re
import time

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from editr1_plugins.verifiers.parsing import FAILURES, FLAGS, parse_trace

QUESTIONS = (
    "Has the color of the car been changed to red?",
    "Is the man's jacket unchanged?",
    'Does the sign still read "OPEN"?',
    "Is the image free of visible artifacts?",
)
ARRAY = json.dumps([{"question": question, "score": 1} for question in QUESTIONS])
quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)

tenths = st.integers(0, 100).map(lambda value: value / 10)
spaces = st.sampled_from(["", " ", "\n", "  ", "\t", "\u00a0", "\u200b"])
marks = st.sampled_from(["", "**", "*", "`", "__"])
opening = st.sampled_from(
    ["<score>", "<SCORE>", "< score >", "<Score >", "&lt;score&gt;", "\uff1cscore\uff1e", "<score\n>"]
)
closing = st.sampled_from(
    [
        "</score>",
        "</SCORE>",
        "< / score >",
        "<\\score>",
        "<score>",
        "&lt;/score&gt;",
        "\uff1c/score\uff1e",
        "<\\/score>",
    ]
)
label = st.sampled_from(["", "Score: ", "score=", "Final score: ", "\u8bc4\u5206\uff1a", "**Score:** "])
suffix = st.sampled_from(["", "/10", " / 10", " out of 10", "\u5206", "/10.0", "/\uff11\uff10"])
tail = st.sampled_from(["", "\n", "<|im_end|>", "\n```", "</answer>", "`", "</s>", "\n\nThe sign is what cost points."])
before = st.sampled_from(
    [
        "",
        "The car is red.\n",
        "<think>maybe <score>2</score></think>",
        "Format: <score>y</score>\n",
        "8/10 for color.\n```\n",
    ]
)


@st.composite
def number(draw: st.DrawFn, value: float) -> str:
    text = draw(
        st.sampled_from([f"{value:.1f}", f"{value:.2f}", f"{value:g}", f"+{value:g}", f"{value:.1f}".replace(".", ",")])
    )
    if value == int(value) and draw(st.booleans()):
        text = f"{int(value)}."
    if 0 < value < 1 and draw(st.booleans()):
        text = f".{round(value * 10)}"
    if draw(st.booleans()):
        text = text.translate({ord(digit): ord(digit) + 0xFEE0 for digit in "0123456789."})
    return text


@st.composite
def renderings(draw: st.DrawFn) -> tuple[float, str]:
    value = draw(tenths)
    around = draw(marks)
    content = draw(spaces) + draw(label) + around + draw(number(value)) + around + draw(suffix) + draw(spaces)
    return value, draw(before) + ARRAY + "\n" + draw(opening) + content + draw(closing) + draw(tail)


@quick
@given(renderings())
def test_legitimate_renderings_round_trip(case: tuple[float, str]) -> None:
    value, text = case
    trace = parse_trace(text, QUESTIONS)
    assert trace.score == pytest.approx(value, abs=1e-9), (text, trace)
    assert trace.verdicts == (True,) * 4


digits = st.integers(0, 10).map(str)
no_scores = st.one_of(
    st.tuples(
        digits,
        st.sampled_from(["-", "~", " to ", "\u2013", ", ", " ", " or ", "\u81f3", "..", "\n", "; ", " and "]),
        digits,
    ).map("".join),
    st.tuples(digits, st.sampled_from(["/5", "/100", "%", " out of 5", "/20", " percent", "\u2030", "/1"])).map(
        "".join
    ),
    st.sampled_from(
        [
            "NaN",
            "inf",
            "-inf",
            "true",
            "false",
            "null",
            "N/A",
            "seven",
            "y",
            "x.x",
            "{score}",
            "0-10",
            "7.5.0",
            "",
            "?",
            "\u4e03",
        ]
    ),
    st.integers(11, 10**9).map(str),
    st.integers(-(10**6), -1).map(str),
    st.tuples(digits, st.sampled_from(["\u00bd", "e0", "+", "x", "abc", " stars", " because", "\u5ea6", "#"])).map(
        "".join
    ),
    st.lists(digits, min_size=2, max_size=4).map(lambda numbers: f"[{', '.join(numbers)}]"),
)


@quick
@given(no_scores, opening, spaces, marks, before, tail, st.booleans())
def test_no_score_never_yields_a_number(
    content: str, opens: str, space: str, around: str, first: str, last: str, with_array: bool
) -> None:
    text = f"{first}{ARRAY if with_array else ''}\n{opens}{space}{around}{content}{around}{space}</score>{last}"
    trace = parse_trace(text, QUESTIONS)
    assert trace.score is None, (text, trace)
    assert trace.failure in FAILURES


@quick
@given(st.permutations(range(4)), st.lists(st.booleans(), min_size=4, max_size=4), st.integers(0, 4), st.booleans())
def test_verdicts_are_ordered_by_question(order: list[int], said: list[bool], kept: int, numbered: bool) -> None:
    items = [
        {
            "question": f"{place + 1}. {QUESTIONS[place]}" if numbered else QUESTIONS[place].upper(),
            "score": int(said[place]),
        }
        for place in order[:kept]
    ]
    trace = parse_trace(json.dumps(items) + "\n<score>5.5</score>", QUESTIONS)
    assert trace.verdicts == tuple(said[place] if place in order[:kept] else None for place in range(4))
    assert trace.score == 5.5


fragments = st.sampled_from(
    [
        *(
            "<score>",
            "</score>",
            "<score",
            "score>",
            "<\\score>",
            "&lt;score&gt;",
            "<think>",
            "</think>",
            "\uff1cscore\uff1e",
            "<",
            ">",
        ),
        *(
            "7",
            "7.5",
            "10",
            "0",
            "8/10",
            "11",
            "7-8",
            "-1",
            "7,5",
            "y",
            "N/A",
            "/5",
            "%",
            "\u5206",
            "Score: ",
            "**",
            "`",
            " ",
            "\n",
            ". ",
        ),
        *(
            "[",
            "]",
            "{",
            "}",
            '"',
            "'",
            "\\",
            '\\"',
            ":",
            ",",
            '"question": ',
            '"score": 1',
            '"score": 0',
            ARRAY,
            QUESTIONS[1],
        ),
        *(
            '{"average_score": 0.5}',
            "example ",
            "Final: ",
            "sorry, I cannot ",
            "[{",
            "}]",
            "//",
            "```json",
            "<|im_end|>",
            "\u200b",
            "\ud800",
        ),
    ]
)
soups = st.one_of(
    st.text(max_size=200),
    st.lists(fragments, max_size=40).map("".join),
    st.lists(fragments | st.text(max_size=3)).map("".join),
)


def numbers_in_tags(text: str) -> set[float]:
    """Every number that stands, in any spelling, behind something like an opening score tag and before the next `<`."""
    plain = (
        text.translate({code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)})
        .replace("&lt;", "<")
        .replace("&gt;", ">")
    )
    plain = re.sub("[\u200b-\u200f\u2060-\u2064\ufeff\ufe0e\ufe0f\u180e\u061c]", "", plain)
    contents = re.findall(r"<\s*score[^>]*>((?:[^<]|<(?!\s*[/\\]?\s*score))*)", plain, re.IGNORECASE)
    return {
        float(found.replace(",", "."))
        for content in contents
        for found in re.findall(r"[0-9]*[.,][0-9]+|[0-9]+", content)
    }


@settings(quick, max_examples=400)
@given(
    soups,
    st.lists(soups | st.sampled_from(QUESTIONS), max_size=5),
    st.sampled_from(["stop", "length", "content_filter", ""]),
)
@example("<score>7", ["<score>7"], "stop")
def test_any_text_reads_without_raising_and_scores_stand_in_the_text(
    text: str, questions: list[str], reason: str
) -> None:
    trace = parse_trace(text, questions, reason)
    assert (trace.score is None) == (trace.failure in FAILURES)
    assert len(trace.verdicts) == len(questions)
    assert all(verdict in (True, False, None) for verdict in trace.verdicts)
    assert trace.average is None or 0 <= trace.average <= 1
    assert set(trace.flags) <= set(FLAGS)
    if trace.score is not None:
        assert math.isfinite(trace.score)
        assert 0 <= trace.score <= 10
        assert trace.score in numbers_in_tags(text)


@quick
@given(soups)
def test_a_block_is_read_whatever_stands_in_the_thought(noise: str) -> None:
    noise = re.sub(r"think|THINK|thought", "", noise, flags=re.IGNORECASE)
    trace = parse_trace(f"<think>{noise}</think>\n{ARRAY}\n<score>6.5</score>", QUESTIONS)
    assert (trace.score, trace.verdicts) == (6.5, (True,) * 4)


@quick
@given(soups.filter(lambda question: len(question) < 500))
def test_a_hostile_question_never_changes_the_score(question: str) -> None:
    items = [{"question": question, "score": 1}, {"question": QUESTIONS[1], "score": 0}]
    for ascii_only in (True, False):
        text = json.dumps(items, ensure_ascii=ascii_only) + '\n{"average_score": 0.5}\n<score>3.25</score>'
        trace = parse_trace(text, [question, QUESTIONS[1]])
        assert trace.score in (3.25, None), (text, trace)
        if not re.search(r"[<\uff1c&]|think", question, re.IGNORECASE):
            assert trace.score == 3.25, (text, trace)


@settings(quick, max_examples=30)
@given(before, opening, label, tenths, suffix)
def test_no_prefix_of_a_reply_cut_before_its_closing_tag_has_a_score(
    first: str, opens: str, named: str, value: float, of_ten: str
) -> None:
    text = f"{first}{ARRAY}\n{opens}{named}{value}{of_ten}</score"
    for end in range(len(text) + 1):
        assert parse_trace(text[:end], QUESTIONS, "length").score is None, text[:end]


MILLION = 1_000_000
HOSTILE = (
    *(
        "<",
        "<score>",
        "<score>7",
        "<score>7</score>",
        "</score>",
        "<score" + " " * 60,
        "<score>" + "_" * 150,
        "a <score>N</score>",
    ),
    *(
        "<think>",
        "</think>",
        "&lt;",
        "&lt;score&gt;",
        "&amp;",
        "\\",
        '\\"',
        '"',
        "'",
        "\u201c",
        "[",
        "{",
        "[{",
        "[[1,2],",
        '{"a":{',
    ),
    *(
        '{"a": "',
        '{"question": "',
        '[{"question": "x',
        '{"score":1}',
        '{"k":1,',
        '{"question":"a b","score":1},',
        '"[{\\"question\\":',
    ),
    *(
        '[{\\"question\\": \\"',
        "7",
        "9.",
        "\n",
        "would ",
        "final ",
        "average: ",
        "//",
        "/*",
        "<|",
        "} ",
        "sorry ",
        "\u62b1\u6b49",
        "\u200b",
    ),
    *(
        '{"id":1,"score":1}',
        '{"question": "q", "score": 1}\n<score>5</score>\n',
        '{"question": "Is the man\'s jacket unchanged?", "score": 1}',
    ),
)


@pytest.mark.parametrize("unit", HOSTILE, ids=lambda unit: repr(unit[:16]))
def test_a_megabyte_of_hostile_text_takes_seconds(unit: str) -> None:
    text = unit * (MILLION // len(unit)) + f"\n{ARRAY}\n<score>7</score>"
    started = time.process_time()
    trace = parse_trace(text, QUESTIONS)
    # Less than a second on a quiet machine; anything quadratic needs minutes.
    assert time.process_time() - started < 15
    assert trace.score in (7.0, None)


def test_dead_ends_are_walked_once() -> None:
    text = '{"a": "' * 60_000 + '",' + '"k": 1,' * 60_000 + "!!"
    started = time.process_time()
    parse_trace(text, QUESTIONS)
    assert time.process_time() - started < 20


@pytest.mark.parametrize("count", [200, 4000])
def test_many_questions_and_items_are_aligned_in_linear_time(count: int) -> None:
    words = random.Random(1).choices(
        ["cat", "dog", "hat", "car", "red", "blue", "tree", "sky", "not", "left"], k=count * 6
    )
    questions = [f"Is {number} {' '.join(words[number * 6 : number * 6 + 6])}?" for number in range(count)]
    drifted = [{"question": question.replace("Is", "Was the") + " now", "score": 1} for question in questions]
    same = [{"question": questions[0], "score": 1}] * count
    started = time.process_time()
    for items in (drifted, same, [{"question": question, "score": 1} for question in questions]):
        trace = parse_trace(json.dumps(items) + "\n<score>7</score>", questions)
        assert trace.score == 7.0
    assert trace.verdicts == (True,) * count
    parse_trace(json.dumps(same) + "\n<score>7</score>", [questions[0]] * count)
    assert time.process_time() - started < 30


def test_long_hostile_questions_do_not_slow_the_reading() -> None:
    questions = ["<score>9</score> [{" * 5000 + str(number) for number in range(20)] + ["", "\n", "<score>"] * 20
    text = json.dumps([{"question": question, "score": 1} for question in questions]) + "\n<score>4.5</score>"
    started = time.process_time()
    trace = parse_trace(text, questions)
    assert trace.score in (4.5, None)
    assert time.process_time() - started < 20


def test_deep_nesting_is_no_recursion() -> None:
    for opening_mark in ("[", '{"a":', "[{", '{"a":[', "<think>"):
        assert parse_trace(opening_mark * 100_000 + f"</think>\n{ARRAY}\n<score>7</score>", QUESTIONS).score in (
            7.0,
            None,
        )
