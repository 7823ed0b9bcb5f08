"""Traces come in from a folder, a file or the hub; what is wrong is named by row and column."""

import hashlib
import json

import datasets
import pytest
from PIL import Image

from editr1_plugins.errors import ConfigError, DataError
from editr1_plugins.images import encode_png
from editr1_plugins.training.image_rows import load_image_rows, then
from editr1_plugins.training.trace_data import TRACE_COLUMNS, load_traces


def row(number, **changed):
    return {
        "instruction": f"paint wall {number} red",
        "principles": [
            {"question": "Is the wall red?", "category": "Instruction Following"},
            {"question": "Is the floor kept?", "category": "Feature Preservation"},
        ],
        "gold": [1, 0],
        "reasons": ["it is", "it is not"],
        "reasoning": "The wall is red, the floor is gone.",
        "verdicts": [1, 0],
        "average": 0.5,
        "score": 4.5,
        "judge": "teacher",
        "category": "colour alteration",
    } | changed


def stored_image(folder, shade):
    data = encode_png(Image.new("RGB", (16, 12), (shade, 0, 0)))
    digest = hashlib.sha256(data).hexdigest()
    path = folder / "images" / digest[:2] / f"{digest}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return str(path.relative_to(folder))


def cold_start_folder(folder, count=3, **changed):
    rows = [
        row(i, source=stored_image(folder, 10 * i), edited=stored_image(folder, 10 * i + 1), **changed)
        for i in range(count)
    ]
    (folder / "data").mkdir(exist_ok=True)
    datasets.Dataset.from_list(rows).to_parquet(folder / "data" / "train-00000-of-00001.parquet")
    return folder


def write_lines(path, rows):
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return path


@pytest.mark.parametrize("named", ["", "data/train-00000-of-00001.parquet"])
def test_the_folder_of_a_cold_start(tmp_path, named):
    traces = load_traces(cold_start_folder(tmp_path) / named)
    assert set(TRACE_COLUMNS) <= set(traces.column_names)
    assert len(traces) == 3
    taken = traces[2]
    assert taken["source"].getpixel((0, 0)) == (20, 0, 0)
    assert taken["edited"].getpixel((0, 0)) == (21, 0, 0)
    assert taken["verdicts"] == [1, 0]
    assert taken["score"] == 4.5


def test_json_lines_need_only_what_cannot_be_missing(tmp_path):
    lines = []
    for i in range(2):
        whole = row(i, source=stored_image(tmp_path, 1), edited=stored_image(tmp_path, 2))
        lines.append({name: whole[name] for name in TRACE_COLUMNS[:6]})
    traces = load_traces(write_lines(tmp_path / "traces.jsonl", lines))
    assert traces[0]["source"].size == (16, 12)
    assert traces[1]["gold"] is None
    assert traces[1]["reasoning"] is None


def test_images_in_the_rows(tmp_path):
    picture = {"bytes": encode_png(Image.new("RGB", (8, 8), "blue")), "path": None}
    rows = datasets.Dataset.from_list([row(0, source=picture, edited=picture)])
    rows = rows.cast_column("source", datasets.Image()).cast_column("edited", datasets.Image())
    rows.to_parquet(tmp_path / "traces.parquet")
    assert load_traces(tmp_path / "traces.parquet")[0]["edited"].getpixel((0, 0)) == (0, 0, 255)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"score": 11.0}, r"row 0: 'score' must be a number in 0\.\.10, not 11\.0"),
        ({"score": None}, "row 0: 'score' must be a number"),
        ({"average": -0.5}, r"'average' must be a number in 0\.\.1"),
        ({"verdicts": [1]}, r"row 0: 'verdicts' must be a list of 2 numbers 0, 1 or null"),
        ({"gold": [1, 7]}, "'gold' must be a list of 2"),
        ({"instruction": "  "}, "'instruction' must be a text"),
        ({"principles": []}, "'principles' must be a list"),
        ({"principles": [{"question": "?", "category": "Mood"}]}, "'principles': .*unknown category 'Mood'"),
        ({"reasoning": 7}, "'reasoning' must be text, not int"),
    ],
)
def test_wrong_rows_are_named(tmp_path, changed, message):
    folder = cold_start_folder(tmp_path, count=1, **changed)
    with pytest.raises(DataError, match=message):
        load_traces(folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../outside.png", r"row 0, column 'edited': .*holds '\.\.'"),
        ("/etc/hostname", "absolute path"),
        ("https://example.com/a.png", "is a URL"),
        ("images/missing.png", "No such file"),
        (None, "row 0, column 'edited': no image"),
    ],
)
@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_names_stay_below_the_folder(tmp_path, name, message, form):
    rows = [row(0, source=stored_image(tmp_path, 1), edited=name)]
    if form == "parquet":
        features = datasets.Dataset.from_list([rows[0] | {"edited": ""}]).features
        path = tmp_path / "traces.parquet"
        datasets.Dataset.from_list(rows, features=features).to_parquet(path)
    else:
        path = write_lines(tmp_path / "traces.jsonl", rows)
        if name is None:
            with pytest.raises(DataError, match="line 1: 'edited' must be a file name"):
                load_traces(path)
            return
    traces = load_traces(path)
    with pytest.raises(DataError, match=message):
        traces[0]


def test_a_missing_column_is_named(tmp_path):
    rows = [row(0, source=stored_image(tmp_path, 1), edited=stored_image(tmp_path, 2))]
    del rows[0]["verdicts"]
    with pytest.raises(DataError, match="no column verdicts; it has"):
        load_traces(write_lines(tmp_path / "traces.jsonl", rows))
    with pytest.raises(ConfigError, match="no file or folder"):
        load_traces(tmp_path / "nowhere.jsonl")


def test_a_data_set_of_the_hub_whose_rows_name_their_images(tmp_path, monkeypatch):
    """A snapshot of the hub is links into another folder, below the repository's cache."""
    made = tmp_path / "made"
    made.mkdir()
    cold_start_folder(made)
    cache = tmp_path / "datasets--someone--traces"
    snapshot, blobs = cache / "snapshots" / "c0ffee", cache / "blobs"
    blobs.mkdir(parents=True)
    for file in [path for path in made.rglob("*") if path.is_file()]:
        blob = blobs / hashlib.sha256(file.read_bytes()).hexdigest()
        blob.write_bytes(file.read_bytes())
        link = snapshot / file.relative_to(made)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    stored = datasets.load_dataset("parquet", data_files=str(made / "data" / "*.parquet"), split="train")
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config, split: stored)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, repo_type: str(snapshot))
    assert load_traces("someone/traces")[1]["source"].getpixel((0, 0)) == (10, 0, 0)


def test_functions_on_rows_follow_each_other(tmp_path):
    rows = load_image_rows(cold_start_folder(tmp_path), images=("source", "edited"))
    sizes = then(rows, lambda batch: {"size": [image.size for image in batch["source"]]})
    assert then(sizes, lambda batch: {"wide": [width for width, _ in batch["size"]]})[0] == {"wide": 16}
