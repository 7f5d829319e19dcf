"""LitData: `optimize` and StreamingDataset: documents, or one stream of tokens (TokensLoader, its way for LLMs)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from drawn import BATCH, SEQ_LEN, Documents

from peers.system import Stream, System, padded_stream, padded_tensors, rows_stream, torch_workers


class _Tensors:
    """What `optimize` calls, in a process of its own, with numbers of documents."""

    def __init__(self, documents: Documents) -> None:
        self.documents = documents

    def __call__(self, numbers: np.ndarray) -> Iterator[Any]:
        import torch

        for document in self.documents.of(numbers):
            yield torch.from_numpy(document.copy())


def _write(documents: Documents, folder: Path, **more: Any) -> None:
    from litdata import optimize

    optimize(
        fn=_Tensors(documents),
        inputs=documents.shards(),
        output_dir=str(folder / "optimized"),
        num_workers=1,
        reorder_files=False,
        verbose=False,
        **more,
    )


def _prepare_documents(documents: Documents, folder: Path) -> None:
    _write(documents.cut(), folder, chunk_bytes="64MB")


def _prepare_rows(documents: Documents, folder: Path) -> None:
    from litdata import TokensLoader

    # TokensLoader drops what a chunk has beyond whole rows: written by rows, no token is lost. Chunks are 16 MB.
    rows = documents.rows()
    whole = Documents(rows.reshape(-1), np.arange(len(rows) + 1) * SEQ_LEN)
    _write(whole, folder, chunk_size=2048 * SEQ_LEN, item_loader=TokensLoader(block_size=SEQ_LEN))


def _loader(folder: Path, processes: int, collate: Any, item_loader: Any = None) -> Any:
    from litdata import StreamingDataLoader, StreamingDataset

    dataset = StreamingDataset(str(folder / "optimized"), item_loader=item_loader, shuffle=True, drop_last=False)
    return StreamingDataLoader(dataset, batch_size=BATCH, collate_fn=collate, **torch_workers(processes))


def _documents(folder: Path, processes: int, rank: int) -> Stream:
    return padded_stream(_loader(folder, processes, padded_tensors))


def _rows(folder: Path, processes: int, rank: int) -> Stream:
    from litdata import TokensLoader

    return rows_stream(_loader(folder, processes, _stacked, TokensLoader(block_size=SEQ_LEN)))


def _stacked(samples: list[Any]) -> Any:
    import torch

    return torch.stack(samples).to(torch.int32)


SYSTEMS = (
    System(
        "litdata, documents",
        "padded",
        "optimize(chunk_bytes='64MB'), StreamingDataset(shuffle=True), StreamingDataLoader",
        _prepare_documents,
        _documents,
        "litdata-documents",
    ),
    System(
        "litdata, rows",
        "rows",
        "the same with TokensLoader(block_size=4096) (its page 'LLM Pre-training'), tokens uint16",
        _prepare_rows,
        _rows,
        "litdata-rows",
    ),
)
