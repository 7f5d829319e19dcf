"""Work units and where they leave their output: temporary name, fsync, rename, then a marker that says done.

OUT/.work/<stage>/<source>/<unit>/ holds a unit's files, `<unit>.done.json` beside it the fingerprint of what decided
them, their digest and counts. A unit whose marker bears its fingerprint is not run again; anything else is run from
the start, so a killed build leaves nothing that could be taken for finished. Plain files, and no lock but one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from mmdata.commit import sha256_of, temporary, write_bytes
from mmdata.errors import UserError
from pipelines.build.executor import OUT_OF_MEMORY
from pipelines.build.worker import Call

Counts = dict[str, Any]
_LIMITS = "left something out under"  # of a marker: the limits of workers then


@dataclass(frozen=True)
class Unit:
    """(stage, source, range) with all that its function needs; it travels to a worker pickled: paths, not bytes."""

    stage: str
    source: str
    name: str  # "00003"
    fingerprint: str
    function: Callable[[Call, Unit, Path], Counts]  # writes into the folder it is given
    work: Path  # OUT/.work
    args: Any = None
    decides: dict[str, str] = field(default_factory=dict)  # what decided the fingerprint, in words -> its digest
    worker_limits: dict[str, float] = field(default_factory=dict)  # they decide only where something met them

    @property
    def key(self) -> str:
        return f"{self.stage}/{self.source}/{self.name}"

    @property
    def folder(self) -> Path:
        return self.work / self.stage / self.source / self.name

    @property
    def marker_path(self) -> Path:
        return self.folder.with_name(f"{self.name}.done.json")


def fingerprint_of(*parts: Any) -> str:
    """sha256 of the canonical JSON of what decides an output."""
    words = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
    return hashlib.sha256(words.encode()).hexdigest()


def read_marker(unit: Unit) -> dict[str, Any] | None:
    """The unit's marker if it is done under the same fingerprint, else None. A unit that left out what a worker had no
    time or memory for must have done so under the same limits."""
    marker = last_marker(unit)
    if marker is None or marker.get("fingerprint") != unit.fingerprint or changed_limits(unit, marker):
        return None
    return marker


def changed_limits(unit: Unit, marker: dict[str, Any]) -> list[str]:
    """The limits of workers that are others than those which made the marker's unit leave something out."""
    old = marker.get(_LIMITS, unit.worker_limits)
    return [name for name in {**old, **unit.worker_limits} if old.get(name) != unit.worker_limits.get(name)]


def last_marker(unit: Unit) -> dict[str, Any] | None:
    """What the unit left when it was last done, under whatever fingerprint; None where it never was."""
    try:
        marker = json.loads(unit.marker_path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return marker if unit.folder.is_dir() else None


def run_unit(call: Call) -> dict[str, Any]:
    """Run `call.args`, a Unit, and commit its output; returns its marker. Runs in a worker.

    What bears its marker is never done again: a worker may have died between that and telling its supervisor, or a
    machine that was given up for lost may have finished after all.
    """
    unit: Unit = call.args
    if (done := read_marker(unit)) is not None:
        return done
    begun = time.monotonic()
    written = temporary(unit.folder)
    shutil.rmtree(written, ignore_errors=True)
    written.mkdir(parents=True)
    try:
        counts = unit.function(call, unit, written)
        return _commit(call, unit, written, counts, time.monotonic() - begun)
    except BaseException:
        shutil.rmtree(written, ignore_errors=True)
        raise


def _commit(call: Call, unit: Unit, written: Path, counts: Counts, seconds: float) -> dict[str, Any]:
    digests = {}
    for path in sorted(p for p in written.rglob("*") if p.is_file()):
        call.at(unit.key)  # large outputs take their time
        digests[str(path.relative_to(written))] = sha256_of(path)
        sync(path)
    for folder in [*(p for p in written.rglob("*") if p.is_dir()), written]:
        sync(folder)
    if (done := read_marker(unit)) is not None:
        shutil.rmtree(written, ignore_errors=True)
        return done
    unit.marker_path.unlink(missing_ok=True)
    shutil.rmtree(unit.folder, ignore_errors=True)
    os.replace(written, unit.folder)
    marker = {
        "fingerprint": unit.fingerprint,
        "digest": fingerprint_of(digests),
        "counts": counts,
        "seconds": round(seconds, 3),
        **({"decides": unit.decides} if unit.decides else {}),
        **({_LIMITS: unit.worker_limits} if call.skip or OUT_OF_MEMORY in counts.get("dropped", {}) else {}),
    }
    write_json(unit.marker_path, marker)
    return marker


def write_json(path: Path, value: Any) -> None:
    """`value` at `path`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, (json.dumps(value, indent=1, ensure_ascii=True) + "\n").encode())


def sync(path: Path) -> None:
    """fsync a file or a folder."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove_units(folder: Path, names: set[str]) -> None:
    """Of a stage's folder of one source, the units that are none of these: their inputs are gone or cut otherwise."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir() and path.name not in names:
            path.with_name(f"{path.name}.done.json").unlink(missing_ok=True)
            shutil.rmtree(path, ignore_errors=True)


def sweep(work: Path) -> None:
    """Remove what killed workers left under temporary names. Only with the lock held."""
    for path in work.rglob("*.tmp"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def lock(work: Path) -> IO[str]:
    """Hold the folder until the returned file is closed or the process is gone, however it went."""
    work.mkdir(parents=True, exist_ok=True)
    file = (work / "lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            return file  # a file system without locks: go on without
        file.close()
        raise UserError(f"another build is writing {work.parent}; wait for it, or choose another --out") from None
    return file


def read_lines(path: Path) -> Iterator[Any]:
    """The values of a JSON-lines file."""
    with path.open("r", encoding="ascii") as file:
        for line in file:
            yield json.loads(line)


class LineWriter:
    """One JSON value a line, in ASCII (lone surrogates too)."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="ascii")
        self.count = 0

    def write(self, value: Any) -> None:
        self._file.write(json.dumps(value, ensure_ascii=True, separators=(",", ":")) + "\n")
        self.count += 1

    def close(self) -> None:
        self._file.close()


def write_lines(path: Path, values: Iterable[Any]) -> int:
    """One JSON value a line; returns how many."""
    with contextlib.closing(LineWriter(path)) as lines:
        for value in values:
            lines.write(value)
    return lines.count
