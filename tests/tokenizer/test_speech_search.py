"""The search for better codes of the speech codecs: never farther from the sound, each sound for itself."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from tokenizer.audio import log_mel
from tokenizer.codecs import load_codec
from tokenizer.nets import speech_fsq, speech_search
from tokenizer.nets.speech_fsq import Config
from tokenizer.speech import SpeechFsq

SMALL = Config(width=8, encoder_blocks=(1,), decoder_blocks=(1, 2))
TWO = replace(SMALL, books=2)


def shaken(config: Config) -> dict[str, object]:
    """Weights as after a training: a closed form, every weight a little elsewhere."""
    random = np.random.default_rng(3)
    params = speech_fsq.closed_form(speech_fsq.init(0, config), frames(40), config)
    return jax.tree.map(lambda x: np.float32(x + 0.2 * random.normal(size=x.shape)), params)


def frames(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(-5, 2, (4, count, 80)).astype(np.float32)


def distances(params: dict[str, object], codes: jax.Array, x: np.ndarray, mask: np.ndarray, config: Config):
    decoded = speech_fsq.decode_z(params, speech_fsq.codes_to_z(codes, config), mask, config)[1]
    return (np.abs(np.asarray(decoded) - x).mean(-1) * mask).sum(1)


@pytest.mark.parametrize("config", [SMALL, TWO])
def test_every_round_brings_each_sound_nearer(config: Config) -> None:
    params, x, mask = shaken(config), frames(60), np.ones((4, 60), np.float32)
    mask[1, 41:] = 0
    found = [speech_search.search(params, x, mask, rounds, config) for rounds in range(4)]
    np.testing.assert_array_equal(found[0], speech_fsq.quantize(speech_fsq.latents(params, x, mask, config), config)[1])
    errors = np.stack([distances(params, codes, x, mask, config) for codes in found])
    assert (np.diff(errors, axis=0) < 0).all() and (errors[-1] < 0.97 * errors[0]).all()
    # What lies behind the mask is neither moved nor felt
    np.testing.assert_array_equal(found[-1][1, 41:], found[0][1, 41:])
    alone = speech_search.search(params, x[1:2], mask[1:2], 3, config)
    np.testing.assert_array_equal(alone[0], found[-1][1])


@pytest.mark.parametrize("name", ["speech-melfsq", "speech-melfsq2"])
def test_the_shipped_codecs_search(name: str) -> None:
    plain, searching = load_codec(name), load_codec(f"{name}-search")
    assert isinstance(plain, SpeechFsq) and isinstance(searching, SpeechFsq)
    assert (searching.codebooks, searching.revision) == (plain.codebooks, plain.revision)
    assert len({plain.fingerprint, searching.fingerprint, plain.searching(5).fingerprint}) == 3
    random = np.random.default_rng(0)
    noise = random.normal(size=12_345).astype(np.float32)
    sounds = [np.convolve(noise, random.normal(size=8), "same").astype(np.float32) * 0.05, noise[:700] * 0.01]
    codes = searching.encode_batch(sounds)
    for sound, found in zip(sounds, codes, strict=True):
        np.testing.assert_array_equal(searching.encode(sound).codes, found.codes)
        before, after = (
            np.abs(plain.decode_frames(each) - log_mel(sound)).mean() for each in (plain.encode(sound), found)
        )
        assert after < before
    assert searching.encode(np.zeros(0, np.float32)).codes.shape == (0, len(plain.codebooks))
