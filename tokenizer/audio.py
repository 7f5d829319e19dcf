"""The audio front end and the speech codec: mono sound at 16 kHz to 50 codes a second and back.

Sound becomes log-mel frames here (`log_mel`), frames become codes in `tokenizer.nets.melfsq`, and sound comes back by
Griffin and Lim's algorithm (1984) with the momentum of Perraudin et al. (2013). Decoding of files and resampling are
not done here: `pipelines.ingest.decode_audio` does both, with soxr "HQ".
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tokenizer import checkpoints
from tokenizer.codec import Codes, Shape

WEIGHTS = Path(__file__).parent / "weights"

SAMPLE_RATE_HZ = 16_000
HOP = 320  # samples a frame: 20 ms
_WINDOW = 1024  # samples of the Hann window and of the transform
_BANDS = 80
_TOP_HZ = 8_000.0
_SILENCE = 1e-5  # magnitudes below it count as silence
# Raise it when the code that runs the weights changes what comes out
_CODE_VERSION = 1
_PREPROCESSING = {
    "sample_rate_hz": SAMPLE_RATE_HZ,
    "hop": HOP,
    "window": _WINDOW,
    "bands": _BANDS,
    "top_hz": _TOP_HZ,
    "silence": _SILENCE,
    "mel": "slaney, magnitudes",
    "log": "natural",
    "centre": "i * hop + hop / 2",
    "resampler": "soxr HQ",
}

_FRAMES = 256  # of a window that the network runs on: one shape is compiled whatever the clip's length
_ROUNDS = 32  # of Griffin-Lim
_MOMENTUM = 0.99


def log_mel(sound: np.ndarray) -> np.ndarray:
    """float32 [n] at 16 kHz -> float32 [ceil(n / 320), 80]: natural log of mel magnitudes (Slaney's scale and norm).

    Frame i is centred at sample 320 i + 160; silence stands before the beginning and after the end.
    """
    count = -(-len(sound) // HOP)
    if count == 0:
        return np.zeros((0, _BANDS), np.float32)
    magnitudes = np.abs(_stft(sound, count))
    return np.log(np.maximum(magnitudes @ mel_filters().T, _SILENCE)).astype(np.float32)


def griffin_lim(frames: np.ndarray, size: int) -> np.ndarray:
    """log-mel float32 [T, 80] -> float32 [size] in [-1, 1]. The same frames always give the same sound."""
    count = len(frames)
    if count == 0 or size == 0:
        return np.zeros(size, np.float32)
    magnitudes = np.maximum(np.exp(frames.astype(np.float64)) @ _inverse_filters().T, 0.0)
    phases = np.random.default_rng(0).uniform(0, 2 * np.pi, magnitudes.shape)
    angles = np.exp(1j * phases)
    before = np.zeros_like(angles)
    for _ in range(_ROUNDS):
        rebuilt = _stft(_istft(magnitudes * angles, count * HOP), count)
        angles = rebuilt + _MOMENTUM * (rebuilt - before)
        angles /= np.maximum(np.abs(angles), 1e-12)
        before = rebuilt
    return np.clip(_istft(magnitudes * angles, size), -1, 1).astype(np.float32)


@dataclass(frozen=True, eq=False)
class SpeechMelFsq:
    """An audio codec of `tokenizer.nets.melfsq`: one codebook, one code for 20 ms.

    >>> codec = load_codec("speech-melfsq")
    >>> codec.shape((16_000,))
    Shape(T=50, K=1, t=50, h=0, w=0, rate=50.0)
    """

    name: str
    revision: int
    fingerprint: str
    params: Any
    config: Any  # tokenizer.nets.melfsq.Config
    kind: str = "audio"
    exact: bool = False
    sample_rate_hz: int = SAMPLE_RATE_HZ
    rate: float = SAMPLE_RATE_HZ / HOP

    @classmethod
    def load(cls, name: str, revision: int, folder: Path = WEIGHTS) -> SpeechMelFsq:
        """The codec whose weights are `folder/NAME-REVISION.safetensors`."""
        from tokenizer.nets import melfsq

        path = folder / f"{name}-{revision}.safetensors"
        if not path.is_file():
            raise ValueError(f"no weights at {path}")
        settings = checkpoints.read_metadata(path).get("network", {})
        config = melfsq.Config(**{key: tuple(value) for key, value in settings.items()})
        params, _ = checkpoints.load(path, melfsq.shapes(config))
        return cls(
            name, revision, checkpoints.fingerprint(path, _PREPROCESSING, revision, _CODE_VERSION), params, config
        )

    @property
    def codebooks(self) -> tuple[int, ...]:
        return (math.prod(self.config.levels),)

    @property
    def levels(self) -> tuple[int, ...]:
        """Levels of each number of the quantiser: a code's digits, the first the least significant."""
        return tuple(self.config.levels)

    def shape(self, size: tuple[int, ...]) -> Shape:
        """Of a sound of (samples,)."""
        count = -(-size[0] // HOP)
        return Shape(T=count, K=1, t=count, rate=self.rate)

    def encode(self, medium: np.ndarray) -> Codes:
        """float32 [n] mono in [-1, 1] at 16 kHz -> codes int32 [ceil(n / 320), 1]"""
        return self.encode_batch([medium])[0]

    def encode_batch(self, media: Sequence[np.ndarray]) -> list[Codes]:
        """Sounds of any lengths; each gives the codes it gives alone."""
        for sound in media:
            if sound.ndim != 1 or sound.dtype != np.float32:
                raise ValueError(f"a sound is float32 [n], got {sound.dtype} {list(sound.shape)}")
        found = self._run(_functions(self.config)[0], [log_mel(sound) for sound in media], ((), np.int32))
        return [
            Codes(codes.reshape(-1, 1), self.shape(sound.shape), size=(len(sound),))
            for codes, sound in zip(found, media)
        ]

    def decode(self, codes: Codes) -> np.ndarray:
        """codes int32 [T, 1] -> float32 [T * 320] in [-1, 1], or as many samples as `codes.size` says."""
        frames = self.decode_frames(codes)
        return griffin_lim(frames, codes.size[0] if codes.size else len(frames) * HOP)

    def decode_frames(self, codes: Codes) -> np.ndarray:
        """codes int32 [T, 1] -> log-mel float32 [T, 80], before Griffin-Lim."""
        values = codes.codes
        if values.ndim != 2 or values.shape[1] != 1:
            raise ValueError(f"{self.name} decodes codes [T, 1], got {list(values.shape)}")
        if values.size and (values.min() < 0 or values.max() >= self.codebooks[0]):
            raise ValueError(
                f"{self.name} has codes 0 to {self.codebooks[0] - 1}, got {values.min()} to {values.max()}"
            )
        return self._run(_functions(self.config)[1], [values[:, 0]], ((_BANDS,), np.float32))[0]

    def _run(self, function: Any, clips: list[np.ndarray], out: tuple[tuple[int, ...], type]) -> list[np.ndarray]:
        """Apply to clips [T, ...], in windows of one shape with enough context that no seam shows."""
        shape, dtype = out
        results: list[np.ndarray] = [np.zeros((len(clip), *shape), dtype) for clip in clips]
        size = _batch_size()
        windows = [(i, *window) for i, clip in enumerate(clips) for window in _windows(len(clip), self.config.reach)]
        for first in range(0, len(windows), size):
            some = windows[first : first + size]
            batch = np.zeros((size, _FRAMES, *clips[0].shape[1:]), clips[0].dtype)
            mask = np.zeros((size, _FRAMES), np.float32)
            for row, (i, begin, _, _) in enumerate(some):
                part = clips[i][begin : begin + _FRAMES]
                batch[row, : len(part)] = part
                mask[row, : len(part)] = 1
            values = np.asarray(function(self.params, batch, mask))
            for row, (i, begin, start, stop) in enumerate(some):
                results[i][start:stop] = values[row, start - begin : stop - begin]
        return results


def _windows(count: int, context: int) -> Iterator[tuple[int, int, int]]:
    """(first frame of the window, first and last frame to keep of it) over a clip of `count` frames."""
    step = _FRAMES - 2 * context
    for start in range(0, count, step):
        yield max(0, start - context), start, min(start + step, count)


@functools.cache
def _functions(config: Any) -> tuple[Any, Any]:
    import jax

    from tokenizer.nets import melfsq

    return (
        jax.jit(lambda params, frames, mask: melfsq.encode(params, frames, mask, config)),
        jax.jit(lambda params, codes, mask: melfsq.decode(params, codes, mask, config)),
    )


@functools.cache
def _batch_size() -> int:
    """Windows run together: a constant of the backend, so that it never changes a code."""
    import jax

    return 1 if jax.default_backend() == "cpu" else 16


@functools.cache
def _hann() -> np.ndarray:
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_WINDOW) / _WINDOW)


@functools.cache
def mel_filters() -> np.ndarray:
    """float64 [80, 513]: triangles on Slaney's mel scale, each of unit area (as librosa.filters.mel gives)."""
    edges = _mel_to_hz(np.linspace(0.0, _hz_to_mel(np.array(_TOP_HZ)), _BANDS + 2))
    bins = np.arange(_WINDOW // 2 + 1) * SAMPLE_RATE_HZ / _WINDOW
    up = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    down = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    return np.maximum(0, np.minimum(up, down)) * (2.0 / (edges[2:] - edges[:-2]))[:, None]


@functools.cache
def _inverse_filters() -> np.ndarray:
    return np.linalg.pinv(mel_filters())  # float64 [513, 80]


def _hz_to_mel(hz: np.ndarray) -> np.ndarray:
    """Slaney's scale: linear to 1 kHz, then logarithmic."""
    return np.where(hz < 1000, hz * 3 / 200, 15 + 27 * np.log(np.maximum(hz, 1000) / 1000) / np.log(6.4))


def _mel_to_hz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))


_BEFORE = _WINDOW // 2 - HOP // 2  # silence before the first sample, so that frame 0 is centred at sample 160


def _stft(sound: np.ndarray, count: int) -> np.ndarray:
    """[n] -> complex [count, 513]"""
    padded = np.zeros(_BEFORE + count * HOP + _WINDOW)
    padded[_BEFORE : _BEFORE + len(sound)] = sound
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::HOP][:count]
    return np.fft.rfft(frames * _hann(), axis=1)


def _istft(spectrum: np.ndarray, size: int) -> np.ndarray:
    """complex [count, 513] -> [size]: least squares overlap-add."""
    count = len(spectrum)
    frames = np.fft.irfft(spectrum, _WINDOW, axis=1) * _hann()
    total = np.zeros(_BEFORE + count * HOP + _WINDOW)
    weight = np.zeros_like(total)
    square = _hann() ** 2
    for i in range(count):
        total[i * HOP : i * HOP + _WINDOW] += frames[i]
        weight[i * HOP : i * HOP + _WINDOW] += square
    return (total / np.maximum(weight, 1e-3))[_BEFORE : _BEFORE + size]
