"""Shards: ArrayRecord files of samples as flat `tf.train.Example` records (docs/format.md, "Example").

The one home of array_record. A shard is written whole or not at all, its bytes depend on its samples alone, and its
catalog rows are written beside it. It deliberately does not choose which sample goes where: the build does.
Records are uncompressed and one a group, so that any record can be read alone; the reader starts 64 threads and costs
most a call, so read many records a call (`RecordFile.read`).
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmdata.catalog import CatalogRows, catalog_name, code_dtype, codecs_of, counts_of, placed, write_catalog
from mmdata.commit import commit, sha256_of, temporary, writing
from mmdata.errors import DamagedRecord, RunError, UserError
from mmdata.example import decode_example, encode_example
from mmdata.sample import Sample
from tokenizer.item import GROUP_ROLES, KINDS, ROLES, Item

if TYPE_CHECKING:
    import pyarrow as pa

    from mmdata.folder import Folder

SPLITS = ("train", "validation")
WRITER_OPTIONS = "group_size:1,uncompressed"
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_]*")  # what TFDS takes for a name in a file name
_SAMPLE_TEXTS = ("id", "cluster", "source", "uri", "language", "licence", "created")


@dataclass(frozen=True)
class ShardInfo:
    """One finished shard, as a done-marker and the manifest keep it."""

    split: str
    index: int
    file: str  # relative to the source's folder
    samples: int
    bytes: int
    sha256: str
    catalog: str  # relative to the source's folder
    catalog_digest: str  # of the catalog's values, not of its file (docs/format.md, "Catalog")
    codecs: tuple[str, ...]  # names used, sorted
    counts: dict[str, dict[str, int]] = field(default_factory=dict)  # kind -> items, codes, ...

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "codecs": list(self.codecs)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ShardInfo:
        return cls(**{**value, "codecs": tuple(value["codecs"])})


def check_name(name: str) -> str:
    """`name` if it can name a source: it becomes a folder and part of TFDS file names."""
    if not _NAME.fullmatch(name):
        raise UserError(
            f"a source cannot be named {name!r}: use a letter first, then letters, digits and _ "
            f"(for example {re.sub('[^a-zA-Z0-9_]', '_', 's' + name if not name[:1].isalpha() else name)!r})"
        )
    return name


def shard_name(name: str, split: str, index: int, num_shards: int) -> str:
    """`web-train.array_record-00000-of-00003`, TFDS's default pattern."""
    return f"{name}-{split}.array_record-{index:05d}-of-{num_shards:05d}"


def write_shard(
    folder: Path, name: str, split: str, index: int, num_shards: int, samples: Iterable[Sample]
) -> ShardInfo:
    """Write shard `index` of `num_shards` of a split, with its catalog, into the source's folder. Same samples, same
    bytes. May run in any process; a second run replaces the first. The samples are consumed one at a time."""
    rows = CatalogRows()

    def records() -> Iterator[bytes]:
        for sample in samples:
            record = encode_sample(sample)
            rows.add(sample, record)
            yield record

    return write_encoded_shard(folder, name, split, index, num_shards, records(), rows.take)


def write_encoded_shard(
    folder: Path,
    name: str,
    split: str,
    index: int,
    num_shards: int,
    records: Iterable[bytes],
    rows: Callable[[], pa.Table],
) -> ShardInfo:
    """`write_shard` of samples whose records (`encode_sample`) and catalog rows (`CatalogRows`) are there already;
    `rows` is asked once the records have been consumed."""
    check_name(name)
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}; the splits are {list(SPLITS)}")
    path = folder / shard_name(name, split, index, num_shards)
    folder.mkdir(parents=True, exist_ok=True)
    count = write_records(path, records)
    table = placed(rows(), split, index)
    if len(table) != count:
        raise ValueError(f"{path.name}: {len(table)} catalog rows of {count} records")
    catalog = folder / "catalog" / catalog_name(split, index, num_shards)
    digest = write_catalog(table, catalog)
    return ShardInfo(
        split=split,
        index=index,
        file=path.name,
        samples=count,
        bytes=path.stat().st_size,
        sha256=sha256_of(path),
        catalog=f"catalog/{catalog.name}",
        catalog_digest=digest,
        codecs=codecs_of(table),
        counts=counts_of(table),
    )


def write_records(path: Path, records: Iterable[bytes]) -> int:
    """An ArrayRecord file of the records, whole or not at all; returns their number."""
    from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

    count = 0
    with writing(path):
        writer = ArrayRecordWriter(str(temporary(path)), WRITER_OPTIONS)
        try:
            for record in records:
                _checked(writer.write, path, record)
                count += 1
        finally:
            _checked(writer.close, path)
        reader = ArrayRecordReader(str(temporary(path)))
        if reader.num_records() != count:  # a writer on a full disk may say nothing
            raise RunError(f"{path}: {reader.num_records()} of {count} records arrived; is the disk full?")
        reader.close()
    commit(temporary(path), path)
    return count


def encode_sample(sample: Sample) -> bytes:
    """The sample's record: every column of the item table, whether a source fills it or not."""
    codes, dtypes, offsets = _pack_codes(sample)
    items = sample.items
    metadata = json.dumps(dict(sorted(sample.metadata.items())), separators=(",", ":"))
    return encode_example(
        {
            "codes": [codes],  # first, so that a reader finds it without parsing the rest
            **{name: [_bytes(getattr(sample, name))] for name in _SAMPLE_TEXTS},
            "metadata": [metadata.encode()],
            "item/kind": _ints(KINDS.index(i.kind) for i in items),
            "item/codec": [_bytes(i.codec) for i in items],
            "item/T": _ints(0 if i.codes is None else i.codes.shape[0] for i in items),
            "item/K": _ints(0 if i.codes is None else i.codes.shape[1] for i in items),
            "item/t": _ints(i.grid[0] for i in items),
            "item/h": _ints(i.grid[1] for i in items),
            "item/w": _ints(i.grid[2] for i in items),
            "item/dtype": [d.encode() for d in dtypes],
            "item/offset": _ints(offsets),
            "item/start_s": [np.array([i.start_s for i in items], "<f8").tobytes()],
            "item/end_s": [np.array([i.end_s for i in items], "<f8").tobytes()],
            "item/digest": [bytes.fromhex(i.digest) for i in items],
            "item/uri": [_bytes(i.uri) for i in items],
            "item/role": _ints(ROLES.index(i.role) for i in items),
            "item/stream": [_bytes(i.stream) for i in items],
            "item/group": _ints(i.group for i in items),
            "item/group_role": _ints(GROUP_ROLES.index(i.group_role) for i in items),
            "item/num_times": _ints(len(i.times) for i in items),
            "item/times": _join([i.times for i in items], np.float32),
            "item/num_unit_times": _ints(len(i.unit_times) for i in items),
            "item/unit_times": _join([i.unit_times.reshape(-1) for i in items], np.float32),
            "item/num_text": _ints(i.text is not None for i in items),
            "item/text": [_bytes(i.text) for i in items if i.text is not None],
            "item/num_sentence_ends": _ints(len(i.sentence_ends) for i in items),
            "item/sentence_ends": _join([i.sentence_ends for i in items], np.int64),
        }
    )


def decode_sample(record: bytes) -> Sample:
    """The sample of a record; ValueError where the record is damaged."""
    f: Any = decode_example(record)
    try:
        return Sample(
            **{name: _text(f[name][0]) for name in _SAMPLE_TEXTS},
            items=tuple(_decode_items(f)),
            metadata=json.loads(f["metadata"][0]),
        )
    except (KeyError, IndexError, TypeError, AttributeError, StopIteration) as error:  # another kind of feature
        raise ValueError(f"not a sample: feature {str(error) or 'item/text'} is missing or too short") from None


class RecordFiles:
    """Random access to the records of files by (file, place), with a bounded number of files open. Picklable.

    Files are paths, or names in a `folder`, which fetches them where they are not on this machine.
    """

    def __init__(self, paths: Sequence[Path | str], max_open: int = 20, folder: Folder | None = None) -> None:
        self.paths = list(paths)
        self.max_open = max_open
        self._folder = folder
        self._readers: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, file: int, places: Sequence[int] | np.ndarray) -> list[bytes]:
        """The records at `places` of one file, in one call; DamagedRecord where they cannot be read, another error of
        ours where the file cannot be fetched."""
        places = [int(p) for p in places]
        if not places:
            return []
        try:
            with self._lock:
                reader = self._reader(file)
            return reader.read(places)
        except (RunError, UserError):
            raise
        except Exception as error:
            alone = places[0] if len(places) == 1 else None
            raise DamagedRecord(Path(self.paths[file]).name, alone, _first_line(error)) from error

    def num_records(self, file: int) -> int:
        """Records of a file, opened now; 0 where it is missing or none of ArrayRecord's."""
        with self._lock:
            return int(self._reader(file).num_records())

    def _reader(self, file: int) -> Any:
        if file not in self._readers:
            from array_record.python.array_record_module import ArrayRecordReader

            while len(self._readers) >= self.max_open:
                self._readers.popitem(last=False)  # closes once no other thread reads from it
            path = self.paths[file]
            with self._folder.shard(str(path)) if self._folder else nullcontext(path) as path:
                self._readers[file] = ArrayRecordReader(str(path), "readahead_buffer_size:0")
        self._readers.move_to_end(file)
        return self._readers[file]

    def __getstate__(self) -> dict[str, Any]:
        return {"paths": self.paths, "max_open": self.max_open, "folder": self._folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def _pack_codes(sample: Sample) -> tuple[bytes, list[str], list[int]]:
    """All codes of a sample as bytes, and each item's dtype ("" if soft) and offset."""
    parts, dtypes, offsets, end = [], [], [], 0
    for number, item in enumerate(sample.items):
        if item.is_soft != (item.codec == ""):
            raise ValueError(
                f"item {number} of sample {sample.id} has codec {item.codec!r} and "
                f"{'no codes' if item.is_soft else 'codes'}: a soft item has neither, any other item has both"
            )
        offsets.append(end)
        dtypes.append(code_dtype(item))
        if item.codes is None:
            continue
        if (low := item.codes.min(initial=0)) < 0:
            raise ValueError(f"item {number} of sample {sample.id} has a code {low}: codes start at 0")
        parts.append(item.codes.astype("<" + dtypes[-1]).tobytes())
        end += len(parts[-1])
    return b"".join(parts), dtypes, offsets


def _decode_items(f: dict[str, Any]) -> list[Item]:
    codes = f["codes"][0]
    start_s, end_s = (np.frombuffer(f[f"item/{name}"][0], "<f8") for name in ("start_s", "end_s"))
    times = _cut(f, "times", 1)
    units = _cut(f, "unit_times", 2)
    ends = _cut(f, "sentence_ends", 1)
    texts = iter(f["item/text"])
    items = []
    for i, kind in enumerate(f["item/kind"].tolist()):
        dtype, T, K = f["item/dtype"][i].decode(), int(f["item/T"][i]), int(f["item/K"][i])
        values = None
        if dtype:
            values = np.frombuffer(codes, "<" + dtype, T * K, int(f["item/offset"][i])).astype(np.int32).reshape(T, K)
        items.append(
            Item(
                kind=KINDS[kind],
                codec=_text(f["item/codec"][i]),
                codes=values,
                grid=(int(f["item/t"][i]), int(f["item/h"][i]), int(f["item/w"][i])),
                start_s=float(start_s[i]),
                end_s=float(end_s[i]),
                digest=f["item/digest"][i].hex(),
                uri=_text(f["item/uri"][i]),
                role=ROLES[f["item/role"][i]],
                stream=_text(f["item/stream"][i]),
                group=int(f["item/group"][i]),
                group_role=GROUP_ROLES[f["item/group_role"][i]],
                times=times[i],
                unit_times=units[i].reshape(-1, 2),
                text=_text(next(texts)) if f["item/num_text"][i] else None,
                sentence_ends=ends[i].astype(np.int32),
            )
        )
    return items


def _cut(f: dict[str, Any], name: str, width: int) -> list[np.ndarray]:
    """The ragged column `name`, one array an item."""
    return np.split(f[f"item/{name}"], np.cumsum(f[f"item/num_{name}"] * width)[:-1])


def _ints(values: Iterable[Any]) -> np.ndarray:
    return np.array([int(v) for v in values], np.int64)


def _join(parts: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate([p.astype(dtype) for p in parts]) if parts else np.zeros(0, dtype)


def _bytes(text: str) -> bytes:
    """UTF-8; names of files that are no UTF-8 keep their bytes."""
    return text.encode("utf-8", "surrogateescape")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _checked(call: Any, path: Path, *args: Any) -> None:
    """array_record raises RuntimeError with the system's words: say it as one line."""
    try:
        call(*args)
    except Exception as error:
        raise RunError(f"cannot write {path}: {_first_line(error)}; free some space, then run it again") from error


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
