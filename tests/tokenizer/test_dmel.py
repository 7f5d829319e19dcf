"""dMel: levels of log-mel frames, exact from codes to frames and back, and sound that is recognisable."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenizer.audio import log_mel
from tokenizer.codec import Codes, Shape
from tokenizer.codecs import load_codec
from tokenizer.dmel import HIGH, LOW, Dmel, encode_frames

# Of frame 4 of a rattle
GOLDEN = [
    11, 11, 12, 12, 12, 11, 11, 12, 12, 12, 12, 12, 11, 11, 11, 11, 10, 11, 12, 12, 12, 12, 12, 11, 11, 11,
    10, 11, 12, 11, 11, 11, 11, 11, 11, 11, 12, 11, 12, 12, 11, 11, 11, 11, 11, 11, 12, 12, 11, 11, 11, 12,
    11, 11, 12, 11, 11, 11, 11, 11, 11, 12, 11, 11, 11, 11, 11, 12, 11, 11, 11, 11, 11, 11, 11, 11, 11, 11,
    11, 11,
]  # fmt: skip


def chirp(samples: int = 16_000) -> np.ndarray:
    seconds = np.arange(samples) / 16_000
    return np.float32(0.4 * np.sin(2 * np.pi * (300 + 900 * seconds) * seconds))


@given(st.integers(0, 3), st.integers(0, 2**32))
def test_codes_to_frames_and_back_is_exact(count: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 16, (count, 80), np.int32)
    frames = Dmel().decode_frames(Codes(codes, Shape(count, 80, count)))
    assert frames.dtype == np.float32 and frames.shape == (count, 80)
    np.testing.assert_array_equal(encode_frames(frames), codes)


def test_every_level_comes_back() -> None:
    codes = np.repeat(np.arange(16, dtype=np.int32)[:, None], 80, 1)
    frames = Dmel().decode_frames(Codes(codes, Shape(16, 80, 16)))
    assert np.ptp(np.diff(frames[:, 0])) < 1e-6 and frames.min() > LOW and frames.max() < HIGH
    np.testing.assert_array_equal(encode_frames(frames), codes)


def test_a_frame_is_off_by_half_a_level_at_the_most() -> None:
    codec, frames = Dmel(), log_mel(chirp())
    off = np.abs(codec.decode_frames(codec.encode(chirp())) - frames)
    assert off.max() <= (HIGH - LOW) / 32 + 1e-5


def test_what_is_outside_the_range_gets_the_nearest_level() -> None:
    assert encode_frames(np.array([[-99.0, LOW, HIGH, 99.0]], np.float32)).tolist() == [[0, 0, 15, 15]]


def test_sound_comes_back_and_silence_stays_silent() -> None:
    codec = load_codec("dmel")
    back = codec.decode(codec.encode(chirp()))
    assert back.shape == (16_000,) and np.abs(log_mel(back) - log_mel(chirp())).mean() < 0.6
    silent = codec.decode(codec.encode(np.zeros(8_000, np.float32)))
    assert np.abs(silent).max() < 1e-3


def test_the_codes_of_a_sound_stay_what_they_are() -> None:
    """Where this fails, what comes out of the codec has changed, and its `_CODE_VERSION` must say so. Values at the
    edge of a level, which fall to one side of it or the other, are not looked at."""
    rattle = np.float32((np.arange(3_000) ** 2 % 1009) / 1009 - 0.5)
    place = (log_mel(rattle)[4].astype(np.float64) - LOW) / ((HIGH - LOW) / 16)
    sure = np.abs(place - np.round(place)) > 1e-3
    assert sure.sum() > 75
    np.testing.assert_array_equal(Dmel().encode(rattle).codes[4, sure], np.array(GOLDEN)[sure])


@pytest.mark.parametrize(
    ("codes", "words"),
    [(np.zeros((3, 79), np.int32), r"codes \[T, 80\], got \[3, 79\]"), (np.full((1, 80), 16, np.int32), "0 to 15")],
)
def test_codes_of_another_shape_or_size_are_refused(codes: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Dmel().decode(Codes(codes, Shape(*codes.shape)))


def test_a_sound_of_another_type_is_refused() -> None:
    with pytest.raises(ValueError, match=r"float32 \[n\], got float64"):
        Dmel().encode(np.zeros(10))
