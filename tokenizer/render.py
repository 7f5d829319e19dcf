"""Rendering: a sample's parts, in their order, as the arrays of one row: begin, turns, items, end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tokenizer import streams
from tokenizer.choose import Unit, item_shows, parts_of
from tokenizer.item import Item
from tokenizer.row import Choice, Row
from tokenizer.row_builder import Media, RowBuilder
from tokenizer.write_items import write_unit

if TYPE_CHECKING:
    from tokenizer.layout import Layout


def render(
    layout: Layout,
    items: Sequence[Item],
    choice: Choice,
    piece: tuple[int, int] | None,
    media: Media | None,
    dry: bool = False,
) -> Row:
    """See Layout.render. `dry`: without soft vectors, so without media."""
    if layout.spec.streams.sounds:
        return streams.render(layout, items, choice, piece)
    units, begins, ends = parts_of(layout, items, choice, piece)
    turns = bool(layout.turn_open) or layout.turn_close.mark >= 0
    row = RowBuilder(
        layout, media, [item.group for item in items] if layout.spec.loss.caption != 1.0 else [], turns, dry
    )
    _write_begin(row, units, begins)
    role, prefix, in_prefix = "none", 0, bool(layout.spec.attention.prefix)
    for number, unit in enumerate(units):
        here = unit[0].item.role if turns else "none"
        if here != role:
            _turn(row, role, here, True)
            role = here
        write_unit(row, unit)
        in_prefix = in_prefix and number + 1 < len(units) and _in_prefix(layout, unit[0].item)
        if in_prefix:
            prefix = row.n
            if turns and number + 1 < len(units) and units[number + 1][0].item.role != role:
                prefix += len(layout.turn_close) * (role != "none")
    if units and turns:
        _turn(row, role, "none", turn_closes(layout, units, items, ends))
    _write_end(row, ends)
    return row.row(choice, prefix)


def _turn(row: RowBuilder, before: str, after: str, close: bool) -> None:
    """Between items of two roles, or at an end of the row; "none": no turn."""
    loss, learn = row.layout.spec.loss, row.layout.spec.turns.learn
    if before != "none" and close:
        row.factor = float(before in learn)
        row.plain(row.layout.turn_close.ids, loss.turn_close)
    row.factor = 1.0
    if after != "none":
        row.factor = float(after in learn)
        if row.layout.turn_open:
            row.plain(row.layout.turn_open[after].ids, loss.turn)


def _write_begin(row: RowBuilder, units: list[Unit], begins: bool) -> None:
    layout = row.layout
    document, loss = layout.spec.document, layout.spec.loss
    if not begins:
        row.control(layout.controls[document.continued], loss.continued)
        return
    if document.begin:
        row.control(layout.controls[document.begin], loss.begin)
    if (task := task_of(layout, [unit[0].item.kind for unit in units])) >= 0:
        row.control(task, loss.begin)


def task_of(layout: Layout, kinds: Sequence[str]) -> int:
    """The id of the task control of a document whose items have these kinds, -1 where there is none."""
    if layout.tasks is None:
        return -1
    if all(kind == "text" for kind in kinds):
        return layout.tasks[0]
    return layout.tasks[2 if kinds[-1] == "text" else 1]


def _write_end(row: RowBuilder, ends: bool) -> None:
    layout = row.layout
    document, loss = layout.spec.document, layout.spec.loss
    if not ends:
        row.control(layout.controls[document.continued], loss.continued)
    elif document.end:
        row.control(layout.controls[document.end], loss.end)


def turn_closes(layout: Layout, units: list[Unit], items: Sequence[Item], ends: bool) -> bool:
    """Whether the last turn of a piece ends with it: it does at the document's end, and where an item of another role
    comes next. What shows not in a row is of no role."""
    if ends:
        return True
    # A choice may have changed the order: the piece ends where its last item, as given, does
    last = max(units, key=lambda unit: unit[-1].index)
    if any(part.last < part.units for part in last):
        return False
    for item in items[last[-1].index + 1 :]:
        if item_shows(layout, item):
            return item.role != units[-1][0].item.role
    return True


def _in_prefix(layout: Layout, item: Item) -> bool:
    wanted = layout.spec.attention.prefix
    return item.kind in wanted or item.role in wanted or item.group_role in wanted
