"""Packing as docs/format.md words it, entry by entry: the slow twin of `mmdata/packing.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class OpenRow:
    """What a row has left, and when it came to that."""

    gap: int
    used: list[int]
    since: int


def pack_slowly(
    lengths: Sequence[int],
    capacity: int,
    costs: Sequence[Sequence[int]] | None = None,
    limits: Sequence[int] = (),
    rows: list[OpenRow] | None = None,
) -> list[int]:
    """The row of each entry, best fit decreasing; `rows` are open already and are filled on."""
    rows = [] if rows is None else rows
    costs = [[0] * len(limits) for _ in lengths] if costs is None else costs
    out = [0] * len(lengths)
    for now, e in enumerate(sorted(range(len(lengths)), key=lambda e: (-lengths[e], e)), start=len(rows)):
        able = [
            r
            for r, row in enumerate(rows)
            if row.gap >= lengths[e] and all(u + c <= most for u, c, most in zip(row.used, costs[e], limits))
        ]
        if able:
            chosen = min(able, key=lambda r: (rows[r].gap, -rows[r].since))
        else:
            chosen = len(rows)
            rows.append(OpenRow(capacity, [0] * len(limits), now))
        row = rows[chosen]
        row.gap -= lengths[e]
        row.used = [u + c for u, c in zip(row.used, costs[e])]
        row.since = now
        out[e] = chosen
    return out
