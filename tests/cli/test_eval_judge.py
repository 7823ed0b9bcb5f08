"""`editr1 eval judge`: usage, exit status, and what it prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from editr1_plugins.cli import main
from editr1_plugins.testing.judge_server import JudgeServer, Received

DARKER = "make the image darker"


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Three pairs: a darker picture against the source, twice right and once the wrong way round."""
    noise = Image.effect_noise((64, 64), 60).convert("RGB")
    noise.save(tmp_path / "source.png")
    noise.point(lambda level: level // 2).save(tmp_path / "darker.png")
    good = {"source": "source.png", "winner": "darker.png", "loser": "source.png", "instruction": DARKER}
    rows = [good, {**good, "category": "odd"}, {**good, "winner": "source.png", "loser": "darker.png"}]
    (tmp_path / "pairs.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return tmp_path / "pairs.jsonl"


def judge(*arguments: object) -> int:
    return main(["eval", "judge", *(str(each) for each in arguments)])


class TestAsking:
    def test_json_has_both_modes(self, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        run = ["--bench", "pairs", "--data", pairs, "--verifier", "measure", "--decomposer", "rules"]
        assert judge(*run, "--output", tmp_path / "out", "--copies", 1, "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert set(found) >= {"official", "sane", "taken", "copies"}
        assert found["official"]["accuracy"] is None
        assert found["sane"]["accuracy"] == pytest.approx(66.6667)
        assert found["copies"]["highest"] < 1
        assert json.loads((tmp_path / "out" / "summary.json").read_text()) == found

    def test_text_for_people(self, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        run = ["--bench", "pairs", "--data", pairs, "--verifier", "measure", "--output", tmp_path / "out"]
        assert judge(*run) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "pairs, 3 rows"
        assert "  accuracy                  66.67" in lines

    def test_failed_answers_are_exit_status_3(self, pairs: Path, tmp_path: Path) -> None:
        rows = pairs.read_text().splitlines()
        rows[0] = rows[0].replace("darker.png", "absent.png")
        pairs.write_text("\n".join(rows))
        assert judge("--bench", "pairs", "--data", pairs, "--verifier", "measure", "--output", tmp_path / "out") == 3

    def test_the_pairwise_judge_sees_both_orders(
        self, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def first_place(request: Received) -> str:
            return "<better>A</better>"

        with JudgeServer(first_place) as server:
            run = ["--bench", "pairs", "--data", pairs, "--verifier", f"pairwise:judge@{server.url}", "--json"]
            assert judge(*run, "--output", tmp_path / "out") == 0
            assert len(server.requests) == 6
            found = json.loads(capsys.readouterr().out)
            assert judge(*run, "--output", tmp_path / "out2", "--one-order") == 0
            assert len(server.requests) == 9
        assert found["sane"]["position_bias"]["first"] == 100.0
        assert found["taken"]["prompt_tokens"] > 300

    def test_viescore_needs_no_principles_and_is_priced(
        self, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def grade(request: Received) -> str:
            if len(request.images) == 2:
                return f"<follow>{2 if request.images[0] == request.images[1] else 9}</follow><keep>9</keep>"
            return "<natural>9</natural><clean>9</clean>"

        rows = [line.replace(DARKER, "let the spoon smile") for line in pairs.read_text().splitlines()]
        pairs.write_text("\n".join(rows))
        with JudgeServer(grade) as server:
            run = ["--bench", "pairs", "--data", pairs, "--verifier", f"viescore:judge@{server.url}", "--json"]
            prices = ["--price-prompt", 1, "--price-completion", 2]
            assert judge(*run, *prices, "--output", tmp_path / "out") == 0
        found = json.loads(capsys.readouterr().out)
        assert found["sane"]["accuracy"] == pytest.approx(66.6667)
        taken = found["taken"]
        cost = 1000 * (taken["prompt_tokens"] + 2 * taken["completion_tokens"]) / 1e6
        assert taken["cost_per_1000"] == pytest.approx(cost)

    def test_modes_of_a_vlm(self, pairs: Path, tmp_path: Path) -> None:
        with JudgeServer("<score>5.0</score>") as server:
            run = ["--bench", "pairs", "--data", pairs, "--verifier", f"openai:judge@{server.url}", "--mode", "think"]
            assert judge(*run, "--output", tmp_path / "out", "--temperature", 0.5) == 0
            assert server.requests[0].body["temperature"] == 0.5
            assert "do not list verdicts" in server.requests[0].texts[0]


class TestRecorded:
    def test_own_records_are_predictions_and_are_compared(
        self, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert judge("--bench", "pairs", "--data", pairs, "--verifier", "measure", "--output", tmp_path / "out") == 0
        capsys.readouterr()
        recorded = ["--bench", "pairs", "--predictions", tmp_path / "out"]
        assert judge(*recorded, "--compare", tmp_path / "out" / "judged.jsonl", "--json") == 0
        comparison = json.loads(capsys.readouterr().out)["comparison"]
        assert comparison["strict"]["difference"] == 0.0
        assert comparison["mcnemar"] == {"only_first": 0, "only_second": 0, "p_value": 1.0}

    def test_a_run_keeps_its_comparison_for_the_page(self, pairs: Path, tmp_path: Path) -> None:
        run = ["--bench", "pairs", "--data", pairs, "--verifier", "measure", "--output", tmp_path / "out"]
        assert judge(*run) == 0
        (tmp_path / "other.jsonl").write_bytes((tmp_path / "out" / "judged.jsonl").read_bytes())
        assert judge(*run, "--compare", tmp_path / "other.jsonl") == 0
        kept = json.loads((tmp_path / "out" / "summary.json").read_text())
        assert kept["comparison"]["strict"]["difference"] == 0.0
        assert main(["report", str(tmp_path / "out"), "-o", str(tmp_path / "page.html")]) == 0
        page = (tmp_path / "page.html").read_text()
        assert "Two judges on the same rows" in page
        assert '<span class="quiet">Judge</span> measure' in page

    def test_answers_of_another_benchmark_are_refused(
        self, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert judge("--bench", "pairs", "--data", pairs, "--verifier", "measure", "--output", tmp_path / "out") == 0
        assert judge("--bench", "imagenhub", "--predictions", tmp_path / "out") == 2
        assert "imagenhub is a benchmark of ratings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bench", "pairs"], "give --output DIR to ask a judge, or --predictions FILE"),
        (["--bench", "pairs", "--output", "o", "--predictions", "p"], "give --output DIR to ask a judge, or"),
        (["--bench", "pears", "--output", "o"], "did you mean 'pairs'"),
        (["--bench", "pairs", "--output", "o"], "--data"),
        (["--bench", "pairs", "--predictions", "absent.json"], "no file or folder absent.json"),
        (["--bench", "pairs", "--predictions", "p", "--verifier", "measure"], "leave --verifier out"),
        (["--bench", "pairs", "--data", "x", "--output", "o", "--limit", "0"], "--limit must be at least 1"),
        (["--bench", "pairs", "--data", "x", "--output", "o", "--price-prompt", "1"], "--price-completion"),
        (["--bench", "pairs", "--data", "x", "--output", "o", "--mode", "think"], "no settings mode"),
        (["--bench", "pairs", "--data", "absent.jsonl", "--output", "o"], "no file or folder absent.jsonl"),
    ],
)
def test_usage_errors(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDITR1_VERIFIER", "measure")
    assert judge(*arguments) == 2
    assert message in capsys.readouterr().err


def test_what_is_evaluated_must_be_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval"]) == 2
    assert main(["eval", "judge", "--help"]) == 0
    assert "--predictions" in capsys.readouterr().out
