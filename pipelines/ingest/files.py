"""Reading text files that may be hostile: bounded, gzip by content, the encoding declared or UTF-8."""

from __future__ import annotations

import base64
import binascii
import codecs
import gzip
import os
import re
import urllib.parse
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pipelines.ingest.charset import codec_of, errors_of
from pipelines.ingest.media import CANNOT_DECODE, EMPTY, OVER_LIMIT, Limits, MediaError, Meter, one_line, opened

REMOTE = "remote media are not fetched"  # the ledger's reason

AUDIO = (".wav", ".ogg", ".oga", ".opus", ".flac", ".mp3", ".m4a", ".aac", ".aiff", ".aif", ".wma", ".amr", ".wv")
IMAGE = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jp2", ".ppm", ".pgm", ".tga")
VIDEO = (".mp4", ".webm", ".mkv", ".mov", ".avi", ".mpg", ".mpeg", ".m4v", ".ogv", ".ts", ".wmv", ".flv", ".3gp")

_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_META = re.compile(rb"""(?:charset|encoding)\s*=\s*["']?\s*([A-Za-z0-9_.:-]+)""", re.IGNORECASE)


@contextmanager
def unpacked(path: Path, limits: Limits) -> Iterator[BinaryIO]:
    """The file, through gzip where its first bytes say so. Errors while reading become MediaError."""
    with opened(path, limits) as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        try:
            if packed:
                size = file.seek(0, os.SEEK_END)
                file.seek(0)
                meter = Meter(limits.max_unpacked(size), f"unpacked of {size:,} (max_expansion)")
                with gzip.open(file) as inner:
                    yield _Metered(inner, meter)  # type: ignore[misc, arg-type]
            else:
                yield file
        except (EOFError, gzip.BadGzipFile, zlib.error, OSError) as error:
            raise MediaError(CANNOT_DECODE, one_line(error)) from None


class _Metered:
    """What is read of a packed file, on a meter. Seeks forward count as reads do."""

    def __init__(self, file: BinaryIO, meter: Meter) -> None:
        self._file, self._meter, self._seen = file, meter, 0

    def read(self, size: int = -1) -> bytes:
        if size < 0:  # all of it: never more than the meter would let through
            return self._counted(self._file.read(max(0, self._meter.left) + 1))
        return self._counted(self._file.read(size))

    def read1(self, size: int = -1) -> bytes:
        """What is there, if not all: data before a place that is broken."""
        return self._counted(self._file.read1(size))  # type: ignore[attr-defined]

    def readline(self, size: int = -1) -> bytes:
        return self._counted(self._file.readline(size))

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_SET and offset > self._seen:
            self._meter.add(offset - self._seen)  # before the bytes are unpacked
        place = self._file.seek(offset, whence)
        self._seen = max(self._seen, place)
        return place

    def tell(self) -> int:
        return self._file.tell()

    def _counted(self, data: bytes) -> bytes:
        place = self._file.tell()
        self._meter.add(max(0, place - self._seen))
        self._seen = max(self._seen, place)
        return data


def read_bytes(path: Path, limits: Limits) -> bytes:
    """The whole unpacked file. Raises MediaError: empty, over limit, cannot decode."""
    with unpacked(path, limits) as file:
        data = file.read(limits.max_text_bytes + 1)
    if len(data) > limits.max_text_bytes:
        raise MediaError(OVER_LIMIT, f"more than {limits.max_text_bytes:,} bytes of text (max_bytes / 16)")
    if not data:
        raise MediaError(EMPTY, "no bytes")
    return data


def read_text(path: Path, limits: Limits, encoding: str = "") -> str:
    """The whole file as text: in `encoding`, else as its byte order mark says, else UTF-8."""
    return decode_text(read_bytes(path, limits), encoding)


def decode_text(data: bytes, encoding: str = "", *, web: bool = False, declared: bool = False) -> str:
    """Bytes as text with "\\n" line ends. web: `encoding` means what it means on the web, not in Python. declared: so
    too, and without one look for a charset in the first bytes, as HTML and XML have one."""
    encoding = codec_of(encoding) if web or declared else encoding
    for mark, name in _BOMS:
        if data.startswith(mark):
            data, encoding = data[len(mark) :], name
            break
    else:
        if not encoding and declared and (found := _META.search(data[:2048])):
            encoding = codec_of(found[1].decode("ascii"), in_tag=True)
    try:
        text = data.decode(encoding or "utf-8", errors_of(encoding) if web or declared else "strict")
    except UnicodeError as error:  # a few codecs ("undefined", "idna") raise this, without a place
        place = f" at byte {error.start}" if isinstance(error, UnicodeDecodeError) else ""
        raise MediaError(CANNOT_DECODE, f"not {encoding or 'UTF-8'}{place}; the key `encoding` names another") from None
    except LookupError:
        raise MediaError(CANNOT_DECODE, f"unknown encoding {encoding!r}") from None
    # utf-16 and utf-7 can give lone surrogates, which no later stage can store.
    if has_surrogate(text):
        raise MediaError(CANNOT_DECODE, "lone surrogates in the text")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def data_address(address: str, limits: Limits) -> bytes:
    """The bytes of a `data:` address, base64 or percent-encoded."""
    head, comma, body = address.partition(",")
    if not comma:
        raise MediaError(CANNOT_DECODE, "a data: address without a comma")
    if len(body) > limits.max_text_bytes:
        raise MediaError(OVER_LIMIT, f"a data: address of {len(body):,} characters")
    if not head.endswith(";base64"):
        return urllib.parse.unquote_to_bytes(body)
    try:
        return base64.b64decode(re.sub(r"\s+", "", urllib.parse.unquote(body)), validate=True)
    except (binascii.Error, ValueError):
        raise MediaError(CANNOT_DECODE, "a data: address that is not base64") from None


def kind_of(name: str) -> str:
    """image, audio or video by the ending of a name, else "".

    >>> [kind_of(name) for name in ("a.PNG", "b.opus", "c.webm", "d.txt")]
    ['image', 'audio', 'video', '']
    """
    name = name.lower()
    kinds = (("image", IMAGE), ("audio", AUDIO), ("video", VIDEO))
    return next((kind for kind, ends in kinds if name.endswith(ends)), "")


def has_surrogate(text: str) -> bool:
    """Whether a text holds lone surrogates, which no later stage can store."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def stem(path: str) -> str:
    """The path without its last ending: "a/b.png" -> "a/b"."""
    folder, _, name = path.rpartition("/")
    name = name.rsplit(".", 1)[0] if "." in name[1:] else name
    return f"{folder}/{name}" if folder else name
