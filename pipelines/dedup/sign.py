"""The signatures of a unit's documents: what duplicates are told by, in rows of a fixed size. Runs in workers.

`documents.npy`, and where asked for `minhash.npy`, hold a row a document that is still kept, `media.npy` a row a
picture, sound or video; `sounds.npy` with `middles.npy`, row by row, and `videos.npy` their fingerprints. A medium that
cannot be decoded has none and is told by its bytes: the encode stage says what is wrong with it. A document whose words
kill or hang the worker has an empty row and a line in `poisoned.jsonl`: the dedup stage leaves it out.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path

import numpy as np

from pipelines.build.stages import Verdict, poisoned, read_kept
from pipelines.build.units import Counts, Unit, write_lines
from pipelines.build.worker import Call
from pipelines.dedup.sounds import FRAMES, MIDDLE_DTYPE, RATE_HZ, SHIFTS, AudioHash, audio_bits, audio_middle
from pipelines.dedup.words import minhash, text_digest, words_of
from pipelines.ingest.document import Document, Part
from pipelines.ingest.looks import FRAMES as VIDEO_FRAMES
from pipelines.ingest.looks import VideoLook, look_of, video_look
from pipelines.ingest.media import Limits, MediaError

DOCUMENTS, MINHASH, MEDIA = "documents.npy", "minhash.npy", "media.npy"
SOUNDS, MIDDLES, VIDEOS = "sounds.npy", "middles.npy", "videos.npy"
URIS, POISONED = "uris.jsonl", "poisoned.jsonl"  # `poisoned`: [row, ledger line]
KINDS = ("text", "image", "audio", "video")

# `text`: zeros where there are no words. `bytes`: of the texts as they are, in their order.
DOCUMENT_DTYPE = np.dtype(
    [
        ("id", "u1", 16),
        ("cluster", "u1", 16),
        ("text", "u1", 16),
        ("bytes", "u1", 16),
        ("chars", "<u4"),
        ("size", "<u8"),
    ]
)
# `document`: its row. `place`: of the part in it. `print`: of an image its hash, of others the row of their
# fingerprint, where `printed`.
MEDIA_DTYPE = np.dtype(
    [
        ("document", "<i4"),
        ("place", "<u4"),
        ("kind", "u1"),
        ("digest", "u1", 16),
        ("read", "?"),
        ("printed", "?"),
        ("print", "<u8"),
    ]
)
SOUND_DTYPE = np.dtype([("seconds", "<f4"), ("frames", "u1"), ("bits", "<u4", (len(SHIFTS), FRAMES))])
VIDEO_DTYPE = np.dtype([("seconds", "<f4"), ("frames", "<u8", VIDEO_FRAMES)])

_TEXTS = 256  # signed at once


@dataclass(frozen=True)
class SignArgs:
    documents: Path  # folder of the ingest unit
    curated: Path  # folder of the curate unit
    verdicts: Path
    root: Path
    kinds: tuple[str, ...]  # those whose near duplicates are looked for
    limits: Limits


def versions() -> dict[str, str]:
    """Of what decides signatures, for the fingerprints of units."""
    return {name: metadata.version(name) for name in ("rensa", "imagehash", "numpy", "pillow", "av", "soxr")}


def sign(call: Call, unit: Unit, folder: Path) -> Counts:
    """The signatures of a unit's documents into `folder`."""
    args: SignArgs = unit.args
    rows = _Rows(call, args)
    uris: list[str] = []
    lost = []
    for document, verdict in read_kept(args.documents, args.curated, args.verdicts, args.root):
        if document.uri in call.skip:
            lost.append([len(uris), asdict(poisoned(unit, document.uri, call.skip[document.uri]))])
            rows.add(replace(document, parts=()), verdict)
        else:
            call.at(document.uri)
            rows.add(document, verdict)
        uris.append(document.uri)
    rows.save(folder)
    write_lines(folder / URIS, uris)
    write_lines(folder / POISONED, lost)
    return {"documents": len(uris)}


class _Rows:
    """The rows of a unit as they come."""

    def __init__(self, call: Call, args: SignArgs) -> None:
        self._call, self._args = call, args
        self._documents: list[tuple[object, ...]] = []
        self._media: list[tuple[object, ...]] = []
        self._sounds: list[tuple[object, ...]] = []
        self._middles: list[np.ndarray] = []
        self._videos: list[tuple[object, ...]] = []
        self._words: list[list[str]] = []
        self._signatures: list[np.ndarray] = []

    def add(self, document: Document, verdict: Verdict) -> None:
        """Words before media: where the worker dies of words, no medium is blamed."""
        texts = [part.text for part in document.parts if part.text is not None]
        words = words_of("\n".join(texts))
        digests = (
            _bytes(text_digest(words).hex()) if words else np.zeros(16, np.uint8),
            _bytes(text_digest(texts).hex()),
        )
        if "text" in self._args.kinds:
            self._words.append(words)
            if len(self._words) == (1 if self._call.isolate else _TEXTS):
                self._sign_texts()
        size = sum(
            self._medium(document, place, verdict.digests[place])
            for place, part in enumerate(document.parts)
            if part.text is None
        )
        chars = min(sum(map(len, words)), 2**32 - 1)
        self._documents.append((_bytes(document.id), _bytes(verdict.cluster), *digests, chars, size))

    def save(self, folder: Path) -> None:
        np.save(folder / DOCUMENTS, np.array(self._documents, DOCUMENT_DTYPE))
        np.save(folder / MEDIA, np.array(self._media, MEDIA_DTYPE))
        np.save(folder / SOUNDS, np.array(self._sounds, SOUND_DTYPE))
        np.save(folder / MIDDLES, np.array(self._middles, MIDDLE_DTYPE))
        np.save(folder / VIDEOS, np.array(self._videos, VIDEO_DTYPE))
        if "text" in self._args.kinds:
            self._sign_texts()
            np.save(folder / MINHASH, np.concatenate(self._signatures))

    def _sign_texts(self) -> None:
        self._signatures.append(minhash(self._words))
        self._words = []

    def _medium(self, document: Document, place: int, digest: str) -> int:
        """Note the medium at a place of its document; returns its size: pixels, or samples at 8 kHz."""
        part, key = document.parts[place], f"{document.id}/{place}"
        size, print_ = 0, None
        if part.kind in self._args.kinds and key not in self._call.skip:
            self._call.at(key)
            with contextlib.suppress(MediaError):
                size, print_ = self._print(part)
        taken = _bytes(digest[:32]) if digest else np.zeros(16, np.uint8)
        kind = KINDS.index(part.kind)
        self._media.append((len(self._documents), place, kind, taken, bool(digest), print_ is not None, print_ or 0))
        return size

    def _print(self, part: Part) -> tuple[int, int | None]:
        """(size, what `print` of its row is). Raises MediaError."""
        medium = part.data if part.data is not None else part.path
        if medium is None:
            return 0, None
        if part.kind == "image":
            look = look_of(medium, self._args.limits)
            return look.pixels, look.bits
        if part.kind == "audio":
            from pipelines.ingest.decode_audio import decode_audio

            samples = decode_audio(medium, RATE_HZ, self._args.limits)
            sound = audio_bits(samples, SHIFTS)
            if sound is None:
                return len(samples), None
            self._middles.append(audio_middle(samples))
            return len(samples), _append(self._sounds, sound_row(sound))
        video = video_look(medium, self._args.limits)
        if not video.frames.any():
            return video.pixels, None
        return video.pixels, _append(self._videos, video_row(video))


def sound_row(sound: AudioHash) -> tuple[object, ...]:
    """A row of `SOUND_DTYPE`; the sound's bits at all `SHIFTS`."""
    bits = np.zeros((len(SHIFTS), FRAMES), np.uint32)
    bits[:, : sound.bits.shape[1]] = sound.bits
    return sound.seconds, sound.bits.shape[1], bits


def video_row(video: VideoLook) -> tuple[object, ...]:
    """A row of `VIDEO_DTYPE`."""
    return 0.0 if math.isnan(video.seconds) else video.seconds, video.frames


def _append(rows: list[tuple[object, ...]], row: tuple[object, ...]) -> int:
    rows.append(row)
    return len(rows) - 1


def _bytes(word: str) -> np.ndarray:  # uint8 [16]
    return np.frombuffer(bytes.fromhex(word), np.uint8)
