"""Write once, then commit: temporary name, fsync, rename, fsync of the folder. A name that exists is whole."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from mmdata.errors import RunError

TEMPORARY = ".tmp"  # the end of every temporary name


def temporary(path: Path) -> Path:
    """A name beside `path` which no reader takes for data, this process's own: the same whenever it asks."""
    return path.with_name(f"{path.name}.{_own_name(os.getpid())}{TEMPORARY}")


def commit(written: Path, path: Path) -> None:
    """Make the file `written` durable under the name `path`."""
    with writing(path):
        _sync(written)
        os.replace(written, path)
        _sync(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """`data` under the name `path`, or nothing."""
    with writing(path):
        written = temporary(path)
        written.write_bytes(data)
    commit(written, path)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a full disk, a quota and a missing right into one line; removes this process's temporary file."""
    try:
        yield
    except OSError as error:
        temporary(path).unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise RunError(f"no space left to write {path}: free some, then run the same command again") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise RunError(f"not allowed to write {path}: {error.strerror}") from error
        raise
    except BaseException:
        temporary(path).unlink(missing_ok=True)
        raise


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def _own_name(pid: int) -> str:
    """Of this process alone: pods that share a folder may have equal process ids, and even equal host names. A forked
    child asks by another pid, so it gets another name."""
    return f"{socket.gethostname()}-{pid}-{secrets.token_hex(4)}"


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
