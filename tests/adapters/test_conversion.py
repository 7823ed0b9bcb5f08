"""Whatever form a host's pictures have, the same pixels arrive; what is ambiguous or out of range is refused."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from editr1_plugins.adapters.conversion import as_edit, as_image, first_image, last_image
from editr1_plugins.errors import DataError, ImageError

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (18, 25, 3), dtype=np.uint8))
ARRAY = np.asarray(PICTURE)
TENSOR = torch.from_numpy(ARRAY.copy()).permute(2, 0, 1)


def png(image: Image.Image = PICTURE) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


FORMS: dict[str, Any] = {
    "PIL": PICTURE,
    "bytes": png(),
    "bytes in a mapping": {"bytes": png(), "path": None},
    "base64": base64.b64encode(png()).decode(),
    "data URI": "data:image/png;base64," + base64.b64encode(png()).decode(),
    "array HWC": ARRAY,
    "array CHW": np.ascontiguousarray(ARRAY.transpose(2, 0, 1)),
    "array of floats": ARRAY / 255,
    "tensor CHW": TENSOR,
    "tensor HWC": TENSOR.permute(1, 2, 0),
    "tensor 1CHW": TENSOR[None],
    "tensor of floats": TENSOR / 255,
    "tensor with gradient": (TENSOR / 255).requires_grad_(),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_pixels(form: str) -> None:
    image = as_image(FORMS[form])
    assert image.size == (25, 18)
    assert image.tobytes() == PICTURE.tobytes()


def test_half_precision_is_as_near_as_it_can_be() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        back = np.asarray(as_image((TENSOR / 255).to(dtype)))
        assert np.abs(back.astype(int) - ARRAY).max() <= 1


def test_one_channel_and_transparency() -> None:
    assert as_image(torch.full((1, 4, 6), 0.5)).getpixel((0, 0)) == (128, 128, 128)
    assert as_image(np.zeros((4, 6, 4), np.uint8)).getpixel((0, 0)) == (255, 255, 255)


def test_where_both_layouts_fit_tensors_are_chw_and_arrays_hwc() -> None:
    pixels = np.arange(3 * 5 * 3, dtype=np.uint8).reshape(3, 5, 3)
    assert as_image(pixels).size == (5, 3)
    assert as_image(torch.from_numpy(pixels)).size == (3, 5)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.tensor([[[-1.0, 1.0]]]), r"-1\.\.1; they must lie in 0\.\.1.*\(x \+ 1\) / 2"),
        (torch.full((3, 2, 2), 255.0), "255"),
        (torch.full((3, 2, 2), float("nan")), "nan"),
        (torch.zeros(3, 2, 2, dtype=torch.int64), "int64"),
        (torch.zeros(2, 3, 4, 4), r"shape \(2, 3, 4, 4\)"),
        (torch.zeros(5, 6, 7), "no axis"),
        (np.zeros((3, 0, 4), np.uint8), "shape"),
        (b"no picture", "not an image"),
    ],
)
def test_pixels_that_are_none(value: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        as_image(value)


def test_paths_are_opened_only_below_the_named_folder(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    PICTURE.save(tmp_path / "inside" / "a.png")
    PICTURE.save(tmp_path / "b.png")
    folder = tmp_path / "inside"
    assert as_image("a.png", folder=folder).tobytes() == PICTURE.tobytes()
    assert as_image({"bytes": None, "path": "a.png"}, folder=folder).size == (25, 18)
    assert as_image(base64.b64encode(png()).decode(), folder=folder).size == (25, 18)
    for name in ("../b.png", str(tmp_path / "b.png")):
        with pytest.raises(ImageError):
            as_image(name, folder=folder)
    with pytest.raises(DataError, match="only below a folder that you name"):
        as_image("a.png")
    with pytest.raises(DataError, match="URL"):
        as_image("http://127.0.0.1/a.png", folder=folder)


def test_a_broken_picture_costs_its_row_and_a_missing_one_the_call() -> None:
    assert str(as_edit(PICTURE, png()[:100], "make it red", row=3)).startswith("edited image: ")
    with pytest.raises(DataError, match="row 3: source image is a NoneType"):
        as_edit(None, PICTURE, "make it red", row=3)
    for blank in (None, " ", 7):
        with pytest.raises(DataError, match="row 3: the instruction"):
            as_edit(PICTURE, PICTURE, blank, row=3)


def test_the_first_source_and_the_last_edit() -> None:
    assert first_image([PICTURE, None]) is PICTURE
    assert last_image([None, PICTURE]) is PICTURE
    assert first_image(PICTURE) is PICTURE
    assert first_image([]) is None
    assert first_image(png()) == png()
