"""The cold start as a whole: what it writes, what it never repeats, and what it says about failures."""

import json
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from editr1_plugins.errors import ConfigError, DataError
from editr1_plugins.images import content_hash
from editr1_plugins.testing.judge_server import JudgeServer, Scripted
from editr1_plugins.training.coldstart import config_from_mapping, run_coldstart
from editr1_plugins.training.coldstart.config import STAGES
from editr1_plugins.training.trace_data import load_traces

sys.path.insert(0, str(Path(__file__).parent))
from coldstart_kit import STRICT, CountingVerifier, answer, config, files_below, lines_of, rows, write_rows


def run(output: Path, count: int = 6, **more: Any) -> Any:
    """A cold start by verifiers of the caller's; `gold` says no to every third question."""
    judges = {"plain": CountingVerifier("plain"), "strict": CountingVerifier("strict", wrong=3)}
    settings = more.pop("settings", {})
    parts = {"rows": rows(count), "judges": judges, "gold": CountingVerifier("gold", wrong=3), **more}
    return run_coldstart(config_from_mapping(config(output, **settings)), **parts)


def test_made_images_become_a_data_set(tmp_path: Path) -> None:
    given = rows(6)
    report = run(tmp_path)
    edits = sum(len(row["edited"]) for row in given)
    assert report.examples == edits == report.stages["traces"].items // 2
    assert report.accuracy == 1.0
    assert report.chosen == {"strict": edits}
    assert report.judged == {"plain": (2 * edits, 2 * edits), "strict": (edits, edits)}
    traces = load_traces(tmp_path / "dataset")
    assert len(traces) == edits
    shown = Counter((content_hash(row["source"]), content_hash(row["edited"]), row["instruction"]) for row in traces)
    assert shown == Counter(
        (content_hash(row["source"]), content_hash(edited), row["instruction"])
        for row in given
        for edited in row["edited"]
    )
    row = traces[0]
    assert row["gold"] == row["verdicts"] == [int(place % 3 != 0) for place in range(len(row["principles"]))]
    assert row["reasons"][1] == "reason 1"
    assert row["score"] == 5.0
    assert row["judge"] == "strict"
    assert row["average"] == pytest.approx(sum(row["gold"]) / len(row["gold"]))
    names = {name for name in files_below(tmp_path / "dataset") if name.startswith("images")}
    assert all(
        content_hash(Image.open(tmp_path / "dataset" / name)) == Path(name).stem and Path(name).parent.name == name[7:9]
        for name in names
    )


def test_a_second_run_asks_nobody_and_writes_the_same(tmp_path: Path) -> None:
    run(tmp_path)
    before = files_below(tmp_path / "dataset")
    judges = {name: CountingVerifier(name, wrong=3 * (name == "strict")) for name in ("plain", "strict")}
    gold = CountingVerifier("gold", wrong=3)
    run(tmp_path, judges=judges, gold=gold)
    assert files_below(tmp_path / "dataset") == before
    assert [each.asked for each in (*judges.values(), gold)] == [0, 0, 0]


def test_neither_order_nor_pieces_change_the_data_set(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"select": {"random": 4, "hard": 2, "traits": []}}
    run(tmp_path / "a", 8, settings=settings)
    run(tmp_path / "b", 8, settings={**settings}, rows=rows(8)[::-1])
    assert files_below(tmp_path / "a" / "dataset") == files_below(tmp_path / "b" / "dataset")
    for limit in (1, 3, None):
        for stage in STAGES:
            run(tmp_path / "c", 8, settings=settings, limit=limit, stages=[stage])
        assert len({line["key"].split("/")[0] for line in lines_of(tmp_path / "c", "choose")}) == (limit or 6)
    assert files_below(tmp_path / "a" / "dataset") == files_below(tmp_path / "c" / "dataset")


def test_failures_are_outcomes_with_reasons(tmp_path: Path) -> None:
    given = rows(8)
    given[0]["instruction"] = "make it somehow nicer, but not too much"  # the rules decomposer gives up
    given[1]["instruction"] = " "
    given[2]["edited"] = [b"no image"]
    given[3]["source"] = b"no image"
    given.append(dict(given[4]))
    words = given[5]["instruction"].split()
    judges = {
        "plain": CountingVerifier("plain", fails=[" ".join(words)]),
        "strict": CountingVerifier("strict", fails=[" ".join(words)]),
    }
    gold = CountingVerifier("gold", fails=[given[6]["instruction"]])
    report = run(tmp_path, rows=given, judges=judges, gold=gold)
    assert report.scan["duplicates"] == 1
    assert report.scan["unusable"] == {"no instruction": 1}
    failures = {name: dict(stage.failures) for name, stage in report.stages.items()}
    assert failures["select"] == {"bad_image": 1}
    assert failures["decompose"] == {"no_principles": 1}
    assert failures["candidates"] == {"bad_image": 1}
    same = sum(len(row["edited"]) for row in given[4:8] if row["instruction"] == given[5]["instruction"])
    assert failures["traces"] == {"no_idea": 2 * same}
    assert failures["choose"]["no_trace"] == same
    assert failures["choose"]["no_gold"] >= 1
    card = (tmp_path / "dataset" / "README.md").read_text()
    assert "| decompose | 6 | 1 | no_principles: 1 |" in card
    assert report.examples == len(load_traces(tmp_path / "dataset"))


def test_retrying_asks_only_for_what_failed(tmp_path: Path) -> None:
    given = rows(6)
    word = given[0]["instruction"]
    run(tmp_path, judges={"plain": CountingVerifier("plain", fails=[word]), "strict": CountingVerifier("strict")})
    failed = [line for line in lines_of(tmp_path, "traces") if line.get("failure")]
    again = {"plain": CountingVerifier("plain"), "strict": CountingVerifier("strict")}
    run(tmp_path, judges=again)
    assert again["plain"].asked == 0
    report = run(tmp_path, judges=again, retry_failed=True)
    assert again["plain"].asked == 2 * len(failed)
    assert again["strict"].asked == 0
    assert failed
    assert report.stages["traces"].failed == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 4}, "stage 'select'.*seed was 3, is 4"),
        ({"select": {"random": 2}}, "stage 'select'.*select.random was None, is 2"),
        ({"candidates": [{"name": "others", "column": "edited"}]}, "stage 'candidates'.*candidates.made is gone"),
        ({"decompose": {"spec": "first:rules"}}, "stage 'decompose'.*decompose.spec was 'rules'"),
    ],
)
def test_a_changed_configuration_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    run(tmp_path, 3)
    with pytest.raises(ConfigError, match=said):
        run(tmp_path, 3, settings=change)


def test_a_changed_judge_is_named_and_what_costs_nothing_may_change(tmp_path: Path) -> None:
    run(tmp_path, 3)
    changed = config(tmp_path)["traces"]
    changed["judges"][1]["temperature"] = 0.5
    with pytest.raises(ConfigError, match=r"traces.*judges.strict.temperature was 1.0, is 0.5.*put it back"):
        run(tmp_path, 3, settings={"traces": changed})
    free = config(tmp_path)["traces"] | {"batch_size": 1}
    free["judges"][0]["price"] = {"prompt": 1.0, "completion": 1.0}
    run(tmp_path, 3, settings={"traces": free})
    # Without the file of the stage, those that were made from it are found out.
    (tmp_path / "stages" / "traces.jsonl").unlink()
    with pytest.raises(ConfigError, match="'verify' was made from other outcomes of the stages before"):
        run(tmp_path, 3, settings={"traces": changed})


def test_a_damaged_file_is_an_error_and_a_cut_line_is_not(tmp_path: Path) -> None:
    run(tmp_path, 3)
    before = files_below(tmp_path / "dataset")
    path = tmp_path / "stages" / "traces.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    run(tmp_path, 3)
    assert files_below(tmp_path / "dataset") == before
    assert len(path.read_bytes()) == len(whole)
    path.write_bytes(whole[:-200] + b"\0\0" + whole[-190:])
    with pytest.raises(DataError, match=r"traces.jsonl, line \d+: .* damaged"):
        run(tmp_path, 3)


def test_two_runs_at_a_time_are_refused(tmp_path: Path) -> None:
    class Nested(CountingVerifier):
        def verify(self, edits: Any, principles: Any) -> Any:
            with pytest.raises(ConfigError, match="another run is writing"):
                run(tmp_path, 2)
            return super().verify(edits, principles)

    run(tmp_path, 2, gold=Nested("gold", wrong=3))


def test_ready_images_may_lie_in_a_folder(tmp_path: Path) -> None:
    given = rows(4)
    folder = tmp_path / "edits"
    folder.mkdir()
    for row in given[:3]:
        for number, image in enumerate(row["edited"]):
            image.save(folder / (f"{row['id']}-{number}.png" if number else f"{row['id']}.png"))
    given[3]["id"] = "../edits/0"
    report = run(tmp_path / "out", rows=given, settings={"candidates": [{"name": "made", "folder": str(folder)}]})
    assert report.examples == sum(len(row["edited"]) for row in given[:3])
    assert report.stages["candidates"].failures == {"bad_image": 1}


def test_editors_get_a_seed_for_each_candidate(tmp_path: Path) -> None:
    seeds: list[int] = []

    def editor(source: Image.Image, instruction: str, seed: int) -> Image.Image:
        seeds.append(seed)
        if len(seeds) == 2:
            raise RuntimeError("out of paint")
        return Image.new("RGB", source.size, (seed % 256, 0, 0))

    settings = {"candidates": [{"name": "paint", "count": 3}]}
    report = run(tmp_path / "a", 2, settings=settings, editors={"paint": editor})
    assert len(set(seeds)) == 6
    assert report.stages["candidates"].failures == {"editor raised RuntimeError": 1}
    first = set(seeds)
    run(tmp_path / "b", settings=settings, editors={"paint": editor}, rows=rows(2)[::-1])
    assert set(seeds[6:]) == first


def test_the_tiny_editors_make_candidates(tmp_path: Path) -> None:
    from editr1_plugins.miniedit.model import CALL, weights_path

    editors = [
        {"name": name, "pipeline": str(weights_path(name)), "call": {**CALL, "num_inference_steps": 2}, "count": 2}
        for name in ("start", "clean")
    ]
    run(tmp_path / "a", 2, settings={"candidates": editors}, stages=("select", "candidates"), limit=1)
    run(tmp_path / "a", 2, settings={"candidates": editors})
    run(tmp_path / "b", 2, settings={"candidates": editors})
    made = {line["key"]: line["candidates"] for line in lines_of(tmp_path / "a", "candidates")}
    assert len(made) == 8
    assert len({name for each in made.values() for name in each.values()}) == 8
    assert files_below(tmp_path / "a" / "dataset") == files_below(tmp_path / "b" / "dataset")
    wrong = [{"name": "start", "pipeline": str(weights_path("start")), "call": {"steps": 2}}]
    with pytest.raises(ConfigError, match=r"candidates\.start\.call: FluxKontextPipeline takes no steps"):
        run(tmp_path / "c", 1, settings={"candidates": wrong})


class TestBehindAServer:
    def test_the_pool_differs_in_words_temperature_mode_and_seed(self, tmp_path: Path) -> None:
        with JudgeServer(answer) as server:
            report = run_coldstart(config_from_mapping(config(tmp_path, server.url)), rows=rows(5))
        asked = [request for request in server.requests if request.body["model"] != "gold"]
        by_model = {
            name: [each for each in asked if each.body["model"] == name] for name in ("judge-plain", "judge-strict")
        }
        plain, strict = by_model.values()
        assert {request.body.get("n", 1) for request in plain} == {2}
        assert {request.body["temperature"] for request in strict} == {1.0}
        assert all(request.texts[0].startswith(STRICT) for request in strict)
        assert not any(STRICT in request.texts[0] for request in plain)
        assert "Give no reasoning" in strict[0].texts[0]
        assert "Give no reasoning" not in plain[0].texts[0]
        assert len({request.body["seed"] for request in asked}) == len(asked)
        gold = [request for request in server.requests if request.body["model"] == "gold"]
        assert all(len(request.images) == 2 for request in gold)
        traces = {line["key"]: line["samples"] for line in lines_of(tmp_path, "traces")}
        shown = sorted(request.texts[-1].count('{"trace":') for request in gold)
        usable = Counter(
            key.rpartition("/")[0] for key, samples in traces.items() for each in samples if each["score"] is not None
        )
        assert shown == sorted(usable.values())
        assert report.stages["verify"].items == len(gold)

    def test_cost_is_what_the_server_counted_at_the_configured_price(self, tmp_path: Path) -> None:
        def cached(request: Any) -> Scripted:
            return Scripted(text=answer(request), cached_tokens=50)

        with JudgeServer(cached) as server:
            report = run_coldstart(config_from_mapping(config(tmp_path, server.url)), rows=rows(4))
        total = 0.0
        for line in lines_of(tmp_path, "traces") + lines_of(tmp_path, "verify"):
            spent = line["tokens"]
            total += ((spent["prompt"] - 50) * 1.0 + 50 * 0.5 + spent["completion"] * 4.0) / 1e6
        assert report.cost == pytest.approx(total)
        assert total > 0
        assert set(report.spent) == {"traces.plain", "traces.strict", "verify"}
        card = (tmp_path / "dataset" / "README.md").read_text()
        assert f"{report.cost:.4f} |" in card
        assert server.url not in card
        assert "127.0.0.1" not in card

    def test_hard_rows_are_those_that_the_filter_does_not_call_simple(self, tmp_path: Path) -> None:
        with JudgeServer(answer) as server:
            asked = {"spec": f"openai:filter@{server.url}"}
            select = {"random": 2, "hard": 3, "traits": [], "filter": asked}
            parts = {"rows": rows(20), "stages": ("select",)}
            report = run_coldstart(config_from_mapping(config(tmp_path, server.url, select=select)), **parts)
            count = len(server.requests)
            run_coldstart(config_from_mapping(config(tmp_path, server.url, select=select)), **parts)
        assert len(server.requests) == count
        assert report.parts == {"hard": 3, "random": 2}
        said = {line["key"]: line["simple"] for line in lines_of(tmp_path, "filter")}
        hard = [line["key"] for line in lines_of(tmp_path, "select") if line.get("part") == "hard"]
        assert len(hard) == 3
        assert not any(said[key] for key in hard)
        assert any(said.values())

    def test_a_dead_filter_ends_the_run_and_a_dead_judge_is_counted(self, tmp_path: Path) -> None:
        from editr1_plugins.errors import ComponentError

        with JudgeServer(Scripted(fault="401")) as server:
            select = {"random": 2, "hard": 3, "traits": [], "filter": {"spec": f"openai:filter@{server.url}"}}
            with pytest.raises(ComponentError, match=r"filter answers nothing: .*401.*--retry-failed"):
                run_coldstart(config_from_mapping(config(tmp_path / "a", server.url, select=select)), rows=rows(20))
            report = run_coldstart(config_from_mapping(config(tmp_path / "b", server.url)), rows=rows(3))
        assert report.examples == 0
        assert report.stages["traces"].failed == report.stages["traces"].items > 0
        assert len(load_rows(tmp_path / "b")) == 0

    def test_a_chat_model_may_be_asked_for_gold_as_any_judge_is(self, tmp_path: Path) -> None:
        with JudgeServer(answer) as server:
            settings = config(tmp_path, server.url)
            settings["verify"] = {"spec": f"openai:judge-gold@{server.url}", "as_verifier": True}
            report = run_coldstart(config_from_mapping(settings), rows=rows(4))
        asked = [request for request in server.requests if request.body["model"] == "judge-gold"]
        assert len(asked) == report.stages["verify"].items
        assert all('{"trace":' not in text for request in asked for text in request.texts)
        assert report.examples > 0
        assert report.spent["verify"].requests == len(asked)
        assert report.cost is not None

    def test_a_retry_takes_another_seed(self, tmp_path: Path) -> None:
        with JudgeServer("I would rather not.") as server:
            settings = config_from_mapping(config(tmp_path, server.url))
            run_coldstart(settings, rows=rows(2))
            first = {request.body["seed"] for request in server.requests}
            run_coldstart(settings, rows=rows(2), retry_failed=True)
            second = {request.body["seed"] for request in server.requests} - first
        assert len(second) == len(first)
        assert {line["attempt"] for line in lines_of(tmp_path, "traces")} == {0, 1}

    def test_text_that_is_no_unicode_does_not_end_the_run(self, tmp_path: Path) -> None:
        def broken(request: Any) -> str:
            return answer(request).replace("I see", "I see \ud800").replace("seen", "seen \udc00")

        with JudgeServer(broken) as server:
            report = run_coldstart(config_from_mapping(config(tmp_path, server.url)), rows=rows(4))
        assert report.examples == len(load_traces(tmp_path / "dataset")) > 0
        assert any("seen ?" in reason for row in load_rows(tmp_path) for reason in row["reasons"])


def load_rows(folder: Path) -> list[Any]:
    from pyarrow import parquet

    return [
        row for path in (folder / "dataset" / "data").glob("*.parquet") for row in parquet.read_table(path).to_pylist()
    ]


def test_files_are_read_below_their_folder_only(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "data", 4)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    shutil.copy(tmp_path / "data" / lines[0]["edited"][0], tmp_path / "outside.png")
    lines[0]["edited"], lines[1]["source"] = ["../outside.png"], "../outside.png"
    path.write_text("\n".join(map(json.dumps, lines)))
    report = run(tmp_path / "out", rows=None, settings={"data": {"name": str(path)}})
    assert report.stages["candidates"].failures == {"bad_image": 1}
    assert report.stages["select"].failures == {"bad_image": 1}
    assert report.examples == sum(len(line["edited"]) for line in lines[2:])
