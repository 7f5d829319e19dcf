"""What the benchmark asks of a system: write the documents once, then give epochs of batches.

A reader of padded documents gives (tokens int32 [B, L], lengths [B]); of rows cut at write time tokens [B, L] alone;
the packers give their own batches. Importing this loads no system.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from drawn import SEQ_LEN, Documents


@dataclass
class Stream:
    """An opened system. `tokens` runs inside the clock, so it is cheap; `ids` does not."""

    epoch: Callable[[], Iterator[Any]]  # each call: batches of an epoch, the last one perhaps smaller
    tokens: Callable[[Any], float]  # useful tokens of a batch: no padding
    ids: Callable[[Any], np.ndarray]  # those tokens themselves, of the batches of the first epoch in turn


@dataclass(frozen=True)
class System:
    name: str
    work: str  # "packed": documents into full rows; "padded": a document a row; "rows": cut before; "limit"
    setting: str  # what is set, and where its makers write so
    prepare: Callable[[Documents, Path], None]
    open: Callable[[Path, int, int], Stream]  # folder, processes, rank (0, but in `ranks`)
    data: str  # systems of one `data` share what `prepare` wrote
    ranks: bool = False  # two processes are two readers of half the batch each, as of two data-parallel trainers
    processes: tuple[int, ...] = (1, 2)


def padded(samples: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Documents uint16 [n] to (tokens int32 [B, SEQ_LEN], lengths int64 [B])."""
    tokens = np.zeros((len(samples), SEQ_LEN), np.int32)
    lengths = np.empty(len(samples), np.int64)
    for i, sample in enumerate(samples):
        lengths[i] = n = len(sample)
        tokens[i, :n] = sample
    return tokens, lengths


def padded_tensors(samples: list[Any]) -> tuple[Any, Any]:
    """The same as tensors, which is what workers of a torch DataLoader hand over by shared memory."""
    import torch

    tokens, lengths = padded(samples)
    return torch.from_numpy(tokens), torch.from_numpy(lengths)


def rows_tensor(samples: list[Any]) -> Any:
    """Rows uint16 [SEQ_LEN] to tensor int32 [B, SEQ_LEN]."""
    import torch

    tokens = np.empty((len(samples), SEQ_LEN), np.int32)
    for i, sample in enumerate(samples):
        tokens[i] = sample
    return torch.from_numpy(tokens)


def padded_stream(loader: Any) -> Stream:
    """Of an iterable of (tokens, lengths)."""
    return Stream(lambda: iter(loader), lambda batch: int(batch[1].sum()), lambda batch: _real(*map(np.asarray, batch)))


def rows_stream(loader: Any) -> Stream:
    """Of an iterable of tokens."""
    return Stream(lambda: iter(loader), lambda batch: batch.shape[0] * SEQ_LEN, lambda batch: np.asarray(batch).ravel())


def torch_workers(processes: int) -> dict[str, Any]:
    """Of a torch DataLoader: all in the reader's process, or in so many workers, kept from epoch to epoch. Workers have
    one thread each; so has the reader here, as the threads of small copies cost more than they save."""
    import torch

    torch.set_num_threads(1)
    return {"num_workers": processes, "persistent_workers": True} if processes > 1 else {"num_workers": 0}


def _real(tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    return tokens[np.arange(tokens.shape[1]) < lengths[:, None]]
