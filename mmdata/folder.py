"""Folders: how a source's files are reached, in a folder of this machine or behind a URL.

Behind a URL small files (catalogs, codecs, indexes of media) are fetched when they are first asked for and stay; shards
are fetched whole into a bounded cache. What is kept lies under the source's fingerprint, so the files of two versions
of a source never mix.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mmdata.errors import DamagedRecord, RunError, UserError
from mmdata.remote import Listed, Store, log, url_of

if TYPE_CHECKING:
    from mmdata.cache import Cache, Reader
    from mmdata.manifest import Manifest

CACHE_SHARDS = 20
_AT_ONCE = 16  # small files fetched at the same time


class Folder(Protocol):
    """The files of a source by the names that its manifest lists."""

    @property
    def where(self) -> str:
        """The folder's path or URL, for messages."""

    @property
    def home(self) -> Path:
        """A folder of this machine for what can be made again (plans)."""

    def path(self, name: str) -> Path:
        """A small file on this machine, which stays."""

    def fetch(self, names: Iterable[str]) -> None:
        """Have several small files on this machine, as `path` would one after the other."""

    def shard(self, name: str) -> AbstractContextManager[Path]:
        """A shard of samples or media on this machine, at least as long as the context lasts: open or map it inside.
        DamagedRecord where there is no such file."""

    def holds(self, name: str) -> bool:
        """Whether a shard is on this machine now, so that keeping it open costs no disk beyond the cache."""

    def afresh(self, name: str) -> Path | None:
        """A shard fetched again, where there is anything to fetch it from."""


@dataclass(frozen=True)
class LocalFolder:
    """A folder of this machine: everything is at hand."""

    folder: Path

    @property
    def where(self) -> str:
        return str(self.folder)

    @property
    def home(self) -> Path:
        return self.folder

    def path(self, name: str) -> Path:
        return self.folder / name

    def fetch(self, names: Iterable[str]) -> None:
        pass

    def shard(self, name: str) -> AbstractContextManager[Path]:
        return nullcontext(self.folder / name)

    def holds(self, name: str) -> bool:
        return True

    def afresh(self, name: str) -> Path | None:
        return None


@dataclass(frozen=True)
class RemoteFolder:
    """The files of a source behind a URL, as far as they are wanted under `home`.

    `home` may be shared by any number of Loaders and processes of one machine. At most `cache_shards` shards of samples
    (and as many of media) lie there for readers that go through a source side by side, such as the data shards of one
    run; readers in other places may add their current group.
    """

    store: Store
    home: Path
    listed: Mapping[str, Listed] = field(repr=False)
    cache_shards: int = CACHE_SHARDS

    @property
    def where(self) -> str:
        return self.store.url

    def path(self, name: str) -> Path:
        self._bring_small(name)
        return self.home / name

    def fetch(self, names: Iterable[str]) -> None:
        missing = [name for name in names if name not in self._small]
        if missing:
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                list(pool.map(self._bring_small, missing))

    @contextmanager
    def shard(self, name: str) -> Iterator[Path]:
        cache, file = self._cache(name), Path(name).name
        try:
            cache.bring(file)
        except FileNotFoundError:
            raise DamagedRecord(name, None, f"{self.where}/{name} is missing") from None
        with cache.hold(file) as path:
            yield path

    def holds(self, name: str) -> bool:
        return Path(name).name in self._cache(name)

    def afresh(self, name: str) -> Path | None:
        cache = self._cache(name)
        cache.bring(Path(name).name, again=True)
        return cache.folder / Path(name).name

    def num_kept(self) -> int:
        """Shards of samples on this machine now, with those that are being fetched."""
        with self._shards.alone():
            return len(self._shards.files())

    def reader(self, catalogs: Mapping[str, str]) -> Reader:
        """A reader of shards of samples, which fetches their catalogs ahead too; `catalogs`: shard -> catalog."""
        from mmdata.cache import Reader

        def bring(name: str) -> bool:
            self._bring_small(catalogs[name])
            return self._shards.bring(name, ahead=True)

        return Reader(self._shards, bring)

    def _bring_small(self, name: str) -> None:
        try:
            self._small.bring(name)
        except FileNotFoundError:
            raise RunError(f"{self.where}/{name} is missing: copy the source there again, its manifest last") from None

    @cached_property
    def _small(self) -> Cache:
        return self._cache_in(self.home, "", None)

    @cached_property
    def _shards(self) -> Cache:
        return self._cache_in(self.home / "shards", "", self.cache_shards)

    @cached_property
    def _media(self) -> Cache:
        return self._cache_in(self.home / "media-shards", "media/", self.cache_shards)

    def _cache(self, name: str) -> Cache:
        return self._media if name.startswith("media/") else self._shards

    def _cache_in(self, folder: Path, prefix: str, limit: int | None) -> Cache:
        from mmdata.cache import Cache

        def fetch(name: str, to: Path) -> None:
            whole = self.store.download(prefix + name, to, self.listed.get(prefix + name, Listed()))
            if not whole and limit is None:
                raise RunError(
                    f"{self.where}/{name} is not the file that the manifest names: open the dataset again if it was"
                    " written anew, else copy the source there again"
                )
            if not whole:  # whoever opens it finds what of it is good
                log.warning("%s/%s is damaged where it is stored", self.where, prefix + name)

        return Cache(folder, fetch, limit)

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in self.__dataclass_fields__}


def open_store(where: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> Store | Path:
    """The store of a URL, or the path of a local folder: what a user names, as a string or any path object."""
    if url := url_of(where):
        return Store(url, dict(storage_options or {}))
    return Path(str(where).removeprefix("file://"))


def folder_of(store: Store | Path, fingerprint: str, manifest: Manifest, cache_shards: int) -> Folder:
    """How the files of a source with this manifest are reached."""
    from mmdata.plan import user_cache

    if isinstance(store, Path):
        return LocalFolder(store)
    if cache_shards < 1:
        raise UserError(f"cache_shards is {cache_shards}: use 1 or more")
    return RemoteFolder(store, user_cache() / "remote" / fingerprint[:32], _listed(manifest), cache_shards)


def _listed(manifest: Manifest) -> dict[str, Listed]:
    """What a manifest says of each file; the indexes of media are known by their size in the store alone."""
    files = {s.file: Listed(s.bytes, s.sha256) for s in manifest.shards}
    files |= {s.catalog: Listed(catalog_digest=s.catalog_digest) for s in manifest.shards}
    files |= {f"media/{s.file}": Listed(s.bytes, s.sha256) for s in manifest.media.shards}
    return files | {f.file: Listed(f.bytes, f.sha256) for f in manifest.codec_files}
