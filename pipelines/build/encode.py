"""The encode stage: the kept documents of a unit become samples, with codes, in the stored form.

Media are decoded in a few threads ahead of the codec and encoded in batches of one shape, so that each codec is
compiled for few shapes, once a worker. What is batched with what is decided by the unit alone, and codes do not depend
on it (the contract of tokenizer/codec.py), so taking one part at a time (`Call.isolate`) gives the same bytes.
Documents are taken in windows of bounded bytes, so that a unit of any size takes about the same memory.
A part that fails costs itself a ledger line; the document goes on without it.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import math
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.sample import Sample
from pipelines.build.encoded import KeptMedia, SampleWriter
from pipelines.build.ledger import LedgerWriter
from pipelines.build.media import AsResized, Decoded, MediaSettings, decode
from pipelines.build.recipe import SOFT
from pipelines.build.spent import SPENT
from pipelines.build.stages import Verdict, poisoned, read_kept
from pipelines.build.units import Counts, Unit
from pipelines.build.worker import Call
from pipelines.ingest.document import Document, Dropped, Part
from pipelines.ingest.media import OUT_OF_MEMORY, MediaError, one_line
from tokenizer.codec import Codec, Codes, spec_of
from tokenizer.item import Item
from tokenizer.video import join_frames

_THREADS = 2
_AHEAD = 8  # parts decoded and not yet encoded
_BATCH = 16
_LONG_TEXT = 256  # tokens; the ends of sentences are places to cut a text that is longer than a row
_BATCH_SAMPLES = 16_000 * 120  # of sound, in one batch
# Documents that are in memory at a time with their codes: more than a default unit has, so that its batches are full.
_WINDOW_BYTES, _WINDOW_DOCUMENTS = 64 << 20, 1024
_HELD_BYTES = 512 << 20  # decoded media that wait for others of their shape

# Reasons for which a whole document is left out, with one line of the ledger beside those of its parts.
_A_PART_FAILED, _NO_PART_LEFT = "a part failed", "no part left"

LoadCodec = Callable[[str], Codec]


@dataclass(frozen=True)
class EncodeSettings:
    """All that decides the samples of a document."""

    codecs: tuple[tuple[str, str], ...]  # kind -> full name, or "soft"
    media: MediaSettings
    keep_media: str
    on_bad_part: str
    load_codec: LoadCodec

    @functools.cached_property
    def names(self) -> dict[str, str]:
        return dict(self.codecs)


@dataclass(frozen=True)
class EncodeArgs:
    documents: Path  # folder of the ingest unit
    curated: Path  # folder of the curate unit, for what rules changed
    verdicts: Path  # folder of the unit whose verdicts hold
    root: Path
    settings: EncodeSettings


@dataclass(eq=False)
class _Job:
    """One part on its way: what it was decoded to, the codes that have come back."""

    key: str
    part: Part
    digest: str
    decoded: Decoded | None = None
    shape: tuple[int, ...] = ()  # of the medium, or of its first frame
    codes: list[Codes | None] = field(default_factory=list)
    failure: Dropped | None = None

    @property
    def held(self) -> int:
        """Bytes of the arrays."""
        return sum(medium.nbytes for medium in self.decoded.media) if self.decoded is not None else 0

    def release(self) -> None:
        """Let go of the arrays, which are larger than all that is made of them."""
        assert self.decoded is not None
        self.decoded = replace(self.decoded, media=())


_Row = tuple[Document, Verdict, list[_Job]]


def describe_codecs(call: Call) -> dict[str, dict[str, Any]]:
    """Of each codec in `call.args`, (names, load_codec): its spec, the rate or pixels a code that it wants, and whether
    it gives frames of one size one grid."""
    names, load_codec = call.args
    specs = {}
    for name in names:
        codec = load_codec(name)
        specs[name] = {
            "spec": spec_of(codec),
            "sample_rate_hz": getattr(codec, "sample_rate_hz", 0),
            "multiple": getattr(getattr(codec, "policy", None), "multiple", 0),
            "frames": getattr(codec, "frames", True),
        }
    return specs


def documents_read(counts: Counts) -> int:
    """How many documents a unit with these counts read."""
    return counts["samples"] + sum(counts["dropped"].get(reason, 0) for reason in (_A_PART_FAILED, _NO_PART_LEFT))


def encode(call: Call, unit: Unit, folder: Path) -> Counts:
    """Encode the documents of a unit; samples, kept media and ledger lines into `folder`."""
    SPENT.begin()
    args: EncodeArgs = unit.args
    settings, batches = args.settings, _Batches(call, unit, args.settings)
    kept = read_kept(args.documents, args.curated, args.verdicts, args.root)
    # Two readers of one iterator: decoding goes ahead of the window, over its end too.
    rows, ahead = _twice((document, verdict, _jobs(document, verdict)) for document, verdict in kept)
    jobs = _decoded((job for *_, row in ahead for job in row), call, unit, settings)
    counts: Counter[str] = Counter()
    with (
        contextlib.closing(jobs) as decoded,
        KeptMedia(folder, settings.keep_media, settings.media.sample_rate_hz) as media,
        SampleWriter(folder) as writer,
        LedgerWriter(folder) as ledger,
    ):
        for window in _windows(rows):
            _run(itertools.islice(decoded, sum(len(row) for *_, row in window)), batches, unit, settings, media)
            for document, verdict, row in window:
                for job in row:
                    if job.failure is not None:
                        ledger.write(job.failure)
                sample = _sample(document, verdict, row, settings)
                if isinstance(sample, Dropped):
                    ledger.write(sample)
                    continue
                writer.write(sample)
                counts.update(_count(sample))
    codes = {kind: counts[kind] for kind in ("text", "image", "audio", "video")}
    found = {"samples": writer.count, "codes": codes, "soft": counts["soft"], "cpu_seconds": SPENT.seconds()}
    return {**found, "dropped": ledger.counts}


def _twice(rows: Iterator[_Row]) -> tuple[Iterator[_Row], Iterator[_Row]]:
    """The rows for two readers; `itertools.tee` would keep 57 that both have read."""
    waiting: tuple[deque[_Row], deque[_Row]] = deque(), deque()

    def of(mine: deque[_Row]) -> Iterator[_Row]:
        while True:
            if not mine:
                if (row := next(rows, None)) is None:
                    return
                for queue in waiting:
                    queue.append(row)
                del row  # or it would be held until the next
            yield mine.popleft()

    return of(waiting[0]), of(waiting[1])


def _windows(rows: Iterable[_Row]) -> Iterator[list[_Row]]:
    """Runs of documents. A window ends with the document that fills it, so its bytes are bounded by those of one more;
    media in files of their own are read when they are decoded, and count nothing here."""
    window: list[_Row] = []
    size = 0
    for row in rows:
        window.append(row)
        size += sum(len(part.text or part.data or b"") for part in row[0].parts)
        if size >= _WINDOW_BYTES or len(window) >= _WINDOW_DOCUMENTS:
            yield window
            window, size = [], 0
    if window:
        yield window


def _jobs(document: Document, verdict: Verdict) -> list[_Job]:
    return [
        _Job(f"{document.id}/{place}", part, digest)
        for place, (part, digest) in enumerate(zip(document.parts, verdict.digests))
    ]


def _run(decoded: Iterable[_Job], batches: _Batches, unit: Unit, settings: EncodeSettings, kept: KeptMedia) -> None:
    """Encode the jobs of a window, in their order."""
    for job in decoded:
        if job.failure is not None:
            continue
        try:
            assert job.decoded is not None
            kept.add(job.part, job.digest, job.decoded)
        except MediaError as error:
            job.failure = Dropped(unit.source, job.part.uri, "decode", error.reason, error.detail)
            continue
        if job.part.kind == "text":
            batches.encode_text(job)
        elif settings.names[job.part.kind] == SOFT:
            job.release()
        else:
            batches.add(job)
    batches.flush()


def _decoded(jobs: Iterator[_Job], call: Call, unit: Unit, settings: EncodeSettings) -> Generator[_Job]:
    """The jobs in order, each decoded; a few are decoded ahead in threads unless the call isolates."""
    if call.isolate:
        for job in jobs:
            if job.key not in call.skip:
                call.at(job.key)
            _decode(job, call, unit, settings)
            yield job
        return
    with ThreadPoolExecutor(_THREADS, initializer=SPENT.join) as pool:
        waiting: deque[tuple[_Job, Future[None] | None]] = deque()
        while True:
            while len(waiting) < _AHEAD and (new := next(jobs, None)) is not None:
                # A text is there already: handing it to a thread would cost more than it does
                ahead = new.part.kind != "text"
                waiting.append((new, pool.submit(_decode, new, call, unit, settings) if ahead else None))
            if not waiting:
                return
            job, future = waiting.popleft()
            if future is None:
                _decode(job, call, unit, settings)
            else:
                future.result()
            call.at(job.key)
            yield job


def _decode(job: _Job, call: Call, unit: Unit, settings: EncodeSettings) -> None:
    """Fills in `decoded` or `failure`. Only what is no document's fault is raised."""
    uri = job.part.uri
    if job.key in call.skip:
        job.failure = poisoned(unit, uri, call.skip[job.key])
        return
    try:
        job.decoded = _timed_decode(job, settings.media)
        job.shape = job.decoded.media[0].shape if job.decoded.media else ()
    except MediaError as error:
        if error.reason == OUT_OF_MEMORY:
            _raise_if_ours(MemoryError(error.detail), call)
        job.failure = Dropped(unit.source, uri, "decode", error.reason, error.detail)
    except Exception as error:
        _raise_if_ours(error, call)
        reason = OUT_OF_MEMORY if isinstance(error, MemoryError) else "cannot decode"
        job.failure = Dropped(unit.source, uri, "decode", reason, f"{type(error).__name__}: {one_line(error)}")


def _timed_decode(job: _Job, settings: MediaSettings) -> Decoded:
    if job.part.kind == "text":  # it is decoded already
        return decode(job.part, settings, job.digest)
    with SPENT.in_thread(f"decode {job.part.kind}"):
        return decode(job.part, settings, job.digest)


class _Batches:
    """Media wait here until there are enough of one shape."""

    def __init__(self, call: Call, unit: Unit, settings: EncodeSettings) -> None:
        self._call, self._unit, self._settings = call, unit, settings
        self._waiting: dict[tuple[Any, ...], list[tuple[_Job, int, np.ndarray]]] = {}
        self._held = 0  # bytes of the jobs in `_waiting`, at least

    def codec(self, kind: str) -> Any:
        codec = self._settings.load_codec(self._settings.names[kind])
        if hasattr(codec, "with_policy"):  # media come resized; resizing is not always idempotent
            return codec.with_policy(AsResized(self._settings.media.resizing[kind].multiple))
        return codec

    def encode_text(self, job: _Job) -> None:
        assert job.part.text is not None
        codec = self.codec("text")
        try:
            with SPENT.in_thread("encode text"):
                job.codes = [codec.encode(job.part.text)]
        except ValueError as error:
            self._fail(job, error)

    def add(self, job: _Job) -> None:
        assert job.decoded is not None
        job.codes = [None] * len(job.decoded.media)
        self._held += job.held
        for i, medium in enumerate(job.decoded.media):
            key = _shape_key(job.part.kind, medium)
            row = self._waiting.setdefault(key, [])
            row.append((job, i, medium))
            full = len(row) >= _BATCH or sum(m.shape[0] for _, _, m in row) >= _BATCH_SAMPLES
            if self._call.isolate or full:
                self._encode(key)
        if self._held > _HELD_BYTES:  # many shapes of few media each
            self.flush()

    def flush(self) -> None:
        for key in list(self._waiting):
            self._encode(key)
        self._held = 0

    def _encode(self, key: tuple[Any, ...]) -> None:
        row = [entry for entry in self._waiting.pop(key) if entry[0].failure is None]
        if not row:
            return
        self._call.at(row[0][0].key)
        codec = self.codec(key[0])
        try:
            with SPENT.in_process(f"encode {key[0]}"):
                found = codec.encode_batch([medium for _, _, medium in row])
        except Exception as error:
            _raise_if_ours(error, self._call)
            found = self._one_by_one(codec, row)
        for (job, i, _), codes in zip(row, found):
            job.codes[i] = codes
            if all(c is not None for c in job.codes):
                self._held -= job.held
                job.release()
                self._check_frames(job)

    def _one_by_one(self, codec: Codec, row: list[tuple[_Job, int, np.ndarray]]) -> list[Codes | None]:
        """Find the medium of a batch that the codec refuses."""
        found: list[Codes | None] = []
        for job, _, medium in row:
            try:
                found.append(codec.encode(medium))
            except Exception as error:
                _raise_if_ours(error, self._call)
                self._fail(job, error)
                found.append(None)
        return found

    def _check_frames(self, job: _Job) -> None:
        """A video is one item: its frames have one grid."""
        grids = {(c.shape.h, c.shape.w) for c in job.codes if c is not None}
        if job.part.kind == "video" and len(grids) > 1:
            what = f"{self._settings.names['video']} gives each frame a grid of its own"
            self._fail(job, ValueError(f"{what}; name another codec in codecs.video"))

    def _fail(self, job: _Job, error: BaseException) -> None:
        reason = OUT_OF_MEMORY if isinstance(error, MemoryError) else "cannot encode"
        job.failure = Dropped(self._unit.source, job.part.uri, "encode", reason, one_line(error))
        self._held -= job.held
        job.release()


def _shape_key(kind: str, medium: np.ndarray) -> tuple[Any, ...]:
    """Media with equal keys go into one batch: one size of picture, sounds of about one length."""
    return (kind, len(medium).bit_length()) if kind == "audio" else (kind, *medium.shape)


def _sample(document: Document, verdict: Verdict, jobs: list[_Job], settings: EncodeSettings) -> Sample | Dropped:
    good = [job for job in jobs if job.failure is None]
    if len(good) < len(jobs) and settings.on_bad_part == "drop_document":
        return Dropped(
            document.source, document.uri, "encode", _A_PART_FAILED, f"{len(jobs) - len(good)} of {len(jobs)}"
        )
    if not good:
        return Dropped(document.source, document.uri, "encode", _NO_PART_LEFT, f"{len(jobs)} failed")
    return Sample(
        id=document.id,
        cluster=verdict.cluster,
        source=document.source,
        items=tuple(_item(job, settings) for job in good),
        uri=document.uri,
        language=document.language,
        licence=document.licence,
        created=document.created,
        metadata=document.metadata,
    )


def _item(job: _Job, settings: EncodeSettings) -> Item:
    part, decoded = job.part, job.decoded
    assert decoded is not None
    start_s, end_s = part.start_s, part.end_s
    if math.isnan(end_s) and not math.isnan(start_s):
        end_s = start_s + decoded.seconds
    common: dict[str, Any] = {
        "kind": part.kind,
        "start_s": start_s,
        "end_s": end_s,
        "digest": job.digest,
        "uri": part.uri,
        "role": part.role,
        "stream": part.stream,
        "group": part.group,
        "group_role": part.group_role,
        "unit_times": np.array(part.unit_times, np.float32).reshape(-1, 2),
    }
    name = settings.names[part.kind]
    if name == SOFT:
        size = job.shape[0]
        kept = (size, 0, 0) if part.kind == "audio" else (max(1, len(decoded.times)), size, job.shape[1])
        return Item(codec="", codes=None, grid=kept, times=decoded.times, **common)
    codes = [c for c in job.codes if c is not None]
    if part.kind == "text":
        common |= text_words(settings.load_codec(name), codes[0], part.text or "")
    whole = join_frames(codes, decoded.times) if part.kind == "video" else codes[0]
    grid = (whole.shape.t, whole.shape.h, whole.shape.w)
    return Item(codec=name, codes=np.ascontiguousarray(whole.codes, np.int32), grid=grid, times=whole.times, **common)


def text_words(codec: Any, codes: Codes, text: str) -> dict[str, Any]:
    """The text itself where the codec loses some of it, and where its sentences end."""
    words: dict[str, Any] = {}
    if not codec.exact and codec.decode(codes) != text:
        words["text"] = text
    if len(codes.codes) > _LONG_TEXT and hasattr(codec, "token_ends"):
        from tokenizer.text import sentence_ends

        words["sentence_ends"] = sentence_ends(codec, text, codes.codes)
    return words


def _count(sample: Sample) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for item in sample.items:
        if item.codes is None:
            counts["soft"] += 1
        else:
            counts[item.kind] += item.codes.size
    return counts


def _raise_if_ours(error: BaseException, call: Call) -> None:
    """A full disk is no document's fault, and a lack of memory need not be that of the one it meets: the unit is taken
    again, one part at a time."""
    if isinstance(error, MemoryError) and not call.isolate:
        raise error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        raise error
