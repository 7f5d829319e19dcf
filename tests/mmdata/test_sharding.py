"""Data shards from a mesh: with process maps that are made up, and with real processes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.mmdata.toy_data import write_toy_dataset

ROOT = Path(__file__).resolve().parents[2]
EIGHT = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}


def python(code: str, *words: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *words],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


MAPS = """
import json, sys
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from mmdata import UserError, data_shard

AXES = ("data", "fsdp", "tensor")
out = []
for shape, rows, owners in json.loads(sys.argv[1]):
    mesh = Mesh(np.array(jax.devices()[: len(owners)]).reshape(shape), AXES)
    sharding = NamedSharding(mesh, P(tuple(rows) if rows else None))
    try:
        found = [data_shard(sharding, p, lambda device: owners[device.id]) for p in range(max(owners) + 1)]
    except UserError as error:
        found = str(error)
    out.append(found)
try:
    data_shard(jax.sharding.SingleDeviceSharding(jax.devices()[0]))
except UserError as error:
    out.append(str(error))
print(json.dumps(out))
"""


def test_data_shards_follow_the_mesh_whatever_process_has_which_device() -> None:
    both, data = ["data", "fsdp"], ["data"]
    cases: list[tuple[list[int], list[str], list[int], Any]] = [
        ([2, 2, 2], both, [0, 1, 2, 3, 4, 5, 6, 7], [[0, 4], [0, 4], [1, 4], [1, 4], [2, 4], [2, 4], [3, 4], [3, 4]]),
        ([2, 2, 2], both, [0, 0, 1, 1, 2, 2, 3, 3], [[0, 4], [1, 4], [2, 4], [3, 4]]),
        ([2, 2, 2], both, [0, 0, 0, 0, 1, 1, 1, 1], [[0, 2], [1, 2]]),
        ([2, 2, 2], data, [0, 0, 1, 1, 2, 2, 3, 3], [[0, 2], [0, 2], [1, 2], [1, 2]]),
        ([1, 2, 4], both, [0, 0, 1, 1, 2, 2, 3, 3], [[0, 2], [0, 2], [1, 2], [1, 2]]),  # tensor groups over processes
        ([2, 1, 4], both, [0, 1, 0, 1, 2, 3, 2, 3], [[0, 2], [0, 2], [1, 2], [1, 2]]),
        ([8, 1, 1], both, [3, 3, 2, 2, 1, 1, 0, 0], [[3, 4], [2, 4], [1, 4], [0, 4]]),  # processes in any order
        ([2, 1, 3], both, [0, 1, 2, 3, 4, 5], [[0, 2], [0, 2], [0, 2], [1, 2], [1, 2], [1, 2]]),
        ([2, 2, 2], [], [0, 0, 0, 0, 1, 1, 1, 1], [[0, 1], [0, 1]]),  # every process has all rows
        ([4, 1, 2], both, [0] * 8, [[0, 1]]),
        ([4, 2, 1], both, [0, 0, 0, 1, 1, 1, 1, 1], "holds parts"),  # uneven
        ([4, 1, 1], both, [0, 0, 1, 2], "holds parts"),
        ([4, 1, 2], both, [0, 0, 1, 1, 0, 0, 1, 1], "process 0 holds parts [0, 2] of a batch's 4 parts"),  # interleaved
        ([4, 1, 1], both, [0, 1, 1, 0], "process 0 holds parts [0, 3]"),
        ([4, 1, 2], both, [0, 1, 0, 1, 1, 2, 2, 0], "holds parts"),
        ([4, 1, 2], both, [0, 0, 0, 1, 1, 2, 2, 2], "process 1 holds parts [1, 2]"),  # neighbours, but of two shards
        ([3, 1, 2], both, [0, 1, 1, 0, 2, 2], "holds parts"),  # (0, 1), (0, 1), (2): no equal parts
        ([2, 1, 2], both, [0, 0, 2, 2], "process 1 has no device in the mesh"),
    ]
    process = python(MAPS, json.dumps([case[:3] for case in cases]), **EIGHT)
    out, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    *found, other = json.loads(out)
    for (*case, expected), shards in zip(cases, found, strict=True):
        if isinstance(expected, str):
            assert isinstance(shards, str) and expected in shards and "\n" not in shards, (case, shards)
        else:
            assert shards == expected, case
    assert other == "data_shard takes the NamedSharding of a batch, not a SingleDeviceSharding"


PROCESS = """
import json, sys
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
data, address, num, me, tensor, workers = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
jax.distributed.initialize(address, num, me)
from mmdata import Loader, data_shard

mesh = Mesh(np.array(jax.devices()).reshape(num // tensor, tensor), ("data", "tensor"))
sharding = NamedSharding(mesh, P("data"))
shard = data_shard(sharding)
args = dict(seq_len=128, batch_size=8, window_shards=1, group_windows=2)
loader, whole = Loader(data, shard=shard, workers=workers, **args), Loader(data, threads=0, **args)
total = jax.jit(lambda a: (a.astype("int32") * (1 + jax.numpy.arange(a.size).reshape(a.shape) % 1009)).sum())
for step in range(4):
    batch = next(loader)
    expected = whole.batch_at(step)
    arrays = jax.tree.map(lambda a: jax.make_array_from_process_local_data(sharding, a), batch)
    for name, array in arrays.arrays().items():
        alone = expected.arrays()[name]
        assert array.shape == alone.shape and len(array.addressable_shards) == 1, name
        for part in array.addressable_shards:
            assert np.array_equal(np.asarray(part.data), alone[part.index]), (step, name)
        assert int(total(array).block_until_ready()) == int(total(alone)), (step, name)  # seen by all processes
loader.close()
print(json.dumps(shard), flush=True)
jax.distributed.shutdown()
"""


@pytest.mark.parametrize(
    "num, tensor, workers, expected",
    [(2, 1, 1, [[0, 2], [1, 2]]), (4, 2, 0, [[0, 2], [0, 2], [1, 2], [1, 2]])],
)
def test_real_processes_make_the_global_batch_of_one_process(
    tmp_path: Path, num: int, tensor: int, workers: int, expected: list[list[int]]
) -> None:
    data = write_toy_dataset(tmp_path / "data")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    words = [str(data), address, str(num)]
    one_device = {"XLA_FLAGS": "--xla_force_host_platform_device_count=1", "JAX_PLATFORMS": "cpu"}
    processes = [python(PROCESS, *words, str(me), str(tensor), str(workers), **one_device) for me in range(num)]
    try:
        answers = [process.communicate(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()  # jax.distributed catches SIGTERM
    assert [process.returncode for process in processes] == [0] * num, "\n".join(said for _, said in answers)
    assert [json.loads(out.splitlines()[-1]) for out, _ in answers] == expected
