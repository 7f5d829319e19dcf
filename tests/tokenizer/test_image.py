"""The image front end: few grids, little cropped, nothing enlarged much; and the shipped image codec on it."""

import math
from dataclasses import replace

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenizer.codec import Codes, Shape
from tokenizer.codecs import load_codec
from tokenizer.image import ImageFsq, ResizePolicy, resize
from tokenizer.nets import image_fsq

SIDES = st.integers(1, 3000)

SMALL = image_fsq.Config(widths=(8, 12), encoder_blocks=(0, 1), decoder_blocks=(1, 1))


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """uint8 [height, width, 3]: smooth colours with a disc on them."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    base = np.stack([np.sin(a * x + b * y + c) for a, b, c in random.uniform(0, 6, (3, 3))], -1)
    base[(x - 0.4) ** 2 + (y - 0.3) ** 2 < 0.04] = random.uniform(-1, 1, 3)
    return np.uint8(127.5 + 120 * base)


@given(SIDES, SIDES, st.sampled_from([1, 4, 16, 64, 100, 256, 1024]))
def test_a_grid_has_at_most_its_tokens_and_is_one_of_the_few(height: int, width: int, tokens: int) -> None:
    policy = ResizePolicy(tokens=tokens)
    h, w = policy.grid(height, width)
    assert h * w <= tokens
    assert (h, w) in policy.grids()


@given(st.integers(24, 2000), st.floats(0.41, 2.44))
def test_little_of_a_picture_is_cropped(height: int, ratio: float) -> None:
    width = max(1, round(height / ratio))
    h, w = ResizePolicy(tokens=256).grid(height, width)
    kept = math.exp(-abs(math.log((h / w) / (height / width))))
    assert kept >= (7 / 8 if height * width >= 128 * 128 else 0.79)


@given(SIDES, SIDES)
def test_a_picture_and_its_transpose_have_as_many_codes(height: int, width: int) -> None:
    policy = ResizePolicy()
    h, w = policy.grid(height, width)
    assert math.prod(policy.grid(width, height)) == h * w


def test_a_small_picture_takes_few_codes() -> None:
    policy = ResizePolicy(tokens=256)
    assert policy.grid(512, 512) == (16, 16)
    assert policy.grid(64, 64) == (8, 8)
    assert policy.grid(20, 20) == (4, 4)


def test_stretch_gives_one_size_whatever_the_shape() -> None:
    policy = ResizePolicy("stretch", multiple=14, size=(56, 28))
    image = np.zeros((30, 300, 3), np.uint8)
    image[:, 150:] = 255
    small = resize(image, policy)
    assert small.shape == (56, 28, 3) and policy.grids() == ((4, 2),)
    assert small[:, :11].max() == 0 and small[:, 17:].min() == 255  # neither end is lost
    with pytest.raises(ValueError, match="multiples of 14 pixels"):
        ResizePolicy("stretch", multiple=14, size=(56, 30))


# Of smart_resize in qwen-vl-utils and transformers, worked by hand: factor, bounds, picture, size
SMART = [
    ((28, 3_136, 1_003_520), (1080, 1920), (728, 1316)),
    ((28, 3_136, 1_003_520), (700, 500), (700, 504)),
    ((28, 3_136, 12_845_056), (1080, 1920), (1092, 1932)),
    ((28, 3_136, 1_003_520), (70, 98), (56, 112)),  # halves to even: 2.5 to 2, 3.5 to 4
    ((28, 3_136, 1_003_520), (20, 20), (56, 56)),
    ((28, 100_352, 602_112), (240, 320), (280, 392)),
    ((28, 3_136, 1_003_520), (30, 6000), (28, 6000 // 28 * 28)),
    ((32, 4_096, 16_777_216), (100, 100), (96, 96)),
]


@pytest.mark.parametrize(("rule", "picture_size", "size"), SMART)
def test_area_follows_qwens_rule(rule: tuple[int, int, int], picture_size: tuple[int, int], size: tuple) -> None:
    multiple, low, high = rule
    policy = ResizePolicy("area", multiple=multiple, min_pixels=low, max_pixels=high)
    assert tuple(multiple * side for side in policy.grid(*picture_size)) == size
    assert resize(picture(*picture_size), policy).shape == (*size, 3)


@given(SIDES, SIDES, st.sampled_from([14, 28, 32]))
def test_area_stays_within_its_bounds(height: int, width: int, multiple: int) -> None:
    policy = ResizePolicy("area", multiple=multiple, min_pixels=16 * multiple**2, max_pixels=400 * multiple**2)
    if max(height, width) > 200 * min(height, width):
        with pytest.raises(ValueError, match="1:200"):
            policy.grid(height, width)
        return
    h, w = policy.grid(height, width)
    assert 16 <= h * w <= max(400, h, w)  # a side is never less than one square
    if min(h, w) > 4:
        assert 0.7 < (h / w) / (height / width) < 1.45


def test_resize_covers_the_grid_and_keeps_the_middle() -> None:
    image = np.zeros((200, 1000, 3), np.uint8)
    image[:, 400:600] = 255
    small = resize(image, ResizePolicy(kind="crop", tokens=16))
    assert small.shape == (64, 64, 3)
    assert small[:, 4:-4].min() > 240
    same = np.zeros((256, 256, 3), np.uint8)
    assert resize(same) is same


@pytest.mark.parametrize("bad", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3))])
def test_what_is_no_rgb_picture_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8"):
        resize(bad)


def test_a_policy_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'squash'.*'bucket'"):
        ResizePolicy(kind="squash")


@pytest.fixture(scope="module")
def codec() -> ImageFsq:
    loaded = load_codec("image-fsq16")
    assert isinstance(loaded, ImageFsq)
    return loaded.with_policy(ResizePolicy(tokens=16))  # small, so that the tests are quick


@given(height=st.integers(1, 90), width=st.integers(1, 90))
@settings(max_examples=20, deadline=None)
def test_shape_says_what_encode_gives(codec: ImageFsq, height: int, width: int) -> None:
    codes = codec.encode(picture(height, width))
    shape = codec.shape((height, width))
    assert codes.shape == shape
    assert codes.codes.shape == (shape.T, shape.K) and codes.codes.dtype == np.int32
    assert codec.decode(codes).shape == (16 * shape.h, 16 * shape.w, 3)


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (3, 2500)])
def test_pictures_of_a_pixel_and_very_long_ones_encode_and_decode(codec: ImageFsq, size: tuple[int, int]) -> None:
    codes = codec.encode(picture(*size))
    assert codes.shape == codec.shape(size) and 1 <= codes.shape.T <= 16
    assert codec.decode(codes).shape == (16 * codes.shape.h, 16 * codes.shape.w, 3)


def test_a_picture_on_the_grid_is_not_resized_again(codec: ImageFsq) -> None:
    image = picture(96, 160)
    assert codec.shape((96, 160)) == Shape(T=60, K=1, t=1, h=6, w=10)
    assert codec.decode(codec.encode(image)).shape == image.shape


def test_a_batch_of_mixed_sizes_gives_each_picture_its_own_codes(
    codec: ImageFsq, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = [picture(64 + 16 * (i % 2), 64, seed=i) for i in range(5)]
    alone = [codec.encode(image).codes for image in pictures]
    for size in (1, 3, 16):  # 16 is what an accelerator takes at once
        monkeypatch.setattr("tokenizer.image._batch_size", lambda size=size: size)
        for one, many in zip(alone, codec.encode_batch(pictures), strict=True):
            np.testing.assert_array_equal(one, many.codes)


def test_a_smooth_picture_comes_back_close(codec: ImageFsq) -> None:
    image = picture(128, 128, seed=3)
    error = np.mean((codec.decode(codec.encode(image)).astype(float) - image) ** 2)
    assert 10 * math.log10(255**2 / error) > 20


def test_codes_that_cannot_be_are_refused(codec: ImageFsq) -> None:
    shape = Shape(T=4, K=1, t=1, h=2, w=2)
    with pytest.raises(ValueError, match="15359"):
        codec.decode(Codes(np.full((4, 1), 15_360, np.int32), shape))
    with pytest.raises(ValueError, match="grid of 2x2"):
        codec.decode(Codes(np.zeros((5, 1), np.int32), shape))


def test_a_search_finds_codes_that_decode_nearer_and_never_worse_ones(codec: ImageFsq) -> None:
    searching = codec.searching(4)
    assert (searching.name, searching.codebooks) == (f"{codec.name}-search", codec.codebooks)
    assert len({codec.fingerprint, searching.fingerprint, codec.searching(5).fingerprint}) == 3
    pictures = [picture(64, 64, seed=seed) for seed in range(4)]

    def errors(coder: ImageFsq) -> np.ndarray:
        backs = coder.decode_batch(coder.encode_batch(pictures))
        return np.array([np.mean((back.astype(float) - image) ** 2) for back, image in zip(backs, pictures)])

    plain, found = errors(codec), errors(searching)
    assert (found <= plain * 1.001).all() and found.mean() < 0.98 * plain.mean()  # they decode to whole numbers
    for image, codes in zip(pictures, searching.encode_batch(pictures), strict=True):
        np.testing.assert_array_equal(searching.encode(image).codes, codes.codes)


def test_a_search_of_no_rounds_is_the_encoder() -> None:
    params = image_fsq.init(0, SMALL)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 16, 24, 3)).astype(np.float32)
    np.testing.assert_array_equal(image_fsq.search(params, images, 0, SMALL), image_fsq.encode(params, images, SMALL))


def test_the_closed_form_gives_each_number_of_a_code_an_equal_share() -> None:
    random = np.random.default_rng(0)
    small = random.normal(size=(40, 8, 8, 3)).cumsum(1).cumsum(2) / 8  # smooth: few components hold nearly all
    crops = np.clip(small, -1, 1).astype(np.float32)
    params = image_fsq.closed_form(image_fsq.init(0, SMALL), crops, SMALL)
    z = np.asarray(image_fsq.latents(params, crops, SMALL)).reshape(-1, 5)
    np.testing.assert_allclose(z.std(0), 1, atol=0.05)
    norms = np.linalg.norm(params["encoder"]["skip"]["kernel"][0, 0], axis=0)  # a component alone: 1 over its spread
    assert norms.max() < 2.5 * norms.min()
    back = image_fsq.decode(params, image_fsq.encode(params, crops, SMALL), SMALL)
    assert np.mean((np.asarray(back) - crops) ** 2) < 0.35 * crops.var()


def test_a_correction_reads_what_the_first_codes_lack_and_trains_nothing_but_itself_through_it() -> None:
    config = replace(SMALL, correction_widths=(8, 8), correction_blocks=(0, 1))
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda x: np.float32(x + 0.1 * random.normal(size=x.shape)), image_fsq.init(0, config))
    images = random.uniform(-1, 1, (2, 16, 24, 3)).astype(np.float32)
    first = image_fsq.latents({key: params[key] for key in ("encoder", "decoder")}, images, SMALL)
    moved = image_fsq.latents(params, images, config)
    assert np.abs(np.asarray(moved - first)).max() > 0.01
    gradient = jax.grad(lambda p: image_fsq.latents(p, images, config).sum())(params)
    norms = {name: max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(part)) for name, part in gradient.items()}
    assert norms["decoder"] == 0 and norms["correction"] > 0 and norms["encoder"] > 0
    # Another decoder, and so something else missing: the correction is another
    worse = {**params, "decoder": jax.tree.map(lambda x: 0.5 * x, params["decoder"])}
    assert np.abs(np.asarray(image_fsq.latents(worse, images, config) - moved)).max() > 1e-3


def test_a_flat_picture_has_a_closed_form() -> None:
    crops = np.full((4, 8, 8, 3), 0.5, np.float32)
    params = image_fsq.closed_form(image_fsq.init(0, SMALL), crops, SMALL)
    assert all(
        np.isfinite(leaf).all() for leaf in (params["encoder"]["skip"]["kernel"], params["decoder"]["skip"]["bias"])
    )
