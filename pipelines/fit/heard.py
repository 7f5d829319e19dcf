"""What a codec gives back of a sound: any codec of ours or others', and two references to hold them against.

`opus-6` is Opus at 6 kbit/s (any number of kbit/s), through libopus as a call would use it; `griffin-lim` leaves the
log-mel frames uncompressed and makes sound of them by the algorithm alone, which bounds every codec that ends in it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmdata.errors import UserError
from tokenizer.audio import SAMPLE_RATE_HZ, griffin_lim, log_mel
from tokenizer.codecs import open_codec

_OPUS = re.compile(r"opus-(\d+(?:\.\d+)?)")
_GRIFFIN_LIM = "griffin-lim"
_OPUS_FRAME_MS = 60


@dataclass(frozen=True, eq=False)
class Heard:
    """A sound after a codec."""

    sound: np.ndarray  # float32 [n] at 16 kHz, as long as the original
    bits: float  # nan where nothing was compressed
    frames: np.ndarray | None = None  # log-mel float32 [T, 80] that the codes stand for, where the codec has such


Coder = Callable[[np.ndarray], Heard]  # float32 [n] at 16 kHz ->


def coder(name: str | Any) -> Coder:
    """The coder of a codec's name or file, of `opus-N`, of `griffin-lim`, or of an object that is a codec."""
    if not isinstance(name, str):
        return lambda sound: _of_codec(name, sound)
    if name == _GRIFFIN_LIM:
        return _griffin_lim
    if match := _OPUS.fullmatch(name):
        rate = round(1000 * float(match[1]))
        return lambda sound: opus(sound, rate)
    codec = open_codec(name)
    if codec.kind != "audio":
        raise UserError(f"{name} is a codec of {codec.kind}; name an audio codec, opus-6 or {_GRIFFIN_LIM}")
    return lambda sound: _of_codec(codec, sound)


def opus(sound: np.ndarray, bit_rate: int) -> Heard:
    """float32 [n] at 16 kHz through libopus (speech mode, variable rate, 60 ms frames); its delay is taken away."""
    import av

    pcm = (np.clip(sound, -1, 1) * 32767).astype(np.int16)
    buffer = io.BytesIO()
    count = 0
    with av.open(buffer, "w", format="ogg") as container:
        options = {"application": "voip", "frame_duration": str(_OPUS_FRAME_MS), "vbr": "on"}
        stream: Any = container.add_stream("libopus", rate=SAMPLE_RATE_HZ, layout="mono", options=options)
        stream.bit_rate = bit_rate
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE_HZ
        for packet in (*stream.encode(frame), *stream.encode(None)):
            count += packet.size
            container.mux(packet)
    buffer.seek(0)
    return Heard(_fit(_read(buffer), len(sound)), 8.0 * count)


def _read(buffer: io.BytesIO) -> np.ndarray:
    import av
    import soxr

    with av.open(buffer, "r") as container:
        parts = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
        rate = container.streams.audio[0].rate
    return soxr.resample(np.concatenate(parts).astype(np.float32), rate, SAMPLE_RATE_HZ, quality="HQ")


def _griffin_lim(sound: np.ndarray) -> Heard:
    frames = log_mel(sound)
    return Heard(griffin_lim(frames, len(sound)), float("nan"), frames)


def _of_codec(codec: Any, sound: np.ndarray) -> Heard:
    """A codec at another rate hears the sound resampled, and is heard resampled."""
    import soxr

    other = codec.sample_rate_hz != SAMPLE_RATE_HZ
    given = soxr.resample(sound, SAMPLE_RATE_HZ, codec.sample_rate_hz, quality="HQ") if other else sound
    codes = codec.encode(given)
    back = codec.decode(codes)
    if other:
        back = soxr.resample(back, codec.sample_rate_hz, SAMPLE_RATE_HZ, quality="HQ")
    bits = len(codes.codes) * float(np.log2(codec.codebooks).sum())
    frames = codec.decode_frames(codes) if hasattr(codec, "decode_frames") else None
    return Heard(_fit(back, len(sound)), bits, frames)


def _fit(sound: np.ndarray, size: int) -> np.ndarray:
    return np.pad(sound[:size], (0, max(0, size - len(sound)))).astype(np.float32)
