"""What judging took, and who judged, goes from the judge through the reward into the record."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from editr1_plugins.principles.cache import MemoryCache
from editr1_plugins.reward.aggregate import merge_samples
from editr1_plugins.reward.journal import read_records
from editr1_plugins.reward.record import failure_kind, versions_of
from editr1_plugins.reward.rrm import EditRRMReward
from editr1_plugins.testing.judge_server import JudgeServer, Scripted
from editr1_plugins.types import FOLLOW, Edit, Principle, Usage, Verification
from editr1_plugins.verifiers.cached import CachedVerifier
from editr1_plugins.verifiers.openai import OpenAIVerifier
from editr1_plugins.verifiers.prompting import prompt_version

PRINCIPLE = Principle(question="Is it red?", category=FOLLOW)


class Questions:
    def decompose(self, requests: Sequence[tuple[Image.Image, str]]) -> list[tuple[Principle, ...]]:
        return [(PRINCIPLE,)] * len(requests)


def edit() -> Edit:
    return Edit(
        source=Image.new("RGB", (32, 32), "blue"), edited=Image.new("RGB", (32, 32), "red"), instruction="make it red"
    )


def test_tokens_latency_prompt_and_model_are_in_the_record(tmp_path: Path) -> None:
    with JudgeServer(Scripted(text="<score>7.5</score>", cached_tokens=64)) as server:
        judge = OpenAIVerifier("tiny", server.url.replace("//", "//user:secret@"), mode="think")
        [outcome] = EditRRMReward(judge, Questions(), guards=(), samples=2, record=tmp_path).score([edit()])
        judge.close()
    (row,) = read_records(tmp_path)
    usage = row["usage"]
    assert usage["prompt_tokens"] > 0
    assert (usage["prompt_tokens"] % 2, usage["cached_tokens"]) == (0, 128)  # two requests, one per sample
    assert usage["completion_tokens"] > 0
    assert 0 < usage["latency"] <= row["seconds"]
    assert outcome.usage is not None
    assert outcome.usage.prompt_tokens == usage["prompt_tokens"]
    assert row["prompt_version"] == prompt_version("think")
    assert row["model_version"].startswith("openai:tiny@http://")
    assert "secret" not in str(row)


def test_a_failed_judgement_has_its_cost_too(tmp_path: Path) -> None:
    with JudgeServer("no score in here") as server:
        judge = OpenAIVerifier("tiny", server.url)
        EditRRMReward(judge, Questions(), guards=(), record=tmp_path).score([edit()])
        judge.close()
    (row,) = read_records(tmp_path)
    assert row["score"] is None
    assert row["usage"]["prompt_tokens"] > 0


def test_a_judge_that_says_nothing_leaves_them_empty(tmp_path: Path) -> None:
    EditRRMReward("measure", "rules", record=tmp_path).score([edit()])
    (row,) = read_records(tmp_path)
    assert (row["usage"], row["prompt_version"], row["model_version"]) == (None, None, None)
    assert row["verifier"].startswith("measure/")


def test_what_was_found_in_a_cache_cost_nothing() -> None:
    with JudgeServer("<score>7.5</score>") as server:
        judge = OpenAIVerifier("tiny", server.url, mode="think")
        cached = CachedVerifier(judge, MemoryCache())
        [first] = cached.verify([edit()], [(PRINCIPLE,)])
        [again] = cached.verify([edit()], [(PRINCIPLE,)])
        judge.close()
        assert len(server.requests) == 1
    assert first.usage is not None
    assert again.usage is None
    assert versions_of(cached) == versions_of(judge) == (prompt_version("think"), f"openai:tiny@{server.url}")


def test_usage_of_samples_is_summed_where_known_and_says_nothing_about_equality() -> None:
    samples = [
        Verification(score=4.0, usage=Usage(prompt_tokens=100, completion_tokens=7, latency=0.5)),
        Verification(score=6.0, usage=Usage(prompt_tokens=100, latency=2.0)),
        Verification(score=None, failure="timeout", samples=0),
    ]
    merged = merge_samples(samples)
    assert merged.usage == Usage(prompt_tokens=200, cached_tokens=None, completion_tokens=7, latency=2.0)
    assert merge_samples([samples[2], samples[2]]).usage is None
    assert samples[0] == Verification(score=4.0)
    for wrong in (-1, math.nan, math.inf):
        with pytest.raises(ValueError, match="latency must be at least 0"):
            Usage(latency=wrong)


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        ("timeout: no reply within 60 s from http://judge", "timeout"),
        ("spread 3.25 above 1", "spread # above #"),
        ("no_score", "no_score"),
        ("x" * 200, "x" * 79 + "…"),
    ],
)
def test_failures_are_counted_by_kind(failure: str, kind: str) -> None:
    assert failure_kind(failure) == kind


def test_a_plugin_whose_answer_is_no_json_costs_its_record_but_not_the_run(tmp_path: Path) -> None:
    class Odd:
        def verify(self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]]) -> list[Verification]:
            return [Verification(score=5.0, trace=object()) for _ in edits]  # type: ignore[arg-type]

    [outcome] = EditRRMReward(Odd(), Questions(), guards=(), record=tmp_path).score([edit()])
    assert outcome.score == 5.0
    assert not list(read_records(tmp_path))
