"""One training step and one evaluation step, compiled over a mesh."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from pipelines.train import sharding
from pipelines.train.loss import CHUNK, sums_by_kind, weighted_loss
from pipelines.train.model import ModelConfig, hidden, init, per_stream, table

State = dict[str, Any]  # {"step": int32 [], "params", "optimizer"}

# What a step needs of a Batch
FIELDS = ("tokens", "targets", "loss_weights", "segment_ids", "positions", "kinds", "blocks", "soft", "soft_index")


def arrays_of(batch: Any) -> dict[str, Any]:
    """The arrays of a Batch which are there, by name; `soft` is a dict of arrays by kind."""
    found = {name: getattr(batch, name) for name in FIELDS}
    return {name: value for name, value in found.items() if value is not None and not (name == "soft" and not value)}


def new_state(config: ModelConfig, optimizer: optax.GradientTransformation, mesh: Mesh, seed: int) -> State:
    """A fresh state, each array made where it lies on the mesh."""
    make = _maker(config, optimizer)
    return jax.jit(make, out_shardings=_shardings(config, optimizer, mesh))(jax.random.key(seed))


def abstract_state(config: ModelConfig, optimizer: optax.GradientTransformation, mesh: Mesh) -> State:
    """Shapes, types and shardings of the state: what a checkpoint is restored to."""
    shapes = jax.eval_shape(_maker(config, optimizer), jax.random.key(0))
    placed = _shardings(config, optimizer, mesh)
    return jax.tree.map(lambda s, where: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=where), shapes, placed)


def make_train_step(
    config: ModelConfig, optimizer: optax.GradientTransformation, mesh: Mesh
) -> Callable[[State, dict[str, jax.Array]], tuple[State, dict[str, jax.Array]]]:
    """(state, batch) -> (state, {"loss", "sums" [6], "counts" [6], "gradient"}); the old state's memory is reused."""
    constrain = sharding.constrainer(mesh)

    def step(state: State, batch: dict[str, jax.Array]) -> tuple[State, dict[str, jax.Array]]:
        def loss(params: Any) -> tuple[jax.Array, jax.Array]:
            total, losses = _losses(params, batch, config, constrain)
            return total / jnp.maximum(jnp.sum(batch["loss_weights"]), 1e-6), losses

        (value, losses), gradient = jax.value_and_grad(loss, has_aux=True)(state["params"])
        updates, moments = optimizer.update(gradient, state["optimizer"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        sums, counts = sums_by_kind(losses, batch["loss_weights"], batch["kinds"])
        told = {"loss": value, "sums": sums, "counts": counts, "gradient": optax.tree.norm(gradient)}
        return {"step": state["step"] + 1, "params": params, "optimizer": moments}, told

    return jax.jit(step, donate_argnums=0, out_shardings=(_shardings(config, optimizer, mesh), None))


def make_evaluate_step(
    config: ModelConfig, mesh: Mesh
) -> Callable[[Any, dict[str, jax.Array]], tuple[jax.Array, jax.Array]]:
    """(params, batch) -> (sum of losses [6], number of targets [6]) by kind."""
    constrain = sharding.constrainer(mesh)

    def step(params: Any, batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        _, losses = _losses(params, batch, config, constrain)
        return sums_by_kind(losses, batch["loss_weights"], batch["kinds"])

    return jax.jit(step)


def _losses(params: Any, batch: dict[str, jax.Array], config: ModelConfig, constrain: Any) -> Any:
    """(sum of weights * losses, losses float32 as the targets). K streams are K places beside one another: the chunks
    of the loss stay as large as they are with one."""
    x = per_stream(params, hidden(params, batch, config, constrain), config)
    rows, targets = x.shape[0], batch["targets"]
    total, losses = weighted_loss(
        x.reshape(rows, -1, x.shape[-1]),
        table(params, config),
        params["bias"],
        targets.reshape(rows, -1),
        batch["loss_weights"].reshape(rows, -1),
        CHUNK,
        constrain,
    )
    return total, losses.reshape(targets.shape)


def _maker(config: ModelConfig, optimizer: optax.GradientTransformation) -> Callable[[jax.Array], State]:
    def make(key: jax.Array) -> State:
        params = init(key, config)
        return {"step": jnp.int32(0), "params": params, "optimizer": optimizer.init(params)}

    return make


def _shardings(config: ModelConfig, optimizer: optax.GradientTransformation, mesh: Mesh) -> Any:
    return sharding.state_shardings(jax.eval_shape(_maker(config, optimizer), jax.random.key(0)), optimizer, mesh)
