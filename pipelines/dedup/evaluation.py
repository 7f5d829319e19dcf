"""Evaluation sets as an index that documents are held against: n-grams of their texts, looks and sounds of their media.

A benchmark is a file of records or lines (`mmlu/test` and `arc/test` where both are `test.jsonl`), or the folder right
below the path named, or that path. Its items are the records of JSONL, JSON and Parquet files, the lines of CSV and TSV
files, and whole files of text, pictures, sounds and videos. Every string of a record and every cell of a line counts by
itself: those of 13 words and more by their 13-grams, those of 8 to 12 by their 8-grams, and so do the lines of a text
file beside the whole; shorter ones say nothing. Files that are not read are noted with the reason.
The index is held in memory: 12 bytes an n-gram, 4.4 kB a sound, 68 bytes a video.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.errors import UserError
from pipelines.build.inputs import touched
from pipelines.build.units import Counts, Unit, read_lines, write_lines
from pipelines.build.worker import Call
from pipelines.dedup.sign import SOUND_DTYPE, VIDEO_DTYPE, sound_row, video_row
from pipelines.dedup.sounds import RATE_HZ, SHIFTS, audio_bits
from pipelines.dedup.words import ngram_hashes, word_hashes, words_of
from pipelines.ingest.files import AUDIO, IMAGE, VIDEO
from pipelines.ingest.looks import look_of, video_look
from pipelines.ingest.media import Limits, MediaError

LONG, SHORT = 13, 8  # words of an n-gram: as GPT-3 and lm-eval have it; and for texts that have no 13

FORMATS = "JSONL, JSON, CSV, TSV, Parquet, text, pictures, sounds and videos"
NOT_READ = f"not a format that is read ({FORMATS})"

_RECORDS = (".jsonl", ".ndjson", ".json")
_LINES = (".csv", ".tsv")
_TEXTS = (".txt", ".md", ".text")
_PARQUET = ".parquet"
_ITEMS, _BYTES = "items.jsonl", "bytes.jsonl"
_LOOKS, _SOUNDS, _SOUND_ITEMS = "looks.npy", "sounds.npy", "of_sounds.npy"
_VIDEOS, _VIDEO_ITEMS = "videos.npy", "of_videos.npy"
_MAX_CELL = 1 << 30  # characters of a CSV cell; the module's own limit is 131,072
_GRAM_DTYPE = np.dtype([("hash", "<u8"), ("item", "<i4")])


@dataclass(frozen=True)
class Item:
    """One question, text, picture, sound or video of a benchmark. `checked`: there is something to tell it by."""

    benchmark: str
    uri: str
    checked: bool = True


@dataclass(frozen=True, eq=False)
class Index:
    """All items of all benchmarks, ready to be met."""

    items: tuple[Item, ...]
    # n -> hashes uint64 [g], sorted, and their items int32 [g]: of an n-gram that several have, the first
    grams: dict[int, tuple[np.ndarray, np.ndarray]]
    looks: np.ndarray  # _GRAM_DTYPE
    sounds: np.ndarray  # SOUND_DTYPE
    of_sounds: np.ndarray  # int32: their items
    videos: np.ndarray  # VIDEO_DTYPE
    of_videos: np.ndarray  # int32: their items
    sha256: dict[str, int]  # of media files -> item
    unread: tuple[tuple[str, str], ...] = ()  # file, and why it is not compared, or by its bytes only

    def benchmarks(self) -> dict[str, list[int]]:
        """Name -> its items, and those of them that there is nothing to tell by."""
        found: dict[str, list[int]] = {}
        for item in self.items:
            counts = found.setdefault(item.benchmark, [0, 0])
            counts[0] += 1
            counts[1] += not item.checked
        return found


@dataclass(frozen=True)
class IndexArgs:
    paths: tuple[Path, ...]
    limits: Limits


def state_of(paths: Iterable[Path]) -> list[Any]:
    """Sizes and times of all files, for a unit's fingerprint."""
    return [[benchmark, uri, touched(path)] for benchmark, uri, path in _files(paths)]


def make_index(call: Call, unit: Unit, folder: Path) -> Counts:
    """The index of `unit.args`, an IndexArgs, into `folder`. Counts: `benchmarks`: name -> its items, and those of them
    that are too short; `unread`: files and why."""
    made = read_evaluation(unit.args.paths, unit.args.limits, call)
    write_lines(folder / _ITEMS, ([item.benchmark, item.uri, item.checked] for item in made.items))
    write_lines(folder / _BYTES, ([digest, item] for digest, item in made.sha256.items()))
    for n, grams in made.grams.items():
        np.savez(folder / f"grams-{n}.npz", hashes=grams[0], items=grams[1])
    np.save(folder / _LOOKS, made.looks)
    np.save(folder / _SOUNDS, made.sounds)
    np.save(folder / _SOUND_ITEMS, made.of_sounds)
    np.save(folder / _VIDEOS, made.videos)
    np.save(folder / _VIDEO_ITEMS, made.of_videos)
    return {"items": len(made.items), "benchmarks": made.benchmarks(), "unread": list(map(list, made.unread))}


def load_index(folder: Path) -> Index:
    """What `make_index` wrote; nothing of `unread`, which decides no match."""
    return Index(
        items=tuple(Item(*row) for row in read_lines(folder / _ITEMS)),
        grams={n: _grams(folder / f"grams-{n}.npz") for n in (LONG, SHORT)},
        looks=np.load(folder / _LOOKS),
        sounds=np.load(folder / _SOUNDS),
        of_sounds=np.load(folder / _SOUND_ITEMS),
        videos=np.load(folder / _VIDEOS),
        of_videos=np.load(folder / _VIDEO_ITEMS),
        sha256=dict(read_lines(folder / _BYTES)),
    )


def _grams(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path) as file:
        return file["hashes"], file["items"]


def read_evaluation(paths: Iterable[Path], limits: Limits, call: Call | None = None) -> Index:
    """The index of these files and folders. UserError for a path that is not there, and where there is no item.

    A file that kills or hangs the worker is left out but for the bytes of a medium, and is among the `unread`."""
    call = call or Call(None)
    rows = _IndexRows(limits)
    for benchmark, uri, path in _files(paths):
        if not benchmark:
            rows.unread.append((uri, NOT_READ))
            continue
        key = f"{benchmark}/{uri}"
        if key not in call.skip:
            call.at(key)
        rows.add(benchmark, uri, path, call.skip.get(key, ""))
    if not rows.items:
        raise UserError(f"no evaluation item in {', '.join(map(str, paths))}; {FORMATS} are read")
    return rows.index()


def check_paths(paths: Iterable[Path]) -> None:
    """UserError for the first that is not there."""
    for path in paths:
        if not path.exists():
            raise UserError(f"no evaluation set {path}; check the path")


class _IndexRows:
    """The rows of an index as they come."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.items: list[Item] = []
        self._grams: dict[int, list[np.ndarray]] = {LONG: [], SHORT: []}
        self._looks: list[tuple[int, int]] = []
        self._sounds: list[tuple[object, ...]] = []
        self._of_sounds: list[int] = []
        self._videos: list[tuple[object, ...]] = []
        self._of_videos: list[int] = []
        self._sha256: dict[str, int] = {}
        self.unread: list[tuple[str, str]] = []

    def add(self, benchmark: str, uri: str, path: Path, poison: str = "") -> None:
        """A file; one that is `poison`, for a cause, is not looked into."""
        if path.suffix.lower() in IMAGE + AUDIO + VIDEO:
            self._medium(benchmark, uri, path, poison)
            return
        if poison:
            self.unread.append((uri, poison))
            return
        for place, texts in _texts(path):
            checked = [self._text(text) for text in texts]
            self.items.append(Item(benchmark, f"{uri}{place}", any(checked)))

    def index(self) -> Index:
        return Index(
            tuple(self.items),
            {n: _sorted(grams) for n, grams in self._grams.items()},
            np.array(self._looks, _GRAM_DTYPE),
            np.array(self._sounds, SOUND_DTYPE),
            np.array(self._of_sounds, np.int32),
            np.array(self._videos, VIDEO_DTYPE),
            np.array(self._of_videos, np.int32),
            self._sha256,
            tuple(self.unread),
        )

    def _text(self, text: str) -> bool:
        words = words_of(text)
        n = LONG if len(words) >= LONG else SHORT
        hashes = ngram_hashes(word_hashes(words), n)
        grams = np.zeros(len(hashes), _GRAM_DTYPE)
        grams["hash"], grams["item"] = hashes, len(self.items)
        self._grams[n].append(grams)
        return len(grams) > 0

    def _medium(self, benchmark: str, uri: str, path: Path, poison: str) -> None:
        number = len(self.items)
        with path.open("rb") as file:
            self._sha256.setdefault(hashlib.file_digest(file, "sha256").hexdigest(), number)
        self.items.append(Item(benchmark, uri))
        try:
            if poison:
                raise MediaError(poison)
            self._print(path, number)
        except MediaError as error:
            self.unread.append((uri, f"told by its bytes only: {error}"))

    def _print(self, path: Path, number: int) -> None:
        """The fingerprint of a medium. Raises MediaError."""
        suffix = path.suffix.lower()
        if suffix in IMAGE:
            bits = look_of(path, self._limits).bits
            if bits is not None:
                self._looks.append((bits, number))
        elif suffix in VIDEO:
            look = video_look(path, self._limits)
            if look.frames.any():
                self._videos.append(video_row(look))
                self._of_videos.append(number)
        else:
            from pipelines.ingest.decode_audio import decode_audio

            sound = audio_bits(decode_audio(path, RATE_HZ, self._limits), SHIFTS)
            if sound is not None:
                self._sounds.append(sound_row(sound))
                self._of_sounds.append(number)


def _sorted(grams: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    rows = np.concatenate([*grams, np.zeros(0, _GRAM_DTYPE)])
    hashes, first = np.unique(rows["hash"], return_index=True)
    return hashes, rows["item"][first]


def _files(paths: Iterable[Path]) -> Iterator[tuple[str, str, Path]]:
    """(benchmark, name inside what was given, path) of all files; the benchmark "" of those that are not read."""
    listed: list[tuple[str, Path, Path]] = []
    for given in paths:
        found = sorted(p for p in given.rglob("*") if p.is_file()) if given.is_dir() else [given]
        for path in found:
            inside = path.relative_to(given) if given.is_dir() else Path(path.name)
            listed.append((inside.parts[0] if len(inside.parts) > 1 else given.name, inside, path))
    names = _names(path for _, _, path in listed if _of_records(path))
    for folder, inside, path in listed:
        if _of_records(path):
            yield names[path], inside.as_posix(), path
        else:
            is_read = _suffix(path) in _TEXTS or path.suffix.lower() in IMAGE + AUDIO + VIDEO
            yield folder if is_read else "", inside.as_posix(), path


def _of_records(path: Path) -> bool:
    return _suffix(path) in _RECORDS + _LINES or path.suffix.lower() == _PARQUET


def _names(paths: Iterable[Path]) -> dict[Path, str]:
    """The benchmark of each file of records: its name without what follows the first dot; where files of several
    folders have that name, with as many of their folders before it as tell them apart."""
    alike: dict[str, dict[Path, tuple[str, ...]]] = defaultdict(dict)
    for path in paths:
        alike[path.name.partition(".")[0]][path] = path.resolve().parent.parts
    names: dict[Path, str] = {}
    for stem, folders in alike.items():
        num = 0
        tails: dict[Path, tuple[str, ...]] = dict.fromkeys(folders, ())
        while len(set(tails.values())) < len(set(folders.values())):
            num += 1
            tails = {path: parts[-num:] for path, parts in folders.items()}
        names |= {path: "/".join((*parts, stem)) for path, parts in tails.items()}
    return names


def _suffix(path: Path) -> str:
    return Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()


def _texts(path: Path) -> Iterator[tuple[str, list[str]]]:
    """(place in the file, texts) of each item of a file. UserError where it cannot be read."""
    try:
        if path.suffix.lower() == _PARQUET:
            yield from ((f"#{i}", list(_strings(record))) for i, record in enumerate(_parquet_rows(path)))
            return
        data = gzip.decompress(path.read_bytes()) if path.suffix.lower() == ".gz" else path.read_bytes()
        text = data.decode("utf-8-sig")
        suffix = _suffix(path)
        if suffix == ".json":
            records = json.loads(text)
            for i, record in enumerate(records if isinstance(records, list) else [records]):
                yield f"#{i}", list(_strings(record))
        elif suffix in _TEXTS:
            # Where each line is a question, those of less than 13 words are told by no 13-gram of the whole.
            yield "", [text, *(line for line in text.split("\n") if len(words_of(line)) < LONG)]
        elif suffix in _LINES:
            yield from _cells(text, suffix == ".tsv")
        else:
            for i, line in enumerate(text.split("\n"), start=1):  # other ends of lines may stand in strings
                if line.strip():
                    yield f"#L{i}", list(_strings(json.loads(line)))
    except (ValueError, OSError, EOFError, csv.Error) as error:
        raise UserError(f"the evaluation set {path} cannot be read: {error}") from None


def _cells(text: str, tabs: bool) -> Iterator[tuple[str, list[str]]]:
    """(place, cells) of the rows of a table. Between tabs, quotes are as good as other characters."""
    before = csv.field_size_limit(_MAX_CELL)
    try:
        lines = io.StringIO(text, newline="")
        rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE) if tabs else csv.reader(lines)
        first = 1
        for cells in rows:
            if any(cell.strip() for cell in cells):
                yield f"#L{first}", cells
            first = rows.line_num + 1
    finally:
        csv.field_size_limit(before)


def _parquet_rows(path: Path) -> Iterator[Any]:
    """The rows as dicts. ValueError or OSError where it cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(1024):
                yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise ValueError(str(error)) from None


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)
