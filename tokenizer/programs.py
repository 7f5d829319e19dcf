"""Programs: how the items of one shape are written, as runs of fixed ids and of codes, for a compiled loop to fill.

A program is read off what `write_items.py` itself writes for an item of that shape, so it says the same by
construction; what has no program (soft items, items on one clock, permuted codes ...) is rendered item by item. This
file holds which layouts and items are *plain*; it fills no rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tokenizer.choose import Part, choose_groups, num_units, order_of
from tokenizer.item import AUDIO, CONTROL, GROUP_ROLES, KINDS, ROLES, TEXT, VIDEO, Item, ItemTable
from tokenizer.row_builder import RowBuilder
from tokenizer.write_items import write_unit

if TYPE_CHECKING:
    from tokenizer.layout import Layout

REST = -1  # the count of a run of all codes that the item has
NONE = -1  # no program, no fixed id
# A sample is rendered, or its items' programs one after the other, in their order or in a chosen one
RENDERED, PLAIN, CHOSEN = range(3)
_MOST_FOUND = 4096  # programs remembered; those of videos are of one item each


@dataclass(frozen=True, eq=False)
class Program:
    """Runs in order, int32 [r, 4]: tokens (REST: all codes of the item), first of the fixed ids or NONE (the next codes
    of the item), kind, and the weight's bits (float32)."""

    runs: np.ndarray  # int32 [r, 4]
    ids: np.ndarray  # int32 [c], the fixed ids
    codec: int  # of the layout


@dataclass(frozen=True, eq=False)
class TablePrograms:
    """The programs of a table's items, as arrays that compiled code reads."""

    number: np.ndarray  # int32 [m], the program of each item, NONE where it has none
    form: np.ndarray  # uint8 [n]: RENDERED, PLAIN, CHOSEN
    programs: np.ndarray  # int64 [p, 5]: first run, end of runs, unclosed program or NONE, first codebook, codebooks
    runs: np.ndarray  # int32 [r, 4], as Program.runs, fixed ids counted in `ids`
    ids: np.ndarray  # int32 [c]
    books: np.ndarray  # int64 [k, 2]: first id and size of each codebook
    special: np.ndarray  # uint8 [codes of text, or none]: 1 where no text has the code


@dataclass(eq=False)
class Programs:
    """The programs of one layout, found as shapes of items are met."""

    layout: Layout
    plain: bool = field(init=False)  # whether any row of the layout is filled by programs
    _found: dict[tuple[Any, ...], tuple[Program | None, Program | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.plain = is_plain(self.layout)

    def edges(self) -> tuple[np.ndarray, np.ndarray]:  # int32 [3], float32 [3]
        """(id or NONE, weight) of what begins a document, ends it, and stands at a cut."""
        document, loss = self.layout.spec.document, self.layout.spec.loss
        names = (document.begin, document.end, document.continued)
        ids = [self.layout.controls[name] if name else NONE for name in names]
        return np.array(ids, np.int32), np.array([loss.begin, loss.end, loss.continued], np.float32)

    def order(self, table: ItemTable, i: int, seed: int, sample_id: str, epoch: int) -> list[int]:
        """The items of sample i in the order chosen for an epoch."""
        items = slice(int(table.offsets[i]), int(table.offsets[i + 1]))
        roles = [(g, GROUP_ROLES[r]) for g, r in zip(table.group[items].tolist(), table.group_role[items].tolist())]
        return order_of(roles, choose_groups(self.layout.spec.choices, roles, seed, sample_id, epoch))

    def of_table(self, table: ItemTable) -> TablePrograms:
        """The programs of all items of a table."""
        found: list[tuple[Program | None, Program | None]] = []
        group = np.full(len(table.kind), NONE, np.int64)  # number in `found`
        if self.plain:
            hard = (table.codec >= 0) & (table.num_units() > 0)
            own = hard & (self._is_timed(table) | (table.kind == VIDEO))
            common = np.flatnonzero(hard & ~own)
            columns = (table.kind, table.codec, table.K, table.role, table.group_role, table.h, table.w)
            keys = np.stack([np.asarray(c, np.int64)[common] for c in columns], axis=1)
            if len(common):  # shapes that many items share: one look-up for all items of a shape
                _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
                found += [self._find(table, int(common[i])) for i in first]
                group[common] = inverse.reshape(-1)
            for m in np.flatnonzero(own).tolist():
                group[m] = len(found)
                found.append(self._find(table, m))
        return self._joined(table, found, group)

    def _joined(
        self, table: ItemTable, found: list[tuple[Program | None, Program | None]], group: np.ndarray
    ) -> TablePrograms:
        """Programs one after the other, each followed by its unclosed one."""
        first_book = np.concatenate([[0], np.cumsum([len(s) for s in self.layout.code_sizes])]).astype(np.int64)
        programs: list[list[int]] = []
        runs: list[np.ndarray] = []
        ids: list[np.ndarray] = []
        number_of = np.full(len(found) + 1, NONE, np.int32)  # the last: items that were not looked up
        num_runs = num_ids = 0
        for n, (closed, unclosed) in enumerate(found):
            if closed is None:
                continue
            number_of[n] = len(programs)
            for program in (closed, unclosed):
                if program is None:
                    continue
                moved = program.runs.copy()
                moved[moved[:, 1] >= 0, 1] += num_ids
                after = len(programs) + 1 if program is closed and unclosed is not None else NONE
                book, num_books = int(first_book[program.codec]), len(self.layout.code_sizes[program.codec])
                programs.append([num_runs, num_runs + len(moved), after, book, num_books])
                runs.append(moved)
                ids.append(program.ids)
                num_runs += len(moved)
                num_ids += len(program.ids)
        no_runs = np.array([r[0] == r[1] for r in programs] + [False])
        number, special = number_of[group], self.layout.special_codes
        empty = no_runs[number]  # NONE: the last
        books = [np.stack([o, s], axis=1) for o, s in zip(self.layout.code_offsets, self.layout.code_sizes)]
        return TablePrograms(
            number=number,
            form=self._forms(table, number, empty),
            programs=np.array(programs, np.int64).reshape(-1, 5),
            runs=np.concatenate([np.zeros((0, 4), np.int32), *runs]),
            ids=np.concatenate([np.zeros(0, np.int32), *ids]),
            books=np.concatenate([np.zeros((0, 2), np.int64), *books]).astype(np.int64),
            special=np.zeros(0, np.uint8) if special is None else special.astype(np.uint8),
        )

    def _forms(self, table: ItemTable, number: np.ndarray, empty: np.ndarray) -> np.ndarray:  # uint8 [n]
        spec, turns = self.layout.spec, bool(self.layout.turn_open) or self.layout.turn_close.mark >= 0
        bad, chosen = number == NONE, np.zeros(len(number), bool)
        if turns:
            bad |= table.role > 0
        if spec.loss.caption != 1.0 or spec.choices.dropped != "leave_out":
            bad |= table.group >= 0
        elif spec.choices.order != "given" or spec.choices.condition_dropout:
            chosen = table.group >= 0
            bad |= chosen & empty  # an item that is left out stands at no place of the order
        if spec.merge.of == "video_audio":
            bad |= table.kind == VIDEO
        elif spec.merge.of == "units":
            bad |= table.kind == AUDIO
        has_bad, has_chosen = (_any_in(flags, table.offsets) for flags in (bad, chosen))
        return np.where(has_bad, RENDERED, np.where(has_chosen, CHOSEN, PLAIN)).astype(np.uint8)

    def _is_timed(self, table: ItemTable) -> np.ndarray:  # bool [m]
        """Items whose header says when they are."""
        says = np.isin(table.kind, [p.number for p in self.layout.kinds.values() if p.num_times])
        return says & np.isfinite(table.start_s)

    def _find(self, table: ItemTable, m: int) -> tuple[Program | None, Program | None]:
        """(program of item m, that of the same item with its end cut off)."""
        kind = int(table.kind[m])
        plan = self.layout.kinds.get(KINDS[kind])
        of_length = kind in (TEXT, AUDIO)
        key = (
            *(kind, table.codecs[table.codec[m]], int(table.K[m]), int(table.role[m]), int(table.group_role[m])),
            () if of_length else (int(table.T[m]), int(table.t[m]), int(table.h[m]), int(table.w[m])),
            table.times[table.times_offsets[m] : table.times_offsets[m + 1]].tobytes() if kind == VIDEO else b"",
            _times_of(table, m) if plan and plan.num_times else (),
        )
        if key not in self._found:
            item = _item_of(table, m)
            if len(self._found) >= _MOST_FOUND:
                self._found.clear()
            self._found[key] = (
                program_of(self.layout, item, True),
                program_of(self.layout, item, False) if of_length else None,
            )
        return self._found[key]


def _any_in(flags: np.ndarray, offsets: np.ndarray) -> np.ndarray:  # bool [n]
    """Of which samples any item has the flag."""
    sums = np.concatenate([[0], np.cumsum(flags)])
    return sums[offsets[1:]] > sums[offsets[:-1]]


def is_plain(layout: Layout) -> bool:
    """Whether a row of the layout is its items' runs one after the other, whatever stands beside them."""
    spec = layout.spec
    return (
        spec.positions.plan == "linear"
        and not layout.needs_blocks
        and not layout.soft_shapes
        and not spec.streams.sounds
        and layout.tasks is None
        and not spec.loss.codebooks
    )


def program_of(layout: Layout, item: Item, closed: bool) -> Program | None:
    """The program of items like this one (of text and sound: of any length), or of one whose end another piece holds.
    None where it has none."""
    units = num_units(item)
    if layout.leaves_out(item.kind, False):
        return _program(layout, item, RowBuilder(layout))
    if not closed and item.kind == "audio" and layout.kinds["audio"].num_times and math.isfinite(item.start_s):
        return None  # a piece of it says when it begins
    row = RowBuilder(layout)
    try:
        write_unit(row, (Part(0, item, 0, units if closed else units - 1, units),))
    except ValueError:  # what cannot be written is refused where it is rendered, by its name
        return None
    return _program(layout, item, row) if _in_order(layout, item) else None


def _program(layout: Layout, item: Item, row: RowBuilder) -> Program | None:
    ids = np.concatenate([np.zeros(0, np.int32), *row.ids])
    runs: list[list[int]] = []
    fixed: list[int] = []
    at = 0
    for count, kind, weight in zip(row.counts, row.kinds, np.array(row.weights, np.float32).view(np.int32).tolist()):
        first = len(fixed) if kind == CONTROL else NONE
        if kind == CONTROL:
            fixed += ids[at : at + count].tolist()
        at += count
        if runs and runs[-1][2:] == [kind, weight] and (first < 0) == (runs[-1][1] < 0):
            runs[-1][0] += count
        elif count:
            runs.append([count, first, kind, weight])
    if item.kind in ("text", "audio") and runs:
        bodies = [run for run in runs if run[1] < 0]
        if len(bodies) != 1:
            return None  # separators inside: how many depends on the length
        bodies[0][0] = REST
    columns = np.array(runs, np.int32).reshape(-1, 4)
    return Program(columns, np.array(fixed, np.int32), layout.codec_index[item.codec])


def _in_order(layout: Layout, item: Item) -> bool:
    """Whether codes stand in a row as they are stored."""
    assert item.codes is not None
    plan, K = layout.kinds[item.kind], item.codes.shape[1]
    _, h, w = item.grid if item.kind in ("image", "video") else (1, len(item.codes), 1)
    return plan.body.permutation(h, w, K) is None


def _times_of(table: ItemTable, m: int) -> tuple[float | None, ...]:
    """What a header may say of item m; NaN, which equals nothing, as None."""
    return tuple(None if math.isnan(v) else v for v in (float(table.start_s[m]), float(table.end_s[m])))


def _item_of(table: ItemTable, m: int) -> Item:
    """An item of this shape with codes of 0; text and sound with two places, so that one can be cut off."""
    kind, K = KINDS[table.kind[m]], int(table.K[m])
    T = 2 if kind in ("text", "audio") else int(table.T[m])
    return Item(
        kind,
        table.codecs[table.codec[m]],
        np.zeros((T, K), np.int32),
        (T, 0, 0) if kind == "audio" else (int(table.t[m]), int(table.h[m]), int(table.w[m])),
        float(table.start_s[m]),
        float(table.end_s[m]),
        role=ROLES[table.role[m]],
        group_role=GROUP_ROLES[table.group_role[m]],
        times=table.times[table.times_offsets[m] : table.times_offsets[m + 1]],
    )
