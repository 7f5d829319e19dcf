"""Every shipped codec keeps the contract of `tokenizer.codec`: shapes, ranges, batches, fingerprints."""

from typing import Any

import numpy as np
import pytest

from tokenizer.codec import spec_of
from tokenizer.codecs import CODECS, full_name, load_codec


def media(kind: str) -> tuple[list[Any], list[Any]]:
    """(toy media, extremes among them, and their sizes)."""
    random = np.random.default_rng(0)
    if kind == "image":
        sizes = ((32, 48), (20, 20), (32, 48), (1, 1), (1, 900), (900, 2))
        images = [random.integers(0, 256, (h, w, 3), np.uint8) for h, w in sizes]
        return images, [image.shape[:2] for image in images]
    if kind == "audio":
        sounds = [np.float32(0.3 * np.sin(np.arange(n) * 0.05)) for n in (8_000, 4_321, 8_000, 1, 0)]
        sounds.append(np.zeros(5_000, np.float32))
        return sounds, [(len(sound),) for sound in sounds]
    texts = ["a red cat", "naïve café 你好 🙂\n\t two  spaces", ""]
    return texts, texts


def by_content(codec: Any) -> bool:
    """Whether only encoding tells how many codes there are: `shape` then takes the medium."""
    return codec.kind == "text" or codec.name == "jpeg-bytes"


@pytest.fixture(params=sorted(CODECS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_codec_is_named_and_fingerprinted(name: str) -> None:
    codec = load_codec(name)
    spec = spec_of(codec)
    assert spec.name == name
    assert len(spec.fingerprint) == 64 and int(spec.fingerprint, 16)
    assert load_codec(name) is codec


def test_codes_lie_in_their_codebooks_and_have_the_shape_foretold(name: str) -> None:
    codec = load_codec(name)
    for medium, size in zip(*media(codec.kind), strict=True):
        codes = codec.encode(medium)
        assert codes.codes.dtype == np.int32
        assert codes.codes.shape == (codes.shape.T, codes.shape.K) == (codes.shape.T, len(codec.codebooks))
        assert (codes.codes >= 0).all() and (codes.codes < np.array(codec.codebooks)).all()
        assert codec.shape(medium if by_content(codec) else size) == codes.shape


def test_a_batch_gives_what_each_gives_alone(name: str) -> None:
    codec = load_codec(name)
    many, _ = media(codec.kind)
    for medium, codes in zip(many, codec.encode_batch(many), strict=True):
        np.testing.assert_array_equal(codes.codes, codec.encode(medium).codes)


def test_an_exact_codec_gives_the_medium_back(name: str) -> None:
    codec = load_codec(name)
    for medium in media(codec.kind)[0]:
        back = codec.decode(codec.encode(medium))
        assert type(back) is type(medium)
        if codec.exact:
            assert back == medium


def test_a_medium_of_any_size_comes_back_in_the_size_that_its_codes_stand_for(name: str) -> None:
    codec = load_codec(name)
    for medium in media(codec.kind)[0]:
        codes = codec.encode(medium)
        back = codec.decode(codes)
        if codec.kind == "image":
            assert back.dtype == np.uint8 and back.shape == (*codes.size, 3)
        elif codec.kind == "audio":
            assert back.dtype == np.float32 and back.shape == medium.shape and np.isfinite(back).all()


def test_a_name_without_revision_is_the_newest() -> None:
    assert full_name("image-fsq16").startswith("image-fsq16@")


def test_an_unknown_codec_names_the_nearest_and_the_choices() -> None:
    with pytest.raises(ValueError, match=r"did you mean 'image-fsq16'.*image-fsq16@1"):
        load_codec("image-fsq17")
