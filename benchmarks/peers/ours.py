"""mmdata through its public Loader, every array of `Batch` made.

Useful tokens are those of the documents: what the layout adds (two controls a piece and one a text) is not counted.
"""

from __future__ import annotations

import inspect
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from drawn import BATCH, SEQ_LEN, Documents

from peers.system import Stream, System

NAME = "documents"  # of the source
CODEC = "drawn-text@1"
TEXT = 1  # in Batch.kinds


def write_source(
    folder: Path, name: str, documents: Documents, shards: list[np.ndarray], workers: int | None = None
) -> None:
    """A finished source through the writers of the build, shards side by side."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    from mmdata.manifest import finish_source
    from tokenizer.codec import CodecSpec

    with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
        jobs = [
            pool.submit(_write_shard, folder / name, name, documents, *job, len(shards)) for job in enumerate(shards)
        ]
        infos = [job.result() for job in jobs]
    finish_source(folder / name, name, infos, [CodecSpec(CODEC, "text", (16_384,), "drawn", True)], {"drawn": name})


def _write_shard(
    folder: Path, name: str, documents: Documents, index: int, numbers: np.ndarray, num_shards: int
) -> Any:
    from mmdata.sample import Sample
    from mmdata.shards import write_shard
    from tokenizer.item import Item

    def samples() -> Iterator[Sample]:
        for i, codes in zip(numbers.tolist(), documents.of(numbers)):
            item = Item("text", CODEC, codes.astype(np.int32)[:, None])
            yield Sample(id=f"{i:032x}", cluster=f"{i:032x}", source=name, items=(item,))

    return write_shard(folder, name, "train", index, num_shards, samples())


def _prepare(documents: Documents, folder: Path) -> None:
    write_source(folder, NAME, documents, documents.shards())
    total = {"tokens": len(documents.tokens)}
    (folder / "total.json").write_text(json.dumps(total))


def _loader(folder: Path, **more: Any) -> Any:
    import mmdata

    return mmdata.Loader(folder / NAME, seq_len=SEQ_LEN, batch_size=BATCH, **more)


def _open(folder: Path, processes: int, rank: int) -> Stream:
    if processes > 1 and not has_workers():
        raise RuntimeError("this Loader has no workers: see 'ours, ranks'")
    more = {"workers": processes} if processes > 1 else {}
    return _stream(folder, _loader(folder, **more), 1)


def _open_rank(folder: Path, processes: int, rank: int) -> Stream:
    return _stream(folder, _loader(folder, shard=(rank, processes)), processes)


def _stream(folder: Path, loader: Any, ranks: int) -> Stream:
    total = json.loads((folder / "total.json").read_text())["tokens"]
    rows = sum(source["rows"] for source in loader.report()["sources"].values())
    mean = total / rows * BATCH / ranks  # of a batch: the check shows that an epoch holds each token once
    seen = itertools.count()

    def ids(batch: Any) -> np.ndarray:
        mine = slice(0, rows - next(seen) * BATCH)  # the last step of an epoch goes on into the next one
        return batch.tokens[mine][batch.kinds[mine] == TEXT]

    return Stream(lambda: itertools.islice(loader, -(-rows // BATCH)), lambda batch: mean, ids)


def has_workers() -> bool:
    """Whether this Loader can read in processes of its own."""
    import mmdata

    return "workers" in inspect.signature(mmdata.Loader).parameters


SYSTEMS = (
    System(
        "ours", "packed", "mmdata.Loader(DIR, seq_len=4096, batch_size=16), two: workers=2", _prepare, _open, "ours"
    ),
    System(
        "ours, ranks", "packed", "two: a Loader each, shard=(0, 2) and (1, 2)", _prepare, _open_rank, "ours", True, (2,)
    ),
)
