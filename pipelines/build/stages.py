"""The first two stages: ingest (inputs to documents) and curate (documents to verdicts). Both run in workers.

Curation is one pass: it applies the recipe's rules (pipelines/curate), drops documents without parts and says, from
the digests of the parts' bytes, to which duplicate cluster a document belongs. Exact copies share a cluster, and so a
split. What a rule changed of a document is written beside the verdicts; digests and clusters are of what came in.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmdata.commit import sha256_of
from pipelines.build.documents import DocumentWriter, read_documents
from pipelines.build.executor import NO_PROGRESS, OUT_OF_MEMORY
from pipelines.build.ledger import LedgerWriter, write_dropped
from pipelines.build.units import Counts, LineWriter, Unit, fingerprint_of, read_lines
from pipelines.build.worker import Call
from pipelines.curate.judge import Judged, judge
from pipelines.curate.settings import Curation
from pipelines.ingest.document import Document, Dropped, Part
from pipelines.ingest.media import Limits, MediaError
from pipelines.ingest.reference import lost_by_host
from pipelines.ingest.screen import screened
from pipelines.ingest.source import Input, Source

VERDICTS = "verdicts.jsonl"
_REASONS = {NO_PROGRESS: "took too long", OUT_OF_MEMORY: OUT_OF_MEMORY}  # what a cause begins with -> the ledger's word
CHANGED = "changed"  # a folder of documents

OpenSource = Callable[[str, str, Path, dict[str, Any], Limits], Source]


@dataclass(frozen=True)
class SourceArgs:
    """How a worker opens a source again."""

    name: str
    format: str
    path: Path
    options: str  # canonical JSON, so that this can be hashed
    limits: Limits
    open_source: OpenSource

    def open(self) -> Source:
        return _open(self)


@functools.lru_cache(maxsize=8)
def _open(args: SourceArgs) -> Source:
    return args.open_source(args.name, args.format, args.path, json.loads(args.options), args.limits)


def forget_sources() -> None:
    """Before a build: files may have come since the last one of this process."""
    _open.cache_clear()


@dataclass(frozen=True)
class IngestArgs:
    source: SourceArgs
    inputs: tuple[Input, ...]


@dataclass(frozen=True)
class LeftoversArgs:
    lines: tuple[Dropped, ...]


@dataclass(frozen=True)
class CurateArgs:
    documents: Path  # folder of the ingest unit
    root: Path
    limits: Limits
    curation: Curation | None


@dataclass(frozen=True)
class Verdict:
    """One kept document: its cluster, the digest of each part's bytes ("" where they cannot be read), and the places of
    parts that it is kept without, which have no digest here."""

    id: str
    cluster: str
    digests: tuple[str, ...]
    without: tuple[int, ...] = ()

    def shown(self, document: Document) -> Document:
        """The document without those parts."""
        if not self.without:
            return document
        parts = [part for place, part in enumerate(document.parts) if place not in self.without]
        return replace(document, parts=tuple(parts))


def ingest(call: Call, unit: Unit, folder: Path) -> Counts:
    """Read the unit's inputs; documents and ledger lines into `folder`."""
    args: IngestArgs = unit.args
    source = args.source.open()
    lost: Counter[str] = Counter()
    media: set[Path] = set()
    with DocumentWriter(folder, source.root) as writer, LedgerWriter(folder) as ledger:
        for item in args.inputs:
            if item.path in call.skip:
                ledger.write(poisoned(unit, item.path, call.skip[item.path]))
                continue
            call.at(item.path)
            for found in screened(source, _noted(source.read(_watched(item, call)), source.root, media)):
                if isinstance(found, Document):
                    writer.write(found)
                else:
                    ledger.write(found)
                    lost.update(lost_by_host([found]))
                call.at(item.path)  # what comes until the next step is no record's
    known = {source.root / path for item in args.inputs for path in (item.files or (item.path,))}
    return {
        "inputs": len(args.inputs),
        "documents": writer.count,
        "media": sorted(str(path.relative_to(source.root)) for path in media - known),
        "dropped": ledger.counts,
        "lost_by_host": dict(sorted(lost.items())),
    }


def _watched(item: Input, call: Call) -> Input:
    """The input whose reader says at each record where it is, and leaves out those that have lost a worker."""

    def step(name: str) -> None:
        if name in call.skip:
            raise MediaError(loss_of(call.skip[name]), call.skip[name])
        call.at(name)

    return replace(item, step=step)


def _noted(found: Iterator[Document | Dropped], root: Path, media: set[Path]) -> Iterator[Document | Dropped]:
    """What a source yields; the files under its root that documents show go into `media`."""
    for one in found:
        if isinstance(one, Document):
            media.update(part.path for part in one.parts if part.path and part.path.is_relative_to(root))
        yield one


def leftovers(call: Call, unit: Unit, folder: Path) -> Counts:
    """The ledger lines of the files that no input reads and no document shows."""
    args: LeftoversArgs = unit.args
    return {"dropped": write_dropped(folder, args.lines)}


def curate(call: Call, unit: Unit, folder: Path) -> Counts:
    """A verdict on each document of an ingest unit."""
    args: CurateArgs = unit.args
    digest_file = functools.lru_cache(maxsize=256)(_file_digest)
    changed: Counter[str] = Counter()
    kinds: set[str] = set()
    with (
        _Changed(folder, args.root, args.curation is not None) as writer,
        contextlib.closing(LineWriter(folder / VERDICTS)) as kept,
        LedgerWriter(folder) as ledger,
    ):
        for document in read_documents(args.documents, args.root):
            if document.uri in call.skip:
                ledger.write(poisoned(unit, document.uri, call.skip[document.uri]))
                continue
            call.at(document.uri)
            if not document.parts:
                ledger.write(Dropped(unit.source, document.uri, "curate", "empty", "the document has no part"))
                continue
            judged = _judged(document, args)
            for line in _left_out(judged, unit.source):
                ledger.write(line)
            if judged.failed is not None:
                continue
            digests = [_digest(part, digest_file) for part in document.parts]
            words = ((part.kind, digest) for part, digest in zip(document.parts, digests))
            kept.write([document.id, cluster_of(words), [digests[place] for place in judged.places]])
            kinds.update(part.kind for part in judged.document.parts)
            if judged.document is not document:
                writer.write(judged.document)
                changed.update(judged.changed)
    counts: Counts = {"documents": kept.count, "kinds": sorted(kinds), "dropped": ledger.counts}
    if args.curation is None:
        return counts
    files = [folder / VERDICTS, *sorted((folder / CHANGED).iterdir())]
    return {**counts, "changed": dict(sorted(changed.items())), "kept": fingerprint_of(*map(sha256_of, files))}


class _Changed:
    """The documents that rules changed, into a folder of their own; no folder where there are no rules."""

    def __init__(self, folder: Path, root: Path, rules: bool) -> None:
        self._writer: DocumentWriter | None = None
        if rules:
            (folder / CHANGED).mkdir()
            self._writer = DocumentWriter(folder / CHANGED, root)

    def write(self, document: Document) -> None:
        assert self._writer is not None
        self._writer.write(document)

    def __enter__(self) -> _Changed:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.__exit__()


def read_kept(documents: Path, curated: Path, verdicts: Path, root: Path) -> Iterator[tuple[Document, Verdict]]:
    """The documents of an ingest unit that are kept by the verdicts in the folder `verdicts`, as the rules of the
    curate unit `curated` left them, in order."""
    rows = read_verdicts(verdicts)
    verdict = next(rows, None)
    changed = read_documents(curated / CHANGED, root) if (curated / CHANGED).is_dir() else iter(())
    other = next(changed, None)
    for document in read_documents(documents, root):
        if other is not None and other.id == document.id:
            document, other = other, next(changed, None)
        if verdict is not None and verdict.id == document.id:
            yield verdict.shown(document), verdict
            verdict = next(rows, None)
    if verdict is not None:
        raise RuntimeError(f"{verdicts}: the verdict on {verdict.id} is of no document, or not in their order")


def _judged(document: Document, args: CurateArgs) -> Judged:
    if args.curation is None:
        return Judged(document, list(range(len(document.parts))))
    return judge(document, args.curation, args.limits)


def _left_out(judged: Judged, source: str) -> list[Dropped]:
    """The ledger lines of a document: of itself, or of the parts it is kept without."""
    if judged.failed is not None:
        return [Dropped(source, judged.document.uri, "curate", judged.failed.rule, judged.failed.detail)]
    uri = judged.document.uri
    return [Dropped(source, part.uri or uri, "curate", m.rule, m.detail) for part, m in judged.parts]


def read_verdicts(folder: Path) -> Iterator[Verdict]:
    """The verdicts of a unit, in the order of its documents."""
    for id, cluster, digests, *without in read_lines(folder / VERDICTS):
        yield Verdict(id, cluster, tuple(digests), tuple(*without))


def cluster_of(parts: Iterable[tuple[str, str]]) -> str:
    """The content digest of a document: hex of 16 bytes over each part's kind and the sha256 of its bytes."""
    words = "\0".join(f"{kind}:{digest}" for kind, digest in parts)
    return hashlib.blake2b(words.encode(), digest_size=16).hexdigest()


def poisoned(unit: Unit, uri: str, cause: str) -> Dropped:
    """The ledger line of a step that killed or hung its worker."""
    return Dropped(unit.source, uri, unit.stage, loss_of(cause), cause)


def loss_of(cause: str) -> str:
    """The ledger's word for the cause of a worker's loss."""
    return next((words for begin, words in _REASONS.items() if cause.startswith(begin)), "crashed its worker")


def _digest(part: Part, digest_file: Callable[[Path], str]) -> str:
    if part.text is not None:
        return hashlib.sha256(part.text.encode("utf-8", "surrogatepass")).hexdigest()
    if part.data is not None:
        return hashlib.sha256(part.data).hexdigest()
    return digest_file(part.path) if part.path is not None else ""


def _file_digest(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError:
        return ""  # decoding it will say so, with a ledger line
