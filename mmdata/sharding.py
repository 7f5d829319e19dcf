"""Which part of a batch a process reads: data shards, derived from how the batch lies on a mesh."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mmdata.errors import UserError


def data_shard(
    sharding: Any,
    process_index: int | None = None,
    process_of: Callable[[Any], int] | None = None,
) -> tuple[int, int]:
    """(i, n) for `Loader(shard=...)` from the `jax.sharding.NamedSharding` of a batch, whose first axis is rows.

    Processes of one tensor or context group get the same shard, so they read equal rows. A process's rows must lie
    side by side, and each process must hold as many: UserError otherwise. `jax.make_array_from_process_local_data` puts
    together what so many Loaders read. `process_index` and `process_of` stand for this process and for
    `device.process_index`, so that a mesh can be tried without its machines.

    8 devices, two a process, as a mesh of data=4, tensor=2; rows over data:   (0, 4) (1, 4) (2, 4) (3, 4)
    the same as data=2, tensor=4, a tensor group over two processes:           (0, 2) (0, 2) (1, 2) (1, 2)
    """
    import jax
    from jax.sharding import NamedSharding, PartitionSpec

    if not isinstance(sharding, NamedSharding):
        raise UserError(f"data_shard takes the NamedSharding of a batch, not a {type(sharding).__name__}")
    mesh, spec = sharding.mesh, sharding.spec
    rows = spec[0] if len(spec) else None
    names = () if rows is None else (rows,) if isinstance(rows, str) else tuple(rows)
    parts = 1
    for name in names:
        parts *= mesh.shape[name]
    of = process_of or (lambda device: device.process_index)
    me = jax.process_index() if process_index is None else process_index
    held: dict[int, set[int]] = {}
    for device, (part,) in NamedSharding(mesh, PartitionSpec(rows)).devices_indices_map((parts,)).items():
        held.setdefault(of(device), set()).add(part.indices(parts)[0])
    size = max(len(found) for found in held.values())
    for process, found in held.items():
        first = min(found)
        if found != set(range(first, first + size)) or first % size:
            raise UserError(
                f"process {process} holds parts {sorted(found)} of a batch's {parts} parts: order the mesh's devices so"
                " that each process holds as many neighbouring parts (jax.make_mesh does)"
            )
    if me not in held:
        raise UserError(f"process {me} has no device in the mesh")
    return min(held[me]) // size, parts // size
