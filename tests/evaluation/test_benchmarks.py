"""Each benchmark reads folders of its exact form, names the column that is wrong, and counts as its script does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest
from benchmark_folders import (
    EDITSCORE,
    GENAI,
    MMRB2,
    TIGER,
    Redness,
    editscore_rows,
    genai_rows,
    mmrb2_rows,
    save,
    tiger_rows,
    write_compass,
    write_imagenhub,
    write_json_lines,
    write_parquet,
    write_vcreward,
)

from editr1_plugins.errors import ComponentError, ConfigError, DataError, PluginError
from editr1_plugins.evaluation.catalogue import find_benchmark, read_predictions
from editr1_plugins.evaluation.items import Benchmark, JudgedPair, read_judged
from editr1_plugins.evaluation.judging import evaluate_judge
from editr1_plugins.plugins import registry


def run(bench: str, place: Path, tmp_path: Path, judge: Redness | None = None, **options: Any) -> dict[str, Any]:
    return evaluate_judge(find_benchmark(bench), str(place), judge or Redness(), tmp_path / "out", **options)


class TestEditScore:
    SPECS = (
        ("color_alter", "overall", 200, 100),
        ("color_alter", "overall", 50, 50),
        ("color_alter", "overall", 100, 150),
        ("extract", "overall", 250, 0),
        ("color_alter", "consistency", 200, 100),
        ("extract", "prompt_following", 0, 250),
    )

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        write_parquet(tmp_path / "in" / "data" / "train-00000-of-00001.parquet", editscore_rows(self.SPECS), EDITSCORE)
        return tmp_path / "in"

    def test_strict_and_macro_over_tasks(self, folder: Path, tmp_path: Path) -> None:
        judge = Redness()
        found = run("editscore", folder, tmp_path, judge)
        # color_alter 1 of 3 (equal scores are wrong), extract 1 of 1
        assert found["official"]["accuracy"] == pytest.approx(100 * (1 / 3 + 1) / 2)
        assert found["official"]["by_dimension"]["prompt_following"]["accuracy"] == 0
        assert found["sane"]["items"] == 4
        assert (found["sane"]["accuracy"], found["sane"]["half_credit"]) == (50.0, 62.5)
        assert found["sane"]["ties_excluded"] == pytest.approx(100 * 2 / 3, abs=1e-3)
        assert found["sane"]["macro"] == pytest.approx(100 * 2 / 3, abs=1e-3)
        assert set(found["sane"]["by_dimension"]) == {"overall", "consistency", "prompt_following"}

    def test_rows_of_several_dimensions_share_their_edits_and_edits_get_the_sources_size(
        self, folder: Path, tmp_path: Path
    ) -> None:
        judge = Redness()
        run("editscore", folder, tmp_path, judge)
        assert sorted(judge.asked) == [0, 0, 50, 50, 100, 100, 150, 200, 250, 250]
        assert judge.sizes == {(16, 8)}

    def test_a_missing_score_ends_the_official_script_and_is_wrong_here(self, tmp_path: Path) -> None:
        rows = editscore_rows([("extract", "overall", 200, 7), ("extract", "overall", 250, 100)])
        write_parquet(tmp_path / "in" / "train.parquet", rows, EDITSCORE)
        found = run("editscore", tmp_path / "in", tmp_path)
        assert found["official"]["accuracy"] is None
        assert "1 scores are missing" in found["official"]["note"]
        assert (found["sane"]["accuracy"], found["sane"]["failure_rate"]) == (50.0, 50.0)
        assert found["sane"]["failures"] == {"down": 1}

    def dataset(self) -> Any:
        """The rows as `datasets` has them."""
        from datasets import Dataset, Features, Image, List, Value

        text = Value("string")
        columns = {"key": List(text), "instruction": text, "input_image": Image(), "output_images": List(Image())}
        features = Features({**columns, "task_type": text, "dimension": text})
        return Dataset.from_list(editscore_rows(self.SPECS), features=features)

    def test_what_datasets_saves_to_disk_is_read_too(self, tmp_path: Path) -> None:
        self.dataset().save_to_disk(str(tmp_path / "in"))
        assert run("editscore", tmp_path / "in", tmp_path)["sane"]["accuracy"] == 50.0

    def test_hub_data_sets(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[tuple[Any, ...]] = []

        def load_dataset(name: str, config: str | None, *, split: str) -> Any:
            asked.append((name, config, split))
            return self.dataset()

        monkeypatch.setattr("datasets.load_dataset", load_dataset)
        found = evaluate_judge(find_benchmark("editscore"), None, Redness(), tmp_path / "out")
        assert asked == [("EditScore/EditReward-Bench", None, "train")]
        assert found["sane"]["accuracy"] == 50.0
        monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: self.dataset().remove_columns("task_type"))
        with pytest.raises(DataError, match="EditScore/EditReward-Bench has no column 'task_type'"):
            evaluate_judge(find_benchmark("editscore"), None, Redness(), tmp_path / "out2")

    def test_a_hub_that_cannot_be_reached_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def load_dataset(*_: Any, **__: Any) -> Any:
            raise ConnectionError("no network")

        monkeypatch.setattr("datasets.load_dataset", load_dataset)
        with pytest.raises(DataError, match="cannot be loaded from the hub: ConnectionError: no network"):
            next(find_benchmark("editscore").items(None))

    def test_the_official_result_folder(self, tmp_path: Path) -> None:
        folder = tmp_path / "results" / "qwen25vl"
        for task, scores in (("extract", [[8, 2], [3, 3]]), ("compose", [[1, 2]])):
            lines = [{"key": [f"{task}{at}", f"{task}{at}b"], "score": pair} for at, pair in enumerate(scores)]
            # Result files are opened to append: a second run doubles the lines.
            write_json_lines(folder / task / "overall.jsonl", lines * (2 if task == "extract" else 1))
        benchmark = find_benchmark("editscore")
        judged = read_predictions(benchmark, folder, None)
        assert benchmark.official(judged)["accuracy"] == pytest.approx(25.0)
        with pytest.raises(DataError, match="no result folder"):
            read_predictions(benchmark, folder / "extract" / "overall.jsonl", None)


class TestTiger:
    # A > B > C by people; scores say A > B = C.
    THREE = (
        ("t_AvB", "3pair", 250, 100, "A>B"),
        ("t_AvC", "3pair", 250, 100, "A>B"),
        ("t_BvC", "3pair", 100, 100, "A>B"),
    )

    def folder(self, tmp_path: Path, specs: Any) -> Path:
        write_parquet(tmp_path / "in" / "test-00000.parquet", tiger_rows(specs), TIGER)
        return tmp_path / "in"

    def test_reward_models_tune_the_tie_threshold_on_the_two_way_pairs(self, tmp_path: Path) -> None:
        two = (("a", "2pair", 200, 100, "A>B"), ("b", "2pair", 100, 125, "A=B=Good"), ("c", "2pair", 0, 100, "B>A"))
        found = run("tiger", self.folder(tmp_path, two), tmp_path)
        assert found["official"]["tie_threshold"] == pytest.approx(1.0)
        assert found["official"]["accuracy"] == 100.0
        assert found["sane"]["accuracy"] == pytest.approx(100 * 2 / 3, abs=1e-3)

    def test_equal_scores_go_to_the_later_index(self, tmp_path: Path) -> None:
        found = run("tiger", self.folder(tmp_path, self.THREE), tmp_path)
        assert found["official"]["accuracy_3pair"] == 0.0  # argsort reversed says A > C > B
        turned = [(i, d, a, b, "B>A" if i == "t_BvC" else r) for i, d, a, b, r in self.THREE]
        again = evaluate_judge(
            find_benchmark("tiger"), str(self.folder(tmp_path / "2", turned)), Redness(), tmp_path / "out2"
        )
        assert again["official"]["accuracy_3pair"] == 100.0
        assert again["sane"]["accuracy"] == 0.0  # a tie is no ranking
        assert again["sane"]["pair_accuracy"] == pytest.approx(100 * 2 / 3, abs=1e-3)

    def test_a_limit_does_not_cut_a_ranking_and_a_cut_one_does_not_count(self, tmp_path: Path) -> None:
        specs = [*self.THREE, ("x", "2pair", 200, 100, "A>B")]
        folder = self.folder(tmp_path, specs)
        assert run("tiger", folder, tmp_path, limit=1)["items"] == 3
        cut = evaluate_judge(
            find_benchmark("tiger"), str(self.folder(tmp_path / "2", specs[1:])), Redness(), tmp_path / "o"
        )
        assert cut["official"]["rankings"] == 1

    def test_candidates_of_a_ranking_are_judged_once(self, tmp_path: Path) -> None:
        judge = Redness()
        run("tiger", self.folder(tmp_path, self.THREE), tmp_path, judge)
        assert sorted(judge.asked) == [100, 100, 250]

    def test_the_spelling_of_a_tie_decides_in_the_official_arithmetic(self, tmp_path: Path) -> None:
        for label, right in (("A=B=Good", 100.0), ("A=B=Bad", 100.0), ("A=B", 0.0)):
            folder = self.folder(tmp_path / label, [("a", "2pair", 100, 100, label)])
            found = evaluate_judge(find_benchmark("tiger"), str(folder), Redness(), tmp_path / f"out-{label}")
            assert (found["official"]["accuracy"], found["sane"]["accuracy"]) == (right, 100.0)

    def test_judges_recorded_by_the_official_script(self, tmp_path: Path) -> None:
        def row(identifier: str, human: str, said: str | None) -> dict[str, Any]:
            return {"id": identifier, "human_vote": human, "model_vote": said, "is_correct": human == said}

        three = [row("t_AvB", "A>B", "A>B"), row("t_AvC", "A>B", "A>B"), row("t_BvC", "B>A", "A>B")]
        two = [row("x", "A>B", "A>B"), row("y", "A=B", "A=B"), row("z", "B>A", "Unknown"), row("w", "A>B", None)]
        path = tmp_path / "results.json"
        path.write_text(json.dumps({"accuracy": 0.5, "results": [*two, None, *three]}))
        benchmark = find_benchmark("tiger-editreward")
        official = benchmark.official(read_predictions(benchmark, path, None))
        # 2-way: two right, "Unknown" wrong, the failed call left out; 3-way: one pair is wrong.
        assert official["accuracy_2pair"] == pytest.approx(100 * 2 / 3)
        assert (official["accuracy_3pair"], official["rankings"]) == (0.0, 4)
        assert official["accuracy"] == pytest.approx(50.0)


class TestGenAI:
    def test_reward_models(self, tmp_path: Path) -> None:
        specs = [(200, 100, "leftvote"), (50, 100, "leftvote"), (100, 100, "tievote"), (25, 200, "rightvote")]
        write_parquet(tmp_path / "in" / "image_edition" / "test_v1-00000-of-00001.parquet", genai_rows(specs), GENAI)
        # Another configuration and split of the same repository.
        write_parquet(tmp_path / "in" / "image_edition" / "test-00000-of-00001.parquet", genai_rows(specs * 3), GENAI)
        write_parquet(tmp_path / "in" / "image_generation" / "test_v1-0.parquet", genai_rows(specs), GENAI)
        found = run("genai", tmp_path / "in", tmp_path)
        assert (found["items"], found["official"]["accuracy"], found["official"]["accuracy_without_ties"]) == (
            4,
            75.0,
            pytest.approx(100 * 2 / 3),
        )
        assert found["sane"]["accuracy"] == 75.0

    def test_the_greedy_pattern_for_labels(self, tmp_path: Path) -> None:
        def row(number: int, response: str, human: str) -> dict[str, Any]:
            return {"idx": str(number), "response": response, "human_vote": human}

        rows = [
            row(0, "First [[A\n>B]] no. Final: [[B>A]].", "rightvote"),
            row(1, "either [[A>B]] or [[B>A]]", "leftvote"),
            row(2, "I cannot say", "bothbad_vote"),
            row(3, "[[A=B]]", "bothbad_vote"),
            row(4, "[[A>>B]]", "leftvote"),
            row(5, "[[A=B=Good]]", "bothbad_vote"),
        ]
        path = tmp_path / "answers.json"
        path.write_text(json.dumps(rows))
        benchmark = find_benchmark("genai-bench")
        judged = read_predictions(benchmark, path, None)
        assert benchmark.official(judged)["accuracy"] == pytest.approx(50.0)
        kinds = [row.failure for row in judged]
        assert kinds == [None, "ambiguous", "no_label", None, None, None]


class TestMMRB2:
    def test_one_score_says_the_same_in_both_orders(self, tmp_path: Path) -> None:
        specs = [("a", 200, 100, "A"), ("b", 200, 100, "B"), ("c", 50, 50, "A"), ("d", 7, 50, "B")]
        write_parquet(tmp_path / "in" / "edit" / "test-0.parquet", mmrb2_rows(specs), MMRB2)
        found = run("mmrb2", tmp_path / "in", tmp_path)
        # The failed pair leaves the official denominator, the tie is wrong.
        assert found["official"] == {"accuracy": pytest.approx(100 / 3), "judgements": 6}
        assert found["sane"]["accuracy"] == 25.0

    def test_the_mark_of_the_one_image_is_taken_out_of_the_instruction(self, tmp_path: Path) -> None:
        write_parquet(tmp_path / "in" / "test-0.parquet", mmrb2_rows([("a", 1, 2, "A")]), MMRB2)
        [item] = find_benchmark("mmrb2").items(str(tmp_path / "in"))
        assert item.instruction == "make it red"

    def test_recorded_judgements(self, tmp_path: Path) -> None:
        labels = [{"id": each, "chosen": "A", "prompt_source": "hq-edit"} for each in "abcd"]
        (tmp_path / "edit.json").write_text(json.dumps({"pairs": labels}))
        said = {
            "a": {"forward": [{"judgement": "A"}], "reverse": [{"judgement": "B"}]},
            "b": {"forward": [{"judgement": "A"}], "reverse": [{"judgement": "A"}]},
            "c": {"forward": [{"judgement": "tie"}], "reverse": []},
        }
        (tmp_path / "judgements.json").write_text(json.dumps(said))
        benchmark = find_benchmark("mmrb2")
        with pytest.raises(DataError, match=r"give the benchmark's edit\.json as --data"):
            read_predictions(benchmark, tmp_path / "judgements.json", None)
        judged = read_predictions(benchmark, tmp_path / "judgements.json", str(tmp_path))
        assert benchmark.official(judged) == {"accuracy": pytest.approx(60.0), "judgements": 5}
        assert [row.outcome() for row in judged if isinstance(row, JudgedPair)] == [1, 0, None, None]


def test_compass_counts_ties_within_a_tolerance_and_by_dimension(tmp_path: Path) -> None:
    specs = [
        ("IA", "preference", 200, 100),
        ("IA", "tie", 100, 100),
        ("VC", "tie", 100, 101),
        ("VQ", "preference", 1, 1),
    ]
    found = run("editreward-compass", write_compass(tmp_path / "in", specs), tmp_path)
    assert found["official"]["by_dimension"] == {"IA": 100.0, "VC": 0.0, "VQ": 0.0}
    assert found["official"]["accuracy"] == 50.0
    assert found["sane"]["half_credit"] == 75.0


def test_data_sets_of_image_files_are_fetched_as_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_compass(tmp_path / "snapshot", [("IA", "preference", 200, 100)])
    asked: list[tuple[str, str]] = []

    def snapshot_download(name: str, *, repo_type: str) -> str:
        asked.append((name, repo_type))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    found = evaluate_judge(find_benchmark("editreward-compass"), None, Redness(), tmp_path / "out")
    assert asked == [("DogNeverSleep/EditReward-Compass", "dataset")]
    assert found["official"]["accuracy"] == 100.0


class TestVCReward:
    SPECS = (("size", 200, 100, "Image A"), ("size", 200, 100, "Image B"), ("tone", 50, 50, "Image A"))

    def test_ties_are_not_recorded_officially(self, tmp_path: Path) -> None:
        found = run("vcreward", write_vcreward(tmp_path / "in", self.SPECS), tmp_path)
        assert (found["official"]["accuracy"], found["official"]["recorded"]) == (50.0, 2)
        assert found["sane"]["accuracy"] == pytest.approx(100 / 3, abs=1e-3)

    def test_recorded_winners(self, tmp_path: Path) -> None:
        folder = write_vcreward(tmp_path / "in", self.SPECS)
        keys = [json.loads(line)["key"] for line in (folder / "metadata.jsonl").read_text().splitlines()]
        lines = [{"key": keys[0], "results": {"winner": "Image A"}}, {"key": keys[1], "results": {"winner": "B"}}]
        path = write_json_lines(tmp_path / "results.jsonl", lines)
        benchmark = find_benchmark("vcreward")
        judged = read_predictions(benchmark, path, str(folder))
        assert (benchmark.official(judged)["accuracy"], benchmark.official(judged)["recorded"]) == (100.0, 2)
        assert [row.outcome() for row in judged if isinstance(row, JudgedPair)] == [1, -1, None]


class TestImagenHub:
    LEVELS: ClassVar = {"CycleDiffusion": [0, 50, 100, 150], "MagicBrush": [200, 150, 100, 7]}
    RATINGS: ClassVar = {"CycleDiffusion": [0, 0.5, 0.5, 1], "MagicBrush": [0, 0.5, 1, 1]}

    def test_correlations_per_editor(self, tmp_path: Path) -> None:
        found = run("imagenhub", write_imagenhub(tmp_path / "in", self.LEVELS, self.RATINGS), tmp_path)
        per_editor = found["sane"]["by_category"]
        assert per_editor["CycleDiffusion"]["O"] == pytest.approx(0.948683)
        assert per_editor["MagicBrush"] == {"items": 3, "O": -1.0}
        assert found["sane"]["failure_rate"] == 12.5
        assert found["official"]["note"].startswith("1 rows")

    def test_a_broken_table_is_named(self, tmp_path: Path) -> None:
        folder = write_imagenhub(tmp_path / "in", self.LEVELS, self.RATINGS)
        table = folder / "human" / "Text-Guided_IE_rater2.tsv"
        table.write_text(table.read_text().replace("[0.5, 1]", "half", 1))
        with pytest.raises(
            DataError, match=r"rater2.tsv, row 'sample_1_1.jpg': column 'CycleDiffusion' must be \[SC, PQ\]"
        ):
            list(find_benchmark("imagenhub").items(str(folder)))
        table.write_text(table.read_text().replace("uid", "name"))
        with pytest.raises(DataError, match="no column 'uid'"):
            list(find_benchmark("imagenhub").items(str(folder)))
        with pytest.raises(DataError, match="must be one of Text-Guided_IE"):
            find_benchmark("imagenhub:Video")


class TestOwn:
    def test_pairs_with_ties_and_categories(self, tmp_path: Path) -> None:
        folder = tmp_path / "in"
        names = {level: save(folder / f"{level}.png", level) for level in (0, 100, 200)}
        base = {"source": names[0], "instruction": "make it red"}
        rows = [
            {**base, "winner": names[200], "loser": names[100], "category": "recolour"},
            {**base, "winner": names[100], "loser": names[200], "category": "recolour"},
            {**base, "winner": names[100], "loser": names[100], "label": "tie", "category": "other"},
        ]
        judge = Redness()
        found = run("pairs", write_json_lines(folder / "pairs.jsonl", rows), tmp_path, judge)
        assert found["official"]["accuracy"] is None
        assert found["sane"]["by_category"]["recolour"]["accuracy"] == 50.0
        assert found["sane"]["macro"] == 75.0
        assert sorted(judge.asked) == [100, 200]

    def test_ratings(self, tmp_path: Path) -> None:
        folder = tmp_path / "in"
        rows = [
            {"source": save(folder / "s.png", 0), "edited": save(folder / f"{level}.png", level)}
            | {"instruction": "make it red", "rating": rating}
            for level, rating in ((0, 1), (100, 2.5), (200, 4), (250, 5))
        ]
        found = run("ratings", write_json_lines(folder / "r.jsonl", rows), tmp_path)
        assert found["sane"]["correlation"] == {"O": pytest.approx(1.0, abs=1e-6)}

    def test_a_place_is_needed(self) -> None:
        with pytest.raises(ConfigError, match="--data"):
            list(find_benchmark("pairs").items(None))


PARQUET: dict[str, tuple[Callable[[], list[dict[str, Any]]], dict[str, pa.DataType]]] = {
    "editscore": (lambda: editscore_rows([("extract", "overall", 2, 1)]), EDITSCORE),
    "tiger-editreward": (lambda: tiger_rows([("a", "2pair", 2, 1, "A>B")]), TIGER),
    "genai-bench": (lambda: genai_rows([(2, 1, "leftvote")]), GENAI),
    "mmrb2": (lambda: mmrb2_rows([("a", 2, 1, "A")]), MMRB2),
}
OPTIONAL = {
    "comparison_type", "score_1", "score_2", "model_1", "model_2", "source_prompt", "target_prompt", "left_model",
    "right_model", "prompt_source", "response_a_text", "response_b_text", "response_a_model", "response_b_model",
    "human_annotations",
}  # fmt: skip


class TestWrongSchemas:
    @pytest.mark.parametrize(
        ("bench", "column"),
        [(bench, column) for bench, (_, types) in PARQUET.items() for column in types if column not in OPTIONAL],
    )
    def test_a_missing_column_and_one_of_another_kind_are_named(self, tmp_path: Path, bench: str, column: str) -> None:
        make, types = PARQUET[bench]
        without = {name: kind for name, kind in types.items() if name != column}
        write_parquet(tmp_path / "one" / "train.parquet", make(), without)
        with pytest.raises(DataError, match=f"has no column '{column}'; it has: "):
            list(find_benchmark(bench).items(str(tmp_path / "one")))
        numbers = [{**row, column: 5} for row in make()]
        write_parquet(tmp_path / "two" / "train.parquet", numbers, {**types, column: pa.int64()})
        with pytest.raises(DataError, match=f"column '{column}' must hold .*, not int64"):
            list(find_benchmark(bench).items(str(tmp_path / "two")))

    @pytest.mark.parametrize("column", ["source", "winner", "loser", "instruction"])
    def test_json_lines(self, tmp_path: Path, column: str) -> None:
        row: dict[str, Any] = {"source": "s.png", "winner": "w.png", "loser": "l.png", "instruction": "x"}
        path = write_json_lines(tmp_path / "a.jsonl", [row, {**row, column: 5}])
        with pytest.raises(DataError, match=f"a.jsonl, line 2: column '{column}' must hold"):
            list(find_benchmark("pairs").items(str(path)))
        del row[column]
        with pytest.raises(DataError, match=f"line 1 has no column '{column}'"):
            list(find_benchmark("pairs").items(str(write_json_lines(tmp_path / "a.jsonl", [row]))))

    @pytest.mark.parametrize(
        ("bench", "rows", "types", "message"),
        [
            (
                "editscore",
                editscore_rows([("extract", "beauty", 2, 1)]),
                EDITSCORE,
                "column 'dimension' must be one of",
            ),
            ("tiger", tiger_rows([("a", "5pair", 2, 1, "A>B")]), TIGER, "column 'dataset' must be one of"),
            ("tiger", tiger_rows([("a", "2pair", 2, 1, "good")]), TIGER, "column 'ranking' must be A>B"),
            ("genai", genai_rows([(2, 1, "novote")]), GENAI, "the vote must be one of"),
            ("mmrb2", mmrb2_rows([("a", 2, 1, "C")]), MMRB2, "column 'chosen' must be A or B"),
        ],
    )
    def test_values(self, tmp_path: Path, bench: str, rows: Any, types: Any, message: str) -> None:
        write_parquet(tmp_path / "train.parquet", rows, types)
        with pytest.raises(DataError, match=message):
            list(find_benchmark(bench).items(str(tmp_path)))

    def test_places_that_are_none(self, tmp_path: Path) -> None:
        benchmark = find_benchmark("pairs")
        (tmp_path / "bad.parquet").write_bytes(b"PAR1 nonsense")
        for place, message in (
            (str(tmp_path / "absent"), "no file or folder"),
            (str(tmp_path / "bad.parquet"), "no Parquet file that can be read"),
            ("../up/one/two", "no file or folder"),
        ):
            with pytest.raises(DataError, match=message):
                list(benchmark.items(place))
        (tmp_path / "empty").mkdir()
        with pytest.raises(DataError, match=r"holds no \.parquet"):
            list(benchmark.items(str(tmp_path / "empty")))

    def test_names_in_rows_lead_nowhere_else(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        save(tmp_path / "secret.png", 9)
        save(tmp_path / "in" / "s.png", 0)
        rows = [
            {"source": "s.png", "winner": name, "loser": "s.png", "instruction": "x"}
            for name in ("../secret.png", str(tmp_path / "secret.png"), "http://127.0.0.1:9/x.png")
        ]
        judge = Redness()
        found = run("pairs", write_json_lines(tmp_path / "in" / "p.jsonl", rows), tmp_path, judge)
        assert found["sane"]["failures"] == {"bad_image": 3}
        assert judge.asked == []


PLUGIN = """
from editr1_plugins import hookimpl
from editr1_plugins.evaluation.benchmarks.own import OwnPairs

class Ours(OwnPairs):
    name = "house-pairs"

    def official(self, judged):
        return {"accuracy": 12.5}

@hookimpl
def register_benchmarks(register):
    register("house-pairs", Ours, summary="our own")
    register("no-benchmark", dict)
"""


def test_a_plugin_adds_a_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "house_bench.py").write_text(PLUGIN)
    info = tmp_path / "house_bench-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: house-bench\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[editr1]\nhouse = house_bench\n")
    row = {"source": save(tmp_path / "s.png", 0), "winner": "s.png", "loser": "s.png", "instruction": "x"}
    path = write_json_lines(tmp_path / "p.jsonl", [row])
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        registry.cache_clear()
        assert run("house-pairs", path, tmp_path)["official"]["accuracy"] == 12.5
        with pytest.raises(ComponentError, match="benchmark 'no-benchmark' broke its protocol: dict needs name"):
            find_benchmark("no-benchmark")
    registry.cache_clear()


class TestCatalogue:
    def test_every_benchmark_is_one(self) -> None:
        names = [entry.name for entry in registry().of("benchmark") if not entry.summary.startswith("editors:")]
        assert len(names) == 9
        for name in names:
            assert isinstance(find_benchmark(name), Benchmark)

    @pytest.mark.parametrize("spec", ["genai-bench", "genai", "GenAI_Bench", "editr1-plugins/genai-bench"])
    def test_the_beginning_of_a_name_will_do(self, spec: str) -> None:
        assert find_benchmark(spec).name == "genai-bench"

    def test_one_that_is_several_or_none_is_refused_with_the_choices(self) -> None:
        with pytest.raises(PluginError, match=r"known: .*editscore.*"):
            find_benchmark("edit")
        with pytest.raises(PluginError, match="no benchmark 'nonsense'"):
            find_benchmark("nonsense")

    def test_judged_rows_are_read_back_and_broken_ones_named(self, tmp_path: Path) -> None:
        specs = [("IA", "preference", 200, 100), ("VC", "tie", 100, 7)]
        run("editreward-compass", write_compass(tmp_path / "in", specs), tmp_path)
        path = tmp_path / "out" / "judged.jsonl"
        [first, second] = read_judged(path)
        assert isinstance(first, JudgedPair)
        assert (first.scores, second.failure) == ((8.0, 4.0), "down")
        for broken in (
            '{"kind": "pair", "key": 5, "preference": 1}',
            '{"kind": "pair", "key": "a", "preference": 2}',
            "{",
        ):
            path.write_text(broken)
            with pytest.raises(DataError, match=r"judged\.jsonl, line 1: not a judged row"):
                read_judged(path)
