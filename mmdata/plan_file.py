"""The file of a plan: safetensors, written array by array as windows come, and opened as views of its map.

A plan of a billion samples never lies in memory: what is written goes to unnamed temporary files, which are joined
into the one file at the end; what is read is mapped. The bytes are those that the safetensors library writes.
"""

from __future__ import annotations

import json
import mmap
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mmdata.commit import commit, temporary, writing
from mmdata.errors import UserError
from mmdata.manifest import canonical_json
from mmdata.plan_settings import PLAN_VERSIONS, PlanSettings

# In the order of the file: wide types first, then by name, as the library does.
ARRAYS = {"rows": "<i8", "sample": "<i8", "windows": "<i8", "length": "<i4", "start": "<i4", "stop": "<i4"}
_TYPES = {"<i8": "I64", "<i4": "I32"}
_HEADER = "mmdata"  # the one metadata key of the file: several would be written in any order
_DAMAGED = "delete it, it is made again"


class PlanWriter:
    """Takes the arrays of a plan piece by piece. Nothing is there under its name until `finish`."""

    def __init__(self, path: Path, files: Mapping[str, BinaryIO]) -> None:
        self._path = path
        self._files = files
        self._sizes = dict.fromkeys(ARRAYS, 0)

    def append(self, name: str, values: np.ndarray) -> None:
        """Add to the end of one array."""
        with writing(self._path):
            self._files[name].write(np.ascontiguousarray(values, ARRAYS[name]).data)
        self._sizes[name] += len(values)

    def finish(self, settings: PlanSettings, source: str, split: str, report: Mapping[str, Any]) -> None:
        """Join the arrays under the plan's name."""
        header = {
            "version": settings.version,
            "settings": settings.to_json(),
            "source": source,
            "split": split,
            "report": report,
        }
        with writing(self._path), temporary(self._path).open("wb") as file:
            file.write(_safetensors_header(self._sizes, {_HEADER: canonical_json(header).decode()}))
            for name in ARRAYS:
                self._files[name].seek(0)
                shutil.copyfileobj(self._files[name], file, 1 << 24)
        commit(temporary(self._path), self._path)


@contextmanager
def plan_writer(path: Path) -> Iterator[PlanWriter]:
    """A writer of the plan `path`; RunError where there is no room or no right to write."""
    with ExitStack() as stack:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            files = {name: stack.enter_context(tempfile.TemporaryFile(dir=path.parent)) for name in ARRAYS}
        yield PlanWriter(path, files)


def open_plan(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(what the header says, the arrays as read-only views of the file) of a plan; UserError where it is another
    version's or damaged."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            total = path.stat().st_size
            if not 2 <= size <= total - 8:
                raise ValueError("its header is cut off")
            described = json.loads(file.read(size))
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        header = json.loads(described["__metadata__"][_HEADER])
        arrays = {name: _view(mapped, 8 + size, described[name], ARRAYS[name]) for name in ARRAYS}
        if 8 + size + max(described[name]["data_offsets"][1] for name in ARRAYS) != total:
            raise ValueError(f"it has {total} bytes, its header describes others")
    except (KeyError, TypeError, ValueError) as error:  # a JSONDecodeError and a UnicodeDecodeError are ValueErrors
        raise UserError(f"{path} is not a plan ({error}): {_DAMAGED}") from None
    if header["version"] not in PLAN_VERSIONS:
        raise UserError(f"{path} is a plan of version {header['version']}, this mmdata reads {list(PLAN_VERSIONS)}")
    return header, arrays


def _view(mapped: mmap.mmap, base: int, described: Mapping[str, Any], kind: str) -> np.ndarray:
    (num,), (first, last) = described["shape"], described["data_offsets"]
    if described["dtype"] != _TYPES[kind] or last - first != num * np.dtype(kind).itemsize or base + last > len(mapped):
        raise ValueError(f"an array of {num} {described['dtype']} at {first}:{last}")
    return np.frombuffer(mapped, kind, num, base + first) if num else np.zeros(0, kind)


def _safetensors_header(sizes: Mapping[str, int], metadata: Mapping[str, str]) -> bytes:
    """Length and JSON, filled up with spaces to a multiple of 8."""
    described: dict[str, Any] = {"__metadata__": metadata}
    at = 0
    for name, kind in ARRAYS.items():
        end = at + sizes[name] * np.dtype(kind).itemsize
        described[name] = {"dtype": _TYPES[kind], "shape": [sizes[name]], "data_offsets": [at, end]}
        at = end
    text = json.dumps(described, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
