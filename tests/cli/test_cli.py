"""The command line: exit status, one-line errors, JSON and text, and a fast start."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from editr1_plugins.cli import COMMANDS, main, printable
from editr1_plugins.errors import PluginError
from editr1_plugins.plugins import Entry, Failure, Origin, Registry, registry
from editr1_plugins.types import FOLLOW, Principle, Verdict, Verification


class Asks:
    """A decomposer with one question for every instruction."""

    def decompose(self, requests: list[tuple[Image.Image, str]]) -> list[tuple[Principle, ...]]:
        return [(Principle(question="Is it \x1b[31mbright\x1b[0m?", category=FOLLOW),) for _ in requests]


class Says:
    """A verifier that reads the answer from the edited image's first pixel: red is how much, green 255 is "unknown"."""

    def verify(self, edits: list[object], principles: list[tuple[Principle, ...]]) -> list[Verification]:
        return [self.judge(edit.edited.getpixel((0, 0)), asked) for edit, asked in zip(edits, principles, strict=True)]  # type: ignore[attr-defined]

    def judge(self, pixel: tuple[int, int, int], asked: tuple[Principle, ...]) -> Verification:
        if pixel[1] == 255:
            return Verification(
                score=None,
                failure="the judge\x1b[2J timed out",
                verdicts=tuple(Verdict(principle=each, passed=None, reason="no answer") for each in asked),
                samples=0,
            )
        score = pixel[0] / 25.5
        verdicts = tuple(Verdict(principle=each, passed=score > 5, reason="because\nof it") for each in asked)
        return Verification(score=score, verdicts=verdicts, average=float(score > 5), flags=("odd",), trace="thinking")


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Verifier `says` and decomposer `asks` beside our own parts."""
    core = registry().core
    extended = Registry(core)
    origin = Origin(plugin="t", dist="testing-parts", version="1.0")
    extended.entries = (
        *registry().entries,
        Entry(kind="verifier", name="says", factory=Says, summary="says it", requires=(), origin=origin),
        Entry(kind="decomposer", name="asks", factory=Asks, summary="asks it", requires=(), origin=origin),
    )
    for module in ("editr1_plugins.plugins", "editr1_plugins.cli.plugins", "editr1_plugins.reward.parts"):
        __import__(module)
        monkeypatch.setattr(sys.modules[module], "registry", lambda: extended)
    return extended


@pytest.fixture
def images(tmp_path: Path) -> dict[str, str]:
    colours = {"source": (9, 9, 9), "good": (255, 0, 0), "bad": (51, 0, 0), "unknown": (0, 255, 0)}
    for name, colour in colours.items():
        Image.new("RGB", (8, 8), colour).save(tmp_path / f"{name}.png")
    return {name: str(tmp_path / f"{name}.png") for name in colours}


def score(images: dict[str, str], edited: str, *options: str) -> int:
    chosen = ["--verifier", "says", "--decomposer", "asks", *options]
    return main(["score", images["source"], images[edited], "make it bright", *chosen])


class TestScore:
    def test_a_judged_edit(self, parts: Registry, images: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
        assert score(images, "good") == 0
        assert capsys.readouterr().out.splitlines() == [
            "yes  Instruction Following  Is it  [31mbright [0m?  (because of it)",
            "flags: odd",
            "score: 10.00 of 10",
        ]

    def test_no_judgement_is_exit_status_3_with_the_reason(
        self, parts: Registry, images: dict[str, str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert score(images, "unknown") == 3
        out = capsys.readouterr().out
        assert out.splitlines()[0].startswith("?    Instruction Following")
        assert out.splitlines()[-1] == "not judged: the judge [2J timed out"

    def test_json(self, parts: Registry, images: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
        assert score(images, "bad", "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert found["score"] == pytest.approx(2.0)
        assert found["failure"] is None
        assert found["verdicts"][0]["passed"] is False
        assert found["verdicts"][0]["category"] == "Instruction Following"
        assert (found["flags"], found["trace"], found["samples"]) == (["odd"], "thinking", 1)
        assert score(images, "unknown", "--json") == 3
        assert json.loads(capsys.readouterr().out)["score"] is None

    @pytest.mark.parametrize("way", ["missing.png", "text.png"])
    def test_a_bad_image_is_one_line_and_exit_status_2(
        self, images: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], way: str
    ) -> None:
        (tmp_path / "text.png").write_text("no image")
        assert main(["score", images["source"], str(tmp_path / way), "x"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("editr1: error: image ")
        assert way in error
        assert error.count("\n") == 1

    def test_an_unknown_verifier_lists_what_there_is(
        self, images: dict[str, str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["score", images["source"], images["good"], "x", "--verifier", "mesure"]) == 2
        assert re.fullmatch(
            r"editr1: error: no verifier 'mesure', did you mean 'measure'\?; known: .*measure.*\n",
            capsys.readouterr().err,
        )

    def test_debug_shows_the_traceback(self, images: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
        arguments = ["score", images["source"], images["good"], "x", "--verifier", "mesure"]
        for line in (["--debug", *arguments], [*arguments, "--debug"]):
            assert main(line) == 2
            error = capsys.readouterr().err
            assert "Traceback (most recent call last)" in error
            assert error.splitlines()[-1].startswith("editr1: error: no verifier")

    @pytest.mark.parametrize(
        "arguments", [[], ["score"], ["score", "a", "b"], ["scroe"], ["score", "a", "b", "c", "-x"]]
    )
    def test_usage_errors(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert main(arguments) == 2
        assert "usage: editr1" in capsys.readouterr().err


class TestPlugins:
    def test_text_names_kind_spec_and_origin(self, parts: Registry, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["plugins", "--strict"]) == 0
        rows = [re.split(r" {2,}", line) for line in capsys.readouterr().out.splitlines()]
        assert ["verifier", "says", "testing-parts", "says it"] in rows
        assert [row[:3] for row in rows if row[1] == "measure"] == [["verifier", "measure", "editr1-plugins"]]

    def test_json(self, parts: Registry, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["plugins", "--json"]) == 0
        entries = json.loads(capsys.readouterr().out)["entries"]
        assert {
            "kind": "verifier",
            "name": "says",
            "spec": "says",
            "distribution": "testing-parts",
            "version": "1.0",
            "plugin": "t",
            "summary": "says it",
            "requires": [],
        } in entries

    def test_failures_are_listed_and_strict_fails(self, parts: Registry, capsys: pytest.CaptureFixture[str]) -> None:
        origin = Origin(plugin="broken", dist="broken-dist", version="3")
        parts.failures = (Failure(origin=origin, error=PluginError("two\nlines")),)
        assert main(["plugins"]) == 0
        expected = "FAILED  plugin 'broken' (broken-dist 3): PluginError: two lines"
        assert capsys.readouterr().out.splitlines()[-1] == expected
        assert main(["plugins", "--strict", "--json"]) == 1
        assert json.loads(capsys.readouterr().out)["failures"][0]["error"] == "PluginError: two lines"


class TestMain:
    def test_help_names_every_command(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["--help"]) == 0
        out = capsys.readouterr().out
        assert all(re.search(rf"^    {command}\s", out, re.MULTILINE) for command in COMMANDS)

    @pytest.mark.parametrize("command", COMMANDS)
    def test_every_command_has_help(self, command: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([command, "--help"]) == 0
        assert f"usage: editr1 {command}" in capsys.readouterr().out

    def test_help_loads_nothing_heavy(self) -> None:
        code = """
import sys
from editr1_plugins.cli import main
main(["--help"])
print(*(m for m in ("torch", "transformers", "diffusers", "trl", "PIL", "numpy") if m in sys.modules), file=sys.stderr)
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stderr.strip() == ""

    def test_the_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["--version"]) == 0
        assert re.fullmatch(r"editr1-plugins \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)

    def test_a_surprise_is_one_line_and_exit_status_1(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("editr1_plugins.cli.plugins.registry", lambda: {}["two\nlines"])
        assert main(["plugins"]) == 1
        expected = "editr1: error: KeyError: 'two\\nlines' (--debug shows the traceback)\n"
        assert capsys.readouterr().err == expected

    def test_interrupted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupt() -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("editr1_plugins.cli.plugins.registry", interrupt)
        assert main(["plugins"]) == 130

    def test_a_reader_that_goes_away_is_no_error(self) -> None:
        command = f"{sys.executable} -m editr1_plugins plugins --json | head -c 1"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
        assert (done.stdout, done.stderr) == ("{", "")

    def test_printable_is_one_line_without_control_characters(self) -> None:
        assert printable("a\nb\t c\x1b[2J\x07\u202e\u00e9") == "a b c [2J  \u00e9"
