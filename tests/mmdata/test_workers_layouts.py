"""Worker processes and layouts whose batches are more than one id a place: streams, blocks, soft vectors."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmdata import Batch, Loader, Mixture, Schedule, Stage
from mmdata.manifest import finish_source
from mmdata.media import Media, write_media
from mmdata.sample import Sample
from mmdata.shards import write_shard
from tests.mmdata.test_loader import SOFT
from tokenizer.codec import CodecSpec, spec_of
from tokenizer.codecs import load_codec
from tokenizer.item import Item

TEXT = spec_of(load_codec("text-spm16k"))
IMAGE = CodecSpec("image@1", "image", (300,), "c", False)
SOUND = CodecSpec("sound@1", "audio", (16, 256, 7), "e", False, rate=12.5)
DRAW = np.random.default_rng(0)


def codes(T: int, *tops: int) -> np.ndarray:
    return np.stack([DRAW.integers(0, top, T) for top in tops], 1).astype(np.int32)


def text() -> Item:
    return Item("text", TEXT.name, codes(int(DRAW.integers(1, 30)), 16_000), start_s=0.0)


def picture() -> Item:
    side = int(DRAW.integers(1, 6))
    return Item("image", IMAGE.name, codes(side * side, 300), (1, side, side))


def sound() -> Item:
    T = int(DRAW.integers(1, 60))
    return Item("audio", SOUND.name, codes(T, 16, 256, 7), (T, 0, 0), 0.0, T / 12.5)


def write(folder: Path, documents: list[tuple[Item, ...]], codecs: list[CodecSpec], media: list[Media]) -> Path:
    samples = [Sample(f"{n:032x}", f"{n:032x}", "web", items) for n, items in enumerate(documents)]
    shards = [write_shard(folder, "web", "train", i, 3, samples[i::3]) for i in range(3)]
    finish_source(folder, "web", shards, codecs, {}, write_media(folder, media, "resized") if media else None)
    return folder


def moshi(folder: Path) -> tuple[Path, str]:
    return write(folder, [(text(), sound()) for _ in range(60)], [TEXT, SOUND], []), "moshi"


def show_o(folder: Path) -> tuple[Path, str]:
    documents = [(text(), picture()) if n % 2 else (picture(), text()) for n in range(60)]
    return write(folder, documents, [TEXT, IMAGE], []), "show-o"


def soft(folder: Path) -> tuple[Path, str]:
    documents, media = [], []
    for n in range(60):
        h, w, T = *(2 * DRAW.integers(1, 4, 2)).tolist(), int(DRAW.integers(1, 40))
        seen = Media(f"{n:064x}", "image", DRAW.integers(0, 256, (h, w, 3), np.uint8))
        heard = Media(f"{n + 99:064x}", "audio", DRAW.integers(-99, 99, T, np.int16), 16_000)
        items = (Item("image", "", None, (1, h, w), digest=seen.digest), text())
        documents.append((*items, Item("audio", "", None, (T, 0, 0), digest=heard.digest)))
        media += [seen, heard]
    (folder.parent / "soft.toml").write_text(SOFT)
    return write(folder, documents, [TEXT], media), str(folder.parent / "soft.toml")


def arrays(batch: Batch) -> dict[str, np.ndarray]:
    """All arrays of a batch by name, those of soft vectors by kind."""
    found = batch.arrays()
    return found | {f"soft.{kind}": vectors for kind, vectors in found.pop("soft", {}).items()}


@pytest.mark.parametrize("make, holds", [(moshi, "streams"), (show_o, "blocks"), (soft, "soft")])
def test_workers_and_shards_change_nothing_in_layouts_that_are_not_plain(make: Any, holds: str, tmp_path: Path) -> None:
    folder, layout = make(tmp_path / "web")
    stages = [Stage(0, Mixture({"web": folder}), 2), Stage(4, Mixture({"web": folder}), 6)]  # a batch size that changes
    more: dict[str, Any] = {"layout": layout, "seq_len": 128, "shard": (1, 2), "seed": 5}
    plain = Loader(Schedule(stages), threads=0, **more)
    loader = Loader(Schedule(stages), workers=2, **more)
    for step in range(9):
        ours, theirs = arrays(plain.batch_at(step)), arrays(next(loader))
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert ours[name].dtype == theirs[name].dtype
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=f"{name} of step {step}")
        assert len(theirs["tokens"]) == (1 if step < 4 else 3) and theirs["segment_ids"].any()
        assert theirs["tokens"].ndim == (3 if holds == "streams" else 2)
        if holds != "streams":
            assert theirs["blocks"].any()
        if holds == "soft":
            assert (theirs["soft_index"] >= 0).any()
            assert theirs["soft.image"].any() and theirs["soft.audio"].any()
    loader.close()
