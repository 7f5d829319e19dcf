"""Sounds drawn for tests: nothing like speech, but with bands that rise and fall."""

import wave
from pathlib import Path

import numpy as np

RATE_HZ = 16_000


def babble(seed: int, seconds: float) -> np.ndarray:
    """float32 [n]: a few gliding tones under slow envelopes."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    sound = np.zeros(len(time))
    for hz, slow in zip(random.uniform(150, 3000, 8), random.uniform(0.5, 6, 8), strict=True):
        sound += np.sin(2 * np.pi * hz * time + 3 * np.sin(2 * np.pi * slow * time)) * (1 + np.sin(9 * slow * time))
    return (0.3 * sound / np.abs(sound).max()).astype(np.float32)


def write_wav(path: Path, sound: np.ndarray, rate_hz: int = RATE_HZ) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(np.int16(np.clip(sound, -1, 1) * 32767).tobytes())
    return path
