"""`mmdata verify DIR`: is every byte what its manifest says, and do records, catalog and codes agree?

A problem is a line of the report, never an exception, so that one damaged shard does not hide the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.catalog import catalog_digest, read_catalog, record_digest, stored_catalog
from mmdata.commit import sha256_of
from mmdata.dataset import Source, open_source
from mmdata.errors import UserError
from mmdata.manifest import read_json
from mmdata.media import Media
from mmdata.remote import url_of
from mmdata.sample import Sample
from mmdata.shards import RecordFiles, ShardInfo, decode_sample
from tokenizer.codec import CodecSpec
from tokenizer.item import Item

_BATCH = 512  # records a read
_MOST = 20  # problems listed of one shard: the rest of a damaged shard says nothing new

Soft = dict[tuple[str, str], dict[tuple[int, int, int], str]]  # (digest, kind) -> grid -> a document that says so


@dataclass(frozen=True)
class Report:
    """What was looked at, and what is wrong: (file or source, what)."""

    checked: dict[str, int] = field(default_factory=dict)  # shards, samples, items, codes, bytes, media
    problems: list[tuple[str, str]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        return {"ok": self.ok, "checked": self.checked, "problems": [list(p) for p in self.problems]}


def verify(folder: str | Path, full: bool = True, progress: Callable[[str], None] = lambda _: None) -> Report:
    """Check a dataset, or the folder of one source. `full=False` checks manifests, sizes and checksums only and decodes
    no record. `progress` is called with the name of each file before it is read. UserError: no dataset."""
    if url := url_of(folder):
        raise UserError(f"{url} is not on this machine: copy the dataset here, then verify its folder")
    folder = Path(folder)
    manifest = read_json(folder)
    report = Report({key: 0 for key in ("sources", "shards", "samples", "items", "codes", "bytes", "media")})
    if manifest["kind"] == "source":
        _verify_source(folder, None, report, full, progress)
    else:
        for entry in manifest["sources"]:
            _verify_source(folder / entry["name"], entry["fingerprint"], report, full, progress)
    return report


def _verify_source(
    folder: Path, fingerprint: str | None, report: Report, full: bool, progress: Callable[[str], None]
) -> None:
    try:
        source = open_source(folder)
    except (ValueError, KeyError, TypeError) as error:
        report.problems.append((folder.name, str(error)))
        return
    report.checked["sources"] += 1
    if fingerprint and source.fingerprint != fingerprint:
        report.problems.append((source.name, f"fingerprint {source.fingerprint}, the dataset lists {fingerprint}"))
    written = read_json(folder)
    if changed := [k for k, v in source.manifest.to_json().items() if written.get(k) != v]:
        report.problems.append((source.name, f"the manifest disagrees with itself in {changed}"))
    seen: dict[str, str] = {}
    soft: Soft = {}
    for shard in source.manifest.shards:
        progress(f"{source.name}/{shard.file}")
        _list(report, f"{source.name}/{shard.file}", list(_shard_problems(source, shard, report, full, seen, soft)))
    for kept in source.manifest.codec_files:
        progress(f"{source.name}/{kept.file}")
        _list(report, f"{source.name}/{kept.file}", [problem] if (problem := kept.problem(folder)) else [])
    _list(report, f"{source.name}/media", list(_media_problems(source, report, full, progress, soft)))


def _list(report: Report, where: str, problems: list[str]) -> None:
    report.problems.extend((where, what) for what in problems[:_MOST])
    if len(problems) > _MOST:
        report.problems.append((where, f"and {len(problems) - _MOST} more problems"))


def _shard_problems(
    source: Source, shard: ShardInfo, report: Report, full: bool, seen: dict[str, str], soft: Soft
) -> Iterator[str]:
    path = source.folder / shard.file
    report.checked["shards"] += 1
    if not path.is_file():
        yield "the file is missing"
        return
    size = path.stat().st_size
    report.checked["bytes"] += size
    if size != shard.bytes:
        yield f"{size} bytes, the manifest says {shard.bytes}"
    if sha256_of(path) != shard.sha256:
        yield "the sha256 is not the manifest's: the bytes have changed"
    try:
        rows = read_catalog([source.folder / shard.catalog])
    except Exception as error:  # a damaged Parquet file fails in many ways
        yield f"{shard.catalog} cannot be read: {str(error).splitlines()[0]}"
        return
    if catalog_digest(stored_catalog(source.folder / shard.catalog)) != shard.catalog_digest:
        yield f"the values of {shard.catalog} are not those the manifest names"
    if rows.num_rows != shard.samples:
        yield f"{shard.catalog} has {rows.num_rows} rows, the manifest says {shard.samples} samples"
        return
    for name, n in (("split", shard.split), ("shard", shard.index)):
        if set(rows.column(name).to_pylist()) - {n}:
            yield f"{shard.catalog} has rows of another {name} than {n!r}"
    if full:
        yield from _record_problems(source, shard, rows, report, seen, soft)


def _record_problems(
    source: Source, shard: ShardInfo, rows: Any, report: Report, seen: dict[str, str], soft: Soft
) -> Iterator[str]:
    files = RecordFiles([source.folder / shard.file])
    specs = {codec.name: codec for codec in source.codecs}
    kept = _kept(source)
    split = source.splits[shard.split]
    base = int(split.shard_bounds[shard.index])
    digests, ids = rows.column("record").to_pylist(), rows.column("id").to_pylist()
    clusters, places = rows.column("cluster").to_pylist(), rows.column("index").to_pylist()
    counts: dict[str, dict[str, int]] = {kind: dict.fromkeys(sums, 0) for kind, sums in shard.counts.items()}
    for start in range(0, shard.samples, _BATCH):
        stop = min(start + _BATCH, shard.samples)
        for place, record in zip(range(start, stop), _read(files, start, stop)):
            if isinstance(record, str):
                yield f"record {place}: {record}"
                continue
            if record_digest(record) != digests[place]:
                yield f"record {place} is not the one the catalog names (digest)"
            try:
                sample = decode_sample(record)
            except ValueError as error:
                yield f"record {place}: {error}"
                continue
            if (sample.id, sample.cluster, place) != (ids[place], clusters[place], places[place]):
                yield f"record {place} is document {sample.id}, the catalog says {ids[place]} at {places[place]}"
            if other := seen.get(sample.id):
                yield f"record {place}: document {sample.id} is in {other} too"
            seen[sample.id] = f"{shard.file} record {place}"
            for what in _sample_problems(sample, specs, kept):
                yield f"record {place} (document {sample.id}): {what}"
            try:
                differences = list(_table_problems(sample, split.items_of(base + place, record)))
            except (ValueError, IndexError) as error:
                differences = [f"the catalog's shapes do not fit the record: {error}"]
            for what in differences:
                yield f"record {place} (document {sample.id}): {what}"
            report.checked["samples"] += 1
            for item in sample.items:
                report.checked["items"] += 1
                report.checked["codes"] += 0 if item.codes is None else item.codes.size
                _count(counts, item)
                if item.is_soft:
                    soft.setdefault((item.digest, item.kind), {}).setdefault(item.grid, sample.id)
    if counts != shard.counts:
        wrong = [kind for kind in counts if counts[kind] != shard.counts[kind]]
        for kind in wrong:
            yield f"the manifest counts {shard.counts[kind]} of {kind}, found {counts[kind]}"


def _kept(source: Source) -> set[tuple[str, str]]:
    """(digest, kind) of the media that are kept."""
    try:
        return set(source.media)
    except Exception:  # a damaged index is a problem of the media, named there
        return set()


def _read(files: RecordFiles, start: int, stop: int) -> list[bytes | str]:
    """Records, or what is wrong with each where a damaged chunk fails the whole call."""
    try:
        return list(files.read(0, range(start, stop)))
    except RuntimeError:
        pass
    records: list[bytes | str] = []
    for place in range(start, stop):
        try:
            records.extend(files.read(0, [place]))
        except RuntimeError as error:
            records.append(str(error))
    return records


def _sample_problems(sample: Sample, specs: dict[str, CodecSpec], kept: set[tuple[str, str]]) -> Iterator[str]:
    """What codecs, shapes and the digests of kept media say of a sample's items."""
    for number, item in enumerate(sample.items):
        t, h, w = item.grid
        if item.kind == "video" and len(item.times) not in (0, t):
            yield f"item {number} has {len(item.times)} times for {t} frames"
        if item.start_s > item.end_s:
            yield f"item {number} ends at {item.end_s} s before it starts at {item.start_s} s"
        if item.codes is None:
            if (item.digest, item.kind) not in kept:
                yield f"item {number} is soft and its {item.kind} {item.digest or 'without digest'} is not kept"
            continue
        spec = specs.get(item.codec)
        if spec is None:
            yield f"item {number} has codec {item.codec!r}, the manifest lists {sorted(specs)}"
            continue
        T, K = item.codes.shape
        if len(spec.codebooks) != K:
            yield f"item {number} has {K} codebooks, {spec.name} has {len(spec.codebooks)}"
        elif T and (item.codes.max(axis=0) >= np.array(spec.codebooks)).any():
            yield f"item {number} has codes up to {item.codes.max()}, {spec.name} has codebooks of {spec.codebooks}"
        if item.kind in ("image", "video") and t * h * w != T:
            yield f"item {number} has {T} code frames in a grid of {t} x {h} x {w}"
        ends = item.sentence_ends
        if len(ends) and (ends[0] < 0 or ends[-1] > T or (np.diff(ends) < 0).any()):
            yield f"item {number} has sentence ends outside its {T} tokens, or in disorder"


def _table_problems(sample: Sample, read: list[Item]) -> Iterator[str]:
    """Where the items built from catalog and codes, as the loader reads them, differ from the record's own."""
    if len(read) != len(sample.items):
        yield f"the catalog has {len(read)} items, the record {len(sample.items)}"
        return
    plain = ("kind", "codec", "grid", "role", "group", "group_role")
    arrays = ("start_s", "end_s", "times", "sentence_ends")
    for number, (a, b) in enumerate(zip(sample.items, read)):
        differ = [name for name in plain if getattr(a, name) != getattr(b, name)]
        differ += [n for n in arrays if not np.array_equal(getattr(a, n), getattr(b, n), equal_nan=True)]
        if a.codes is not None and (b.codes is None or not np.array_equal(a.codes, b.codes)):
            differ.append("codes")
        if differ:
            yield f"item {number} differs between catalog and record in {differ}"


def _count(counts: dict[str, dict[str, int]], item: Item) -> None:
    sums = counts.setdefault(item.kind, {})
    sums["items"] = sums.get("items", 0) + 1
    sums["codes"] = sums.get("codes", 0) + (0 if item.codes is None else item.codes.size)
    if item.kind == "video":
        sums["frames"] = sums.get("frames", 0) + item.grid[0]
    if item.is_soft:
        counts["soft"]["items"] += 1


def _media_problems(
    source: Source, report: Report, full: bool, progress: Callable[[str], None], soft: Soft
) -> Iterator[str]:
    for shard in source.manifest.media.shards:
        path = source.folder / "media" / shard.file
        progress(f"{source.name}/media/{shard.file}")
        if not path.is_file():
            yield f"{shard.file} is missing"
            continue
        report.checked["bytes"] += path.stat().st_size
        if path.stat().st_size != shard.bytes or sha256_of(path) != shard.sha256:
            yield f"{shard.file}: the bytes are not those the manifest names"
    if not full:
        return
    try:
        for digest, kind in source.media:
            medium = source.media.get(digest, kind)
            report.checked["media"] += 1
            if (medium.digest, medium.kind) != (digest, kind):
                yield f"the index names {kind} {digest}, its record is {medium.kind} {medium.digest}"
            if medium.form != source.media.form:
                yield f"{kind} {digest} is {medium.form}, the source keeps {source.media.form}"
            for grid, document in soft.get((digest, kind), {}).items():
                if (found := _soft_grid(medium)) not in (None, grid):
                    yield f"{kind} {digest} is kept as {found}, document {document} says {grid}"
    except Exception as error:  # a damaged Parquet file fails in many ways
        yield f"media cannot be read: {str(error).splitlines()[0]}"


def _soft_grid(medium: Media) -> tuple[int, ...] | None:
    """The grid of a soft item that refers to a medium; None where only its bytes are kept."""
    if not isinstance(medium.data, np.ndarray):
        return None
    shape = medium.data.shape
    return {"audio": (*shape, 0, 0), "image": (1, *shape[:2])}.get(medium.kind, shape[:3])
