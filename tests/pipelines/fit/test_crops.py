"""Crops of recordings, and the losses that sounds made of them are held to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pipelines.fit import sound_loss
from pipelines.fit.crops import Recordings, crops, to_int16
from tests.pipelines.fit.drawn_sounds import babble


@pytest.fixture
def sets() -> list[Recordings]:
    """A set of rising numbers, and one of falling ones; the second never counts."""
    rising = [np.arange(1, 20_001, dtype=np.int16), np.arange(1, 601, dtype=np.int16)]
    return [Recordings.of(1.0, rising), Recordings.of(0.0, [-np.arange(1, 20_001, dtype=np.int16)])]


def test_a_key_gives_one_batch_for_ever(sets: list[Recordings]) -> None:
    first, again, other = (crops(sets, key, 4, 10, 320, 352) for key in ((0, 5), (0, 5), (0, 6)))
    np.testing.assert_array_equal(first[0], again[0])
    assert not np.array_equal(first[0], other[0])


def test_a_crop_stays_inside_one_recording_of_a_set_that_counts(sets: list[Recordings]) -> None:
    sound, mask = crops(sets, (0, 1), 64, 10, 320, 352)
    assert sound.shape == (64, 10 * 320 + 2 * 352) and mask.shape == (64, 10)
    assert np.isfinite(sound).all() and (mask[:, 0] == 1).all()
    clean = sound[np.abs(np.diff(sound, axis=1)).max(1) < 0.5]
    assert len(clean) > 32
    assert (sound.sum(1) > 0).all()  # nothing of the set of weight 0


def test_the_mask_ends_where_a_short_recording_does() -> None:
    short = [Recordings.of(1.0, [np.full(640, 1000, np.int16)])]
    sound, mask = crops(short, (0, 2), 16, 10, 320, 352)
    for row, there in zip(sound, mask, strict=True):
        last = int(there.sum())
        assert 1 <= last <= 4
        if np.count_nonzero(row) < len(row):  # a row without noise
            assert not row[352 + last * 320 :].any()


def test_int16_keeps_full_scale() -> None:
    np.testing.assert_array_equal(to_int16(np.array([-2, -1, 0, 1, 2], np.float32)), [-32767, -32767, 0, 32767, 32767])


def rustle(seed: int) -> np.ndarray:
    """float32 [1, 24000]: noise, in every band, under an envelope that rises and falls."""
    random = np.random.default_rng(seed)
    slow = np.interp(np.arange(24_000), np.arange(0, 24_001, 1_500), random.uniform(0, 1, 17))
    return np.float32(0.3 * slow * random.normal(size=24_000))[None]


@pytest.mark.parametrize("loss", [sound_loss.spectral, sound_loss.envelope])
def test_a_sound_is_no_distance_from_itself_and_some_from_others(loss: object) -> None:
    assert callable(loss)
    sound, other = rustle(0), rustle(1)
    assert float(loss(sound, sound)) < 1e-3
    assert float(loss(other, sound)) > 0.1


def test_loudness_is_no_matter_of_envelopes_but_of_spectra() -> None:
    sound = rustle(0)
    assert float(sound_loss.envelope(0.5 * sound, sound)) < 1e-3
    assert float(sound_loss.spectral(0.5 * sound, sound)) > 0.2


@pytest.mark.parametrize("loss", [sound_loss.spectral, sound_loss.envelope])
def test_gradients_are_finite_in_silence(loss: object) -> None:
    assert callable(loss)
    silence = jnp.zeros((1, 16_000))
    for wanted in (silence, jnp.asarray(babble(0, 1.0)[None])):
        assert np.isfinite(jax.grad(lambda x, wanted=wanted: loss(x, wanted))(silence)).all()
