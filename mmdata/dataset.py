"""Reading: `mmdata.open(DIR)` gives a Dataset of Sources, each with its splits, catalog, manifest and kept media.

Reading needs no codec. Nothing is loaded before it is asked for; a Split can be pickled and used from threads.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmdata.catalog import code_places, item_columns, item_table, read_catalog
from mmdata.errors import UserError
from mmdata.example import first_bytes
from mmdata.folder import CACHE_SHARDS, Folder, folder_of, open_store
from mmdata.manifest import Manifest, fingerprint_of, read_json, read_json_from
from mmdata.media import MediaStore
from mmdata.opened import OpenShards
from mmdata.remote import Store, url_of
from mmdata.sample import Sample
from mmdata.shards import SPLITS, ShardInfo, decode_sample
from tokenizer.codec import CodecSpec, spec_of
from tokenizer.codecs import FileCodecs
from tokenizer.item import GROUP_ROLES, KINDS, ROLES, Item, ItemTable

if TYPE_CHECKING:
    import pyarrow as pa


class Split(Sequence[Sample]):
    """The samples of one split of a source, shard after shard: sample i is in shard s where
    shard_bounds[s] <= i < shard_bounds[s + 1]."""

    def __init__(
        self, folder: Folder, name: str, shards: Sequence[ShardInfo], codecs: Sequence[str], source: str = ""
    ) -> None:
        self.name = name
        self._source = source
        self.shards = tuple(shards)
        self.codecs = tuple(codecs)
        self.shard_bounds = np.cumsum([0, *(s.samples for s in shards)], dtype=np.int64)  # int64 [shards + 1]
        self._folder = folder
        self.opened = OpenShards(folder, shards)
        self._shapes = _Shapes(self)

    def __len__(self) -> int:
        return int(self.shard_bounds[-1])

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of a {self.name} split of {len(self)}")
        return self.read([index % len(self)])[0]

    def __iter__(self) -> Iterator[Sample]:
        for start in range(0, len(self), 256):
            yield from self.read(range(start, min(start + 256, len(self))))

    def read(self, indices: Sequence[int] | np.ndarray, whole: bool = True) -> list[Sample]:
        """The samples at `indices`, in their order: much faster than one at a time. `whole=False` gives only what a
        batch needs, several times faster: id, cluster, source and the items as `read_items` has them."""
        wanted = np.asarray(indices, np.int64).reshape(-1)
        records = self.read_records(wanted)
        if whole:
            return [decode_sample(record) for record in records]
        samples = []
        for i, record in zip(wanted.tolist(), records):
            id, cluster = self._shapes.of(self._shard_of(i)).names[i - int(self.shard_bounds[self._shard_of(i)])]
            samples.append(Sample(id, cluster, self._source, tuple(self.items_of(i, record))))
        return samples

    def read_records(self, indices: Sequence[int] | np.ndarray) -> list[bytes]:
        """The records at `indices`, in their order, with one call for each shard that holds some."""
        wanted = np.asarray(indices, np.int64).reshape(-1)
        if wanted.size and not (wanted.min() >= 0 and wanted.max() < len(self)):
            raise IndexError(f"samples {wanted.min()} to {wanted.max()} of a {self.name} split of {len(self)}")
        shard = np.searchsorted(self.shard_bounds, wanted, "right") - 1
        records: list[bytes] = [b""] * len(wanted)
        for s in np.unique(shard):
            places = np.flatnonzero(shard == s)
            for place, record in zip(places, self.opened[int(s)].read(wanted[places] - self.shard_bounds[s])):
                records[place] = record
        return records

    def read_items(self, indices: Sequence[int] | np.ndarray) -> list[list[Item]]:
        """The items at `indices` as a layout needs them: shapes from the catalog, codes from the records, several
        times faster than `read`. Without digest, uri, text and word times, but for samples with soft items."""
        wanted = np.asarray(indices, np.int64).reshape(-1)
        return [self.items_of(i, record) for i, record in zip(wanted.tolist(), self.read_records(wanted))]

    def items_of(self, index: int, record: bytes) -> list[Item]:
        """What `read_items` makes of the record of sample `index`."""
        s = self._shard_of(index)
        found = self._shapes.of(s).items(index - int(self.shard_bounds[s]), record)
        return list(decode_sample(record).items) if found is None else found

    def _shard_of(self, index: int) -> int:
        return int(np.searchsorted(self.shard_bounds, index, "right")) - 1

    def item_table(self, start: int = 0, stop: int | None = None) -> ItemTable:
        """The item table of samples start:stop from the catalog, codecs numbered as in the manifest."""
        return item_table(self.catalog(item_columns(), start, stop), self.codecs)

    def catalog(self, columns: Sequence[str] | None = None, start: int = 0, stop: int | None = None) -> pa.Table:
        """Catalog rows of samples start:stop; opens only the shards concerned."""
        start, stop, _ = slice(start, stop).indices(len(self))
        bounds = self.shard_bounds
        first = int(np.searchsorted(bounds, start, "right")) - 1
        last = max(first, int(np.searchsorted(bounds, stop, "left")))
        if start >= stop:
            return read_catalog([], columns)
        names = [s.catalog for s in self.shards[first:last]]
        self._folder.fetch(names)
        rows = read_catalog([self._folder.path(name) for name in names], columns)
        if rows.num_rows != bounds[last] - bounds[first]:
            raise self._wrong_catalog(first, last)
        return rows.slice(start - int(bounds[first]), stop - start)

    def holds(self, shard: int) -> bool:
        """Whether the file of a shard is on this machine."""
        return self._folder.holds(self.shards[shard].file)

    def _wrong_catalog(self, first: int, last: int) -> UserError:
        """What is wrong with the catalogs of some shards that have too few or too many rows."""
        for shard in self.shards[first:last]:
            found = read_catalog([self._folder.path(shard.catalog)], ["index"]).num_rows
            if found != shard.samples:
                break
        return UserError(
            f"catalog {shard.catalog} of source {self._source!r} has {found} rows, its shard has {shard.samples}"
            " samples: run `mmdata verify`, then fetch or build it again"
        )


class _ShardShapes:
    """The item shapes of one shard, from its catalog."""

    def __init__(self, split: Split, shard: int) -> None:
        start, stop = split.shard_bounds[shard : shard + 2].tolist()
        rows = split.catalog(["id", "cluster", *item_columns()], start, stop)
        self.names = list(zip(rows.column("id").to_pylist(), rows.column("cluster").to_pylist()))
        self.table = item_table(rows, split.codecs)
        self.offset, self.width = code_places(rows)

    def items(self, index: int, record: bytes) -> list[Item] | None:
        """The items of the sample at a place of the shard; None where one is soft."""
        t, codes = self.table, first_bytes(record)
        start, stop = t.offsets[index : index + 2].tolist()
        if not self.width[start:stop].all():
            return None
        items = []
        for i in range(start, stop):
            T, K, width, offset = int(t.T[i]), int(t.K[i]), int(self.width[i]), int(self.offset[i])
            items.append(
                Item(
                    kind=KINDS[t.kind[i]],
                    codec=t.codecs[t.codec[i]],
                    codes=np.frombuffer(codes, f"<u{width}", T * K, offset).astype(np.int32).reshape(T, K),
                    grid=(int(t.t[i]), int(t.h[i]), int(t.w[i])),
                    start_s=float(t.start_s[i]),
                    end_s=float(t.end_s[i]),
                    role=ROLES[t.role[i]],
                    stream=t.streams[t.stream[i]],
                    group=int(t.group[i]),
                    group_role=GROUP_ROLES[t.group_role[i]],
                    times=t.times[t.times_offsets[i] : t.times_offsets[i + 1]],
                    sentence_ends=t.sentence_ends[t.sentence_offsets[i] : t.sentence_offsets[i + 1]],
                )
            )
        return items


class _Shapes:
    """The shapes of the shards used last."""

    def __init__(self, split: Split, max_shards: int = 20) -> None:
        self._split = split
        self._max_shards = max_shards
        self._cached: OrderedDict[int, _ShardShapes] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, shard: int) -> _ShardShapes:
        with self._lock:
            if shard not in self._cached:
                while len(self._cached) >= self._max_shards:
                    self._cached.popitem(last=False)
                self._cached[shard] = _ShardShapes(self._split, shard)
            self._cached.move_to_end(shard)
            return self._cached[shard]

    def __getstate__(self) -> dict[str, Any]:
        return {"split": self._split, "max_shards": self._max_shards}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["split"], state["max_shards"])  # type: ignore[misc]


class Source:
    """One source of a dataset: the folder DIR/<source>, or what of a URL's files is kept on this machine."""

    def __init__(self, place: Store | Path, manifest: dict[str, Any], cache_shards: int = CACHE_SHARDS) -> None:
        self._opened_as = place, cache_shards
        self.manifest = Manifest.from_json(manifest)
        self.fingerprint = fingerprint_of(manifest)
        self.files = folder_of(place, self.fingerprint, self.manifest, cache_shards)
        self.folder = self.files.home
        self._loaded: dict[str, Any] = {}
        names = [c.name for c in self.codecs]
        self.splits = {
            split: Split(self.files, split, self.manifest.of_split(split), names, self.name) for split in SPLITS
        }

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def codecs(self) -> tuple[CodecSpec, ...]:
        return self.manifest.codecs

    @property
    def train(self) -> Split:
        return self.splits["train"]

    @property
    def validation(self) -> Split:
        return self.splits["validation"]

    def load_codec(self, name: str) -> Any:
        """The codec of some of this source's items, ready to use: out of its `codecs/` folder, else a shipped one.
        UserError where it has none of that name, or is not the one that the source was made with."""
        spec = next((c for c in self.codecs if c.name == name), None)
        if spec is None:
            raise UserError(f"source {self.name} has no codec {name!r}; it has {[c.name for c in self.codecs]}")
        if name not in self._loaded:
            files = tuple(kept.at(self.files.path(kept.file)) for kept in self.manifest.codec_files)
            try:
                codec = FileCodecs(files)(name)
            except ValueError as error:
                raise UserError(f"source {self.name} in {self.files.where}: {error}") from None
            if spec_of(codec).fingerprint != spec.fingerprint:
                raise UserError(
                    f"the codec {name} is not the one that source {self.name} was made with; use that mmdata"
                )
            self._loaded[name] = codec
        return self._loaded[name]

    @cached_property
    def catalog(self) -> pa.Table:
        """The rows of all splits, train first."""
        names = [s.catalog for s in self.manifest.shards]
        self.files.fetch(names)
        return read_catalog([self.files.path(name) for name in names])

    @cached_property
    def media(self) -> MediaStore:
        return MediaStore(self.files, self.manifest.media)

    def __reduce__(self) -> tuple[Any, ...]:
        """As where it lies; what is there must still be the same source."""
        return _opened_again, (*self._opened_as, self.name, self.fingerprint)

    def __repr__(self) -> str:
        return f"Source({self.name!r}, train={len(self.train)}, validation={len(self.validation)})"


class Dataset(Mapping[str, Source]):
    """The sources of a folder by name, in the recipe's order. `where`: the folder's path, or its URL."""

    def __init__(self, where: str, sources: Mapping[str, Source]) -> None:
        self.where = where
        self.sources = dict(sources)

    @property
    def folder(self) -> Path:
        """The folder on this machine; UserError where the dataset was opened by a URL."""
        if url_of(self.where):
            raise UserError(f"{self.where} is not on this machine: copy the dataset here and name its folder")
        return Path(self.where)

    def __getitem__(self, name: str) -> Source:
        if name not in self.sources:
            raise KeyError(f"no source {name!r} in {self.where}, which has {list(self.sources)}")
        return self.sources[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.sources)

    def __len__(self) -> int:
        return len(self.sources)

    def __contains__(self, name: object) -> bool:
        return name in self.sources

    def __repr__(self) -> str:
        return f"Dataset({self.where!r}, {list(self.sources.values())})"


def open_dataset(
    folder: str | os.PathLike[str],
    *,
    cache_shards: int = CACHE_SHARDS,
    storage_options: Mapping[str, Any] | None = None,
) -> Dataset:
    """The dataset in a folder, or behind a URL (s3://, gs://, whatever fsspec opens) or a path object that stands for
    one; the folder of a single source gives a dataset of that one.

    cache_shards: of a URL's shards, most of each source that are kept on this machine at a time
    storage_options: for fsspec's file system, where the environment does not say all (credentials, endpoint)

    UserError where the build has not finished, where a source is not the one that the dataset lists, or where the
    format is too new.
    """
    place = open_store(folder, storage_options)
    manifest = _manifest(place)
    if manifest["kind"] == "source":
        source = Source(place, manifest, cache_shards)
        return Dataset(str(folder), {source.name: source})
    sources = {}
    for entry in manifest["sources"]:
        inside = place / entry["name"]
        source = sources[entry["name"]] = _open_source(inside, _manifest(inside), cache_shards)
        if source.fingerprint != entry["fingerprint"]:
            raise UserError(
                f"source {entry['name']} in {folder} is not the one its manifest lists (fingerprint "
                f"{source.fingerprint[:12]}, listed {entry['fingerprint'][:12]}): run `mmdata build` again"
            )
    return Dataset(str(folder), sources)


def open_source(
    folder: str | os.PathLike[str],
    *,
    cache_shards: int = CACHE_SHARDS,
    storage_options: Mapping[str, Any] | None = None,
) -> Source:
    """The source in a folder DIR/<source>, or the only source of a dataset DIR; a URL as for `open_dataset`."""
    place = open_store(folder, storage_options)
    return _open_source(place, _manifest(place), cache_shards)


def _opened_again(place: Store | Path, cache_shards: int, name: str, fingerprint: str) -> Source:
    source = _open_source(place, _manifest(place), cache_shards)
    if source.fingerprint != fingerprint:
        raise UserError(f"source {name!r} is not what it was when the Loader was made: {place} has been built anew")
    return source


def _open_source(place: Store | Path, manifest: dict[str, Any], cache_shards: int) -> Source:
    if manifest["kind"] == "source":
        return Source(place, manifest, cache_shards)
    names = [entry["name"] for entry in manifest["sources"]]
    if len(names) != 1:
        raise UserError(f"{place} is a dataset of the sources {names}: name one, as {place / (names or ['NAME'])[0]}")
    return _open_source(place / names[0], _manifest(place / names[0]), cache_shards)


def _manifest(place: Store | Path) -> dict[str, Any]:
    return read_json(place) if isinstance(place, Path) else read_json_from(place)
