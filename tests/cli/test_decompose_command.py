"""`editr1 decompose`: one edit on the screen, many into a cache that a run then finds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from editr1_plugins.cli import decompose
from editr1_plugins.images import read_image
from editr1_plugins.plugins import resolve
from editr1_plugins.principles.cache import SqliteCache, principle_key
from editr1_plugins.reward.record import identity_of

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    import argparse

    monkeypatch.delenv("EDITR1_DECOMPOSER", raising=False)

    def run(*argv: object) -> tuple[int, str]:
        parser = argparse.ArgumentParser()
        decompose.add_arguments(parser)
        status = decompose.run(parser.parse_args([str(each) for each in argv]))
        return status, capsys.readouterr().out

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (16, 16), "red").save(tmp_path / "red.png")
    Image.new("RGB", (16, 16), "green").save(tmp_path / "green.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    return tmp_path


def write_lines(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n\n")
    return path


def test_one_edit_on_the_screen(command: Command, folder: Path) -> None:
    status, out = command(folder / "red.png", "make the red square blue")
    assert status == 0
    assert "Instruction Following" in out
    status, out = command(folder / "red.png", "make the red square blue", "--json")
    shown = json.loads(out)
    assert shown["failure"] is None
    assert {"question", "category"} == set(shown["principles"][0])


def test_what_nobody_understands_says_why(command: Command, folder: Path) -> None:
    status, out = command(folder / "red.png", "qwertz uiop asdf")
    assert status == 3
    assert out.startswith("no principles: ")


def test_many_go_into_a_cache_that_a_run_finds_and_a_second_fill_asks_nobody(command: Command, folder: Path) -> None:
    lines = write_lines(
        folder / "edits.jsonl",
        {"source": "red.png", "instruction": "make the red square blue"},
        {"source": "green.png", "instruction": "make the red square blue", "edited": "ignored.png"},
        {"source": "red.png", "instruction": "qwertz uiop asdf"},
        {"source": "broken.png", "instruction": "make it blue"},
    )
    cache = folder / "cache.sqlite"
    status, out = command("--input", lines, "--cache", cache, "--json")
    report = json.loads(out)
    assert status == 3
    assert (report["seen"], report["made"], report["failed"]) == (3, 2, 1)
    assert sum(report["unreadable"].values()) == 1
    rules = resolve("decomposer", "rules")
    key = principle_key(read_image(folder / "green.png"), "make the red square blue", identity_of(rules, "rules"))
    assert SqliteCache(cache).get(key)
    status, out = command("--input", lines, "--cache", cache)
    assert out.startswith("3 seen, 2 found, 0 made, 1 failed, 1 unreadable\n")


@pytest.mark.parametrize(
    "name", ["../secret.png", "/etc/hostname", "a/../../secret.png", "link.png", "x\x00.png", "http://h/x.png"]
)
def test_a_name_in_the_data_leads_nowhere_else(command: Command, folder: Path, name: str) -> None:
    data = folder / "data"
    data.mkdir()
    Image.new("RGB", (16, 16), "red").save(folder / "secret.png")
    (data / "link.png").symlink_to(folder / "secret.png")
    lines = write_lines(data / "edits.jsonl", {"source": name, "instruction": "make the red square blue"})
    status, out = command("--input", lines, "--cache", folder / "cache.sqlite", "--json")
    assert status == 3
    assert json.loads(out)["seen"] == 0


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["red.png"],
        ["red.png", "make it blue", "--input", "edits.jsonl"],
        ["--input", "edits.jsonl"],
        ["--input", "missing.jsonl", "--cache", "c.sqlite"],
        ["--input", "bad.jsonl", "--cache", "c.sqlite"],
        ["--input", "red.png", "--cache", "red.png"],
        ["red.png", "make it blue", "--decomposer", "nobody"],
    ],
)
def test_wrong_use_is_an_error_that_the_command_line_shows(
    command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str]
) -> None:
    monkeypatch.chdir(folder)
    write_lines(folder / "bad.jsonl", '{"source": "red.png"}')
    with pytest.raises(ValueError, match=r"\w"):
        command(*argv)
