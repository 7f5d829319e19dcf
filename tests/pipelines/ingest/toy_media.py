"""Toy media drawn in code, and helpers that read a source whole."""

from __future__ import annotations

import io
import wave
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.ingest.document import Document, Dropped
from pipelines.ingest.source import Source
from pipelines.ingest.sources import open_source


def png(width: int = 12, height: int = 8, colour: tuple[int, ...] = (200, 30, 60), mode: str = "RGB", **save) -> bytes:
    return encoded(Image.new(mode, (width, height), colour), **save)


def encoded(image: Image.Image, format: str = "PNG", **save) -> bytes:
    out = io.BytesIO()
    image.save(out, format=format, **save)
    return out.getvalue()


def sine(seconds: float = 0.5, rate: int = 16000, hz: float = 440.0) -> np.ndarray:  # float32 [n]
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def wav(samples: np.ndarray, rate: int = 16000, channels: int = 1) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return out.getvalue()


def movie(path: Path, shown_ms: Sequence[int], size: tuple[int, int] = (64, 48), sound_s: float = 0.0) -> Path:
    """A video whose frame i is gray 20 + 40 (i mod 6), shown from shown_ms[i] on; the last one for 40 ms."""
    import av

    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        video.bit_rate = 2_000_000
        video.time_base = video.codec_context.time_base = Fraction(1, 1000)
        sound = container.add_stream("aac", rate=16000) if sound_s else None
        for i, start in enumerate(shown_ms):
            frame = av.VideoFrame.from_ndarray(
                np.full((size[1], size[0], 3), 20 + 40 * (i % 6), np.uint8), format="rgb24"
            )
            frame.pts, frame.time_base = start, Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if sound is not None:
            samples = av.AudioFrame.from_ndarray(sine(sound_s)[None], format="fltp", layout="mono")
            samples.sample_rate = 16000
            samples.pts, samples.time_base = 0, Fraction(1, 16000)
            container.mux(sound.encode(samples))
            container.mux(sound.encode())
    return path


def write(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def read_all(source: Source) -> tuple[list[Document], list[Dropped]]:
    """(documents, what was dropped while reading)."""
    found = [one for input in source.inputs() for one in source.read(input)]
    return [d for d in found if isinstance(d, Document)], [d for d in found if isinstance(d, Dropped)]


def read_folder(format: str, root: Path, files: dict[str, str | bytes], **options):
    """(documents, dropped, leftovers) of a folder of these files."""
    source = open_source("toy", format, write(root, files), options)
    return *read_all(source), source.leftovers()


def texts(document: Document) -> list[str]:
    return [part.text for part in document.parts if part.kind == "text"]
