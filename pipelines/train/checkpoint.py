"""Checkpoints: model, optimizer and loader state under one name, complete or not there at all.

Orbax writes to a temporary folder and renames; a process killed while saving leaves the checkpoint before. The number
of a checkpoint is how many steps have been done. Arrays come back onto whatever mesh the run has now.
"""

from __future__ import annotations

import errno
import logging
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from mmdata.errors import RunError


class Checkpoints:
    """The checkpoints of a run's folder; `close` waits for the last one to be on disk."""

    def __init__(self, folder: Path, every: int, keep: int) -> None:
        _quiet()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, save_interval_steps=1)
        self._every = every
        self._manager = ocp.CheckpointManager(folder.resolve(), options=options)

    @property
    def last(self) -> int | None:
        """The newest complete checkpoint: steps done; None in a new run."""
        return self._manager.latest_step()

    def due(self, done: int, steps: int) -> bool:
        """Whether a checkpoint belongs after this many steps: every so many, and after the last."""
        return done % self._every == 0 or done == steps

    def save(self, done: int, state: Any, loader: dict[str, Any]) -> None:
        """Save in the background; the state's arrays are copied before this returns, so a step may reuse them."""
        try:
            self._manager.save(
                done, args=ocp.args.Composite(state=ocp.args.StandardSave(state), loader=ocp.args.JsonSave(loader))
            )
        except OSError as error:
            raise _told(error) from error

    def restore(self, like: Any) -> tuple[Any, dict[str, Any]]:
        """(state, loader state) of the newest checkpoint; `like`: shapes, types and shardings of the state."""
        found = self._manager.restore(
            self.last, args=ocp.args.Composite(state=ocp.args.StandardRestore(like), loader=ocp.args.JsonRestore())
        )
        return found["state"], found["loader"]

    def close(self) -> None:
        """Wait for what is being written, and let go."""
        try:
            self._manager.wait_until_finished()
        except OSError as error:
            raise _told(error) from error
        finally:
            self._manager.close()


def restore_params(folder: Path) -> tuple[int, dict[str, Any]]:
    """(steps done, parameters as NumPy arrays) of the newest checkpoint of a run's folder, on any machine."""
    _quiet()
    handlers = {"state": ocp.StandardCheckpointHandler(), "loader": ocp.JsonCheckpointHandler()}
    manager = ocp.CheckpointManager(folder.resolve(), item_handlers=handlers)
    try:
        if manager.latest_step() is None:
            raise RunError(f"{folder} holds no checkpoint yet: train the run for longer, or lower checkpoint.every")
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        saved = manager.item_metadata(manager.latest_step())["state"]
        saved = getattr(saved, "tree", saved)
        like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), saved)
        found = manager.restore(manager.latest_step(), args=ocp.args.Composite(state=ocp.args.StandardRestore(like)))
        return manager.latest_step(), found["state"]["params"]
    finally:
        manager.close()


def _quiet() -> None:
    """Orbax tells every step of a save and a restore."""
    logging.getLogger("absl").setLevel(logging.ERROR)


def _told(error: OSError) -> RunError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return RunError("no space left for a checkpoint: free some, then run the same command again")
    return RunError(f"a checkpoint could not be written: {error}")
