"""Limits on media, and the one error that decoding raises.

Media are hostile input. Every decoder of this package (`decode_image`, `decode_audio`, `decode_video`) takes bytes or a
path, checks `Limits` before it allocates, and raises nothing but `MediaError`, whose reason is one of `REASONS`: the
build writes it into the ledger and goes on. Time is not limited here: a decoder stuck in C code can only be stopped
from outside, by the build's supervisor.
"""

from __future__ import annotations

import io
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

# The fixed words of the ledger's `reason` for media; the detail says more.
EMPTY = "empty"
OVER_LIMIT = "over limit"
CANNOT_DECODE = "cannot decode"
NO_TRACK = "no such track"
MISSING = "missing file"
OUT_OF_MEMORY = "out of memory"
CHANGED = "changed while the build ran"
REASONS = (EMPTY, OVER_LIMIT, CANNOT_DECODE, NO_TRACK, MISSING, OUT_OF_MEMORY, CHANGED)


@dataclass(frozen=True)
class Limits:
    """The most that one medium may take; more is `MediaError("over limit", ...)`."""

    max_pixels: int = 100_000_000  # of an image or a video frame, before any resizing
    max_seconds: float = 4 * 3600.0  # of sound or video
    max_frames: int = 500_000  # frames decoded of a video, chosen or not
    max_bytes: int = 4 << 30  # of a media file; a text file or a record may have a sixteenth of it
    max_expansion: int = 200  # times its own size that a packed file unpacks to; one below 1 MB counts as 1 MB

    @property
    def max_text_bytes(self) -> int:
        return self.max_bytes // 16

    def max_unpacked(self, packed_bytes: int) -> int:
        """Bytes that a packed file of this size may unpack to."""
        return max(packed_bytes, 1 << 20) * self.max_expansion


class MediaError(Exception):
    """A medium that cannot be used: `reason` is one of `REASONS`, `detail` one line for a person."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


class Meter:
    """Counts the bytes that come out of something packed, or that a record gathers, and refuses what is too much."""

    def __init__(self, most: int, what: str) -> None:
        self.left = most
        self._words = f"more than {most:,} bytes {what}"

    def add(self, num_bytes: int) -> None:
        """Raises MediaError("over limit", ...) once the sum passes the limit, and for all that follows."""
        self.left -= num_bytes
        if self.left < 0:
            raise MediaError(OVER_LIMIT, self._words)


def one_line(error: BaseException, width: int = 200) -> str:
    """An exception as one line for the ledger, without the paths and addresses that would differ between runs."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words[:width]


def refused(error: Exception, what: str = "") -> MediaError:
    """What a foreign parser raised on a file's bytes, as a verdict on them: parsers raise far more than they document
    (LookupError, struct.error, AssertionError ...) when the bytes are hostile, so their callers catch all of it.

    But a lack of memory is no verdict on the file that met it, and is raised: the build takes its inputs one by one.
    """
    if isinstance(error, MemoryError):
        raise error
    return MediaError(CANNOT_DECODE, f"{what}: {one_line(error)}" if what else one_line(error))


@contextmanager
def opened(medium: bytes | Path, limits: Limits) -> Iterator[BinaryIO]:
    """The medium as a seekable binary file, once its size is known to be within the limits and not zero."""
    if isinstance(medium, Path):
        try:
            found = medium.stat()
        except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
            raise MediaError(MISSING, getattr(error, "strerror", None) or "cannot be opened") from None
        if not stat.S_ISREG(found.st_mode):  # to open a pipe may wait for ever, and a device may never end
            raise MediaError(MISSING, "not a file")
        size = found.st_size
    else:
        size = len(medium)
    if size == 0:
        raise MediaError(EMPTY, "no bytes")
    if size > limits.max_bytes:
        raise MediaError(OVER_LIMIT, f"{size:,} bytes, the limit max_bytes is {limits.max_bytes:,}")
    try:
        file: BinaryIO = medium.open("rb") if isinstance(medium, Path) else io.BytesIO(medium)
    except OSError as error:
        raise MediaError(MISSING, error.strerror or "cannot be opened") from None
    with file:
        yield file
