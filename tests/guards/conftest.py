"""The real photographs, and the makers of hacked and honest edits beside this file, for the tests of the guards."""

import sys
from pathlib import Path

import pytest
from PIL import Image

from editr1_plugins.errors import MissingExtraError
from editr1_plugins.guards import PaintedTextGuard

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode finds no helper modules by itself

PHOTOS = Path(__file__).parent.parent / "assets" / "photos"


@pytest.fixture(scope="session")
def photos() -> dict[str, Image.Image]:
    return {path.stem: Image.open(path).convert("RGB") for path in sorted(PHOTOS.glob("*.jpg"))}


@pytest.fixture(scope="session")
def text_guard() -> PaintedTextGuard:
    """The guard that reads text; without its extra, or a library that this needs, the test is skipped and says so."""
    try:
        return PaintedTextGuard()
    except MissingExtraError as error:
        pytest.skip(str(error))


@pytest.fixture
def cat(photos: dict[str, Image.Image]) -> Image.Image:
    return photos["cat"]


@pytest.fixture
def coffee(photos: dict[str, Image.Image]) -> Image.Image:
    return photos["coffee"]
