"""Random crops of recordings for training a speech codec: the same for the same (seed, step).

Recordings stay in memory as int16 at the codec's rate (115 MB an hour). A crop is a few frames with the samples around
them, at another loudness, sometimes at another speed (and so pitch), sometimes under noise: voices that were never
heard come out better for it. Nothing else is done to the sound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_GAIN = (-0.35, 0.2)  # powers of ten
_SPEED = (0.85, 1.15)
_SPEED_SHARE = 0.3  # of the crops
_NOISE = (-4.5, -2.3)  # powers of ten: its standard deviation
_NOISE_SHARE = 0.05


@dataclass(frozen=True, eq=False)
class Recordings:
    """One set of recordings, end to end."""

    weight: float  # how often a crop comes from this set
    samples: np.ndarray  # int16 [n]
    ends: np.ndarray  # int64 [recordings + 1]: where each begins, and n

    @classmethod
    def of(cls, weight: float, sounds: Sequence[np.ndarray]) -> Recordings:
        """sounds: int16 [n] each"""
        return cls(weight, np.concatenate(sounds), np.cumsum([0, *(len(sound) for sound in sounds)]))


def to_int16(sound: np.ndarray) -> np.ndarray:
    """float32 [n] in [-1, 1] -> int16 [n]"""
    return (np.clip(sound, -1, 1) * 32767).astype(np.int16)


def crops(
    sets: Sequence[Recordings], key: tuple[int, int], size: int, frames: int, hop: int, edge: int
) -> tuple[np.ndarray, np.ndarray]:
    """(sound float32 [size, edge + hop * frames + edge], mask float32 [size, frames] of the frames that are there).

    `key` is (seed, step). Silence stands where a recording ends inside the crop.
    """
    random = np.random.default_rng(key)
    shares = np.array([one.weight for one in sets], np.float64)
    shares /= shares.sum()
    sound = np.zeros((size, hop * frames + 2 * edge), np.float32)
    mask = np.zeros((size, frames), np.float32)
    for row in range(size):
        one = sets[int(random.choice(len(sets), p=shares))]
        sound[row], samples = _crop(one, random, sound.shape[1], edge)
        mask[row, : max(1, -(-(samples - edge) // hop))] = 1
    return sound, mask


def _crop(one: Recordings, random: np.random.Generator, need: int, edge: int) -> tuple[np.ndarray, int]:
    """(float32 [need], how many samples from the beginning on lie before the recording's end)"""
    place = int(random.integers(one.ends[-1]))  # a long recording comes more often
    which = int(np.searchsorted(one.ends, place, "right")) - 1
    first, last = int(one.ends[which]), int(one.ends[which + 1])
    speed = float(random.uniform(*_SPEED)) if random.random() < _SPEED_SHARE else 1.0
    length = int(need * speed) + 2
    start = int(random.integers(first - edge, max(first - edge + 1, last + edge - length + 1)))
    begin, end = max(start, first), min(start + length, last)
    part = np.zeros(length, np.float32)
    part[begin - start : end - start] = one.samples[begin:end]
    if speed != 1.0:
        part = np.interp(np.arange(need) * speed, np.arange(length), part).astype(np.float32)
    part = part[:need] * np.float32(10 ** random.uniform(*_GAIN) / 32768)
    if random.random() < _NOISE_SHARE:
        part += random.normal(0, 10 ** random.uniform(*_NOISE), need).astype(np.float32)
    return part, int((end - start) / speed)
