"""What an encode unit leaves on disk, which the shuffle, the shards and the kept media are made of.

Records lie one after the other in `samples.bin` as a shard stores them, with their catalog rows in `rows.arrow` and
their ids, clusters and places in `samples.npy`: neither the shuffle nor a shard decodes a record. Media that the recipe
keeps lie in `media.bin`, each digest once, with a line each in `media.jsonl`.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.catalog import RowFile
from mmdata.sample import Sample
from mmdata.shards import encode_sample
from pipelines.build.media import Decoded, original, to_pcm
from pipelines.ingest.document import Part

SAMPLES, INDEX, ROWS = "samples.bin", "samples.npy", "rows.arrow"
MEDIA, MEDIA_INDEX = "media.bin", "media.jsonl"
INDEX_DTYPE = np.dtype([("id", "u1", 16), ("cluster", "u1", 16), ("offset", "<i8"), ("length", "<i8")])


class SampleWriter:
    """Records one after the other, their catalog rows, and an index with their ids, clusters and places."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = (folder / SAMPLES).open("wb")
        self._catalog = RowFile(folder / ROWS)
        self._rows = bytearray()  # as INDEX_DTYPE has them
        self._end = 0
        self.count = 0

    def write(self, sample: Sample) -> None:
        """The next sample."""
        record = encode_sample(sample)
        self._file.write(record)
        self._catalog.add(sample, record)
        self._rows += struct.pack(
            "<16s16sqq", bytes.fromhex(sample.id), bytes.fromhex(sample.cluster), self._end, len(record)
        )
        self._end += len(record)
        self.count += 1

    def __enter__(self) -> SampleWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._catalog.close()
        np.save(self._folder / INDEX, np.frombuffer(self._rows, INDEX_DTYPE))


class KeptMedia:
    """The media of a unit which the recipe keeps, each digest once, in the order of the parts."""

    def __init__(self, folder: Path, keep: str, sample_rate_hz: int) -> None:
        """`keep`: the recipe's keep_media; `sample_rate_hz`: of decoded sounds."""
        self._keep, self._rate = keep, sample_rate_hz
        self._seen: set[tuple[str, str]] = set()
        self._data = (folder / MEDIA).open("wb")
        self._lines = (folder / MEDIA_INDEX).open("w", encoding="ascii")

    def add(self, part: Part, digest: str, decoded: Decoded) -> None:
        """A part whose bytes have this digest. Raises MediaError where its file has changed since."""
        kind, key = part.kind, (digest, part.kind)
        if self._keep == "none" or kind == "text" or not digest or key in self._seen:
            return
        row: dict[str, Any] = {"digest": digest, "kind": kind, "offset": self._data.tell()}
        if self._keep == "original":
            data = original(part, digest)
        elif kind == "audio":
            pcm = to_pcm(decoded.media[0])
            data, row["shape"], row["sample_rate_hz"] = pcm.astype("<i2").tobytes(), pcm.shape, self._rate
        else:
            pixels = np.stack(decoded.media) if kind == "video" else decoded.media[0]
            data, row["shape"], row["times"] = pixels.tobytes(), pixels.shape, decoded.times.tolist()
        self._data.write(data)
        self._lines.write(json.dumps({**row, "length": len(data)}) + "\n")
        self._seen.add(key)

    def __enter__(self) -> KeptMedia:
        return self

    def __exit__(self, *_: object) -> None:
        self._data.close()
        self._lines.close()
