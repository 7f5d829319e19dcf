"""Clusters against brute force, whatever the order of rows."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.dedup.clusters import band_pairs, connected, connected_hashes, meeting, near_pairs
from pipelines.dedup.sign import SOUND_DTYPE, sound_row
from pipelines.dedup.sounds import (
    FRAMES,
    MIDDLE_DTYPE,
    MIDDLE_SHARE,
    RATE_HZ,
    SHIFTS,
    AudioHash,
    audio_bits,
    audio_distance,
    audio_middle,
    distances,
    middle_distances,
    sound_pairs,
)
from pipelines.dedup.words import BANDS, NUM_HASHES, ROWS


def brute(count: int, together: set[tuple[int, int]]) -> list[int]:
    """The smallest row each is connected with, by walking."""
    names = list(range(count))
    while True:
        before = list(names)
        for a, b in together:
            names[a] = names[b] = min(names[a], names[b])
        if names == before:
            return names


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=40), st.integers(1, 7))
def test_connected_is_what_walking_finds(pairs: list[tuple[int, int]], run: int) -> None:
    array = np.array(pairs, np.int64).reshape(-1, 2)
    runs = [(part[:, 0], part[:, 1]) for part in (array[i : i + run] for i in range(0, len(array), run))]
    assert connected(20, runs).tolist() == brute(20, set(pairs))


@given(st.lists(st.integers(0, 4), max_size=30), st.integers(0, 3))
def test_meeting_finds_all_pairs_or_the_next_ones(keys: list[int], most: int) -> None:
    found = [set(zip(a.tolist(), b.tolist())) for a, b in meeting(np.array(keys, np.uint64), most)]
    rows: dict[int, list[int]] = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    expected = {
        (same[i], same[j])
        for same in rows.values()
        for i, j in itertools.combinations(range(len(same)), 2)
        if not most or j - i <= most
    }
    assert set().union(*found) == expected if found else not expected


signatures = st.lists(st.lists(st.integers(0, 1), min_size=BANDS, max_size=BANDS), min_size=1, max_size=12)


@given(signatures, st.integers(1, 11), st.randoms())
def test_texts_are_together_where_a_band_is_equal(bands: list[list[int]], cut: int, draw: object) -> None:
    # A band of value 0 is drawn anew for each text, a band of value 1 is everybody's.
    rows = np.arange(len(bands) * NUM_HASHES, dtype=np.uint32).reshape(len(bands), NUM_HASHES) + 1000
    for i, row in enumerate(bands):
        for band in np.flatnonzero(row):
            rows[i, band * ROWS : (band + 1) * ROWS] = band
    words = np.array([sum(row) % 5 != 4 for row in bands])
    together = {
        (i, j)
        for i, j in itertools.combinations(range(len(bands)), 2)
        if words[i] and words[j] and any(a and b for a, b in zip(bands[i], bands[j]))
    }
    parts = [rows[:cut], rows[cut:]]  # of two units
    assert connected(len(rows), band_pairs(parts, words)).tolist() == brute(len(rows), together)


def test_one_equal_band_is_enough_whichever_it_is() -> None:
    for band in range(BANDS):
        rows = np.arange(2 * NUM_HASHES, dtype=np.uint32).reshape(2, NUM_HASHES)
        rows[1, band * ROWS : (band + 1) * ROWS] = rows[0, band * ROWS : (band + 1) * ROWS]
        assert connected(2, band_pairs([rows], np.ones(2, bool))).tolist() == [0, 0]
        rows[1, band * ROWS] += 1
        assert connected(2, band_pairs([rows], np.ones(2, bool))).tolist() == [0, 1]


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.sets(st.integers(0, 63), max_size=5)), min_size=1, max_size=25),
    st.integers(0, 8),
)
def test_hashes_are_together_where_few_bits_differ(made: list[tuple[int, set[int]]], bits: int) -> None:
    centres = [0, 2**64 - 1, 0x123456789ABCDEF0, 0x0F0F0F0F0F0F0F0F]
    values = [centres[c] ^ sum(1 << bit for bit in flips) for c, flips in made]
    hashes = np.array(values, np.uint64)
    together = {
        (i, j) for i, j in itertools.combinations(range(len(values)), 2) if (values[i] ^ values[j]).bit_count() <= bits
    }
    assert connected_hashes(hashes, bits).tolist() == brute(len(values), together)
    found = {(min(p), max(p)) for a, b in near_pairs(hashes, bits) for p in zip(a.tolist(), b.tolist())}
    assert found == together


def drawn_sounds(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    frames = draw.integers(6, FRAMES + 1, count).astype(np.uint8)
    bits = draw.integers(0, 2**32, (count, len(SHIFTS), FRAMES), dtype=np.uint32)
    bits[np.arange(FRAMES) >= frames[:, None, None].repeat(len(SHIFTS), 1)] = 0
    return bits, frames, draw.uniform(1, 1.1, count).astype(np.float32)


def test_distances_are_those_of_two_sounds() -> None:
    bits, frames, seconds = drawn_sounds(6, 1)
    a, b = np.array([0, 1, 2, 5]), np.array([3, 4, 1, 0])
    sounds = [AudioHash(bits[i][:, : frames[i]], float(seconds[i])) for i in range(6)]
    still = [AudioHash(bits[i][8:9, : frames[i]], float(seconds[i])) for i in range(6)]
    expected = [min(audio_distance(sounds[i], still[j]), audio_distance(sounds[j], still[i])) for i, j in zip(a, b)]
    assert np.allclose(distances(bits, frames, seconds, (a, b)), expected)
    seconds[5] = 9
    assert distances(bits, frames, seconds, (a, b))[3] == 1


def test_a_sound_meets_its_noisy_shifted_copy_and_no_other() -> None:
    bits, frames, seconds = drawn_sounds(40, 2)
    draw = np.random.default_rng(3)
    frames[:] = FRAMES
    copy = bits[31].copy()
    copy[8] = bits[7][3]  # what lies at another shift there lies at none here, and nothing else is alike
    noise = (draw.random((FRAMES, 32)) < 0.08).astype(np.uint8)
    copy[8] ^= np.packbits(noise, axis=1).view(">u4").ravel().astype(np.uint32)
    bits[31] = copy
    seconds[31] = seconds[7]
    found = [(a.tolist(), b.tolist()) for a, b in sound_pairs(bits, frames, seconds, 0.25) if len(a)]
    assert found and all(pair == ([7], [31]) for pair in found)


def test_it_says_that_it_goes_on_where_nothing_is_near() -> None:
    """All share a piece of their bits and none is near another: long work without a pair."""
    hashes = np.random.default_rng(0).integers(0, 1 << 32, 500, np.uint64) << np.uint64(32)
    told: list[int] = []
    labels = connected_hashes(hashes, 1, lambda: told.append(1))
    assert len(told) > 400 and labels.tolist() == list(range(500))


def voice(seed: int, seconds: float) -> np.ndarray:
    """A sound at 8 kHz that goes like no other, by its seed."""
    draw = np.random.default_rng(seed)
    t = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    tones = zip(draw.uniform(300, 3000, 12), draw.uniform(0.5, 6, 12), strict=True)
    sound = sum(
        np.sin(2 * np.pi * f * t + 3 * np.sin(2 * np.pi * m * t)) * (1 + np.sin(2 * np.pi * 3 * m * t))
        for f, m in tones
    )
    return (sound / np.abs(sound).max()).astype(np.float32)


def middles_of(*sounds: np.ndarray) -> np.ndarray:
    return np.array([audio_middle(sound) for sound in sounds], MIDDLE_DTYPE)


ONE_AND_NEXT = np.array([0]), np.array([1])


@pytest.mark.parametrize("seconds", [4.5, 7.7, 8.4, 16.5, 40.0])
def test_sounds_that_begin_alike_are_two_and_copies_are_one(seconds: float) -> None:
    jingle = voice(1, seconds / 4)
    one, other = (np.concatenate([jingle, voice(seed, seconds * 3 / 4)]) for seed in (2, 3))
    noise = np.random.default_rng(0).normal(0, 0.01, len(one) - len(one) // 20)
    copy = np.concatenate([np.zeros(777), 0.3 * one[: len(noise)] + 0.3 * noise]).astype(np.float32)
    rows = np.array([sound_row(found) for x in (one, other, copy) if (found := audio_bits(x, SHIFTS))], SOUND_DTYPE)
    bits = rows["bits"], rows["frames"], rows["seconds"]
    assert len(rows) == 3 and distances(*bits, ONE_AND_NEXT)[0] < 0.1  # their first seconds are the same
    assert middle_distances(middles_of(one, other), ONE_AND_NEXT)[0] > 0.4 > MIDDLE_SHARE
    for pair in (middles_of(one, copy), middles_of(copy, one)):
        assert middle_distances(pair, ONE_AND_NEXT)[0] < 0.25


def test_lengths_on_both_sides_of_a_power_of_two_are_compared_where_both_go_on() -> None:
    one, other = (np.concatenate([voice(1, 2), voice(seed, 6.4)]) for seed in (2, 3))
    shorter = one[: int(7.6 * RATE_HZ)]
    assert middles_of(one, shorter)["step"].tolist() == [2, 1]
    assert middle_distances(middles_of(one, shorter), ONE_AND_NEXT)[0] == 0
    assert middle_distances(middles_of(shorter, one), ONE_AND_NEXT)[0] == 0
    assert middle_distances(middles_of(shorter, other), ONE_AND_NEXT)[0] > 0.4


def test_short_sounds_and_silent_middles_are_told_by_their_first_second() -> None:
    short = voice(1, 1.9)
    silent = np.concatenate([voice(1, 2), np.zeros(2 * RATE_HZ, np.float32), voice(2, 4)])
    assert middles_of(short, silent)["frames"].tolist() == [0, 0]
    assert middle_distances(middles_of(short, silent), ONE_AND_NEXT)[0] == 0
