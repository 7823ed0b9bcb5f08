"""Figures of a study: GSB, agreement, what is refused, and the pairs for preference training."""

from __future__ import annotations

import itertools
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
from study_kit import export, study

from editr1_plugins.errors import DataError
from editr1_plugins.evaluation.study.agreement import Level, alpha_interval, krippendorff_alpha
from editr1_plugins.evaluation.study.answers import read_answers
from editr1_plugins.evaluation.study.key import read_key
from editr1_plugins.evaluation.study.score import Majority, majority_votes, save_majority, score_study

#: Four observers, twelve units, values missing: Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), C.
_OBSERVERS = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")
PUBLISHED = [[int(value) for value in unit if value != "."] for unit in zip(*_OBSERVERS, strict=True)]


class TestAlpha:
    @pytest.mark.parametrize(("level", "expected"), [("nominal", 0.743), ("ordinal", 0.815)])
    def test_the_published_example(self, level: Level, expected: float) -> None:
        found = krippendorff_alpha(PUBLISHED, level)
        assert found is not None
        assert round(found, 3) == expected

    @pytest.mark.parametrize("level", ["nominal", "ordinal"])
    @pytest.mark.parametrize("seed", range(5))
    def test_it_is_what_all_pairs_one_by_one_give(self, level: Level, seed: int) -> None:
        draw = random.Random(seed)
        units = [[draw.choice((-1, 0, 0, 1)) for _ in range(draw.randint(0, 5))] for _ in range(30)]
        assert krippendorff_alpha(units, level) == pytest.approx(slow_alpha(units, level))

    def test_perfect_opposite_and_undefined(self) -> None:
        assert krippendorff_alpha([[1, 1], [-1, -1], [0, 0, 0]], "ordinal") == pytest.approx(1)
        opposite = krippendorff_alpha([[1, -1]] * 20, "nominal")
        assert opposite is not None
        assert opposite < 0
        assert krippendorff_alpha([[1, 1], [1, 1]], "nominal") is None
        assert krippendorff_alpha([[1], [], [0]], "ordinal") is None

    def test_ordinal_forgives_near_misses_and_nominal_does_not(self) -> None:
        near = [[1, 1], [-1, -1], [1, 0], [-1, 0], [0, 0], [1, 1]]
        far = [[1, 1], [-1, -1], [1, -1], [-1, 1], [0, 0], [1, 1]]
        for units, sign in ((near, 1), (far, -1)):
            ordinal, nominal = krippendorff_alpha(units, "ordinal"), krippendorff_alpha(units, "nominal")
            assert ordinal is not None
            assert nominal is not None
            assert sign * (ordinal - nominal) > 0

    def test_the_interval_holds_the_value_and_is_wide_for_few_units(self) -> None:
        found = alpha_interval(PUBLISHED, "nominal")
        many = alpha_interval(PUBLISHED * 20, "nominal")
        assert found is not None
        assert many is not None
        assert found[0] < 0.743 < found[1] <= 1
        assert many[1] - many[0] < (found[1] - found[0]) / 3
        assert alpha_interval([[1, 1], [0]], "nominal") is None


def slow_alpha(units: list[list[int]], level: Level) -> float:
    """From the definition: disagreement within units over that of all values with all others."""
    paired = [unit for unit in units if len(unit) > 1]
    values = [value for unit in paired for value in unit]

    def distance(one: int, other: int) -> float:
        if level == "nominal":
            return float(one != other)
        low, high = sorted((one, other))
        between = sum(values.count(each) for each in range(low, high + 1))
        return (between - (values.count(low) + values.count(high)) / 2) ** 2

    observed = sum(
        sum(distance(one, other) for one, other in itertools.permutations(unit, 2)) / (len(unit) - 1) for unit in paired
    ) / len(values)
    expected = sum(distance(one, other) for one, other in itertools.permutations(values, 2))
    return 1 - observed / (expected / (len(values) * (len(values) - 1)))


def rows(*said: int) -> dict[str, int]:
    return {f"row-{number}": each for number, each in enumerate(said)}


class TestFigures:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        columns = {"category": lambda number: "add" if number < 3 else "remove"}
        return study(tmp_path, 6, columns=columns, systems=("before", "after"))

    def figures(self, folder: Path, **said: dict[str, int]) -> Any:
        key = read_key(folder)
        return score_study(key, read_answers([export(folder, name, each) for name, each in said.items()], key))

    def test_gsb_of_all_of_categories_and_of_raters(self, folder: Path) -> None:
        found = self.figures(folder, ann=rows(1, 1, 0, -1, 1, 1), bob=rows(1, -1, 0, -1))
        assert (found.gsb.good, found.gsb.same, found.gsb.bad) == (5, 2, 3)
        assert found.gsb.gsb == pytest.approx(20.0)
        assert found.gsb.interval[0] < 20 < found.gsb.interval[1]
        add, remove = found.categories["add"], found.categories["remove"]
        assert (add.good, add.same, add.bad) == (3, 2, 1)
        assert add.gsb == pytest.approx(100 * 2 / 6)
        assert (remove.good, remove.same, remove.bad) == (2, 0, 2)
        assert remove.gsb == 0
        assert found.raters["ann"].gsb.gsb == pytest.approx(50.0)
        assert found.raters["bob"].gsb.gsb == pytest.approx(-25.0)
        assert (found.raters["bob"].answered, found.raters["bob"].unanswered) == (4, 2)
        assert found.raters["bob"].median_seconds == 1.5
        assert (found.items, found.unanswered, found.systems) == (6, 2, ("before", "after"))

    def test_sides_do_not_matter(self, tmp_path: Path) -> None:
        """Whatever the seed puts left, the same opinions give the same figures; the side shares tell the sides."""
        gsb, shares = set(), set()
        for seed in "123456":
            folder = study(tmp_path / seed, 7, seed=seed)
            found = self.figures(folder, ann=rows(1, 1, 1, -1, 0, 1, 1))
            gsb.add(found.gsb.gsb)
            shares.add(found.left_share)
        assert {round(each, 9) for each in gsb} == {round(100 * 4 / 7, 9)}
        assert len(shares) > 1

    def test_a_rater_who_always_says_left_prefers_no_system(self, tmp_path: Path) -> None:
        folder = study(tmp_path, 10)
        said = {each.name: 1 if each.left == "a" else -1 for each in read_key(folder).items}
        found = self.figures(folder, ann=said)
        assert found.gsb.gsb == 0
        assert found.left_share == found.raters["ann"].left_share == 100

    def test_the_interval_is_over_items_not_judgements(self, folder: Path) -> None:
        said = rows(1, 1, 1, -1, -1, 0)
        one = self.figures(folder, ann=said).gsb.interval
        many = self.figures(folder, **dict.fromkeys("abcdefgh", said)).gsb.interval
        assert many == pytest.approx(one)  # eight raters who copy each other know no more than one

    def test_agreement_and_majority(self, folder: Path) -> None:
        found = self.figures(folder, a=rows(1, 0, -1, 1, 1), b=rows(1, 0, -1, 0, -1), c=rows(1, 1, 0))
        units = [[1, 1, 1], [0, 0, 1], [-1, -1, 0], [1, 0], [1, -1]]
        assert found.agreement.items == 5
        assert found.agreement.nominal == pytest.approx(slow_alpha(units, "nominal"))
        assert found.agreement.ordinal == pytest.approx(slow_alpha(units, "ordinal"))
        assert found.majority == Majority(good=1, same=1, bad=1, undecided=2, unanswered=1)

    def test_one_rater_has_no_agreement_and_no_answers_no_gsb(self, folder: Path) -> None:
        alone = self.figures(folder, ann=rows(1, 1))
        assert (alone.agreement.items, alone.agreement.nominal, alone.agreement.ordinal_interval) == (0, None, None)
        assert alone.categories["remove"].gsb is None
        empty = self.figures(folder, bob={})
        assert (empty.gsb.gsb, empty.gsb.interval, empty.left_share, empty.unanswered) == (None, None, None, 6)
        assert empty.raters["bob"].median_seconds is None


class TestRefused:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return study(tmp_path, 3)

    def refused(self, folder: Path, *paths: Path) -> str:
        with pytest.raises(DataError) as caught:
            read_answers(paths, read_key(folder))
        return str(caught.value)

    def test_answers_of_another_study(self, folder: Path, tmp_path: Path) -> None:
        other = study(tmp_path / "other", 3, seed="other")
        path = export(other, "ann", rows(1, 0))
        assert "answers the study" in self.refused(folder, path)

    def test_two_of_one_rater(self, folder: Path, tmp_path: Path) -> None:
        paths = [export(folder, name, rows(1), tmp_path / f"{at}.json") for at, name in enumerate(("Ann", " ann "))]
        told = self.refused(folder, *paths)
        assert "0.json" in told
        assert "1.json" in told
        assert "are both of the rater" in told

    @pytest.mark.parametrize("change", ["answer", "rater", "left out", "milliseconds", "started"])
    def test_a_changed_file(self, folder: Path, change: str) -> None:
        path = export(folder, "ann", rows(1, 1, -1))
        found = json.loads(path.read_text())
        if change == "answer":
            found["answers"][1]["answer"] = "same"
        elif change == "left out":
            del found["answers"][2]
        elif change == "milliseconds":
            found["answers"][0]["milliseconds"] += 1
        else:
            found[change] = {"rater": "bob", "started": 1}[change]
        path.write_text(json.dumps(found))
        assert "was changed after it was exported" in self.refused(folder, path)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"format": "other"}, "no exported answers"),
            ({"version": 9}, "version 9"),
            ({"rater": " "}, "must be a name"),
            ({"started": "now"}, "'started' must be a time"),
            ({"answers": {}}, "'answers' a list"),
            ({"answers": [{"item": "f", "answer": "left", "milliseconds": 1, "at": 1}]}, "no item 'f'"),
            ({"answers": [{"item": "f", "answer": "both", "milliseconds": 1, "at": 1}]}, "one of left, same, right"),
            ({"answers": [{"item": "f", "answer": ["left"], "milliseconds": 1, "at": 1}]}, "one of left, same, right"),
            ({"answers": [{"item": "f", "answer": "left", "milliseconds": math.inf, "at": 1}]}, "milliseconds"),
            ({"checksum": None}, "was changed"),
        ],
    )
    def test_what_is_no_export(self, folder: Path, change: dict[str, Any], words: str) -> None:
        assert words in self.refused(folder, export(folder, "ann", rows(1), change=change))

    def test_an_item_answered_twice(self, folder: Path) -> None:
        path = export(folder, "ann", rows(1))
        answers = json.loads(path.read_text())["answers"] * 2
        assert "is answered twice" in self.refused(folder, export(folder, "ann", rows(1), change={"answers": answers}))

    def test_files_that_are_none(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "list.json").write_text("[1]")
        (tmp_path / "broken.json").write_text("{")
        (tmp_path / "none").mkdir()
        assert "no exported answers" in self.refused(folder, tmp_path / "list.json")
        assert "is not JSON" in self.refused(folder, tmp_path / "broken.json")
        assert "cannot be read" in self.refused(folder, tmp_path / "absent.json")
        assert "give the .json files" in self.refused(folder, tmp_path / "none")

    def test_a_folder_of_exports(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        for name in ("ann", "Bob\u00e9 \u4e2d"):
            export(folder, name, rows(1, 0), tmp_path / "in" / f"{len(name)}.json")
        found = read_answers([tmp_path / "in"], read_key(folder))
        assert [each.rater for each in found] == ["ann", "Bob\u00e9 \u4e2d"]


class TestPairs:
    def test_majorities_become_pairs_that_preference_training_reads(self, tmp_path: Path) -> None:
        from editr1_plugins.training.preference_files import load_pairs

        folder = study(tmp_path, 6)
        key = read_key(folder)
        said = {"a": rows(1, -1, 0, 1, 1), "b": rows(1, -1, 0, -1, 1), "c": rows(-1, -1, 1, 0, 1)}
        exports = read_answers([export(folder, name, each) for name, each in said.items()], key)
        names = {each.item: each.name for each in key.items}
        votes = {names[item]: vote for item, vote in majority_votes(key, exports).items()}
        assert votes == {**rows(1, -1, 0), "row-3": None, "row-4": 1, "row-5": None}
        counts = save_majority(key, exports, folder, tmp_path / "pairs")
        assert counts == {"pairs": 3, "same": 1, "undecided": 1, "unanswered": 1}
        pairs = load_pairs(tmp_path / "pairs")
        found = {row["instruction"]: row for row in pairs}
        assert set(found) == {"edit number 0", "edit number 1", "edit number 4"}
        for number, winner, loser in ((0, 100, 200), (1, 200, 100), (4, 100, 200)):
            row = found[f"edit number {number}"]
            colours = [row[name].getpixel((0, 0))[:2] for name in ("source", "winner", "loser")]
            assert colours == [(number, 0), (number, winner), (number, loser)]
            assert not row["synthetic"]

    def test_no_winner_is_an_error_and_so_is_a_lost_image(self, tmp_path: Path) -> None:
        folder = study(tmp_path, 2)
        key = read_key(folder)
        tied = read_answers([export(folder, "ann", rows(0, 0))], key)
        with pytest.raises(DataError, match="no item has a winner"):
            save_majority(key, tied, folder, tmp_path / "pairs")
        won = read_answers([export(folder, "bob", rows(1, 1))], key)
        (folder / key.items[0].a).unlink()
        with pytest.raises(DataError, match="cannot be read"):
            save_majority(key, won, folder, tmp_path / "pairs")
