"""A layout, documents and a source in memory for plans: simple enough that a slow twin can say what is right."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from mmdata.folder import LocalFolder
from mmdata.pieces import places_of
from mmdata.plan import Plan, PlanSettings, make_plan
from tokenizer.codec import CodecSpec
from tokenizer.item import AUDIO, IMAGE, TEXT, Item, ItemTable

CODECS = (
    CodecSpec("toy-text@1", "text", (100,), "t", True),
    CodecSpec("toy-image@1", "image", (50,), "i", False),
    CodecSpec("toy-audio@1", "audio", (50,), "a", False, rate=50.0),
)


def text(n: int, ends: tuple[int, ...] = ()) -> Item:
    return Item("text", "toy-text@1", np.zeros((n, 1), np.int32), sentence_ends=np.array(ends, np.int32))


def image(h: int, w: int) -> Item:
    return Item("image", "toy-image@1", np.zeros((h * w, 1), np.int32), grid=(1, h, w))


def audio(n: int) -> Item:
    return Item("audio", "toy-audio@1", np.zeros((n, 1), np.int32), grid=(n, 0, 0))


@dataclass(frozen=True)
class ToyLayout:
    """Begin and end of a piece: one token each; an image has one delimiter; a piece that goes on has a header."""

    header: int = 0
    digest = "toy"

    def lengths(
        self, table: ItemTable, pieces: np.ndarray | None = None, samples: np.ndarray | None = None
    ) -> np.ndarray:
        total = places_of(table)
        if pieces is None:
            pieces = np.stack([np.zeros_like(total), total], axis=1)
        offsets, units, tokens = table.offsets.tolist(), table.num_units().tolist(), table.T.tolist()
        image = (table.kind == IMAGE).tolist()
        out = [2] * len(pieces)
        for n, s in enumerate(range(len(table)) if samples is None else samples.tolist()):
            start, stop = pieces[n].tolist()
            out[n] += self.header if start > 0 else 0
            at = 0
            for i in range(offsets[s], offsets[s + 1]):
                inside = max(0, min(at + units[i], stop) - max(at, start))
                out[n] += inside * tokens[i] // units[i] + (inside > 0 and image[i])
                at += units[i]
        return np.array(out, np.int32)

    def all_cuts(self, table: ItemTable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        found = [self.cuts(table, sample) for sample in range(len(table))]
        places, ranks = (np.concatenate([np.zeros(0, np.int32), *(f[c] for f in found)]) for c in range(2))
        return places, ranks, np.cumsum([0, *(len(p) for p, _ in found)])

    def cuts(self, table: ItemTable, sample: int) -> tuple[np.ndarray, np.ndarray]:
        places, at = {0: 0}, 0
        for i in range(int(table.offsets[sample]), int(table.offsets[sample + 1])):
            units = int(table.num_units()[i])
            if table.kind[i] == TEXT:
                ends = table.sentence_ends[table.sentence_offsets[i] : table.sentence_offsets[i + 1]].tolist()
                places.update({at + u: 2 if u in ends else 3 for u in range(1, units)})
            elif table.kind[i] == AUDIO:
                places.update({at + u: 1 for u in range(50, units, 50)})
            at += units
            places[at] = 0
        keys = sorted(places)
        return np.array(keys, np.int32), np.array([places[k] for k in keys], np.uint8)

    def units(
        self, table: ItemTable, samples: np.ndarray, starts: np.ndarray, stops: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        out = []
        offsets, units = table.offsets.tolist(), table.num_units().tolist()
        for n, (s, start, stop) in enumerate(zip(samples.tolist(), starts.tolist(), stops.tolist())):
            at = 0
            for i in range(offsets[s], offsets[s + 1]):
                out.append((n, i, max(0, min(at + units[i], stop) - max(at, start))))
                at += units[i]
        return tuple(np.array(out, np.int64).reshape(-1, 3).T)


@dataclass
class ToySplit:
    documents: list[list[Item]]
    shard_bounds: np.ndarray
    shards: tuple[()] = ()

    def item_table(self, start: int, stop: int) -> ItemTable:
        return ItemTable.of(self.documents[start:stop])

    def catalog(self, columns: list[str], start: int, stop: int) -> Any:
        rows = [{column: f"{column}{i}" for column in columns} for i in range(start, stop)]
        record_bytes = SimpleNamespace(to_numpy=lambda: np.full(stop - start, 100))
        return SimpleNamespace(to_pylist=lambda: rows, column={"record_bytes": record_bytes}.__getitem__)


@dataclass
class ToySource:
    splits: dict[str, ToySplit]
    folder: Path = Path()
    fingerprint: str = "f0"
    codecs: tuple[CodecSpec, ...] = field(default=CODECS)
    files: LocalFolder = field(default=LocalFolder(Path()))


def source_of(documents: list[list[Item]], shard: int = 10_000) -> ToySource:
    bounds = np.append(np.arange(0, len(documents), shard), len(documents))
    return ToySource({"train": ToySplit(documents, bounds)})


def plan_for(documents: list[list[Item]], seq_len: int, shard: int = 10_000, layout: Any = None, **more: Any) -> Plan:
    """By version 1, unless another is named or a share may be split."""
    wanted = PlanSettings("toy", seq_len, **{"version": 2 if more.get("split_share") else 1, **more})
    return make_plan(source_of(documents, shard), "train", layout or ToyLayout(), wanted)


def drawn(seed: int, num: int = 60, most_text: int = 25, sides: tuple[int, int] = (3, 4)) -> list[list[Item]]:
    """Documents of text with pictures of one of two sizes, some with sound: their rows have gaps."""
    rng = np.random.default_rng(seed)
    documents = []
    for _ in range(num):
        size, items = int(rng.choice(sides)), []
        for _ in range(int(rng.integers(1, 4))):
            n = int(rng.integers(1, most_text))
            items.append(text(n, tuple(range(6, n, 6))))
            if rng.random() < 0.7:
                items.append(image(size, size))
        if rng.random() < 0.15:
            items.append(audio(int(rng.integers(1, 20))))
        documents.append(items)
    return documents
