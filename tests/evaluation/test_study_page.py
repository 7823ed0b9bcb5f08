"""The raters' page in a real Chromium: answering, going on, exporting, and that nothing hostile gets anywhere."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from study_kit import study

from editr1_plugins.errors import DataError
from editr1_plugins.evaluation.study.answers import Answers, read_answers
from editr1_plugins.evaluation.study.key import read_key

HOSTILE = (
    "</script><script>window.hacked=1</script><img src='{url}' onerror='hacked=2'><!--<script>\u202e&amp;\u2028$study"
)
CODES = {"ArrowLeft": 37, "ArrowDown": 40, "ArrowRight": 39, "Backspace": 8, "Enter": 13}


class Rater:
    """A person at the page."""

    def __init__(self, browser: Any, folder: Path) -> None:
        self.browser, self.folder = browser, folder
        self.page = folder / "study.html"

    def open(self, **more: Any) -> None:
        self.browser.open(self.page, **more)

    def begin(self, name: str) -> None:
        assert self.visible("start")
        self.browser.run(f"document.getElementById('rater').value = {json.dumps(name)}")
        self.browser.run("document.querySelector('#begin button').click()")

    def press(self, *keys: str, repeat: bool = False) -> None:
        for key in keys:
            text = {"text": key} if len(key) == 1 else {}
            code = CODES.get(key, ord(key[0].upper()))
            more = {"key": key, "windowsVirtualKeyCode": code}
            self.browser.call("Input.dispatchKeyEvent", type="keyDown", autoRepeat=repeat, **more, **text)
            self.browser.call("Input.dispatchKeyEvent", type="keyUp", **more)

    def click(self, selector: str) -> None:
        """A real click in the middle of what is there."""
        x, y = self.browser.run(
            f"(() => {{ const box = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
            "return [box.x + box.width / 2, box.y + box.height / 2] })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.browser.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def visible(self, name: str) -> bool:
        return bool(self.browser.run(f"!document.getElementById({json.dumps(name)}).hidden"))

    def text(self, name: str) -> str:
        return str(self.browser.run(f"document.getElementById({json.dumps(name)}).textContent"))

    def export(self) -> Path:
        """What a click on the button saves."""
        target = self.folder.parent / "downloads"
        target.mkdir(exist_ok=True)
        before = set(target.iterdir())
        self.browser.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(target))
        self.click("#export")
        [path] = self.wait_for_file(target, before)
        return path

    def wait_for_file(self, target: Path, before: set[Path]) -> set[Path]:
        found: set[Path] = set()
        for _ in range(600):
            found = {path for path in target.iterdir() if path.suffix == ".json"} - before
            if found:
                break
            self.browser.run("new Promise((done) => setTimeout(done, 50))")
        return found

    def exported(self) -> Answers:
        [read] = read_answers([self.export()], read_key(self.folder))
        return read


@pytest.fixture
def rater(browser: Any, tmp_path: Path) -> Iterator[Rater]:
    person = Rater(browser, study(tmp_path, 5, guide="Look at <b>details</b>.", seed=str(tmp_path)))
    yield person
    browser.errors.clear()


def test_answering_by_keyboard_and_the_export_holds_the_answers(rater: Rater) -> None:
    rater.open()
    assert rater.text("guide") == "Look at <b>details</b>."
    assert not rater.visible("item")
    rater.press("1")  # not begun yet: no answer
    rater.begin("  Ann   B\u00e9\u4e2d ")
    assert rater.text("name") == "Ann B\u00e9\u4e2d"
    key = read_key(rater.folder)
    assert rater.text("instruction") == key.items[0].instruction
    rater.press("1", "ArrowDown", "3", "ArrowLeft")
    assert rater.text("count") == "4 of 5 answered"
    assert rater.text("instruction") == key.items[4].instruction
    rater.press("ArrowRight")
    assert rater.visible("done")
    assert not rater.visible("item")
    rater.press("1")  # nothing is left to answer
    found = rater.exported()
    assert found.rater == "Ann B\u00e9\u4e2d"
    assert [(each.item, each.answer) for each in found.answers] == [
        (item.item, answer) for item, answer in zip(key.items, ["left", "same", "right", "left", "right"], strict=True)
    ]
    assert all(1.6e12 < each.at < 1e13 for each in found.answers)
    assert rater.browser.errors == []


def test_answering_by_mouse_undo_and_skip(rater: Rater) -> None:
    rater.open()
    rater.begin("Ann")
    key = read_key(rater.folder)
    rater.click("[data-answer=right]")
    rater.click("[data-answer=same]")
    rater.press("u")
    assert rater.text("count") == "1 of 5 answered"
    assert rater.text("instruction") == key.items[1].instruction
    rater.click("[data-answer=left]")
    rater.click("#skip")
    assert rater.text("instruction") == key.items[3].instruction
    rater.press("2", "2")
    assert rater.text("instruction") == key.items[2].instruction  # what was skipped comes again
    rater.press("3", "Backspace", "Backspace")
    rater.click("#undo")
    assert rater.text("count") == "2 of 5 answered"
    assert [each.answer for each in rater.exported().answers] == ["right", "left"]


def test_a_key_held_down_answers_once_and_shortcuts_of_the_browser_stay(rater: Rater) -> None:
    rater.open()
    rater.begin("Ann")
    rater.press("1")
    for _ in range(5):
        rater.press("1", repeat=True)
    rater.browser.run("dispatchEvent(new KeyboardEvent('keydown', { key: '1', ctrlKey: true }))")
    assert rater.text("count") == "1 of 5 answered"


def test_a_reload_keeps_progress_of_each_rater_apart(rater: Rater) -> None:
    rater.open()
    rater.begin("Ann")
    rater.press("1", "2")
    rater.open()
    assert rater.text("name") == "Ann"
    assert rater.text("count") == "2 of 5 answered"
    assert rater.text("instruction") == read_key(rater.folder).items[2].instruction
    rater.press("3", "u", "u")
    rater.click("#change")
    rater.begin("Bob")
    assert rater.text("count") == "0 of 5 answered"
    rater.press("3")
    rater.click("#change")
    rater.open()
    rater.begin("Ann")
    assert [each.answer for each in rater.exported().answers] == ["left"]
    rater.click("#change")
    rater.begin("Bob")
    assert rater.text("count") == "1 of 5 answered"


def test_answers_of_another_tab_are_taken_over(rater: Rater) -> None:
    rater.open()
    rater.begin("Ann")
    rater.press("1")
    store = f"editr1-study-{read_key(rater.folder).study}"
    other = {"item": read_key(rater.folder).items[1].item, "answer": "same", "milliseconds": 5, "at": 6}
    rater.browser.run(
        f"(() => {{ const kept = JSON.parse(localStorage.getItem('{store}'));"
        f"kept.raters[0].answers.push({json.dumps(other)}); localStorage.setItem('{store}', JSON.stringify(kept));"
        f"dispatchEvent(new StorageEvent('storage', {{ key: '{store}' }})) }})()"
    )
    assert rater.text("count") == "2 of 5 answered"
    rater.press("3")
    assert [each.answer for each in rater.exported().answers] == ["left", "same", "right"]


@pytest.mark.parametrize(
    "kept",
    [
        "{",
        "null",
        '{"current": "Ann", "raters": "x"}',
        '{"current": "Ann", "raters": [{"rater": "Ann", "started": 1, "answers": [null, {"item": "zz"}, 5]}]}',
    ],
)
def test_broken_progress_is_left_out(rater: Rater, kept: str) -> None:
    rater.open()
    store = f"editr1-study-{read_key(rater.folder).study}"
    rater.browser.run(f"localStorage.setItem({json.dumps(store)}, {json.dumps(kept)})")
    rater.open()
    if rater.visible("start"):
        rater.begin("Ann")
    assert rater.text("count") == "0 of 5 answered"
    rater.press("2")
    assert len(rater.exported().answers) == 1
    assert rater.browser.errors == []


def test_a_browser_without_storage_says_so_and_still_exports(rater: Rater) -> None:
    broken = "Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError') }"
    script = rater.browser.call("Page.addScriptToEvaluateOnNewDocument", source=broken)["identifier"]
    try:
        rater.open()
        rater.begin("Ann")
        rater.press("1", "3")
        assert rater.visible("warning")
        assert "export your answers" in rater.text("warning")
        assert [each.answer for each in rater.exported().answers] == ["left", "right"]
    finally:
        rater.browser.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script)


def test_an_export_that_is_edited_is_refused(rater: Rater) -> None:
    rater.open()
    rater.begin("Ann")
    rater.press("1", "1")
    path = rater.export()
    path.write_text(path.read_text().replace('"left"', '"right"', 1))
    with pytest.raises(DataError, match="was changed after it was exported"):
        read_answers([path], read_key(rater.folder))


def test_pictures_are_the_ones_of_the_key(rater: Rater) -> None:
    rater.open()
    rater.begin("Ann")
    first = read_key(rater.folder).items[0]
    number = int(first.name.removeprefix("row-"))
    rater.browser.wait("[...document.images].every((each) => each.complete && each.naturalWidth === 12)")
    pixel = """(id) => {
      const canvas = document.createElement("canvas"), brush = canvas.getContext("2d");
      brush.drawImage(document.getElementById(id), 0, 0);
      return [...brush.getImageData(0, 0, 1, 1).data].slice(0, 2);
    }"""
    left = 100 if first.left == "a" else 200
    for name, level in (("source", 0), ("left", left), ("right", 300 - left)):
        assert rater.browser.run(f"({pixel})({json.dumps(name)})") == [number, level]


def test_hostile_texts_stay_texts_and_nothing_is_loaded(browser: Any, tmp_path: Path, httpserver: HTTPServer) -> None:
    httpserver.expect_request(re.compile(".*")).respond_with_data("leaked")
    text = HOSTILE.replace("{url}", httpserver.url_for("/leak"))
    columns = {"instruction": text, "category": text, "id": lambda number: f"{text}{number}"}
    folder = study(tmp_path, 2, columns=columns, title=text, guide=text, systems=(text, f"{text}2"))
    person = Rater(browser, folder)
    person.open()
    assert person.text("guide") == text
    assert browser.run("document.title").startswith("</script>")
    name = f"{text[:40]}\U0001f600"
    person.begin(f"{name}\ud800")  # half of a surrogate pair has no UTF-8
    assert person.text("instruction") == text
    assert browser.run("document.querySelectorAll('script').length") == 4  # the study, two items, the program
    assert browser.run("document.images.length") == 3
    person.press("1", "3")
    assert person.exported().rater == name
    assert browser.run("typeof window.hacked") == "undefined"
    assert browser.errors == []
    loaded = [url for url in browser.requests if not url.startswith(("data:", "blob:"))]
    assert loaded == [person.page.as_uri()]
    # Were something to slip through all the same, the policy stops it.
    leak = json.dumps(httpserver.url_for("/leak"))
    assert browser.run(f"fetch({leak}).then(() => 'loaded', () => 'blocked')") == "blocked"
    assert browser.run(f"navigator.sendBeacon({leak}) && new Promise((done) => setTimeout(done, 200))") in (None, False)
    add = "const made = document.createElement('script'); made.text = 'window.hacked = 4'; document.body.append(made)"
    browser.run(f"(() => {{ {add} }})()")
    assert browser.run("typeof window.hacked") == "undefined"
    assert httpserver.log == []


def test_only_our_script_and_style_may_run(tmp_path: Path) -> None:
    page = (study(tmp_path, 1) / "study.html").read_text()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].split(";"))
    assert (rules["default-src"], rules["img-src"]) == ("'none'", "data:")
    for tag, rule in (("script", "script-src"), ("style", "style-src")):
        [text] = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
        assert "innerHTML" not in text
    assert not re.search(r'\son\w+="|\sstyle="|url\(|@import', page)


def test_it_fits_small_and_dark_windows_and_has_names_for_all(rater: Rater) -> None:
    rater.open(width=380, height=700, dark=True)
    rater.begin("Ann")
    assert rater.browser.run("document.documentElement.scrollWidth <= innerWidth")
    unnamed = """[...document.querySelectorAll("input, button, img, progress")].filter((each) =>
      !(each.labels?.length || each.ariaLabel || each.alt || each.textContent.trim())).map((each) => each.outerHTML)"""
    assert rater.browser.run(unnamed) == []
    for width in (380, 1280):
        rater.open(width=width, height=800)
        for name in ("left", "right"):  # each answer is under the picture that it means
            picture, button = (
                rater.browser.run(f"document.querySelector('{chosen}').getBoundingClientRect().toJSON()")
                for chosen in (f"#{name}", f"[data-answer={name}]")
            )
            assert picture["left"] - 1 <= button["left"] < button["right"] <= picture["right"] + 1
    assert rater.browser.run("document.querySelector('.answers').getBoundingClientRect().bottom <= innerHeight")
