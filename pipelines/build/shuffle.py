"""The shuffle stage: which sample goes to which place of which shard. One unit a source; it moves no sample.

The split follows the cluster, so copies stay together; the order inside a source follows the hash of (seed, document
id). So neither depends on workers or units, and the same recipe gives the same shards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.manifest import split_of
from mmdata.media import media_shard_of
from mmdata.shards import SPLITS
from pipelines.build.encode import INDEX, MEDIA_INDEX
from pipelines.build.ledger import write_dropped
from pipelines.build.units import Counts, Unit, read_lines, write_json, write_lines
from pipelines.build.worker import Call
from pipelines.ingest.document import Dropped

PLACES_DTYPE = np.dtype([("unit", "<i4"), ("offset", "<i8"), ("length", "<i8")])
PLAN = "shards.json"
PLACES, MEDIA_PLACES = "{split}-{index:05d}.npy", "media-{index:05d}.jsonl"


@dataclass(frozen=True)
class ShuffleArgs:
    encoded: tuple[Path, ...]  # folders of the encode units, in order
    seed: int
    validation: float
    shard_samples: int
    shard_bytes: int


def shuffle(call: Call, unit: Unit, folder: Path) -> Counts:
    """For each shard a file of places, in the order in which it is written; and `shards.json`, the list of them."""
    args: ShuffleArgs = unit.args
    rows = [np.load(path / INDEX) for path in args.encoded]
    places = np.concatenate([_places(i, row) for i, row in enumerate(rows)] or [np.zeros(0, PLACES_DTYPE)])
    ids = [bytes(row["id"]) for part in rows for row in part]
    clusters = [bytes(row["cluster"]) for part in rows for row in part]
    keys = [order_key(args.seed, i) for i in ids]
    order, again = _without_repeats(sorted(range(len(ids)), key=lambda i: (keys[i], ids[i])), ids)
    splits = [split_of(clusters[i].hex(), args.validation) for i in order]
    shards = []
    for split in SPLITS:
        chosen = places[[i for i, s in zip(order, splits) if s == split]]
        parts = list(cut(chosen, args.shard_samples, args.shard_bytes))
        if split == "train" and not parts and order:
            parts = [chosen]  # a source has a train split, be it without samples
        for index, part in enumerate(parts):
            call.at(split)
            np.save(folder / PLACES.format(split=split, index=index), part)
            shards.append({"split": split, "index": index, "num_shards": len(parts), "samples": len(part)})
    media = _media_places(args, folder) if order else 0
    write_json(folder / PLAN, {"shards": shards, "media_shards": media})
    dropped = [Dropped(unit.source, "", "shuffle", "same id", f"document {ids[i].hex()} came twice") for i in again]
    return {"samples": len(order), "shards": len(shards), "dropped": write_dropped(folder, dropped)}


def order_key(seed: int, document: bytes) -> bytes:
    """What a source's samples are sorted by: 16 bytes of blake2b over the seed and the document id."""
    return hashlib.blake2b(str(seed).encode() + b"\0" + document, digest_size=16).digest()


def cut(places: np.ndarray, samples: int, max_bytes: int) -> Iterator[np.ndarray]:
    """Runs of places: a shard closes before it would hold more samples or bytes (one sample may pass the bytes)."""
    begin = size = 0
    for i, length in enumerate(places["length"].tolist()):
        if i > begin and (i - begin >= samples or size + length > max_bytes):
            yield places[begin:i]
            begin, size = i, 0
        size += length
    if begin < len(places):
        yield places[begin:]


def _media_places(args: ShuffleArgs, folder: Path) -> int:
    """For each shard of kept media a file of places, sorted, each medium once; returns how many shards there are."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for number, path in enumerate(args.encoded):
        for row in read_lines(path / MEDIA_INDEX):
            found.setdefault((row["digest"], row["kind"]), {**row, "unit": number})
    num_shards = -(-sum(row["length"] for row in found.values()) // args.shard_bytes)
    rows: list[list[dict[str, Any]]] = [[] for _ in range(num_shards)]
    for key in sorted(found):
        rows[media_shard_of(key[0], num_shards)].append(found[key])
    for index, part in enumerate(rows):
        write_lines(folder / MEDIA_PLACES.format(index=index), part)
    return num_shards


def _places(number: int, index: np.ndarray) -> np.ndarray:
    places = np.zeros(len(index), PLACES_DTYPE)
    places["unit"], places["offset"], places["length"] = number, index["offset"], index["length"]
    return places


def _without_repeats(order: list[int], ids: list[bytes]) -> tuple[list[int], list[int]]:
    """Documents with one id lie side by side; the first in the order of the inputs stays."""
    kept: list[int] = []
    again: list[int] = []
    for i in order:
        (again if kept and ids[kept[-1]] == ids[i] else kept).append(i)
    return kept, again
