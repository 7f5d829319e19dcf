"""The decontamination stage: documents that meet an evaluation set are left out. Runs in workers.

A document goes with all its parts when one of them meets an item; the ledger names each benchmark, the item and the
words they share. What kills or hangs the worker cannot be compared and goes too. (GPT-3 and lm-eval cut 200 characters
around a match instead; a document that is cut so is no longer what its other parts were beside.)
"""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmdata.commit import sha256_of
from pipelines.build.ledger import write_dropped
from pipelines.build.stages import VERDICTS, Verdict, poisoned, read_kept
from pipelines.build.units import Counts, Unit, write_lines
from pipelines.build.worker import Call
from pipelines.dedup.evaluation import Index, load_index
from pipelines.dedup.matches import Match, bytes_match, look_match, sound_match, text_matches, told, video_match
from pipelines.dedup.sounds import RATE_HZ, SHIFTS, audio_bits
from pipelines.ingest.document import Document, Dropped, Part
from pipelines.ingest.looks import look_of, video_look
from pipelines.ingest.media import Limits, MediaError


@dataclass(frozen=True)
class DecontaminateArgs:
    documents: Path  # folder of the ingest unit
    curated: Path  # folder of the curate unit
    verdicts: Path
    root: Path
    index: Path
    index_digest: str  # a worker that lives on reads it anew where it is another
    limits: Limits


def decontaminate(call: Call, unit: Unit, folder: Path) -> Counts:
    """The verdicts of a unit without the documents that meet an evaluation set, and their ledger lines. Counts:
    `verdicts`: their sha256, or "" where no document went; `met`: documents by benchmark."""
    args: DecontaminateArgs = unit.args
    index = _loaded(args.index, args.index_digest)
    kept, dropped = [], []
    met: Counter[str] = Counter()
    for document, verdict in read_kept(args.documents, args.curated, args.verdicts, args.root):
        if (poison := _poison(document, call)) is not None:
            dropped.append(poisoned(unit, *poison))
            continue
        call.at(document.uri)
        found = list(_matches(document, verdict, index, args.limits, call))
        if found:
            dropped.append(Dropped(unit.source, document.uri, "decontaminate", found[0].reason, told(found)))
            met.update({match.item.benchmark for match in found})
        else:
            kept.append([verdict.id, verdict.cluster, verdict.digests])
    write_lines(folder / VERDICTS, kept)
    changed = sha256_of(folder / VERDICTS) if dropped else ""
    dropped_counts = write_dropped(folder, dropped)
    return {"documents": len(kept), "verdicts": changed, "dropped": dropped_counts, "met": dict(sorted(met.items()))}


@functools.lru_cache(maxsize=1)
def _loaded(folder: Path, digest: str) -> Index:
    return load_index(folder)


def _poison(document: Document, call: Call) -> tuple[str, str] | None:
    """(uri, cause) of a document, or of a part of it, that killed or hung a worker before."""
    if document.uri in call.skip:
        return document.uri, call.skip[document.uri]
    for place, part in enumerate(document.parts):
        if _key(document, place) in call.skip:
            return part.uri or document.uri, call.skip[_key(document, place)]
    return None


def _key(document: Document, place: int) -> str:
    return f"{document.id}/{place}"


def _matches(document: Document, verdict: Verdict, index: Index, limits: Limits, call: Call) -> Iterator[Match]:
    yield from text_matches("\n".join(part.text for part in document.parts if part.text is not None), index)
    for place, (part, digest) in enumerate(zip(document.parts, verdict.digests)):
        if part.text is not None:
            continue
        yield from (same := bytes_match(part.kind, digest, index))
        if not same:
            call.at(_key(document, place))
            with contextlib.suppress(MediaError):  # the encode stage says what is wrong with it
                yield from medium_matches(part, index, limits)


def medium_matches(part: Part, index: Index, limits: Limits) -> list[Match]:
    """What a picture, a sound or a video meets by look or sound. Raises MediaError."""
    medium = part.data if part.data is not None else part.path
    if medium is None:
        return []
    if part.kind == "image" and len(index.looks):
        return look_match(look_of(medium, limits).bits, index)
    if part.kind == "video" and len(index.videos):
        return video_match(video_look(medium, limits), index)
    if part.kind == "audio" and len(index.sounds):
        from pipelines.ingest.decode_audio import decode_audio

        return sound_match(audio_bits(decode_audio(medium, RATE_HZ, limits), SHIFTS), index)
    return []
