"""Video: frames at chosen presentation times, and the sound beside them, in one pass with bounded memory.

The frame for time t is the one on the screen at t: the last whose presentation time is not after it. So a variable
frame rate is right, and a still slide that stays for a minute is seen at each asked time. At most `max_frames` frames
are held. Times and sound count from the beginning of the file's clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.ingest.containers import Patience, open_container, start_seconds
from pipelines.ingest.decode_audio import AudioSink, first_audio
from pipelines.ingest.media import CANNOT_DECODE, EMPTY, NO_TRACK, OVER_LIMIT, Limits, MediaError
from tokenizer.video import sample_times

_EARLY_S = 1e-3  # presentation times are rounded to the container's clock, often milliseconds


@dataclass(frozen=True, eq=False)
class Clip:
    """What came out of a video."""

    frames: np.ndarray  # uint8 [t, H, W, 3]
    times: np.ndarray  # float32 [t] seconds: when each was asked for and on the screen
    duration_s: float
    audio: np.ndarray | None = None  # float32 [n] mono at the asked rate; None: not asked, or there is no track
    audio_start_s: float = 0.0  # where its first sample lies on the clock


@dataclass(frozen=True)
class Probe:
    """What the header says, without decoding."""

    duration_s: float
    width: int  # 0: no video track
    height: int
    has_audio: bool
    audio_start_s: float = 0.0


def probe(medium: bytes | Path, limits: Limits | None = None) -> Probe:
    """Size, duration and tracks of a video or sound file. Raises only MediaError."""
    with open_container(medium, limits or Limits()) as container:
        video, audio = first_video(container), first_audio(container)
        start = 0.0
        if audio is not None and audio.start_time is not None and audio.time_base is not None:
            start = max(0.0, float(audio.start_time * audio.time_base) - start_seconds(container))
        return Probe(
            duration_s=_duration(container),
            width=video.codec_context.width if video is not None else 0,
            height=video.codec_context.height if video is not None else 0,
            has_audio=audio is not None,
            audio_start_s=start,
        )


def decode_video(
    medium: bytes | Path,
    *,
    times: Sequence[float] | None = None,
    fps: float = 1.0,
    max_frames: int = 16,
    size: int | None = None,
    sample_rate_hz: int | None = None,
    limits: Limits | None = None,
) -> Clip:
    """Frames at `times`, or every 1/fps seconds (spread over the whole where that is more than `max_frames`).

    size: the short side frames are reduced to when they are larger. sample_rate_hz: the sound is wanted, at this rate.
    Raises only MediaError.
    """
    limits = limits or Limits()
    with open_container(medium, limits) as container:
        video = first_video(container)
        if video is None:
            raise MediaError(NO_TRACK, "no video track")
        _check_size(video.codec_context, limits)
        duration = _duration(container) or _demuxed_duration(container, video)
        if duration > limits.max_seconds:
            raise MediaError(OVER_LIMIT, f"{duration:.0f} s of video, the limit max_seconds is {limits.max_seconds:g}")
        asked = list(times) if times is not None else sample_times(duration, fps, max_frames)
        zero = start_seconds(container)
        picker, patience = _FramePicker(asked, size, limits, zero), Patience()
        audio = first_audio(container) if sample_rate_hz is not None else None
        sink = AudioSink(sample_rate_hz or 0, limits, zero)
        for packet in container.demux([video] if audio is None else [video, audio]):
            if packet.stream is video or packet.stream.index == video.index:
                if picker.wants_more:
                    for frame in patience.decoded(packet):
                        picker.add(frame)
                elif audio is None:
                    break
            else:
                for frame in patience.decoded(packet):
                    sink.add(frame)
        patience.check(picker.num_frames)
        frames, shown = picker.finish()
        wave = sink.finish() if sink.num_frames else None
        return Clip(frames, shown, duration, wave, sink.start_s)


def first_video(container: Any) -> Any | None:
    """The first video stream that is not a cover picture and has a decoder."""
    for stream in container.streams.video:
        if stream.codec_context is not None and "attached_pic" not in str(stream.disposition):
            return stream
    return None


class _FramePicker:
    """Takes decoded frames in presentation order; keeps for each asked time the one on the screen then."""

    def __init__(self, times: Sequence[float], size: int | None, limits: Limits, zero: float) -> None:
        self.times = sorted(times)
        self.size = size
        self.limits = limits
        self.zero = zero
        self.num_frames = 0
        self._last: Any = None
        self._end = 0.0  # when the last frame seen leaves the screen
        self._frames: list[np.ndarray] = []

    @property
    def wants_more(self) -> bool:
        return len(self._frames) < len(self.times)

    def add(self, frame: Any) -> None:
        """One `av.VideoFrame`."""
        self.num_frames += 1
        if self.num_frames > self.limits.max_frames:
            raise MediaError(OVER_LIMIT, f"more than max_frames = {self.limits.max_frames:,} frames")
        _check_size(frame, self.limits)  # it may change on the way
        now = self._end if frame.time is None else frame.time - self.zero
        self._take_until(now - _EARLY_S)
        self._last = frame
        length = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0
        self._end = now + length

    def finish(self) -> tuple[np.ndarray, np.ndarray]:  # uint8 [t, H, W, 3], float32 [t]
        """The frames and their times; times after the end of the last frame get none."""
        if self._last is None:
            raise MediaError(EMPTY, "no frames in the video track")
        self._take_until(max(self._end, _EARLY_S))
        if not self._frames:
            raise MediaError(CANNOT_DECODE, "no frame at the asked times")
        return np.stack(self._frames), np.array(self.times[: len(self._frames)], np.float32)

    def _take_until(self, end: float) -> None:
        """The frame on the screen serves every asked time before `end`. Times before the first frame get the first."""
        while self._last is not None and self.wants_more and self.times[len(self._frames)] < end:
            shape = self._frames[0].shape if self._frames else None
            self._frames.append(_pixels(self._last, self.size, shape))


def _check_size(pictured: Any, limits: Limits) -> None:
    """Of a frame, or of a decoder that has yet to give one: FFmpeg has looked at the first one's header."""
    width, height = pictured.width, pictured.height
    if width * height > limits.max_pixels:
        raise MediaError(OVER_LIMIT, f"{width} x {height} pixels, the limit max_pixels is {limits.max_pixels:,}")


def _pixels(frame: Any, size: int | None, shape: tuple[int, ...] | None) -> np.ndarray:  # uint8 [H, W, 3]
    """RGB upright with square pixels, reduced to the short side; `shape` where an earlier frame has fixed it."""
    turns = round((getattr(frame, "rotation", 0) or 0) / 90) % 4
    if shape is not None:
        height, width = (shape[1], shape[0]) if turns % 2 else (shape[0], shape[1])
    else:
        ratio = getattr(frame, "sample_aspect_ratio", None)
        ratio = float(ratio) if ratio and 0.25 <= ratio <= 4 else 1.0
        wide, high = frame.width * ratio, float(frame.height)
        scale = min(1.0, size / max(1.0, min(wide, high))) if size else 1.0
        width, height = max(1, round(wide * scale)), max(1, round(high * scale))
    pixels = frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA").to_ndarray()
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def _duration(container: Any) -> float:
    return 0.0 if container.duration is None or container.duration < 0 else container.duration / 1e6


def _demuxed_duration(container: Any, video: Any) -> float:
    """Where the header gives no duration: the end of the last packet. Reads the file once more, decodes nothing."""
    zero, end = start_seconds(container), 0.0
    for packet in container.demux(video):
        if packet.pts is not None and packet.time_base is not None:
            end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base) - zero)
    container.seek(0)
    return end
