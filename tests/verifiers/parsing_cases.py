# ruff: noqa: E501, RUF001 - replies are shown on one line each, in the letters judges use
"""Replies as judges write them, with what the contract of the parser asks for; written from the contract alone.

Each case: name, text, and what is expected. `score` is a number or a tuple of the failure words that fit. `verdicts` is
a string, one character per question: `1`, `0`, or `-` for None; left out where a case is not about them.
"""

from __future__ import annotations

import json
from typing import Any

QUESTIONS = (
    "Has the color of the car been changed to red?",
    "Is the man's jacket unchanged?",
    'Does the sign still read "OPEN"?',
    "Is the image free of visible artifacts?",
)
CASES: list[dict[str, Any]] = []


def case(name: str, text: str, score: object, verdicts: str | None = None, **more: Any) -> None:
    CASES.append({"name": name, "text": text, "score": score, "verdicts": verdicts, **more})


def array(values: str = "1101", questions: tuple[str, ...] = QUESTIONS) -> str:
    return json.dumps([{"question": q, "score": int(v)} for q, v in zip(questions, values, strict=True)])


def block(score: str = "<score>7.5</score>", values: str = "1101", average: str = '{"average_score": 0.75}') -> str:
    return f"{array(values)}\n{average}\n{score}"


OTHER = tuple(f"Is the {thing} kept in the picture of the kitchen?" for thing in ("table", "lamp", "window"))
EXAMPLE = array("101", OTHER) + '\n{"average_score": 0.67}\n<score>8.5</score>'

# --- plain, and thoughts
case("plain block", block(), 7.5, "1101", flags=())
case("reasoning before", "The car is red now. The sign reads 'CLOSED'.\n\n" + block(), 7.5, "1101", flags=())
case("thought closed", "<think>The car is red. <score>3</score></think>\n" + block(), 7.5, "1101")
case("bare closing thought", "The car is red, maybe <score>9</score>?\n</think>\n\n" + block(), 7.5, "1101")
case(
    "bare closing thought with a draft block",
    block("<score>2</score>", "0000", "") + "</think>\n" + block(),
    7.5,
    "1101",
)
case("thought never closed, block at the end", "<think>Let me see.\nThe car is red.\n" + block(), 7.5, "1101")
case("thought never closed, im_end after the block", "<think>Let me see.\n" + block() + "<|im_end|>", 7.5)
case(
    "thought never closed, prose after the block",
    "<think>Let me see.\n" + block() + "\nHmm, wait, the sign.",
    ("no_score", "truncated"),
    "----",
)
case("thought never closed, cut", "<think>Let me see.\n" + block(), ("truncated",), "----", finish_reason="length")
case(
    "thought never closed, cut in the middle",
    "<think>I would say <score>6</score> but",
    ("truncated",),
    finish_reason="length",
)
case("thought never closed, lone tag", "<think>I would say\n<score>6</score>", ("no_score", "truncated"))
case("all in the thought", "<think>" + block() + "</think>", ("no_score", "empty"), "----")
case(
    "thought closed, then nothing, cut",
    "<think>ok</think>\n",
    ("truncated", "no_score", "empty"),
    finish_reason="length",
)
case(
    "nested thoughts", "<think>a <think>b <score>1</score></think> c <score>2</score></think>\n" + block(), 7.5, "1101"
)
case("thought in capitals", "<THINK>x <score>1</score></THINK>" + block(), 7.5)
case("thought in mixed case with spaces", "< Think >x <score>1</score>< /think >" + block(), 7.5)
case("two thoughts", "<think>a</think>Let me see.<think><score>3</score></think>" + block(), 7.5)
case("thought after the answer", block() + "\n<think>or was it <score>2</score>?</think>", 7.5, "1101")
case("answer, then a thought that is cut", block() + "\n<think>or was it", ("truncated",), finish_reason="length")
case("escaped thought", "&lt;think&gt;<score>1</score>&lt;/think&gt;\n" + block(), 7.5)
case("kimi's thought", "\u25c1think\u25b7Let me see <score>3</score>\u25c1/think\u25b7" + block(), 7.5)
case("empty thought of qwen3", "<think>\n\n</think>\n\n" + block(), 7.5, "1101")
case(
    "thought in the template, tag in the thought only",
    "I'd go with <score>7</score>.\n</think>\nThe edit is good.",
    ("no_score",),
)

# --- which block counts
case(
    "echoed format first",
    'Format: [{"question": "...", "score": 1}, {"question": "...", "score": 0}]\n{"average_score": 0.50}\n<score>y</score>\n\n'
    + block(),
    7.5,
    "1101",
)
case("few-shot example first", "Example:\n" + EXAMPLE + "\n\nNow the task.\n" + block(), 7.5, "1101", flags=())
case(
    "few-shot example first, answer cut",
    EXAMPLE + "\n\nNow the task.\n" + block()[:150],
    ("truncated",),
    finish_reason="length",
)
case(
    "few-shot example, then reasoning that is cut",
    EXAMPLE + "\n\nNow the given images: the car is",
    ("truncated",),
    finish_reason="length",
)
case(
    "few-shot example, then verdicts without a score",
    EXAMPLE + "\n\nAnswer:\n" + array() + '\n{"average_score": 0.75}',
    ("no_score",),
    "1101",
)
case(
    "draft, then final",
    block("<score>4</score>", "0001", '{"average_score": 0.25}') + "\n\nOn a second look:\n" + block(),
    7.5,
    "1101",
)
case(
    "draft, then a final that is cut at its score",
    block("<score>4</score>", "0001", "") + "\n\nFinal:\n" + block("<score>7"),
    ("truncated",),
    finish_reason="length",
)
case(
    "draft, then a final without a number",
    block("<score>4</score>") + "\n\nFinal:\n" + block("<score>N/A</score>"),
    ("not_a_number",),
    "1101",
)
case("complete block, then its repetition is cut", block() + "\n" + block()[:90], 7.5, "1101", finish_reason="length")
case(
    "complete block, then an explanation is cut",
    block() + "\n\nExplanation: the car was",
    7.5,
    "1101",
    finish_reason="length",
)
case("tag quoted in prose after", block() + "\n\nA perfect edit would have earned <score>10</score>.", 7.5, "1101")
case(
    "tag quoted in prose after, no condition",
    block("<score>6.5</score>") + "\nNote: earlier versions of this judge gave <score>9</score> too easily.",
    6.5,
)
case("format quoted after", block() + "\n(The score is given as `<score>y</score>` as requested.)", 7.5)
case("bare tag named after", block() + "\nThe final score is inside the <score> tag.", 7.5)
case("closing tag named after", block() + "\nI closed it with </score>.", 7.5)
case("tags named before", "I will write it between <score> and </score>.\n" + block(), 7.5)
case("tag named before, unbalanced", "The <score> tag comes last.\n" + block(), 7.5)
case("corrected on its own line", block() + "\n\nWait, the sign is wrong.\n<score>4</score>", ("ambiguous",), "1101")
case("score said twice", block() + "\n<score>7.5</score>", 7.5)
case(
    "quoted in prose between array and score",
    array() + "\nA flawless edit would get <score>10</score>, but the sign changed.\n<score>6</score>",
    6.0,
    "1101",
)
case(
    "tag in a principle",
    json.dumps([{"question": "Is the text <score>10</score> painted on the wall?", "score": 1}]) + "\n<score>3</score>",
    3.0,
    "1",
    questions=("Is the text <score>10</score> painted on the wall?",),
)
case(
    "tag in a principle, no score",
    json.dumps([{"question": "Is the text <score>10</score> painted on the wall?", "score": 1}])
    + '\n{"average_score": 1.0}',
    ("no_score",),
    "1",
    questions=("Is the text <score>10</score> painted on the wall?",),
)
case(
    "tag in a principle, quoted in prose, no score",
    'Principle 1: Is the text "<score>10</score>" on the wall? Yes, it is.',
    ("no_score",),
    questions=('Is the text "<score>10</score>" on the wall?',),
)
case(
    "tag in a principle's unescaped quotes",
    '[{"question": "Is the text "<score>10</score>" on the wall?", "score": 0}]\n<score>2.5</score>',
    2.5,
    "0",
    questions=('Is the text "<score>10</score>" on the wall?',),
)
case(
    "tag in a reason",
    '[{"question": "Is the image free of visible artifacts?", "score": 0, "reason": "I would say <score>9</score> but no"}]\n<score>5</score>',
    5.0,
    "---0",
)
case("painted text in prose, no score", 'The banner reads "<score>10</score>", which is a trick.', ("no_score",))
case(
    "painted text in prose, then the block",
    'The banner reads "<score>10</score>", which is a trick.\n' + block("<score>1.5</score>"),
    1.5,
)
case(
    "think mark in a principle",
    block().replace("OPEN", "</think>"),
    7.5,
    questions=tuple(q.replace("OPEN", "</think>") for q in QUESTIONS),
)

# --- tails and fences
for tail in (
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "</s>",
    "</answer>",
    "\n```",
    "`",
    "\n\n",
    "<end_of_turn>",
    " **",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
):
    case(f"tail {tail!r}", block() + tail, 7.5, "1101")
case(
    "fences of qwen",
    "```json\n" + array() + '\n```\n\n```json\n{"average_score": 0.75}\n```\n\n<score>7.5</score>',
    7.5,
    "1101",
    flags=(),
)
case("all in one fence", "```\n" + block() + "\n```", 7.5, "1101")
case("score in a fence of its own", array() + "\n```\n<score>7.5</score>\n```", 7.5, "1101")
case("answer tags", "<answer>\n" + block() + "\n</answer>", 7.5, "1101")
case(
    "markdown headings",
    "### Verdicts\n" + array() + '\n\n### Average\n{"average_score": 0.75}\n\n### Final Score\n**<score>7.5</score>**',
    7.5,
    "1101",
)
case("on one line", block().replace("\n", " "), 7.5, "1101", flags=())

# --- the tag
for tag in (
    *(
        "<SCORE>7.5</SCORE>",
        "<Score>7.5</Score>",
        "<Score >7.5</ score >",
        "< score > 7.5 < / score >",
        "<score\n>7.5</score\n>",
    ),
    *(
        "<score>\n7.5\n</score>",
        "<score>7.5<\\score>",
        "<score>7.5<score>",
        "<score>7.5<\\/score>",
        "&lt;score&gt;7.5&lt;/score&gt;",
    ),
    *(
        "&#60;score&#62;7.5&#60;/score&#62;",
        "\uff1cscore\uff1e7.5\uff1c/score\uff1e",
        "\uff1cscore\uff1e\uff17\uff0e\uff15\uff1c\uff0fscore\uff1e",
    ),
    *(
        "<score>**7.5**</score>",
        "**<score>**7.5**</score>**",
        "<score><b>7.5</b></score>",
        "<score>`7.5`</score>",
        "<score>Score: 7.5</score>",
    ),
    *(
        "<score>Final score: 7.5</score>",
        "<score>\u8bc4\u5206\uff1a7.5</score>",
        "<score>\uff17.\uff15</score>",
        "<sc\u200bore>7.\u200b5</score>",
    ),
    *(
        "\ufeff<score>7.5\u200b</score>",
        "<score>7.5/10</score>",
        "<score>7.5 / 10</score>",
        "<score>7.5 out of 10</score>",
        "<score>7.5\u5206</score>",
    ),
    *(
        "<score>+7.5</score>",
        "<score>7,5</score>",
        "<score>7.50</score>",
        "Final score: <score>7.5</score>",
        "**Final Score**: <score>7.5</score>",
    ),
    *(
        "\u6700\u7ec8\u8bc4\u5206\uff1a<score>7.5</score>",
        "<score>7.5</score>/10",
        "<score>7.5\n",
        "<score>7.5",
        "<score>7.5<|im_end|>",
        "<score>7.5\n```",
    ),
    *("<score>7.5</scor", "\\<score\\>7.5\\</score\\>", "<score> 7.5 </score> ", "<score>\u00a07.5\u3000</score>"),
):
    case(f"tag {tag!r}", f"{array()}\n{tag}", 7.5, "1101")
for content, number in {
    "0": 0.0,
    "0.0": 0.0,
    "10": 10.0,
    "10.0": 10.0,
    ".5": 0.5,
    "7.": 7.0,
    "8/10": 8.0,
    "0/10": 0.0,
    "8\u5206": 8.0,
    "9.25": 9.25,
    "6,5": 6.5,
}.items():
    case(f"content {content!r}", block(f"<score>{content}</score>"), number, "1101")

# --- not a score
for content, words in {
    **dict.fromkeys(("4/5", "75/100", "75%", "4 out of 5", "15/20", "85 %"), ("out_of_scale",)),
    **dict.fromkeys(("11", "-1", "75", "100", "10.5", "-0.5", "12/10"), ("out_of_range",)),
    **dict.fromkeys(
        ("7-8", "7 to 8", "7~8", "7–8", "7 - 8", "7, 8", "[7, 8]", "7 8", "7 or 8", "6.5 / 7"), ("ambiguous",)
    ),
    **dict.fromkeys(
        ("NaN", "inf", "Infinity", "true", "N/A", "seven", "good", "7.5.0", "null", "None", "七分"), ("not_a_number",)
    ),
    **dict.fromkeys(
        ("y", "X.X", "{score}", "0-10", "x", "your score", "final score", "[score]", "...", "a number from 0 to 10"),
        ("format_echo",),
    ),
    **{
        "": ("not_a_number", "no_score", "empty"),
        "  ": ("not_a_number", "no_score", "empty"),
        "-": ("not_a_number", "no_score", "format_echo"),
    },
}.items():
    words = (*words, "out_of_scale") if content == "6.5 / 7" else words
    case(f"no score {content!r}", block(f"<score>{content}</score>"), words, "1101")
for name, text in {
    "prose": "Final score: 6.5",
    "prose in bold": "**Final score: 6.5/10**",
    "boxed": "The final score is $\\boxed{6.5}$.",
    "json": '{"score": 6.5}',
    "json, final": '{"average_score": 0.75, "final_score": 6.5}',
    "viescore": '{"score": [7, 8], "reasoning": "good"}',
    "rating tag": "<rating>6.5</rating>",
    "answer tag": "<answer>6.5</answer>",
    "double brackets": "Rating: [[7]]",
    "square tag": "[score]7[/score]",
    "final_score tag": "<final_score>6.5</final_score>",
    "closing tag alone": "6.5</score>",
}.items():
    case(f"no tag, {name}", "The car is red.\n" + text, ("no_score",), "----")
    case(f"no tag after verdicts, {name}", array() + "\n" + text, ("no_score",), "1101")

# --- cut texts
case("cut in the array", block()[:120], ("truncated",), "1---", finish_reason="length")
case("cut after the array", array() + '\n{"average_score": 0.', ("truncated",), "1101", finish_reason="length")
case("cut in the tag", block("<sco"), ("truncated",), "1101", finish_reason="length")
case("cut after the opening tag", block("<score>"), ("truncated",), "1101", finish_reason="length")
case("cut after a digit", block("<score>7"), ("truncated",), "1101", finish_reason="length")
case("cut after 7.5", block("<score>7.5"), ("truncated",), "1101", finish_reason="length")
case("cut in the closing tag", block("<score>7.5</sco"), ("truncated",), "1101", finish_reason="length")
case("cut right behind the closing tag", block(), 7.5, "1101", finish_reason="length")
case("opening tag and nothing", block("<score>"), ("not_a_number", "no_score"), "1101")
case("unclosed, a dot", block("<score>7."), (7.0, "not_a_number"), "1101")
case("unclosed, words", block("<score>7.5 because the car is red"), ("not_a_number",), "1101")
case("cut reasoning", "The car is red and the man's jacket", ("truncated",), finish_reason="length")
case("filtered", "The car is", ("truncated",), finish_reason="content_filter")

# --- refusals and nothing
for name, text in {
    "gpt": "I'm sorry, but I can't assist with that request.",
    "gpt with digits": "I'm sorry, I can't help with rating these 2 images. (Error 7.5)",
    "gpt with a zero": "I'm sorry, but I can't evaluate these images.\n<score>0</score>",
    "claude": "I won't rate this image, as it appears to show a real person. If you like, I can describe 3 other aspects.",
    "gemini": "I am unable to provide an evaluation of these images as it violates the safety guidelines, section 4.2.",
    "chinese": "\u62b1\u6b49\uff0c\u6211\u65e0\u6cd5\u5bf9\u8fd9\u5f20\u56fe\u7247\u8fdb\u884c\u8bc4\u5206\u3002\u9519\u8bef\u4ee3\u7801\uff1a10\u3002",
    "japanese": "\u7533\u3057\u8a33\u3042\u308a\u307e\u305b\u3093\u304c\u3001\u3053\u306e\u753b\u50cf2\u679a\u306f\u8a55\u4fa1\u3067\u304d\u307e\u305b\u3093\u3002",
    "german": "Es tut mir leid, aber diese 2 Bilder kann ich nicht bewerten.",
    "french": "Je suis d\u00e9sol\u00e9, je ne peux pas \u00e9valuer ces 2 images.",
    "spanish": "Lo siento, pero no puedo ayudar con eso. 10",
    "russian": "\u0418\u0437\u0432\u0438\u043d\u0438\u0442\u0435, \u044f \u043d\u0435 \u043c\u043e\u0433\u0443 \u043e\u0446\u0435\u043d\u0438\u0442\u044c 2 \u0438\u0437\u043e\u0431\u0440\u0430\u0436\u0435\u043d\u0438\u044f.",
    "korean": "\uc8c4\uc1a1\ud558\uc9c0\ub9cc \uc774 \uc774\ubbf8\uc9c0 2\uc7a5\uc744 \ud3c9\uac00\ud560 \uc218 \uc5c6\uc2b5\ub2c8\ub2e4.",
    "portuguese": "Desculpe, n\u00e3o posso avaliar estas 2 imagens.",
    "no images": "No images were provided, so I cannot judge the edit. Please attach 2 images.",
}.items():
    case(f"refusal, {name}", text, ("refusal",), "----")
case("not a refusal", "I cannot see any difference between the two images.\n<score>0</score>", 0.0)
case(
    "not a refusal, sorry state",
    "Unfortunately, the car is still blue.\n" + block("<score>1</score>", "0111", ""),
    1.0,
    "0111",
)
for text in ("", "   \n", "\u200b", "<|im_end|>", "\ufeff\n"):
    case(f"empty {text!r}", text, ("empty",), "----")

# --- lone tags
case("lone tag", "The car is red, the rest is kept.\n\n<score>8</score>", 8.0, "----", flags=("no_verdicts",))
case("lone tag after a sentence", "The car is red. <score>8.5</score>", 8.5, "----", flags=("no_verdicts",))
case("lone tags that agree", "Score: <score>8</score>\n\nFinal: <score>8</score>", 8.0)
case("lone tags that differ", "Draft: <score>5</score>\n\n<score>8</score>", ("ambiguous",))
case("lone tags that differ on a line", "<score>5</score> <score>8</score>", ("ambiguous",))
case(
    "lone tag per principle",
    "\n".join(f"{q} <score>1</score>" for q in QUESTIONS) + "\n<score>7</score>",
    (7.0, "ambiguous"),
)
case(
    "lone tag per principle, no score", "\n".join(f"{q} <score>1</score>" for q in QUESTIONS), ("no_score", "ambiguous")
)
case("lone placeholder", "I will answer as <score>y</score>.", ("format_echo",))
case(
    "lone tag, then cut",
    "For example <score>8.5</score>. Now I look at the car and",
    ("truncated",),
    finish_reason="length",
)
case(
    "lone tag quoted as an example", "An answer looks like this: <score>8.5</score>. I cannot say more.", ("no_score",)
)
case("score out of five beside the tag", array() + "\nScore (1-5): <score>4</score>", ("out_of_scale",), "1101")
case("score out of a hundred beside the tag", array() + "\n<score>7</score>/100", ("out_of_scale",), "1101")

# --- the array
A = block()
case("trailing commas", A.replace("}]", "},]").replace("1}", "1,}"), 7.5, "1101")
case(
    "single quotes",
    "["
    + ", ".join(f"{{'question': '{q}', 'score': {v}}}" for q, v in zip(QUESTIONS, "1101", strict=True))
    + "]\n<score>7.5</score>",
    7.5,
    "1101",
)
case("python repr", repr(json.loads(array())) + "\n<score>7.5</score>", 7.5, "1101")
case("smart quotes", array().replace('\\"', "'").replace('"', "\u201d") + "\n<score>7.5</score>", 7.5, "1101")
case(
    "smart quotes, paired",
    "[{\u201cquestion\u201d: \u201cIs the man\u2019s jacket unchanged?\u201d, \u201cscore\u201d: 0}]\n<score>5</score>",
    5.0,
    "-0--",
)
case(
    "full-width punctuation",
    "[{\u201cquestion\u201d\uff1a\u201cIs the man's jacket unchanged\uff1f\u201d\uff0c\u201cscore\u201d\uff1a1}\uff0c{\u201cquestion\u201d\uff1a\u201cIs the image free of visible artifacts\uff1f\u201d\uff0c\u201cscore\u201d\uff1a0}]\n<score>5</score>",
    5.0,
    "-1-0",
)
case("unescaped quotes", A.replace('\\"', '"'), 7.5, "1101")
case("comments", A.replace("}, ", '}, // the "next" one\n').replace("[{", "[\n/* verdicts */ {"), 7.5, "1101")
case("missing commas", A.replace("}, {", "}\n{").replace('?", "s', '?" "s'), 7.5, "1101")
case("json lines", A.replace("}, {", "}\n{").replace("[{", "{").replace("}]", "}"), 7.5, "1101")
case("unquoted keys", A.replace('"question"', "question").replace('"score"', "score"), 7.5, "1101")
case("keys in capitals", A.replace('"question"', '"Question"').replace('"score"', '"SCORE"'), 7.5, "1101")
case(
    "object around",
    '{"verdicts": ' + array() + ', "average_score": 0.75}\n<score>7.5</score>',
    7.5,
    "1101",
    average=0.75,
)
case("serialised twice", json.dumps(array()) + "\n<score>7.5</score>", 7.5, "1101")
case("serialised twice, in an object", json.dumps({"verdicts": array()}) + "\n<score>7.5</score>", 7.5, "1101")
case(
    "items serialised",
    json.dumps([json.dumps(item) for item in json.loads(array())]) + "\n<score>7.5</score>",
    7.5,
    "1101",
)
case("raw newlines", A.replace("changed to red", "changed\nto red").replace(", {", ",\n  {"), 7.5, "1101")
case(
    "indented", json.dumps(json.loads(array()), indent=2) + '\n{"average_score": 0.75}\n<score>7.5</score>', 7.5, "1101"
)
case(
    "extra keys",
    json.dumps(
        [
            {
                "id": n,
                "category": "Image Quality",
                "question": q,
                "reason": 'it\'s "fine", score: 0',
                "score": 1,
                "bbox": [1, 2, 3, 4],
            }
            for n, q in enumerate(QUESTIONS, 1)
        ]
    )
    + "\n<score>9</score>",
    9.0,
    "1111",
)
case("boxes before", "Car: [12, 30, 200, 240] -> [14, 30, 199, 238]\n" + A, 7.5, "1101")
case("boxes in json before", '[{"bbox_2d": [12, 30, 200, 240], "label": "car"}]\n' + A, 7.5, "1101")
case(
    "unicode escapes",
    json.dumps([{"question": "\u5e3d\u5b50\u662f\u7ea2\u8272\u5417\uff1f", "score": 1}]) + "\n<score>9</score>",
    9.0,
    "1",
    questions=("\u5e3d\u5b50\u662f\u7ea2\u8272\u5417\uff1f",),
)
case("missing end of the array", A.replace("}]", "}"), 7.5, "1101")
case(
    "score first in each item",
    "["
    + ", ".join(json.dumps({"score": int(v), "question": q}) for q, v in zip(QUESTIONS, "0110", strict=True))
    + "]\n<score>4</score>",
    4.0,
    "0110",
)
for yes, no in (
    ("1", "0"),
    ("1.0", "0.0"),
    ("true", "false"),
    ("True", "False"),
    ('"1"', '"0"'),
    ('"yes"', '"no"'),
    ('"Yes"', '"No"'),
    ("yes", "no"),
    ('"\u2713"', '"\u2717"'),
    ("\u2705", "\u274c"),
    ('"\u2714\ufe0f"', '"\u2718"'),
    ('"\u662f"', '"\u5426"'),
    ('"YES"', '"uncertain"'),
    ("**1**", "**0**"),
):
    text = (
        "["
        + ", ".join(
            f'{{"question": {json.dumps(q)}, "score": {v}}}'
            for q, v in zip(QUESTIONS, (yes, yes, no, yes), strict=True)
        )
        + "]"
    )
    case(f"values {yes} {no}", text + "\n<score>7.5</score>", 7.5, "1101")
for value in ("null", '"N/A"', "-1", "0.5", '"partially"', "None", '""', '"maybe 1"', "[1]"):
    case(f"value {value}", array().replace('"score": 0', f'"score": {value}') + "\n<score>7.5</score>", 7.5, "11-1")
case(
    "array on a 0-10 scale",
    json.dumps([{"question": q, "score": v} for q, v in zip(QUESTIONS, (9, 8, 1, 10), strict=True)])
    + "\n<score>8</score>",
    8.0,
    "----",
    flags=("no_verdicts",),
)
case(
    "array on a 0-10 scale, decimals",
    json.dumps([{"question": q, "score": v} for q, v in zip(QUESTIONS, (7.5, 1, 1, 1), strict=True)])
    + "\n<score>8</score>",
    8.0,
    "----",
)


# --- alignment
def of(pairs: list[tuple[str, object]], score: str = "5") -> str:
    return json.dumps([{"question": q, "score": v} for q, v in pairs], ensure_ascii=False) + f"\n<score>{score}</score>"


Q1, Q2, Q3, Q4 = QUESTIONS
case("other order", of([(Q4, 0), (Q3, 1), (Q1, 1), (Q2, 0)]), 5.0, "1010")
case("one missing", of([(Q1, 1), (Q3, 1), (Q4, 0)]), 5.0, "1-10")
case(
    "one invented",
    of([(Q1, 1), (Q2, 0), (Q3, 1), (Q4, 0), ("Is the sky green?", 1)]),
    5.0,
    "1010",
    flags=("extra_principles",),
)
case(
    "one invented in place of another",
    of([(Q1, 1), (Q2, 0), ("Did the sky turn green?", 1), (Q4, 0)]),
    5.0,
    "10-0",
    flags=("extra_principles",),
)
case(
    "numbered",
    of([(f"{n}. {q}", v) for n, (q, v) in enumerate(zip(QUESTIONS, (1, 0, 0, 1), strict=True), 1)]),
    5.0,
    "1001",
)
case(
    "numbered Q1:",
    of([(f"Q{n}: {q}", v) for n, (q, v) in enumerate(zip(QUESTIONS, (1, 0, 0, 1), strict=True), 1)]),
    5.0,
    "1001",
)
case("with categories", of([(f"[Image Quality] {q}", 1) for q in QUESTIONS], "9"), 9.0, "1111")
case(
    "small drift",
    of(
        [
            ("Has the car's color been changed to red?", 1),
            ("Is the man's jacket left unchanged?", 0),
            ("Does the sign still read OPEN", 1),
            ("Is the image free from visible artifacts?", 0),
        ]
    ),
    5.0,
    "1010",
)
case(
    "drift in another order",
    of([("is the image free from visible artifacts", 0), ("Was the color of the car changed to red?", 1)]),
    5.0,
    "1--0",
)
case("no texts", json.dumps([{"score": v} for v in (1, 0, 0, 1)]) + "\n<score>5</score>", 5.0, "1001")
case("no texts, count differs", json.dumps([{"score": v} for v in (1, 0, 0)]) + "\n<score>5</score>", 5.0, "----")
case(
    "ids",
    json.dumps([{"id": n, "score": v} for n, v in ((2, 0), (1, 1), (4, 1), (3, 0))]) + "\n<score>5</score>",
    5.0,
    "1001",
)
case(
    "texts that are names",
    of([("Principle 1", 1), ("Principle 2", 0), ("Principle 3", 0), ("Principle 4", 1)]),
    5.0,
    "1001",
)
case(
    "translated, count matches",
    of(
        [
            ("\u6c7d\u8f66\u53d8\u6210\u7ea2\u8272\u4e86\u5417\uff1f", 1),
            ("\u5939\u514b\u4e0d\u53d8\uff1f", 0),
            ("\u724c\u5b50\u4ecd\u662fOPEN\uff1f", 0),
            ("\u65e0\u7455\u75b5\uff1f", 1),
        ]
    ),
    5.0,
    "1001",
)
case(
    "all invented",
    of([("Is the kitchen clean?", 1), ("Is the lamp on?", 0)]),
    5.0,
    "----",
    flags=("extra_principles", "no_verdicts"),
)
case("duplicates agree", of([(Q1, 1), (Q1, 1), (Q2, 0), (Q3, 1), (Q4, 0)]), 5.0, "1010")
case("duplicates conflict", of([(Q1, 1), (Q1, 0), (Q2, 0), (Q3, 1), (Q4, 0)]), 5.0, "-010")
case(
    "negated question is another one",
    of([(Q1, 1), ("Is the image not free of visible artifacts?", 1), (Q2, 1)]),
    5.0,
    "11--",
)
case("swapped word is another one", of([("Has the color of the car been changed to blue?", 0)]), 5.0, "----")
case("no questions asked", block(), 7.5, "", questions=())
case("same question twice", of([(Q1, 1)]), 5.0, "11", questions=(Q1, Q1))

# --- average and consistency
case("average missing", array() + "\n<score>7.5</score>", 7.5, "1101", average=None, flags=())
case("average wrong", block(average='{"average_score": 0.25}'), 7.5, "1101", average=0.25, flags=("average_mismatch",))
case("average rounded", block(values="1101", average='{"average_score": 0.8}'), 7.5, average=0.8, flags=())
case("average bad", block(average='{"average_score": "n/a"}'), 7.5, "1101", average=None, flags=())
case("average a string", block(average='{"average_score": "0.75"}'), 7.5, average=0.75, flags=())
case(
    "all 0, high score",
    block("<score>9</score>", "0000", '{"average_score": 0.0}'),
    9.0,
    "0000",
    flags=("inconsistent",),
)
case(
    "all 1, low score",
    block("<score>1</score>", "1111", '{"average_score": 1.0}'),
    1.0,
    "1111",
    flags=("inconsistent",),
)

# --- whole replies in the manner of known judges
case(
    "qwen2.5-vl",
    "To evaluate the edit, I compare the two images.\n\n1. **Color**: The car at [34, 120, 410, 388] is red.\n2. **Jacket**: unchanged.\n"
    '3. **Sign**: it now reads "OPFN".\n4. **Artifacts**: none.\n\n```json\n'
    + json.dumps(json.loads(array()), indent=4)
    + "\n```\n\n"
    '```json\n{\n    "average_score": 0.75\n}\n```\n\nFinal Score: <score>6.5</score>',
    6.5,
    "1101",
    flags=(),
    average=0.75,
)
case(
    "internvl",
    "**Reasoning:** The car changed from blue to red (ok). 8/10 for colour.\n\n**Verdicts:** "
    + array()
    + '\n\n**Average:** {"average_score": 0.75}\n\n'
    "**Final Score:** <score>7.0</score> \n\nThis score reflects the garbled sign.",
    7.0,
    "1101",
)
case(
    "deepseek-like",
    '<think>\nOkay, let\'s see. The format: [{"question": ..., "score": 0|1}] then <score>y</score>. Maybe 6? <score>6</score>.\nActually 7.\n</think>\n\n'
    "The car is red.\n\n" + block("<score>7</score>") + "<\uff5cend\u2581of\u2581sentence\uff5c>",
    7.0,
    "1101",
)
case(
    "gemini",
    "Here's the evaluation:\n\n```json\n"
    + json.dumps(json.loads(array()))
    + '\n{"average_score": 0.75}\n```\n<score>8.2</score>\n',
    8.2,
    "1101",
)
case(
    "llama repeats the format and stops",
    'Reasoning goes here.\n[{"question": "...", "score": 0|1}, ...]\n{"average_score": x}\n<score>y</score>',
    ("format_echo",),
    "----",
)
case(
    "chinese judge",
    "\u6c7d\u8f66\u5df2\u53d8\u4e3a\u7ea2\u8272\uff0c\u62db\u724c\u6587\u5b57\u6709\u8bef\u3002\n"
    + array()
    + "\n{\u201caverage_score\u201d\uff1a0.75}\n\u6700\u7ec8\u5f97\u5206\uff1a\uff1cscore\uff1e7\u5206\uff1c/score\uff1e\u3002",
    7.0,
    "1101",
    average=0.75,
)
case("small model loops", block() + ("\n" + block()) * 5, 7.5, "1101")
case("small model loops and is cut", (block() + "\n") * 5 + block()[:77], 7.5, "1101", finish_reason="length")
case("small model loops tags", array() + "\n" + "<score>7.5</score>\n" * 50, 7.5, "1101")
case("small model counts", array() + "\n<score>1</score>\n<score>2</score>\n<score>3</score>", ("ambiguous",), "1101")
