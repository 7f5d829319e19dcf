"""Images of every mode come out upright in RGB; hostile ones raise MediaError and nothing else."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin
from toy_media import encoded, png

from pipelines.ingest.decode_image import FORMATS, decode_image, image_size
from pipelines.ingest.media import REASONS, Limits, MediaError


def bars() -> Image.Image:
    """Red left half, blue right half, 20 x 10."""
    pixels = np.zeros((10, 20, 3), np.uint8)
    pixels[:, :10, 0], pixels[:, 10:, 2] = 255, 255
    return Image.fromarray(pixels)


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "GIF", "PPM"])
def test_lossless_formats_give_the_pixels_back(format):
    np.testing.assert_array_equal(decode_image(encoded(bars(), format)), np.asarray(bars()))


@pytest.mark.parametrize("format", ["JPEG", "WEBP"])
def test_lossy_formats_come_close(format):
    got = decode_image(encoded(bars(), format, quality=95)).astype(int)
    assert np.abs(got - np.asarray(bars()).astype(int))[:, [2, 17]].max() < 30


def test_exif_orientation_turns_the_image_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to see it upright
    turned = decode_image(encoded(bars(), "JPEG", quality=95, exif=exif))
    assert turned.shape == (20, 10, 3)
    assert turned[2, 5, 0] > 200 > 60 > turned[17, 5, 0]


def test_gray_1_bit_and_palette_become_rgb():
    for mode in ("L", "1", "P"):
        pixels = decode_image(encoded(Image.new("L", (4, 4), 255).convert(mode)))
        assert pixels.shape == (4, 4, 3) and pixels.dtype == np.uint8 and (pixels == 255).all()


def test_cmyk_becomes_rgb():
    pixels = decode_image(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95))
    assert pixels[4, 4, 0] > 200 and pixels[4, 4, 1] < 50


def test_16_bit_gray_is_scaled_not_clipped():
    samples = np.array([[0, 65535], [32768, 257]], np.uint16)
    np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(samples)))[:, :, 1], [[0, 255], [128, 1]])


def test_float_gray_is_scaled():
    samples = np.array([[0.0, 1.0], [0.5, np.nan]], np.float32)
    np.testing.assert_array_equal(
        decode_image(encoded(Image.fromarray(samples), "TIFF"))[:, :, 0], [[0, 255], [128, 0]]
    )


def test_alpha_lies_over_the_stated_background():
    clear = png(colour=(9, 9, 9, 0), mode="RGBA")
    assert (decode_image(clear) == 255).all()
    assert (decode_image(clear, background=(1, 2, 3)) == (1, 2, 3)).all()
    half = decode_image(png(colour=(0, 128), mode="LA"))
    assert abs(int(half[0, 0, 0]) - 127) <= 1


def test_a_transparent_palette_lies_over_the_background():
    image = Image.new("P", (4, 4), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    assert (decode_image(encoded(image, transparency=0)) == 255).all()


def test_of_an_animation_the_asked_frame_is_taken():
    frames = [Image.new("L", (6, 6), level) for level in (10, 120, 250)]
    gif = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode_image(gif)[0, 0, 0] == 10
    assert decode_image(gif, frame=2)[0, 0, 0] == 250
    with pytest.raises(MediaError):
        decode_image(gif, frame=3)


def photo(height: int = 96, width: int = 160) -> Image.Image:
    blocks = np.random.RandomState(0).randint(0, 256, (6, 10, 3)).astype(np.uint8)
    return Image.fromarray(blocks).resize((width, height))


@pytest.mark.parametrize(
    "need, shape", [((96, 160), (96, 160)), ((49, 80), (96, 160)), ((48, 80), (48, 80)), ((9, 9), (12, 20)),
                    ((24, 41), (48, 80)), ((25, 40), (48, 80)), ((300, 300), (96, 160)), ((1, 1), (12, 20))]
)  # fmt: skip
def test_a_jpeg_is_decoded_as_small_as_it_is_needed_and_no_smaller(need, shape):
    medium = encoded(photo(), "JPEG", quality=95)
    got = decode_image(medium, need=lambda height, width: need)
    assert got.shape == (*shape, 3)
    reduced = np.asarray(Image.fromarray(decode_image(medium)).resize(shape[::-1], Image.Resampling.BOX))
    assert np.abs(got.astype(int) - reduced).mean() < 4


def test_what_is_needed_is_told_of_the_upright_image():
    exif = Image.Exif()
    exif[0x0112] = 6
    seen = []
    got = decode_image(
        encoded(photo(), "JPEG", exif=exif), need=lambda height, width: seen.append((height, width)) or (80, 48)
    )
    assert seen == [(160, 96)] and got.shape == (80, 48, 3)


def test_only_jpeg_files_are_decoded_small():
    assert decode_image(encoded(photo()), need=lambda height, width: (2, 2)).shape == (96, 160, 3)
    for mode in ("L", "CMYK"):
        got = decode_image(encoded(photo().convert(mode), "JPEG", quality=95), need=lambda height, width: (40, 70))
        assert got.shape == (48, 80, 3)


def test_a_wrong_extension_does_not_matter(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(png())
    assert decode_image(path).shape == (8, 12, 3)
    assert image_size(path) == (8, 12)


def bomb(side: int) -> bytes:
    """A PNG of a few bytes whose header promises side x side pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "medium, reason",
    [
        (b"", "empty"),
        (bomb(60_000), "over limit"),
        (bomb(500), "cannot decode"),
        (png(300, 300)[:80], "cannot decode"),
        (b"GIF89a" + b"\xff" * 40, "cannot decode"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "cannot decode"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "cannot decode"),
        (b"not an image", "cannot decode"),
    ],
)
def test_hostile_images_raise_media_errors(medium, reason):
    with pytest.raises(MediaError) as caught:
        decode_image(medium)
    assert caught.value.reason == reason and reason in REASONS
    assert "0x" not in caught.value.detail, "an address would make two ledgers differ"


def test_a_missing_file_and_a_large_one_are_named(tmp_path):
    with pytest.raises(MediaError, match="missing file"):
        decode_image(tmp_path / "gone.png")
    with pytest.raises(MediaError, match="over limit"):
        decode_image(png(), Limits(max_bytes=10))


def test_every_truncation_and_flip_is_survived():
    whole = encoded(bars(), "JPEG")
    rng = np.random.RandomState(0)
    for stop in range(1, len(whole), 37):
        for medium in (whole[:stop], bytes(rng.permutation(np.frombuffer(whole, np.uint8)))):
            try:
                decode_image(medium)
            except MediaError as error:
                assert error.reason in REASONS


def icon(data: bytes, side: int = 16) -> bytes:
    """An ICO file of one picture, of which it says that it is `side` pixels wide and high."""
    return struct.pack("<3H4B2H2I", 0, 1, 1, side, side, 0, 0, 1, 32, len(data), 22) + data


def test_the_picture_in_an_icon_is_measured_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", None)  # to decode it would fail
    bitmap = encoded(Image.new("RGB", (300, 200)), "DIB")
    for data in (png(300, 100), bitmap):
        for read in (decode_image, image_size):
            with pytest.raises(MediaError) as caught:
                read(icon(data), Limits(max_pixels=1000))
            assert caught.value.reason == "over limit"


def test_icons_are_read():
    assert decode_image(icon(png(16, 16))).shape == (16, 16, 3)
    assert decode_image(encoded(Image.new("RGB", (16, 16)), "ICO", bitmap_format="bmp")).shape == (16, 16, 3)


def test_no_other_format_decodes_when_it_is_opened(monkeypatch):
    wholes = {form: encoded(bars(), form) for form in set(FORMATS) - {"ICO"}}
    monkeypatch.setattr(ImageFile.ImageFile, "load", None)
    for form, data in wholes.items():
        assert image_size(data) == (10, 20), form


def test_each_page_of_a_file_is_measured():
    small, large = Image.new("RGB", (8, 8)), Image.new("RGB", (99, 99))
    data = encoded(small, "TIFF", save_all=True, append_images=[large])
    assert decode_image(data, Limits(max_pixels=100)).shape == (8, 8, 3)
    with pytest.raises(MediaError, match="99 x 99"):
        decode_image(data, Limits(max_pixels=100), frame=1)
