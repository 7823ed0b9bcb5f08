"""`editr1 study`: a study made, answered, and scored from the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from editr1_plugins.cli import main

sys.path.insert(0, str(Path(__file__).parent.parent / "evaluation"))
from study_kit import export, picture, write_rows

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*argv: object) -> tuple[int, str, str]:
        status = main(["study", *(str(each) for each in argv)])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def said(*votes: int) -> dict[str, int]:
    return {f"row-{number}": vote for number, vote in enumerate(votes)}


def test_a_study_from_rows_to_pairs(command: Command, tmp_path: Path) -> None:
    place = write_rows(tmp_path, 5, category=lambda number: "add" if number < 2 else "remove")
    folder = tmp_path / "study"
    status, out, _ = command("make", "--data", place, "--output", folder, "--names", "before", "after")
    assert status == 0
    assert f"{folder}/study.html: 5 items, 0." in out
    assert "which side is before and which after; keep it" in out
    (tmp_path / "in").mkdir()
    export(folder, "ann", said(1, 1, 0, -1, 1), tmp_path / "in" / "1.json")
    export(folder, "bob", said(1, -1, 0, -1), tmp_path / "in" / "2.json")
    status, out, _ = command("score", folder, tmp_path / "in", "--pairs", tmp_path / "pairs")
    assert status == 0
    assert "before against after: 5 items, 2 raters, 1 answers missing" in out
    assert "GSB  +11.1 % [" in out
    assert "G 4  S 2  B 3" in out
    assert "  add     +50.0 %" in out
    assert "bob: 4 answered, 1 not, 1.5 s an item (median)" in out
    assert "majority by item: 2 before, 1 same, 1 after, 1 undecided, 0 unanswered" in out
    assert "pairs: 3 pairs; dropped: 1 same, 1 undecided, 0 unanswered" in out
    status, out, _ = command("score", folder, tmp_path / "in" / "1.json", tmp_path / "in" / "2.json", "--json")
    found = json.loads(out)
    assert status == 0
    assert found["gsb"]["gsb"] == pytest.approx(100 / 9)
    assert found["raters"]["ann"]["gsb"]["good"] == 3
    assert 0 < found["agreement"]["nominal"] < 1
    assert "pairs" not in found


def test_a_study_of_two_folders_takes_their_names(command: Command, tmp_path: Path) -> None:
    place = write_rows(tmp_path, 3)
    for folder, level in (("base", 100), ("tuned", 200)):
        (tmp_path / folder).mkdir()
        for number in range(3):
            picture(number, level).save(tmp_path / folder / f"row-{number}.png")
    (tmp_path / "guide.txt").write_text("Look at details.\n")
    folders = ("--a", tmp_path / "base", "--b", tmp_path / "tuned", "--guide", tmp_path / "guide.txt")
    more = ("--seed", "s", "--limit", 2, "--json")
    status, out, _ = command("make", "--edits", place, *folders, "--output", tmp_path / "study", *more)
    made = json.loads(out)
    assert status == 0
    assert made["systems"] == ["base", "tuned"]
    assert (made["items"], made["left_out"]) == (2, 1)
    assert "Look at details." in Path(made["page"]).read_text()
    assert "tuned" not in Path(made["page"]).read_text()


def test_a_study_of_two_evaluations_takes_their_edits(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = write_rows(tmp_path, 2)
    for name, level in (("base", 100), ("tuned", 200)):
        (tmp_path / f"{name}-images").mkdir()
        for number in range(2):
            picture(number, level).save(tmp_path / f"{name}-images" / f"row-{number}.png")
        run = ["--bench", "edits", "--data", str(place), "--images", str(tmp_path / f"{name}-images")]
        assert main(["eval", "editor", *run, "--verifier", "measure", "--output", str(tmp_path / name)]) in (0, 3)
    capsys.readouterr()
    runs = ("--a", tmp_path / "base", "--b", tmp_path / "tuned")
    status, out, _ = command("make", *runs, "--output", tmp_path / "study", "--json")
    assert (status, json.loads(out)["systems"], json.loads(out)["items"]) == (0, ["base", "tuned"], 2)
    key = json.loads((tmp_path / "study" / "key.json").read_text())
    for item in key["items"]:
        levels = [Image.open(tmp_path / "study" / item[name]).getpixel((0, 0))[1] for name in ("source", "a", "b")]
        assert levels == [0, 100, 200]
    # One that failed in one of the two is never left out in silence.
    rows = [json.loads(line) for line in (tmp_path / "tuned" / "judged.jsonl").read_text().splitlines()]
    rows[1] |= {"edited": None, "numbers": {}, "failure": "edit_failed: x"}
    (tmp_path / "tuned" / "judged.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    status, _, said = command("make", *runs, "--output", tmp_path / "other")
    assert status == 2
    assert "tuned lacks the images of 1 of 2 edits: row-1" in said
    status, _, said = command("make", "--a", tmp_path, "--b", tmp_path / "tuned", "--output", tmp_path / "other")
    assert (status, "holds no judged.jsonl" in said) == (2, True)


def test_bad_input_is_exit_status_2_and_one_line(command: Command, tmp_path: Path) -> None:
    place = write_rows(tmp_path, 2)
    folder = tmp_path / "study"
    for argv, words in [
        (("make", "--output", folder), "give --data, or --edits with --a and --b"),
        (("make", "--data", place, "--a", tmp_path, "--output", folder), "give --data"),
        (("make", "--edits", place, "--a", tmp_path, "--output", folder), "give --data"),
        (("make", "--data", tmp_path / "absent.jsonl", "--output", folder), "no file or folder"),
        (("make", "--data", place, "--names", "x", "x", "--output", folder), "different names"),
        (("make", "--data", place, "--guide", tmp_path / "absent", "--output", folder), "absent cannot be read"),
        (("score", folder, place), "is no study"),
    ]:
        status, _, err = command(*argv)
        assert status == 2, argv
        assert words in err
        assert err.count("\n") == 1
    assert command("make", "--data", place, "--output", folder)[0] == 0
    status, _, err = command("make", "--data", place, "--output", folder)
    assert status == 2
    assert "holds a study already" in err
    changed = export(folder, "ann", said(1, 1), change={"rater": "bob"})
    status, _, err = command("score", folder, changed)
    assert status == 2
    assert "was changed after it was exported" in err


def test_a_rater_without_answers_is_told_so(command: Command, tmp_path: Path) -> None:
    place = write_rows(tmp_path, 2)
    assert command("make", "--data", place, "--output", tmp_path / "study")[0] == 0
    status, out, _ = command("score", tmp_path / "study", export(tmp_path / "study", "ann", {}))
    assert status == 0
    assert "GSB  no answers" in out
    assert "nominal not defined" in out
