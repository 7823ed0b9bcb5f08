"""What the READMEs show is what the code does: commands exist, code runs, outputs are the real ones.

Marks, each on its own line before a fenced block:

    <!-- run: NAME -->     Python; all blocks of a NAME run one after the other, in one process
    <!-- output: NAME -->  what the block of NAME before it prints
    <!-- check -->         lines that begin with "$ " are run, and print the lines that follow them
    <!-- command: NAME --> one command for a fresh machine; too long for a test, so its parts are checked
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from editr1_plugins.testing.language import save_tiny_language_model

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parent.parent.parent
READMES = [ROOT / "README.md", ROOT / "editr1_plugins" / "README.md", ROOT / "examples/third_party_plugin/README.md"]
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^>]*?) -->\n)?^```(?P<language>\w*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL
)


def blocks(path: Path, mark: str) -> list[str]:
    return [found["body"] for found in BLOCK.finditer(path.read_text()) if found["mark"] == mark]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder as a reader has it: the pictures of `docs/`, and the examples that commands name."""
    for folder in ("docs", "examples/edits", "examples/judge"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    return tmp_path


def environment() -> dict[str, str]:
    """No installed plugin of the machine, no settings of ours, no network, no accelerator."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EDITR1_")}
    return {
        **kept,
        "EDITR1_LOAD_PLUGINS": "",
        "HF_HUB_OFFLINE": "1",
        "ACCELERATE_USE_CPU": "true",
        "WANDB_MODE": "disabled",
    }


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)


# The blocks share a namespace, whose own `print` is told from what the libraries they call print.
RUNNER = """
import json

said = []
namespace = {"__name__": "tour", "print": lambda *words: said[-1].append(" ".join(map(str, words)))}
for body in json.load(open("tour.json")):
    said.append([])
    exec(compile(body, "README.md", "exec"), namespace)
json.dump(said, open("said.json", "w"))
"""


def test_the_tour_runs_and_prints_what_it_says(place: Path) -> None:
    code: list[str] = []
    expected: list[list[str]] = []
    for found in BLOCK.finditer((ROOT / "README.md").read_text()):
        if found["mark"] == "run: tour":
            code.append(found["body"])
            expected.append([])
        elif found["mark"] == "output: tour":
            expected[-1] = _tidy(found["body"])
    assert len(code) >= 4
    save_tiny_language_model(place / "tiny-policy")
    (place / "tour.json").write_text(json.dumps(code))
    done = run([sys.executable, "-c", RUNNER], place)
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads((place / "said.json").read_text())
    assert [_tidy("\n".join(lines)) for lines in said] == expected


def _tidy(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_console_blocks_show_the_real_output(path: Path, place: Path) -> None:
    for body in blocks(path, "check"):
        commands = [part for part in re.split(r"^\$ ", body, flags=re.MULTILINE) if part]
        assert commands
        for part in commands:
            line, _, expected = part.partition("\n")
            program, *arguments = shlex.split(line)
            assert program == "editr1"
            done = run([sys.executable, "-m", "editr1_plugins", *arguments], place)
            assert _tidy(done.stdout) == _tidy(expected), f"$ {line}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_block_of_code_is_marked(path: Path) -> None:
    for found in BLOCK.finditer(path.read_text()):
        if found["language"] in ("python", "console", "bash"):
            assert found["mark"], f"not marked: {found['body'][:80]!r}"


class TestTwoCommands:
    @pytest.mark.parametrize("name", ["demo", "tests"])
    def test_each_is_one_line_that_makes_its_environment(self, name: str) -> None:
        [command] = blocks(ROOT / "README.md", f"command: {name}")
        assert command.count("\n") == 1
        steps = command.strip().split(" && ")
        assert steps[0] == "python3 -m venv .venv"
        assert all(step.startswith(".venv/bin/") for step in steps[1:])

    def test_what_they_install_exists(self) -> None:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        for name in ("demo", "tests"):
            [command] = blocks(ROOT / "README.md", f"command: {name}")
            pip = shlex.split(command.split(" && ")[1])
            assert pip[:2] == [".venv/bin/pip", "install"]
            assert (ROOT / pip[pip.index("-c") + 1]).is_file()
            wanted = re.fullmatch(r"\.(?:\[([a-z,]+)\])?", pip[-1])
            assert wanted is not None
            assert set((wanted[1] or "").split(",")) - {""} <= extras.keys()

    def test_the_demo_is_a_command(self) -> None:
        [command] = blocks(ROOT / "README.md", "command: demo")
        line = shlex.split(command.split(" && ")[-1])
        done = run([sys.executable, "-m", "editr1_plugins", *line[1:], "--help"], ROOT)
        assert done.returncode == 0, done.stderr

    def test_ci_runs_the_test_command(self) -> None:
        [command] = blocks(ROOT / "README.md", "command: tests")
        [line] = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line.startswith("tests=$(awk ")]
        done = run(["bash", "-c", f'{line}; echo "$tests"'], ROOT)
        assert done.stdout == command


@pytest.mark.parametrize("path", [*READMES, ROOT / "CONTRIBUTING.md"], ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_pictures_exist(path: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{path.name} links to {target}, which does not exist"


def test_commands_in_the_table_are_there() -> None:
    from editr1_plugins.cli import COMMANDS

    [row] = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| Command line |")]
    there, missing = ({word.split()[-1] for word in re.findall(r"`([^`]+)`", cell)} for cell in row.split("|")[2:4])
    assert there == set(COMMANDS)
    assert not missing & set(COMMANDS)
