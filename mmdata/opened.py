"""Open shards: each verified by its sha256 when first opened, then mapped; a damaged one is read record by record.

What does not verify goes through the ArrayRecord reader, whose chunk hashes, with the catalog's digest of each record,
say which records are bad; all others are good. Where the reader finds no records, as they are listed at the end of a
file, a walk from its beginning does. The last few shards stay open. This file leaves nothing out: it names.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmdata.catalog import read_catalog, record_digest
from mmdata.errors import DamagedRecord
from mmdata.mapped import Mapped, find_records, map_file
from mmdata.shards import RecordFiles, ShardInfo

if TYPE_CHECKING:
    from mmdata.folder import Folder

_ATTEMPTS = 2
MAX_OPEN = 64  # shards of a split: a group of windows is ten


@dataclass(frozen=True, eq=False)
class OpenShard:
    """One shard, ready to be read."""

    info: ShardInfo
    mapped: Mapped | None  # None: through the reader
    reader: RecordFiles
    digests: Sequence[bytes] | None  # of each record, where the file is not as it was written
    walked: Mapped | None = None  # its records as a walk finds them, where the reader finds none

    def read(self, places: Sequence[int] | np.ndarray) -> list[bytes]:
        """The records at `places`; DamagedRecord naming the first that is not as it was written."""
        if self.mapped is not None:
            return [self.mapped.record(int(p)) for p in places]
        if self.digests is None:
            return self.reader.read(0, places)
        return [self._checked(int(p)) for p in places]

    def _checked(self, place: int) -> bytes:
        assert self.digests is not None
        try:
            record = self.walked.record(place) if self.walked else self.reader.read(0, [place])[0]
        except DamagedRecord as error:
            raise DamagedRecord(self.info.file, place, error.why) from error
        if record_digest(record) != self.digests[place]:
            raise DamagedRecord(self.info.file, place, "its digest is not the catalog's")
        return record


class OpenShards:
    """The shards of one split by number, the last few of them open. Picklable; used from threads."""

    def __init__(self, folder: Folder, shards: Sequence[ShardInfo], max_open: int = MAX_OPEN) -> None:
        self._folder, self._shards, self._max_open = folder, tuple(shards), max_open
        self._open: OrderedDict[int, OpenShard] = OrderedDict()
        self._verified: dict[int, tuple[int, ...] | None] = {}  # as the file was when its sha256 was found right
        self._lock = threading.Lock()
        self._opening: dict[int, threading.Lock] = {}

    def __getitem__(self, shard: int) -> OpenShard:
        """Shard number `shard`, opened if it is not; DamagedRecord where nothing of it can be read."""
        with self._lock:
            if shard in self._open:
                self._open.move_to_end(shard)
                return self._open[shard]
            opening = self._opening.setdefault(shard, threading.Lock())
        # Fetching and hashing take a while: other shards are read and opened meanwhile, and this one by one thread
        with opening, self._folder.shard(self._shards[shard].file) as path:
            with self._lock:
                found = self._open.get(shard)
            if found is None:
                found = self._opened_now(shard, path)
                with self._lock:
                    self._close_some()
                    self._open[shard] = found
            self._opening.pop(shard, None)
            return found

    def _close_some(self) -> None:
        """Make room for one, and close those whose files have left this machine: an open file keeps its disk space."""
        for shard in [s for s in self._open if not self._folder.holds(self._shards[s].file)]:
            del self._open[shard]
        while len(self._open) >= self._max_open:
            self._open.popitem(last=False)

    def _opened_now(self, shard: int, path: Path) -> OpenShard:
        info = self._shards[shard]
        catalog, verified = self._folder.path(info.catalog), self._verified.get(shard) == _mark(path)
        opened = open_shard(path, catalog, info, lambda: self._folder.afresh(info.file), verified)
        if opened.digests is None:
            self._verified[shard] = _mark(path)
        return opened

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self._folder, "shards": self._shards, "max_open": self._max_open}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"], state["shards"], state["max_open"])  # type: ignore[misc]


def open_shard(
    path: Path,
    catalog: Path,
    info: ShardInfo,
    afresh: Callable[[], Path | None] = lambda: None,
    verified: bool = False,
) -> OpenShard:
    """A shard's file, verified, unless it was and has not changed since (`verified`). One that is not as it was written
    is looked at once more, after `afresh` has fetched it again where it can (it gives the new file); what is still
    damaged is read through the reader."""
    why = ""
    for attempt in range(_ATTEMPTS):
        path = (afresh() if attempt else None) or path
        try:
            data = map_file(path)
        except OSError as error:
            why = f"{type(error).__name__}: {error.strerror}"
            continue
        why = "" if verified and not attempt else _difference(data, info)
        if why:
            continue
        try:
            return OpenShard(info, find_records(data, info.samples), RecordFiles([path]), None)
        except ValueError:  # as it was written, with other options of ArrayRecord
            reader = RecordFiles([path])
            reader.read(0, [0][: info.samples])  # opens it, while it is sure to be there
            return OpenShard(info, None, reader, None)
    return _damaged(path, catalog, info, why)


def _mark(path: Path) -> tuple[int, ...] | None:
    """What changes with a file's content; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino


def _difference(data: np.ndarray, info: ShardInfo) -> str:
    if len(data) != info.bytes:
        return f"{len(data)} bytes, the manifest says {info.bytes}"
    if hashlib.sha256(data.data).hexdigest() != info.sha256:
        return "its sha256 is not the manifest's"
    return ""


def _damaged(path: Path, catalog: Path, info: ShardInfo, why: str) -> OpenShard:
    try:
        digests = read_catalog([catalog], ["record"]).column("record").to_pylist()
        data = map_file(path)
    except Exception as error:  # a damaged Parquet file fails in many ways
        raise DamagedRecord(info.file, None, f"{why}; {_line(error)}") from error
    reader = RecordFiles([path])
    try:
        found = reader.num_records(0)
        said = f"{found} of {info.samples} records are found"
    except Exception as error:  # whatever a file of any bytes makes a reader raise
        found, said = 0, _line(error)
    if found == info.samples:
        return OpenShard(info, None, reader, digests)
    try:
        return OpenShard(info, None, reader, digests, find_records(data, info.samples))
    except ValueError:
        raise DamagedRecord(info.file, None, f"{why}; {said}") from None


def _line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
