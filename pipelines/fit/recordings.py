"""Recordings for training and for audio hashes: what the build's decoder reads, and headerless telephone sounds.

Packages of telephone prompts hold raw G.722 and raw 16-bit samples, which name their format only by their suffix; a
build does not guess at those, so they are read here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

# Suffix -> (ffmpeg's name of the raw format, options that it needs)
RAW: dict[str, tuple[str, dict[str, str]]] = {
    ".g722": ("g722", {}),
    ".sln16": ("s16le", {"sample_rate": "16000", "ch_layout": "mono"}),
}


def read_recording(path: Path, sample_rate_hz: int, max_seconds: float = 3600.0) -> np.ndarray | None:
    """float32 [n] mono in [-1, 1]; None for what does not open, has no sound, or is longer than `max_seconds`."""
    from pipelines.ingest.decode_audio import decode_audio
    from pipelines.ingest.media import Limits, MediaError

    if path.suffix.lower() in RAW:
        return _read_raw(path, sample_rate_hz)
    try:
        return decode_audio(path, sample_rate_hz, Limits(max_seconds=max_seconds))
    except MediaError:
        return None


def _read_raw(path: Path, sample_rate_hz: int) -> np.ndarray | None:
    import av
    import soxr
    from av.error import FFmpegError

    name, options = RAW[path.suffix.lower()]
    try:
        with av.open(str(path), format=name, options=options) as container:
            frames = list(container.decode(audio=0))
    except (FFmpegError, IndexError, ValueError):
        return None
    if not frames:
        return None
    wave = np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames]).astype(np.float32) / 32768
    return soxr.resample(wave, frames[0].sample_rate, sample_rate_hz, quality="HQ")
