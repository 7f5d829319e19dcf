"""Batch: what a training step reads, a plain pytree of arrays with static shapes (docs/format.md, "Batch").

B rows, L = sequence length, K codebooks in parallel, P position axes, S soft vectors a row. A document in a row is a
*segment*; attention never crosses segments. Where `segment_ids` is 0 there is padding: every other field is 0 there
(`soft_index` -1). `targets[b, i]` is `tokens[b, i + 1]` inside a segment; the last place of a segment has target 0 and
loss weight 0. The kind of a target is `kinds` one place to the right.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple

import numpy as np

from mmdata.ring import ALIGNMENT
from tokenizer.row import Row

_registered = False  # as a pytree of JAX
_registering = threading.Lock()  # several threads may make the first batches


@dataclass(frozen=True, eq=False)
class Batch:
    """One (shard of a) global batch. A batch belongs to its receiver: its arrays are never written again."""

    tokens: np.ndarray  # int32 [B, L] or [B, L, K]
    targets: np.ndarray  # int32, as tokens
    loss_weights: np.ndarray  # float32, as tokens
    segment_ids: np.ndarray  # int32 [B, L], 1.. in a row; 0 = padding
    positions: np.ndarray  # int32 [B, L] or [B, P, L], each segment from 0
    kinds: np.ndarray  # uint8 [B, L], index into tokenizer.item.KINDS
    blocks: np.ndarray | None = None  # int32 [B, L]; 0 causal; equal non-zero ids of a segment see one another
    soft: dict[str, np.ndarray] = field(default_factory=dict)  # name -> [B, S, ...]
    soft_index: np.ndarray | None = None  # int32 [B, L], into S; -1 none

    def __post_init__(self) -> None:
        if not _registered:
            _register()

    def arrays(self) -> dict[str, Any]:
        """The fields which are there, by name: for `numpy.savez`, or a caller that wants a dict."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: value for name, value in fields.items() if value is not None and not _is_empty(value)}


@dataclass(frozen=True)
class BatchForm:
    """What decides the shapes of a layout's batches, whatever rows they hold."""

    seq_len: int
    num_codebooks: int = 1
    num_positions: int = 1
    blocks: bool = False
    soft: Mapping[str, tuple[tuple[int, ...], Any]] = field(default_factory=dict)  # shape [S, ...] and dtype, of a row

    _places: dict[int, list[_Place]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def size_bytes(self, num_rows: int) -> int:
        """Bytes that `batch_in` needs."""
        return _aligned(self._lie(num_rows)[-1].stop)

    def batch_in(self, memory: np.ndarray, num_rows: int) -> Batch:
        """A batch whose arrays lie in `memory`, uint8 [size_bytes], of whatever content."""
        arrays: dict[str, Any] = {}
        soft: dict[str, np.ndarray] = {}
        for name, shape, dtype, start, stop in self._lie(num_rows):
            found = memory[start:stop].view(dtype).reshape(shape)
            if name in self.soft:
                soft[name] = found
            else:
                arrays[name] = found
        return Batch(**arrays, soft=soft)

    def _lie(self, num_rows: int) -> list[_Place]:
        """Where each array lies in the memory of a batch."""
        if num_rows not in self._places:
            places: list[_Place] = []
            for name, (shape, dtype) in self._shapes(num_rows).items():
                start = _aligned(places[-1].stop) if places else 0
                dtype = np.dtype(dtype)
                places.append(_Place(name, shape, dtype, start, start + prod(shape) * dtype.itemsize))
            self._places[num_rows] = places
        return self._places[num_rows]

    def _shapes(self, num_rows: int) -> dict[str, tuple[tuple[int, ...], Any]]:
        plain = (num_rows, self.seq_len)
        ids = plain if self.num_codebooks == 1 else (*plain, self.num_codebooks)
        positions = plain if self.num_positions == 1 else (num_rows, self.num_positions, self.seq_len)
        found: dict[str, tuple[tuple[int, ...], Any]] = {
            "tokens": (ids, np.int32),
            "targets": (ids, np.int32),
            "loss_weights": (ids, np.float32),
            "segment_ids": (plain, np.int32),
            "positions": (positions, np.int32),
            "kinds": (plain, np.uint8),
        }
        if self.blocks:
            found["blocks"] = plain, np.int32
        if self.soft:
            found["soft_index"] = plain, np.int32
        return found | {name: ((num_rows, *shape), dtype) for name, (shape, dtype) in self.soft.items()}


class _Place(NamedTuple):
    """Where an array lies in the memory of a batch: bytes start:stop."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    start: int
    stop: int


def empty_batch(
    num_rows: int,
    seq_len: int,
    *,
    num_codebooks: int = 1,
    num_positions: int = 1,
    blocks: bool = False,
    soft: Mapping[str, tuple[tuple[int, ...], Any]] | None = None,
) -> Batch:
    """A batch of padding, freshly allocated. `soft`: the shape [S, ...] and dtype of each soft array of a row."""
    form = BatchForm(seq_len, num_codebooks, num_positions, blocks, soft or {})
    return clear(form.batch_in(np.empty(form.size_bytes(num_rows), np.uint8), num_rows))


def clear(batch: Batch) -> Batch:
    """The batch, made padding."""
    for array in (*batch.soft.values(), *(a for a in batch.arrays().values() if isinstance(a, np.ndarray))):
        array[:] = 0
    if batch.soft_index is not None:
        batch.soft_index[:] = -1
    return batch


def put_row(batch: Batch, b: int, rows: Iterable[tuple[int, Row]]) -> None:
    """Write rendered pieces, pairs (column, tokenizer Row), as segments 1, 2, ... of row b of a batch of padding.

    ids of two pieces  [BOS 7 8 EOS] [BOS 9 EOS]  at columns 0 and 5 of a row of 9:
    tokens       [BOS   7   8 EOS   0 BOS   9 EOS   0]
    targets      [  7   8 EOS   0   0   9 EOS   0   0]
    segment_ids  [  1   1   1   1   0   2   2   2   0]
    """
    num_soft = dict.fromkeys(batch.soft, 0)
    num_blocks = 0
    for segment, (start, row) in enumerate(rows, 1):
        put_segment(batch, b, segment, start, row)
        here = slice(start, start + len(row.tokens))
        if batch.blocks is not None and row.blocks is not None:
            batch.blocks[b, here] = np.where(row.blocks > 0, row.blocks + num_blocks, 0)
            num_blocks += int(row.blocks.max(initial=0))
        if batch.soft_index is not None and row.soft_index is not None:
            first = max(num_soft.values(), default=0)
            batch.soft_index[b, here] = np.where(row.soft_index >= 0, row.soft_index + first, -1)
            for name, values in row.soft.items():
                batch.soft[name][b, first : first + len(values)] = values
                num_soft[name] = first + len(values)


def put_segment(batch: Batch, b: int, segment: int, start: int, row: Row) -> None:
    """Write one rendered piece into padding, without its blocks and soft vectors."""
    n = len(row.tokens)
    here, before = slice(start, start + n), slice(start, start + max(n - 1, 0))
    batch.tokens[b, here] = row.tokens
    batch.targets[b, before] = row.tokens[1:]
    batch.loss_weights[b, before] = _like(row.loss_weights[1:], row.tokens)
    batch.segment_ids[b, here] = segment
    batch.positions[b, ..., here] = row.positions
    batch.kinds[b, here] = row.kinds


def _like(weights: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Loss weights [n] stand for each of K tokens."""
    return weights[:, None] if tokens.ndim > weights.ndim else weights


def _aligned(stop: int) -> int:
    """Where the array after one that ends at byte `stop` may begin."""
    return -(-stop // ALIGNMENT) * ALIGNMENT


def _is_empty(value: Any) -> bool:
    return isinstance(value, dict) and not value


def _register() -> None:
    """Make Batch a JAX pytree, once, when the first one is made: importing this module does not load JAX."""
    global _registered
    with _registering:
        if _registered:
            return
        _registered = True
        try:
            import jax
        except ImportError:  # a reader without JAX gets plain numpy
            return
        names = [f.name for f in dataclasses.fields(Batch)]
        jax.tree_util.register_dataclass(Batch, data_fields=names, meta_fields=[])
