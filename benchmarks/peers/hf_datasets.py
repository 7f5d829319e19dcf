"""Hugging Face datasets: Arrow files of documents, or of rows as its language-modelling examples group texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from drawn import BATCH, NUM_SHARDS, SEQ_LEN, Documents

from peers.system import Stream, System, padded_stream, padded_tensors, rows_stream, rows_tensor, torch_workers

KEY = "input_ids"


def _write(folder: Path, samples: Iterable[Any], length: int) -> None:
    import datasets

    features = datasets.Features({KEY: datasets.List(datasets.Value("uint16"), length=length)})

    def generate() -> Iterator[dict[str, Any]]:
        for sample in samples:
            yield {KEY: sample}

    made = datasets.Dataset.from_generator(generate, features=features, cache_dir=str(folder / "cache"))
    made.save_to_disk(folder / "saved", num_shards=NUM_SHARDS)


def _prepare_documents(documents: Documents, folder: Path) -> None:
    _write(folder, documents.cut(), -1)


def _prepare_rows(documents: Documents, folder: Path) -> None:
    _write(folder, documents.rows(), SEQ_LEN)


def _loader(folder: Path, processes: int, collate: Any) -> Any:
    import datasets
    from torch.utils.data import DataLoader

    dataset = datasets.load_from_disk(folder / "saved").with_format("numpy")
    return DataLoader(dataset, BATCH, shuffle=True, collate_fn=collate, **torch_workers(processes))


def _documents(folder: Path, processes: int, rank: int) -> Stream:
    return padded_stream(_loader(folder, processes, lambda samples: padded_tensors([s[KEY] for s in samples])))


def _rows(folder: Path, processes: int, rank: int) -> Stream:
    return rows_stream(_loader(folder, processes, lambda samples: rows_tensor([s[KEY] for s in samples])))


_SETTING = "Dataset.with_format('numpy') in a DataLoader(shuffle=True), uint16 (its pages 'Use with NumPy', 'PyTorch')"
SYSTEMS = (
    System("hf datasets, documents", "padded", _SETTING, _prepare_documents, _documents, "hf-documents"),
    System("hf datasets, rows", "rows", f"{_SETTING}, texts grouped to rows", _prepare_rows, _rows, "hf-rows"),
)
