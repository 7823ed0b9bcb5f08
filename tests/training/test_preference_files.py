"""Pairs from the forms that teams have: read, checked, kept inside their folder, and written as a data set."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as Pictures

from editr1_plugins.errors import ConfigError, DataError
from editr1_plugins.reward.bulk import score_file
from editr1_plugins.training.preference_files import load_pairs, pairs_from_scores, save_pairs
from editr1_plugins.training.preference_pairs import pair_rows, synthetic_count, with_principles
from editr1_plugins.types import FOLLOW, Principle

QUESTION = {"question": "Is it brighter?", "category": FOLLOW}


def grey(level: int) -> Pictures.Image:
    return Pictures.new("RGB", (16, 16), (level,) * 3)


def level(image: Any) -> int:
    return int(image.getpixel((0, 0))[0])


def lines(folder: Path, rows: list[dict[str, Any]], levels: range = range(0, 200, 10)) -> Path:
    """A JSONL file, and beside it images named after their level."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for each in levels:
        grey(each).save(folder / "images" / f"{each}.png")
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def row(winner: int, loser: int, **more: Any) -> dict[str, Any]:
    names = {"source": "images/50.png", "winner": f"images/{winner}.png", "loser": f"images/{loser}.png"}
    return {**names, "instruction": "make it brighter", **more}


def told(pairs: Dataset) -> list[tuple[int, int, int]]:
    return [(level(each["source"]), level(each["winner"]), level(each["loser"])) for each in pairs]


class TestForms:
    def test_winner_and_loser(self, tmp_path: Path) -> None:
        pairs = load_pairs(lines(tmp_path, [row(100, 10), row(90, 20, principles=[QUESTION])]))
        assert told(pairs) == [(50, 100, 10), (50, 90, 20)]
        assert [each["principles"] for each in pairs] == [None, [QUESTION]]

    def test_labels_say_who_won_and_same_is_dropped_and_counted(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        both = {"source": "images/50.png", "image_a": "images/10.png", "image_b": "images/100.png"}
        rows = [{**both, "instruction": f"edit {label}", "label": label} for label in ("a", "same", "b", " B ")]
        with caplog.at_level(logging.WARNING):
            pairs = load_pairs(lines(tmp_path, rows))
        assert told(pairs) == [(50, 10, 100), (50, 100, 10), (50, 100, 10)]
        assert [each["instruction"] for each in pairs] == ["edit a", "edit b", "edit  B "]
        assert "1 of 4 pairs are labelled 'same'" in caplog.text

    def test_rankings_give_every_pair_of_unequal_rank(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        names = [f"images/{each}.png" for each in (10, 20, 30)]
        ranking = {"source": "images/50.png", "instruction": "brighter", "images": names, "ranks": [2, 1, 2]}
        path = lines(tmp_path, [ranking, {**ranking, "ranks": [3, 2.5, 1]}])
        with caplog.at_level(logging.WARNING):
            pairs = load_pairs(path)
        assert told(pairs)[:2] == [(50, 20, 10), (50, 20, 30)]
        assert sorted(told(pairs)[2:]) == [(50, 20, 10), (50, 30, 10), (50, 30, 20)]
        assert "1 pairs of equal rank" in caplog.text
        few = load_pairs(path, max_pairs_per_ranking=1)
        assert [each["row"] for each in few] == [0, 1]
        assert told(few) == told(load_pairs(path, max_pairs_per_ranking=1))

    @pytest.mark.parametrize("form", ["pairs", "labels", "rankings"])
    def test_parquet_with_the_images_in_the_rows(self, tmp_path: Path, form: str) -> None:
        images = [grey(100), grey(10)]
        columns: dict[str, list[Any]] = {"source": [grey(50)], "instruction": ["brighter"]}
        features: dict[str, Any] = {"source": Image(), "instruction": Value("string")}
        if form == "pairs":
            columns |= {"winner": images[:1], "loser": images[1:]}
        elif form == "labels":
            columns |= {"image_b": images[:1], "image_a": images[1:], "label": ["b"]}
        else:
            columns |= {"images": [images], "ranks": [[1, 2]]}
        for name in columns.keys() - features.keys():
            kinds = {"label": Value("string"), "images": List(Image()), "ranks": List(Value("int64"))}
            features[name] = kinds.get(name, Image())
        Dataset.from_dict(columns, features=Features(features)).to_parquet(tmp_path / "train.parquet")
        assert told(load_pairs(tmp_path / "train.parquet")) == [(50, 100, 10)]

    @pytest.mark.parametrize("form", ["pairs", "labels", "rankings"])
    def test_what_trains_is_read_from_every_form(self, tmp_path: Path, form: str) -> None:
        rows = {
            "pairs": row(100, 10),
            "labels": {"image_a": "images/100.png", "image_b": "images/10.png", "label": "a"},
            "rankings": {"images": ["images/10.png", "images/100.png"], "ranks": [2, 1]},
        }[form]

        class Same:
            def decompose(self, requests: Any) -> list[Any]:
                return [(Principle(**QUESTION),) for _ in requests]  # type: ignore[arg-type]

        pairs = load_pairs(lines(tmp_path, [{"source": "images/50.png", "instruction": "brighter", **rows}]))
        made = pair_rows(with_principles(pairs, Same()))
        assert [[level(image) for image in each["images"]] for each in made] == [[50, 100], [50, 10]]
        assert [(each["pair"], each["side"]) for each in made] == [(0, "winner"), (0, "loser")]


class TestWrongRows:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"instruction": " "}, "row 1, column 'instruction': blank"),
            ({"label": "c"}, "row 1, column 'label': 'c'"),
            ({"label": None}, "row 1, column 'label': None"),
        ],
    )
    def test_labels_and_texts(self, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
        good = {"source": "images/50.png", "image_a": "images/0.png", "image_b": "images/10.png", "label": "a"}
        good["instruction"] = "brighter"
        with pytest.raises(DataError, match=message):
            load_pairs(lines(tmp_path, [good, {**good, **changes}]))

    @pytest.mark.parametrize("ranks", [[1], None, [1, float("inf")], [1, 2, 3], []])
    def test_ranks(self, tmp_path: Path, ranks: Any) -> None:
        bad = {"source": "images/50.png", "instruction": "x", "images": ["images/0.png", "images/10.png"]}
        rows = [{**bad, "ranks": [1.0, 2.0]}, {**bad, "ranks": ranks}]
        with pytest.raises(DataError, match="row 1, column 'ranks'"):
            load_pairs(lines(tmp_path, rows))

    @pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "https://host/x.png", "images/missing.png"])
    def test_a_name_leads_nowhere_else(self, tmp_path: Path, name: str) -> None:
        grey(1).save(tmp_path / "secret.png")
        pairs = load_pairs(lines(tmp_path / "data set", [{**row(100, 10), "winner": name}]))
        with pytest.raises(DataError, match="row 0, column 'winner'"):
            pairs[0]

    def test_none_of_the_forms_and_nothing_but_same(self, tmp_path: Path) -> None:
        bare = {"source": "images/50.png", "instruction": "x"}
        with pytest.raises(DataError, match="holds no pairs: beside source and instruction it needs winner, loser"):
            load_pairs(lines(tmp_path, [bare]))
        both = {**bare, "image_a": "images/0.png", "image_b": "images/0.png", "label": "same"}
        with pytest.raises(DataError, match="no pair with a winner"):
            load_pairs(lines(tmp_path, [both]))
        with pytest.raises(ConfigError, match="at least 1"):
            load_pairs(tmp_path / "pairs.jsonl", max_pairs_per_ranking=0)


class TestFromScores:
    def candidates(self, folder: Path, **more: Any) -> Path:
        """Two groups of candidates, judged by what the name of the image says."""
        rows = [
            {"source": "images/50.png", "edited": f"images/{edited}.png", "instruction": f"make it {word}"}
            for word, levels in (("brighter", (60, 150, 100)), ("lighter", (90, 100)))
            for edited in levels
        ]

        class Brightness:
            identity = "brightness"

            def verify(self, edits: Any, principles: Any) -> list[Any]:
                from editr1_plugins.types import Verification

                scores = [None if level(edit.edited) == 60 else level(edit.edited) / 20 for edit in edits]
                return [
                    Verification(score=score, failure="too dark" if score is None else None, samples=1)
                    for score in scores
                ]

        path = lines(folder, rows)
        score_file(path, folder / "judged", verifier=Brightness(), guards=(), **more)
        return folder / "judged"

    def test_best_against_worst_where_the_gap_is_wide_enough(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        directory = self.candidates(tmp_path)
        with caplog.at_level(logging.WARNING):
            pairs = pairs_from_scores(directory, min_gap=2)
        assert told(pairs) == [(50, 150, 100)]  # the unjudged one is no loser
        assert (pairs[0]["synthetic"], pairs[0]["gap"], pairs[0]["judge"]) == (True, 2.5, "brightness")
        assert pairs[0]["principles"]
        assert synthetic_count(pairs) == 1
        assert "1 synthetic pairs of 2 groups: the judge brightness chose them" in caplog.text
        assert len(pairs_from_scores(directory, min_gap=0.5)) == 2
        with pytest.raises(DataError, match="none of 2 groups"):
            pairs_from_scores(directory, min_gap=9)
        (tmp_path / "empty").mkdir()
        with pytest.raises(DataError, match="holds no edit with a score"):
            pairs_from_scores(tmp_path / "empty")
        with pytest.raises(ConfigError, match="min_gap"):
            pairs_from_scores(directory, min_gap=0)


class TestSave:
    def test_what_is_saved_is_loaded_and_images_are_kept_once(self, tmp_path: Path) -> None:
        pairs = load_pairs(lines(tmp_path, [row(100, 10, principles=[QUESTION]), row(100, 20, principles=[QUESTION])]))
        path = save_pairs(pairs, tmp_path / "saved")
        assert path == tmp_path / "saved" / "data" / "train-00000-of-00001.parquet"
        again = load_pairs(tmp_path / "saved")
        assert told(again) == told(pairs)
        assert [each["principles"] for each in again] == [[QUESTION]] * 2
        assert len(list((tmp_path / "saved" / "images").glob("??/*.png"))) == 4
        assert "synthetic" not in (tmp_path / "saved" / "README.md").read_text()

    def test_synthetic_pairs_stay_told(self, tmp_path: Path) -> None:
        rows = [{"source": grey(1), "winner": grey(2), "loser": grey(3), "instruction": "x", "synthetic": True}]
        save_pairs([{**rows[0], "judge": "j", "gap": 1.5}], tmp_path)
        assert synthetic_count(load_pairs(tmp_path)) == 1
        assert "1 of 1 pairs are synthetic: a judge (j) chose them" in (tmp_path / "README.md").read_text()
        with pytest.raises(DataError, match="pair 0 has no winner"):
            save_pairs([{**rows[0], "winner": None}], tmp_path)
        with pytest.raises(DataError, match="no pairs to save"):
            save_pairs([], tmp_path)
