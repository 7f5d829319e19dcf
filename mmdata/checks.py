"""What `mmdata verify` looks at in one file: a shard with its catalog, or a shard of kept media.

A problem is a line, never an exception. What only several files together can tell (a document in two shards, the media
of soft items) is not judged here: a check returns the facts for it, a few bytes a sample.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.catalog import (
    CatalogRows,
    catalog_digest,
    code_places,
    counts_of,
    item_columns,
    item_table,
    read_catalog,
    read_media_index,
    record_digest,
    rows_that_differ,
    stored_catalog,
)
from mmdata.commit import sha256_of
from mmdata.dataset import Source
from mmdata.errors import DamagedRecord, RunError
from mmdata.example import first_bytes
from mmdata.media import Media, decode_media, media_shard_of
from mmdata.sample import Sample
from mmdata.shards import RecordFiles, ShardInfo, decode_sample
from tokenizer.codec import CodecSpec
from tokenizer.item import KINDS, Item

_RECORDS, _BYTES = 512, 1 << 24  # most records, and bytes of records, of one read
_MOST = 20  # problems listed of one file: the rest of a damaged one says nothing new
_APART = ("id", "cluster", "split", "shard", "index", "record")  # catalog columns with checks of their own

# A medium is its digest and the number of its kind; the last byte is never 0, which numpy would drop.
_KEY = "S33"
SOFT = np.dtype([("key", _KEY), ("grid", np.int32, 3), ("record", np.int32), ("item", np.int32)])
KEPT = np.dtype([("key", _KEY), ("grid", np.int32, 3)])  # grid (-1, -1, -1): only bytes are kept


@dataclass
class Found:
    """What one check found, and the facts it hands on."""

    where: str  # source/file
    problems: list[str] = field(default_factory=list)
    unlisted: int = 0  # problems beyond those listed
    checked: dict[str, int] = field(default_factory=dict)  # what -> how many
    ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))  # hash of each document's id
    soft: np.ndarray = field(default_factory=lambda: np.zeros(0, SOFT))
    kept: np.ndarray = field(default_factory=lambda: np.zeros(0, KEPT))

    def say(self, problem: str) -> None:
        if len(self.problems) < _MOST:
            self.problems.append(problem)
        else:
            self.unlisted += 1

    def count(self, **more: int) -> None:
        for what, number in more.items():
            self.checked[what] = self.checked.get(what, 0) + number

    def lines(self) -> list[tuple[str, str]]:
        """(where, what) of the report."""
        more = [f"and {self.unlisted} more problems"] if self.unlisted else []
        return [(self.where, what) for what in (*self.problems, *more)]


def check_shard(source: Source, shard: ShardInfo, full: bool) -> Found:
    """A shard and its catalog: sizes, digests, counts; `full`: every record, its items and its catalog row."""
    found = Found(f"{source.name}/{shard.file}")
    found.count(shards=1)
    whole = _file_is_whole(found, source.folder / shard.file, shard.bytes, shard.sha256)
    try:
        rows = _check_catalog(found, source, shard)
    except Exception as error:  # a damaged Parquet file fails in many ways
        found.say(f"{shard.catalog} cannot be read: {_line(error)}")
        return found
    if rows is not None and whole is not None and full:
        try:
            _check_records(found, source, shard, rows)
        except Exception as error:  # and so does a damaged ArrayRecord file
            found.say(f"cannot be read: {_line(error)}")
    return found


def check_media(source: Source, number: int, full: bool) -> Found:
    """A shard of kept media: its size and digest; `full`: every medium is the one that the index names."""
    shard = source.manifest.media.shards[number]
    found = Found(f"{source.name}/media/{shard.file}")
    whole = _file_is_whole(found, source.folder / "media" / shard.file, shard.bytes, shard.sha256)
    if not full or whole is None:
        return found
    kept: list[tuple[bytes, tuple[int, ...]]] = []
    try:
        index = read_media_index(source.folder / "media" / shard.index_file)
        if len(index) != shard.media or index != sorted(set(index)):
            found.say(f"{shard.index_file} has {len(index)} media, or not in order; the manifest says {shard.media}")
        files = RecordFiles([source.folder / "media" / shard.file])
        for place, (digest, kind) in enumerate(index):
            try:
                medium = decode_media(files.read(0, [place])[0])
            except Exception as error:
                found.say(f"{kind} {digest}: {_line(error)}")
                continue
            for what in _media_problems(medium, digest, kind, source.manifest.media.form):
                found.say(f"{kind} {digest} {what}")
            if media_shard_of(digest, len(source.manifest.media.shards)) != number:
                found.say(f"{kind} {digest} belongs into another shard")
            kept.append((_key(digest, kind), _soft_grid(medium)))
            found.count(media=1)
    except Exception as error:  # a damaged Parquet file fails in many ways
        found.say(f"cannot be read: {_line(error)}")
    found.kept = np.array(kept, KEPT)
    return found


def describe_key(key: bytes) -> str:
    """The words for a medium: "image 0f3a..."."""
    digest = key[:-1].rstrip(b"\0").hex()
    return f"{KINDS[key[-1]]} {digest or 'without digest'}"


def _file_is_whole(found: Found, path: Path, size: int, sha256: str) -> bool | None:
    """Whether the bytes are those the manifest names; None where there is no file."""
    if not path.is_file():
        found.say("the file is missing")
        return None
    there = path.stat().st_size
    found.count(bytes=there)
    if there != size:
        found.say(f"{there} bytes, the manifest says {size}")
    if (same := sha256_of(path) == sha256) is False:
        found.say("the sha256 is not the manifest's: the bytes have changed")
    return same and there == size


def _check_catalog(found: Found, source: Source, shard: ShardInfo) -> Any:
    """The shard's catalog rows, if they can be used to read it."""
    path = source.folder / shard.catalog
    rows, stored = read_catalog([path]), stored_catalog(path)
    if catalog_digest(stored) != shard.catalog_digest:
        found.say(f"the values of {shard.catalog} are not those the manifest names")
    if rows.num_rows != shard.samples:
        found.say(f"{shard.catalog} has {rows.num_rows} rows, the manifest says {shard.samples} samples")
        return None
    for name, expected in (("split", {shard.split}), ("shard", {shard.index})):
        if set(rows.column(name).to_pylist()) - expected:
            found.say(f"{shard.catalog} has rows of another {name} than {expected.pop()!r}")
    if rows.column("index").to_pylist() != list(range(shard.samples)):
        found.say(f"{shard.catalog} does not number its rows from 0 to {shard.samples - 1}")
    counts = counts_of(rows)
    for kind in sorted({*counts, *shard.counts}):
        if counts.get(kind) != shard.counts.get(kind):
            found.say(f"the manifest counts {shard.counts.get(kind)} of {kind}, {shard.catalog} {counts.get(kind)}")
    codecs = sorted(
        {name for name in rows.column("item_codec").combine_chunks().flatten().unique().to_pylist() if name}
    )
    if codecs != sorted(shard.codecs):
        found.say(f"the manifest names the codecs {sorted(shard.codecs)}, {shard.catalog} {codecs}")
    ids = (hashlib.blake2b(name.encode(), digest_size=8).digest() for name in rows.column("id").to_pylist())
    found.ids = np.frombuffer(b"".join(ids), "<u8")
    return rows.select([*(name for name in rows.column_names if name in stored.column_names)])


def _check_records(found: Found, source: Source, shard: ShardInfo, rows: Any) -> None:
    """Every record is the one that the catalog names, holds what its row says, and its codes fit their codecs."""
    files = RecordFiles([source.folder / shard.file])
    specs = {codec.name: codec for codec in source.codecs}
    codes = _CodePlaces(rows, tuple(specs))
    names = list(zip(*(rows.column(name).to_pylist() for name in ("id", "cluster", "record"))))
    soft: list[tuple[bytes, tuple[int, ...], int, int]] = []
    for start, stop in _reads(rows.column("record_bytes").to_numpy()):
        made, places = CatalogRows(), []
        for place, record in zip(range(start, stop), _read(files, start, stop)):
            if isinstance(record, str):
                found.say(f"record {place}: {record}")
                continue
            id, cluster, digest = names[place]
            if record_digest(record) != digest:
                found.say(f"record {place} is not the one the catalog names (digest)")
            try:
                sample = decode_sample(record)
                made.add(sample, record)
            except Exception as error:  # what was written otherwise, or damaged, fails in many ways
                found.say(f"record {place}: {_line(error)}")
                continue
            places.append(place)
            if (sample.id, sample.cluster) != (id, cluster):
                found.say(f"record {place} is document {sample.id}, the catalog says {id}")
            for what in (*_sample_problems(sample, specs), *codes.problems(place, record, sample)):
                found.say(f"record {place} (document {sample.id}): {what}")
            for number, item in enumerate(sample.items):
                if item.is_soft:
                    soft.append((_key(item.digest, item.kind), item.grid, place, number))
            found.count(samples=1, items=len(sample.items), codes=sum(_size(item) for item in sample.items))
        columns = [name for name in rows.column_names if name not in _APART]
        for column, differ in rows_that_differ(rows.take(places), made.take(), columns).items():
            for row in differ:
                found.say(f"record {places[row]} (document {names[places[row]][0]}): {column} differs in the catalog")
    found.soft = np.array(soft, SOFT)


def _reads(sizes: np.ndarray) -> Iterator[tuple[int, int]]:
    """Ranges of records to read at once: few enough, and not too large."""
    start, total = 0, 0
    for place, size in enumerate(sizes.tolist()):
        if place > start and (place - start >= _RECORDS or total + size > _BYTES):
            yield start, place
            start, total = place, 0
        total += size
    if start < len(sizes):
        yield start, len(sizes)


def _read(files: RecordFiles, start: int, stop: int) -> list[bytes | str]:
    """Records, or what is wrong with each where a damaged chunk fails the whole call."""
    try:
        return list(files.read(0, range(start, stop)))
    except RunError:
        pass
    records: list[bytes | str] = []
    for place in range(start, stop):
        try:
            records.extend(files.read(0, [place]))
        except RunError as error:
            records.append(error.why if isinstance(error, DamagedRecord) else _line(error))
    return records


class _CodePlaces:
    """Where a shard's catalog says that the codes of each item lie, which is how a batch reads them."""

    def __init__(self, rows: Any, codecs: tuple[str, ...]) -> None:
        self._offsets = item_table(rows.select(item_columns()), codecs).offsets
        self._offset, self._width = code_places(rows)

    def problems(self, place: int, record: bytes, sample: Sample) -> Iterator[str]:
        data = first_bytes(record)
        start, stop = self._offsets[place : place + 2].tolist()
        if stop - start != len(sample.items):
            yield f"the catalog has {stop - start} items, the record {len(sample.items)}"
            return
        for number, item in enumerate(sample.items):
            offset, width = int(self._offset[start + number]), int(self._width[start + number])
            if (width == 0) != (item.codes is None):
                yield f"item {number} is soft in only one of catalog and record"
            elif item.codes is not None:
                raw = data[offset : offset + item.codes.size * width]
                if len(raw) < item.codes.size * width or offset < 0:
                    yield f"item {number} has its codes beyond the record's, says the catalog"
                elif not np.array_equal(np.frombuffer(raw, f"<u{width}"), item.codes.reshape(-1)):
                    yield f"item {number} has other codes where the catalog looks for them"


def _sample_problems(sample: Sample, specs: dict[str, CodecSpec]) -> Iterator[str]:
    """What codecs and shapes say of a sample's items."""
    for number, item in enumerate(sample.items):
        if item.kind == "video" and len(item.times) not in (0, item.grid[0]):
            yield f"item {number} has {len(item.times)} times for {item.grid[0]} frames"
        if item.start_s > item.end_s:
            yield f"item {number} ends at {item.end_s} s before it starts at {item.start_s} s"
        if item.codes is not None:
            for what in _code_problems(item, specs):
                yield f"item {number} {what}"


def _code_problems(item: Item, specs: dict[str, CodecSpec]) -> Iterator[str]:
    assert item.codes is not None
    spec = specs.get(item.codec)
    if spec is None:
        yield f"has codec {item.codec!r}, the manifest lists {sorted(specs)}"
        return
    if spec.kind != item.kind and (item.kind, spec.kind) != ("video", "image"):  # frames by an image codec
        yield f"is {item.kind} of an {spec.kind} codec, {spec.name}"
    T, K = item.codes.shape
    t, h, w = item.grid
    if len(spec.codebooks) != K:
        yield f"has {K} codebooks, {spec.name} has {len(spec.codebooks)}"
    elif T and ((item.codes.max(axis=0) >= np.array(spec.codebooks)) | (item.codes.min(axis=0) < 0)).any():
        low, high = item.codes.min(), item.codes.max()
        yield f"has codes from {low} to {high}, {spec.name} has codebooks of {spec.codebooks}"
    if item.kind in ("image", "video") and (t * h * w != T or (item.kind == "image" and t != 1)):
        yield f"has {T} code frames in a grid of {t} x {h} x {w}"
    if (item.kind == "audio" and item.grid != (T, 0, 0)) or (item.kind == "text" and item.grid != (0, 0, 0)):
        yield f"is {item.kind} of {T} code frames with a grid of {item.grid}"
    ends = item.sentence_ends
    if len(ends) and (ends[0] < 0 or ends[-1] > T or (np.diff(ends) < 0).any()):
        yield f"has sentence ends outside its {T} tokens, or in disorder"


def _media_problems(medium: Media, digest: str, kind: str, form: str) -> Iterator[str]:
    if (medium.digest, medium.kind) != (digest, kind):
        yield f"of the index is {medium.kind} {medium.digest} in its record"
    if medium.form != form:
        yield f"is {medium.form}, the source keeps {form}"
    if isinstance(medium.data, bytes) and hashlib.sha256(medium.data).hexdigest() != digest:
        yield "has bytes of another digest"
    if len(medium.times) and isinstance(medium.data, np.ndarray) and len(medium.times) != len(medium.data):
        yield f"has {len(medium.times)} times for {len(medium.data)} frames"


def _soft_grid(medium: Media) -> tuple[int, ...]:
    """The grid of a soft item that refers to a medium."""
    if not isinstance(medium.data, np.ndarray):
        return (-1, -1, -1)
    shape = medium.data.shape
    return {"audio": (*shape, 0, 0), "image": (1, *shape[:2])}.get(medium.kind, shape[:3])


def _key(digest: str, kind: str) -> bytes:
    return bytes.fromhex(digest)[:32].ljust(32, b"\0") + bytes([KINDS.index(kind)])


def _size(item: Item) -> int:
    return 0 if item.codes is None else item.codes.size


def _line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:300]
