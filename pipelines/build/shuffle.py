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
from pipelines.build.encoded import INDEX, INDEX_DTYPE, MEDIA_INDEX
from pipelines.build.ledger import write_dropped
from pipelines.build.units import Counts, Unit, read_lines, write_json, write_lines
from pipelines.build.worker import Call
from pipelines.ingest.document import Dropped

PLACES_DTYPE = np.dtype([("unit", "<i4"), ("offset", "<i8"), ("length", "<i8")])
PLAN, UNITS = "shards.json", "units.json"
PLACES, MEDIA_PLACES = "{split}-{index:05d}.npy", "media-{index:05d}.jsonl"


@dataclass(frozen=True)
class ShuffleArgs:
    encoded: tuple[Path, ...]  # folders of the encode units, in order
    seed: int
    validation: float
    shard_samples: int
    shard_bytes: int


def shuffle(call: Call, unit: Unit, folder: Path) -> Counts:
    """For each shard a file of places, in the order in which it is written; `shards.json`, the list of them; and
    `units.json`, the names of the units whose numbers are in the places."""
    args: ShuffleArgs = unit.args
    rows = [np.load(path / INDEX) for path in args.encoded]
    counts = [len(row) for row in rows]
    index = np.concatenate([np.zeros(0, INDEX_DTYPE), *rows])
    del rows
    order, again = _without_repeats(ordered(index["id"], args.seed), index["id"])
    places = np.empty(len(order), PLACES_DTYPE)
    places["unit"] = np.repeat(np.arange(len(counts)), counts)[order]
    places["offset"], places["length"] = index["offset"][order], index["length"][order]
    validation = _in_validation(index["cluster"], args.validation)[order]
    dropped = [
        Dropped(unit.source, "", "shuffle", "same id", f"document {index['id'][i].tobytes().hex()} came twice")
        for i in again
    ]
    del index
    shards = []
    for split in SPLITS:
        chosen = places[validation == (split == "validation")]
        parts = list(cut(chosen, args.shard_samples, args.shard_bytes))
        if split == "train" and not parts and len(order):
            parts = [chosen]  # a source has a train split, be it without samples
        for number, part in enumerate(parts):
            call.at(split)
            np.save(folder / PLACES.format(split=split, index=number), part)
            shards.append({"split": split, "index": number, "num_shards": len(parts), "samples": len(part)})
    media = _media_places(args, folder) if len(order) else 0
    write_json(folder / PLAN, {"shards": shards, "media_shards": media})
    write_json(folder / UNITS, [path.name for path in args.encoded])
    return {"samples": len(order), "shards": len(shards), "dropped": write_dropped(folder, dropped)}


def ordered(ids: np.ndarray, seed: int) -> np.ndarray:
    """The places of document ids (uint8 [n, 16]) in the order of a source: by `order_key`, then by id, then as they
    came; int64 [n]."""
    data, keys = memoryview(ids.tobytes()), bytearray(ids.size)
    for begin in range(0, len(data), 16):
        keys[begin : begin + 16] = order_key(seed, data[begin : begin + 16])
    first, second = _halves(np.frombuffer(keys, np.uint8))
    return np.lexsort((*reversed(_halves(ids)), second, first))


def _halves(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Words of 16 bytes as two numbers each (uint64 [n]), which are in the order that the bytes are in."""
    halves = np.ascontiguousarray(words).view(">u8").reshape(-1, 2).astype(np.uint64)
    return halves[:, 0], halves[:, 1]


def _in_validation(clusters: np.ndarray, share: float) -> np.ndarray:  # uint8 [n, 16] -> bool [n]
    """Whether each cluster is in the validation split; each is asked for once."""
    high, low = _halves(clusters)
    order = np.lexsort((low, high))
    new = _differs(high[order], low[order])
    asked = [split_of(clusters[i].tobytes().hex(), share) == "validation" for i in order[new].tolist()]
    found = np.empty(len(clusters), bool)
    found[order] = np.array(asked, bool)[np.cumsum(new) - 1]
    return found


def _differs(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Whether each word is another than the one before it; bool [n]."""
    new = np.ones(len(high), bool)
    new[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    return new


def order_key(seed: int, document: bytes | memoryview) -> bytes:
    """What a source's samples are sorted by: 16 bytes of blake2b over the seed and the document id."""
    return hashlib.blake2b(str(seed).encode() + b"\0" + document, digest_size=16).digest()


def cut(places: np.ndarray, samples: int, max_bytes: int) -> Iterator[np.ndarray]:
    """Runs of places: a shard closes before it would hold more samples or bytes (one sample may pass the bytes)."""
    ends = np.cumsum(places["length"])
    begin = 0
    while begin < len(places):
        most = max_bytes + (int(ends[begin - 1]) if begin else 0)
        end = max(begin + 1, min(begin + samples, int(np.searchsorted(ends, most, "right"))))
        yield places[begin:end]
        begin = end


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


def _without_repeats(order: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Documents with one id lie side by side; the first in the order of the inputs stays."""
    high, low = _halves(ids)
    new = _differs(high[order], low[order])
    return order[new], order[~new]
