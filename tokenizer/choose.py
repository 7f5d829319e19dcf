"""Choices by hash, and the parts of a sample that a piece and a choice leave, in their order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tokenizer.grammar import ChoiceRule
from tokenizer.item import GROUP_ROLES, Item, ItemTable
from tokenizer.row import PLAIN, Choice


@dataclass(frozen=True, slots=True)
class Part:
    """Units [first, last) of item number `index` of a sample; the item has `units` of them."""

    index: int
    item: Item
    first: int
    last: int
    units: int


def choose(rule: ChoiceRule, sample: ItemTable | Sequence[Item], seed: int, sample_id: str, epoch: int) -> Choice:
    """The seeded choices for a sample in an epoch: by hash of these arguments, nothing else."""
    if rule.order == "given" and not rule.condition_dropout:
        return PLAIN
    groups: dict[int, set[str]] = {}
    for group, role in _groups_of(sample):
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


def parts_of(items: Sequence[Item], choice: Choice, piece: tuple[int, int] | None) -> tuple[list[Part], bool, bool]:
    """The parts of a piece in the order chosen, and whether it begins and whether it ends the document."""
    units = [_num_units(item) for item in items]
    total = sum(units)
    if piece is None:
        parts = [Part(index, item, 0, count, count) for index, (item, count) in enumerate(zip(items, units))]
        begins = ends = True
    else:
        start, stop = int(piece[0]), int(piece[1])
        if not 0 <= start <= stop <= total:
            raise ValueError(f"piece {start} .. {stop} of a sample with places 0 .. {total}")
        parts, at = [], 0
        for index, (item, count) in enumerate(zip(items, units)):
            first, last = max(start - at, 0), min(stop - at, count)
            # An item without units lies at one place and belongs to the piece that starts there, or to the last.
            if first < last or (count == 0 and start <= at and (at < stop or stop == total)):
                parts.append(Part(index, item, first, last, count))
            at += count
        begins, ends = start == 0, stop == total
    if choice.order or choice.dropped:
        parts = _chosen(items, parts, choice)
    return parts, begins, ends


def _num_units(item: Item) -> int:
    """As ItemTable.num_units, of one item."""
    if item.codes is None or item.kind == "image":
        return 1
    return item.grid[0] if item.kind == "video" else len(item.codes)


def _chosen(items: Sequence[Item], parts: list[Part], choice: Choice) -> list[Part]:
    """Parts with the choice applied. A group that is not whole in this piece keeps its order: no code is lost."""
    for group, order in choice.order:
        slots = [n for n, part in enumerate(parts) if part.item.group == group]
        whole = all(parts[n].first == 0 and parts[n].last == parts[n].units for n in slots)
        if whole and len(slots) == sum(item.group == group for item in items):
            first = order == "caption_first"
            members = sorted((parts[n] for n in slots), key=lambda p: (p.item.group_role == "caption") != first)
            for slot, part in zip(slots, members):
                parts[slot] = part
    return [p for p in parts if not (p.item.group in choice.dropped and p.item.group_role == "condition")]


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
