"""Clusters against brute force, whatever the order of rows."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.dedup.clusters import band_pairs, connected, connected_hashes, meeting, near_pairs
from pipelines.dedup.sounds import FRAMES, SHIFTS, AudioHash, audio_distance, distances, sound_pairs
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
