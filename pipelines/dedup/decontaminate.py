"""The decontamination stage: documents that meet an evaluation set are left out. Runs in workers.

A document goes with all its parts when one of them meets an item; the ledger names the benchmark, the item and the
words they share. (GPT-3 and lm-eval cut 200 characters around a match instead; a document that is cut so is no longer
what its other parts were beside.)
"""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass
from pathlib import Path

from mmdata.commit import sha256_of
from pipelines.build.ledger import write_dropped
from pipelines.build.stages import VERDICTS, Verdict, read_kept
from pipelines.build.units import Counts, Unit, write_lines
from pipelines.build.worker import Call
from pipelines.dedup.evaluation import Index, load_index
from pipelines.dedup.matches import Match, bytes_match, look_match, sound_match, text_matches
from pipelines.dedup.sounds import RATE_HZ, SHIFTS, audio_bits
from pipelines.ingest.document import Document, Dropped, Part
from pipelines.ingest.looks import look_of
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
    `verdicts`: their sha256, or "" where no document went."""
    args: DecontaminateArgs = unit.args
    index = _loaded(args.index, args.index_digest)
    kept, dropped = [], []
    for document, verdict in read_kept(args.documents, args.curated, args.verdicts, args.root):
        call.at(document.uri)
        found = _matches(document, verdict, index, args.limits, call)
        if found:
            more = f"; and {len(found) - 1} more" if len(found) > 1 else ""
            detail = found[0].detail + more
            dropped.append(Dropped(unit.source, document.uri, "decontaminate", found[0].reason, detail))
        else:
            kept.append([verdict.id, verdict.cluster, verdict.digests])
    write_lines(folder / VERDICTS, kept)
    changed = sha256_of(folder / VERDICTS) if dropped else ""
    return {"documents": len(kept), "verdicts": changed, "dropped": write_dropped(folder, dropped)}


@functools.lru_cache(maxsize=1)
def _loaded(folder: Path, digest: str) -> Index:
    return load_index(folder)


def _matches(document: Document, verdict: Verdict, index: Index, limits: Limits, call: Call) -> list[Match]:
    found: list[Match] = []
    for place, (part, digest) in enumerate(zip(document.parts, verdict.digests)):
        if part.text is not None:
            found += text_matches(part.text, index)
            continue
        found += (same := bytes_match(part.kind, digest, index))
        key = f"{document.id}/{place}"
        if not same and key not in call.skip:
            call.at(key)
            with contextlib.suppress(MediaError):  # the encode stage says what is wrong with it
                found += medium_matches(part, index, limits)
    return found


def medium_matches(part: Part, index: Index, limits: Limits) -> list[Match]:
    """What a picture or a sound meets by look or sound. Raises MediaError."""
    medium = part.data if part.data is not None else part.path
    if medium is None:
        return []
    if part.kind == "image" and len(index.looks):
        return look_match(look_of(medium, limits).bits, index)
    if part.kind == "audio" and len(index.sounds):
        from pipelines.ingest.decode_audio import decode_audio

        return sound_match(audio_bits(decode_audio(medium, RATE_HZ, limits), SHIFTS), index)
    return []
