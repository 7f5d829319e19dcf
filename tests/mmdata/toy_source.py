"""Toy samples drawn in code, which fill every column of the item table, and a source made of them."""

import hashlib
from pathlib import Path

import numpy as np

from mmdata.manifest import finish_source, split_of, write_dataset_manifest
from mmdata.media import Media, write_media
from mmdata.sample import Sample
from mmdata.shards import SPLITS, write_shard
from tokenizer.codec import CodecSpec
from tokenizer.item import Item

CODECS = (
    CodecSpec("toy-text@1", "text", (300,), "a" * 64, True),
    CodecSpec("toy-image@2", "image", (70_000,), "b" * 64, False),
    CodecSpec("toy-audio@1", "audio", (16, 256), "c" * 64, False, 50.0),
)


def media_of(seed: int) -> tuple[Media, Media]:
    """A small picture and a short sound."""
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, (4, 6, 3), np.uint8)
    sound = rng.integers(-999, 999, 40, np.int16)
    digests = [hashlib.sha256(data.tobytes()).hexdigest() for data in (picture, sound)]
    return Media(digests[0], "image", picture), Media(digests[1], "audio", sound, 16_000)


def sample(seed: int, soft: bool = False) -> Sample:
    rng = np.random.default_rng(seed)
    picture, sound = media_of(seed)

    def codes(T: int, *tops: int) -> np.ndarray:
        return np.stack([rng.integers(0, top, T) for top in tops], 1).astype(np.int32)

    words = int(rng.integers(1, 9))
    items = [
        Item("text", "toy-text@1", codes(words, 300), uri="a.html#p1", role="user",
             text="naïve\0" if seed % 2 else None, sentence_ends=np.array([1, words], np.int32),
             unit_times=rng.random((2, 2)).astype(np.float32)),
        Item("image", "toy-image@2", codes(6, 70_000), (1, 2, 3), digest=picture.digest, uri="a.png", group=0,
             group_role="target"),
        Item("audio", "toy-audio@1", codes(5, 16, 256), (5, 0, 0), start_s=0.1, end_s=3600.123456789, stream="left",
             digest=sound.digest, role="assistant"),
        Item("video", "toy-image@2", codes(8, 200), (2, 2, 2), times=np.array([0.04, 1.5], np.float32), group=1,
             group_role="condition", digest="ff" * 32),
        Item("text", "toy-text@1", codes(0, 300), text=""),
    ]  # fmt: skip
    if soft:
        items += [Item("image", "", None, (1, 4, 6), digest=picture.digest)]
        items += [Item("audio", "", None, (40, 0, 0), digest=sound.digest)]
    return Sample(
        id=f"{seed:032x}", cluster=f"{seed * 7:032x}", source="toy", items=tuple(items), uri=f"d/{seed}é\udcff.html",
        language="fr", licence="CC0-1.0", created="2020-02-03", metadata={"title": "Ünï", "quality.score": "0.25"},
    )  # fmt: skip


def write_toy(folder: Path, samples: list[Sample], share: float = 0.3, keep: str = "none", name: str = "toy") -> str:
    """The dataset `folder` of one source with shards of at most three samples; returns the fingerprint."""
    shards = []
    for split in SPLITS:
        mine = [s for s in samples if split_of(s.cluster, share) == split]
        num_shards = max(1, -(-len(mine) // 3))
        for i in range(num_shards):
            shards.append(write_shard(folder / name, name, split, i, num_shards, mine[3 * i : 3 * i + 3]))
    kept = [m for s in samples for m in media_of(int(s.id, 16))]
    if keep == "original":
        kept = [Media(m.digest, m.kind, m.data.tobytes()) for m in kept]  # type: ignore[union-attr]
    media = write_media(folder / name, kept, keep, num_shards=2) if keep != "none" else None
    fingerprint = finish_source(folder / name, name, shards, CODECS, {"seed": 0, "keep_media": keep}, media)
    write_dataset_manifest(folder, [name])
    return fingerprint


def assert_same(a: Sample, b: Sample) -> None:
    """Equal in every field."""
    fields = ("id", "cluster", "source", "uri", "language", "licence", "created", "metadata")
    assert [getattr(a, f) for f in fields] == [getattr(b, f) for f in fields]
    assert len(a.items) == len(b.items)
    for x, y in zip(a.items, b.items, strict=True):
        for name in Item.__dataclass_fields__:
            v, w = getattr(x, name), getattr(y, name)
            if isinstance(v, np.ndarray):
                assert v.dtype == w.dtype and v.shape == w.shape, name
                np.testing.assert_array_equal(v, w, err_msg=name)
            else:
                assert v == w or (v != v and w != w), (name, v, w)
