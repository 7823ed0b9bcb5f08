"""Training data: all the forms it comes in, every way a row can be broken, and paths that lead elsewhere."""

from __future__ import annotations

import io
import json
import tarfile
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as Pictures

from editr1_plugins.errors import ConfigError, DataError, ImageError
from editr1_plugins.testing.pipelines import picture
from editr1_plugins.training.edit_data import BrokenRow, RowReader, load_edit_data
from editr1_plugins.training.generation import check_columns

COUNT = 6


def encoded(index: int, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    picture(16, index).save(buffer, kind)
    return buffer.getvalue()


def json_lines(folder: Path, name: str = "train.jsonl", count: int = COUNT) -> Path:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for index in range(count):
        (folder / "images" / f"{index}.png").write_bytes(encoded(index))
    rows = [{"image": f"images/{i}.png", "prompt": f"prompt {i}", "kind": i} for i in range(count)]
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def parquet(folder: Path, name: str = "train-00000-of-00001.parquet") -> Path:
    rows = {
        "image": [{"bytes": encoded(i), "path": None} for i in range(COUNT)],
        "prompt": [f"prompt {i}" for i in range(COUNT)],
        "kind": list(range(COUNT)),
    }
    features = Features({"image": Image(decode=False), "prompt": Value("string"), "kind": Value("int64")})
    folder.mkdir(parents=True, exist_ok=True)
    Dataset.from_dict(rows, features=features).to_parquet(folder / name)
    return folder


def archive(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def web_dataset(folder: Path, name: str = "train-000.tar") -> Path:
    members: dict[str, bytes] = {}
    for index in range(COUNT):
        members[f"{index:04}.png"] = encoded(index)
        members[f"{index:04}.txt"] = f"prompt {index}\n".encode()
        members[f"{index:04}.json"] = json.dumps({"kind": index}).encode()
    archive(folder / name, members)
    return folder


def stored(folder: Path) -> Path:
    rows = {"image": [picture(16, i) for i in range(COUNT)], "prompt": [f"prompt {i}" for i in range(COUNT)]}
    features = Features({"image": Image(), "prompt": Value("string")})
    whole = Dataset.from_dict(rows, features=features).add_column("kind", list(range(COUNT)))
    whole.save_to_disk(folder / "kept")
    return folder / "kept"


FORMS = {"json lines": json_lines, "parquet": parquet, "web dataset": web_dataset, "save_to_disk": stored}


@pytest.mark.parametrize("make", FORMS.values(), ids=FORMS.keys())
def test_every_form_gives_the_same_rows(tmp_path: Path, make: Any) -> None:
    dataset = load_edit_data(make(tmp_path)).usable()
    check_columns("train_dataset", dataset)
    assert len(dataset) == COUNT
    for index in range(COUNT):
        row = dataset[index]
        assert set(row) == {"image", "prompt", "kind"}
        assert row["image"].tobytes() == picture(16, index).tobytes()
        assert (row["prompt"], row["kind"]) == (f"prompt {index}", index)


class TestSplits:
    @pytest.mark.parametrize("make", [json_lines, parquet, web_dataset])
    def test_a_folder_has_a_file_for_each(self, tmp_path: Path, make: Any) -> None:
        make(tmp_path)
        [file] = [path for path in tmp_path.iterdir() if path.is_file()]
        file.with_name("test" + file.suffix).write_bytes(file.read_bytes())
        assert len(load_edit_data(tmp_path, split="train").stored) == COUNT
        assert len(load_edit_data(tmp_path, split="test").stored) == COUNT
        with pytest.raises(DataError, match=r"no file of the split 'validation'; there is: test\..*, train"):
            load_edit_data(tmp_path, split="validation")

    def test_a_subfolder_is_a_split(self, tmp_path: Path) -> None:
        json_lines(tmp_path / "test", "metadata.jsonl", count=2)
        json_lines(tmp_path / "train", "metadata.jsonl", count=3)
        assert [len(load_edit_data(tmp_path, split=split)) for split in ("train", "test")] == [3, 2]

    def test_any_name_is_train_but_not_test(self, tmp_path: Path) -> None:
        path = json_lines(tmp_path, "edits.jsonl") / "edits.jsonl"
        (tmp_path / "test.jsonl").write_bytes(path.read_bytes())
        assert len(load_edit_data(tmp_path)) == COUNT
        assert len(load_edit_data(path)) == COUNT
        with pytest.raises(DataError, match="no split 'test'"):
            load_edit_data(path, split="test")

    def test_two_kinds_of_files_are_not_mixed(self, tmp_path: Path) -> None:
        json_lines(tmp_path)
        parquet(tmp_path)
        with pytest.raises(DataError, match="several kinds"):
            load_edit_data(tmp_path)


class TestColumns:
    def test_renamed(self, tmp_path: Path) -> None:
        json_lines(tmp_path)
        path = tmp_path / "train.jsonl"
        row = {"before": "images/1.png", "image": "images/0.png", "instruction": "do it", "prompt": "old"}
        path.write_text(json.dumps(row))
        [found] = list(load_edit_data(path, image_column="before", prompt_column="instruction").usable())
        assert found["image"].tobytes() == picture(16, 1).tobytes()
        assert (found["prompt"], found["other_prompt"]) == ("do it", "old")
        assert found["other_image"] == "images/0.png"  # not an image to this data set, so a text

    def test_further_images_of_parquet_are_decoded_as_well(self, tmp_path: Path) -> None:
        features = Features({"a": Image(), "image": Image(), "text": Value("string"), "many": List(Image())})
        rows = {"a": [picture(8)], "image": [picture(16)], "text": ["x"], "many": [[picture(8, 1), picture(8, 2)]]}
        Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train.parquet")
        [row] = list(load_edit_data(tmp_path, image_column="a", prompt_column="text").usable())
        assert (row["image"].size, row["other_image"].size) == ((8, 8), (16, 16))
        assert [image.tobytes() for image in row["many"]] == [picture(8, seed).tobytes() for seed in (1, 2)]

    def test_several_sources(self, tmp_path: Path) -> None:
        json_lines(tmp_path)
        rows = [{"image": ["images/0.png", "images/1.png"], "prompt": "x"}, {"image": "images/2.png", "prompt": "y"}]
        (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
        both, single = load_edit_data(tmp_path).usable()
        assert [image.tobytes() for image in both["image"]] == [picture(16, seed).tobytes() for seed in (0, 1)]
        assert single["image"].tobytes() == picture(16, 2).tobytes()

    def test_several_columns_are_several_sources(self, tmp_path: Path) -> None:
        members = {"a.style.png": encoded(1), "a.image.png": encoded(0), "a.txt": b"x"}
        archive(tmp_path / "train.tar", members)
        [row] = list(load_edit_data(tmp_path, image_column=["image", "style"]).usable())
        assert [image.tobytes() for image in row["image"]] == [picture(16, seed).tobytes() for seed in (0, 1)]

    def test_a_missing_one_is_named_with_those_there(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"no column source; it has image, prompt, kind"):
            load_edit_data(json_lines(tmp_path), image_column="source")

    def test_an_image_folder_of_datasets(self, tmp_path: Path) -> None:
        json_lines(tmp_path)
        (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "images/3.png", "prompt": "x"}))
        (tmp_path / "train.jsonl").unlink()
        [row] = list(load_edit_data(tmp_path).usable())
        assert row["image"].tobytes() == picture(16, 3).tobytes()


def bomb() -> bytes:
    data = bytearray(encoded(0))
    data[16:24] = (100_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


BROKEN: dict[str, tuple[Any, str]] = {
    "no image": ({"prompt": "x"}, "no image"),
    "null": ({"image": None, "prompt": "x"}, "must be a file name"),
    "empty list": ({"image": [], "prompt": "x"}, "no image"),
    "missing file": ({"image": "images/none.png", "prompt": "x"}, "No such file"),
    "no picture": ({"image": "text.png", "prompt": "x"}, "not an image"),
    "cut": ({"image": "cut.png", "prompt": "x"}, "truncated"),
    "bomb": ({"image": "bomb.png", "prompt": "x"}, "pixels"),
    "elongated": ({"image": "long.png", "prompt": "x"}, "elongated"),
    "no prompt": ({"image": "images/0.png"}, "no prompt"),
    "blank prompt": ({"image": "images/0.png", "prompt": " \n"}, "no prompt"),
    "prompt is a number": ({"image": "images/0.png", "prompt": 7}, "must be text, not int"),
    "image is a number": ({"image": 7, "prompt": "x"}, "must be a file name or a list of them, not int"),
    "not JSON": ("{'image'", "line 3: not JSON"),
    "not an object": ("[1]", "a JSON object is needed, not list"),
    "too long": (json.dumps({"image": "images/0.png", "prompt": "x" * (1 << 21)}), "longer than"),
    "second source": ({"image": ["images/0.png", "none.png"], "prompt": "x"}, "No such file"),
    "absolute": ({"image": "/etc/hostname", "prompt": "x"}, "absolute path"),
    "windows": ({"image": "C:\\images\\0.png", "prompt": "x"}, "absolute path"),
    "upwards": ({"image": "../secret.png", "prompt": "x"}, r"holds '\.\.'"),
    "upwards within": ({"image": "images/../../secret.png", "prompt": "x"}, r"holds '\.\.'"),
    "URL": ({"image": "http://localhost/0.png", "prompt": "x"}, "URL"),
    "file URL": ({"image": "file:///etc/hostname", "prompt": "x"}, "URL"),
    "link": ({"image": "link.png", "prompt": "x"}, "link that leads out"),
    "folder": ({"image": "images", "prompt": "x"}, "not a regular file"),
    "NUL": ({"image": "a\0.png", "prompt": "x"}, "no file name"),
}


class TestBrokenRows:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = json_lines(tmp_path / "data")
        encoded_long = io.BytesIO()
        Pictures.new("RGB", (2000, 3)).save(encoded_long, "PNG")
        files = {"text.png": b"hello", "bomb.png": bomb(), "long.png": encoded_long.getvalue()}
        files["cut.png"] = encoded(0)[:-300]
        for name, data in files.items():
            (folder / name).write_bytes(data)
        (tmp_path / "secret.png").write_bytes(encoded(9))
        (folder / "link.png").symlink_to(tmp_path / "secret.png")
        return folder

    def with_row(self, folder: Path, row: Any) -> Path:
        lines = (folder / "train.jsonl").read_text().splitlines()
        lines.insert(2, row if isinstance(row, str) else json.dumps(row))
        (folder / "train.jsonl").write_text("\n".join(lines))
        return folder

    @pytest.mark.parametrize("case", BROKEN.values(), ids=BROKEN.keys())
    def test_each_is_found_with_its_index_and_can_be_dropped(self, folder: Path, case: tuple[Any, str]) -> None:
        rows = load_edit_data(self.with_row(folder, case[0]))
        with pytest.raises(DataError, match=rf"1 of 7 rows are broken \(skip_broken .*\): row 2: .*{case[1]}"):
            rows.usable()
        assert [row.index for row in rows.broken()] == [2]
        kept = rows.usable(skip_broken=True)
        assert [row["kind"] for row in kept] == list(range(COUNT))

    def test_the_first_twenty_are_listed(self, folder: Path) -> None:
        lines = [json.dumps({"image": f"images/missing {i}.png", "prompt": "x"}) for i in range(25)]
        with (folder / "train.jsonl").open("a") as file:
            file.write("\n".join(lines))
        with pytest.raises(DataError, match="25 of 31 rows are broken") as error:
            load_edit_data(folder).usable()
        text = str(error.value)
        assert text.count("missing ") == 20
        assert "row 6: " in text
        assert text.endswith("; and 5 more")

    def test_nothing_but_broken_rows_is_an_error_even_when_skipping(self, folder: Path) -> None:
        (folder / "train.jsonl").write_text(json.dumps({"image": "none.png", "prompt": "x"}))
        with pytest.raises(DataError, match="1 of 1 rows are broken: row 0"):
            load_edit_data(folder).usable(skip_broken=True)

    def test_a_path_in_parquet_is_not_opened(self, tmp_path: Path) -> None:
        (tmp_path / "secret.png").write_bytes(encoded(9))
        images = [{"bytes": encoded(0), "path": None}, {"bytes": None, "path": str(tmp_path / "secret.png")}]
        rows = {"image": images, "prompt": ["a", "b"]}
        features = Features({"image": Image(decode=False), "prompt": Value("string")})
        Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train.parquet")
        [row] = load_edit_data(tmp_path).broken()
        assert row == BrokenRow(index=1, reason=row.reason)
        assert "paths in data are not opened" in row.reason

    def test_a_path_is_opened_in_the_cache_of_the_hub_only(self, tmp_path: Path) -> None:
        (tmp_path / "cache").mkdir()
        for folder in (tmp_path, tmp_path / "cache"):
            (folder / "0.png").write_bytes(encoded(0))
        (tmp_path / "cache" / "link.png").symlink_to(tmp_path / "0.png")
        reader = RowReader(sources=("image",), others=frozenset(), roots=(str((tmp_path / "cache").resolve()),))
        [inside] = reader.decoded({"bytes": None, "path": str(tmp_path / "cache" / "0.png")})
        assert inside.tobytes() == picture(16, 0).tobytes()
        for path in (tmp_path / "0.png", tmp_path / "cache" / "link.png", tmp_path / "cache" / ".." / "0.png"):
            with pytest.raises(ImageError, match="not opened"):
                reader.decoded({"bytes": None, "path": str(path)})
        with pytest.raises(ImageError, match="not opened"):
            reader.decoded({"bytes": None, "path": f"file://{tmp_path}/cache/0.png"})

    def test_in_archives(self, tmp_path: Path) -> None:
        members = {
            "0.png": encoded(0),
            "0.txt": b"x",
            "1.txt": b"no image",
            "2.png": encoded(2),
            "3.png": encoded(3)[:200],
            "3.json": json.dumps({"prompt": "cut"}).encode(),
            "4.png": encoded(4),
            "4.json": b"{",
            "5.pyd": b"left out",
            "6.PNG": encoded(6),
            "6.txt": b"good",
        }
        rows = load_edit_data(archive(tmp_path / "a.tar", members))
        assert [(row.index, row.reason.split(" (")[0].split(":")[0]) for row in rows.broken()] == [
            (1, "no image"),
            (2, "no prompt"),
            (3, "the image cannot be decoded, it may be broken or truncated"),
            (4, "a.tar, 4.json"),
        ]
        assert [row["prompt"] for row in rows.usable(skip_broken=True)] == ["x", "good"]

    def test_decoding_finds_damage_in_the_middle(self, folder: Path) -> None:
        data = bytearray(encoded(0))
        data[300:340] = bytes(40)
        (folder / "images" / "0.png").write_bytes(data)
        assert load_edit_data(folder).broken() == []
        [row] = load_edit_data(folder).broken(decode=True)
        assert row.index == 0

    @pytest.mark.parametrize(
        "make", [json_lines, *(pytest.param(make, marks=pytest.mark.slow) for make in (parquet, web_dataset))]
    )
    def test_several_processes_find_the_same(self, tmp_path: Path, make: Any, monkeypatch: Any) -> None:
        make(tmp_path)
        monkeypatch.setattr("editr1_plugins.training.edit_data._CHUNK", 2)
        rows = load_edit_data(tmp_path)
        assert rows.broken(workers=2) == rows.broken(workers=1) == []


class TestWrongNames:
    def test_no_such_data_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
        with pytest.raises(ConfigError, match="'nobody/nothing' is no file or folder here, nor a data set of the hub"):
            load_edit_data("nobody/nothing")

    @pytest.mark.parametrize("name", ["./none", "none.jsonl", "/none/none", "https://host/data.jsonl"])
    def test_no_such_file(self, name: str) -> None:
        with pytest.raises(ConfigError, match="no file or folder"):
            load_edit_data(name)

    def test_a_file_of_another_kind(self, tmp_path: Path) -> None:
        (tmp_path / "rows.pickle").write_bytes(b"x")
        with pytest.raises(ConfigError, match=r"known endings: \.jsonl, \.parquet, \.tar"):
            load_edit_data(tmp_path / "rows.pickle")

    @pytest.mark.parametrize("name", ["train.parquet", "train.tar"])
    def test_a_file_that_is_not_what_it_says(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(b"neither Parquet nor tar" * 100)
        with pytest.raises(DataError, match=r"cannot be read|can be read"):
            load_edit_data(tmp_path)

    def test_no_rows(self, tmp_path: Path) -> None:
        (tmp_path / "train.jsonl").write_text("\n\n")
        with pytest.raises(DataError, match="has no rows"):
            load_edit_data(tmp_path)

    def test_mixed_types_of_a_column(self, tmp_path: Path) -> None:
        json_lines(tmp_path)
        rows = [{"image": "images/0.png", "prompt": "x", "kind": kind} for kind in (1, "one")]
        (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
        with pytest.raises(DataError, match="column 'kind' mixes"):
            load_edit_data(tmp_path)


def test_ten_thousand_rows_are_checked_in_seconds(tmp_path: Path) -> None:
    folder = json_lines(tmp_path)
    buffer = io.BytesIO()
    picture(512).save(buffer, "JPEG", quality=90)
    (folder / "photo.jpg").write_bytes(buffer.getvalue())
    (folder / "train.jsonl").write_text((json.dumps({"image": "photo.jpg", "prompt": "x"}) + "\n") * 10_000)
    started = time.perf_counter()
    assert len(load_edit_data(folder).usable()) == 10_000
    assert time.perf_counter() - started < 60
