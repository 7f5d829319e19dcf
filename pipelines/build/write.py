"""The write stage: shards out of the places that the shuffle chose, then the source's folder with its manifest.

Everything is put together under OUT/.work and linked into place by one rename, so a reader sees a whole source or none.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmdata.catalog import in_order, read_rows
from mmdata.codec_files import keep_codec
from mmdata.manifest import MANIFEST, fingerprint_of, finish_source, read_json, write_dataset_manifest
from mmdata.media import Media, MediaInfo, write_media_shard
from mmdata.shards import ShardInfo, write_encoded_shard
from pipelines.build.encoded import INDEX, MEDIA, ROWS, SAMPLES
from pipelines.build.shuffle import MEDIA_PLACES, PLACES, UNITS
from pipelines.build.units import Counts, Unit, read_lines, sync
from pipelines.build.worker import Call
from tokenizer.codec import CodecSpec
from tokenizer.codecs import CodecFile

if TYPE_CHECKING:
    import pyarrow as pa

_MAX_OPEN = 200


@dataclass(frozen=True)
class WriteArgs:
    encoded: Path  # folder of all encode units of the source: they are named in the shuffle unit's
    places: Path  # folder of the shuffle unit
    split: str
    index: int
    num_shards: int


@dataclass(frozen=True)
class MediaArgs:
    encoded: Path
    places: Path
    form: str  # keep_media of the recipe
    index: int
    num_shards: int


@dataclass(frozen=True)
class FinishArgs:
    written: tuple[Path, ...]  # folders of the write and media units
    shards: tuple[dict[str, Any], ...]
    codecs: tuple[CodecSpec, ...]
    settings: dict[str, Any]
    media: MediaInfo
    codec_files: tuple[CodecFile, ...] = ()


def write(call: Call, unit: Unit, folder: Path) -> Counts:
    """One shard with its catalog."""
    args: WriteArgs = unit.args
    places = np.load(args.places / PLACES.format(split=args.split, index=args.index))
    records, name = _records(call, args, places), (unit.source, args.split, args.index, args.num_shards)
    info = write_encoded_shard(folder, *name, records, lambda: _rows(call, args, places))
    return {"shard": info.to_json()}


def _records(call: Call, args: WriteArgs, places: np.ndarray) -> Iterator[bytes]:
    """The records, which the encode stage made as they are stored."""
    folders = _folders(args)
    files: dict[int, FileIO] = {}
    try:
        for number, offset, length in places.tolist():
            call.at(f"{args.split}-{args.index}")
            if number not in files:
                if len(files) >= _MAX_OPEN:
                    files.pop(next(iter(files))).close()
                files[number] = (folders(number) / SAMPLES).open("rb", buffering=0)
            # Not mapped: all that a map has read of a source would count as this process's memory
            yield os.pread(files[number].fileno(), length, offset)
    finally:
        for file in files.values():
            file.close()


def _rows(call: Call, args: WriteArgs, places: np.ndarray) -> pa.Table:
    """The catalog rows of the records, in their order."""
    folders = _folders(args)
    by_unit = np.argsort(places["unit"], kind="stable")
    parts = []
    for run in np.split(by_unit, np.flatnonzero(np.diff(places["unit"][by_unit])) + 1) if len(places) else ():
        call.at(f"{args.split}-{args.index}")
        folder = folders(int(places["unit"][run[0]]))
        begins = np.load(folder / INDEX)["offset"]
        parts.append(read_rows(folder / ROWS, np.searchsorted(begins, places["offset"][run])))
    return in_order(parts, np.argsort(by_unit))


def _folders(args: WriteArgs | MediaArgs) -> Callable[[int], Path]:
    """The folder of an encode unit by its number in the places."""
    names = json.loads((args.places / UNITS).read_text("ascii"))
    return lambda number: args.encoded / names[number]


def write_kept_media(call: Call, unit: Unit, folder: Path) -> Counts:
    """One shard of kept media."""
    args: MediaArgs = unit.args
    shard = write_media_shard(folder, args.index, args.num_shards, _media(call, args))
    return {"shard": shard.to_json()}


def _media(call: Call, args: MediaArgs) -> Iterator[Media]:
    folders = _folders(args)
    for row in read_lines(args.places / MEDIA_PLACES.format(index=args.index)):
        call.at(row["digest"])
        with (folders(row["unit"]) / MEDIA).open("rb") as file:
            file.seek(row["offset"])
            data = file.read(row["length"])
        if args.form == "original":
            yield Media(row["digest"], row["kind"], data)
            continue
        array = np.frombuffer(data, "<i2" if row["kind"] == "audio" else "u1").reshape(row["shape"])
        times = np.array(row.get("times", []), np.float32)
        yield Media(row["digest"], row["kind"], array, row.get("sample_rate_hz", 0), times)


def finish(call: Call, unit: Unit, folder: Path) -> Counts:
    """The whole folder of a source: linked shards, and its manifest, which is written last."""
    args: FinishArgs = unit.args
    for path in args.written:
        call.at(str(path))
        link_tree(path, folder)
    shards = [ShardInfo.from_json(shard) for shard in args.shards]
    kept = [keep_codec(folder, file) for file in args.codec_files]
    finish_source(folder, unit.source, shards, args.codecs, args.settings, args.media, kept)
    return {"bytes": sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())}


def publish(finished: Path, place: Path, work: Path) -> None:
    """Put the finished folder in `place` by one rename; an older one there loses its manifest first."""
    if place.exists():
        (place / MANIFEST).unlink(missing_ok=True)
        sync(place)
    temporary = work / f"{place.name}.{os.getpid()}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    link_tree(finished, temporary)
    for folder in [temporary, *(p for p in temporary.rglob("*") if p.is_dir())]:
        sync(folder)
    shutil.rmtree(place, ignore_errors=True)
    os.replace(temporary, place)
    sync(place.parent)


def link_tree(source: Path, place: Path) -> None:
    """The files of `source` under `place` too: hard links where the disk has them, else copies."""
    for path in sorted(source.rglob("*")):
        target = place / path.relative_to(source)
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            link_file(path, target)


def link_file(path: Path, target: Path) -> None:
    """The file under another name too: a hard link where the disk has them, else a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, target)
    except OSError:
        shutil.copy2(path, target)
        sync(target)


def publish_dataset(finished: Mapping[str, Path], out: Path, work: Path, empty: Iterable[str] = ()) -> None:
    """Put finished sources in place, in the dataset's order, then the dataset's manifest. `empty`: those of which no
    document is kept any more."""
    unpublish(empty, out)
    for name, folder in finished.items():
        if not is_published(folder, out / name):
            (out / MANIFEST).unlink(missing_ok=True)
            publish(folder, out / name, work)
    write_dataset_manifest(out, list(finished))


def unpublish(names: Iterable[str], out: Path) -> None:
    """Take away sources of which no document is kept any more; without its manifest a dataset is none."""
    for name in names:
        if (out / name).exists():
            (out / MANIFEST).unlink(missing_ok=True)
            (out / name / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(out / name)


def is_published(finished: Path, place: Path) -> bool:
    """Whether the folder in place is this one."""
    ours, theirs = finished / MANIFEST, place / MANIFEST
    return theirs.exists() and ours.read_bytes() == theirs.read_bytes()


def fingerprint(place: Path) -> str:
    """Of a finished source; "" where there is none."""
    return fingerprint_of(read_json(place)) if (place / MANIFEST).exists() else ""
