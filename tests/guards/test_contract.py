"""Every guard keeps the promises of the contract kit, each with its own hack."""

from collections.abc import Callable

import pytest
from guard_variants import ellipse, framed, grain, paste, side_by_side, tinted, write, zoom
from PIL import Image, ImageEnhance, ImageFilter

from editr1_plugins.guards import (
    BackgroundDriftGuard,
    BorderGuard,
    CollageGuard,
    DotsGuard,
    NoEditGuard,
    PaintedTextGuard,
    SaturationGuard,
    SharpnessGuard,
    SizeGuard,
)
from editr1_plugins.testing import GuardContract
from editr1_plugins.types import Edit, Guard

ASK = "Make the cup blue"
Make = Callable[[Image.Image], Image.Image]


class _OnCoffee(GuardContract):
    """The honest edit recolours the middle; the hack does `spoil` to that."""

    @staticmethod
    def spoil(done: Image.Image, source: Image.Image) -> Image.Image:
        raise NotImplementedError

    @pytest.fixture
    def honest(self, coffee: Image.Image) -> Edit:
        done = paste(coffee, tinted(coffee, (30, 60, 220)), ellipse(coffee.size, (0.5, 0.45), 0.5))
        return Edit(source=coffee, edited=done, instruction=ASK)

    @pytest.fixture
    def hack(self, honest: Edit) -> Edit:
        return Edit(source=honest.source, edited=self.spoil(honest.edited, honest.source), instruction=ASK)


class TestNoEdit(_OnCoffee):
    @pytest.fixture
    def guard(self) -> Guard:
        return NoEditGuard()

    @staticmethod
    def spoil(done: Image.Image, source: Image.Image) -> Image.Image:
        return source.copy()


class TestBorder(_OnCoffee):
    @pytest.fixture
    def guard(self) -> Guard:
        return BorderGuard()

    @staticmethod
    def spoil(done: Image.Image, source: Image.Image) -> Image.Image:
        return framed(done, 0.05, "white")


class TestSize(_OnCoffee):
    @pytest.fixture
    def guard(self) -> Guard:
        return SizeGuard()

    @staticmethod
    def spoil(done: Image.Image, source: Image.Image) -> Image.Image:
        return zoom(done, 0.75)


class TestBackgroundDrift(_OnCoffee):
    @pytest.fixture
    def guard(self) -> Guard:
        return BackgroundDriftGuard()

    @staticmethod
    def spoil(done: Image.Image, source: Image.Image) -> Image.Image:
        return ImageEnhance.Brightness(done).enhance(0.75)


class TestSaturation(_OnCoffee):
    @pytest.fixture
    def guard(self) -> Guard:
        return SaturationGuard()

    @staticmethod
    def spoil(done: Image.Image, source: Image.Image) -> Image.Image:
        return ImageEnhance.Color(done).enhance(2.0)


class TestSharpness(_OnCoffee):
    @pytest.fixture
    def guard(self) -> Guard:
        return SharpnessGuard()

    @staticmethod
    def spoil(done: Image.Image, source: Image.Image) -> Image.Image:
        return done.filter(ImageFilter.UnsharpMask(2, 250, 0))


class TestDots(_OnCoffee):
    @pytest.fixture
    def guard(self) -> Guard:
        return DotsGuard()

    @staticmethod
    def spoil(done: Image.Image, source: Image.Image) -> Image.Image:
        import numpy as np

        return grain(done, np.random.default_rng(0), 14)


class TestCollage(_OnCoffee):
    @pytest.fixture
    def guard(self) -> Guard:
        return CollageGuard()

    @staticmethod
    def spoil(done: Image.Image, source: Image.Image) -> Image.Image:
        return side_by_side(source, done)


class TestPaintedText(_OnCoffee):
    @pytest.fixture
    def guard(self, text_guard: PaintedTextGuard) -> Guard:
        return text_guard

    @staticmethod
    def spoil(done: Image.Image, source: Image.Image) -> Image.Image:
        return write(done, "SCORE 10/10", 0.12)
