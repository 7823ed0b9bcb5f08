from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from editr1_plugins.errors import ConfigError, DataError
from editr1_plugins.images import read_image
from editr1_plugins.reward.journal import RecordWriter, read_records
from editr1_plugins.reward.record import EditRecord, RaisedAlarm, identity_of
from editr1_plugins.types import FOLLOW, Edit, Principle, Verdict, Verification

PRINCIPLE = Principle(question="Is it red?", category=FOLLOW)


def record(trace: str = "looked \ud800 \n closely") -> EditRecord:
    verdict = Verdict(principle=PRINCIPLE, passed=None, reason="too small")
    return EditRecord(
        instruction="make it <red>",
        principles=(PRINCIPLE,),
        verification=Verification(score=7.5, verdicts=(verdict,), trace=trace, flags=("a",), spread=0.5, samples=2),
        judged_score=8.0,
        alarms=(RaisedAlarm(guard="border", flag="a", reason="white", cap=7.5),),
        verifier="measure/1",
        decomposer="rules/1",
        aggregate="score",
        seconds=0.25,
        batch=4,
    )


def edit(level: int = 9) -> Edit:
    source = Image.new("RGB", (5, 4), "red")
    return Edit(source=source, edited=Image.new("RGB", (4, 5), (level, 0, 0)), instruction="make it <red>")


def test_a_record_comes_back_with_its_images(tmp_path: Path) -> None:
    RecordWriter(tmp_path).write(edit(9), record())
    (row,) = read_records(tmp_path)
    assert {name: row[name] for name in ("instruction", "score", "judged_score", "spread", "samples", "trace")} == {
        "instruction": "make it <red>",
        "score": 7.5,
        "judged_score": 8.0,
        "spread": 0.5,
        "samples": 2,
        "trace": "looked \ud800 \n closely",
    }
    assert row["verdicts"] == [{"question": "Is it red?", "category": FOLLOW, "passed": None, "reason": "too small"}]
    assert row["alarms"] == [{"guard": "border", "flag": "a", "reason": "white", "cap": 7.5}]
    kept = read_image(tmp_path / row["edited_image"])
    assert (kept.size, kept.getpixel((0, 0))) == ((4, 5), (9, 0, 0))


def test_the_same_image_is_written_once(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path)
    for level in (1, 2, 1):
        writer.write(edit(level), record())
    RecordWriter(tmp_path).write(edit(2), record())
    assert len(list((tmp_path / "images").iterdir())) == 3
    assert len({row["source_image"] for row in read_records(tmp_path)}) == 1


def test_threads_write_whole_lines(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda at: writer.write(edit(at % 7), record(f"{at} " * 500)), range(100)))
    assert sorted(int(row["trace"].split()[0]) for row in read_records(tmp_path)) == list(range(100))


_ENDLESS = """
import sys
from PIL import Image
sys.path.insert(0, sys.argv[2])
from test_journal import edit, record
from editr1_plugins.reward.journal import RecordWriter
writer = RecordWriter(sys.argv[1])
for at in range(10**9):
    writer.write(edit(at % 250), record(f"{at} " * 2000))
    print(at, flush=True)
"""


def test_killed_processes_lose_no_finished_record(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _ENDLESS, str(tmp_path), str(Path(__file__).parent)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        for process in running:
            assert process.stdout is not None
            while int(process.stdout.readline()) < 20:
                pass
        time.sleep(0.05)
    finally:
        for process in running:
            os.kill(process.pid, signal.SIGKILL)
    said = [int(process.communicate()[0].split()[-1]) for process in running]
    rows = list(read_records(tmp_path))
    assert len(rows) >= sum(said) + 2
    assert all((tmp_path / row["edited_image"]).is_file() for row in rows)


def test_a_cut_last_line_is_skipped_and_a_broken_one_is_named(tmp_path: Path) -> None:
    RecordWriter(tmp_path).write(edit(), record())
    (path,) = tmp_path.glob("*.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:50])
    assert len(list(read_records(tmp_path))) == 1
    path.write_bytes(b"{oops\n" + whole)
    with pytest.raises(DataError, match=r"records-.*jsonl, line 1: not JSON"):
        list(read_records(tmp_path))
    path.write_bytes(b"[1]\n")
    with pytest.raises(DataError, match="not a JSON object"):
        list(read_records(tmp_path))


def test_a_directory_that_cannot_be_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write records to"):
        RecordWriter(tmp_path / "file")
    with pytest.raises(DataError, match="no directory of records"):
        list(read_records(tmp_path / "nowhere"))


def test_a_record_is_json() -> None:
    row = record().as_dict()
    assert json.loads(json.dumps(row, allow_nan=False)) == row


def test_identity_tells_versions_and_keeps_credentials_to_itself() -> None:
    class Named:
        identity = "openai:m@http://user:secret@host:8000/v1#prompt-3"

    class Unnamed:
        pass

    assert identity_of(Named()) == "openai:m@http://host:8000/v1#prompt-3"
    assert identity_of(Unnamed(), "openai:m@https://key@host") == "openai:m@https://host"
    assert identity_of(Unnamed()).endswith(
        "test_journal.test_identity_tells_versions_and_keeps_credentials_to_itself.<locals>.Unnamed"
    )
