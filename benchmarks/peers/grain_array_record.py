"""Grain over ArrayRecord: a record a document (uint16 bytes), shuffled, padded to the row or packed by Grain.

Packing needs documents that fit a row, so the file holds them cut at 4,096; concat-then-split cuts for itself.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from drawn import BATCH, SEQ_LEN, Documents

from peers.system import Stream, System, padded, padded_stream


def _prepare(documents: Documents, folder: Path) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter

    cut = documents.cut()
    for index, numbers in enumerate(cut.shards()):
        # group_size:1 is what Grain's source asks for; uncompressed is faster to read, and ours has it too
        writer = ArrayRecordWriter(str(folder / f"{index:05d}.array_record"), "group_size:1,uncompressed")
        for document in cut.of(numbers):
            writer.write(document.tobytes())
        writer.close()


def _parse(record: bytes) -> dict[str, np.ndarray]:
    return {"tokens": np.frombuffer(record, np.uint16).astype(np.int32)}


def _codes(record: bytes) -> np.ndarray:
    return np.frombuffer(record, np.uint16)


def _records(folder: Path) -> Any:
    import grain

    paths = [str(path) for path in sorted(folder.iterdir())]
    return grain.MapDataset.source(grain.sources.ArrayRecordDataSource(paths)).seed(0).shuffle()


def _iterated(dataset: Any) -> Any:
    """Without threads, as `ReadOptions` recommends for data in memory: the default of 16 is several times slower."""
    import grain

    return dataset.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))


def _spread(dataset: Any, processes: int) -> Any:
    """Processes by `mp_prefetch`, as Grain's guide to performance says."""
    import grain
    from absl import flags

    if processes == 1:
        return dataset
    flags.FLAGS.mark_as_parsed()  # Grain's workers ask for a flag, as in a program under absl's app.run
    return dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=processes))


def _padded(folder: Path, processes: int, rank: int) -> Stream:
    dataset = _iterated(_records(folder).map(_codes)).batch(BATCH, drop_remainder=False, batch_fn=padded)
    return padded_stream(_spread(dataset, processes))


def _packed(pack: Callable[[Any], Any]) -> Callable[[Path, int, int], Stream]:
    def open_it(folder: Path, processes: int, rank: int) -> Stream:
        dataset = pack(_iterated(_records(folder).map(_parse))).batch(BATCH, drop_remainder=False)
        return _segments_stream(_spread(dataset, processes))

    return open_it


def _segments_stream(dataset: Any) -> Stream:
    def real(batch: Any) -> np.ndarray:
        return batch["tokens_segment_ids"] > 0

    return Stream(
        lambda: iter(dataset),
        lambda batch: int(np.count_nonzero(real(batch))),
        lambda batch: batch["tokens"][real(batch)],
    )


def _first_fit(dataset: Any) -> Any:
    import grain

    return grain.experimental.FirstFitPackIterDataset(
        dataset, length_struct={"tokens": SEQ_LEN}, num_packing_bins=BATCH
    )


def _best_fit(dataset: Any) -> Any:
    import grain

    return grain.experimental.BestFitPackIterDataset(dataset, length_struct={"tokens": SEQ_LEN}, num_packing_bins=BATCH)


def _concat(dataset: Any) -> Any:
    import grain

    return grain.experimental.ConcatThenSplitIterDataset(dataset, length_struct={"tokens": SEQ_LEN})


_BINS = "grain.experimental.{}, bins = batch as MaxText sets them, ReadOptions(num_threads=0), two: mp_prefetch"
SYSTEMS = (
    System(
        "grain, unpacked",
        "padded",
        "MapDataset.source.shuffle.to_iter_dataset.batch, ReadOptions(num_threads=0), two: mp_prefetch",
        _prepare,
        _padded,
        "grain",
    ),
    System(
        "grain, first fit", "packed", _BINS.format("FirstFitPackIterDataset"), _prepare, _packed(_first_fit), "grain"
    ),
    System("grain, best fit", "packed", _BINS.format("BestFitPackIterDataset"), _prepare, _packed(_best_fit), "grain"),
    System(
        "grain, concat",
        "packed",
        "grain.experimental.ConcatThenSplitIterDataset, ReadOptions(num_threads=0), two: mp_prefetch",
        _prepare,
        _packed(_concat),
        "grain",
    ),
)
