"""Images: every way a picture can arrive, and every way it can be bad."""

import contextlib
import io
import os
import pickle
import struct
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from editr1_plugins.errors import DataError, ImageError
from editr1_plugins.images import check_image, content_hash, encode_png, keep_image, read_image

FORMATS = ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"]


def photo(width: int = 48, height: int = 32, mode: str = "RGB") -> Image.Image:
    """A smooth picture with noise, so that no encoder makes it trivially small."""
    rng = np.random.default_rng(7)
    ramp = np.linspace(0, 200, width)[None, :, None] + np.linspace(0, 50, height)[:, None, None]
    pixels = (ramp * np.array([1.0, 0.6, 0.3]) + rng.integers(0, 6, (height, width, 3))).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int, body: bytes = b"") -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


class TestWays:
    def test_bytes_bytearray_memoryview_str_path_and_pil_give_the_same_pixels(self, tmp_path: Path) -> None:
        image = photo()
        data = encoded(image)
        file = tmp_path / "photo.png"
        file.write_bytes(data)
        ways = [data, bytearray(data), memoryview(data), str(file), file, image, Image.open(file)]
        assert {read_image(way).tobytes() for way in ways} == {image.tobytes()}

    @pytest.mark.parametrize("kind", FORMATS)
    def test_common_formats(self, kind: str) -> None:
        read = read_image(encoded(photo(), kind))
        assert (read.mode, read.size) == ("RGB", (48, 32))
        assert np.abs(np.asarray(read, int) - np.asarray(photo(), int)).mean() < 12

    def test_a_plain_rgb_image_is_returned_as_it_is(self) -> None:
        image = photo()
        assert read_image(image) is image

    def test_the_result_carries_no_metadata_and_no_file(self) -> None:
        exif = Image.Exif()
        exif[0x010E] = "a description"
        read = read_image(encoded(photo(), "JPEG", exif=exif, comment="hello"))
        assert read.info == {}
        assert type(read) is Image.Image

    def test_the_given_image_is_not_changed(self) -> None:
        image = photo().convert("P")
        before = image.tobytes()
        read_image(image)
        assert (image.mode, image.tobytes()) == ("P", before)

    @pytest.mark.parametrize("thing", [None, 3, np.zeros((4, 4, 3), np.uint8), ["a"], {"bytes": b""}])
    def test_anything_else_is_refused_by_type(self, thing: object) -> None:
        with pytest.raises(ImageError, match=f"got {type(thing).__name__}"):
            read_image(thing)  # type: ignore[arg-type]

    @pytest.mark.parametrize("url", ["http://a/b.png", "https://a/b.png", "file:///etc/hostname", "s3://b/k.png"])
    def test_urls_are_never_fetched(self, url: str) -> None:
        with pytest.raises(ImageError, match="never fetched"):
            read_image(url)


class TestUpright:
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_exif_orientation_is_applied_as_pillow_does(self, orientation: int) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(photo(), "PNG", exif=exif)
        expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        read = read_image(data)
        assert (read.size, read.tobytes()) == (expected.size, expected.tobytes())
        assert read_image(read).tobytes() == read.tobytes()  # not turned twice

    def test_exif_of_a_pil_image_is_applied_once(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        opened = Image.open(io.BytesIO(encoded(photo(), "JPEG", exif=exif)))
        once = read_image(opened)
        assert once.size == (32, 48)
        assert read_image(once).size == (32, 48)

    def test_corrupt_exif_leaves_the_picture_as_stored(self) -> None:
        data = encoded(photo(), "JPEG", exif=b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xff" + b"\xee" * 40)
        assert read_image(data).size == (48, 32)


class TestModes:
    def test_alpha_is_composited_onto_white(self) -> None:
        image = Image.new("RGBA", (3, 1), (200, 0, 0, 255))
        image.putpixel((1, 0), (200, 0, 0, 0))
        image.putpixel((2, 0), (0, 0, 0, 128))
        pixels = [read_image(encoded(image)).getpixel((x, 0)) for x in range(3)]
        assert pixels[:2] == [(200, 0, 0), (255, 255, 255)]
        assert all(abs(value - 127) <= 1 for value in pixels[2])

    @pytest.mark.parametrize("mode", ["LA", "PA", "La", "RGBa"])
    def test_other_modes_with_alpha(self, mode: str) -> None:
        clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
        image = clear.convert("LA").convert("La") if mode == "La" else clear.convert(mode)
        assert read_image(image).getpixel((1, 1)) == (255, 255, 255)

    def test_a_transparent_colour_of_a_palette_is_white(self) -> None:
        image = Image.new("P", (2, 1), 0)
        image.putpalette([10, 20, 30, 200, 100, 50])
        image.putpixel((1, 0), 1)
        read = read_image(encoded(image, "PNG", transparency=0))
        assert [read.getpixel((x, 0)) for x in range(2)] == [(255, 255, 255), (200, 100, 50)]

    def test_a_transparent_colour_of_an_rgb_png_is_white(self) -> None:
        read = read_image(encoded(Image.new("RGB", (2, 2), (1, 2, 3)), "PNG", transparency=(1, 2, 3)))
        assert read.getpixel((0, 0)) == (255, 255, 255)

    def test_palette_colours_are_kept(self) -> None:
        image = photo().quantize(16)
        assert read_image(encoded(image, "GIF")).tobytes() == image.convert("RGB").tobytes()

    @pytest.mark.parametrize("mode", ["1", "L", "YCbCr", "HSV", "CMYK"])
    def test_other_modes_become_rgb(self, mode: str) -> None:
        image = photo(mode=mode)
        assert read_image(image).tobytes() == image.convert("RGB").tobytes()

    @pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
    def test_cmyk_files(self, kind: str) -> None:
        read = read_image(encoded(photo(mode="CMYK"), kind))
        assert np.abs(np.asarray(read, int) - np.asarray(photo(), int)).mean() < 6

    @pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "PIL"])
    def test_sixteen_bits_are_scaled_not_clipped(self, kind: str) -> None:
        values = np.array([[0, 256, 257, 32768, 65278, 65535]], np.uint16).repeat(2, 0)
        image = Image.fromarray(values)
        read = read_image(image if kind == "PIL" else encoded(image, kind))
        assert np.asarray(read)[0, :, 0].tolist() == [0, 1, 1, 128, 254, 255]

    def test_sixteen_bits_big_endian(self) -> None:
        image = Image.frombytes("I;16B", (2, 1), struct.pack(">HH", 65535, 32768))
        assert np.asarray(read_image(image))[0, :, 0].tolist() == [255, 128]

    def test_a_32_bit_image_with_16_bit_values_is_scaled(self) -> None:
        assert read_image(Image.new("I", (2, 2), 65535)).getpixel((0, 0)) == (255, 255, 255)

    @pytest.mark.parametrize(("mode", "value"), [("I", 70_000), ("I", -1), ("F", 0.5)])
    def test_pixels_without_an_agreed_range_are_refused(self, mode: str, value: float) -> None:
        with pytest.raises(ImageError, match="range is not known"):
            read_image(Image.new(mode, (2, 2), value))


class TestBad:
    @pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
    def test_animated_and_many_pages(self, kind: str) -> None:
        frames = [photo(), photo().transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
        with pytest.raises(ImageError, match="animated or has several pages"):
            read_image(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))

    def test_a_single_frame_gif_is_fine(self) -> None:
        assert read_image(encoded(photo(), "GIF")).size == (48, 32)

    def test_of_a_multi_picture_jpeg_the_first_is_taken(self) -> None:
        data = encoded(photo(), "MPO", save_all=True, append_images=[photo(16, 16)])
        assert read_image(data).size == (48, 32)

    @pytest.mark.parametrize("kind", FORMATS)
    @pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
    def test_truncated(self, kind: str, share: float) -> None:
        data = encoded(photo(), kind)
        with pytest.raises(ImageError):
            read_image(data[: int(len(data) * share)])

    def test_truncated_file_opened_by_the_caller(self) -> None:
        data = encoded(photo())
        with pytest.raises(ImageError, match="truncated"):
            read_image(Image.open(io.BytesIO(data[: len(data) // 2])))

    @pytest.mark.parametrize("data", [b"", b"\x00", b"hello", b"<html><body>404</body></html>", b"\x89PNG\r\n\x1a\n"])
    def test_no_image_at_all(self, data: bytes) -> None:
        with pytest.raises(ImageError):
            read_image(data)

    @pytest.mark.parametrize("kind", ["EPS", "PDF", "PCX", "TGA", "ICO", "JPEG2000"])
    def test_formats_with_risky_or_rare_parsers_are_not_opened(self, kind: str) -> None:
        with pytest.raises(ImageError, match="supported format"):
            read_image(encoded(photo(), kind))

    @pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
    def test_no_pixels(self, size: tuple[int, int]) -> None:
        with pytest.raises(ImageError, match="no pixels"):
            read_image(Image.new("RGB", size))
        with pytest.raises(ImageError):
            read_image(png_header(*size))

    def test_a_flipped_bit_in_compressed_data(self) -> None:
        data = bytearray(encoded(photo()))
        data[len(data) // 2] ^= 0xFF
        with pytest.raises(ImageError, match="decoded"):
            read_image(bytes(data))

    def test_paths(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match=r"missing\.png.*No such file"):
            read_image(tmp_path / "missing.png")
        with pytest.raises(ImageError, match="not a regular file"):
            read_image(tmp_path)
        with pytest.raises(ImageError, match="cannot be read"):
            read_image("nul\x00byte.png")
        with pytest.raises(ImageError, match=r"\.\.\.") as long:
            read_image("x" * 100_000)
        assert len(str(long.value)) < 400

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
    def test_a_pipe_does_not_hang(self, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        with pytest.raises(ImageError, match="not a regular file"):
            read_image(pipe)

    def test_it_is_a_data_error_and_a_value_error(self) -> None:
        with pytest.raises(DataError):
            read_image(b"x")
        with pytest.raises(ValueError, match="supported format"):
            read_image(b"x")

    @settings(max_examples=150, deadline=None)
    @given(data=st.data())
    def test_damaged_bytes_raise_nothing_but_image_errors(self, data: st.DataObject) -> None:
        kind = data.draw(st.sampled_from(FORMATS))
        broken = bytearray(encoded(photo(16, 12), kind))
        for _ in range(data.draw(st.integers(1, 6))):
            broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with contextlib.suppress(ImageError):
                assert read_image(bytes(broken)).mode == "RGB"


class TestLimits:
    def test_pixels_are_checked_in_the_header_before_anything_is_decoded(self) -> None:
        # There is no body to decode: had it been tried, the error would be "truncated".
        with pytest.raises(ImageError, match="max_pixels"):
            read_image(png_header(9000, 9000))
        with pytest.raises(ImageError, match="max_pixels=100"):
            read_image(photo(), max_pixels=100)

    @pytest.mark.parametrize("side", [10_000, 14_000, 60_000])
    def test_decompression_bombs_are_errors_without_warnings(self, side: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(ImageError, match="pixels"):
                read_image(png_header(side, side))

    def test_a_higher_limit_is_obeyed(self) -> None:
        data = encoded(Image.new("1", (9000, 8000)))
        assert read_image(data, max_pixels=9000 * 8000).size == (9000, 8000)

    def test_aspect(self) -> None:
        assert read_image(photo(100, 2)).size == (100, 2)
        with pytest.raises(ImageError, match="max_aspect=50"):
            read_image(png_header(1000, 4))
        with pytest.raises(ImageError, match="max_aspect=2"):
            read_image(photo(10, 21), max_aspect=2)

    def test_bytes(self, tmp_path: Path) -> None:
        data = encoded(photo())
        file = tmp_path / "photo.png"
        file.write_bytes(data)
        assert read_image(file, max_bytes=len(data)).size == (48, 32)
        for source in (data, file):
            with pytest.raises(ImageError, match="max_bytes"):
                read_image(source, max_bytes=len(data) - 1)

    def test_a_text_bomb_in_a_png(self) -> None:
        data = encoded(photo())
        text = zlib.compress(b"A" * (80 * 2**20))
        body = b"Comment\x00\x00" + text
        chunk = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
        with pytest.raises(ImageError, match="decoded"):
            read_image(data[:33] + chunk + data[33:])


class TestThreads:
    def test_many_threads_agree_and_leave_the_warning_filters_alone(self) -> None:
        data = encoded(photo(200, 150), "JPEG")
        before = list(warnings.filters)
        with ThreadPoolExecutor(8) as pool:
            results = set(pool.map(lambda _: read_image(data).tobytes(), range(64)))
        assert len(results) == 1
        assert list(warnings.filters) == before

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    def test_a_forked_child_can_read_while_a_thread_of_its_parent_was_reading(self) -> None:
        data = encoded(photo(600, 600))
        stop = threading.Event()

        def read_until_stopped() -> None:
            while not stop.is_set():
                read_image(data)

        readers = [threading.Thread(target=read_until_stopped) for _ in range(2)]
        for reader in readers:
            reader.start()
        try:
            for _ in range(5):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", DeprecationWarning)  # fork with threads is what is tested
                    child = os.fork()
                if child == 0:  # pragma: no cover
                    signal_after_5_seconds()
                    read_image(data)
                    os._exit(0)
                assert os.waitpid(child, 0)[1] == 0
        finally:
            stop.set()
            for reader in readers:
                reader.join()


def signal_after_5_seconds() -> None:
    import signal

    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(5)  # a deadlock kills the child, which fails the test


class TestPng:
    def test_round_trip_and_determinism(self) -> None:
        image = photo()
        data = encode_png(image)
        assert read_image(data).tobytes() == image.tobytes()
        assert encode_png(image) == data
        assert encode_png(pickle.loads(pickle.dumps(image))) == data

    def test_no_metadata_is_written(self) -> None:
        image = photo()
        image.info.update(icc_profile=b"x" * 200, dpi=(72, 72), transparency=(0, 0, 0), exif=b"Exif\x00\x00")
        assert Image.open(io.BytesIO(encode_png(image))).info == {}

    def test_other_modes_are_encoded_as_they_are_seen(self) -> None:
        assert encode_png(Image.new("RGBA", (4, 4), (9, 9, 9, 0))) == encode_png(Image.new("RGB", (4, 4), "white"))


class TestKeepImage:
    def test_the_same_pixels_are_one_file_under_their_hash(self, tmp_path: Path) -> None:
        image = photo()
        name = keep_image(image, tmp_path)
        assert name == f"images/{content_hash(image)[:2]}/{content_hash(image)}.png"
        assert read_image(tmp_path / name).tobytes() == image.tobytes()
        (tmp_path / name).write_bytes(b"kept")
        assert keep_image(read_image(encoded(image)), tmp_path) == name
        assert (tmp_path / name).read_bytes() == b"kept"
        assert [path.name for path in (tmp_path / name).parent.iterdir()] == [Path(name).name]


class TestContentHash:
    def test_the_pixels_decide_not_the_file(self) -> None:
        image = photo()
        assert (
            content_hash(read_image(encoded(image, "BMP")))
            == content_hash(read_image(encoded(image)))
            == content_hash(image)
        )

    def test_size_and_every_pixel_count(self) -> None:
        black = [content_hash(Image.new("RGB", size)) for size in [(6, 4), (4, 6), (24, 1), (12, 2)]]
        assert len(set(black)) == 4
        other = photo()
        other.putpixel((47, 31), (0, 0, 1))
        assert content_hash(other) != content_hash(photo())

    def test_it_is_stable_across_releases(self) -> None:
        # Caches on disk are keyed by it. The figure is: printf 'RGB 2x1\n\x01\x02\x03\x01\x02\x03' | sha256sum
        expected = "5d369825244224d1768055e6f550a409c2b04e6dacb3d8132f4c8ee8856c73e8"
        assert content_hash(Image.new("RGB", (2, 1), (1, 2, 3))) == expected


class TestCheck:
    @pytest.mark.parametrize("kind", FORMATS)
    def test_a_whole_image_passes_and_tells_its_size(self, kind: str) -> None:
        assert check_image(encoded(photo(), kind)) == (48, 32)

    @pytest.mark.parametrize("kind", FORMATS)
    @pytest.mark.parametrize("share", [0.5, 0.9])
    def test_a_truncated_file_is_refused_as_decoding_it_would_be(self, kind: str, share: float) -> None:
        data = encoded(photo(256, 256), kind)
        cut = data[: int(share * len(data))]
        with contextlib.suppress(ImageError):
            read_image(cut)
            assert check_image(cut) == (256, 256)  # a format that forgives
            return
        with pytest.raises(ImageError):
            check_image(cut)

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b"", "empty"),
            (b"<svg/>", "not an image"),
            (png_header(100_000, 100_000), "pixels"),
            (png_header(6000, 3), "elongated"),
        ],
        ids=["empty", "another format", "bomb", "elongated"],
    )
    def test_what_the_header_tells(self, data: bytes, reason: str) -> None:
        with pytest.raises(ImageError, match=reason):
            check_image(data)

    def test_an_animation_is_refused(self) -> None:
        frames = [photo(), ImageOps.mirror(photo())]
        with pytest.raises(ImageError, match="animated"):
            check_image(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))

    def test_what_follows_a_jpeg_is_no_fault(self) -> None:
        assert check_image(encoded(photo(), "JPEG") + b"appended by a camera") == (48, 32)

    def test_no_pixel_is_decoded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        data = encoded(photo(), "JPEG")
        monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
        assert check_image(data) == (48, 32)
