"""`editr1 score` on many edits and as a probe: usage, exit status, and what it prints."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from PIL import Image

from editr1_plugins.cli import main
from editr1_plugins.testing.judge_server import JudgeServer

DARKER = "make the image darker"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    noise = Image.effect_noise((64, 64), 60).convert("RGB")
    noise.save(tmp_path / "source.png")
    noise.point(lambda level: level // 2).save(tmp_path / "darker.png")
    return tmp_path


def write_rows(folder: Path, *rows: tuple[str, str, str]) -> str:
    lines = [json.dumps(dict(zip(("source", "edited", "instruction"), row, strict=True))) for row in rows]
    (folder / "edits.jsonl").write_text("\n".join(lines))
    return str(folder / "edits.jsonl")


def score(*arguments: object) -> int:
    return main(["score", "--verifier", "measure", "--decomposer", "rules", *(str(each) for each in arguments)])


class TestMany:
    def test_all_judged_is_exit_status_0_and_a_summary(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = write_rows(folder, ("source.png", "darker.png", DARKER), ("source.png", "source.png", DARKER))
        assert score("--input", path, "--output", folder / "out") == 0
        first, last = capsys.readouterr().out.splitlines()
        assert first == "2 edits: 2 scored, 0 not judged"
        assert re.fullmatch(r"mean score: [45]\.\d\d of 10", last)
        assert score("--input", path, "--output", folder / "out") == 0
        assert "0 not judged (2 of them before)" in capsys.readouterr().out

    def test_some_not_judged_is_exit_status_3_with_the_reasons(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = write_rows(folder, ("source.png", "darker.png", DARKER), ("source.png", "\x1b[31m.png", DARKER))
        assert score("--input", path, "--output", folder / "out", "--json") == 3
        summary = json.loads(capsys.readouterr().out)
        assert (summary["scored"], summary["failed"], summary["failures"]) == (1, 1, {"bad_image": 1})
        assert score("--input", path, "--output", folder / "out", "--retry-failed") == 3
        assert capsys.readouterr().out.splitlines()[1] == "       1  bad_image"

    def test_images_may_lie_elsewhere(self, folder: Path) -> None:
        (folder / "rows").mkdir()
        path = write_rows(folder / "rows", ("source.png", "darker.png", DARKER))
        assert score("--input", path, "--output", folder / "out") == 3
        assert score("--input", path, "--output", folder / "other", "--images", folder) == 0

    def test_a_terminal_shows_a_bar(self, folder: Path) -> None:
        path = write_rows(folder, ("source.png", "darker.png", DARKER))
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        command = [sys.executable, "-m", "editr1_plugins", "score", "--input", path, "--output", str(folder / "out")]
        subprocess.run([*command, "--verifier", "measure"], stderr=theirs, stdout=subprocess.PIPE, check=True)
        os.write(theirs, b"END")
        shown = ""
        while "END" not in shown:
            shown += os.read(ours, 10_000).decode()
        os.close(theirs)
        os.close(ours)
        assert re.search(r"1/1 .*mean 9\.\d+, 0 not judged", shown)

    @pytest.mark.parametrize(
        "arguments",
        [
            ["--input", "edits.jsonl"],
            ["--output", "out"],
            ["a", "b", "c", "--input", "edits.jsonl", "--output", "out"],
            ["--probe", "a", "b", "c"],
            ["--probe", "--input", "edits.jsonl", "--output", "out"],
        ],
    )
    def test_usage_errors(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert score(*arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("usage: editr1 score")
        assert error.splitlines()[-1].startswith("editr1: error: ")

    def test_bad_input_is_exit_status_2(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = write_rows(folder, ("source.png", "darker.png", DARKER))
        assert score("--input", folder / "absent.jsonl", "--output", folder / "out") == 2
        assert score("--input", path, "--output", path) == 2
        assert score("--input", path, "--output", folder / "out", "--batch-size", 0) == 2
        assert capsys.readouterr().err.count("editr1: error: ") == 3


class TestProbe:
    def test_a_judge_that_gives_nothing_for_nothing_passes(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert score("--probe", "--count", 3) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 4
        assert re.match(r" +0\.00  [a-z ]+$", lines[0])
        assert re.match(r"probe: 3 of 3 .* highest 0\.00 of 10; 0 above 1: passed$", lines[-1])

    def test_a_judge_that_pays_for_unchanged_pictures_is_exit_status_4_with_the_scores(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = write_rows(folder, ("source.png", "unused.png", DARKER), ("darker.png", "unused.png", DARKER))
        with JudgeServer("<score>8.5</score>") as server:
            judge = ["--probe", "--input", path, "--verifier", f"openai:tiny@{server.url}"]
            assert score(*judge, "--json") == 4
            report = json.loads(capsys.readouterr().out)
            assert [probe["score"] for probe in report["probes"]] == [8.5, 8.5]
            assert (report["passed"], report["highest"]) == (False, 8.5)
            assert score(*judge, "--limit", 9) == 0
            sent = server.requests[0].images
        assert len(sent) == 2
        assert sent[0] == sent[1]

    def test_a_judge_that_says_nothing_is_exit_status_3(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = write_rows(folder, ("source.png", "", "let the spoon smile"))
        assert score("--probe", "--input", path) == 3
        assert capsys.readouterr().out.splitlines()[-1] == "probe: none of 1 unchanged pictures was judged"

    def test_a_probe_needs_good_rows(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert score("--probe", "--input", write_rows(folder, ("source.png", "", " "))) == 2
        assert "line 1: 'edited', 'instruction' must be" in capsys.readouterr().err
        assert score("--probe", "--input", write_rows(folder, ("../x.png", "", DARKER))) == 2
        assert score("--probe", "--input", write_rows(folder)) == 2
        assert score("--probe", "--count", 0) == 2
