"""The arithmetic of rows, compiled: which source a row is of, and a source's order, forwards and back.

Plain loops over arrays; docs/format.md words what they compute ("Order", "Mixture and schedule"). Importing this module
imports numba, which takes a while: import it inside functions.

Products of a row number and a weight need 128 bits; with sums of weights of at most 2^32 (`MAX_SUM`) they are avoided,
`t * a // A = (t // A) * a + (t % A) * a // A`, and 64 bits hold for every row number below 2^62 (`MAX_ROW`).
`Shares` and `Timeline` are the same in Python's integers, for larger sums and for tests.
"""

from __future__ import annotations

import numba
import numpy as np

MAX_SUM = 1 << 32
MAX_ROW = 1 << 62
MIN_HALF_BITS = 3  # a Feistel network over fewer than 6 bits mixes badly; cycle walking pays for the rest

# No exceptions inside: the callers see to it that nothing is divided by 0 or read outside.
_compiled = numba.njit(cache=True, nogil=True, error_model="numpy")


@_compiled
def pick(sums, sources, bases, first, stride, width, num_steps):  # type: ignore[no-untyped-def]
    """(feed int32, number of the row in that feed's past int64), [num_steps * width] each, of the rows
    first + s * stride + r of a stage, for s below num_steps and r below width.

    sums: uint64 [k], running sums of the stage's weights; sources: int64 [k], its feeds; bases: int64 [feeds], rows of
    each feed before the stage.
    """
    feed, number = np.empty(num_steps * width, np.int32), np.empty(num_steps * width, np.int64)
    counts, rests = np.empty(len(sums), np.int64), np.empty(len(sums), np.uint64)
    for s in range(num_steps):
        if s == 0 or width < stride:
            _count(sums, first + s * stride, counts, rests)
        for i in range(s * width, (s + 1) * width):
            # A level's row t gains the sources before k one where t * a mod A + a reaches A: then the row is theirs.
            k = len(sums) - 1
            while k > 0:
                rests[k] += sums[k - 1]
                if rests[k] < sums[k]:
                    break
                rests[k] -= sums[k]
                k -= 1
            feed[i] = sources[k]
            number[i] = bases[sources[k]] + counts[k]
            counts[k] += 1
    return feed, number


@_compiled
def _count(sums, first, counts, rests):  # type: ignore[no-untyped-def]
    """Into `counts`: the rows of each source among the first `first`; into `rests`: t * a mod A of each level."""
    t = np.uint64(first)
    for k in range(len(sums) - 1, 0, -1):
        a, total = sums[k - 1], sums[k]
        if total == 0:  # no source up to k has a weight, and so no row
            counts[k] = rests[k] = 0
            continue
        rest = (t % total) * a
        left = (t // total) * a + rest // total
        counts[k], rests[k] = np.int64(t - left), rest % total
        t = left
    counts[0] = np.int64(t)


@_compiled
def place(sums, k, counts):  # type: ignore[no-untyped-def]
    """The rows int64 [m] of a stage at which the rows `counts` int64 [m] of its source k come; -1 from `MAX_ROW` on."""
    out = np.empty(len(counts), np.int64)
    limit = np.uint64(MAX_ROW)
    for i in range(len(counts)):
        t, weight = np.uint64(counts[i]), sums[k]
        if k > 0:
            weight -= sums[k - 1]
            if t // weight >= limit // sums[k]:
                out[i] = -1
                continue
            t = (t // weight) * sums[k] + (t % weight) * sums[k] // weight
        for level in range(k + 1, len(sums)):
            a, total = sums[level - 1], sums[level]
            if a == total:
                continue
            t += np.uint64(1)
            if t // a >= limit // total:
                t = limit
                break
            rest = (t % a) * total
            t = (t // a) * total + rest // a
            if rest % a == 0:
                t -= np.uint64(1)
        out[i] = np.int64(t) if t < limit else -1
    return out


@_compiled
def permute(keys, n, x):  # type: ignore[no-untyped-def]
    """Where the permutation of [0, n) under keys uint64 [8] sends each x int64 [m]."""
    half = _half(n)
    out = np.empty(len(x), np.int64)
    for i in range(len(x)):
        out[i] = _forward(keys, half, n, x[i])
    return out


@_compiled
def unpermute(keys, n, y):  # type: ignore[no-untyped-def]
    """The inverse of `permute`."""
    half = _half(n)
    out = np.empty(len(y), np.int64)
    for i in range(len(y)):
        out[i] = _backward(keys, half, n, y[i])
    return out


@_compiled
def rows(positions, starts, sums, keys, group_windows):  # type: ignore[no-untyped-def]
    """The plan rows int64 [m] at positions int64 [m] of an epoch.

    starts: int64 [w], first row of the window at each place; sums: int64 [w+1], rows at the places before it; keys:
    uint64 [groups, 8].
    """
    out = np.empty(len(positions), np.int64)
    for i in range(len(positions)):
        group, low, high = _group(sums, _last(sums, 0, len(sums), positions[i]), group_windows)
        n = sums[high] - sums[low]
        q = sums[low] + _forward(keys[group], _half(n), n, positions[i] - sums[low])
        j = _last(sums, low, high, q)
        out[i] = starts[j] + q - sums[j]
    return out


@_compiled
def positions(wanted, windows, spots, sums, keys, group_windows):  # type: ignore[no-untyped-def]
    """The positions int64 [m] of an epoch at which plan rows `wanted` int64 [m] come: the inverse of `rows`.

    windows: int64 [w+1], first row of each window; spots: int64 [w], the place of each window.
    """
    out = np.empty(len(wanted), np.int64)
    for i in range(len(wanted)):
        window = _last(windows, 0, len(windows), wanted[i])
        q = sums[spots[window]] + wanted[i] - windows[window]
        group, low, high = _group(sums, spots[window], group_windows)
        n = sums[high] - sums[low]
        out[i] = sums[low] + _backward(keys[group], _half(n), n, q - sums[low])
    return out


@_compiled
def _group(sums, j, group_windows):  # type: ignore[no-untyped-def]
    """(number, first place, place after the last) of the group of windows which place j is in."""
    group = j // group_windows
    return group, group * group_windows, min((group + 1) * group_windows, len(sums) - 1)


@_compiled
def _last(sums, low, high, x):  # type: ignore[no-untyped-def]
    """The last place in [low, high) whose sum is x or less."""
    while high - low > 1:
        middle = (low + high) // 2
        if sums[middle] <= x:
            low = middle
        else:
            high = middle
    return low


@_compiled
def _half(n):  # type: ignore[no-untyped-def]
    """Bits of each half of the Feistel network over [0, n)."""
    bits, top = 0, n - 1
    while top > 0:
        bits += 1
        top >>= 1
    return max(MIN_HALF_BITS, (bits + 1) // 2)


@_compiled
def _forward(keys, half, n, x):  # type: ignore[no-untyped-def]
    h, mask = np.uint64(half), (np.uint64(1) << np.uint64(half)) - np.uint64(1)
    y, top = np.uint64(x), np.uint64(n)
    while n > 1:
        left, right = y >> h, y & mask
        for r in range(len(keys)):
            left, right = right, left ^ (_mix(right + keys[r]) & mask)
        y = (left << h) | right
        if y < top:
            break
    return np.int64(y)


@_compiled
def _backward(keys, half, n, y):  # type: ignore[no-untyped-def]
    h, mask = np.uint64(half), (np.uint64(1) << np.uint64(half)) - np.uint64(1)
    x, top = np.uint64(y), np.uint64(n)
    while n > 1:
        left, right = x >> h, x & mask
        for r in range(len(keys) - 1, -1, -1):
            left, right = right ^ (_mix(left + keys[r]) & mask), left
        x = (left << h) | right
        if x < top:
            break
    return np.int64(x)


@_compiled
def _mix(z):  # type: ignore[no-untyped-def]
    """The finaliser of SplitMix64, modulo 2^64."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
