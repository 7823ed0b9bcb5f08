"""A study as its maker gets it: the page, the key, and that the page does not tell the key."""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from study_kit import picture, study, write_rows

from editr1_plugins.errors import ConfigError, DataError
from editr1_plugins.evaluation.study.key import read_key
from editr1_plugins.evaluation.study.make import make_study
from editr1_plugins.evaluation.study.rows import from_folders, from_rows


def shown(folder: Path) -> list[tuple[str, dict[str, str]]]:
    """What the page holds, item by item: identifier and content."""
    text = (folder / "study.html").read_text()
    found = re.findall(r'<script type="application/json" class="item" data-item="([0-9a-f]+)">(.*?)</script>', text)
    return [(item, json.loads(content)) for item, content in found]


def colour(uri: str) -> tuple[int, int]:
    """(row, kind) of one of the kit's pictures."""
    pixel = Image.open(BytesIO(base64.b64decode(uri.partition(",")[2]))).getpixel((0, 0))
    assert isinstance(pixel, tuple)
    return pixel[0], pixel[1]


class TestSides:
    def test_every_item_is_there_and_the_key_tells_its_sides(self, tmp_path: Path) -> None:
        folder = study(tmp_path, 20)
        key = {each.item: each for each in read_key(folder).items}
        items = shown(folder)
        assert [item for item, _ in items] == list(key)
        assert {each.name for each in key.values()} == {f"row-{number}" for number in range(20)}
        for item, content in items:
            number = int(key[item].name.removeprefix("row-"))
            first, second = (100, 200) if key[item].left == "a" else (200, 100)
            assert [colour(content[name]) for name in ("source", "left", "right")] == [
                (number, 0),
                (number, first),
                (number, second),
            ]
            assert content["instruction"] == f"edit number {number}"

    def test_order_is_shuffled_and_sides_are_even_within_each_category(self, tmp_path: Path) -> None:
        folder = study(tmp_path, 17, columns={"category": lambda number: "add" if number < 10 else "remove"})
        key = read_key(folder)
        counts = Counter((each.category, each.left) for each in key.items)
        assert counts["add", "a"] == counts["add", "b"] == 5
        assert sorted([counts["remove", "a"], counts["remove", "b"]]) == [3, 4]
        assert [each.name for each in key.items] != [f"row-{number}" for number in range(17)]

    def test_sides_follow_no_pattern(self, tmp_path: Path) -> None:
        folders = [study(tmp_path / str(seed), 6, seed=str(seed)) for seed in range(8)]
        patterns = {"".join(each.left for each in read_key(folder).items) for folder in folders}
        assert all(pattern.count("a") == 3 for pattern in patterns)
        assert len(patterns) > 4  # of the 20 there are

    def test_a_seed_gives_the_same_study_and_another_one_another(self, tmp_path: Path) -> None:
        one, two, other = (study(tmp_path / name, 12, seed=seed) for name, seed in (("1", "s"), ("2", "s"), ("3", "t")))
        assert (one / "study.html").read_bytes() == (two / "study.html").read_bytes()
        assert read_key(one) == read_key(two)
        assert read_key(one).study != read_key(other).study
        assert [each.name for each in read_key(one).items] != [each.name for each in read_key(other).items]
        assert not {each.item for each in read_key(one).items} & {each.item for each in read_key(other).items}

    def test_without_a_seed_it_is_a_new_secret(self, tmp_path: Path) -> None:
        place = write_rows(tmp_path, 3)
        keys = []
        for name in ("one", "two"):
            make_study(from_rows(str(place)), tmp_path / name)
            keys.append(read_key(tmp_path / name))
        assert keys[0].seed != keys[1].seed
        assert min(len(key.seed) for key in keys) >= 32

    def test_the_page_tells_nothing_of_the_key(self, tmp_path: Path) -> None:
        columns = {"category": "hidden category", "id": lambda number: f"hidden-id-{number}"}
        folder = study(
            tmp_path, 8, columns=columns, seed="hidden seed", systems=("hidden before", "hidden after"), title="T"
        )
        page = (folder / "study.html").read_text()
        assert "hidden seed" in (folder / "key.json").read_text()
        assert not re.search("hidden (seed|before|after|category)|hidden-id|image_|row-", page)
        key = read_key(folder)
        assert not [each for each in key.items for name in (each.a, each.b, each.source) if Path(name).stem in page]
        assert {tuple(content) for _, content in shown(folder)} == {("instruction", "source", "left", "right")}
        about = re.search(r'<script type="application/json" id="study">(.*?)</script>', page)
        assert about is not None
        assert json.loads(about[1]) == {"study": key.study, "guide": ""}

    def test_an_identifier_cannot_be_computed_without_the_seed(self, tmp_path: Path) -> None:
        """The same rows with the systems swapped and another seed: nothing on the page is the same per row."""
        one, two = study(tmp_path / "1", 6, seed="x"), study(tmp_path / "2", 6, seed="y")
        first = {each.name: each.item for each in read_key(one).items}
        second = {each.name: each.item for each in read_key(two).items}
        assert all(first[name] != second[name] for name in first)


class TestInput:
    def test_images_are_bounded_on_the_page_and_whole_beside_it(self, tmp_path: Path) -> None:
        noise = Image.effect_noise((900, 600), 90).convert("RGB")
        place = write_rows(tmp_path, 1)
        noise.save(tmp_path / "image_b-0.png")
        made = make_study(from_rows(str(place)), tmp_path / "study", size=300)
        [(_, content)] = shown(tmp_path / "study")
        item = read_key(tmp_path / "study").items[0]
        large = content["right" if item.left == "a" else "left"]
        assert Image.open(BytesIO(base64.b64decode(large.partition(",")[2]))).size == (300, 200)
        assert Image.open(tmp_path / "study" / item.b).size == (900, 600)
        assert made.bytes == (tmp_path / "study" / "study.html").stat().st_size < 250_000

    def test_parquet_with_the_images_inside(self, tmp_path: Path) -> None:
        from datasets import Dataset, Features, Value
        from datasets import Image as ImageFeature

        columns = {
            "source": [picture(number, 0) for number in range(3)],
            "image_a": [picture(number, 100) for number in range(3)],
            "image_b": [picture(number, 200) for number in range(3)],
            "instruction": ["x", "y", "z"],
        }
        features = Features({name: ImageFeature() for name in ("source", "image_a", "image_b")})
        features["instruction"] = Value("string")
        Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "rows.parquet")
        make_study(from_rows(str(tmp_path / "rows.parquet")), tmp_path / "study")
        assert {content["instruction"] for _, content in shown(tmp_path / "study")} == {"x", "y", "z"}
        assert {each.name for each in read_key(tmp_path / "study").items} == {"0", "1", "2"}

    def test_two_folders_of_images_by_id(self, tmp_path: Path) -> None:
        place = write_rows(tmp_path / "rows", 4)
        for folder, level in (("before", 100), ("after", 200)):
            (tmp_path / folder).mkdir()
            for number in range(4):
                ending = "webp" if number == 2 else "png"
                picture(number, level).save(tmp_path / folder / f"row-{number}.{ending}", lossless=True)
        rows = from_folders(str(place), tmp_path / "before", tmp_path / "after")
        made = make_study(rows, tmp_path / "study", systems=("before", "after"))
        assert made.items == 4
        key = {each.item: each for each in read_key(tmp_path / "study").items}
        for item, content in shown(tmp_path / "study"):
            assert colour(content["left"])[1] == (100 if key[item].left == "a" else 200)
        (tmp_path / "after" / "row-1.png").unlink()
        with pytest.raises(DataError, match=r"after lacks the images of 1 of 4 edits: row-1"):
            make_study(from_folders(str(place), tmp_path / "before", tmp_path / "after"), tmp_path / "other")
        with pytest.raises(ConfigError, match="no folder"):
            next(from_folders(str(place), tmp_path / "before", tmp_path / "absent"))

    def test_rows_may_name_their_systems_in_either_order(self, tmp_path: Path) -> None:
        names = [("new", "old"), ("old", "new")]
        columns = {
            "system_a": lambda number: names[number % 2][0],
            "system_b": lambda number: names[number % 2][1],
        }
        folder = study(tmp_path, 6, columns=columns)
        key = read_key(folder)
        assert key.systems == ("new", "old")
        for item, (_, content) in zip(key.items, shown(folder), strict=True):
            number = int(item.name.removeprefix("row-"))
            new, old = ((100, 200), (200, 100))[number % 2]
            assert colour(content["left"])[1] == (new if item.left == "a" else old)

    def test_a_limit_draws_and_says_what_it_left_out(self, tmp_path: Path) -> None:
        place = write_rows(tmp_path, 9)
        made = make_study(from_rows(str(place)), tmp_path / "study", limit=4, seed="1")
        assert (made.items, made.left_out, made.identical) == (4, 5, 0)
        assert len(shown(tmp_path / "study")) == 4

    def test_equal_edits_are_told(self, tmp_path: Path) -> None:
        place = write_rows(tmp_path, 3, image_b=lambda number: f"image_{'a' if number == 1 else 'b'}-{number}.png")
        assert make_study(from_rows(str(place)), tmp_path / "study").identical == 1


class TestRefused:
    def test_a_study_is_not_overwritten(self, tmp_path: Path) -> None:
        folder = study(tmp_path, 2)
        before = (folder / "key.json").read_bytes()
        with pytest.raises(ConfigError, match="holds a study already"):
            make_study(from_rows(str(tmp_path / "rows" / "rows.jsonl")), folder)
        assert (folder / "key.json").read_bytes() == before

    @pytest.mark.parametrize(
        ("columns", "words"),
        [
            ({"id": "same"}, "two rows have the id 'same'"),
            ({"id": 1.5}, "'id' must be a text or a whole number"),
            ({"instruction": "  "}, "line 1: 'instruction' is blank"),
            ({"image_b": "../rows/source-0.png"}, "holds '..'"),
            ({"image_b": "http://host/x.png"}, "is a URL"),
            ({"image_b": "absent.png"}, "image_b"),
            ({"image_a": 3}, "column 'image_a' must hold an image"),
            ({"system_a": "x"}, "go together"),
            ({"system_a": "x", "system_b": lambda number: f"y{number}"}, "compares 'x' and 'y1', not 'x' and 'y0'"),
            ({"system_a": "x", "system_b": "x"}, "different names"),
        ],
    )
    def test_wrong_rows_say_what_and_where(self, tmp_path: Path, columns: dict[str, Any], words: str) -> None:
        place = write_rows(tmp_path, 2, **columns)
        with pytest.raises((DataError, ConfigError)) as caught:
            make_study(from_rows(str(place)), tmp_path / "study")
        assert words in str(caught.value)
        assert not (tmp_path / "study" / "key.json").exists()

    def test_no_rows_and_wrong_arguments(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="nothing to compare"):
            make_study([], tmp_path / "study")
        with pytest.raises(ConfigError, match="size must be in"):
            make_study([], tmp_path / "study", size=5)
        with pytest.raises(ConfigError, match="limit at least 1"):
            make_study([], tmp_path / "study", limit=0)
        (tmp_path / "file").write_text("")
        with pytest.raises(ConfigError, match="cannot write below"):
            make_study([], tmp_path / "file")

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"format": "x"}, "no key of a study"),
            ({"version": 2}, "version 2"),
            ({"systems": ["x"]}, "two systems"),
            ({"items": []}, "no items"),
            ({"items": [{"item": "1"}]}, "item 0"),
        ],
    )
    def test_a_broken_key(self, tmp_path: Path, change: dict[str, Any], words: str) -> None:
        folder = study(tmp_path, 2)
        found = json.loads((folder / "key.json").read_text())
        (folder / "key.json").write_text(json.dumps(found | change))
        with pytest.raises(DataError, match=words):
            read_key(folder)

    def test_a_key_with_an_unknown_side_or_an_item_twice(self, tmp_path: Path) -> None:
        folder = study(tmp_path, 2)
        found = json.loads((folder / "key.json").read_text())
        (folder / "key.json").write_text(json.dumps(found | {"items": [found["items"][0]] * 2}))
        with pytest.raises(DataError, match="same identifier"):
            read_key(folder)
        found["items"][1]["left"] = "c"
        (folder / "key.json").write_text(json.dumps(found))
        with pytest.raises(DataError, match="left must be a or b"):
            read_key(folder)
        with pytest.raises(DataError, match="is no study"):
            read_key(tmp_path)
