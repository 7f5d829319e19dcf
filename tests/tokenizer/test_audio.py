"""The audio front end and the speech codec."""

import wave
from pathlib import Path

import numpy as np
import pytest

from tokenizer.audio import HOP, SAMPLE_RATE_HZ, SpeechMelFsq, _windows, griffin_lim, log_mel, mel_filters
from tokenizer.codec import Codes, Shape
from tokenizer.codecs import load_codec


@pytest.fixture(scope="module")
def codec() -> SpeechMelFsq:
    return load_codec("speech-melfsq@1")


def tone(hz: float, seconds: float) -> np.ndarray:
    time = np.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    return (0.3 * np.sin(2 * np.pi * hz * time)).astype(np.float32)


def test_mel_filters_are_those_of_librosa() -> None:
    import librosa

    wanted = librosa.filters.mel(sr=SAMPLE_RATE_HZ, n_fft=1024, n_mels=80, fmin=0, fmax=8000)
    np.testing.assert_allclose(mel_filters(), wanted, atol=1e-6)


def test_a_tone_is_loudest_in_the_band_that_holds_it() -> None:
    frames = log_mel(tone(1000, 1.0))
    assert frames.shape == (50, 80) and frames.dtype == np.float32
    loudest = int(frames[25].argmax())
    assert abs(mel_filters()[loudest].argmax() * SAMPLE_RATE_HZ / 1024 - 1000) < 60


def test_griffin_lim_gives_the_tone_back_at_its_pitch_and_loudness() -> None:
    sound = griffin_lim(log_mel(tone(700, 1.0)), SAMPLE_RATE_HZ)
    spectrum = np.abs(np.fft.rfft(sound[2000:14000] * np.hanning(12000)))
    assert abs(spectrum.argmax() * SAMPLE_RATE_HZ / 12000 - 700) < 10
    assert 0.1 < np.sqrt((sound**2).mean()) < 0.4


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 700])
def test_windows_cover_every_frame_once(count: int) -> None:
    kept = [frame for _, start, stop in _windows(count, 16) for frame in range(start, stop)]
    assert kept == list(range(count))


@pytest.mark.parametrize("samples", [0, 1, HOP, HOP + 1, 16_000, 100_001])
def test_shape_is_known_without_encoding(codec: SpeechMelFsq, samples: int) -> None:
    sound = tone(440, 7)[:samples]
    codes = codec.encode(sound)
    assert codes.shape == codec.shape((samples,))
    assert codes.codes.shape == (codes.shape.T, 1) and codes.codes.dtype == np.int32
    back = codec.decode(codes)
    assert back.shape == (samples,) and back.dtype == np.float32 and np.abs(back).max(initial=0) <= 1


def test_codes_do_not_depend_on_what_is_encoded_beside_them(codec: SpeechMelFsq) -> None:
    random = np.random.default_rng(0)
    sounds = [
        tone(300 + 200 * i, 0.4 * (i + 1)) + random.normal(0, 0.01, round(6400 * (i + 1))).astype(np.float32)
        for i in range(5)
    ]
    for sound, codes in zip(sounds, codec.encode_batch(sounds)):
        np.testing.assert_array_equal(codes.codes, codec.encode(sound).codes)


def test_a_window_seam_does_not_show(codec: SpeechMelFsq) -> None:
    """A clip of several windows: almost every code near the seam is the one that a shifted window gives.
    (XLA's sums may differ in the last bit between places of a window, so a near tie may flip.)"""
    sound = np.random.default_rng(1).normal(0, 0.05, 20 * SAMPLE_RATE_HZ).astype(np.float32)
    whole = codec.encode(sound).codes[:, 0]
    late = codec.encode(sound[100 * HOP :]).codes[:, 0]
    inside = slice(40, len(late) - 40)
    assert (whole[100:][inside] == late[inside]).mean() > 0.999


def test_codes_outside_the_codebook_are_refused(codec: SpeechMelFsq) -> None:
    with pytest.raises(ValueError, match="codes 0 to 15359"):
        codec.decode(Codes(np.array([[15_360]], np.int32), Shape(1, 1)))


def test_a_sound_of_another_dtype_is_refused(codec: SpeechMelFsq) -> None:
    with pytest.raises(ValueError, match="float32"):
        codec.encode(np.zeros(100, np.int16))


def test_the_shipped_weights_fit_the_network_that_runs_them(codec: SpeechMelFsq, root: Path) -> None:
    """Shapes alone would not tell weights of another normalisation: those decode to near silence (L1 of 4 and more)."""
    with wave.open(str(root / "examples/media/speech/cards/005.wav")) as file:
        assert file.getframerate() == SAMPLE_RATE_HZ
        sound = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
    frames = codec.decode_frames(codec.encode(sound))
    assert np.abs(frames - log_mel(sound)).mean() < 0.7
