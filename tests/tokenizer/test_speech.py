"""The speech codecs with a learned head: lengths, windows, bad input, and weights that are not theirs."""

import json
import shutil
import wave
from pathlib import Path

import numpy as np
import pytest

from tokenizer import checkpoints
from tokenizer.audio import HOP, SAMPLE_RATE_HZ, WEIGHTS, log_mel
from tokenizer.codec import Codes, Shape
from tokenizer.codecs import load_codec
from tokenizer.speech import _FRAMES, SpeechFsq, _windows


@pytest.fixture(scope="module", params=["speech-melfsq", "speech-melfsq2"])
def codec(request: pytest.FixtureRequest) -> SpeechFsq:
    codec = load_codec(request.param)
    assert isinstance(codec, SpeechFsq)
    return codec


@pytest.fixture(scope="module")
def speech(root: Path) -> np.ndarray:
    with wave.open(str(root / "examples/media/speech/cards/005.wav")) as file:
        assert file.getframerate() == SAMPLE_RATE_HZ
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768


@pytest.mark.parametrize("samples", [0, 1, HOP, HOP + 1, 16_000, 100_001])
def test_shape_is_known_without_encoding_and_decoding_gives_every_sample(codec: SpeechFsq, samples: int) -> None:
    sound = np.random.default_rng(0).normal(0, 0.1, samples).astype(np.float32)
    codes = codec.encode(sound)
    assert codes.shape == codec.shape((samples,))
    assert codes.codes.shape == (codes.shape.T, codes.shape.K) and codes.codes.dtype == np.int32
    back = codec.decode(codes)
    assert back.shape == (samples,) and back.dtype == np.float32
    assert np.isfinite(back).all() and np.abs(back).max(initial=0) <= 1


def test_silence_comes_back_quiet(codec: SpeechFsq) -> None:
    back = codec.decode(codec.encode(np.zeros(SAMPLE_RATE_HZ, np.float32)))
    assert np.abs(back).max() < 0.01


def test_noise_at_full_scale_stays_in_range(codec: SpeechFsq) -> None:
    loud = np.sign(np.random.default_rng(0).normal(size=SAMPLE_RATE_HZ)).astype(np.float32)
    back = codec.decode(codec.encode(loud))
    assert np.isfinite(back).all() and np.abs(back).max() <= 1


@pytest.mark.parametrize("context", [14, 30])
@pytest.mark.parametrize("count", [0, 1, 2, 255, 256, 257, 700])
def test_windows_cover_every_frame_once_and_begin_with_a_group(codec: SpeechFsq, count: int, context: int) -> None:
    windows = list(_windows(count, context))
    assert [frame for _, start, stop in windows for frame in range(start, stop)] == list(range(count))
    assert all(begin % codec.network.group == 0 and stop - begin <= _FRAMES for begin, _, stop in windows)


def test_a_window_seam_shows_neither_in_codes_nor_in_sound(codec: SpeechFsq) -> None:
    """Eleven seconds take three windows. The same sound a little later has its seams elsewhere: codes and samples away
    from the ends are the same (XLA's sums may differ in the last bit, so a near tie may flip a code)."""
    random = np.random.default_rng(1)
    sound = np.float32(random.normal(0, 0.05, 11 * SAMPLE_RATE_HZ) * np.sin(np.arange(11 * SAMPLE_RATE_HZ) / 3000))
    whole = codec.encode(sound)
    late = codec.encode(sound[100 * HOP :])
    inside = slice(40, len(late.codes) - 40)
    assert (whole.codes[100:][inside] == late.codes[inside]).mean() > 0.999
    first = codec.decode(whole)[100 * HOP :]
    again = codec.decode(Codes(whole.codes[100:], codec.shape((len(first),)), size=(len(first),)))
    inside = slice(40 * HOP, len(first) - 40 * HOP)
    np.testing.assert_allclose(first[inside], again[inside], atol=1e-4)


def test_codes_do_not_depend_on_what_is_encoded_beside_them(codec: SpeechFsq, speech: np.ndarray) -> None:
    sounds = [speech[: 3_000 * (i + 1)] for i in range(4)] + [speech]
    for sound, codes in zip(sounds, codec.encode_batch(sounds), strict=True):
        np.testing.assert_array_equal(codes.codes, codec.encode(sound).codes)


def test_speech_comes_back_like_itself(codec: SpeechFsq, speech: np.ndarray) -> None:
    """Far from the figures of the card, which are of other clips: weights of another network would be far above."""
    codes = codec.encode(speech)
    assert np.abs(codec.decode_frames(codes) - log_mel(speech)).mean() < 0.6
    assert np.abs(log_mel(codec.decode(codes)) - log_mel(speech)).mean() < 0.7


def test_compiled_frames_are_those_of_the_front_end(speech: np.ndarray) -> None:
    from tokenizer.audio import mel_filters
    from tokenizer.nets.speech_fsq import EDGE
    from tokenizer.nets.speech_fsq import log_mel as compiled

    sound = speech[: 50 * HOP]
    found = compiled(np.pad(sound, EDGE)[None], mel_filters().astype(np.float32))[0]
    np.testing.assert_allclose(found, log_mel(sound), atol=1e-3)


def test_codes_of_another_shape_or_outside_the_codebook_are_refused(codec: SpeechFsq) -> None:
    books = codec.network.books
    with pytest.raises(ValueError, match="codes 0 to 15359"):
        codec.decode(Codes(np.full((1, books), 15_360, np.int32), Shape(1, books)))
    with pytest.raises(ValueError, match=rf"decodes codes \[T, {books}\], got \[4, 3\]"):
        codec.decode(Codes(np.zeros((4, 3), np.int32), Shape(4, 3)))


@pytest.mark.parametrize("sound", [np.zeros(100, np.int16), np.zeros((2, 100), np.float32)])
def test_a_sound_of_another_dtype_or_shape_is_refused(codec: SpeechFsq, sound: np.ndarray) -> None:
    with pytest.raises(ValueError, match="float32"):
        codec.encode(sound)


def test_weights_of_another_name_are_refused(codec: SpeechFsq, tmp_path: Path) -> None:
    shutil.copy(WEIGHTS / f"{codec.name}-{codec.revision}.safetensors", tmp_path / "other-3.safetensors")
    with pytest.raises(ValueError, match=rf"other-3.*holds the weights of '{codec.name}@.*not of 'other@3'"):
        SpeechFsq.load("other", 3, tmp_path)


def test_weights_of_another_version_name_the_setting(codec: SpeechFsq, tmp_path: Path) -> None:
    path = tmp_path / f"{codec.name}-{codec.revision}.safetensors"
    params, metadata = checkpoints.load(WEIGHTS / path.name)
    checkpoints.save(path, params, {**metadata, "network": {**metadata["network"], "heads": 4}})
    with pytest.raises(ValueError, match=rf"{path.name}.*'heads'"):
        SpeechFsq.load(codec.name, codec.revision, tmp_path)


def test_weights_of_another_shape_name_the_tensor(codec: SpeechFsq, tmp_path: Path) -> None:
    path = tmp_path / f"{codec.name}-{codec.revision}.safetensors"
    params, metadata = checkpoints.load(WEIGHTS / path.name)
    params["head"]["phase"]["bias"] = params["head"]["phase"]["bias"][:-1]
    checkpoints.save(path, params, metadata)
    with pytest.raises(ValueError, match=rf"{path.name}: tensor 'head.phase.bias' has shape \[641\].*needs \[642\]"):
        SpeechFsq.load(codec.name, codec.revision, tmp_path)


def test_shipped_weights_are_small_and_have_a_card(codec: SpeechFsq) -> None:
    path = WEIGHTS / f"{codec.name}-{codec.revision}.safetensors"
    assert path.stat().st_size <= 4_000_000
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["name"] == f"{codec.name}@{codec.revision}"
    assert not any("ru" in name for name in (data["name"].rsplit("-", 1)[-1] for data in card["data"]))


@pytest.mark.slow
def test_an_hour_takes_little_memory_beyond_itself(codec: SpeechFsq) -> None:
    import tracemalloc

    hour = np.float32(0.1 * np.sin(np.arange(3600 * SAMPLE_RATE_HZ, dtype=np.float32) / 20))
    tracemalloc.start()
    codes = codec.encode(hour)
    back = codec.decode(codes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert back.shape == hour.shape
    assert peak < back.nbytes + 50_000_000
