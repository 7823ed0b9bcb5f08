"""The contracts catch what they promise to: one broken plugin per promise, run by pytest as a third party would."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from editr1_plugins.testing import check_plugin_imports_light

PREAMBLE = """
    import time
    from dataclasses import replace

    import pytest
    from PIL import Image

    from editr1_plugins.testing import DecomposerContract, GuardContract, VerifierContract
    from editr1_plugins.types import FOLLOW, Alarm, Edit, NoPrinciples, Principle, Verdict, Verification

    class Judge:
        def verify(self, edits, principles):
            return [self.judge(edit, asked) for edit, asked in zip(edits, principles, strict=True)]

        def judge(self, edit, asked):
            if not asked:
                return Verification(score=None, failure="no principles", samples=0)
            share = edit.edited.resize((1, 1)).getpixel((0, 0))[2] / 255
            verdicts = tuple(Verdict(principle=each, passed=share > 0.5) for each in asked)
            return Verification(score=10 * share, verdicts=verdicts, average=share)

    class Writer:
        def decompose(self, requests):
            return [self.write(image, text) for image, text in requests]

        def write(self, image, text):
            if "circle" not in text:
                return NoPrinciples("only circles")
            return (Principle(question=f"Was it done: {text}?", category=FOLLOW),)

    class Blank:
        needs_judge = False

        def inspect(self, edits, principles, verifications):
            return [self.look(edit) for edit in edits]

        def look(self, edit):
            colours = edit.edited.getcolors(2)
            return Alarm(flag="blank", reason="one colour") if colours and len(colours) == 1 else None

    class TestVerifier(VerifierContract):
        @pytest.fixture
        def verifier(self):
            return Judge()

    class TestDecomposer(DecomposerContract):
        @pytest.fixture
        def decomposer(self):
            return Writer()

    class TestGuard(GuardContract):
        @pytest.fixture
        def guard(self):
            return Blank()

        @pytest.fixture
        def hack(self):
            source = Image.linear_gradient("L").convert("RGB")
            return Edit(source=source, edited=Image.new("RGB", (9, 9)), instruction="x")

        @pytest.fixture
        def honest(self):
            source = Image.linear_gradient("L").convert("RGB")
            return Edit(source=source, edited=source.rotate(90), instruction="x")
"""

# What is wrong -> (text replaced in the plugin above, by what, the test that must fail)
BROKEN = {
    "a verification too few": (
        "zip(edits, principles, strict=True)]",
        "zip(edits, principles)][1:]",
        "one_verification",
    ),
    "a generator": (
        "return [self.judge(edit, asked) for edit, asked in zip(edits, principles, strict=True)]",
        "return (self.judge(edit, asked) for edit, asked in zip(edits, principles, strict=True))",
        "one_verification_per_edit",
    ),
    "floats, not verifications": (
        "return Verification(score=10 * share",
        "return share or Verification(score=1",
        "one_ver",
    ),
    "verdicts in another order": ("for each in asked)", "for each in asked[::-1])", "verdicts_answer"),
    "nothing is ever judged": ("if not asked:", "if True:", "something_can_be_judged"),
    "scores depend on neighbours": (
        "return [self.judge(edit, asked) for edit, asked in zip(edits, principles, strict=True)]",
        "return [replace(self.judge(e, p), trace=str(len(edits))) for e, p in zip(edits, principles, strict=True)]",
        "order_and_neighbours",
    ),
    "scores change with time": ("average=share)", "average=share, trace=str(time.monotonic_ns()))", "order_and_neigh"),
    "an empty batch breaks it": (
        "def verify(self, edits, principles):",
        "def verify(self, edits, principles):\n            edits[0]",
        "an_empty_batch",
    ),
    "tuples break it": (
        "def verify(self, edits, principles):",
        "def verify(self, edits, principles):\n            edits + []",
        "tuples_do_as_well",
    ),
    "the images are painted on": (
        "share = edit",
        "edit.edited.putpixel((0, 0), (1, 2, 3)); share = edit",
        "images_are_not_changed",
    ),
    "a score without principles": ("if not asked:", "if False:", "without_principles"),
    "small images break it": ("share = edit", "1 / (edit.edited.width - 1); share = edit", "other_sizes"),
    "text is a format": ("share = edit", "edit.instruction.format(); share = edit", "hostile_text"),
    "an event loop of its own, wrongly": (
        "def verify(self, edits, principles):",
        "def verify(self, edits, principles):\n            import asyncio; asyncio.run(asyncio.sleep(0))",
        "running_event_loop",
    ),
    "not picklable": (
        "class Judge:",
        "class Judge:\n        def __init__(self): self.lock = lambda: None",
        "can_be_pickled",
    ),
    "an empty tuple without a reason": ('return NoPrinciples("only circles")', "return ()", "says_why"),
    "it raises for what it cannot read": ('return NoPrinciples("only circles")', "raise KeyError(text)", "says_why"),
    "the same question twice": ("category=FOLLOW),)", "category=FOLLOW),) * 2", "no_question_twice"),
    "no Follow principle": ("category=FOLLOW),)", 'category="Image Quality"),)', "has_a_follow_principle"),
    "never alarms": ("len(colours) == 1", "False", "objects_to_the_hack"),
    "always alarms": ("if colours and len(colours) == 1 else None", "", "objects_to_the_hack"),
    "an alarm that changes nothing": ('reason="one colour"', 'reason="one colour", cap=10.0', "lowers_or_voids"),
    "an alarm without reason": ('reason="one colour"', 'reason=" "', "lowers_or_voids"),
    "needs the judge unsaid": (
        "def inspect(self, edits, principles, verifications):",
        "def inspect(self, edits, principles, verifications):\n            verifications[: len(edits)][len(edits) - 1]",
        "objects_to_the_hack",
    ),
}


def run(folder: Path, source: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_plugin.py").write_text(textwrap.dedent(source))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder), "-rfE"]
    return subprocess.run([*command, str(folder)], cwd=folder, capture_output=True, text=True, check=False)


def test_an_honest_plugin_passes(tmp_path: Path) -> None:
    done = run(tmp_path, PREAMBLE)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "skipped" not in done.stdout


@pytest.fixture(scope="module")
def broken_results(tmp_path_factory: pytest.TempPathFactory) -> str:
    # One pytest process for all: a file per broken plugin.
    folder = tmp_path_factory.mktemp("broken")
    for number, (old, new, _) in enumerate(BROKEN.values()):
        assert old in PREAMBLE
        (folder / f"test_broken_{number}.py").write_text(textwrap.dedent(PREAMBLE.replace(old, new)))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--tb=no",
        "--rootdir",
        str(folder),
        "-rfE",
    ]
    return subprocess.run([*command, str(folder)], cwd=folder, capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_fails(broken_results: str, case: str) -> None:
    number, promise = list(BROKEN).index(case), BROKEN[case][2]
    failed = [line for line in broken_results.splitlines() if f"test_broken_{number}.py::" in line]
    assert any(promise in line for line in failed), f"expected {promise}, failed were: {failed}"


def test_a_contract_test_cannot_be_rewritten_only_excused(tmp_path: Path) -> None:
    rewritten = """
    class TestMine(TestVerifier):
        def test_an_empty_batch(self, verifier):
            pass
    """
    done = run(tmp_path, PREAMBLE + rewritten)
    assert done.returncode != 0
    assert "rewrites a contract test; mark it xfail(reason=...) instead" in done.stdout
    excused = rewritten.replace("def test", '@pytest.mark.xfail(reason="the server refuses it")\n        def test')
    assert run(tmp_path, PREAMBLE + excused).returncode == 0


def test_flags_switch_off_what_cannot_hold(tmp_path: Path) -> None:
    sampled = PREAMBLE.replace("average=share)", "average=share, trace=str(time.monotonic_ns()))")
    flags = "(VerifierContract):\n        deterministic = False"
    assert run(tmp_path, sampled.replace("(VerifierContract):", flags)).returncode == 0


class TestImportsLight:
    def test_light(self) -> None:
        check_plugin_imports_light("editr1_plugins.hookspecs")

    def test_heavy_is_named(self) -> None:
        with pytest.raises(AssertionError, match=r"importing email.message loads email; import inside the factory"):
            check_plugin_imports_light("email.message", heavy=("email",))

    def test_broken_is_named(self) -> None:
        with pytest.raises(AssertionError, match=r"no_such_plugin cannot be imported.*ModuleNotFoundError"):
            check_plugin_imports_light("no_such_plugin")
