"""The order in which an item's codes stand in a row, and back: scan orders of a grid, orders of K codebooks.

Codes come as [F, n, K]: F frames of n = h * w cells of K codebooks (sound: one frame of n code frames). `arrange` gives
[F, n * K]; `restore` is its exact inverse. Both are one fancy index with a cached permutation.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class BodyOrder:
    """How one kind's codes are ordered."""

    scan: str = "raster"  # raster | columns | snake | hilbert
    codebooks: str = "interleaved"  # interleaved | coarse_to_fine | delayed
    delays: tuple[int, ...] = ()

    @property
    def plain(self) -> bool:
        return self.scan == "raster" and self.codebooks == "interleaved"

    def permutation(self, h: int, w: int, K: int) -> np.ndarray | None:
        """int64 [h * w * K]: the flat index in [cell, codebook] of each place; None where it is 0, 1, 2, ..."""
        if self.scan == "raster" and (K == 1 or self.codebooks == "interleaved"):
            return None
        return _permutation(self.scan, self.codebooks, self.delays, h, w, K)


def arrange(codes: np.ndarray, order: BodyOrder, h: int, w: int) -> np.ndarray:  # [F, n * K]
    """[F, n, K] in the order of a row."""
    F, n, K = codes.shape
    flat = codes.reshape(F, n * K)
    permutation = order.permutation(h, w, K)
    return flat if permutation is None else flat[:, permutation]


def restore(flat: np.ndarray, order: BodyOrder, h: int, w: int, K: int) -> np.ndarray:  # [F, n, K]
    """The inverse of `arrange`."""
    F = len(flat)
    permutation = order.permutation(h, w, K)
    if permutation is None:
        return flat.reshape(F, -1, K)
    out = np.empty_like(flat)
    out[:, permutation] = flat
    return out.reshape(F, -1, K)


def codebook_of(order: BodyOrder, h: int, w: int, K: int) -> np.ndarray:  # int64 [h * w * K]
    """Which codebook stands at each place of one frame."""
    permutation = order.permutation(h, w, K)
    return (np.arange(h * w * K) if permutation is None else permutation) % K


def cell_of(order: BodyOrder, h: int, w: int, K: int) -> np.ndarray:  # int64 [h * w * K]
    """Which cell, row by row, stands at each place of one frame."""
    permutation = order.permutation(h, w, K)
    return (np.arange(h * w * K) if permutation is None else permutation) // K


@functools.lru_cache(maxsize=512)
def _permutation(scan: str, codebooks: str, delays: tuple[int, ...], h: int, w: int, K: int) -> np.ndarray:
    cells = _scan(scan, h, w)
    places = cells[:, None] * K + np.arange(K)  # [n, K]
    if codebooks == "coarse_to_fine":
        places = places.T
    elif codebooks == "delayed":
        # Codebook k of cell t stands at step t + d_k; within a step the coarser codebook first
        delay = np.array([delays[min(k, len(delays) - 1)] for k in range(K)])
        step = np.arange(len(cells))[:, None] + delay
        order = np.argsort((step * K + np.arange(K)).reshape(-1), kind="stable")
        return places.reshape(-1)[order]
    return places.reshape(-1)


def _scan(scan: str, h: int, w: int) -> np.ndarray:  # int64 [h * w], raster numbers in the order of the scan
    cells = np.arange(h * w).reshape(h, w)
    if scan == "columns":
        return cells.T.reshape(-1)
    if scan == "snake":
        cells = cells.copy()
        cells[1::2] = cells[1::2, ::-1]
        return cells.reshape(-1)
    if scan == "hilbert":
        return np.array([y * w + x for x, y in _hilbert(w, h)], np.int64)
    return cells.reshape(-1)


def _hilbert(width: int, height: int) -> list[tuple[int, int]]:
    """(x, y) along a Hilbert curve of any rectangle: the generalised curve, which halves the longer side and keeps
    neighbours neighbours (one diagonal step at most, where a side is odd)."""
    out: list[tuple[int, int]] = []
    if width >= height:
        _curve(0, 0, width, 0, 0, height, out)
    else:
        _curve(0, 0, 0, height, width, 0, out)
    return out


def _curve(x: int, y: int, ax: int, ay: int, bx: int, by: int, out: list[tuple[int, int]]) -> None:
    """Fill the rectangle at (x, y) of main side a and cross side b."""
    long, across = abs(ax + ay), abs(bx + by)
    dax, day, dbx, dby = (int(np.sign(v)) for v in (ax, ay, bx, by))
    if across == 1 or long == 1:
        dx, dy, count = (dax, day, long) if across == 1 else (dbx, dby, across)
        out += [(x + i * dx, y + i * dy) for i in range(count)]
        return
    ax2, ay2, bx2, by2 = ax // 2, ay // 2, bx // 2, by // 2
    if 2 * long > 3 * across:
        if abs(ax2 + ay2) % 2 and long > 2:  # an even half joins the next without a diagonal
            ax2, ay2 = ax2 + dax, ay2 + day
        _curve(x, y, ax2, ay2, bx, by, out)
        _curve(x + ax2, y + ay2, ax - ax2, ay - ay2, bx, by, out)
        return
    if abs(bx2 + by2) % 2 and across > 2:
        bx2, by2 = bx2 + dbx, by2 + dby
    _curve(x, y, bx2, by2, ax2, ay2, out)
    _curve(x + bx2, y + by2, ax, ay, bx - bx2, by - by2, out)
    _curve(x + (ax - dax) + (bx2 - dbx), y + (ay - day) + (by2 - dby), -bx2, -by2, -(ax - ax2), -(ay - ay2), out)
