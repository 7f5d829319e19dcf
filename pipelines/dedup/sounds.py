"""How a sound goes: which bands rise and fall in its first second (Haitsma and Kalker 2002).

The same recording at another loudness, rate, bit rate or after other silence gives nearly the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.dedup.clusters import Pairs, meeting

RATE_HZ = 8000  # that `audio_bits` wants
FRAMES = 64
# Share of the bits. Measured on 54 telephone prompts against 527 to 568 of each other language: copies in another
# format at most 0.09 (49 found; the others are too short), the nearest other prompt 0.26
NEAR_SHARE = 0.25
NEAR_SECONDS = 0.15  # share by which the lengths of two sounds that are the same one may differ

# In samples: the first sound above silence is found a few milliseconds elsewhere in another format.
SHIFTS = tuple(range(-512, 513, 64))
NO_SHIFT = SHIFTS.index(0)

_FRAME = 1024
_HOP = 128
_LEAST = 6  # frames
_MARGIN = 512  # samples before the first sound and after the last
_BANDS = 33
_MEET = 32  # further sounds with an equal frame that each is compared with
_CHUNK = 4096  # pairs compared at once: 4 kB each


@dataclass(frozen=True, eq=False)
class AudioHash:
    """What `audio_distance` compares: 32 bits a frame of 16 ms, at one or several shifts, and how long the sound is."""

    bits: np.ndarray  # uint32 [shifts, frames]
    seconds: float  # from the first to the last sound above silence


def audio_bits(samples: np.ndarray, shifts: Sequence[int] = (0,)) -> AudioHash | None:  # float32 [n] at RATE_HZ
    """Which of 32 neighbouring bands rise against the frame before, one row a shift.

    Taken from the first sound above silence, so that leading silence and loudness do not matter. None for what is
    silent, or shorter than a fifth of a second.
    """
    loud = np.flatnonzero(np.abs(samples) > 0.1 * np.abs(samples).max(initial=0.0))
    if not len(loud):
        return None
    padded = np.pad(samples, (2 * _MARGIN, 2 * _MARGIN))
    first, last = int(loud[0]) + _MARGIN, int(loud[-1]) + 3 * _MARGIN
    count = min(FRAMES, (last - first - _FRAME) // _HOP)
    if count < _LEAST:
        return None
    bits = [_band_slopes(padded[first + shift :], count) for shift in shifts]
    return AudioHash(np.stack(bits), (loud[-1] - loud[0]) / RATE_HZ)


def audio_distance(one: AudioHash, sound: AudioHash) -> float:
    """Share of the common bits that differ, at the best of the shifts of `one`; 1 where one sound is longer than the
    other by 15 %."""
    longer = max(one.seconds, sound.seconds)
    if abs(one.seconds - sound.seconds) > NEAR_SECONDS * longer:
        return 1.0
    count = min(one.bits.shape[1], sound.bits.shape[1])
    differing = np.bitwise_count(one.bits[:, :count] ^ sound.bits[:1, :count])
    return float(differing.mean(1).min() / 32)


def distances(bits: np.ndarray, frames: np.ndarray, seconds: np.ndarray, pairs: Pairs) -> np.ndarray:  # float64 [p]
    """`audio_distance` of pairs, the smaller of both ways around.

    bits: uint32 [n, shifts, FRAMES], all `SHIFTS`; frames: int [n], how many are filled; seconds: [n].
    """
    found = np.ones(len(pairs[0]))
    for begin in range(0, len(found), _CHUNK):
        a, b = (rows[begin : begin + _CHUNK] for rows in pairs)
        common = np.minimum(frames[a], frames[b]).astype(np.int64)[:, None]
        counted = (np.arange(FRAMES) < common)[:, None]  # [p, 1, FRAMES]
        ways = []
        for one, other in ((a, b), (b, a)):
            differing = np.bitwise_count(bits[one] ^ bits[other][:, NO_SHIFT : NO_SHIFT + 1])
            ways.append(((differing * counted).sum(2) / (32 * common)).min(1))
        long = np.maximum(seconds[a], seconds[b])
        alike = np.abs(seconds[a] - seconds[b]) <= NEAR_SECONDS * long
        found[begin : begin + _CHUNK] = np.where(alike, np.minimum(*ways), 1.0)
    return found


def sound_pairs(bits: np.ndarray, frames: np.ndarray, seconds: np.ndarray, share: float) -> Iterator[Pairs]:
    """Sounds whose bits differ by at most `share`, among those that have one frame equal at one of the shifts.

    Which is what bounds the work: at each shift as many numbers are sorted as there are frames, and a frame that many
    sounds share is compared with the next ones only.
    """
    filled = np.arange(FRAMES) < frames[:, None]  # [n, FRAMES]
    rows = np.nonzero(filled)[0]
    still = bits[:, NO_SHIFT][filled]
    for shift in range(bits.shape[1]):
        # A frame once a sound; frames without any rise are of digital silence.
        moved = bits[:, shift][filled]
        keys = np.concatenate([still, moved]).astype(np.uint64) << np.uint64(32) | np.tile(rows, 2).astype(np.uint64)
        keys = np.unique(keys[keys >> np.uint64(32) != 0])
        owner = (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
        candidates = [np.zeros(0, np.uint64)]
        for one, other in meeting(keys >> np.uint64(32), _MEET):
            ends = np.minimum(owner[one], owner[other]), np.maximum(owner[one], owner[other])
            candidates.append(ends[0].astype(np.uint64) << np.uint64(32) | ends[1].astype(np.uint64))
        chosen = np.unique(np.concatenate(candidates))
        pairs = (chosen >> np.uint64(32)).astype(np.int64), (chosen & np.uint64(0xFFFFFFFF)).astype(np.int64)
        near = distances(bits, frames, seconds, pairs) <= share
        yield pairs[0][near], pairs[1][near]  # a run of none too: it says that this goes on


def _band_slopes(samples: np.ndarray, count: int) -> np.ndarray:  # uint32 [count]
    frames = np.lib.stride_tricks.sliding_window_view(samples, _FRAME)[::_HOP][: count + 1]
    power = np.abs(np.fft.rfft(frames * np.hanning(_FRAME), axis=1)) ** 2
    edges = np.geomspace(300, 3000, _BANDS + 1) * _FRAME / RATE_HZ
    bands = np.add.reduceat(power, edges.astype(int), axis=1)[:, :_BANDS]
    slope = np.diff(np.log(bands + 1e-9), axis=1)
    bits = np.diff(slope, axis=0) > 0  # [count, 32]
    return np.packbits(bits, axis=1).view(">u4").ravel().astype(np.uint32)
