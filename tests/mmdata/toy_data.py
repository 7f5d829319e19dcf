"""A small real dataset, written through the build's own writer: text, images and sound, several shards."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmdata.manifest import finish_source, write_dataset_manifest
from mmdata.sample import Sample
from mmdata.shards import write_shard
from tokenizer.codec import CodecSpec
from tokenizer.item import Item

CODECS = (
    CodecSpec("toy-text@1", "text", (200,), "text-print", True),
    CodecSpec("toy-image@1", "image", (50,), "image-print", False),
    CodecSpec("toy-audio@1", "audio", (40,), "audio-print", False, rate=50.0),
)


def toy_samples(source: str, num: int, seed: int) -> list[Sample]:
    """Documents whose codes tell them apart: no two share a text."""
    rng = np.random.default_rng(seed)
    out = []
    for i in range(num):
        codes = rng.integers(0, 200, (int(rng.integers(1, 40)), 1)).astype(np.int32)
        items = [Item("text", "toy-text@1", codes, uri=f"{source}/{i}.txt")]
        if i % 3 == 0:
            h, w = int(rng.integers(1, 5)), int(rng.integers(1, 5))
            values = rng.integers(0, 50, (h * w, 1)).astype(np.int32)
            items.append(Item("image", "toy-image@1", values, grid=(1, h, w), uri=f"{source}/{i}.png"))
        if i % 5 == 0:
            values = rng.integers(0, 40, (int(rng.integers(1, 120)), 1)).astype(np.int32)
            items.append(Item("audio", "toy-audio@1", values, grid=(len(values), 0, 0), uri=f"{source}/{i}.wav"))
        if i % 11 == 0:  # longer than a row
            values = rng.integers(0, 200, (150, 1)).astype(np.int32)
            ends = np.array([40, 90, 140], np.int32)
            items.append(Item("text", "toy-text@1", values, sentence_ends=ends))
        name = hashlib.sha256(f"{source}/{i}".encode()).hexdigest()[:32]
        out.append(Sample(id=name, cluster=name, source=source, items=tuple(items), uri=f"{source}/{i}"))
    return out


def write_source(folder: Path, name: str, splits: dict[str, Sequence[Sample]], num_shards: int = 4) -> str:
    """A finished source; returns its fingerprint."""
    shards = []
    for split, samples in splits.items():
        parts = np.array_split(np.arange(len(samples)), num_shards if split == "train" else 1)
        for index, part in enumerate(parts):
            chosen = [samples[i] for i in part]
            shards.append(write_shard(folder / name, name, split, index, len(parts), chosen))
    return finish_source(folder / name, name, shards, CODECS, {"toy": True})


def write_toy_dataset(folder: Path, sizes: dict[str, int] | None = None) -> Path:
    """A dataset of the sources `sizes` (name -> samples), a tenth of each for validation."""
    for seed, (name, num) in enumerate((sizes or {"web": 120, "speech": 60}).items()):
        samples = toy_samples(name, num, seed)
        write_source(folder, name, {"train": samples[num // 10 :], "validation": samples[: num // 10]})
    write_dataset_manifest(folder, list(sizes or {"web": 120, "speech": 60}))
    return folder
