"""Bulk judging: every row once, whatever happens; nothing outside the folder; a bad row is a row."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from editr1_plugins.errors import ConfigError, DataError, ImageError
from editr1_plugins.reward.bulk import BulkSummary, latest_records, score_file
from editr1_plugins.reward.edit_rows import MAX_LINE, file_below, read_edit_rows
from editr1_plugins.reward.journal import RecordWriter, read_records
from editr1_plugins.testing.judge_server import JudgeServer, Received, Scripted
from editr1_plugins.types import FOLLOW, Edit, Principle, Verification


class Questions:
    identity = "questions/1"

    def decompose(self, requests: Sequence[tuple[Image.Image, str]]) -> list[tuple[Principle, ...]]:
        return [(Principle(question="Is it red?", category=FOLLOW),)] * len(requests)


class Redness:
    """Scores by the red of the first pixel, 250 is a 10; remembers what it was asked."""

    identity = "redness/1"

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.batches: list[int] = []

    def verify(self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]]) -> list[Verification]:
        levels = [edit.edited.getpixel((0, 0))[0] for edit in edits]
        self.asked += levels
        self.batches.append(len(edits))
        return [
            Verification(score=None, failure="down: 503", samples=0) if level == 7 else Verification(score=level / 25)
            for level in levels
        ]


def make_input(folder: Path, levels: Sequence[int], *more: object) -> Path:
    folder.mkdir(exist_ok=True)
    Image.new("RGB", (8, 8)).save(folder / "source.png")
    rows: list[object] = []
    for level in levels:
        Image.new("RGB", (8, 8), (level, 0, 0)).save(folder / f"{level}.png")
        rows.append({"id": level, "source": "source.png", "edited": f"{level}.png", "instruction": "make it red"})
    path = folder / "edits.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row) for row in [*rows, *more]]
    path.write_text("\n".join(lines) + "\n")
    return path


def by_row(directory: Path) -> dict[Any, dict[str, Any]]:
    return {record["row"]["id"]: record for record in latest_records(directory)}


class TestScoreFile:
    def test_every_row_is_judged_once_and_recorded_with_its_images(self, tmp_path: Path) -> None:
        judge = Redness()
        seen: list[BulkSummary] = []
        path = make_input(tmp_path / "in", [0, 50, 100, 150, 200])
        summary = score_file(
            path,
            tmp_path / "out",
            batch_size=2,
            progress=seen.append,
            verifier=judge,
            decomposer=Questions(),
            guards=(),
        )
        assert summary == BulkSummary(rows=5, scored=5, mean=4.0)
        assert [each.rows for each in seen] == [2, 4, 5]
        assert (sorted(judge.asked), judge.batches) == ([0, 50, 100, 150, 200], [2, 2, 1])
        record = by_row(tmp_path / "out")[150]
        assert (record["score"], record["row"]["line"], record["row"]["edited"]) == (6.0, 4, "150.png")
        with Image.open(tmp_path / "out" / record["edited_image"]) as kept:
            assert kept.getpixel((3, 3)) == (150, 0, 0)
        assert len(list((tmp_path / "out" / "images").iterdir())) == 6 - 1  # level 0 looks like the source

    def test_a_second_run_judges_only_what_is_new(self, tmp_path: Path) -> None:
        out = tmp_path / "out"
        score_file(make_input(tmp_path / "in", [50, 100]), out, verifier=Redness(), decomposer=Questions(), guards=())
        judge = Redness()
        # The order changed, a row came in between, and one is there twice.
        path = make_input(tmp_path / "in", [100, 200, 50, 100])
        summary = score_file(path, out, verifier=judge, decomposer=Questions(), guards=())
        assert (summary.rows, summary.resumed, summary.mean) == (4, 2, pytest.approx(4.5))
        assert judge.asked == [200, 100]
        assert len(list(read_records(out))) == 4

    def test_a_bad_row_is_a_row(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "text.png").write_text("no image")
        good = {"source": "source.png", "edited": "50.png", "instruction": "make it red"}
        bad: list[object] = [
            "{oops",
            "[" * 100_000,
            "[1]",
            b"\xff\xfe".decode("latin-1"),
            {"source": "source.png", "edited": "50.png"},
            good | {"instruction": 5},
            good | {"instruction": "  "},
            good | {"id": "broken", "edited": "text.png"},
            good | {"edited": "absent.png"},
            good | {"edited": "."},
            good | {"source": "a\0b"},
            "x" * (MAX_LINE + 10),
        ]
        path = make_input(tmp_path / "in", [50], *bad, good | {"id": "last"}, "", "  ")
        summary = score_file(path, tmp_path / "out", verifier=Redness(), decomposer=Questions(), guards=())
        assert (summary.rows, summary.scored, summary.failed) == (14, 2, 12)
        assert summary.failures == {"bad_row": 8, "bad_image": 4}
        records = list(read_records(tmp_path / "out"))
        assert sorted(record["row"]["line"] for record in records) == [*range(1, 15)]
        broken = by_row(tmp_path / "out")["broken"]
        assert broken["failure"].startswith("bad_image: ")
        assert "text.png" in broken["failure"]
        assert (broken["score"], broken["source_image"], broken["batch"]) == (None, None, 0)
        again = score_file(path, tmp_path / "out", verifier=Redness(), decomposer=Questions(), guards=())
        assert (again.resumed, again.failures) == (14, summary.failures)

    def test_failed_rows_are_tried_again_when_asked_and_the_last_attempt_counts(self, tmp_path: Path) -> None:
        path, out = make_input(tmp_path / "in", [7, 100]), tmp_path / "out"
        first = score_file(path, out, verifier=Redness(), decomposer=Questions(), guards=())
        assert first.failures == {"down": 1}

        class Up(Redness):
            def verify(self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]]) -> list[Verification]:
                super().verify(edits, principles)
                return [Verification(score=9.0)] * len(edits)

        judge = Up()
        assert score_file(path, out, verifier=judge, decomposer=Questions(), guards=()).failed == 1
        assert judge.asked == []
        summary = score_file(path, out, retry_failed=True, verifier=judge, decomposer=Questions(), guards=())
        assert (judge.asked, summary.scored, summary.mean) == ([7], 2, 6.5)
        assert len(list(read_records(out))) == 3
        assert {row: record["score"] for row, record in by_row(out).items()} == {7: 9.0, 100: 4.0}
        assert score_file(path, out, verifier=judge, decomposer=Questions(), guards=()).mean == 6.5

    def test_another_judge_or_other_records_in_the_directory_are_refused(self, tmp_path: Path) -> None:
        path, out = make_input(tmp_path / "in", [50]), tmp_path / "out"
        score_file(path, out, verifier=Redness(), decomposer=Questions(), guards=())
        other = Redness()
        other.identity = "redness/2"
        with pytest.raises(ConfigError, match=r"another judge \(verifier was 'redness/1', is 'redness/2'\)"):
            score_file(path, out, verifier=other, decomposer=Questions(), guards=())
        with pytest.raises(ConfigError, match="samples was 1, is 3"):
            score_file(path, out, verifier=Redness(), decomposer=Questions(), guards=(), samples=3)
        assert other.asked == []
        (out / "run.json").unlink()
        with pytest.raises(ConfigError, match="records of something else"):
            score_file(path, out, verifier=Redness(), decomposer=Questions(), guards=())

    def test_a_judge_that_moved_is_the_same_judge(self, tmp_path: Path) -> None:
        path, out = make_input(tmp_path / "in", [50]), tmp_path / "out"
        for address, resumed in (("http://one:8000/v1", 0), ("https://two/v1", 1)):
            judge = Redness()
            judge.identity = f"wording/1 by openai:model@{address}"
            assert score_file(path, out, verifier=judge, decomposer=Questions(), guards=()).resumed == resumed

    def test_a_directory_that_is_being_written_is_refused(self, tmp_path: Path) -> None:
        path, out = make_input(tmp_path / "in", [50]), tmp_path / "out"

        class Nested(Redness):
            def verify(self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]]) -> list[Verification]:
                with pytest.raises(ConfigError, match="another run is writing"):
                    score_file(path, out, verifier=Redness(), decomposer=Questions(), guards=())
                return super().verify(edits, principles)

        assert score_file(path, out, verifier=Nested(), decomposer=Questions(), guards=()).scored == 1

    def test_a_full_disk_ends_the_run_and_loses_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path, out = make_input(tmp_path / "in", [50, 100, 150, 200]), tmp_path / "out"
        write, left = RecordWriter.write, [3]

        def full(self: RecordWriter, *arguments: Any) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            write(self, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(RecordWriter, "write", full)
            with pytest.raises(OSError, match="No space left"):
                score_file(path, out, batch_size=2, verifier=Redness(), decomposer=Questions(), guards=())
        judge = Redness()
        assert score_file(path, out, verifier=judge, decomposer=Questions(), guards=()).resumed == 3
        assert judge.asked == [200]

    def test_a_batch_is_bounded_by_pixels_and_a_group_shares_its_source(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("editr1_plugins.reward.bulk._BATCH_BYTES", 3 * 64 * 4)
        sources: list[int] = []

        class Watching(Redness):
            def verify(self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]]) -> list[Verification]:
                sources.append(len({id(edit.source) for edit in edits}))
                return super().verify(edits, principles)

        judge = Watching()
        path = make_input(tmp_path / "in", [10, 20, 30, 40, 50])
        score_file(path, tmp_path / "out", verifier=judge, decomposer=Questions(), guards=())
        assert (judge.batches, sources) == ([3, 2], [1, 1])

    def test_an_answer_that_is_no_json_is_a_row_without_score(self, tmp_path: Path) -> None:
        class Odd(Redness):
            def verify(self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]]) -> list[Verification]:
                return [Verification(score=5.0, trace=object())] * len(edits)  # type: ignore[arg-type]

        summary = score_file(
            make_input(tmp_path / "in", [50]), tmp_path / "out", verifier=Odd(), decomposer=Questions(), guards=()
        )
        assert summary.failures == {"unwritable": 1}

    def test_what_cannot_start_says_why(self, tmp_path: Path) -> None:
        path = make_input(tmp_path / "in", [50])
        with pytest.raises(DataError, match=r"no file .*absent"):
            score_file(tmp_path / "absent.jsonl", tmp_path / "out")
        with pytest.raises(ConfigError, match="batch_size must be at least 1"):
            score_file(path, tmp_path / "out", batch_size=0)
        with pytest.raises(ConfigError, match="no verifier 'mesure'"):
            score_file(path, tmp_path / "out", verifier="mesure")


class TestNames:
    @pytest.mark.parametrize(
        ("name", "why"),
        [
            ("/etc/passwd", "absolute"),
            ("C:\\x.png", "absolute"),
            ("\\\\host\\share\\x.png", "absolute"),
            ("../x.png", "holds '..'"),
            ("a/../../x.png", "holds '..'"),
            ("a\\..\\x.png", "holds '..'"),
            ("https://example.org/x.png", "nothing is ever fetched"),
            ("file:///etc/passwd", "nothing is ever fetched"),
            ("link/passwd", "leads out"),
            ("a\0b", "no file name"),
        ],
    )
    def test_no_name_leads_out_of_the_folder(self, tmp_path: Path, name: str, why: str) -> None:
        (tmp_path / "link").symlink_to("/etc")
        with pytest.raises(ImageError, match=why):
            file_below(tmp_path, name)

    def test_names_below_it_are_found(self, tmp_path: Path) -> None:
        assert file_below(tmp_path, "a/b c..d.png") == tmp_path.resolve() / "a" / "b c..d.png"

    def test_an_endless_line_costs_no_memory_and_its_successor_is_read(self, tmp_path: Path) -> None:
        good = json.dumps({"source": "a", "edited": "b", "instruction": "c", "id": "x"}).encode()
        (tmp_path / "rows").write_bytes(b"\xef\xbb\xbf" + good + b"\n" + b"y" * (3 * MAX_LINE) + b"\n\n" + good)
        rows = list(read_edit_rows(tmp_path / "rows"))
        assert [(row.number, row.identifier, row.problem is None) for row in rows] == [
            (1, "x", True),
            (2, None, False),
            (4, "x", True),
        ]
        assert rows[0].digest == rows[2].digest


class TestKill:
    """A real `kill -9` of the real command, with a real server that knows what it was asked."""

    EDITS = 30

    def start(self, path: Path, out: Path, url: str) -> subprocess.Popen[bytes]:
        judge = ["--verifier", f"openai:tiny@{url}", "--decomposer", "rules", "--batch-size", "3"]
        command = [sys.executable, "-m", "editr1_plugins", "score", "--input", path, "--output", out, *judge, "--json"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "EDITR1_LOAD_PLUGINS": ""})

    def test_no_edit_is_judged_twice_and_none_is_lost(self, tmp_path: Path) -> None:
        asked: list[int] = []

        def answer(request: Received) -> Scripted:
            level = Image.open(BytesIO(request.images[1])).getpixel((0, 0))[0]  # type: ignore[index]
            asked.append(level)
            return Scripted(text=f"<score>{level / 25:.1f}</score>", latency=0.05)

        path, out = make_input(tmp_path / "in", [8 * at for at in range(1, self.EDITS + 1)]), tmp_path / "out"
        path.write_text(path.read_text().replace("make it red", "make the image darker"))
        kills = 0
        with JudgeServer(answer) as server:
            for enough in (5, 14):
                process = self.start(path, out, server.url)
                while len(asked) < enough and process.poll() is None:
                    time.sleep(0.005)
                process.send_signal(signal.SIGKILL)
                kills += process.wait() == -signal.SIGKILL
                time.sleep(0.2)  # what was on its way
                recorded = {record["row"]["id"] for record in read_records(out)}
                in_flight = len(asked) - len(recorded)
                # What was asked and not recorded is at most the batch in flight, each time.
                assert in_flight <= 3 * kills
            assert kills == 2
            before = Counter(asked)
            process = self.start(path, out, server.url)
            said, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        summary = json.loads(said)
        assert (summary["rows"], summary["scored"], summary["resumed"]) == (self.EDITS, self.EDITS, len(recorded))
        records = list(read_records(out))
        assert sorted(record["row"]["id"] for record in records) == [8 * at for at in range(1, self.EDITS + 1)]
        # No edit that had a record was asked again.
        after = Counter(asked) - before
        assert not recorded & set(after)
        assert set(after.values()) == {1}
