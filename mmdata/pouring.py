"""Pouring: pieces held out of a window's rows and cut again, so that they fill the gaps of the others.

Version 2 of the plan, fixed for good (docs/format.md, "Plan"). What is held out are pieces of documents longer than a
row, and of those that would fit one no more than a share. Images leave gaps that no whole document has the size for:
text that may be cut anywhere fills them. All held-out pieces are cut together, a bisection over their cuts at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmdata.packing import pack
from mmdata.pieces import Cuts, Packable, Pieces, take

GAP_PIECES = 3  # most gaps that one held-out piece is poured into
FILLED = [(15, 16)] * 8 + [(3, 4)] * 4 + [(1, 2)] * 4  # the part of its gap that a piece must fill, round by round
_LEAST = 64  # gaps below a 64th of a row stay
_SHIFT = 37  # how far the pairing of pieces and gaps moves on in a round


def packed_and_poured(
    window: Packable, pieces: Pieces, fitting: np.ndarray, most: int
) -> tuple[Pieces, np.ndarray]:  # int32 [e]: the row of each
    """The pieces that go into rows, ordered by (sample, start), and their rows.

    fitting: bool [e], pieces that are documents which would fit a row; at most `most` of them are cut
    """
    costs = window.costs(pieces)
    row = pack(pieces.length, window.capacity, costs, window.most)
    held = _held_out(window, pieces, _room(window, pieces, costs, row).gaps, fitting, most)
    if not held.any():
        return pieces, row
    rest, costs_of_rest = pieces[~held], costs[~held]
    row_of_rest = pack(rest.length, window.capacity, costs_of_rest, window.most)
    room = _room(window, rest, costs_of_rest, row_of_rest)
    poured, row_of_poured, left = _pour(window, pieces[held], room)
    row_of_left = pack(left.length, window.capacity, window.costs(left), window.most, room.gaps, room.used)
    rows = np.concatenate([row_of_rest, row_of_poured, row_of_left]).astype(np.int32)
    if rows.max() >= row.max():  # no row was saved, so nothing is split for it
        return pieces, row
    together = Pieces.joined([rest, poured, left])
    order = together.order()
    return together[order], rows[order]


@dataclass(eq=False)
class _Room:
    """What rows have left. Pouring takes from it."""

    gaps: np.ndarray  # int64 [r], tokens
    used: np.ndarray  # int64 [r, c], of what is limited


def _room(window: Packable, pieces: Pieces, costs: np.ndarray, row: np.ndarray) -> _Room:
    num = int(row.max()) + 1 if len(row) else 0
    used = [np.bincount(row, costs[:, c], minlength=num) for c in range(costs.shape[1])]
    filled = np.bincount(row, pieces.length, minlength=num).astype(np.int64)
    return _Room(window.capacity - filled, np.stack(used, 1).astype(np.int64) if used else np.zeros((num, 0), np.int64))


def _held_out(window: Packable, pieces: Pieces, gaps: np.ndarray, fitting: np.ndarray, most: int) -> np.ndarray:
    """bool [e]: half as many pieces as there are gaps, or as hold twice as many tokens; none if that saves no row."""
    wide = gaps[gaps >= max(1, window.capacity // _LEAST)]
    wanted = int(wide.sum())
    held = np.zeros(len(pieces), bool)
    if wanted < window.capacity:
        return held
    number = -(-len(wide) // 2)
    least = wanted // number
    length, places = pieces.length.astype(np.int64), (pieces.stop - pieces.start).astype(np.int64)
    # Those of fine grain first (two tokens a place or fewer), then those of enough tokens, then the nearest to that.
    order = np.lexsort((np.abs(length - least), length < least, length > 2 * places))
    order = order[places[order] > 1]
    order = order[~fitting[order] | (np.cumsum(fitting[order]) <= most)][:number]
    before = np.cumsum(length[order]) - length[order]
    held[order[before < 2 * wanted]] = True
    return held


def _pour(window: Packable, held: Pieces, room: _Room) -> tuple[Pieces, np.ndarray, Pieces]:
    """(pieces poured into gaps, int64 [p] their rows, what is left of each held-out piece)."""
    samples, mine = np.unique(held.sample, return_inverse=True)
    part = take(window.table, samples)
    cuts = Cuts.of(window.layout, part, mine, held.start, held.stop)
    at, end = cuts.base.copy(), cuts.base + cuts.sizes - 1
    tokens, times = held.length.astype(np.int64), np.zeros(len(held), np.int64)
    poured, rows = [], [np.zeros(0, np.int64)]
    for number, (filled, of) in enumerate(FILLED):
        todo = np.flatnonzero((at < end) & (times < GAP_PIECES))
        todo = todo[np.argsort(-tokens[todo], kind="stable")]
        open_ = np.flatnonzero(room.gaps >= max(1, window.capacity // _LEAST))
        open_ = open_[np.argsort(-room.gaps[open_], kind="stable")]
        pairs = min(len(todo), len(open_))
        if not pairs:
            break
        piece, row = np.roll(todo[:pairs], number * _SHIFT), open_[:pairs]

        def measure(which: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return window.measure(part, mine[which], cuts.places[low], cuts.places[high])

        def fits(which: np.ndarray, gap: np.ndarray, high: np.ndarray) -> np.ndarray:
            length, costs = measure(which, at[which], high)
            return (length <= room.gaps[gap]) & (room.used[gap] + costs <= window.most).all(axis=1)

        stop, high = at[piece], end[piece] + 1  # the farthest cut that fits lies in [stop, high)
        while (open_pairs := np.flatnonzero(high - stop > 1)).size:
            middle = (stop[open_pairs] + high[open_pairs]) // 2
            good = fits(piece[open_pairs], row[open_pairs], middle)
            stop[open_pairs[good]], high[open_pairs[~good]] = middle[good], middle[~good]
        length, costs = measure(piece, at[piece], stop)
        after, costs_after = measure(piece, stop, end[piece])
        good = (stop > at[piece]) & (length * of >= room.gaps[row] * filled)
        good &= (stop == end[piece]) | window.fits(after, costs_after)
        piece, row, stop, length = piece[good], row[good], stop[good], length[good]
        poured.append(Pieces.of(held.sample[piece], cuts.places[at[piece]], cuts.places[stop], length))
        rows.append(row)
        room.gaps[row] -= length
        room.used[row] += costs[good]
        at[piece], tokens[piece], times[piece] = stop, np.where(stop < end[piece], after[good], 0), times[piece] + 1
    rest = at < end
    left = Pieces.of(held.sample, cuts.places[at], cuts.places[end], tokens)[rest]
    return Pieces.joined(poured), np.concatenate(rows), left
