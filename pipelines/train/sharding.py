"""Where parameters, optimizer state and batches lie on a mesh (data, fsdp, tensor).

Rows of a batch are split over data and fsdp; parameters over fsdp and tensor; the vocabulary, the query heads and
the inner MLP over tensor. The compiler derives all communication from these (`jit` with NamedSharding).
"""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mmdata.errors import UserError
from pipelines.train.model import Constrain, ModelConfig

AXES = ("data", "fsdp", "tensor")
ROWS = ("data", "fsdp")  # the axes that split a batch's rows

P = PartitionSpec
PARAMETERS: dict[str, PartitionSpec] = {
    "embedding": P("tensor", "fsdp"),
    "ranges": P(None, "fsdp"),
    "digits": P(None, "fsdp"),
    "bias": P("tensor"),
    "widen": P(None, "fsdp"),
    "narrow": P("fsdp"),
    "norm": P(),
    "attention_norm": P(),
    "query": P(None, "fsdp", "tensor"),
    "key": P(None, "fsdp"),
    "value": P(None, "fsdp"),
    "out": P(None, "tensor", None, "fsdp"),
    "mlp_norm": P(),
    "gate": P(None, "fsdp", "tensor"),
    "up": P(None, "fsdp", "tensor"),
    "down": P(None, "tensor", "fsdp"),
    "soft.weight": P(None, "fsdp"),
    "soft.bias": P("fsdp"),
    "streams.scale": P(None, "fsdp"),
    "streams.shift": P(None, "fsdp"),
}
ACTIVATIONS = {
    "hidden": P(ROWS),
    "heads": P(ROWS, None, "tensor"),
    "mlp": P(ROWS, None, "tensor"),
    "logits": P(ROWS, None, "tensor"),
}


def make_mesh(data: int = 0, fsdp: int = 1, tensor: int = 1, devices: Any = None) -> Mesh:
    """The mesh of these sizes; data = 0 takes the devices that are left. UserError where they do not suffice."""
    devices = list(jax.devices() if devices is None else devices)
    data = data or max(1, len(devices) // (fsdp * tensor))
    size = data * fsdp * tensor
    if size > len(devices):
        raise UserError(
            f"[mesh] data={data} fsdp={fsdp} tensor={tensor} needs {size} devices, there are {len(devices)};"
            " lower one of them"
        )
    # Not jax.make_mesh: its axes are explicit by default, and the compiler would derive nothing
    return Mesh(np.array(devices[:size]).reshape(data, fsdp, tensor), AXES)


def check_sizes(mesh: Mesh, config: ModelConfig, batch_size: int) -> None:
    """UserError naming the first size that the mesh does not divide."""
    axes = dict(mesh.shape)
    rows = axes["data"] * axes["fsdp"]
    for name, size, parts, over in (
        ("batch_size", batch_size, rows, "data x fsdp"),
        ("model.width", config.width, axes["fsdp"], "fsdp"),
        ("model.embedding", config.embedding, axes["fsdp"], "fsdp"),
        ("model.heads", config.heads, axes["tensor"], "tensor"),
        ("model.mlp", config.mlp, axes["tensor"], "tensor"),
        ("the vocabulary", config.vocabulary, axes["tensor"], "tensor"),
    ):
        if size % parts:
            raise UserError(f"{name} = {size} does not divide by the mesh's {over} = {parts}; change one of them")


def parameter_shardings(params: Any, mesh: Mesh) -> Any:
    """A tree like `params` of NamedShardings, by the name of each leaf."""
    return jax.tree_util.tree_map_with_path(lambda path, _: NamedSharding(mesh, PARAMETERS[_name(path)]), params)


def _name(path: Any) -> str:
    first, last = str(path[0].key), str(path[-1].key)
    return f"{first}.{last}" if first in ("soft", "streams") else last


def state_shardings(state: Any, optimizer: optax.GradientTransformation, mesh: Mesh) -> Any:
    """A tree like the state {"step", "params", "optimizer"}: moments lie where their parameters lie."""
    params = parameter_shardings(state["params"], mesh)
    alone = NamedSharding(mesh, P())
    moments = optax.tree_map_params(
        optimizer, lambda _, s: s, state["optimizer"], params, transform_non_params=lambda _: alone
    )
    return {"step": alone, "params": params, "optimizer": moments}


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over data and fsdp, for every array of a batch."""
    return NamedSharding(mesh, P(ROWS))


def place(batch: dict[str, Any], mesh: Mesh) -> dict[str, Any]:
    """This process's rows of a batch, a dict of arrays or of dicts of them, as global arrays on the mesh."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda array: jax.make_array_from_process_local_data(sharding, array), batch)


def constrainer(mesh: Mesh) -> Constrain:
    """Tells the compiler how activations lie on the mesh."""
    if math.prod(mesh.devices.shape) == 1:
        return lambda x, role: x
    return lambda x, role: jax.lax.with_sharding_constraint(x, NamedSharding(mesh, ACTIVATIONS[role]))
