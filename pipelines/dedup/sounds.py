"""How a sound goes: which bands rise and fall in its first second (Haitsma and Kalker 2002), and in one further on.

The same recording at another loudness, rate, bit rate or after other silence gives nearly the same bits. The first
second finds what may be the same; recordings that only begin alike (a jingle) are told apart by the one further on: it
begins 1, 2, 4, 8, ... seconds after the first, the last of these that lies in the first half. So it does not move with
the end of a sound, and of two whose lengths lie on both sides of a power of two the shorter one's is compared.
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
# Share of the bits of the second further on, of sounds that begin alike. Measured on 70 recordings of 2 s and more:
# copies at 16 to 48 kbit/s at most 0.31 (those that begin alike: 200 of 210), the nearest two others 0.44 (615 pairs)
MIDDLE_SHARE = 0.35
NEAR_SECONDS = 0.15  # share by which the lengths of two sounds that are the same one may differ

# In samples: the first sound above silence is found a few milliseconds elsewhere in another format.
SHIFTS = tuple(range(-512, 513, 64))
NO_SHIFT = SHIFTS.index(0)

_FRAME = 1024
_HOP = 128
_LEAST = 6  # frames
_MARGIN = 512  # samples before the first sound and after the last
_BANDS = 33
MIDDLE_DTYPE = np.dtype(
    [
        ("step", "i1"),  # it begins 2^step seconds on; -1 where the sound is too short: the first second is half of it
        ("frames", "u1"),  # that are filled
        ("bits", "<u4", (len(SHIFTS), FRAMES)),
        ("frames_before", "u1"),  # the same at 2^(step - 1) seconds, for one with a smaller step
        ("bits_before", "<u4", FRAMES),
    ]
)

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
    loud = _loud(samples)
    bits = _window(samples, loud, 0, shifts)
    return None if bits is None else AudioHash(bits, (loud[-1] - loud[0]) / RATE_HZ)


def audio_middle(samples: np.ndarray) -> np.ndarray:  # float32 [n] at RATE_HZ -> MIDDLE_DTYPE []
    """The bits of a second that begins between a quarter and the half of a sound; none where all of it is silent."""
    found = np.zeros((), MIDDLE_DTYPE)
    loud = _loud(samples)
    length = loud[-1] - loud[0] if len(loud) else 0
    found["step"] = step = max(-1, int(length // (2 * RATE_HZ)).bit_length() - 1)
    if step >= 0 and (bits := _window(samples, loud, RATE_HZ << step, SHIFTS)) is not None:
        found["frames"], found["bits"][:, : bits.shape[1]] = bits.shape[1], bits
    if step >= 1 and (bits := _window(samples, loud, RATE_HZ << (step - 1), (0,))) is not None:
        found["frames_before"], found["bits_before"][: bits.shape[1]] = bits.shape[1], bits[0]
    return found


def _loud(samples: np.ndarray) -> np.ndarray:  # int64 [n]
    """The places of what is above silence."""
    return np.flatnonzero(np.abs(samples) > 0.1 * np.abs(samples).max(initial=0.0))


def _window(samples: np.ndarray, loud: np.ndarray, after: int, shifts: Sequence[int]) -> np.ndarray | None:
    """uint32 [shifts, frames] from `after` samples behind the first of `loud`; None where it is silent or too short."""
    begin = int(loud[0]) + after if len(loud) else 0
    if np.searchsorted(loud, begin) == np.searchsorted(loud, begin + FRAMES * _HOP):
        return None
    padded = np.pad(samples, (2 * _MARGIN, 2 * _MARGIN))
    first, last = begin + _MARGIN, int(loud[-1]) + 3 * _MARGIN
    count = min(FRAMES, (last - first - _FRAME) // _HOP)
    if count < _LEAST:
        return None
    return np.stack([_band_slopes(padded[first + shift :], count) for shift in shifts])


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
        common = np.minimum(frames[a], frames[b]).astype(np.int64)
        ways = [_differing(bits[one], bits[other][:, NO_SHIFT], common) for one, other in ((a, b), (b, a))]
        long = np.maximum(seconds[a], seconds[b])
        alike = np.abs(seconds[a] - seconds[b]) <= NEAR_SECONDS * long
        found[begin : begin + _CHUNK] = np.where(alike, np.minimum(*ways), 1.0)
    return found


def middle_distances(middles: np.ndarray, pairs: Pairs) -> np.ndarray:  # MIDDLE_DTYPE [n] -> float64 [p]
    """Share of the common bits of two sounds' middles that differ, at the best of the shifts; of sounds with steps that
    differ by one at the smaller step. 0 where one has no middle: their first seconds say it all."""
    found = np.zeros(len(pairs[0]))
    for begin in range(0, len(found), _CHUNK):
        a, b = (rows[begin : begin + _CHUNK] for rows in pairs)
        longer = np.where(middles["step"][a] > middles["step"][b], a, b)
        shorter = np.where(longer == a, b, a)
        one, other = middles[shorter], middles[longer]
        same = (one["step"] == other["step"])[:, None]
        still = np.where(same, other["bits"][:, NO_SHIFT], other["bits_before"])
        common = np.minimum(one["frames"], np.where(same[:, 0], other["frames"], other["frames_before"])).astype(
            np.int64
        )
        ways = [_differing(one["bits"], still, common)]
        ways.append(np.where(same[:, 0], _differing(other["bits"], one["bits"][:, NO_SHIFT], common), 1.0))
        found[begin : begin + _CHUNK] = np.where(common > 0, np.minimum(*ways), 0.0)
    return found


def _differing(shifted: np.ndarray, still: np.ndarray, common: np.ndarray) -> np.ndarray:  # float64 [p]
    """Share of the bits of the first `common` frames that differ, at the best shift; uint32 [p, shifts, FRAMES] and
    [p, FRAMES]."""
    counted = (np.arange(FRAMES) < common[:, None])[:, None]
    differing = np.bitwise_count(shifted ^ still[:, None])
    return ((differing * counted).sum(2) / (32 * np.maximum(common, 1))[:, None]).min(1)


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
