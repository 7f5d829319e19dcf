"""The cache: files of a store kept in a folder of this machine, at most `limit` of them, shared by its processes.

A file is written under a name of its own (`NAME.part`) and renamed once it is whole and checked, so a killed process
leaves nothing that looks whole. Every lock is a `flock`, which ends with its process and works between threads as well:
on `NAME.part` while it is fetched (others that want it wait, then use it), on a file while it is being opened, on a
reader's claim as long as that reader lives, and on `claims/lock` for the moment in which files are counted and removed.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
import uuid
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, Thread

from mmdata.commit import commit
from mmdata.errors import RunError
from mmdata.remote import FULL, log

PART = ".part"
_BUSY_S = 0.01
_FETCHERS = 4  # threads of a reader that fetch ahead


@dataclass(frozen=True)
class Cache:
    """Files by name in `folder`. `fetch(name, path)` writes one. Without a limit nothing is ever removed."""

    folder: Path
    fetch: Callable[[str, Path], None]
    limit: int | None = None

    def __contains__(self, name: object) -> bool:
        return (self.folder / str(name)).exists()

    @contextmanager
    def hold(self, name: str) -> Iterator[Path]:
        """The file, fetched if it is not here; it is not removed while the context lasts, so open or map it inside."""
        path = self.folder / name
        while True:
            self.bring(name)
            with _opened(path, os.O_RDONLY) as file:
                if file is not None and _lock(file, fcntl.LOCK_SH) and _is_at(file, path):
                    os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))  # the oldest are removed first
                    yield path
                    return

    def bring(self, name: str, ahead: bool = False, again: bool = False) -> bool:
        """Fetch a file that is not here, or one that is (`again`). One that is only read ahead makes nobody wait: False
        where there is no room for it. What `fetch` raises; RunError where this machine's folder cannot take the file.
        """
        path = self.folder / name
        while again or not path.exists():
            part = self._begin(name, ahead, again)
            if part is None:
                return False
            with _opened(part, os.O_WRONLY) as file:
                if file is not None and ahead and not _lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB):
                    return True  # somebody else is fetching it
                if file is not None and _lock(file, fcntl.LOCK_EX) and _is_at(file, part):
                    if again or not path.exists():
                        self._fetch(name, part, file)
                    else:
                        part.unlink()
                    return True
        return True

    def drop(self, name: str) -> bool:
        """Remove a file; False where somebody is opening or fetching it."""
        path = self.folder / name
        with _opened(path, os.O_RDONLY) as file:
            if file is None or not _lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB) or not _is_at(file, path):
                return False
            path.unlink()
            return True

    def files(self) -> list[str]:
        """Names of the files here and of those being fetched, least recently opened first; of a cache with a limit."""
        found = []
        for entry in os.scandir(self.folder):
            with suppress(FileNotFoundError):  # removed meanwhile
                if entry.is_file():
                    found.append((entry.stat().st_atime_ns, entry.name))
        return [name for _, name in sorted(found)]

    @contextmanager
    def alone(self) -> Iterator[Path]:
        """The folder of claims, to one thread of one process of this machine at a time: for moments only."""
        claims = self.folder / "claims"
        with self._writing():
            claims.mkdir(parents=True, exist_ok=True)
            (claims / "lock").touch()
        with _opened(claims / "lock", os.O_RDONLY) as file:
            if file is None:
                raise RunError(f"{claims / 'lock'} was removed: leave the cache alone while it is in use, run it again")
            _lock(file, fcntl.LOCK_EX)
            yield claims

    def _begin(self, name: str, ahead: bool, again: bool) -> Path | None:
        """An empty file to fetch into, which counts as one; None where there is no room to read it ahead."""
        part = self.folder / (name + PART)
        if self.limit is None:
            with self._writing():
                part.parent.mkdir(parents=True, exist_ok=True)
                part.touch()
            return part
        while True:
            with self.alone() as claims:
                if part.exists() or (not again and (self.folder / name).exists()):
                    return part  # somebody is fetching it, or has done so just now
                if again or self._make_room(claims, name, ahead):
                    with self._writing():
                        part.touch()
                    return part
            if ahead:
                return None
            time.sleep(_BUSY_S)

    def _make_room(self, claims: Path, name: str, ahead: bool) -> bool:
        """Remove files until one more has room: those that nobody claims, the oldest first; then, for a file that is
        waited for, those claimed ahead. False: not now. What a current group needs is never removed, and room is left
        for what of it is still to come; where nothing else can be removed (readers in several places), there is a file
        too many until one of them goes on."""
        assert self.limit is not None
        now, later = _claimed(claims)
        files = self.files()
        name_of = {f: f.removesuffix(PART) for f in files}
        free = [f for f in files if name_of[f] not in now and name_of[f] not in later]
        spare = [] if ahead else [f for f in reversed(files) if name_of[f] in later and name_of[f] not in now]
        to_come = now - set(name_of.values()) if ahead and name not in now else ()
        excess, busy = len(files) + 1 + len(to_come) - self.limit, False
        for file in (*free, *spare):
            if excess > 0:
                dropped = self.drop(file)
                excess, busy = excess - dropped, busy or not dropped  # busy: being fetched or opened, for a moment
        return excess <= 0 or not (ahead or busy)

    def _fetch(self, name: str, part: Path, file: int) -> None:
        try:
            self.fetch(name, part)
            os.fsync(file)  # which takes long, so not while others wait
            with self.alone() if self.limit else nullcontext():  # who counts files would miss one that is renamed
                commit(part, self.folder / name)
        except BaseException as error:
            part.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno in FULL:
                raise RunError(
                    f"no space left to keep {self.folder / name}: free some, set MMDATA_CACHE to a folder on a larger"
                    " disk, or use fewer cache_shards"
                ) from error
            raise

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunError(
                f"cannot keep fetched files in {self.folder} ({error.strerror}): set MMDATA_CACHE to a folder that can"
                " be written"
            ) from error


class Reader:
    """One reader of a cache: what its current group needs is not removed, and what it needs next is fetched ahead.

    `bring(name)` fetches one file ahead and says whether there was room. A reader that is closed or dropped, or whose
    process dies, needs nothing any more.
    """

    def __init__(self, cache: Cache, bring: Callable[[str], bool]) -> None:
        self._cache, self._bring = cache, bring
        self._lock = Lock()
        self._claim: _Claim | None = None
        self._todo: deque[str] = deque()
        self._threads = 0

    def need(self, now: Sequence[str], ahead: Sequence[str] = (), keep: Sequence[str] = ()) -> None:
        """From now on the files `now` are needed, `ahead` next; `keep` may still be in use, but need not be fetched.
        Returns at once: other threads fetch what is missing, in this order, as far as there is room."""
        with self._lock:
            if self._claim is None or self._claim.pid != os.getpid():  # after a fork the claim is the parent's
                self._claim = _Claim.of(self._cache)
                self._threads = 0
            self._claim.write(self._cache, [*now, *keep][: self._cache.limit], list(ahead))
            self._todo = deque([*now, *ahead])
            while self._threads < min(_FETCHERS, len(self._todo)):
                self._threads += 1
                Thread(target=self._run, daemon=True, name="mmdata-fetch").start()

    def close(self) -> None:
        """Need nothing any more."""
        with self._lock:
            self._todo = deque()
            self._claim = None

    def _run(self) -> None:
        while True:
            with self._lock:
                todo = self._todo
                if not todo:
                    self._threads -= 1
                    return
                name = todo.popleft()
            try:
                room = self._bring(name)
            except Exception as error:  # whoever reads it tries again, and says what is wrong
                log.info("%s was not read ahead: %s", name, error)
                continue
            if not room:  # nor for what comes after it, until `need` is called again
                todo.clear()


@dataclass(frozen=True)
class _Claim:
    """A locked file that says what a living reader needs; the lock ends with the object."""

    pid: int
    file: int  # descriptor

    @classmethod
    def of(cls, cache: Cache) -> _Claim:
        with cache.alone() as claims:
            path = claims / f"{os.getpid()}-{uuid.uuid4().hex[:8]}.json"
            claim = cls(os.getpid(), os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
            _lock(claim.file, fcntl.LOCK_EX)
        weakref.finalize(claim, os.close, claim.file)
        return claim

    def write(self, cache: Cache, now: list[str], ahead: list[str]) -> None:
        with cache.alone():
            os.ftruncate(self.file, 0)
            os.pwrite(self.file, json.dumps([now, ahead]).encode(), 0)


def _claimed(claims: Path) -> tuple[set[str], set[str]]:
    """(files that the current groups of all living readers need, files that they want ahead)."""
    now: set[str] = set()
    ahead: set[str] = set()
    for path in claims.glob("*.json"):
        with _opened(path, os.O_RDONLY) as file:
            if file is None:
                continue
            if _lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB):  # its reader is gone
                path.unlink(missing_ok=True)
                continue
            written = json.loads(os.pread(file, os.fstat(file).st_size, 0) or b"[[], []]")
            now.update(written[0])
            ahead.update(written[1])
    return now, ahead


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int | None]:
    """A descriptor of a file; None where it is gone."""
    try:
        file = os.open(path, flags)
    except FileNotFoundError:
        yield None
        return
    try:
        yield file
    finally:
        os.close(file)


def _lock(file: int, kind: int) -> bool:
    """Whether the lock was got: always, unless LOCK_NB is part of `kind`."""
    try:
        fcntl.flock(file, kind)
    except BlockingIOError:
        return False
    return True


def _is_at(file: int, path: Path) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
