"""What a run leaves out because it cannot be read: agreed on by all processes before a batch is used, and written down.

Each process reads its own rows, and those of one tensor group read the same rows, maybe from disks of their own, so any
of them may be alone in seeing damage. Before a batch is used each tells all others in one small gather whether it saw
some; only if one did, they exchange what it is, leave it out from this step on, and read the step again.
`quarantine.jsonl` in the run's folder has a line an entry before the batch is used. A run that goes on honours them,
whatever its files are like by then, so that its batches are those of before.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import mmdata
from mmdata.commit import write_bytes
from mmdata.errors import RunError, UserError
from mmdata.quarantine import BadRecords
from mmdata.state import Quarantined

QUARANTINE = "quarantine.jsonl"


def next_batch(loader: mmdata.Loader, folder: Path) -> mmdata.Batch:
    """The Loader's next batch, once all processes have left out the same; StopIteration as the Loader's. What ends one
    process here, a store that does not answer or a full disk, is an error in all: none waits for it for ever."""
    several, written = jax.process_count() > 1, loader.quarantine
    while True:
        step, before, batch = loader.step, loader.quarantine, None
        found: Sequence[Quarantined] = ()
        failed: Exception | None = None
        try:
            batch = next(loader)  # alone it leaves out by itself
            if jax.process_index() == 0 and loader.quarantine != written:
                _write(folder, loader.split, [entry for entry in loader.quarantine if entry not in written])
        except StopIteration:  # which all come to at one step
            raise
        except Exception as error:
            if not several:
                raise
            if isinstance(error, BadRecords):
                found = error.entries
            else:
                failed = error
        if several and (agreed := _agree(found, failed, step, before)):
            loader.leave_out(agreed, quietly=jax.process_index() > 0)
            loader.seek(step)
        elif batch is not None:
            return batch


def batches(loader: mmdata.Loader, folder: Path) -> Iterator[mmdata.Batch]:
    """`next_batch` to the end of a split."""
    iter(loader)  # begins a finished one again
    while True:
        try:
            batch = next_batch(loader, folder)
        except StopIteration:
            return
        yield batch


def honour(loader: mmdata.Loader, folder: Path) -> None:
    """Leave out whatever the run in this folder has left out so far."""
    mine = [entry for entry in read_quarantine(folder) if entry.get("split", loader.split) == loader.split]
    loader.leave_out(mine, quietly=True)


def read_quarantine(folder: Path) -> list[dict[str, Any]]:
    """The entries of a run folder's quarantine.jsonl, if there is one; a last line that was cut off is left out.
    UserError where another is no JSON."""
    path = folder / QUARANTINE
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    entries = []
    for number, line in enumerate(lines, 1):
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise UserError(f"{path}, line {number}, is no JSON ({error.msg}): mend or delete that line") from None
    return entries


def _agree(
    found: Sequence[Quarantined], failed: Exception | None, step: int, quarantine: Sequence[Quarantined]
) -> list[dict[str, Any]]:
    """What any process found at this step, the same in each. What one of them `failed` of, or in the others a RunError
    which says that it did. RunError where they are not at the same step, or have not left out the same so far: their
    batches would be of different data."""
    said = json.dumps([{**entry.to_json(), "why": entry.why} for entry in found]).encode() if found else b""
    past = zlib.crc32(json.dumps([step, *(entry.to_json() for entry in quarantine)]).encode())
    told = _gather(np.array([len(said), past, failed is not None], np.uint32))
    if failed is not None:
        raise failed
    if told[:, 2].any():
        number = int(told[:, 2].argmax())
        raise RunError(
            f"process {number} of this run could not read step {step} and says why; mend that, then run the same"
            " command again"
        )
    if (told[:, 1] != past).any():
        raise RunError(
            f"the processes of this run have not read the same so far (step {step} here): start all of them from one"
            " checkpoint, with one quarantine.jsonl"
        )
    size = int(told[:, 0].max())
    if not size:
        return []
    texts = _gather(np.frombuffer(said.ljust(size), np.uint8))
    return [entry for text in texts if text.tobytes().strip() for entry in json.loads(text.tobytes())]


def _write(folder: Path, split: str, entries: Sequence[Quarantined]) -> None:
    """Append the entries; they are on the disk when this returns."""
    lines = [*read_quarantine(folder), *({"split": split, **entry.to_json(), "why": entry.why} for entry in entries)]
    write_bytes(folder / QUARANTINE, "".join(json.dumps(line) + "\n" for line in lines).encode())


def _gather(array: np.ndarray) -> np.ndarray:  # [processes, n]
    """What each process gives, an array [n] of one length and type. (`multihost_utils.process_allgather`, made for
    whole trees now and then, takes four times as long.)"""
    here, everywhere, spread = _gatherer()
    mine = jax.device_put(array[None], here)
    given = jax.make_array_from_single_device_arrays((jax.process_count(), len(array)), everywhere, [mine])
    return np.asarray(spread(given).addressable_data(0))


@cache
def _gatherer() -> tuple[jax.Device, NamedSharding, Callable[[jax.Array], jax.Array]]:
    """(this process's first device, an array split over the first devices of all, what gives each all of it)."""
    firsts = {device.process_index: device for device in reversed(jax.devices())}
    mesh = Mesh(np.array([firsts[process] for process in sorted(firsts)]), ("process",))
    spread = jax.jit(lambda given: given, out_shardings=NamedSharding(mesh, PartitionSpec()))
    return firsts[jax.process_index()], NamedSharding(mesh, PartitionSpec("process")), spread
