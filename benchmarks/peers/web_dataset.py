"""WebDataset: tar shards of a file a document, or a file a row."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from drawn import BATCH, NUM_SHARDS, Documents

from peers.system import Stream, System, padded_stream, padded_tensors, rows_stream, rows_tensor, torch_workers

KEY = "tokens.bin"


def _write(folder: Path, num: int, samples: Iterable[Any]) -> None:
    import webdataset as wds

    with wds.ShardWriter(
        str(folder / "%05d.tar"), maxcount=-(-num // NUM_SHARDS), maxsize=1 << 40, verbose=0
    ) as writer:
        for i, sample in enumerate(samples):
            writer.write({"__key__": f"{i:09d}", KEY: sample.tobytes()})


def _prepare_documents(documents: Documents, folder: Path) -> None:
    cut = documents.cut()
    _write(folder, len(cut), cut)


def _prepare_rows(documents: Documents, folder: Path) -> None:
    rows = documents.rows()
    _write(folder, len(rows), rows)


def _codes(sample: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(sample[KEY], np.uint16)


def _loader(folder: Path, processes: int, collate: Any) -> Any:
    import webdataset as wds

    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    dataset = wds.WebDataset(urls, shardshuffle=NUM_SHARDS).shuffle(1000).map(_codes)
    batched = dataset.batched(BATCH, collation_fn=collate, partial=True)
    return wds.WebLoader(batched, batch_size=None, **torch_workers(processes))


def _documents(folder: Path, processes: int, rank: int) -> Stream:
    return padded_stream(_loader(folder, processes, padded_tensors))


def _rows(folder: Path, processes: int, rank: int) -> Stream:
    return rows_stream(_loader(folder, processes, rows_tensor))


_SETTING = "WebDataset(shardshuffle).shuffle(1000).map.batched(16) in the worker, WebLoader(batch_size=None)"
SYSTEMS = (
    System("webdataset, documents", "padded", _SETTING, _prepare_documents, _documents, "webdataset-documents"),
    System("webdataset, rows", "rows", f"{_SETTING}, a file a row", _prepare_rows, _rows, "webdataset-rows"),
)
