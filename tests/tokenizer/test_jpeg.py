"""jpeg-bytes: bytes come back exactly, pixels as libjpeg gives them, and whatever a model writes never crashes."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tokenizer.codec import Codes, Shape
from tokenizer.codecs import load_codec
from tokenizer.jpeg import ROW, JpegBytes, canonical, header_parts, picture_of


@pytest.fixture(scope="module")
def codec() -> JpegBytes:
    codec = load_codec("jpeg-bytes")
    assert isinstance(codec, JpegBytes)
    return codec


def drawn(height: int = 64, width: int = 96, seed: int = 0) -> np.ndarray:
    blocks = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(blocks).resize((width, height)))


def as_codes(values: list[int]) -> Codes:
    return Codes(np.array(values, np.int32).reshape(-1, 1), Shape(len(values), 1))


@given(st.binary(min_size=1, max_size=300))
def test_any_bytes_come_back(data: bytes) -> None:
    codec = load_codec("jpeg-bytes")
    assert isinstance(codec, JpegBytes)
    codes = codec.encode_bytes(data)
    assert codes.shape.T == len(codes.codes) == codes.shape.h * ROW and codes.shape.w == ROW
    assert codec.decode_bytes(codes) == data


def test_a_file_is_what_pillow_makes_of_its_pixels(codec: JpegBytes) -> None:
    file = io.BytesIO()
    Image.fromarray(drawn()).save(file, "JPEG", quality=25, subsampling="4:2:0")
    codes = codec.encode(drawn())
    assert codec.decode_bytes(codes) == file.getvalue() == canonical(drawn())
    np.testing.assert_array_equal(codec.decode(codes), np.asarray(Image.open(file)))
    assert codec.shape(drawn()) == codes.shape and codes.size == (64, 96)


def test_a_photograph_of_any_kind_of_jpeg_comes_back_as_it_is(codec: JpegBytes) -> None:
    file = io.BytesIO()
    Image.fromarray(drawn(37, 50)).save(file, "JPEG", quality=90, progressive=True, comment=b"some words")
    codes = codec.encode_bytes(file.getvalue())
    assert codec.decode_bytes(codes) == file.getvalue()
    np.testing.assert_array_equal(codec.decode(codes), np.asarray(Image.open(file)))


def test_the_header_but_height_and_width_is_two_codes(codec: JpegBytes) -> None:
    before, after = header_parts()
    assert codec.vocabulary.strings == (before, after)
    for size in ((16, 32), (512, 256)):
        data = canonical(drawn(*size))
        assert data.startswith(before) and data[len(before) + 4 :].startswith(after)
        codes = codec.encode(drawn(*size)).codes[:, 0]
        assert codes[0] == 256 and 257 in codes[1:6]


def test_codes_fill_rows_and_what_fills_them_spells_nothing(codec: JpegBytes) -> None:
    codes = codec.encode(drawn())
    fill = codec.codebooks[0] - 1
    filled = codes.codes[:, 0] == fill
    assert 0 < filled.sum() < ROW and not filled[: -int(filled.sum())].any()
    more = Codes(np.insert(codes.codes, [3, 9], fill, axis=0), codes.shape)
    assert codec.decode_bytes(more) == codec.decode_bytes(codes)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2_000), st.lists(st.tuples(st.integers(0, 2_000), st.integers(0, 319)), max_size=4))
def test_a_cut_or_broken_file_gives_a_picture_or_one_line(length: int, changes: list[tuple[int, int]]) -> None:
    codec = load_codec("jpeg-bytes")
    codes = codec.encode(drawn()).codes[:length].copy()
    for place, code in changes:
        if place < len(codes):
            codes[place] = code
    try:
        back = codec.decode(Codes(codes, Shape(len(codes), 1)))
    except ValueError as error:
        assert "spell no JPEG picture" in str(error) and "\n" not in str(error)
    else:
        assert back.dtype == np.uint8 and back.ndim == 3 and back.shape[2] == 3


def test_of_a_file_cut_in_its_scan_the_beginning_is_seen(codec: JpegBytes) -> None:
    whole = codec.encode(drawn())
    data = codec.decode_bytes(whole)
    part = picture_of(data[: (len(data) + len(header_parts()[1])) // 2])
    assert part.shape == (64, 96, 3)
    np.testing.assert_array_equal(part[:8, :32], codec.decode(whole)[:8, :32])


def test_a_header_that_claims_too_much_is_refused_before_memory_is_taken(codec: JpegBytes) -> None:
    data = bytearray(canonical(drawn()))
    at = len(header_parts()[0])
    data[at : at + 4] = b"\x20\x00\x27\x10"
    with pytest.raises(ValueError, match="10000 x 8192 pixels"):
        codec.decode(codec.encode_bytes(bytes(data)))


@pytest.mark.parametrize(
    ("values", "words"),
    [([], "spell no JPEG"), ([65], "no readable header"), ([320], "codes 0 to 319, got 320 to 320")],
)
def test_what_is_no_picture_is_said(codec: JpegBytes, values: list[int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        codec.decode(as_codes(values))


def test_a_size_alone_does_not_tell_the_codes(codec: JpegBytes) -> None:
    with pytest.raises(ValueError, match="give the picture itself"):
        codec.shape((256, 256))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no bytes"):
        codec.encode_bytes(b"")


def test_a_missing_or_broken_vocabulary_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no vocabulary at .*toy-1\.bpe"):
        JpegBytes.load("toy", 1, tmp_path)
    (tmp_path / "toy-1.bpe").write_text("not hex\n")
    with pytest.raises(ValueError, match=r"toy-1\.bpe is no vocabulary of bytes: line 1"):
        JpegBytes.load("toy", 1, tmp_path)


def test_the_fingerprint_is_of_the_vocabulary_and_of_what_libjpeg_does(
    codec: JpegBytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert JpegBytes.load("jpeg-bytes", 1).fingerprint == codec.fingerprint
    monkeypatch.setattr("tokenizer.jpeg._of_libjpeg", lambda: "another")
    assert JpegBytes.load("jpeg-bytes", 1).fingerprint != codec.fingerprint
