"""The catalog: one row a sample with its item shapes, in Parquet beside each shard (docs/format.md, "Catalog").

The one home of pyarrow in this package. Planning, statistics and audits read the catalog and touch no codes. It holds
every column of the item table but the parts' uris, digests, texts and word times, which only the records keep.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmdata.commit import commit, temporary, writing
from mmdata.errors import UserError
from mmdata.sample import Sample
from tokenizer.item import GROUP_ROLES, KINDS, ROLES, VIDEO, Item, ItemTable

if TYPE_CHECKING:
    import pyarrow as pa

QUALITY = "quality."  # metadata keys with this start are numbers of the `quality` column
_PLACE = ("split", "shard", "index")  # the columns that say where a record lies; all others say what it holds
_ROWS = 1024  # that a `RowFile` holds in memory
_COUNTED = ("text", "image", "audio", "video")
_SUMS = (*(f"{kind}_{what}" for kind in _COUNTED for what in ("items", "codes")), "frames", "soft_items")


@cache
def catalog_schema() -> pa.Schema:
    """Columns in their order. Those that start with `item_` have one entry an item, ragged ones with a count."""
    import pyarrow as pa

    def each(names: str, kind: Any) -> list[pa.Field]:
        return [pa.field(f"item_{name}", pa.list_(kind)) for name in names.split()]

    texts = [pa.field(name, pa.string()) for name in ("id", "cluster", "uri", "language", "licence", "created")]
    counts = [pa.field(f"{kind}_{what}", pa.int64()) for kind in _COUNTED for what in ("items", "codes")]
    return pa.schema(
        [
            *texts,
            pa.field("split", pa.string()),
            pa.field("shard", pa.int32()),
            pa.field("index", pa.int32()),  # in the shard
            pa.field("record", pa.binary(16)),  # blake2b of the record
            pa.field("record_bytes", pa.int64()),
            *counts,
            pa.field("soft_items", pa.int64()),
            pa.field("frames", pa.int64()),  # of videos
            pa.field("quality", pa.map_(pa.string(), pa.float64())),
            *each("kind", pa.uint8()),
            *each("codec", pa.string()),
            *each("T K t h w", pa.int32()),
            *each("dtype", pa.string()),
            *each("offset", pa.int64()),
            *each("start_s end_s", pa.float64()),
            *each("role", pa.uint8()),
            *each("stream", pa.string()),
            *each("group", pa.int32()),
            *each("group_role", pa.uint8()),
            *each("num_times", pa.int32()),
            *each("times", pa.float32()),
            *each("num_sentence_ends sentence_ends", pa.int32()),
        ]
    )


def catalog_name(split: str, index: int, num_shards: int) -> str:
    """`train-00000-of-00003.parquet`"""
    return f"{split}-{index:05d}-of-{num_shards:05d}.parquet"


def code_dtype(item: Item) -> str:
    """The narrowest type that holds an item's codes, `u1`, `u2` or `u4`; "" of a soft item."""
    if item.codes is None:
        return ""
    top = int(item.codes.max(initial=0))
    return "u1" if top < 1 << 8 else "u2" if top < 1 << 16 else "u4"


def record_digest(record: bytes) -> bytes:
    """16 bytes which name a record."""
    return hashlib.blake2b(record, digest_size=16).digest()


class CatalogRows:
    """Collects the rows of samples, which are in no place yet."""

    def __init__(self) -> None:
        self._columns: dict[str, list[Any]] = {name: [] for name in rows_schema().names}

    def __len__(self) -> int:
        return len(self._columns["id"])

    def add(self, sample: Sample, record: bytes) -> None:
        """The row of the next sample and its record."""
        row = _row(sample) | {"record": record_digest(record), "record_bytes": len(record)}
        for name, column in self._columns.items():
            column.append(row[name])

    def take(self) -> pa.Table:
        """The rows so far, of `rows_schema`; collecting begins anew."""
        import pyarrow as pa

        table = pa.table(self._columns, schema=rows_schema())
        self._columns = {name: [] for name in self._columns}
        return table


class RowFile:
    """Writes the rows of samples to a file of Arrow's as they come; `read_rows` reads it."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        self._rows = CatalogRows()
        self._file = path.open("wb")  # Python's, so that a full disk is its OSError
        self._writer = pa.ipc.new_file(self._file, rows_schema())

    def add(self, sample: Sample, record: bytes) -> None:
        """The row of the next sample and its record."""
        self._rows.add(sample, record)
        if len(self._rows) == _ROWS:
            self._writer.write_table(self._rows.take())

    def close(self) -> None:
        """The file is whole once this has returned."""
        self._writer.write_table(self._rows.take())
        self._writer.close()
        self._file.close()


def read_rows(path: Path, places: np.ndarray) -> pa.Table:
    """Rows of a `RowFile` by their places, int64 [n], in that order."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).read_all().take(places)


def in_order(parts: Sequence[pa.Table], order: np.ndarray) -> pa.Table:
    """The rows of several tables, one after the other, in another order, int64 [n]."""
    import pyarrow as pa

    return pa.concat_tables([rows_schema().empty_table(), *parts]).take(order)


@cache
def rows_schema() -> pa.Schema:
    """The catalog's columns but those that say where a record lies."""
    import pyarrow as pa

    return pa.schema([field for field in catalog_schema() if field.name not in _PLACE])


def placed(rows: pa.Table, split: str, shard: int) -> pa.Table:
    """Rows as the catalog of a shard, whose records come in their order."""
    import pyarrow as pa

    place = {
        "split": pa.repeat(pa.scalar(split), len(rows)),
        "shard": pa.repeat(pa.scalar(shard, pa.int32()), len(rows)),
        "index": pa.array(np.arange(len(rows), dtype=np.int32)),
    }
    columns = [place[name] if name in place else rows.column(name) for name in catalog_schema().names]
    return pa.table(columns, schema=catalog_schema()).combine_chunks()


def write_catalog(table: pa.Table, path: Path) -> str:
    """Write the Parquet file, whole or not at all; returns `catalog_digest` of its values."""
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path):
        pq.write_table(table, temporary(path), compression="zstd")
    commit(temporary(path), path)
    return catalog_digest(table)


def read_catalog(paths: Sequence[Path], columns: Sequence[str] | None = None) -> pa.Table:
    """The catalogs one after the other; all columns, or those named. UserError where one cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = catalog_schema()
    if columns is not None:
        schema = pa.schema([schema.field(name) for name in columns])
    tables = []
    for path in paths:
        try:
            tables.append(pq.read_table(path, columns=columns, schema=catalog_schema()).cast(schema))
        except (OSError, pa.ArrowException, ValueError) as error:  # a damaged Parquet file fails in many ways
            line = (str(error) or type(error).__name__).splitlines()[0][:200]
            raise UserError(f"catalog {path} cannot be read ({line}): fetch or build it again") from error
    return pa.concat_tables(tables).combine_chunks() if tables else schema.empty_table()


def stored_catalog(path: Path) -> pa.Table:
    """One catalog with the columns it was written with, which may be fewer or more than this version's."""
    import pyarrow.parquet as pq

    return pq.read_table(path)


def write_media_index(path: Path, keys: Sequence[tuple[str, str]]) -> None:
    """Parquet of the (digest, kind) of each record of a media shard, in its order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = [pa.array([key[i] for key in keys], pa.string()) for i in (0, 1)]
    table = pa.table(columns, names=["digest", "kind"])
    with writing(path):
        pq.write_table(table, temporary(path), compression="zstd")
    commit(temporary(path), path)


def read_media_index(path: Path) -> list[tuple[str, str]]:
    """The (digest, kind) of each record of a media shard."""
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    return list(zip(table.column("digest").to_pylist(), table.column("kind").to_pylist()))


def catalog_digest(table: pa.Table) -> str:
    """Hex sha256 of the values, so that another version of Parquet keeps a source's fingerprint: for each column in
    order its name, then what `_values` says, each with its length in front as 8 bytes."""
    digest = hashlib.sha256()
    for name in table.column_names:
        for part in (name.encode(), *_values(table.column(name).combine_chunks())):
            digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def codecs_of(table: pa.Table) -> tuple[str, ...]:
    """The names of the codecs that rows use, sorted."""
    return tuple(sorted(set(_numbered(table, "item_codec")[0]) - {""}))


def counts_of(table: pa.Table) -> dict[str, dict[str, int]]:
    """Items and codes by kind, with frames, of rows."""
    import pyarrow.compute as pc

    return _counts({name: pc.sum(table.column(name)).as_py() or 0 for name in _SUMS})


def rows_that_differ(a: pa.Table, b: pa.Table, columns: Sequence[str]) -> dict[str, list[int]]:
    """Column -> numbers of the rows that have other values in two tables of as many rows; NaN is NaN."""
    found: dict[str, list[int]] = {}
    for name in columns:
        x, y = a.column(name).combine_chunks(), b.column(name).combine_chunks()
        if x.null_count or y.null_count or _values(x) != _values(y):
            pairs = zip(x.to_pylist(), y.to_pylist())
            found[name] = [row for row, (v, w) in enumerate(pairs) if repr(v) != repr(w)]
    return {name: rows for name, rows in found.items() if rows}


def item_columns() -> list[str]:
    """The columns that `item_table` reads."""
    return [name for name in catalog_schema().names if name.startswith("item_")]


def item_table(table: pa.Table, codecs: Sequence[str]) -> ItemTable:
    """The item table of catalog rows; codec numbers count in `codecs` (the manifest's order)."""
    kinds, offsets = _ragged(table, "item_kind")
    names = {"": -1, **{codec: i for i, codec in enumerate(codecs)}}
    streams, stream = _numbered(table, "item_stream")
    used, codec = _numbered(table, "item_codec")
    missing = [name for name in used if name not in names]
    if missing:
        raise ValueError(f"the catalog has items of codec {missing[0]!r}, the manifest lists {list(codecs)}")
    order = ["", *(s for s in streams if s)]
    columns = {name: _ragged(table, f"item_{name}")[0] for name in _PLAIN}
    return ItemTable(
        offsets=offsets,
        kind=kinds,
        codec=np.array([names[name] for name in used], np.int32)[codec] if used else np.zeros(0, np.int32),
        stream=np.array([order.index(s) for s in streams], np.int32)[stream] if streams else np.zeros(0, np.int32),
        times=_ragged(table, "item_times")[0],
        times_offsets=_sums(_ragged(table, "item_num_times")[0]),
        sentence_ends=_ragged(table, "item_sentence_ends")[0],
        sentence_offsets=_sums(_ragged(table, "item_num_sentence_ends")[0]),
        codecs=tuple(codecs),
        streams=tuple(order),
        **columns,
    )


def code_places(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Where the codes of each item lie in its record's `codes`: offset int64 [m], bytes a code int64 [m] (0: soft)."""
    names, number = _numbered(table, "item_dtype")
    widths = np.array([int(name[1:] or 0) for name in names], np.int64)
    return _ragged(table, "item_offset")[0], widths[number] if names else np.zeros(0, np.int64)


def rows_equal(table: pa.Table, column: str, text: str) -> np.ndarray:  # int64 [m]
    """The rows whose text in a column is this one."""
    import pyarrow.compute as pc

    return np.flatnonzero(pc.equal(table.column(column), readable(text)).to_numpy())


def rows_starting(table: pa.Table, column: str, text: str) -> np.ndarray:  # int64 [m]
    """The rows whose text in a column begins so."""
    import pyarrow.compute as pc

    return np.flatnonzero(pc.starts_with(table.column(column), readable(text)).to_numpy())


def likeness(table: pa.Table, column: str, text: str) -> np.ndarray:  # float64 [n]
    """How much of a text is in each row's, whatever the case: the share of its runs of three characters; of a shorter
    text 1 or 0."""
    import pyarrow.compute as pc

    text = readable(text)
    runs = {text[i : i + 3] for i in range(max(1, len(text) - 2))}
    found = np.zeros(len(table))
    for run in runs:
        found += pc.match_substring(table.column(column), run, ignore_case=True).to_numpy()
    return found / len(runs)


_PLAIN = ("T", "K", "t", "h", "w", "start_s", "end_s", "role", "group", "group_role")


def _row(sample: Sample) -> dict[str, Any]:
    items = sample.items
    shapes = [(0, 0) if i.codes is None else i.codes.shape for i in items]
    dtypes = [code_dtype(i) for i in items]
    num_bytes = [T * K * int(dtype[1:] or 0) for (T, K), dtype in zip(shapes, dtypes)]
    counted = {
        f"{kind}_{what}": sum(T * K if what == "codes" else 1 for i, (T, K) in zip(items, shapes) if i.kind == kind)
        for kind in _COUNTED
        for what in ("items", "codes")
    }
    return {
        **{
            name: readable(getattr(sample, name)) for name in ("id", "cluster", "uri", "language", "licence", "created")
        },
        **counted,
        "soft_items": sum(i.is_soft for i in items),
        "frames": sum(i.grid[0] for i in items if i.kind == KINDS[VIDEO]),
        "quality": [(k[len(QUALITY) :], float(v)) for k, v in sorted(sample.metadata.items()) if k.startswith(QUALITY)],
        "item_kind": [KINDS.index(i.kind) for i in items],
        "item_codec": [i.codec for i in items],
        "item_T": [s[0] for s in shapes],
        "item_K": [s[1] for s in shapes],
        "item_t": [i.grid[0] for i in items],
        "item_h": [i.grid[1] for i in items],
        "item_w": [i.grid[2] for i in items],
        "item_dtype": dtypes,
        "item_offset": np.cumsum([0, *num_bytes])[:-1].tolist(),
        "item_start_s": [i.start_s for i in items],
        "item_end_s": [i.end_s for i in items],
        "item_role": [ROLES.index(i.role) for i in items],
        "item_stream": [readable(i.stream) for i in items],
        "item_group": [i.group for i in items],
        "item_group_role": [GROUP_ROLES.index(i.group_role) for i in items],
        "item_num_times": [len(i.times) for i in items],
        "item_times": [t for i in items for t in i.times.tolist()],
        "item_num_sentence_ends": [len(i.sentence_ends) for i in items],
        "item_sentence_ends": [e for i in items for e in i.sentence_ends.tolist()],
    }


def _counts(sums: dict[str, int]) -> dict[str, dict[str, int]]:
    counts = {kind: {what: sums[f"{kind}_{what}"] for what in ("items", "codes")} for kind in _COUNTED}
    counts["video"]["frames"] = sums["frames"]
    counts["soft"] = {"items": sums["soft_items"]}
    return counts


def readable(text: str) -> str:
    """Parquet holds UTF-8 only: bytes of a file name which are none show as \\xNN (the record keeps them)."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _values(array: Any) -> list[bytes]:
    """What an arrow array holds, as bytes: a list's lengths, then its values; texts' lengths, then their UTF-8."""
    import pyarrow as pa

    if pa.types.is_map(array.type):
        keys, values = array.keys, array.items
        return [np.diff(array.offsets.to_numpy()).astype("<i8").tobytes(), *_values(keys), *_values(values)]
    if pa.types.is_list(array.type):
        lengths = np.diff(array.offsets.to_numpy()).astype("<i8")
        return [lengths.tobytes(), *_values(array.flatten())]
    if pa.types.is_string(array.type) or pa.types.is_fixed_size_binary(array.type):
        texts = [t.encode() if isinstance(t, str) else t for t in array.to_pylist()]
        return [np.array([len(t) for t in texts], "<i8").tobytes(), b"".join(texts)]
    values = array.to_numpy(zero_copy_only=False)
    return [values.astype(values.dtype.newbyteorder("<")).tobytes()]


def _ragged(table: pa.Table, name: str) -> tuple[np.ndarray, np.ndarray]:
    """A list column as (values, int64 offsets [n+1])."""
    column = table.column(name).combine_chunks()
    offsets = column.offsets.to_numpy().astype(np.int64)
    return column.flatten().to_numpy(zero_copy_only=False), offsets - offsets[0]


def _numbered(table: pa.Table, name: str) -> tuple[list[str], np.ndarray]:
    """A list column of names as (its different names, number of each entry)."""
    coded = table.column(name).combine_chunks().flatten().dictionary_encode()
    return coded.dictionary.to_pylist(), coded.indices.to_numpy(zero_copy_only=False)


def _sums(counts: np.ndarray) -> np.ndarray:  # int64 [n+1]
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
