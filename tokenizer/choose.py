"""Choices by hash, and the parts of a sample that a piece and a choice leave, in their order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tokenizer import clock
from tokenizer.grammar import ChoiceRule
from tokenizer.item import GROUP_ROLES, KINDS, Item, ItemTable
from tokenizer.row import PLAIN, Choice

if TYPE_CHECKING:
    from tokenizer.layout import Layout


@dataclass(frozen=True, slots=True)
class Part:
    """Units [first, last) of item number `index` of a sample; the item has `units` of them."""

    index: int
    item: Item
    first: int
    last: int
    units: int


Unit = tuple[Part, ...]  # parts written as one: of a single item, or of a group on one clock


def choose(rule: ChoiceRule, sample: ItemTable | Sequence[Item], seed: int, sample_id: str, epoch: int) -> Choice:
    """The seeded choices for a sample in an epoch: by hash of these arguments, nothing else."""
    if rule.order == "given" and not rule.condition_dropout:
        return PLAIN
    return choose_groups(rule, _groups_of(sample), seed, sample_id, epoch)


def choose_groups(rule: ChoiceRule, items: Iterable[tuple[int, str]], seed: int, sample_id: str, epoch: int) -> Choice:
    """The same, of the (group, group role) of each item."""
    groups: dict[int, set[str]] = {}
    for group, role in items:
        if group >= 0:
            groups.setdefault(group, set()).add(role)
    order: list[tuple[int, str]] = []
    dropped: list[int] = []
    for group in sorted(groups):
        roles = groups[group]
        if rule.order == "either" and "caption" in roles and len(roles) > 1:
            first = _share(seed, sample_id, epoch, "order", group) < 0.5
            order.append((group, "caption_first" if first else "caption_last"))
        if "condition" in roles and _share(seed, sample_id, epoch, "drop", group) < rule.condition_dropout:
            dropped.append(group)
    return Choice(tuple(order), tuple(dropped)) if order or dropped else PLAIN


def order_of(roles: Sequence[tuple[int, str]], choice: Choice) -> list[int]:
    """The items of a whole sample in the order that a choice gives them; `roles`: (group, group role) of each. Of
    layouts whose items do not look at one another: what `_chosen` does to units, without rendering."""
    order = list(range(len(roles)))
    for group, which in choice.order:
        slots = [p for p, n in enumerate(order) if roles[n][0] == group]
        first = which == "caption_first"
        members = sorted((order[p] for p in slots), key=lambda n: (roles[n][1] == "caption") != first)
        for slot, n in zip(slots, members):
            order[slot] = n
    return [n for n in order if not (roles[n][0] in choice.dropped and roles[n][1] == "condition")]


def parts_of(
    layout: Layout, items: Sequence[Item], choice: Choice, piece: tuple[int, int] | None
) -> tuple[list[Unit], bool, bool]:
    """What a piece shows, in the order chosen, and whether it begins and whether it ends the document."""
    plain = layout.spec.merge.of == "none" and layout.spec.document.unwritten == "refuse"
    if plain and piece is None and not choice.order and not choice.dropped:
        # The usual case, at a third of the cost
        return (
            [
                (Part(i, item, 0, n, n),)
                for i, (item, n) in enumerate(zip(items, map(num_units, items)))
                if n or item_shows(layout, item)
            ],
            True,
            True,
        )
    counts = [num_units(item) for item in items]
    total = sum(counts)
    start, stop = (0, total) if piece is None else (int(piece[0]), int(piece[1]))
    if not 0 <= start <= stop <= total:
        raise ValueError(f"piece {start} .. {stop} of a sample with places 0 .. {total}")
    units: list[Unit] = []
    at = 0
    for members in _members(layout, items):
        here = sum(counts[m] for m in members)
        first, last = max(start - at, 0), min(stop - at, here)
        # An item without units lies at one place and belongs to the piece that starts there, or to the last.
        if first < last or (here == 0 and start <= at and (at < stop or stop == total)):
            units.append(_parts(layout, items, counts, members, first, last))
        at += here
    units = [unit for unit in units if _shows(layout, unit)]
    if choice.order or choice.dropped:
        units = [unit for unit in _chosen(layout, items, units, choice) if _shows(layout, unit)]
    if layout.spec.merge.of != "none" and len(units) > 1:
        units = _joined(layout, units)
    return units, start == 0, stop == total


def num_units(item: Item) -> int:
    """As ItemTable.num_units, of one item."""
    if item.codes is None or item.kind == "image":
        return 1
    return item.grid[0] if item.kind == "video" else len(item.codes)


def part_stretch(layout: Layout, part: Part) -> clock.Stretch:
    """What the clock knows of a part: a continued sound starts later than its item."""
    whole = clock.Stretch.of(part.item, KINDS.index(part.item.kind))
    if (part.first, part.last) == (0, part.units) or part.item.codes is None:
        return whole
    times = whole.times[part.first : part.last] if len(whole.times) == part.units else whole.times[:0]
    start = whole.start_s
    if part.item.kind == "audio" and (rate := whole.rate(layout)):
        start += part.first / rate
    return clock.Stretch(whole.kind, whole.codec, part.last - part.first, start, whole.end_s, times)


def _members(layout: Layout, items: Sequence[Item]) -> Iterable[list[int]]:
    """Indices of items, those of a group together; what shows not in a row stands alone and parts no group."""
    if layout.spec.merge.of == "none":
        return ([i] for i in range(len(items)))
    shown = [i for i, item in enumerate(items) if item_shows(layout, item)]
    stretches = [clock.Stretch.of(items[i], KINDS.index(items[i].kind)) for i in shown]
    grouped = {shown[group[0]]: [shown[g] for g in group] for group in clock.groups(layout, stretches)}
    inside = {m for group in grouped.values() for m in group[1:]}
    return [grouped.get(i, [i]) for i in range(len(items)) if i not in inside]


def _parts(layout: Layout, items: Sequence[Item], counts: list[int], members: list[int], first: int, last: int) -> Unit:
    if len(members) == 1:
        m = members[0]
        return (Part(m, items[m], first, last, counts[m]),)
    order = clock.merged(layout, [clock.Stretch.of(items[m], KINDS.index(items[m].kind)) for m in members])
    begins, ends = order.split(first, len(members)), order.split(last, len(members))
    return tuple(Part(m, items[m], b, e, counts[m]) for m, b, e in zip(members, begins, ends))


def item_shows(layout: Layout, item: Item) -> bool:
    """Whether an item leaves a trace in a row."""
    if layout.leaves_out(item.kind, item.codes is None):
        return False
    return item.codes is None or clock.shows(layout, item.kind, len(item.codes))


def _shows(layout: Layout, unit: Unit) -> bool:
    part = unit[0]
    if layout.leaves_out(part.item.kind, part.item.codes is None):
        return False
    return len(unit) > 1 or part.last > part.first or item_shows(layout, part.item)


def _joined(layout: Layout, units: list[Unit]) -> list[Unit]:
    """Single items that a choice made neighbours, and that are whole, are written as one too."""
    whole = [len(unit) == 1 and unit[0].first == 0 and unit[0].last == unit[0].units for unit in units]
    out: list[Unit] = []
    run: list[Unit] = []
    for unit, alone in zip([*units, ()], [*whole, False]):
        if alone:
            run.append(unit)
            continue
        stretches = [clock.Stretch.of(u[0].item, KINDS.index(u[0].item.kind)) for u in run]
        grouped = {group[0]: group for group in clock.groups(layout, stretches)}
        inside = {m for group in grouped.values() for m in group[1:]}
        out += [tuple(part for m in grouped.get(i, [i]) for part in run[m]) for i in range(len(run)) if i not in inside]
        run = []
        if unit:
            out.append(unit)
    return out


def _chosen(layout: Layout, items: Sequence[Item], units: list[Unit], choice: Choice) -> list[Unit]:
    """Units with the choice applied. A group that is not whole in this piece keeps its order: no code is lost.

    So does one whose members have several roles where turns are written: other turns could be more of them.
    """
    turns = bool(layout.spec.turns.open or layout.spec.turns.close)
    for group, order in choice.order:
        slots = [n for n, unit in enumerate(units) if unit[0].item.group == group]
        parts = [part for n in slots for part in units[n]]
        whole = all(part.first == 0 and part.last == part.units for part in parts)
        if turns and len({part.item.role for part in parts}) > 1:
            continue
        if whole and sum(p.item.group == group for p in parts) == sum(
            item.group == group and item_shows(layout, item) for item in items
        ):
            first = order == "caption_first"
            members = sorted((units[n] for n in slots), key=lambda u: (u[0].item.group_role == "caption") != first)
            for slot, unit in zip(slots, members):
                units[slot] = unit
    empty = layout.spec.choices.dropped == "empty"
    out = []
    for unit in units:
        part = unit[0]
        if part.item.group not in choice.dropped or part.item.group_role != "condition":
            out.append(unit)
        elif empty and part.item.kind == "text" and part.item.codes is not None and part.last == part.units:
            out.append((Part(part.index, replace(part.item, codes=part.item.codes[:0]), 0, 0, 0),))
    return out


def _groups_of(sample: ItemTable | Sequence[Item]) -> Iterable[tuple[int, str]]:
    if not isinstance(sample, ItemTable):
        return [(item.group, item.group_role) for item in sample]
    if len(sample) != 1:
        raise ValueError(f"choices are of one sample, got a table of {len(sample)}")
    return [(int(group), GROUP_ROLES[role]) for group, role in zip(sample.group, sample.group_role)]


def _share(seed: int, sample_id: str, epoch: int, what: str, group: int) -> float:
    """A number in [0, 1) from a hash of exactly these words."""
    words = "\0".join([str(seed), sample_id, str(epoch), what, str(group)]).encode()
    return int.from_bytes(hashlib.blake2b(words, digest_size=8).digest(), "little") / 2**64
