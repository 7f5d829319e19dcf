"""Stores: files behind a URL, read whole, checked, and read again with growing pauses where that fails.

The one home of fsspec, which speaks to s3://, gs://, http:// and the rest through packages of their own. Credentials
and endpoints come by the backend's own means (AWS_ENDPOINT_URL, AWS_PROFILE, ...) or as `storage_options`. Files are
never read in parts: what is fetched is kept on this machine (`mmdata/cache.py`).
"""

from __future__ import annotations

import errno
import logging
import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from mmdata.commit import sha256_of
from mmdata.errors import RunError, UserError

T = TypeVar("T")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_EXTRAS = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "http": "aiohttp",
    "https": "aiohttp",
}  # fmt: skip
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Retry:
    """How often a read is tried, and the pauses between: doubling, each a random share between half and all of it, so
    that the processes of a cluster do not come back together."""

    attempts: int = 6
    first_s: float = 0.5
    most_s: float = 30.0

    def pause(self, attempt: int) -> float:
        """Seconds after failed attempt number `attempt`, which counts from 1."""
        return min(self.most_s, self.first_s * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0)


RETRY = Retry()


@dataclass(frozen=True)
class Listed:
    """What is known of a file before it is read; nothing, where a field is empty."""

    bytes: int | None = None
    sha256: str = ""
    catalog_digest: str = ""  # of a catalog's values: the manifest has none of its bytes

    def problem(self, path: Path) -> str:
        """Why the file at `path` is not this one; "" where it is."""
        size = path.stat().st_size
        if self.bytes is not None and size != self.bytes:
            return f"{size} bytes came, it has {self.bytes}"
        if self.sha256 and sha256_of(path) != self.sha256:
            return "its sha256 is not the one that the manifest names"
        if self.catalog_digest and _catalog_digest(path) != self.catalog_digest:
            return "its values are not those that the manifest names"
        return ""


class TooLong(Exception):
    """A file has more bytes than may be fetched; says so in a line."""


class _Wrong(Exception):
    """What came is not the listed file."""


@dataclass(frozen=True)
class Store:
    """The files under a URL."""

    url: str
    options: Mapping[str, Any] = field(default_factory=dict)  # of the fsspec file system
    retry: Retry | None = None  # None: RETRY

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> Store:
        return Store(self._join(name), self.options, self.retry)

    def read(self, name: str) -> bytes:
        """The bytes of a small file; FileNotFoundError where there is none."""

        def once() -> bytes:
            files, path = self._open(name)
            return bytes(files.cat_file(path))

        return self._again(name, once)

    def download(self, name: str, to: Path, listed: Listed = Listed(), most: int | None = None) -> bool:
        """Write a file to `to`, as often as it takes until it is the listed one. False: twice the same other bytes
        came, so it is the store's own file that is damaged, and `to` holds it. FileNotFoundError where it is missing;
        TooLong once more than `most` bytes have come, whatever the store says of its length; RunError, naming the URL,
        where no attempt worked or this machine's disk is full."""
        prints: list[str] = []

        def once() -> bool:
            files, path = self._open(name)
            known = listed if listed != Listed() else Listed(bytes=_size(files, path))
            files.get_file(path, str(to), **({} if most is None else {"callback": _ceiling(most)}))
            if most is not None and to.stat().st_size > most:  # of a backend that does not tell how far it is
                raise TooLong(f"more than {most:,} bytes")
            if problem := known.problem(to):
                prints.append(sha256_of(to))
                if prints.count(prints[-1]) > 1 and _size(files, path) == to.stat().st_size:
                    return False
                raise _Wrong(problem)
            return True

        return self._again(name, once)

    def find(self) -> dict[str, tuple[int, str]]:
        """All files under the URL: path from there -> (bytes, what changes when the file does)."""

        def once() -> dict[str, tuple[int, str]]:
            files, path = self._open("")
            files.invalidate_cache()
            if files.isfile(path):
                return {"": _stamp(files.info(path))}
            found = files.find(path, detail=True)
            lead = path.rstrip("/") + "/"
            return {key.removeprefix(lead): _stamp(info) for key, info in sorted(found.items())}

        return self._again("", once)

    def _again(self, name: str, read: Callable[[], T]) -> T:
        retry = self.retry or RETRY
        for attempt in range(1, retry.attempts + 1):
            try:
                return read()
            except Exception as error:  # every backend has errors of its own
                self._refuse(name, error)
                said = f"{type(error).__name__}: {_line(error)}"
            if attempt < retry.attempts:
                log.warning("%s: attempt %d of %d: %s", self._join(name), attempt, retry.attempts, said)
                time.sleep(retry.pause(attempt))
        raise RunError(
            f"cannot fetch {self._join(name)}: {retry.attempts} attempts failed, the last with {said}; run it again"
            " when the store answers"
        )

    def _refuse(self, name: str, error: Exception) -> None:
        """Raise where trying again is of no use."""
        url = self._join(name)
        if isinstance(error, FileNotFoundError | UserError | TooLong):
            raise error
        if isinstance(error, PermissionError) or "Credential" in type(error).__name__:
            raise UserError(
                f"not allowed to read {url} ({_line(error)}): give credentials as the backend takes them (for s3://"
                " AWS_ACCESS_KEY_ID or AWS_PROFILE), or storage_options to mmdata.open"
            ) from error
        if isinstance(error, OSError) and error.errno in FULL:
            raise error

    def _open(self, name: str) -> tuple[Any, str]:
        """(file system, path in it); fsspec keeps one file system for the same options, and another after a fork."""
        import fsspec

        url = self._join(name)
        try:
            return fsspec.url_to_fs(url, **self.options)
        except ImportError as error:
            scheme = url.split("://")[0]
            need = _EXTRAS.get(scheme, scheme)
            raise UserError(f"{url}: {scheme}:// needs the package {need}: pip install {need} ({error})") from None
        except ValueError as error:
            raise UserError(f"{url} cannot be opened: {_line(error)}") from None

    def _join(self, name: str) -> str:
        return f"{self.url.rstrip('/')}/{name}" if name else self.url


def url_of(where: str | os.PathLike[str]) -> str:
    """The URL that a string or a path object names; "" where it names a local folder.

    >>> url_of("s3://bucket/demo/"), url_of("runs/demo"), url_of(Path("s3://bucket/demo"))
    ('s3://bucket/demo', '', 's3://bucket/demo')
    """
    text = str(where)
    scheme, colon, rest = text.partition(":/")
    if not colon or len(scheme) < 2 or not scheme.replace("+", "").replace("-", "").isalnum() or os.path.exists(text):
        return ""
    return f"{scheme}://{rest.lstrip('/')}".rstrip("/") if scheme != "file" else ""


def _stamp(info: Mapping[str, Any]) -> tuple[int, str]:
    """(bytes, the store's own digest, generation or time of a file)."""
    words = ("ETag", "etag", "md5Hash", "generation", "LastModified", "mtime", "created")
    return int(info.get("size") or 0), str(next((info[word] for word in words if info.get(word)), ""))


def _ceiling(most: int) -> Any:
    """What a backend tells each time that bytes have come, so that a download ends which would go on for ever."""
    from fsspec.callbacks import Callback

    class Ceiling(Callback):
        def relative_update(self, inc: int = 1) -> None:
            super().relative_update(inc)
            if self.value > most:
                raise TooLong(f"more than {most:,} bytes")

    return Ceiling()


def _size(files: Any, path: str) -> int | None:
    files.invalidate_cache()
    return files.info(path).get("size")


def _catalog_digest(path: Path) -> str:
    from mmdata.catalog import catalog_digest, stored_catalog

    try:
        return catalog_digest(stored_catalog(path))
    except Exception as error:  # a damaged Parquet file fails in many ways
        return _line(error)


def _line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
