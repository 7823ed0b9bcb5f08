"""What each guard says, what it lets pass because it was asked for, and what it does at the edges."""

import pickle
import time
from typing import Any

import numpy as np
import pytest
from guard_variants import ellipse, framed, grain, jpeg, padded, paste, rescale, side_by_side, sprinkle, tinted, zoom
from PIL import Image, ImageEnhance, ImageFilter

from editr1_plugins.errors import ConfigError
from editr1_plugins.guards import (
    DEFAULT_GUARDS,
    BackgroundDriftGuard,
    BorderGuard,
    CollageGuard,
    DotsGuard,
    NoEditGuard,
    PaintedTextGuard,
    PixelGuard,
    SaturationGuard,
    SharpnessGuard,
    SizeGuard,
    default_guards,
)
from editr1_plugins.types import Alarm, Edit
from editr1_plugins.verifiers.measuring import text_reader

ASK = "Make the cup blue"
CLASSES = [guard for _, guard, _ in DEFAULT_GUARDS if guard is not PaintedTextGuard]


def alarm(guard: PixelGuard, source: Image.Image, edited: Image.Image, instruction: str = ASK) -> Alarm | None:
    [found] = guard.inspect([Edit(source=source, edited=edited, instruction=instruction)], [()])
    return found


@pytest.fixture
def done(coffee: Image.Image) -> Image.Image:
    """An honest local edit of `coffee`."""
    return paste(coffee, tinted(coffee, (30, 60, 220)), ellipse(coffee.size, (0.5, 0.45), 0.5))


class TestWhatAnAlarmSays:
    """The flag counts, the reason carries the number that was measured, the cap is the documented one."""

    def test_no_edit_caps_at_zero(self, coffee: Image.Image) -> None:
        found = alarm(NoEditGuard(), coffee, jpeg(coffee, 90))
        assert found is not None
        assert (found.flag, found.cap) == ("no_edit", 0.0)
        assert "of 255 levels" in found.reason

    def test_border_names_sides_and_widths(self, coffee: Image.Image, done: Image.Image) -> None:
        found = alarm(BorderGuard(), coffee, padded(done, 0.1, "white"))
        assert found is not None
        assert (found.flag, found.cap) == ("border", 4.0)
        # 21 of 213 rows, 21 of 320 columns
        assert "top 9.9%" in found.reason
        assert "left 6.6%" in found.reason

    def test_one_sided_bar_costs_less(self, coffee: Image.Image, done: Image.Image) -> None:
        found = alarm(BorderGuard(), coffee, padded(done, 0.1, "white", "b"))
        assert found is not None
        assert found.cap == 6.0

    def test_size_gives_the_scale_of_a_crop(self, coffee: Image.Image, done: Image.Image) -> None:
        found = alarm(SizeGuard(), coffee, zoom(done, 0.8))
        assert found is not None
        scale = float(found.reason.split("scale ")[1].split(",")[0])
        assert scale == pytest.approx(1 / 0.8, rel=0.05)

    def test_size_gives_the_sizes(self, coffee: Image.Image, done: Image.Image) -> None:
        found = alarm(SizeGuard(), coffee, done.resize((213, 213)))
        assert found is not None
        assert "213x213" in found.reason
        assert "320x213" in found.reason

    def test_saturation_gives_the_factor(self, cat: Image.Image) -> None:
        found = alarm(SaturationGuard(), cat, ImageEnhance.Color(cat).enhance(1.6))
        assert found is not None
        assert float(found.reason.split("to ")[1].split(" times")[0]) == pytest.approx(1.6, abs=0.1)

    def test_sharpness_gives_the_gain(self, coffee: Image.Image, done: Image.Image) -> None:
        gains = []
        for percent in (150, 300):
            found = alarm(SharpnessGuard(), coffee, done.filter(ImageFilter.UnsharpMask(2, percent, 0)))
            assert found is not None
            gains.append(float(found.reason.split("amplified ")[1].split(" times")[0]))
        assert 1.5 <= gains[0] < gains[1] - 0.5

    def test_dots_give_the_noise_level(self, coffee: Image.Image, done: Image.Image) -> None:
        found = alarm(DotsGuard(), coffee, grain(done, np.random.default_rng(0), 15, gray=True))
        assert found is not None
        assert float(found.reason.split("grain of ")[1].split(" ")[0]) == pytest.approx(15, rel=0.2)

    def test_collage_gives_the_scale(self, coffee: Image.Image, done: Image.Image) -> None:
        found = alarm(CollageGuard(), coffee, side_by_side(coffee, done))
        assert found is not None
        assert "50% of its width and 100% of its height" in found.reason

    def test_drift_gives_the_share(self, coffee: Image.Image, done: Image.Image) -> None:
        found = alarm(BackgroundDriftGuard(), coffee, ImageEnhance.Brightness(done).enhance(0.7))
        assert found is not None
        assert 65 <= float(found.reason.split("%")[0]) <= 100


class TestWhatIsAskedForPasses:
    def test_a_border(self, coffee: Image.Image) -> None:
        assert alarm(BorderGuard(), coffee, padded(coffee, 0.1, "white"), "Add a white border") is None

    def test_sharpening(self, coffee: Image.Image) -> None:
        sharp = coffee.filter(ImageFilter.UnsharpMask(2, 250, 0))
        assert alarm(SharpnessGuard(), coffee, sharp, "Sharpen the photo") is None
        assert alarm(NoEditGuard(), coffee, sharp, "Sharpen the photo") is None

    def test_stars(self, coffee: Image.Image) -> None:
        stars = sprinkle(coffee, np.random.default_rng(0), 0.0005, 2, colored=False)
        assert alarm(NoEditGuard(), coffee, stars, "Add stars") is None
        assert alarm(NoEditGuard(), coffee, jpeg(coffee, 90), "Add stars") is not None

    def test_a_copy_is_no_sharpening(self, coffee: Image.Image) -> None:
        assert alarm(NoEditGuard(), coffee, jpeg(coffee, 95), "Sharpen the photo") is not None

    def test_vivid_colours(self, cat: Image.Image) -> None:
        assert alarm(SaturationGuard(), cat, ImageEnhance.Color(cat).enhance(2), "Make the colours vivid") is None

    def test_a_new_background(self, coffee: Image.Image) -> None:
        keep = ellipse(coffee.size, (0.5, 0.5), 0.7)
        beach = paste(Image.new("RGB", coffee.size, (90, 160, 220)), coffee, keep)
        assert alarm(BackgroundDriftGuard(), coffee, beach, "Change the background to a beach") is None
        assert alarm(BackgroundDriftGuard(), coffee, beach, ASK) is not None

    def test_snow(self, coffee: Image.Image) -> None:
        snow = sprinkle(coffee, np.random.default_rng(0), 0.004, 2, colored=False)
        assert alarm(DotsGuard(), coffee, snow, "Make it snow") is None
        assert alarm(DotsGuard(), coffee, snow, ASK) is not None

    def test_a_crop_and_a_collage(self, coffee: Image.Image) -> None:
        assert alarm(SizeGuard(), coffee, zoom(coffee, 0.6), "Zoom in on the cup") is None
        assert alarm(CollageGuard(), coffee, side_by_side(coffee, coffee), "Show two copies side by side") is None

    def test_soft_for_global_edits(self, cat: Image.Image) -> None:
        """A warmer tone may raise chroma; only far too much of it is an alarm, and a milder one."""
        ask = "Give the picture a warmer tone"
        assert alarm(SaturationGuard(), cat, ImageEnhance.Color(cat).enhance(1.5), ask) is None
        found = alarm(SaturationGuard(), cat, ImageEnhance.Color(cat).enhance(3), ask)
        assert found is not None
        assert found.cap == 7.0
        heavy = grain(cat, np.random.default_rng(0), 20)
        soft = alarm(DotsGuard(), cat, heavy, ask)
        assert soft is not None
        assert soft.cap == 6.0


class TestBeforeAnyResize:
    def test_what_a_resize_would_hide_is_found(self, coffee: Image.Image) -> None:
        """Two pixels of border and one-pixel dots at 1280 pixels are gone at a judge's 512."""
        large = rescale(coffee, 4)
        done = paste(large, tinted(large, (30, 60, 220)), ellipse(large.size, (0.5, 0.45), 0.5))
        assert alarm(BorderGuard(width=0.002), large, padded(done, 2 / large.height, "white")) is not None
        dotted = sprinkle(done, np.random.default_rng(0), 0.002, 1, colored=False)
        assert alarm(DotsGuard(), large, dotted) is not None
        assert alarm(DotsGuard(), large, done) is None

    @pytest.mark.parametrize("factor", [0.5, 1.6, 3.0])
    def test_a_rescaled_honest_edit_passes_them_all(
        self, coffee: Image.Image, done: Image.Image, factor: float
    ) -> None:
        edited = jpeg(rescale(done, factor, 16), 90)
        raised = [guard() for guard in CLASSES if alarm(guard(), coffee, edited) is not None]
        assert raised == []

    @pytest.mark.parametrize("factor", [0.5, 1.6])
    def test_hacks_are_found_at_another_size(self, coffee: Image.Image, done: Image.Image, factor: float) -> None:
        hacked = [
            (NoEditGuard(), rescale(coffee, factor)),
            (BorderGuard(), framed(rescale(done, factor), 0.05, "white")),
            (SizeGuard(), rescale(zoom(done, 0.75), factor)),
            (BackgroundDriftGuard(), rescale(ImageEnhance.Brightness(done).enhance(0.7), factor)),
            (SaturationGuard(), rescale(ImageEnhance.Color(done).enhance(2), factor)),
            (DotsGuard(), grain(rescale(done, factor), np.random.default_rng(0), 15)),
            (CollageGuard(), rescale(side_by_side(coffee, done), factor)),
        ]
        missed = [guard for guard, edited in hacked if alarm(guard, coffee, edited) is None]
        assert missed == []


class TestEdges:
    @pytest.mark.parametrize("guard", CLASSES)
    @pytest.mark.parametrize("sizes", [((1, 1), (1, 1)), ((1, 1), (64, 64)), ((64, 64), (1, 1)), ((1, 400), (400, 1))])
    def test_tiny_and_thin_images(
        self, guard: type[PixelGuard], sizes: tuple[tuple[int, int], tuple[int, int]], coffee: Image.Image
    ) -> None:
        source, edited = (coffee.resize(size) for size in sizes)
        found = alarm(guard(), source, edited)
        assert found is None or found.reason

    @pytest.mark.parametrize("guard", CLASSES)
    @pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
    def test_other_modes_are_read_as_rgb(self, guard: type[PixelGuard], mode: str, coffee: Image.Image) -> None:
        converted = coffee.convert(mode)
        assert alarm(guard(), coffee, converted) == alarm(guard(), coffee, converted.convert("RGB"))

    def test_a_grey_picture(self, coffee: Image.Image) -> None:
        gray = coffee.convert("L").convert("RGB")
        done = paste(gray, tinted(gray, (30, 60, 220)), ellipse(gray.size, (0.5, 0.45), 0.5))
        assert [guard.__name__ for guard in CLASSES if alarm(guard(), gray, done)] == []
        assert alarm(NoEditGuard(), gray, gray.copy()) is not None

    def test_one_flat_colour(self) -> None:
        blank, red = Image.new("RGB", (128, 96), "white"), Image.new("RGB", (128, 96), "red")
        assert alarm(NoEditGuard(), blank, blank.copy()) is not None
        others = [guard for guard in CLASSES if guard is not BackgroundDriftGuard]
        assert [guard.__name__ for guard in others if alarm(guard(), blank, red, "Make it red")] == []

    @pytest.mark.parametrize("guard", CLASSES)
    def test_a_huge_image_takes_bounded_time(self, guard: type[PixelGuard], coffee: Image.Image) -> None:
        huge = coffee.resize((6000, 4000), Image.Resampling.BILINEAR)
        edited = Image.blend(huge, Image.new("RGB", huge.size, "blue"), 0.2)
        started = time.process_time()
        alarm(guard(), huge, edited)
        # 0.1 to 0.5 s on a quiet core; 24 million pixels through any per-pixel float measure take more than 5 s.
        assert time.process_time() - started < 3.0

    def test_the_order_of_a_batch_is_kept(self, coffee: Image.Image, done: Image.Image) -> None:
        edits = [Edit(source=coffee, edited=edited, instruction=ASK) for edited in (coffee, done, coffee, done)]
        assert [found is not None for found in NoEditGuard().inspect(edits, [()] * 4)] == [True, False, True, False]

    def test_principles_must_match_the_edits(self, coffee: Image.Image, done: Image.Image) -> None:
        with pytest.raises(ValueError, match=r"shorter|longer"):
            NoEditGuard().inspect([Edit(source=coffee, edited=done, instruction=ASK)], [(), ()])


class TestSettings:
    @pytest.mark.parametrize("guard", CLASSES)
    def test_a_cap_outside_the_scale_is_refused(self, guard: type[Any]) -> None:
        with pytest.raises(ConfigError, match="cap"):
            guard(cap=11)

    @pytest.mark.parametrize(
        ("guard", "settings"),
        [
            (NoEditGuard, {"threshold": 0}),
            (BorderGuard, {"width": -1}),
            (SizeGuard, {"proportions": float("nan")}),
            (DotsGuard, {"grain": 0}),
        ],
    )
    def test_a_threshold_must_be_positive(self, guard: type[Any], settings: dict[str, float]) -> None:
        with pytest.raises(ConfigError, match=next(iter(settings))):
            guard(**settings)

    def test_thresholds_and_caps_are_used(self, coffee: Image.Image, done: Image.Image) -> None:
        bordered = padded(done, 0.03, "white")
        assert alarm(BorderGuard(width=0.1), coffee, bordered) is None
        found = alarm(BorderGuard(cap=None), coffee, bordered)
        assert found is not None
        assert found.cap is None

    def test_they_travel_between_processes(self) -> None:
        for guard in (guard(cap=2.0) for guard in CLASSES):
            assert repr(pickle.loads(pickle.dumps(guard))) == repr(guard)

    def test_the_default_set_is_nine_with_ocr_and_eight_without(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert len(DEFAULT_GUARDS) == 9
        assert all(summary for _, _, summary in DEFAULT_GUARDS)
        monkeypatch.setattr(text_reader, "_failure", lambda: "not installed")
        assert [type(guard) for guard in default_guards()] == CLASSES
        monkeypatch.setattr(text_reader, "_failure", lambda: None)
        assert [type(guard) for guard in default_guards()] == [guard for _, guard, _ in DEFAULT_GUARDS]
        assert not any(guard.needs_judge for guard in default_guards())
