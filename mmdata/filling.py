"""Filling the rows of a batch from mapped shards: the arrays that `mmdata/kernels.py` reads, and their call.

What a layout writes without looking at neighbours (tokenizer/programs.py) is filled by compiled code; the kernel says
what is left, and `mmdata/reading.py` renders that. Tables of shards are made as shards are opened, and bounded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from mmdata.batch import Batch
from mmdata.catalog import code_places, item_columns, item_table
from mmdata.dataset import Split
from mmdata.errors import RunError, UserError
from mmdata.opened import MAX_OPEN, OpenShard
from mmdata.pieces import ranges
from mmdata.plan import Plan
from tokenizer.item import ItemTable
from tokenizer.programs import CHOSEN, RENDERED, Programs

_NONE = -1

# (item table of a shard, number of a sample in it, its id, row of the batch) -> its items in the order chosen, [] where
# that is more than an order
Choose = Callable[[ItemTable, int, str, int], list[int]]


@dataclass(frozen=True, eq=False)
class _Opened:
    """Which shards are open, at one time: a call holds it, whatever other threads open and close meanwhile."""

    slots: np.ndarray  # int32 [shards], line of `table`, -1 not open
    table: np.ndarray  # int64 [MAX_OPEN, columns]
    held: tuple[Any, ...]  # a line: what its addresses point into


@dataclass(eq=False)
class Filler:
    """Fills rows of the batches of one split, planned for one layout. Used from threads."""

    split: Split
    plan: Plan
    programs: Programs
    max_open: int = MAX_OPEN
    _opened: _Opened = field(init=False)
    _tick: int = 0

    def __post_init__(self) -> None:
        from mmdata.kernels import NUM_COLUMNS

        num = len(self.split.shards)
        self._used = np.zeros(num, np.int64)
        self._lock = threading.Lock()
        self._edges = self.programs.edges()
        table = np.zeros((self.max_open, NUM_COLUMNS), np.int64)
        self._opened = _Opened(np.full(num, _NONE, np.int32), table, (None,) * self.max_open)
        plan = self.plan
        self._plan = tuple(_read_only(a) for a in (plan.rows, plan.sample, plan.start, plan.stop, plan.length))

    def fill(self, batch: Batch, places: np.ndarray, left_out: np.ndarray, choose: Choose) -> np.ndarray:
        """Fill rows `places[:, 0]` of a batch (of any content) with the plan's rows `places[:, 1]`. Samples `left_out`
        (int64, sorted) become padding. Returns int64 [t, 5], what is still to be rendered and padding until then: row
        of the batch, segment, entry of the plan, column. DamagedRecord where a whole shard cannot be read."""
        from mmdata.kernels import BAD_PLAN, OTHER_RECORD, fill

        rows, opens = self._plan[0], 0
        counts = rows[places[:, 1] + 1] - rows[places[:, 1]]
        if (counts < 0).any():
            raise self._bad_plan()
        todo = np.empty((int(counts.sum()), 5), np.int64)
        while True:
            opened = self._opened
            self._tick += 1
            found = fill(  # type: ignore[call-arg]
                *(places, *self._plan, self.split.shard_bounds, opened.slots, self._used, self._tick, opened.table),
                *(left_out, *self._edges),
                *_arrays_of(batch),
                todo,
            )
            if found >= 0:
                todo = todo[:found]
                if len(todo) and (todo[:, 4] == OTHER_RECORD).any():
                    entry = int(todo[np.argmax(todo[:, 4] == OTHER_RECORD), 2])
                    raise self._other_record(int(self._plan[1][entry]))
                return self._fill_chosen(batch, todo, opened, choose) if (todo[:, 4] == CHOSEN).any() else todo
            if found == BAD_PLAN:
                raise self._bad_plan()
            opens += 1
            if opens > self.max_open:  # one batch needs more shards than are kept open: keep as many
                self._grow()
                opens = 0
            self._open(-1 - found)

    def _fill_chosen(self, batch: Batch, todo: np.ndarray, opened: _Opened, choose: Choose) -> np.ndarray:
        """Fill what of `todo` is whole samples whose items stand in an order that is chosen; gives the rest."""
        from mmdata.kernels import fill_chosen

        _, sample, start, stop, _ = self._plan
        orders: list[list[int]] = []
        for b, _, e, _, form in todo.tolist():
            number = int(sample[e])
            shard = int(np.searchsorted(self.split.shard_bounds, number, "right")) - 1
            shapes: _Shapes = opened.held[opened.slots[shard]]
            i = number - int(self.split.shard_bounds[shard])
            whole = form == CHOSEN and start[e] == 0 and stop[e] == shapes.places(i)
            orders.append(choose(shapes.table, i, shapes.ids[i], b) if whole else [])
        done = np.zeros(len(todo), bool)
        fill_chosen(  # type: ignore[call-arg]
            *(todo, np.cumsum([len(o) for o in orders]), np.array([i for o in orders for i in o], np.int64)),
            *(*self._plan[1:], self.split.shard_bounds, opened.slots, opened.table, *self._edges),
            *_arrays_of(batch),
            done,
        )
        return todo[~done]

    def ahead(self, rows: np.ndarray) -> None:
        """Open the shards that these rows of the plan are read from, and say nothing of what fails."""
        starts, sample = self._plan[:2]
        entries = ranges(starts[rows], starts[rows + 1] - starts[rows])
        for shard in np.unique(np.searchsorted(self.split.shard_bounds, sample[entries], "right") - 1).tolist():
            with suppress(RunError, UserError):
                if self._opened.slots[shard] == _NONE:
                    self._open(shard)

    def _bad_plan(self) -> UserError:
        where = self.plan.path or f"of source {self.plan.source[:12]}"
        return UserError(f"the plan {where} is damaged (it points where nothing is): delete it, it is made again")

    def _other_record(self, sample: int) -> UserError:
        shard = int(np.searchsorted(self.split.shard_bounds, sample, "right")) - 1
        return _mismatch(self.split.shards[shard].catalog, sample - int(self.split.shard_bounds[shard]))

    def _grow(self) -> None:
        with self._lock:
            before, self.max_open = self._opened, 2 * self.max_open
            table = np.concatenate([before.table, np.zeros_like(before.table)])
            self._opened = _Opened(before.slots, table, (*before.held, *[None] * len(before.held)))

    def _open(self, shard: int) -> None:
        opened = self.split.opened[shard]  # outside the lock: it may take a while, and other shards be wanted
        self._used[shard] = self._tick  # not the first to be closed
        shapes = _Shapes(self.split, shard)
        arrays = _arrays(shapes, opened, self.programs)
        line = np.array([a if isinstance(a, int) else a.ctypes.data for a in arrays], np.int64)
        with self._lock:
            before = self._opened
            if before.slots[shard] >= 0:
                return
            slots, table, held = before.slots.copy(), before.table.copy(), list(before.held)
            for other in np.flatnonzero(slots >= 0).tolist():
                if not self.split.holds(other):  # an open file keeps its disk space, whatever a cache has removed
                    held[slots[other]], slots[other] = None, _NONE
            taken = np.flatnonzero(slots >= 0)
            if len(taken) < self.max_open:
                slot = next(i for i, what in enumerate(held) if what is None)
            else:
                oldest = int(taken[np.argmin(self._used[taken])])
                slot, slots[oldest] = int(slots[oldest]), _NONE
            shapes.held = (opened, arrays)
            slots[shard], table[slot], held[slot] = slot, line, shapes
            self._opened = _Opened(slots, table, tuple(held))


def _mismatch(where: str, record: int) -> UserError:
    return UserError(
        f"catalog {where} does not match its shard (record {record}): run `mmdata verify`, then fetch or build it again"
    )


def _check(table: ItemTable, offset: np.ndarray, width: np.ndarray, sizes: np.ndarray, where: str) -> None:
    """UserError where the codes of an item cannot lie where a catalog says: compiled code looks there."""
    T, K = table.T.astype(np.int64), table.K.astype(np.int64)
    room = np.repeat(sizes, np.diff(table.offsets))
    wrong = (T < 0) | (K < 0) | (table.t < 0) | (offset < 0) | (T * K >= 1 << 31) | (offset + T * K * width > room)
    if wrong.any():
        sample = int(np.searchsorted(table.offsets, np.argmax(wrong), "right")) - 1
        raise _mismatch(where, sample)


class _Shapes:
    """The item shapes of a shard's samples, and what keeps the memory alive that its line points into."""

    def __init__(self, split: Split, shard: int) -> None:
        first, stop = split.shard_bounds[shard : shard + 2].tolist()
        rows = split.catalog(["id", *item_columns()], first, stop)
        self.table = item_table(rows, split.codecs)
        self.code_places = code_places(rows)
        self.where = split.shards[shard].catalog
        self.held: Any = None
        self._ids = rows.column("id")

    @cached_property
    def ids(self) -> list[str]:
        """Document ids."""
        return self._ids.to_pylist()

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(self.table.num_units())])[self.table.offsets]

    def places(self, i: int) -> int:
        """Places of sample i of the shard."""
        return int(self._ends[i + 1] - self._ends[i])


def _read_only(array: np.ndarray) -> np.ndarray:
    """The array, of one type whether it was just made or is mapped from a file: compiled code is made for one."""
    view = np.asarray(array).view()
    view.flags.writeable = False
    return view


def _arrays_of(batch: Batch) -> tuple[np.ndarray, ...]:
    """In the order of the kernels."""
    return batch.tokens, batch.targets, batch.loss_weights, batch.segment_ids, batch.positions, batch.kinds


def _arrays(shapes: _Shapes, opened: OpenShard, programs: Programs) -> list[Any]:
    """The columns of a shard's line, in the order of `mmdata/kernels.py`: arrays, whose addresses are meant, and the
    number of bytes. Of a shard that is not mapped all is rendered."""
    table, (offset, width) = shapes.table, shapes.code_places
    if opened.mapped:
        _check(table, offset, width, opened.mapped.sizes, shapes.where)
    found = programs.of_table(table)
    none, mapped = np.zeros(0, np.int64), opened.mapped
    return [
        mapped.data if mapped else none,
        len(mapped.data) if mapped else 0,
        mapped.starts if mapped else none,
        mapped.sizes if mapped else none,
        found.form if mapped else np.full(len(table), RENDERED, np.uint8),
        np.ascontiguousarray(table.offsets, np.int64),
        table.num_units().astype(np.int32),
        np.ascontiguousarray(table.T * table.K, np.int32),
        np.ascontiguousarray(offset, np.int64),
        width.astype(np.uint8),
        found.number,
        found.programs,
        found.runs,
        found.ids,
        found.books,
        found.special,
        len(found.special),
    ]
