"""Running judges on benchmarks: once per edit, resumable, failures as data, both orders, samples, copies, cost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from benchmark_folders import Redness, picture, save, write_compass, write_imagenhub, write_json_lines

from editr1_plugins.errors import ConfigError, DataError
from editr1_plugins.evaluation.catalogue import find_benchmark, read_predictions
from editr1_plugins.evaluation.items import JudgedPair
from editr1_plugins.evaluation.judges import resolve_judge
from editr1_plugins.evaluation.judging import Prices, evaluate_judge
from editr1_plugins.evaluation.pairwise import Comparison
from editr1_plugins.reward.bulk_rows import BulkSummary
from editr1_plugins.testing.judge_server import JudgeServer, Received, Scripted
from editr1_plugins.types import Edit, Principle, Usage, Verification

SPECS = tuple(("IA", "preference", level + 10, level) for level in (20, 40, 60, 80, 100))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_compass(tmp_path / "in", SPECS)


def compass(folder: Path, out: Path, judge: Any, **options: Any) -> dict[str, Any]:
    return evaluate_judge(find_benchmark("editreward-compass"), str(folder), judge, out, **options)


class TestVerifiers:
    def test_a_second_run_asks_nothing_and_says_the_same(self, folder: Path, tmp_path: Path) -> None:
        first = compass(folder, tmp_path / "out", Redness())
        judge = Redness()
        seen: list[BulkSummary] = []
        again = compass(folder, tmp_path / "out", judge, progress=seen.append)
        assert judge.asked == []
        assert seen[-1].resumed == seen[-1].rows == 10
        first.pop("taken")
        again.pop("taken")
        assert again == first

    def test_a_limit_takes_the_first_rows_and_a_later_run_the_rest(self, folder: Path, tmp_path: Path) -> None:
        assert compass(folder, tmp_path / "out", Redness(), limit=2)["items"] == 2
        judge = Redness()
        assert compass(folder, tmp_path / "out", judge)["items"] == 5
        assert sorted(judge.asked) == [60, 70, 80, 90, 100, 110]

    def test_failed_edits_are_tried_again_when_asked(self, tmp_path: Path) -> None:
        folder = write_compass(tmp_path / "in", [("IA", "preference", 200, 7)])
        assert compass(folder, tmp_path / "out", Redness())["sane"]["accuracy"] == 0.0

        class Up(Redness):
            def verify(self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]]) -> list[Verification]:
                return [Verification(score=2.0)] * len(super().verify(edits, principles))

        judge = Up()
        assert compass(folder, tmp_path / "out", judge)["sane"]["failure_rate"] == 100.0
        assert compass(folder, tmp_path / "out", judge, retry_failed=True)["sane"]["accuracy"] == 100.0
        assert judge.asked == [7]

    def test_a_broken_picture_is_a_failed_pair(self, folder: Path, tmp_path: Path) -> None:
        next(folder.glob("0-loser*")).write_bytes(b"no image")
        next(folder.glob("1-winner*")).unlink()
        found = compass(folder, tmp_path / "out", Redness())
        assert found["sane"]["failures"] == {"bad_image": 2}
        assert (found["items"], found["sane"]["accuracy"]) == (5, 60.0)

    def test_a_judge_that_raises_costs_only_its_rows(self, folder: Path, tmp_path: Path) -> None:
        class Moody(Redness):
            def verify(self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]]) -> list[Verification]:
                if any(edit.edited.getpixel((0, 0))[0] == 60 for edit in edits):
                    raise RuntimeError("not this one")
                return super().verify(edits, principles)

        found = compass(folder, tmp_path / "out", Moody())
        assert found["sane"]["accuracy"] == 80.0
        assert found["sane"]["failure_rate"] == 20.0

    def test_another_judge_or_benchmark_needs_another_directory(self, folder: Path, tmp_path: Path) -> None:
        compass(folder, tmp_path / "out", Redness())

        class Other(Redness):
            identity = "redness/2"

        with pytest.raises(ConfigError, match="records of another judge"):
            compass(folder, tmp_path / "out", Other())
        row = {"source": save(folder / "a.png", 1), "winner": "a.png", "loser": "a.png", "instruction": "x"}
        path = str(write_json_lines(folder / "p.jsonl", [row]))
        with pytest.raises(ConfigError, match="benchmark was 'editreward-compass'"):
            evaluate_judge(find_benchmark("pairs"), path, Redness(), tmp_path / "out")

    def test_samples_are_kept_apart_and_their_mean_counts(self, tmp_path: Path) -> None:
        folder = write_compass(tmp_path / "in", [("IA", "preference", 200, 100), ("IA", "preference", 150, 50)])

        class Noisy(Redness):
            """The first sample of every edit gets nothing for the better one."""

            def verify(self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]]) -> list[Verification]:
                sure = super().verify(edits, principles)
                seen: Counter[int] = Counter(self.asked[: -len(edits)])
                found = []
                for edit, each in zip(edits, sure, strict=True):
                    level = edit.edited.getpixel((0, 0))[0]
                    found.append(Verification(score=0.0) if level >= 150 and not seen[level] else each)
                    seen[level] += 1
                return found

        found = compass(folder, tmp_path / "out", Noisy(), samples=4, batch_size=3)
        assert found["stability"]["1"]["accuracy"] == 0.0
        assert found["stability"]["4"]["accuracy"] == 100.0
        assert found["stability"]["4"]["agreement"] == 0.0
        assert found["sane"]["accuracy"] == 100.0
        assert found["spread"] > 1.0

    def test_samples_of_ratings_have_correlations(self, tmp_path: Path) -> None:
        place = write_imagenhub(
            tmp_path / "in", {"CycleDiffusion": [10, 20, 30, 40]}, {"CycleDiffusion": [0, 0, 0.5, 1]}
        )
        found = evaluate_judge(find_benchmark("imagenhub"), str(place), Redness(), tmp_path / "out", samples=4)
        assert list(found["stability"]) == ["1", "2", "4"]
        assert {row["O"] for row in found["stability"].values()} == {found["sane"]["correlation"]["O"]}
        assert found["stability"]["4"]["failures"] == 0
        assert found["spread"] == 0

    def test_unchanged_sources_are_judged_as_edits_once_each(self, folder: Path, tmp_path: Path) -> None:
        judge = Redness()
        found = compass(folder, tmp_path / "out", judge, copies=3)
        assert found["copies"] == {"judged": 1, "unjudged": 0, "mean": 0.0, "highest": 0.0, "above_1": 0}
        assert judge.asked.count(0) == 1

        class Generous(Redness):
            identity = "generous"

            def verify(self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]]) -> list[Verification]:
                return [Verification(score=9.0)] * len(edits)

        assert compass(folder, tmp_path / "out2", Generous(), copies=3)["copies"]["above_1"] == 1

    def test_cost_and_latency(self, folder: Path, tmp_path: Path) -> None:
        class Metered(Redness):
            def verify(self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]]) -> list[Verification]:
                time.sleep(0.05)
                usage = Usage(prompt_tokens=1000, cached_tokens=400, completion_tokens=200, latency=0.5)
                return [Verification(score=5.0, usage=usage)] * len(super().verify(edits, principles))

        prices = Prices(prompt=2.0, completion=10.0, cached=0.5)
        taken = compass(folder, tmp_path / "out", Metered(), prices=prices, batch_size=5)["taken"]
        assert taken["cost_per_1000"] == pytest.approx(600 * 2 / 1000 + 400 * 0.5 / 1000 + 200 * 10 / 1000)
        assert (taken["calls"], taken["latency_p50"], taken["latency_p95"]) == (10, 0.5, 0.5)
        assert 10 <= taken["seconds_per_1000"] < 1000
        assert compass(folder, tmp_path / "out", Metered())["taken"]["cost_per_1000"] is None

    @pytest.mark.parametrize(("option", "value"), [("batch_size", 0), ("samples", 0), ("copies", -1)])
    def test_bad_arguments(self, folder: Path, tmp_path: Path, option: str, value: int) -> None:
        with pytest.raises(ConfigError, match=option):
            compass(folder, tmp_path / "out", Redness(), **{option: value})

    def test_samples_that_cannot_differ_are_refused(self, folder: Path, tmp_path: Path) -> None:
        for options in ({}, {"temperature": 0.7, "seed": 1}):
            judge = resolve_judge("viescore:m@http://127.0.0.1:9/v1", **options)
            with pytest.raises(ConfigError, match="are all the same"):
                compass(folder, tmp_path / "out", judge, samples=4)

    def test_what_was_written_is_read_as_predictions(self, folder: Path, tmp_path: Path) -> None:
        compass(folder, tmp_path / "out", Redness())
        benchmark = find_benchmark("editreward-compass")
        for path in (tmp_path / "out", tmp_path / "out" / "judged.jsonl"):
            rows = read_predictions(benchmark, path, None)
            assert [row.outcome() for row in rows if isinstance(row, JudgedPair)] == [1] * 5


class Reader:
    """Prefers the redder edit; a bias makes it take the first place where the two are near; fails at level 7."""

    def __init__(self, bias: int = 0) -> None:
        self.bias, self.identity = bias, f"reader/{bias}"
        self.shown: list[tuple[int, int]] = []

    def compare(self, pairs: Sequence[tuple[Edit, Edit]]) -> list[Comparison]:
        found = []
        for first, second in pairs:
            one, two = first.edited.getpixel((0, 0))[0], second.edited.getpixel((0, 0))[0]
            self.shown.append((one, two))
            if 7 in (one, two):
                found.append(Comparison(better=None, failure="no_label"))
            else:
                near = abs(one - two) <= self.bias
                found.append(Comparison(better=1 if near else (one > two) - (one < two), usage=Usage(latency=0.1)))
        return found


class TestComparers:
    def test_both_orders(self, folder: Path, tmp_path: Path) -> None:
        judge = Reader()
        found = compass(folder, tmp_path / "out", judge)
        assert found["sane"]["accuracy"] == 100.0
        assert (30, 20) in judge.shown
        assert (20, 30) in judge.shown
        assert found["sane"]["position_bias"] == {"pairs": 5, "consistent": 100.0, "first": 50.0, "flips": 0.0}

    def test_a_judge_that_looks_at_the_place_is_found_out_and_gets_ties(self, folder: Path, tmp_path: Path) -> None:
        found = compass(folder, tmp_path / "out", Reader(bias=10))
        assert found["sane"]["position_bias"]["flips"] == 100.0
        assert (found["sane"]["accuracy"], found["sane"]["half_credit"]) == (0.0, 50.0)
        once = compass(folder, tmp_path / "out2", Reader(bias=10), both_orders=False)
        assert once["sane"]["accuracy"] == 100.0
        assert "position_bias" not in once["sane"]

    def test_the_worst_are_kept_with_their_pictures(self, folder: Path, tmp_path: Path) -> None:
        class Contrary(Reader):
            def compare(self, pairs: Sequence[tuple[Edit, Edit]]) -> list[Comparison]:
                time.sleep(0.01)
                return [Comparison(better=each.better and -each.better) for each in super().compare(pairs)]

        found = compass(folder, tmp_path / "out", Contrary())
        assert found["taken"]["calls"] == 10
        assert found["taken"]["seconds_per_1000"] > 0
        worst = json.loads((tmp_path / "out" / "worst.json").read_text())
        decided = read_predictions(find_benchmark("editreward-compass"), tmp_path / "out", None)
        assert len(worst) == sum(pair.preference != 0 for pair in decided if isinstance(pair, JudgedPair)) > 0
        for each in worst:
            assert each["wrong"] is None
            names = [each["source"], *(edit["edited"] for edit in each["edits"])]
            assert len(names) == 3
            assert all((tmp_path / "out" / name).is_file() for name in names)
        compass(folder, tmp_path / "right", Reader())
        assert json.loads((tmp_path / "right" / "worst.json").read_text()) == []

    def test_a_second_run_asks_nothing_and_failed_ones_are_tried_when_asked(self, tmp_path: Path) -> None:
        folder = write_compass(tmp_path / "in", [*SPECS, ("VC", "preference", 200, 7)])
        first = compass(folder, tmp_path / "out", Reader(), batch_size=4)
        assert first["sane"]["failures"] == {"no_label": 1}
        judge = Reader()
        seen: list[BulkSummary] = []
        assert compass(folder, tmp_path / "out", judge, progress=seen.append)["sane"] == first["sane"]
        assert judge.shown == []
        assert (seen[-1].resumed, seen[-1].failed) == (12, 2)
        compass(folder, tmp_path / "out", judge, retry_failed=True)
        assert sorted(judge.shown) == [(7, 200), (200, 7)]

    def test_a_line_cut_by_a_kill_is_asked_again(self, folder: Path, tmp_path: Path) -> None:
        compass(folder, tmp_path / "out", Reader())
        [path] = (tmp_path / "out").glob("comparisons-*.jsonl")
        path.write_bytes(path.read_bytes()[:-10])
        judge = Reader()
        assert compass(folder, tmp_path / "out", judge)["sane"]["accuracy"] == 100.0
        assert len(judge.shown) == 1
        path.write_bytes(b"{oops}\n" + path.read_bytes())
        with pytest.raises(DataError, match="line 1: not a comparison"):
            compass(folder, tmp_path / "out", judge)

    def test_whatever_a_judge_does_is_data(self, folder: Path, tmp_path: Path) -> None:
        class Broken:
            identity = "broken"

            def compare(self, pairs: Sequence[tuple[Edit, Edit]]) -> list[Comparison]:
                if len(pairs) > 4:
                    raise RuntimeError("too many")
                return []

        found = compass(folder, tmp_path / "out", Broken(), batch_size=4)
        assert found["sane"]["failures"] == {"judge_error": 5}
        next(folder.glob("0-loser*")).write_bytes(b"no image")
        found = compass(folder, tmp_path / "out2", Reader())
        assert found["sane"]["failures"] == {"bad_image": 1}

    def test_ratings_cannot_be_compared(self, tmp_path: Path) -> None:
        place = write_imagenhub(tmp_path / "in", {"CycleDiffusion": [1, 2]}, {"CycleDiffusion": [0, 1]})
        with pytest.raises(DataError, match="no benchmark of pairs"):
            evaluate_judge(find_benchmark("imagenhub"), str(place), Reader(), tmp_path / "out")

    def test_a_pairwise_judge_takes_no_samples(self, folder: Path, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="no samples"):
            compass(folder, tmp_path / "out", Reader(), samples=2)


@pytest.fixture
def slow_server() -> Iterator[JudgeServer]:
    def answer(request: Received) -> Scripted:
        if "EDIT A" in request.texts:
            return Scripted(text="<better>A</better>", latency=0.15)
        return Scripted(text="<score>5.0</score>", latency=0.15)

    with JudgeServer(answer) as server:
        yield server


@pytest.mark.parametrize("judge", ["openai", "pairwise"])
def test_kill_and_rerun_repeats_nothing_that_was_recorded(tmp_path: Path, slow_server: JudgeServer, judge: str) -> None:
    specs = [("IA", "preference", 2 * number + 1, 2 * number) for number in range(20)]
    folder = write_compass(tmp_path / "in", specs)
    rows = json.loads((folder / "reward_eval.json").read_text())
    for row in rows:
        row["prompt"] = "make the image darker"
    (folder / "reward_eval.json").write_text(json.dumps(rows))
    picture(0)
    command = [sys.executable, "-m", "editr1_plugins", "eval", "judge", "--bench", "editreward-compass"]
    command += ["--data", str(folder), "--verifier", f"{judge}:judge@{slow_server.url}", "--batch-size", "2"]
    command += ["--output", str(tmp_path / "out"), "--json"]
    pattern = "records-*.jsonl" if judge == "openai" else "comparisons-*.jsonl"

    def recorded() -> int:
        return sum(path.read_bytes().count(b"\n") for path in (tmp_path / "out").glob(pattern))

    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while recorded() < 8 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.2)  # what was on its way
    before, asked = recorded(), len(slow_server.requests)
    assert 8 <= before < 40
    result = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=100)
    assert json.loads(result.stdout)["items"] == 20
    assert recorded() == 40
    # Asked twice is at most what was on its way when the process was killed.
    assert len(slow_server.requests) - asked == 40 - before
    assert asked - before <= 2
