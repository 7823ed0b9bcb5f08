"""Public answers of judges come out at the published digits in the official arithmetic."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest

from editr1_plugins.cli import main
from editr1_plugins.evaluation.benchmarks.genai import GenAIBenchmark
from editr1_plugins.evaluation.benchmarks.imagenhub import ImagenHubBenchmark
from editr1_plugins.evaluation.items import JudgedPair
from editr1_plugins.evaluation.statistics import fisher_mean, spearman

DATA = Path(__file__).parent.parent / "data"


@pytest.fixture(scope="module")
def genai(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of MODEL.json in the official raw format, without the texts of the answers."""
    folder = tmp_path_factory.mktemp("genai")
    table = gzip.decompress((DATA / "genai_bench" / "votes.csv.gz").read_bytes()).decode()
    rows = list(csv.DictReader(io.StringIO(table)))
    for model in [name for name in rows[0] if name not in ("idx", "human_vote")]:
        raw = [{"idx": row["idx"], "human_vote": row["human_vote"], "model_vote": row[model] or None} for row in rows]
        (folder / f"{model}.json").write_text(json.dumps(raw))
    return folder


@pytest.fixture(scope="module")
def imagenhub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of results_RUN.json with the raters' tables in human/."""
    folder = tmp_path_factory.mktemp("imagenhub")
    packed = DATA / "viescore_imagenhub"
    for run, scores in json.loads(gzip.decompress((packed / "scores.json.gz").read_bytes())).items():
        (folder / f"results_{run}.json").write_text(json.dumps(scores))
    (folder / "human").mkdir()
    for table in (packed / "human").glob("*.gz"):
        (folder / "human" / table.stem).write_bytes(gzip.decompress(table.read_bytes()))
    return folder


def test_two_judges_are_compared_on_the_same_ratings(imagenhub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(imagenhub / f"results_{run}.json") for run in ("gpt4o_0shot", "gemini_0shot")]
    run = ["--bench", "imagenhub", "--data", str(imagenhub), "--json", "--predictions"]
    main(["eval", "judge", *run, files[0], "--compare", files[1]])
    found = json.loads(capsys.readouterr().out)
    assert found["official"]["accuracy"] is None
    overall = found["comparison"]["correlation"]["O"]
    assert (round(overall["first"], 4), round(overall["second"], 4)) == (0.4186, 0.2873)
    low, high = overall["interval"]
    assert 0 < low < overall["difference"] < high < 0.3
    assert main(["eval", "judge", *run, files[0], "--compare", files[0]]) == 0
    same = json.loads(capsys.readouterr().out)["comparison"]["correlation"]["SC"]
    assert (same["difference"], same["interval"]) == (0.0, [0.0, 0.0])


class TestGenAIBench:
    @pytest.mark.parametrize(
        ("model", "published"),
        [("gpt4o", 53.54), ("gemini-1.5-pro", 55.93), ("random", 25.90), ("idefics2", 27.31), ("qwenVL", 14.91)],
    )
    def test_accuracies(self, genai: Path, capsys: pytest.CaptureFixture[str], model: str, published: float) -> None:
        main(["eval", "judge", "--bench", "genai-bench", "--predictions", str(genai / f"{model}.json"), "--json"])
        found = json.loads(capsys.readouterr().out)
        assert round(found["official"]["accuracy"], 2) == published
        low, high = found["sane"]["interval"]
        assert low < found["sane"]["accuracy"] < high
        assert found["sane"]["half_credit"] > found["sane"]["accuracy"]

    def test_failures_are_counted(self, genai: Path, capsys: pytest.CaptureFixture[str]) -> None:
        arguments = ["eval", "judge", "--bench", "genai-bench", "--predictions", str(genai / "qwenVL.json"), "--json"]
        assert main(arguments) == 3
        sane = json.loads(capsys.readouterr().out)["sane"]
        assert sane["failures"] == {"no_label": 258, "ambiguous": 1}
        assert sane["failure_rate"] == pytest.approx(100 * 259 / 919, abs=1e-3)

    def test_two_judges_on_the_same_rows(self, genai: Path, capsys: pytest.CaptureFixture[str]) -> None:
        files = ["--predictions", str(genai / "gpt4o.json"), "--compare", str(genai / "gemini-1.5-pro.json")]
        assert main(["eval", "judge", "--bench", "genai-bench", *files, "--json"]) == 0
        comparison = json.loads(capsys.readouterr().out)["comparison"]
        assert (comparison["mcnemar"]["only_first"], comparison["mcnemar"]["only_second"]) == (137, 163)
        assert comparison["mcnemar"]["p_value"] == pytest.approx(0.1488, abs=1e-4)
        low, high = comparison["strict"]["interval"]
        assert low < 0 < high

    def test_a_constant_scorer_gets_45_in_the_official_arithmetic_of_reward_models(self, genai: Path) -> None:
        benchmark = GenAIBenchmark()
        judged = benchmark.predictions(genai / "gpt4o.json", None)
        constant = [
            JudgedPair(key=row.key, preference=row.preference, label=row.label, scores=(5.0, 5.0)) for row in judged
        ]
        assert round(benchmark.official(constant)["accuracy"]) == 45

    @pytest.mark.skipif(not os.environ.get("EDITR1_GOLDEN_DATA"), reason="full answers: EDITR1_GOLDEN_DATA=FOLDER")
    @pytest.mark.parametrize("model", ["gpt4o", "gemini-1.5-pro", "idefics2", "qwenVL"])
    def test_labels_are_read_from_the_answers_as_the_official_script_reads_them(self, model: str) -> None:
        path = Path(os.environ["EDITR1_GOLDEN_DATA"]) / "genai_bench" / f"{model}.json"
        recorded = [row["model_vote"] for row in json.loads(path.read_bytes())]
        read = [row.said or None for row in GenAIBenchmark().predictions(path, None)]  # type: ignore[union-attr]
        assert read == recorded


class TestImagenHub:
    @pytest.mark.parametrize(
        ("bench", "run", "published"),
        [
            ("imagenhub", "gpt4o_0shot", (0.4062, 0.4863, 0.3822)),
            ("imagenhub", "gpt4o_1shot", (0.3684, 0.1939, 0.3439)),
            ("imagenhub", "gemini_0shot", (0.2836, 0.4291, 0.2728)),
            ("imagenhub:Mask-Guided_IE", "gemini_0shot", (0.4304, 0.2839, 0.3593)),
        ],
    )
    def test_correlations(
        self,
        imagenhub: Path,
        capsys: pytest.CaptureFixture[str],
        bench: str,
        run: str,
        published: tuple[float, float, float],
    ) -> None:
        path = str(imagenhub / f"results_{run}.json")
        assert main(["eval", "judge", "--bench", bench, "--predictions", path, "--json"]) in (0, 3)
        found = json.loads(capsys.readouterr().out)
        official, sane = found["official"]["correlation"], found["sane"]
        assert tuple(round(official[part], 4) for part in ("SC", "PQ", "O")) == published
        for part in ("SC", "PQ", "O"):
            low, high = sane["interval"][part]
            assert low < sane["correlation"][part] < high
            # tanh of a mean of correlations is always nearer to 0 than Fisher's average
            assert official[part] < sane["correlation"][part]

    def test_people_agree_with_each_other_as_published(self, imagenhub: Path) -> None:
        benchmark = ImagenHubBenchmark()
        human = benchmark.official(benchmark.predictions(imagenhub / "results_gpt4o_0shot.json", None))["human"]
        assert tuple(round(human[part], 4) for part in ("SC", "PQ", "O")) == (0.4230, 0.5053, 0.4184)

    def test_the_true_fisher_average_is_that_of_the_correlations_per_editor(
        self, imagenhub: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = imagenhub / "results_gpt4o_0shot.json"
        main(["eval", "judge", "--bench", "imagenhub", "--predictions", str(path), "--json"])
        sane = json.loads(capsys.readouterr().out)["sane"]
        scores = json.loads(path.read_bytes())["ImagenHub_Text-Guided_IE"]
        tables = []
        for rater in (1, 2, 3):
            with (imagenhub / "human" / f"Text-Guided_IE_rater{rater}.tsv").open() as lines:
                tables.append({row["uid"]: row for row in csv.DictReader(lines, delimiter="\t")})
        expected = []
        for editor, parts in scores.items():
            names = sorted(parts["SC"])
            people = [round(float(np.mean([json.loads(t[name][editor])[0] for t in tables])), 9) for name in names]
            expected.append(spearman([min(parts["SC"][name]) for name in names], people))
        assert len(expected) == 8
        assert sane["correlation"]["SC"] == pytest.approx(fisher_mean(expected), abs=1e-6)
