"""Sound: the audio track of any container PyAV reads -> float32 [n] mono in [-1, 1] at the codec's rate.

Channels are averaged; the rate is changed by soxr "HQ" in a stream, so memory is bounded by the result. The same file
gives the same samples whatever it is decoded beside.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipelines.ingest.containers import Patience, open_container, start_seconds
from pipelines.ingest.media import EMPTY, NO_TRACK, OVER_LIMIT, Limits, MediaError, opened
from pipelines.ingest.plain_wave import plain_wave

_RESAMPLER = "HQ"  # soxr's quality; named in the codecs' fingerprints, so do not change it

# Holes in a track longer than this are filled with silence, so that sound stays on the clock of the picture.
_HOLE_S = 0.1


def decode_audio(medium: bytes | Path, sample_rate_hz: int, limits: Limits | None = None) -> np.ndarray:  # float32 [n]
    """The first audio track as mono. Raises only MediaError ("no such track" where there is none)."""
    limits = limits or Limits()
    with opened(medium, limits) as file:
        plain = plain_wave(file)
        if plain is not None:
            sink = AudioSink(sample_rate_hz, limits, 0.0)
            for wave in plain[1]:
                sink.add_wave(wave, plain[0])
            return sink.finish()
    with open_container(medium, limits) as container:
        track = first_audio(container)
        if track is None:
            raise MediaError(NO_TRACK, "no audio track")
        sink, patience = AudioSink(sample_rate_hz, limits, start_seconds(container)), Patience()
        for packet in container.demux(track):
            for frame in patience.decoded(packet):
                sink.add(frame)
        patience.check(sink.num_frames)
        return sink.finish()


def first_audio(container: Any) -> Any | None:
    """The first audio stream that has a decoder."""
    return next((stream for stream in container.streams.audio if stream.codec_context is not None), None)


class AudioSink:
    """Takes decoded frames of one track in order and makes mono of them; `start_s` is where the first one begins."""

    def __init__(self, sample_rate_hz: int, limits: Limits, clock_zero_s: float) -> None:
        self.rate = sample_rate_hz
        self.limits = limits
        self.zero = clock_zero_s
        self.start_s = 0.0
        self.num_frames = 0
        self._source_rate = 0
        self._taken = 0  # samples at the source's rate, silence included
        self._resampler: Any = None
        self._chunks: list[np.ndarray] = []

    def add(self, frame: Any) -> None:
        """One `av.AudioFrame`."""
        import soxr

        wave = mono(frame)
        if not len(wave):
            return
        if not self.num_frames:
            self.start_s = max(0.0, (frame.time or 0.0) - self.zero)
            self._begin(frame.sample_rate)
        elif frame.sample_rate != self._source_rate:
            # A stream that changes its rate midway: bring this frame to the first one's.
            wave = soxr.resample(wave, frame.sample_rate, self._source_rate, quality=_RESAMPLER)
        self.num_frames += 1
        self._fill_hole(frame)
        self._put(wave)

    def add_wave(self, wave: np.ndarray, rate: int) -> None:
        """Samples float32 [n] that follow those before, all at one rate."""
        if not self.num_frames:
            self._begin(rate)
        self.num_frames += 1
        self._put(wave)

    def finish(self) -> np.ndarray:  # float32 [n]
        """All samples so far. Raises MediaError where there are none."""
        if self._resampler is not None:
            self._chunks.append(self._resampler.resample_chunk(np.zeros(0, np.float32), last=True))
        wave = np.concatenate(self._chunks) if self._chunks else np.zeros(0, np.float32)
        if not len(wave):
            raise MediaError(EMPTY, "no samples in the audio track")
        if np.isnan(wave.sum()):  # of a file whose samples are floats; infinities of both signs, too
            wave = np.nan_to_num(wave, nan=0.0, posinf=1.0, neginf=-1.0)
        return np.clip(wave, -1.0, 1.0)

    def _begin(self, rate: int) -> None:
        import soxr

        self._source_rate = rate
        if rate != self.rate:
            self._resampler = soxr.ResampleStream(rate, self.rate, 1, "float32", quality=_RESAMPLER)

    def _fill_hole(self, frame: Any) -> None:
        if frame.time is None or not self._taken:
            return
        hole = (frame.time - self.zero - self.start_s) - self._taken / self._source_rate
        if hole <= _HOLE_S:
            return
        if hole + self._taken / self._source_rate > self.limits.max_seconds:
            raise MediaError(OVER_LIMIT, self._over())
        self._put(np.zeros(round(hole * self._source_rate), np.float32))

    def _put(self, wave: np.ndarray) -> None:
        self._taken += len(wave)
        if self._taken > self.limits.max_seconds * self._source_rate:
            raise MediaError(OVER_LIMIT, self._over())
        self._chunks.append(wave if self._resampler is None else self._resampler.resample_chunk(wave))

    def _over(self) -> str:
        return f"sound longer than max_seconds = {self.limits.max_seconds:g}"


def mono(frame: Any) -> np.ndarray:  # float32 [n]
    """The mean of a frame's channels, scaled to [-1, 1] from any sample format."""
    samples = frame.to_ndarray()
    channels = max(1, len(frame.layout.channels))
    if not frame.format.is_planar:
        samples = samples.reshape(-1, channels).T
    if samples.dtype.kind == "f":
        return samples.mean(axis=0, dtype=np.float32)
    middle = 128.0 if samples.dtype == np.uint8 else 0.0
    scale = 128.0 if samples.dtype == np.uint8 else float(-np.iinfo(samples.dtype).min)
    return ((samples.mean(axis=0, dtype=np.float64) - middle) / scale).astype(np.float32)
