"""Editors' benchmarks: exact schemas, and the official arithmetic against an independent count."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from benchmark_folders import write_json_lines, write_parquet
from editor_folders import (
    GEDIT,
    gedit_rows,
    write_gedit,
    write_gedit_scores,
    write_imgedit,
    write_kris,
    write_rise,
)

from editr1_plugins.errors import ConfigError, DataError
from editr1_plugins.evaluation.catalogue import find_benchmark
from editr1_plugins.evaluation.editors.catalogue import find_editor_benchmark, read_recorded_edits
from editr1_plugins.evaluation.editors.gedit import TASKS
from editr1_plugins.evaluation.editors.items import EditorBenchmark, JudgedEdit, read_judged_edits, write_judged_edits
from editr1_plugins.evaluation.editors.parts import five_point, parts_of_record, semantic_numbers
from editr1_plugins.evaluation.editors.summary import evaluate_edits


def recorded(name: str, path: Path, place: Path | None = None) -> tuple[list[JudgedEdit], dict[str, Any]]:
    benchmark = find_editor_benchmark(name)
    rows = read_recorded_edits(benchmark, path, None if place is None else str(place))
    return rows, evaluate_edits(benchmark, rows)


class TestGEdit:
    def test_languages(self, tmp_path: Path) -> None:
        folder = write_gedit(
            tmp_path, [("ps_human", "a1", "en"), ("ps_human", "b1", "cn"), ("text_change", "c0", "en")]
        )
        found = {
            which: list(find_editor_benchmark(f"gedit:{which}").edits(str(folder))) for which in ("en", "cn", "full")
        }
        assert [item.key for item in found["en"]] == ["en/a1", "en/c0"]
        assert [item.key for item in found["cn"]] == ["cn/b1"]
        assert [item.key for item in found["full"]] == ["en/a1", "cn/b1", "en/c0"]
        assert find_editor_benchmark("gedit").name == "gedit:en"
        # A bare key could stand for an edit of either language.
        assert found["en"][0].names[0] == "a1"
        assert "a1" not in found["full"][0].names

    def test_the_editor_gets_the_raw_image_and_the_judge_the_resized_one(self, tmp_path: Path) -> None:
        [item] = find_editor_benchmark("gedit").edits(str(write_gedit(tmp_path, [("ps_human", "a1", "en")])))
        sources = item.read()
        assert ([image.size for image in sources.given], sources.shown.size) == ([(16, 8)], (8, 8))
        assert item.tags == {"language": "en", "intersection": "yes"}

    def test_zh_is_not_a_language_of_the_data(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"Chinese is 'cn' in the data, not 'zh'"):
            find_editor_benchmark("gedit:zh")
        folder = write_gedit(tmp_path, [("ps_human", "a1", "zh")])
        with pytest.raises(DataError, match="'instruction_language' must be en or cn, not 'zh'"):
            list(find_editor_benchmark("gedit:cn").edits(str(folder)))

    @pytest.mark.parametrize("column", list(GEDIT))
    def test_a_missing_column_is_named(self, tmp_path: Path, column: str) -> None:
        rows = gedit_rows([("ps_human", "a1", "en")])
        write_parquet(tmp_path / "train.parquet", rows, {name: kind for name, kind in GEDIT.items() if name != column})
        with pytest.raises(DataError, match=f"has no column '{column}'"):
            list(find_editor_benchmark("gedit").edits(str(tmp_path)))

    def test_official_arithmetic_and_the_honest_one(self, tmp_path: Path) -> None:
        draw = random.Random(0)
        scores = {
            task: [
                (f"{task}{n}", draw.randint(0, 10), draw.randint(0, 10), n % 2 == 0, "en") for n in range(3 + number)
            ]
            for number, task in enumerate(TASKS)
        }
        for task, rows in scores.items():
            # One without a score, and one of the other language, per task.
            write_gedit_scores(tmp_path, task, [*rows, ("x", "", 5, True, "en"), ("y", 1, 1, True, "cn")])
        judged, found = recorded("gedit", tmp_path)

        def of(some: list[tuple[Any, ...]]) -> tuple[float, float, float]:
            return fmean(r[1] for r in some), fmean(r[2] for r in some), fmean(math.sqrt(r[1] * r[2]) for r in some)

        for part, name in enumerate(("SC", "PQ", "O")):
            by_task = [of(scores[task])[part] for task in TASKS]
            assert found["official"][name] == pytest.approx(fmean(by_task), abs=1e-4)
            assert found["sane"]["macro"][name] == pytest.approx(fmean(by_task), abs=1e-4)
            micro = of([row for some in scores.values() for row in some])[part]
            assert found["sane"]["mean"][name] == pytest.approx(micro, abs=1e-4)
            shared = [of([row for row in scores[task] if row[3]])[part] for task in TASKS]
            assert found["official"]["intersection"][name] == pytest.approx(fmean(shared), abs=1e-4)
        assert len(judged) == sum(len(some) + 1 for some in scores.values())
        assert found["sane"]["failures"] == {"no_score": 11}
        total = sum(map(len, scores.values()))
        low, high = found["sane"]["range"]
        assert high - low == pytest.approx(10 * 11 / (total + 11), abs=1e-3)

    def test_a_task_without_a_score_leaves_no_official_number(self, tmp_path: Path) -> None:
        write_gedit_scores(tmp_path, "ps_human", [("a", 4, 9, True, "en")])
        _, found = recorded("gedit", tmp_path)
        assert found["official"]["O"] is None
        assert "no score for: background_change" in found["official"]["note"]
        assert found["official"]["by_category"]["ps_human"]["O"] == 6.0
        assert found["sane"]["mean"]["O"] == 6.0

    def test_broken_score_files(self, tmp_path: Path) -> None:
        (tmp_path / "m_other_gpt_score.csv").write_text("a,b\n1,2\n")
        with pytest.raises(DataError, match="no task type in the file's name"):
            recorded("gedit", tmp_path)
        path = tmp_path / "m_ps_human_gpt_score.csv"
        path.write_text("edited_image,sementics_score\nx.png,3\n")
        with pytest.raises(DataError, match="has no column 'quality_score'"):
            recorded("gedit", path)


class TestImgEdit:
    def test_schema(self, tmp_path: Path) -> None:
        folder = write_imgedit(tmp_path, {"1082": "adjust", "673": "style"})
        items = list(find_editor_benchmark("imgedit").edits(str(folder)))
        assert [(item.key, item.category, item.group) for item in items] == [
            ("1082", "adjust", "animal/000000001.jpg"),
            ("673", "style", "animal/000000001.jpg"),
        ]
        assert items[0].read().shown.size == (8, 8)
        table = json.loads((folder / "basic_edit.json").read_text())
        del table["673"]["edit_type"]
        (folder / "basic_edit.json").write_text(json.dumps(table))
        with pytest.raises(DataError, match="key '673': column 'edit_type' must be text"):
            list(find_editor_benchmark("imgedit").edits(str(folder)))
        with pytest.raises(ConfigError, match=r"basic_edit\.json"):
            list(find_editor_benchmark("imgedit").edits(None))

    def test_the_parser_that_drops_numbers_is_kept_beside_one_that_does_not(self, tmp_path: Path) -> None:
        folder = write_imgedit(tmp_path / "in", {"a": "add", "b": "add", "c": "style", "d": "style", "e": "style"})
        replies = {
            "a": "Brief reasoning: fine\nPrompt Compliance: 5\nVisual Seamlessness: 4\nPhysical & Detail Fidelity: 4",
            "b": "Prompt Compliance: 4/5\nVisual Seamlessness: 3.\nPhysical & Detail Fidelity: 1",
            "c": "Brief reasoning: 3\nStyle Fidelity: 5\nContent Preservation: 5\nRendering Quality: 5",
            "d": {"error": "429"},
        }
        (tmp_path / "result.json").write_text(json.dumps(replies))
        _, found = recorded("imgedit", tmp_path / "result.json", folder)
        # The script: (5+4+4)/3; only the last of b; 3 counted as a number of c; d and e left out.
        official = {name: row["average"] for name, row in found["official"]["by_category"].items()}
        assert official == {"add": round((4.33 + 1.0) / 2, 2), "style": 4.5}
        sane = found["sane"]["by_category"]
        assert sane["add"]["average"] == pytest.approx((13 / 3 + 8 / 3) / 2, abs=1e-4)
        assert sane["style"]["average"] == 5.0
        assert found["sane"]["failures"] == {"judge_error": 1, "no_reply": 1}
        assert found["official"]["average"] is None


KRIS_SCORES: dict[str, dict[str, tuple[int | None, ...]]] = {
    "color_change": {"1": (5, 4, 3, None), "2": (None, 2, 1, None)},
    "biology": {"1": (1, 2, 3, 4), "7": (5, 5, 5, None)},
    "multi-element_composition": {"1": (2, 2, 2, None)},
}


class TestKRIS:
    def test_schema_and_several_sources(self, tmp_path: Path) -> None:
        write_kris(tmp_path, {"color_change": ["1"], "multi-element_composition": ["1", "2"]})
        items = list(find_editor_benchmark("kris").edits(str(tmp_path)))
        assert [item.key for item in items] == [
            "color_change/1",
            "multi-element_composition/1",
            "multi-element_composition/2",
        ]
        assert [len(item.read().given) for item in items] == [1, 2, 2]
        path = tmp_path / "color_change" / "annotation.json"
        path.write_text(json.dumps({"1": {"ori_img": "1.png", "instruction": "an old name of the column"}}))
        with pytest.raises(DataError, match=r"color_change/annotation\.json, key '1': column 'ins_en' must be text"):
            list(find_editor_benchmark("kris").edits(str(tmp_path)))

    def test_official_arithmetic(self, tmp_path: Path) -> None:
        names = ("consistency_score", "quality_score", "instruction_score", "knowledge_score")
        for category, rows in KRIS_SCORES.items():
            (tmp_path / category).mkdir()
            table = {key: dict(zip(names, row, strict=True)) for key, row in rows.items()}
            (tmp_path / category / "metrics.json").write_text(json.dumps(table))
        _, found = recorded("kris", tmp_path)

        def percent(*scores: int) -> float:
            return fmean((score - 1) * 25 for score in scores)

        official = found["official"]
        assert official["by_category"]["Attribute Perception"]["VC"] == percent(5)
        assert official["by_category"]["Attribute Perception"]["average"] == percent(5, 4, 3, 2, 1)
        assert official["by_category"]["Natural Science"]["KP"] == percent(4)
        assert official["by_knowledge"]["Procedural Knowledge"]["average"] == percent(2, 2, 2)
        # Micro over all numbers: an edit with four of them weighs more than one with two.
        everything = percent(5, 4, 3, 2, 1, 1, 2, 3, 4, 5, 5, 5, 2, 2, 2)
        assert official["average"] == pytest.approx(everything, abs=1e-4)
        per_edit = [percent(5, 4, 3), percent(2, 1), percent(1, 2, 3, 4), percent(5, 5, 5), percent(2, 2, 2)]
        assert found["sane"]["mean"]["average"] == pytest.approx(fmean(per_edit), abs=1e-4)
        (tmp_path / "biology" / "metrics.json").write_text(json.dumps({"1": {"quality_score": 9}}))
        with pytest.raises(DataError, match=r"'quality_score' must be 1\.\.5 or null, not 9"):
            recorded("kris", tmp_path)


class TestRISE:
    ROWS = (
        ("temporal_reasoning_1", "temporal_reasoning", None),
        ("causal_reasoning_1", "causal_reasoning", None),
        ("spatial_reasoning_1", "spatial_reasoning", None),
        ("logical_reasoning_1", "logical_reasoning", None),
        ("logical_reasoning_2", "logical_reasoning", None),
    )

    def replies(self) -> dict[str, Any]:
        def final(number: object) -> str:
            return f"Some reasons.\n\n**Final Score:** **{number}**"

        return {
            "temporal_reasoning_1": {"judge1": final(5), "judge2": final(5), "judge3": final(5)},
            "causal_reasoning_1": {"judge1": final(4), "judge2": final(1), "judge3": final(2)},
            "spatial_reasoning_1": {"judge1": final(2), "judge2": final(3), "judge3": final(4)},
            "logical_reasoning_1": {"judge1": final(1), "judge2": final(1)},
            "logical_reasoning_2": {"judge1": final(1), "judge2": final(0)},
        }

    def count(self, tmp_path: Path, rows: Any, replies: Any) -> dict[str, Any]:
        folder = write_rise(tmp_path / "in", rows)
        (tmp_path / "said.json").write_text(json.dumps(replies))
        return recorded("rise", tmp_path / "said.json", folder)[1]

    def test_official_arithmetic(self, tmp_path: Path) -> None:
        found = self.count(tmp_path, self.ROWS, self.replies())
        # 5; .3*4 + .5*1 + .2*2 = 2.1, halved 1.05; 2.9; 5; .3*5 + .7*1 = 2.2, halved 1.1.
        scores = [5, 1.05, 0.3 * 2 + 0.5 * 3 + 0.2 * 4, 5, 1.1]
        assert found["official"]["overall"] == pytest.approx(fmean(scores), abs=1e-4)
        assert found["official"]["percent"] == pytest.approx(25 * (fmean(scores) - 1), abs=1e-3)
        assert found["official"]["accuracy"] == 40.0
        assert found["official"]["by_category"]["logical_reasoning"]["accuracy"] == 50.0
        assert found["sane"]["mean"]["overall"] == pytest.approx(fmean(scores), abs=1e-4)

    def test_one_marked_row_makes_the_script_ignore_consistency_everywhere(self, tmp_path: Path) -> None:
        rows = [*self.ROWS[:2], ("spatial_reasoning_1", "spatial_reasoning", True), *self.ROWS[3:]]
        replies = self.replies()
        replies["spatial_reasoning_1"] = {"judge1": None, "judge2": "Final Score: 5", "judge3": "Final Score: 5"}
        found = self.count(tmp_path, rows, replies)
        # .8 reasoning + .2 plausibility but for the logical ones; the marked row is all right, and can never be.
        scores = [5, 1.0, 5, 5, 1.1]
        assert found["official"]["overall"] == pytest.approx(fmean(scores), abs=1e-4)
        assert found["official"]["accuracy"] == 40.0
        assert "ignores consistency" in found["official"]["note"]
        assert found["sane"]["mean"]["overall"] == pytest.approx(fmean([5, 1.05, 5, 5, 1.1]), abs=1e-4)
        assert found["sane"]["mean"]["complete"] == pytest.approx(3 / 5)

    def test_a_reply_without_a_score_leaves_the_mean_and_is_wrong(self, tmp_path: Path) -> None:
        replies = self.replies()
        replies["temporal_reasoning_1"]["judge3"] = "I cannot say."
        del replies["causal_reasoning_1"]
        found = self.count(tmp_path, self.ROWS, replies)
        assert found["official"]["overall"] == pytest.approx(fmean([2.9, 5, 1.1]), abs=1e-4)
        assert found["official"]["accuracy"] == 20.0
        assert found["sane"]["failures"] == {"no_score": 1, "no_reply": 1}

    def test_schema(self, tmp_path: Path) -> None:
        folder = write_rise(tmp_path, self.ROWS)
        items = list(find_editor_benchmark("rise").edits(str(folder)))
        assert items[0].names[-1] == "images/temporal_reasoning/temporal_reasoning_1"
        assert items[0].read().shown.size == (8, 8)
        rows = json.loads((folder / "data_total.json").read_text())
        del rows[1]["image"]
        (folder / "data_total.json").write_text(json.dumps(rows))
        with pytest.raises(DataError, match=r"data_total\.json, row 1: column 'image' must be text"):
            list(find_editor_benchmark("rise").edits(str(folder)))


class TestOwn:
    @pytest.mark.parametrize("column", ["source", "instruction"])
    def test_a_missing_column_is_named(self, tmp_path: Path, column: str) -> None:
        row = {"source": "a.png", "instruction": "x"}
        path = write_json_lines(tmp_path / "edits.jsonl", [{name: row[name] for name in row if name != column}])
        with pytest.raises(DataError, match=f"edits.jsonl, line 1 has no column '{column}'"):
            list(find_editor_benchmark("edits").edits(str(path)))

    def test_a_picture_outside_of_the_folder_is_not_read(self, tmp_path: Path) -> None:
        path = write_json_lines(tmp_path / "edits.jsonl", [{"source": "../secret.png", "instruction": "x"}])
        [item] = find_editor_benchmark("edits").edits(str(path))
        with pytest.raises(DataError, match=r"holds '\.\.'"):
            item.read()

    def test_miniedit_draws_its_own(self) -> None:
        benchmark = find_editor_benchmark("miniedit:5")
        first, again = list(benchmark.edits(None)), list(find_editor_benchmark("miniedit:7").edits(None))
        assert [item.instruction for item in first] == [item.instruction for item in again[:5]]
        assert first[0].gold is not None
        assert first[0].gold(first[0].read().shown)["gold"] < 0.01
        with pytest.raises(ConfigError, match="a whole number of at least 1"):
            find_editor_benchmark("miniedit:0")
        with pytest.raises(ConfigError, match="leave --data out"):
            list(benchmark.edits("somewhere"))


class TestParts:
    def test_shares_of_met_questions(self) -> None:
        verdicts = [
            {"category": "Instruction Following", "passed": True},
            {"category": "Instruction Following", "passed": False},
            {"category": "Feature Preservation", "passed": True},
            {"category": "Image Quality", "passed": None},
            {"category": "Nonsense", "passed": True},
        ]
        assert parts_of_record({"verdicts": verdicts}) == {"follow": 5.0, "keep": 10.0}

    def test_a_viescore_states_its_parts_at_the_end_and_nobody_else_can(self) -> None:
        stated = "[follow 8.0000, keep 2.5000, quality 6.0000]"
        record = {"trace": f"[follow 1.0000, keep 1.0000, quality 1.0000]\n\n{stated}", "prompt_version": "viescore-1"}
        assert parts_of_record(record) == {"follow": 8.0, "keep": 2.5, "quality": 6.0}
        assert parts_of_record({**record, "prompt_version": "1"}) == {}

    def test_numbers(self) -> None:
        assert semantic_numbers({"follow": 4.0, "keep": 9.0, "quality": 9.0}) == {"SC": 4.0, "PQ": 9.0, "O": 6.0}
        assert semantic_numbers({"score": 5.0, "follow": 4.0}) == {}
        assert [five_point(part) for part in (0.0, 5.0, 10.0)] == [1.0, 3.0, 5.0]


class TestCatalogue:
    @pytest.mark.parametrize("name", ["gedit", "imgedit", "kris", "rise", "edits", "miniedit"])
    def test_every_benchmark_is_one(self, name: str) -> None:
        assert isinstance(find_editor_benchmark(name), EditorBenchmark)
        with pytest.raises(ConfigError, match="is about editors; use `editr1 eval editor`"):
            find_benchmark(name)

    def test_one_of_judges_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="is about judges; use `editr1 eval judge`"):
            find_editor_benchmark("genai-bench")

    def test_rows_are_read_back_and_hostile_ones_refused(self, tmp_path: Path) -> None:
        row = JudgedEdit(key="a", numbers={"score": 1.0}, source=f"images/{'0' * 32}.png")
        path = tmp_path / "judged.jsonl"
        write_judged_edits(path, [row])
        assert read_judged_edits(path) == [row]
        for change in ({"edited": "../../secret.png"}, {"numbers": {"score": "high"}}, {"more": 1}, {"kind": "pair"}):
            path.write_text(json.dumps({**json.loads(path.read_text().splitlines()[0]), **change}))
            with pytest.raises(DataError, match=r"judged\.jsonl, line 1: not a judged edit"):
                read_judged_edits(path)
            write_judged_edits(path, [row])
