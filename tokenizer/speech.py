"""The speech codecs with a learned head: mono sound at 16 kHz to 50 frames of one or two codes a second, and back.

`tokenizer.nets.speech_fsq` makes codes of sound and log-mel frames of codes, `tokenizer.nets.sound_head` makes sound of
those. All of it, the transforms too, runs compiled, in windows of one shape with enough context that no seam shows:
memory beyond the sound itself does not grow with its length. Revision 1, which ends in Griffin-Lim, is in
`tokenizer.audio`.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from tokenizer import checkpoints
from tokenizer.audio import HOP, SAMPLE_RATE_HZ, WEIGHTS, mel_filters
from tokenizer.codec import Codes, Shape

# Raise it when the code that runs the weights changes what comes out
_CODE_VERSION = 1
_PREPROCESSING = {
    "sample_rate_hz": SAMPLE_RATE_HZ,
    "hop": HOP,
    "window": 1024,
    "mel": "80 bands to 8 kHz, slaney, magnitudes, natural log, float32",
    "centre": "i * hop + hop / 2",
    "resampler": "soxr HQ",
}
_FRAMES = 256  # of a window that the networks run on: one shape is compiled whatever the clip's length


@dataclass(frozen=True, eq=False)
class SpeechFsq:
    """An audio codec of `tokenizer.nets.speech_fsq`: one or two codes for 20 ms.

    >>> codec = load_codec("speech-melfsq2")
    >>> codec.shape((16_000,))
    Shape(T=50, K=2, t=50, h=0, w=0, rate=50.0)
    """

    name: str
    revision: int
    fingerprint: str
    params: Any  # {"encoder", "decoder", "head"}
    network: Any  # tokenizer.nets.speech_fsq.Config
    head: Any  # tokenizer.nets.sound_head.HeadConfig
    kind: str = "audio"
    exact: bool = False
    sample_rate_hz: int = SAMPLE_RATE_HZ
    rate: float = SAMPLE_RATE_HZ / HOP
    rounds: int = 0  # of the search for better codes, see `searching`

    @classmethod
    def load(cls, name: str, revision: int, folder: Path = WEIGHTS) -> SpeechFsq:
        """The codec whose weights are `folder/NAME-REVISION.safetensors`."""
        import jax

        from tokenizer.nets import sound_head, speech_fsq

        path = folder / f"{name}-{revision}.safetensors"
        if not path.is_file():
            raise ValueError(f"no weights at {path}")
        metadata = checkpoints.read_metadata(path)
        wanted = f"{name}@{revision}"
        if metadata.get("name") != wanted:
            raise ValueError(
                f"{path} holds the weights of {metadata.get('name')!r}, not of {wanted!r}; put those there"
            )
        network = _settings(path, speech_fsq.Config, metadata, "network")
        head = _settings(path, sound_head.HeadConfig, metadata, "head")
        params, _ = checkpoints.load(path, shapes(network, head))
        fingerprint = checkpoints.fingerprint(path, _PREPROCESSING, revision, _CODE_VERSION)
        return cls(name, revision, fingerprint, jax.device_put(params), network, head)

    @property
    def codebooks(self) -> tuple[int, ...]:
        return (math.prod(self.network.levels),) * self.network.books

    @property
    def levels(self) -> tuple[int, ...]:
        """Levels of each number of the quantiser: a code's digits, the first the least significant."""
        return tuple(self.network.levels)

    def searching(self, rounds: int = 4) -> SpeechFsq:
        """The codec that looks for codes which decode nearer to each sound (`speech_search`): a better sound for as
        many codes, and some hundred times the time to encode. It has a name of its own, NAME-search."""
        digest = hashlib.sha256(f"{self.fingerprint} search {rounds}".encode()).hexdigest()
        return replace(self, name=f"{self.name}-search", fingerprint=digest, rounds=rounds)

    def shape(self, size: tuple[int, ...]) -> Shape:
        """Of a sound of (samples,)."""
        count = -(-size[0] // HOP)
        return Shape(T=count, K=self.network.books, t=count, rate=self.rate)

    def encode(self, medium: np.ndarray) -> Codes:
        """float32 [n] mono in [-1, 1] at 16 kHz -> codes int32 [ceil(n / 320), K]"""
        return self.encode_batch([medium])[0]

    def encode_batch(self, media: Sequence[np.ndarray]) -> list[Codes]:
        """Sounds of any lengths; each gives the codes it gives alone."""
        from tokenizer.nets.speech_fsq import EDGE

        for sound in media:
            if sound.ndim != 1 or sound.dtype != np.float32:
                raise ValueError(f"a sound is float32 [n], got {sound.dtype} {list(sound.shape)}")
        shapes = [self.shape(sound.shape) for sound in media]

        def cut(clip: int, begin: int) -> np.ndarray:
            first, count = begin * HOP - EDGE, _FRAMES * HOP + 2 * EDGE
            part = media[clip][max(0, first) : first + count]
            before = max(0, -first)
            return np.pad(part, (before, count - before - len(part)))

        results = [np.zeros((shape.T, shape.K), np.int32) for shape in shapes]
        encode = _search_function(self.network, self.rounds) if self.rounds else _functions(self.network, self.head)[0]
        self._run(encode, cut, results, 1, self.network.encoder_reach)
        return [Codes(codes, shape, size=sound.shape) for codes, shape, sound in zip(results, shapes, media)]

    def decode(self, codes: Codes) -> np.ndarray:
        """codes int32 [T, K] -> float32 [T * 320] in [-1, 1], or as many samples as `codes.size` says."""
        sound = np.zeros(len(self._checked(codes)) * HOP, np.float32)
        reach = self.network.decoder_reach + self.head.reach
        self._run(_functions(self.network, self.head)[2], self._cut_codes(codes), [sound], HOP, reach)
        size = codes.size[0] if codes.size else len(sound)
        return sound[:size] if size <= len(sound) else np.pad(sound, (0, size - len(sound)))

    def decode_frames(self, codes: Codes) -> np.ndarray:
        """codes int32 [T, K] -> log-mel float32 [T, 80], before the head."""
        frames = np.zeros((len(self._checked(codes)), self.network.bands), np.float32)
        reach = self.network.decoder_reach
        self._run(_functions(self.network, self.head)[1], self._cut_codes(codes), [frames], 1, reach)
        return frames

    def _checked(self, codes: Codes) -> np.ndarray:
        values, books = codes.codes, self.network.books
        if values.ndim != 2 or values.shape[1] != books:
            raise ValueError(f"{self.name} decodes codes [T, {books}], got {list(values.shape)}")
        last = self.codebooks[0] - 1
        if values.size and (values.min() < 0 or values.max() > last):
            raise ValueError(f"{self.name} has codes 0 to {last}, got {values.min()} to {values.max()}")
        return values

    def _cut_codes(self, codes: Codes) -> Callable[[int, int], np.ndarray]:
        def cut(_: int, begin: int) -> np.ndarray:
            part = codes.codes[begin : begin + _FRAMES].astype(np.int32)
            return np.pad(part, ((0, _FRAMES - len(part)), (0, 0)))

        return cut

    def _run(
        self, function: Any, cut: Callable[[int, int], np.ndarray], results: list[np.ndarray], unit: int, reach: int
    ) -> None:
        """Fill `results`, `unit` rows a frame, from windows: `cut(clip, first frame)` is the input of one, `reach` the
        frames each side that a frame depends on."""
        counts = [len(result) // unit for result in results]
        # A whole number of groups, as windows begin with a group
        context = -(-reach // self.network.group) * self.network.group
        windows = [(i, *window) for i, count in enumerate(counts) for window in _windows(count, context)]
        size = _batch_size()
        for first in range(0, len(windows), size):
            some = windows[first : first + size]
            inputs = [cut(i, begin) for i, begin, _, _ in some]
            batch = np.stack(inputs + [np.zeros_like(inputs[0])] * (size - len(some)))
            mask = np.zeros((size, _FRAMES), np.float32)
            for row, (i, begin, _, _) in enumerate(some):
                mask[row, : max(0, counts[i] - begin)] = 1
            values = np.asarray(function(self.params, batch, mask))
            for row, (i, begin, start, stop) in enumerate(some):
                results[i][start * unit : stop * unit] = values[row, (start - begin) * unit : (stop - begin) * unit]


def save(path: Path, params: Any, name: str, network: Any, head: Any) -> None:
    """Write what `SpeechFsq.load` reads. name: with revision, "speech-melfsq@2"."""
    checkpoints.save(path, params, {"name": name, "network": asdict(network), "head": asdict(head)})


def shapes(network: Any, head: Any) -> dict[str, Any]:
    """The tree of shapes that a checkpoint must have."""
    from tokenizer.nets import sound_head, speech_fsq

    tree = {**speech_fsq.init(0, network), "head": sound_head.init(0, mel_filters(), head)}
    return checkpoints.unflatten({name: array.shape for name, array in checkpoints.flatten(tree).items()})


def _settings(path: Path, kind: type[Any], metadata: dict[str, Any], key: str) -> Any:
    values = metadata.get(key, {})
    known = {field.name for field in fields(kind)}
    # A file that is older than these settings has no such part
    if set(values) | {"correction_width", "correction_blocks"} & known != known:
        raise ValueError(
            f"{path}: its {key} has the settings {sorted(values)}, this version reads {sorted(known)};"
            " use the version of mmdata that the weights came with"
        )
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _windows(count: int, context: int) -> Iterator[tuple[int, int, int]]:
    """(first frame of the window, first and last frame to keep of it) over a clip of `count` frames."""
    step = _FRAMES - 2 * context
    for start in range(0, count, step):
        yield max(0, start - context), start, min(start + step, count)


@functools.cache
def _functions(network: Any, head: Any) -> tuple[Any, Any, Any]:
    """(sound -> codes, codes -> frames, codes -> sound), compiled"""
    import jax
    import jax.numpy as jnp

    from tokenizer.nets import sound_head, speech_fsq

    filters: Any = mel_filters().astype(np.float32)

    def encode(params: Any, sound: Any, mask: Any) -> Any:
        z = speech_fsq.latents(params, speech_fsq.log_mel(sound, filters), mask, network)
        return speech_fsq.quantize(z, network)[1]

    def frames(params: Any, codes: Any, mask: Any) -> Any:
        return speech_fsq.decode_z(params, speech_fsq.codes_to_z(codes, network), mask, network)[1]

    def sound(params: Any, codes: Any, mask: Any) -> Any:
        hidden, mel = speech_fsq.decode_z(params, speech_fsq.codes_to_z(codes, network), mask, network)
        return jnp.clip(sound_head.sound(params["head"], hidden, mel, mask, head), -1, 1)

    return jax.jit(encode), jax.jit(frames), jax.jit(sound)


@functools.cache
def _search_function(network: Any, rounds: int) -> Any:
    """sound -> codes, compiled"""
    import jax

    from tokenizer.nets import speech_fsq, speech_search

    filters: Any = mel_filters().astype(np.float32)

    def encode(params: Any, sound: Any, mask: Any) -> Any:
        return speech_search.search(params, speech_fsq.log_mel(sound, filters), mask, rounds, network)

    return jax.jit(encode)


@functools.cache
def _batch_size() -> int:
    """Windows run together: a constant of the backend, so that it never changes a code."""
    import jax

    return 1 if jax.default_backend() == "cpu" else 16
