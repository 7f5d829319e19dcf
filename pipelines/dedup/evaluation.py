"""Evaluation sets as an index that documents are held against: n-grams of their texts, looks and sounds of their media.

A benchmark is a JSONL file, or the folder right below the path named, or that path. Its items are the records of JSONL
and JSON files, the lines of CSV and TSV files, and whole files of text, pictures and sounds. Every string of a record
counts: those of 13 words and more by their 13-grams, those of 8 to 12 by their 8-grams; shorter ones say nothing.
The index is held in memory: 12 bytes an n-gram, 4.4 kB a sound.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.errors import UserError
from pipelines.build.inputs import touched
from pipelines.build.units import Counts, Unit, read_lines, write_lines
from pipelines.build.worker import Call
from pipelines.dedup.sign import SOUND_DTYPE, sound_row
from pipelines.dedup.sounds import RATE_HZ, SHIFTS, audio_bits
from pipelines.dedup.words import ngram_hashes, word_hashes, words_of
from pipelines.ingest.files import AUDIO, IMAGE
from pipelines.ingest.looks import look_of
from pipelines.ingest.media import Limits, MediaError

LONG, SHORT = 13, 8  # words of an n-gram: as GPT-3 and lm-eval have it; and for texts that have no 13

_RECORDS = (".jsonl", ".ndjson", ".json")
_LINES = (".csv", ".tsv")
_TEXTS = (".txt", ".md", ".text")
_ITEMS, _BYTES, _LOOKS, _SOUNDS, _SOUND_ITEMS = "items.jsonl", "bytes.jsonl", "looks.npy", "sounds.npy", "of_sounds.npy"
_GRAM_DTYPE = np.dtype([("hash", "<u8"), ("item", "<i4")])


@dataclass(frozen=True)
class Item:
    """One question, text, picture or sound of a benchmark. `checked`: there is something to tell it by."""

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
    sha256: dict[str, int]  # of media files -> item


@dataclass(frozen=True)
class IndexArgs:
    paths: tuple[Path, ...]
    limits: Limits


def state_of(paths: Iterable[Path]) -> list[Any]:
    """Sizes and times of all files, for a unit's fingerprint."""
    return [[benchmark, uri, touched(path)] for benchmark, uri, path in _files(paths)]


def make_index(call: Call, unit: Unit, folder: Path) -> Counts:
    """The index of `unit.args`, an IndexArgs, into `folder`."""
    made = read_evaluation(unit.args.paths, unit.args.limits, call)
    write_lines(folder / _ITEMS, ([item.benchmark, item.uri, item.checked] for item in made.items))
    write_lines(folder / _BYTES, ([digest, item] for digest, item in made.sha256.items()))
    for n, grams in made.grams.items():
        np.savez(folder / f"grams-{n}.npz", hashes=grams[0], items=grams[1])
    np.save(folder / _LOOKS, made.looks)
    np.save(folder / _SOUNDS, made.sounds)
    np.save(folder / _SOUND_ITEMS, made.of_sounds)
    return {"items": len(made.items)}


def load_index(folder: Path) -> Index:
    """What `make_index` wrote."""
    return Index(
        items=tuple(Item(*row) for row in read_lines(folder / _ITEMS)),
        grams={n: _grams(folder / f"grams-{n}.npz") for n in (LONG, SHORT)},
        looks=np.load(folder / _LOOKS),
        sounds=np.load(folder / _SOUNDS),
        of_sounds=np.load(folder / _SOUND_ITEMS),
        sha256=dict(read_lines(folder / _BYTES)),
    )


def _grams(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path) as file:
        return file["hashes"], file["items"]


def read_evaluation(paths: Iterable[Path], limits: Limits, call: Call | None = None) -> Index:
    """The index of these files and folders. UserError for a path that is not there, and where there is no item."""
    call = call or Call(None)
    rows = _IndexRows(limits)
    for benchmark, uri, path in _files(paths):
        call.at(uri)
        if f"{benchmark}/{uri}" not in call.skip:
            rows.add(benchmark, uri, path)
    if not rows.items:
        raise UserError(
            f"no evaluation item in {', '.join(map(str, paths))}; JSONL, text, pictures and sounds are read"
        )
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
        self._sha256: dict[str, int] = {}

    def add(self, benchmark: str, uri: str, path: Path) -> None:
        suffix = path.suffix.lower()
        if suffix in IMAGE or suffix in AUDIO:
            self._medium(benchmark, uri, path, suffix in IMAGE)
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
            self._sha256,
        )

    def _text(self, text: str) -> bool:
        words = words_of(text)
        n = LONG if len(words) >= LONG else SHORT
        hashes = ngram_hashes(word_hashes(words), n)
        grams = np.zeros(len(hashes), _GRAM_DTYPE)
        grams["hash"], grams["item"] = hashes, len(self.items)
        self._grams[n].append(grams)
        return len(grams) > 0

    def _medium(self, benchmark: str, uri: str, path: Path, is_image: bool) -> None:
        number = len(self.items)
        with path.open("rb") as file:
            self._sha256.setdefault(hashlib.file_digest(file, "sha256").hexdigest(), number)
        self.items.append(Item(benchmark, uri))
        try:
            if is_image:
                bits = look_of(path, self._limits).bits
                if bits is not None:
                    self._looks.append((bits, number))
                return
            from pipelines.ingest.decode_audio import decode_audio

            sound = audio_bits(decode_audio(path, RATE_HZ, self._limits), SHIFTS)
            if sound is not None:
                self._sounds.append(sound_row(sound))
                self._of_sounds.append(number)
        except MediaError:
            return  # told by its bytes


def _sorted(grams: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    rows = np.concatenate([*grams, np.zeros(0, _GRAM_DTYPE)])
    hashes, first = np.unique(rows["hash"], return_index=True)
    return hashes, rows["item"][first]


def _files(paths: Iterable[Path]) -> Iterator[tuple[str, str, Path]]:
    """(benchmark, name inside what was given, path) of all files that are read."""
    for given in paths:
        found = sorted(p for p in given.rglob("*") if p.is_file()) if given.is_dir() else [given]
        for path in found:
            inside = path.relative_to(given) if given.is_dir() else Path(path.name)
            if _suffix(path) in _RECORDS + _LINES:
                yield path.name.partition(".")[0], inside.as_posix(), path
            elif _suffix(path) in _TEXTS + IMAGE + AUDIO:
                yield inside.parts[0] if len(inside.parts) > 1 else given.name, inside.as_posix(), path


def _suffix(path: Path) -> str:
    return Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()


def _texts(path: Path) -> Iterator[tuple[str, list[str]]]:
    """(place in the file, texts) of each item of a file. UserError where it cannot be read."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix.lower() == ".gz" else path.read_bytes()
        text = data.decode("utf-8-sig")
        suffix = _suffix(path)
        if suffix == ".json":
            records = json.loads(text)
            for i, record in enumerate(records if isinstance(records, list) else [records]):
                yield f"#{i}", list(_strings(record))
        elif suffix in _TEXTS:
            yield "", [text]
        else:
            for i, line in enumerate(text.splitlines(), start=1):
                if line.strip():
                    yield f"#L{i}", list(_strings(json.loads(line))) if suffix in _RECORDS else [line]
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"the evaluation set {path} cannot be read: {error}") from None


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)
