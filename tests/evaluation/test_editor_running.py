"""Running editors on benchmarks: made once, judged once, any order and share, failures as data, before and after."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmark_folders import Redness, picture, save
from editor_folders import Painter, write_edits, write_gedit, write_kris

from editr1_plugins.errors import ComponentError, ConfigError, DataError
from editr1_plugins.evaluation.editors.catalogue import find_editor_benchmark
from editr1_plugins.evaluation.editors.generating import Progress, made_edits, make_edits
from editr1_plugins.evaluation.editors.items import EditorItem, JudgedEdit, read_judged_edits
from editr1_plugins.evaluation.editors.running import compare_with, evaluate_editor, first_edits, only_make
from editr1_plugins.evaluation.editors.sampling import FolderEditor, PipelineEditor
from editr1_plugins.evaluation.editors.summary import compare_edits, evaluate_edits, moved_most
from editr1_plugins.evaluation.judges import resolve_judge
from editr1_plugins.reward.bulk_rows import BulkSummary
from editr1_plugins.testing.judge_server import JudgeServer, Received
from editr1_plugins.testing.pipelines import tiny_pipeline
from editr1_plugins.types import FOLLOW, KEEP, QUALITY, Edit, Principle, Verdict, Verification

OWN = find_editor_benchmark("edits")
LEVELS = (50, 100, 150, 200)


def evaluate(place: Path, out: Path, editor: Any = None, judge: Any = None, **options: Any) -> dict[str, Any]:
    limit = options.pop("limit", None)
    items = first_edits(OWN, str(place), limit)
    return evaluate_editor(OWN, items, editor or Painter(), judge or Redness(), out, **options)


class TestOnce:
    def test_a_second_run_makes_and_asks_nothing_and_says_the_same(self, tmp_path: Path) -> None:
        place = write_edits(tmp_path, LEVELS)
        first = evaluate(place, tmp_path / "out")
        editor, judge, made, asked = Painter(), Redness(), list[Progress](), list[BulkSummary]()
        again = evaluate(place, tmp_path / "out", editor, judge, making=made.append, judging=asked.append)
        assert (editor.asked, judge.asked) == ([], [])
        assert again == first == json.loads((tmp_path / "out" / "summary.json").read_text())
        assert made[-1] == Progress(made=4, failed=0, resumed=4)
        assert asked[-1].resumed == asked[-1].rows == 4
        assert first["sane"]["mean"]["score"] == pytest.approx(sum(LEVELS) / 4 / 25)

    def test_a_limit_takes_the_first_and_a_later_run_the_rest(self, tmp_path: Path) -> None:
        place = write_edits(tmp_path, LEVELS)
        assert evaluate(place, tmp_path / "out", limit=1)["items"] == 1
        editor, judge = Painter(), Redness()
        assert evaluate(place, tmp_path / "out", editor, judge)["items"] == 4
        assert (editor.asked, judge.asked) == (["e1", "e2", "e3"], [100, 150, 200])

    def test_shards_make_the_same_edits_and_judge_nothing(self, tmp_path: Path) -> None:
        place = write_edits(tmp_path, LEVELS)
        items = first_edits(OWN, str(place), None)
        evaluate(place, tmp_path / "whole")
        for index in (1, 0):
            editor = Painter()
            told = only_make(items, tmp_path / "parts", editor, benchmark=OWN, shard=(index, 2))
            assert told == {"kind": "shard", "shard": [index, 2], "made": 2, "failed": 0}
            assert editor.asked == [f"e{index}", f"e{index + 2}"]
        editor = Painter()
        evaluate(place, tmp_path / "parts", editor)
        assert editor.asked == []
        assert _pictures(tmp_path / "parts") == _pictures(tmp_path / "whole")

    def test_one_directory_one_editor_and_one_judge(self, tmp_path: Path) -> None:
        place = write_edits(tmp_path, LEVELS)
        evaluate(place, tmp_path / "out")
        with pytest.raises(ConfigError, match=r"edits of another editor \(painter was 0, is 5\)"):
            evaluate(place, tmp_path / "out", Painter(5))

        class Other(Redness):
            identity = "redness/2"

        with pytest.raises(ConfigError, match="records of another judge"):
            evaluate(place, tmp_path / "out", judge=Other())
        write_edits(tmp_path, (51, *LEVELS[1:]))
        with pytest.raises(DataError, match="'e0' by another instruction"):
            evaluate(place, tmp_path / "out")

    def test_a_line_cut_by_a_kill_is_made_again(self, tmp_path: Path) -> None:
        place = write_edits(tmp_path, LEVELS)
        evaluate(place, tmp_path / "out")
        [path] = (tmp_path / "out").glob("edits-*.jsonl")
        path.write_bytes(path.read_bytes()[:-10])
        editor, judge = Painter(), Redness()
        evaluate(place, tmp_path / "out", editor, judge)
        # The same pixels: the judge has its answer already.
        assert (editor.asked, judge.asked) == (["e3"], [])
        path.write_bytes(b"{oops}\n" + path.read_bytes())
        with pytest.raises(DataError, match="line 1: not an edit"):
            evaluate(place, tmp_path / "out")

    def test_keys_are_unique(self, tmp_path: Path) -> None:
        place = write_edits(tmp_path, LEVELS)
        place.write_text(place.read_text().replace('"e1"', '"e0"'))
        with pytest.raises(DataError, match="two rows have the key 'e0'"):
            first_edits(OWN, str(place), None)


def _pictures(directory: Path) -> dict[str, str | None]:
    return {key: made.edited for key, made in made_edits(directory).items()}


class TestFailures:
    def test_a_failed_edit_has_no_number_and_is_counted(self, tmp_path: Path) -> None:
        place = write_edits(tmp_path, (50, 99, 7, 150))
        found = evaluate(place, tmp_path / "out")
        assert found["sane"]["failure_rate"] == 50.0
        assert found["sane"]["failures"] == {"edit_failed": 1, "down": 1}
        assert found["sane"]["mean"]["score"] == pytest.approx(4.0)
        assert found["sane"]["range"] == [2.0, 7.0]
        rows = {row.key: row for row in read_judged_edits(tmp_path / "out" / "judged.jsonl")}
        assert "not this one" in str(rows["e1"].failure)
        assert rows["e1"].source is not None
        editor, judge = Painter(), Redness()
        evaluate(place, tmp_path / "out", editor, judge)
        assert (editor.asked, judge.asked) == ([], [])
        evaluate(place, tmp_path / "out", editor, judge, retry_failed=True)
        assert (editor.asked, judge.asked) == (["e1"], [7])

    def test_an_editor_that_never_works_ends_the_run(self, tmp_path: Path) -> None:
        place, editor = write_edits(tmp_path, (99,) * 20), Painter()
        with pytest.raises(ComponentError, match="none of the first 3 edits could be made"):
            evaluate(place, tmp_path / "out", editor)
        assert len(editor.asked) == 3

    def test_a_broken_source_is_a_failed_edit(self, tmp_path: Path) -> None:
        place = write_edits(tmp_path, LEVELS)
        (tmp_path / "source.png").write_bytes(b"no image")
        assert evaluate(place, tmp_path / "out")["sane"]["failures"] == {"bad_source": 4}

    def test_no_judge_and_no_gold(self, tmp_path: Path) -> None:
        items = first_edits(OWN, str(write_edits(tmp_path, LEVELS)), None)
        with pytest.raises(ConfigError, match="no gold measure: give a verifier"):
            evaluate_editor(OWN, items, Painter(), None, tmp_path / "out")


class TestMadeImages:
    def test_missing_images_are_failures_and_come_later(self, tmp_path: Path) -> None:
        place = write_edits(tmp_path, LEVELS)
        for name, level in (("e0.png", 50), ("e1.jpg", 100), ("unknown.png", 1)):
            save(tmp_path / "made" / name, level)
        found = evaluate(place, tmp_path / "out", FolderEditor(tmp_path / "made"))
        assert found["sane"]["failures"] == {"no_image": 2}
        assert found["sane"]["mean"]["score"] == pytest.approx(3.0)
        save(tmp_path / "made" / "e2.png", 150)
        (tmp_path / "made" / "e3.webp").write_bytes(b"no image")
        judge = Redness()
        found = evaluate(place, tmp_path / "out", FolderEditor(tmp_path / "made"), judge)
        assert found["sane"]["failures"] == {"bad_image": 1}
        assert judge.asked == [150]

    def test_an_image_that_was_replaced_is_judged_anew(self, tmp_path: Path) -> None:
        place = write_edits(tmp_path, LEVELS[:2])
        for number in (0, 1):
            save(tmp_path / "made" / f"e{number}.png", 100)
        evaluate(place, tmp_path / "out", FolderEditor(tmp_path / "made"))
        time.sleep(0.02)
        save(tmp_path / "made" / "e1.png", 200)
        judge = Redness()
        found = evaluate(place, tmp_path / "out", FolderEditor(tmp_path / "made"), judge)
        assert judge.asked == [200]
        assert found["sane"]["mean"]["score"] == pytest.approx(6.0)

    def test_official_places_are_found(self, tmp_path: Path) -> None:
        gedit = find_editor_benchmark("gedit:full")
        folder = write_gedit(tmp_path / "in", [("ps_human", "a1", "en"), ("ps_human", "a1", "cn")])
        save(tmp_path / "made" / "fullset" / "ps_human" / "en" / "a1.png", 50)
        save(tmp_path / "made" / "cn" / "a1.png", 100)
        items = first_edits(gedit, str(folder), None)
        found = evaluate_editor(gedit, items, FolderEditor(tmp_path / "made"), Redness(), tmp_path / "out")
        assert found["sane"]["failure_rate"] == 0.0
        with pytest.raises(ConfigError, match="no folder"):
            FolderEditor(tmp_path / "absent")


class Questions:
    """Three principles, one of each category."""

    identity = "three"

    def decompose(self, requests: Sequence[Any]) -> list[tuple[Principle, ...]]:
        return [tuple(Principle(question=f"{name}?", category=name) for name in (FOLLOW, KEEP, QUALITY))] * len(
            requests
        )


class TestNumbersFromQuestions:
    def test_a_judges_verdicts_become_the_benchmarks_numbers(self, tmp_path: Path) -> None:
        class All:
            identity = "all/1"

            def verify(self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]]) -> list[Verification]:
                found = []
                for edit, asked in zip(edits, principles, strict=True):
                    level = int(np.asarray(edit.edited)[0, 0, 0])
                    passed = {FOLLOW: level >= 100, KEEP: level < 200, QUALITY: True}
                    verdicts = tuple(Verdict(principle=each, passed=passed[each.category]) for each in asked)
                    found.append(Verification(score=level / 25, verdicts=verdicts))
                return found

        place = write_edits(tmp_path, LEVELS)
        found = evaluate(place, tmp_path / "out", judge=All(), reward={"decomposer": Questions()})
        rows = {row.key: row.numbers for row in read_judged_edits(tmp_path / "out" / "judged.jsonl")}
        assert rows["e0"] == {"score": 2.0, "follow": 0.0, "keep": 10.0, "quality": 10.0}
        assert rows["e3"] == {"score": 8.0, "follow": 10.0, "keep": 0.0, "quality": 10.0}
        assert found["sane"]["mean"] == {
            "SC": 5.0,
            "PQ": 10.0,
            "O": 5.0,
            "score": 5.0,
            "follow": 7.5,
            "keep": 7.5,
            "quality": 10.0,
        }

    def test_a_viescore_judge_gives_sc_and_pq(self, tmp_path: Path) -> None:
        def grade(request: Received) -> str:
            two = len(request.images) == 2
            return "<follow>8</follow><keep>4</keep>" if two else "<natural>9</natural><clean>9.5</clean>"

        place = write_edits(tmp_path, LEVELS[:2])
        with JudgeServer(grade) as server:
            judge = resolve_judge(f"viescore:judge@{server.url}")
            found = evaluate(place, tmp_path / "out", judge=judge)
        assert found["sane"]["mean"] == {
            "SC": 4.0,
            "PQ": 9.0,
            "O": 6.0,
            "score": 6.0,
            "follow": 8.0,
            "keep": 4.0,
            "quality": 9.0,
        }


@pytest.fixture(scope="module")
def tiny() -> Any:
    pipe, call = tiny_pipeline("kontext", steps=1)
    kept = {name: value for name, value in call.items() if name not in ("image", "prompt", "output_type")}
    return pipe, kept


class TestPipelines:
    def test_seeds_follow_from_keys_alone(self, tmp_path: Path, tiny: Any) -> None:
        pipe, call = tiny
        items = first_edits(OWN, str(write_edits(tmp_path, LEVELS)), None)

        def edits(chosen: Sequence[EditorItem], name: str, seed: int = 0, **options: Any) -> dict[str, str | None]:
            make_edits(chosen, tmp_path / name, PipelineEditor(pipe, call=call, seed=seed), **options)
            return _pictures(tmp_path / name)

        whole = edits(items, "whole")
        assert len(set(whole.values())) == 4
        assert edits(items[::-1], "reversed") == whole
        assert edits(items[2:], "some") == {key: whole[key] for key in ("e2", "e3")}
        assert edits(items, "share", shard=(1, 3)) == {"e1": whole["e1"]}
        assert not set(edits(items, "seed", seed=1).values()) & set(whole.values())

    def test_a_lora_and_settings_are_told(self, tiny: Any) -> None:
        pipe, call = tiny
        settings = PipelineEditor(pipe, call=call, seed=3, told={"model": "m", "lora": "l"}).settings
        assert (settings["pipeline"], settings["seed"], settings["lora"]) == ("FluxKontextPipeline", 3, "l")

    def test_each_process_takes_its_own_accelerator(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import torch

        from editr1_plugins.evaluation.editors.loading import own_device

        monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
        monkeypatch.setattr(torch.accelerator, "device_count", lambda: 4)
        for rank, device in (("0", "cuda:0"), ("3", "cuda:3"), ("5", "cuda:1"), ("", "cuda")):
            monkeypatch.setenv("LOCAL_RANK", rank)
            assert own_device() == device
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
        assert own_device() == "cpu"

    def test_wrong_arguments(self, tiny: Any) -> None:
        pipe, _ = tiny
        with pytest.raises(ConfigError, match="FluxKontextPipeline takes no strengths"):
            PipelineEditor(pipe, call={"strengths": 1})
        with pytest.raises(ConfigError, match="call sets generator"):
            PipelineEditor(pipe, call={"generator": None})
        text_only, _ = tiny_pipeline("flux", lora_rank=0)
        with pytest.raises(ConfigError, match="takes no source image"):
            PipelineEditor(text_only)

    def test_several_sources_reach_a_pipeline_that_takes_them(self, tmp_path: Path) -> None:
        pipe, call = tiny_pipeline("klein_two_sources", steps=1)
        kept = {name: value for name, value in call.items() if name not in ("image", "prompt", "output_type")}
        place = write_kris(tmp_path, {"multi-element_composition": ["1"]})
        for path in (tmp_path / "multi-element_composition").glob("*.png"):
            picture(10, (64, 64)).save(path)
        items = first_edits(find_editor_benchmark("kris"), str(place), None)
        made = make_edits(items, tmp_path / "out", PipelineEditor(pipe, call=kept))
        assert [each.failure for each in made.values()] == [None]


def judged(scores: Sequence[float | None], categories: str) -> list[JudgedEdit]:
    return [
        JudgedEdit(
            key=str(number),
            category=category,
            numbers={} if score is None else {"score": score},
            failure="down: 503" if score is None else None,
        )
        for number, (score, category) in enumerate(zip(scores, categories, strict=True))
    ]


class TestComparison:
    def test_differences_are_of_the_same_edits(self) -> None:
        before, after = judged([1, 2, 3, None, 5], "aabbb"), judged([2, 4, 1, 9, None], "aabbb")
        found = compare_edits(OWN, before, after)
        number = found["numbers"]["score"]
        assert (number["items"], number["before"], number["after"]) == (3, 2.0, round(7 / 3, 4))
        assert number["difference"] == round(1 / 3, 4)
        assert (found["only_before_failed"], found["only_after_failed"]) == (1, 1)
        assert found["by_category"]["a"]["score"]["difference"] == 1.5
        assert found["by_category"]["b"]["score"]["difference"] == -2.0

    def test_the_interval_is_a_bootstrap_of_the_differences(self) -> None:
        draw = np.random.default_rng(0)
        old = draw.uniform(0, 9, 200)
        moves = draw.normal(0.5, 1.0, 200)
        rows = judged(old.tolist(), "a" * 200), judged((old + moves).tolist(), "a" * 200)
        low, high = compare_edits(OWN, *rows)["numbers"]["score"]["interval"]
        # Of the differences, not of the two means: these spread five times as far.
        spread = 1.96 * moves.std() / 200**0.5
        assert low == pytest.approx(moves.mean() - spread, abs=0.04)
        assert high == pytest.approx(moves.mean() + spread, abs=0.04)

    def test_what_moved_most(self) -> None:
        before, after = judged([5, 5, 5, 5, None], "aaaaa"), judged([7, 9, 5, 1, 3], "aaaaa")
        moved = moved_most(OWN, before, after, 1)
        assert [(round(each[0], 2), each[2].key) for each in moved["up"]] == [(4.0, "1")]
        assert [(round(each[0], 2), each[2].key) for each in moved["down"]] == [(-4.0, "3")]

    def test_nothing_in_common(self) -> None:
        with pytest.raises(DataError, match="no edit in common"):
            compare_edits(OWN, judged([1], "a"), [JudgedEdit(key="x", numbers={"score": 1.0})])
        with pytest.raises(DataError, match="no rows"):
            evaluate_edits(OWN, [])

    def test_a_comparison_keeps_the_other_runs_pictures(self, tmp_path: Path) -> None:
        place = write_edits(tmp_path, LEVELS)
        evaluate(place, tmp_path / "old")
        evaluate(place, tmp_path / "new", Painter(20))
        rows = read_judged_edits(tmp_path / "new" / "judged.jsonl")
        found = compare_with(OWN, rows, tmp_path / "new", tmp_path / "old", None)
        assert found["numbers"]["score"]["difference"] == pytest.approx(0.8)
        first = found["moved"]["up"][0]
        assert first["difference"] == pytest.approx(0.8)
        for name in (first["source"], first["before"]["edited"], first["after"]["edited"]):
            assert (tmp_path / "new" / name).is_file()
        assert found["moved"]["down"] == []


@pytest.mark.slow
def test_kill_and_rerun_repeats_nothing_that_was_made(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "editr1_plugins",
        "eval",
        "editor",
        "--bench",
        "miniedit:60",
        "--model",
        "miniedit",
    ]
    command += ["--verifier", "measure", "--json", "--steps", "12", "--output"]

    def made(out: Path) -> int:
        return sum(path.read_bytes().count(b"\n") for path in out.glob("edits-*.jsonl"))

    out = tmp_path / "out"
    process = subprocess.Popen([*command, str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while made(out) < 8 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = made(out)
    assert 8 <= before < 60
    again = subprocess.run([*command, str(out)], capture_output=True, text=True, check=True)
    assert made(out) == 60
    whole = subprocess.run([*command, str(tmp_path / "whole")], capture_output=True, text=True, check=True)
    one, two = json.loads(again.stdout), json.loads(whole.stdout)
    one.pop("seconds_per_edit"), two.pop("seconds_per_edit")
    assert one == two
    assert _pictures(out) == _pictures(tmp_path / "whole")
    files = {path.name for path in (out / "images").iterdir()}
    assert files == {path.name for path in (tmp_path / "whole" / "images").iterdir()}
