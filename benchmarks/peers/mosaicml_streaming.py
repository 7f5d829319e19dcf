"""MosaicML Streaming: MDS shards of documents, or of rows cut at write time as LLM Foundry's `--concat_tokens` does."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from drawn import BATCH, SEQ_LEN, Documents

from peers.system import Stream, System, padded_stream, padded_tensors, rows_stream, rows_tensor, torch_workers

KEY = "tokens"


def _write(folder: Path, encoding: str, samples: Iterable[Any]) -> None:
    from streaming import MDSWriter

    with MDSWriter(out=str(folder), columns={KEY: encoding}) as writer:
        for sample in samples:
            writer.write({KEY: sample})


def _prepare_documents(documents: Documents, folder: Path) -> None:
    _write(folder, "ndarray:uint16", documents.cut())


def _prepare_rows(documents: Documents, folder: Path) -> None:
    _write(folder, f"ndarray:uint16:{SEQ_LEN}", documents.rows())


def _loader(folder: Path, processes: int, collate: Any) -> Any:
    from streaming import StreamingDataset
    from streaming.base.util import clean_stale_shared_memory
    from torch.utils.data import DataLoader

    clean_stale_shared_memory()
    dataset = StreamingDataset(local=str(folder), shuffle=True, batch_size=BATCH)
    return DataLoader(dataset, BATCH, collate_fn=collate, **torch_workers(processes))


def _documents(folder: Path, processes: int, rank: int) -> Stream:
    return padded_stream(_loader(folder, processes, lambda samples: padded_tensors([s[KEY] for s in samples])))


def _rows(folder: Path, processes: int, rank: int) -> Stream:
    return rows_stream(_loader(folder, processes, lambda samples: rows_tensor([s[KEY] for s in samples])))


SYSTEMS = (
    System(
        "streaming, documents",
        "padded",
        "StreamingDataset(local, shuffle=True, batch_size) in a DataLoader, column ndarray:uint16",
        _prepare_documents,
        _documents,
        "streaming-documents",
    ),
    System(
        "streaming, rows",
        "rows",
        "the same with rows concatenated at write time (LLM Foundry, concat_tokens), column ndarray:uint16:4096",
        _prepare_rows,
        _rows,
        "streaming-rows",
    ),
)
