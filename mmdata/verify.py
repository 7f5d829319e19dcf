"""`mmdata verify DIR`: is every byte what its manifest says, and do records, catalog, codes, media and plans agree?

A problem is a line of the report, never an exception, so that one damaged shard does not hide the next. Each file is
looked at by itself, by any number of processes, and the report is the same for all of them: its lines stand in stored
order. What several files tell together is judged here, from facts of 8 bytes a document and 45 or 53 a soft item or
kept medium. A process holds one catalog and some 16 MB of records (or one, if it is larger) at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.catalog import read_catalog
from mmdata.checks import KEPT, Found, check_media, check_shard, describe_key
from mmdata.dataset import Source, open_source
from mmdata.errors import UserError
from mmdata.manifest import read_json
from mmdata.media import media_shard_of
from mmdata.plan_checks import check_plan
from mmdata.pool import Lost, num_cores, run_each
from mmdata.remote import url_of
from mmdata.shards import SPLITS
from mmdata.tfds import shard_lengths
from tokenizer.codec import CodecSpec

_COUNTS = ("sources", "shards", "samples", "items", "codes", "bytes", "media", "plans", "entries", "entries_measured")
_BYTES_A_WORKER = 32 << 20  # less is checked before another process has started


@dataclass(frozen=True)
class Report:
    """What was looked at, and what is wrong: (file or source, what). `entries_measured` are those of plans whose layout
    is known here, so that their lengths could be measured."""

    checked: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_COUNTS, 0))
    problems: list[tuple[str, str]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        return {"ok": self.ok, "checked": self.checked, "problems": [list(p) for p in self.problems]}


def verify(
    folder: str | Path,
    full: bool = True,
    workers: int = 1,
    layouts: Sequence[str] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Check a dataset, or the folder of one source. `full=False` checks manifests, catalogs, sizes and checksums only
    and decodes no record.

    workers: processes; 0: one a core, fewer where there is little to check; 1: none but this one. With more, a script
        needs the usual `if __name__ == "__main__":`, as processes are spawned
    layouts: paths of layout files beside the shipped ones, for cached plans
    progress(files done, files in all) is called as files are done

    UserError: no dataset. RunError: worker processes do not start.
    """
    if url := url_of(folder):
        raise UserError(f"{url} is not on this machine: copy the dataset here, then verify its folder")
    if workers < 0:
        raise UserError(f"workers is {workers}: use 1 or more, or 0 for one a core")
    if url := url_of(folder):
        raise UserError(f"{url} is not on this machine: copy the dataset here, then verify its folder")
    report = Report()
    sources = _open(Path(folder), report)
    codecs = tuple({codec.name: codec for source in sources for codec in source.codecs}.values())
    files = [file for source in sources for file in _files_of(source, full, codecs, tuple(layouts))]
    if workers == 0:
        workers = min(num_cores(), 1 + sum(map(_num_bytes, sources)) // _BYTES_A_WORKER)
    done = count(1)
    answers = run_each(_check, files, workers, lambda _: progress(next(done), len(files)))
    for source in sources:
        mine = [_found(file, answer) for file, answer in zip(files, answers) if file.folder == source.folder]
        _judge_together(source, mine)
        report.checked["sources"] += 1
        report.problems.extend((source.name, what) for what in _source_problems(source))
        for found in mine:
            report.problems.extend(found.lines())
            for what, number in found.checked.items():
                report.checked[what] += number
    return report


def _open(folder: Path, report: Report) -> list[Source]:
    """The sources that can be opened; why the others cannot is put down in the report."""
    manifest = read_json(folder)
    alone: list[dict[str, Any]] = [{"name": "", "fingerprint": None}]
    listed = manifest["sources"] if manifest["kind"] == "dataset" else alone
    sources = []
    for entry in listed:
        try:
            source = open_source(folder / entry["name"])
        except (ValueError, KeyError, TypeError) as error:
            report.problems.append(((folder / entry["name"]).name, str(error)))
            continue
        sources.append(source)
        if entry["fingerprint"] not in (None, source.fingerprint):
            words = f"fingerprint {source.fingerprint}, the dataset lists {entry['fingerprint']}"
            report.problems.append((source.name, words))
    return sources


@dataclass(frozen=True)
class _File:
    """A file to look at: a shard with its catalog, a codec's file, a shard of media or a cached plan."""

    folder: Path  # of the source
    kind: str
    number: int  # in the manifest's list of its kind, or of the plans
    name: str  # source/file
    full: bool
    codecs: tuple[CodecSpec, ...]  # of all sources: a plan's layout may be bound over them
    layouts: tuple[str, ...]


def _files_of(source: Source, full: bool, codecs: tuple[CodecSpec, ...], layouts: tuple[str, ...]) -> list[_File]:
    manifest = source.manifest
    names = {
        "shard": [shard.file for shard in manifest.shards],
        "codec": [kept.file for kept in manifest.codec_files],
        "media": [f"media/{shard.file}" for shard in manifest.media.shards],
        "plan": [f"plans/{path.name}" for path in _plans(source.folder)] if full else [],
    }
    return [
        _File(source.folder, kind, number, f"{source.name}/{name}", full, codecs, layouts)
        for kind, listed in names.items()
        for number, name in enumerate(listed)
    ]


def _num_bytes(source: Source) -> int:
    shards = sum(shard.bytes for shard in source.manifest.shards)
    return shards + sum(shard.bytes for shard in source.manifest.media.shards)


def _plans(folder: Path) -> list[Path]:
    return sorted((folder / "plans").glob("*.safetensors"))


@lru_cache(maxsize=8)
def _source(folder: Path) -> Source:
    return open_source(folder)


def _check(file: _File) -> Found:
    """Look at one file, in whatever process."""
    source = _source(file.folder)
    if file.kind == "shard":
        return check_shard(source, source.manifest.shards[file.number], file.full)
    if file.kind == "media":
        return check_media(source, file.number, file.full)
    if file.kind == "plan":
        path = file.folder / "plans" / Path(file.name).name
        return check_plan(source, path, (source.codecs, file.codecs), file.layouts)
    found = Found(file.name)
    if problem := source.manifest.codec_files[file.number].problem(file.folder):
        found.say(problem)
    return found


def _found(file: _File, answer: Found | Lost) -> Found:
    if isinstance(answer, Found):
        return answer
    found = Found(file.name)
    found.say(f"not checked: two processes died of it ({answer.cause}); try --workers 1")
    return found


def _source_problems(source: Source) -> Iterator[str]:
    """What is wrong with the manifest, and with TFDS's own list of the shards."""
    written = read_json(source.folder)
    if changed := [k for k, v in source.manifest.to_json().items() if written.get(k) != v]:
        yield f"the manifest disagrees with itself in {changed}"
    try:
        listed = shard_lengths(source.folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        yield f"dataset_info.json cannot be read: {error}"
        return
    for split in SPLITS:
        lengths = [shard.samples for shard in source.manifest.of_split(split)]
        if listed.get(split, []) != lengths:
            yield f"dataset_info.json lists {split} shards of {listed.get(split, [])} samples, the manifest {lengths}"


def _judge_together(source: Source, found: Sequence[Found]) -> None:
    """Add what only several files together show: a document twice, soft items whose medium is not (so) kept."""
    shards = found[: len(source.manifest.shards)]
    for shard, place, other, before in _repeats([one.ids for one in shards]):
        name, first = (_id_at(source, s, p) for s, p in ((shard, place), (other, before)))
        if name == first:  # and not only their hashes
            where = source.manifest.shards[other].file
            shards[shard].say(f"record {place}: document {name} is in {where} record {before} too")
    media = [one for one in found if one.where.startswith(f"{source.name}/media/")]
    kept = np.concatenate([np.zeros(0, KEPT), *(one.kept for one in media)])
    kept = kept[np.argsort(kept["key"], kind="stable")]
    whole = np.array([not one.problems for one in media], bool)
    for number, one in enumerate(shards):
        soft = one.soft
        if len(media):  # a shard of media that cannot be trusted has lines of its own: no line for each of its items
            soft = soft[whole[[media_shard_of(key[:-1].hex(), len(media)) for key in soft["key"].tolist()]]]
        for item, medium in _wrong_soft(soft, kept):
            record = int(item["record"])
            what = f"item {item['item']} is soft and its {describe_key(item['key'])} is not kept"
            if medium is not None:
                grids = tuple(medium["grid"].tolist()), tuple(item["grid"].tolist())
                what = f"item {item['item']} has grid {grids[1]}, its {describe_key(item['key'])} is kept as {grids[0]}"
            one.say(f"record {record} (document {_id_at(source, number, record)}): {what}")


def _repeats(ids: Sequence[np.ndarray]) -> Iterator[tuple[int, int, int, int]]:
    """(shard, place, shard of the first one, its place) of every hash that came before, in stored order."""
    hashes = np.concatenate([np.zeros(0, np.uint64), *ids])
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    again = np.flatnonzero(ordered[1:] == ordered[:-1]) + 1
    first = order[np.searchsorted(ordered, ordered[again])]
    bounds = np.cumsum([0, *map(len, ids)])
    for now, before in sorted(zip(order[again].tolist(), first.tolist())):
        a, b = (int(np.searchsorted(bounds, x, "right")) - 1 for x in (now, before))
        yield a, now - int(bounds[a]), b, before - int(bounds[b])


def _wrong_soft(soft: np.ndarray, kept: np.ndarray) -> Iterator[tuple[Any, Any]]:
    """(soft item, kept medium or None where there is none) of those that do not fit; `kept` by its keys."""
    if not len(kept):
        yield from ((item, None) for item in soft)
        return
    media = kept[np.minimum(np.searchsorted(kept["key"], soft["key"]), len(kept) - 1)]
    there = media["key"] == soft["key"]
    fits = (media["grid"] == soft["grid"]).all(axis=1) | (media["grid"] < 0).all(axis=1)
    for place in np.flatnonzero(~(there & fits)):
        yield soft[place], media[place] if there[place] else None


def _id_at(source: Source, shard: int, place: int) -> str:
    info = source.manifest.shards[shard]
    return str(read_catalog([source.folder / info.catalog], ["id"]).column("id")[place].as_py())
