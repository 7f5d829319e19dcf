"""The loader's compiled loop: rows of a batch, filled from the records of mapped shards.

Imports numba, so this module is imported when it is first needed. Everything here runs without the GIL on plain arrays.
`tests/mmdata/test_fill.py` holds it to what rendering gives.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

from mmdata.mapped import BLOCK, BLOCK_HEADER
from tokenizer.item import CONTROL, TEXT
from tokenizer.programs import CHOSEN, PLAIN

# What `fill` needs of each open shard, a column of its `shards` table: addresses and counts
(
    DATA,  # uint8, the mapped file
    SIZE,  # bytes of it
    STARTS,  # int64 [n], first byte of each record
    SIZES,  # int64 [n]
    FORM,  # uint8 [n], of each sample: tokenizer.programs
    ITEMS,  # int64 [n+1], first item of each sample
    UNITS,  # int32 [m], places of each item
    CODES,  # int32 [m], codes of each item: T * K
    OFFSET,  # int64 [m], first byte of its codes
    WIDTH,  # uint8 [m], bytes a code
    NUMBER,  # int32 [m], its program
    PROGRAMS,  # int64 [p, 5]
    RUNS,  # int32 [r, 4]
    IDS,  # int32 [c], fixed ids
    BOOKS,  # int64 [k, 2], first id and size of each codebook
    SPECIAL,  # uint8 [codes of text], 1: no text has it
    NUM_SPECIAL,  # 0: there are none
) = range(17)
NUM_COLUMNS = 17
BAD_PLAN = -(1 << 60)  # what `fill` says of a plan that points where nothing is
OTHER_RECORD = -2  # what `_entry` says, and `fill` as a form: the catalog's codes are not all that the record has


def _pointer_to(kind: Any) -> Any:
    """An intrinsic that makes a typed pointer of an address: shards are many, a compiled function takes few arrays."""

    @intrinsic
    def pointer(typingctx: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

        return types.CPointer(kind)(types.int64), codegen

    return pointer


_u1, _u2, _u4 = _pointer_to(types.uint8), _pointer_to(types.uint16), _pointer_to(types.uint32)
_i4, _i8 = _pointer_to(types.int32), _pointer_to(types.int64)


@numba.njit(cache=True, nogil=True)
def fill(  # type: ignore[no-untyped-def]
    places,  # int64 [r, 2]: the row of the batch, the row of the plan
    plan_rows,  # int64 [rows + 1]   the plan's arrays
    plan_sample,  # int64 [e]
    plan_start,  # int32 [e]
    plan_stop,  # int32 [e]
    plan_length,  # int32 [e]
    bounds,  # int64 [shards + 1], first sample of each shard
    slots,  # int32 [shards], the shard's line in `shards`, -1: it is not open
    used,  # int64 [shards], when each was used last
    tick,  # int64, now
    shards,  # int64 [slots, NUM_COLUMNS]
    left_out,  # int64 [q], samples which are padding, in order
    edge_ids,  # int32 [3]: begin, end, continued; -1 none
    edge_weights,  # float32 [3]
    tokens,  # int32 [B, L]   the batch's arrays
    targets,
    weights,
    segments,
    positions,
    kinds,
    todo,  # int64 [t, 5]: row of the batch, segment, entry, column, form: what is not filled here
):
    """Fill rows of a batch. Returns how many entries are left to be rendered, -1 - s where shard s is not open, or
    BAD_PLAN."""
    for r in range(len(places)):
        first, stop, column = plan_rows[places[r, 1]], plan_rows[places[r, 1] + 1], np.int64(0)
        if first < 0 or stop > len(plan_sample) or stop - first > tokens.shape[1]:
            return BAD_PLAN
        for e in range(first, stop):
            column += plan_length[e]
            if plan_sample[e] < 0 or plan_sample[e] >= bounds[-1] or plan_length[e] < 0 or column > tokens.shape[1]:
                return BAD_PLAN
            if plan_start[e] < 0 or plan_stop[e] < plan_start[e]:
                return BAD_PLAN
            s = np.searchsorted(bounds, plan_sample[e], "right") - 1
            used[s] = tick
            if slots[s] < 0 and not _is_in(left_out, plan_sample[e]):
                return -1 - s
    num_todo, as_stored = 0, np.empty(0, np.int64)
    for r in range(len(places)):
        b, row = places[r, 0], places[r, 1]
        column, segment = 0, 0
        for e in range(plan_rows[row], plan_rows[row + 1]):
            sample, length = plan_sample[e], plan_length[e]
            n = 0
            if not _is_in(left_out, sample):
                segment += 1
                s = np.searchsorted(bounds, sample, "right") - 1
                n = _entry(
                    shards[slots[s]], sample - bounds[s], plan_start[e], plan_stop[e], length, as_stored,
                    edge_ids, edge_weights, tokens[b], weights[b], kinds[b], column,
                )  # fmt: skip
                if n < 0:
                    todo[num_todo, 0], todo[num_todo, 1], todo[num_todo, 2], todo[num_todo, 3] = b, segment, e, column
                    form = np.int64(_u1(shards[slots[s], FORM])[sample - bounds[s]])
                    todo[num_todo, 4] = OTHER_RECORD if n == OTHER_RECORD else form
                    num_todo += 1
                    n = 0
            _finish(tokens[b], targets[b], weights[b], segments[b], positions[b], column, n, segment)
            _pad(tokens[b], targets[b], weights[b], segments[b], positions[b], kinds[b], column + n, column + length)
            column += length
        _pad(tokens[b], targets[b], weights[b], segments[b], positions[b], kinds[b], column, tokens.shape[1])
    return num_todo


@numba.njit(cache=True, nogil=True)
def fill_chosen(  # type: ignore[no-untyped-def]
    todo,  # int64 [t, 5], as `fill` leaves it
    ends,  # int64 [t], where the order of each ends in `orders`
    orders,  # int64 [sum], items of the sample in the order chosen
    plan_sample,
    plan_start,
    plan_stop,
    plan_length,
    bounds,
    slots,
    shards,
    edge_ids,
    edge_weights,
    tokens,
    targets,
    weights,
    segments,
    positions,
    kinds,
    done,  # bool [t]
):
    """Fill whole samples with their items in other orders, into padding; `done` says which were."""
    first = 0
    for x in range(len(todo)):
        b, segment, e, column = todo[x, 0], todo[x, 1], todo[x, 2], todo[x, 3]
        s = np.searchsorted(bounds, plan_sample[e], "right") - 1
        order = orders[first : ends[x]]
        first = ends[x]
        done[x] = False
        if slots[s] < 0 or len(order) == 0:
            continue
        n = _entry(
            shards[slots[s]], plan_sample[e] - bounds[s], plan_start[e], plan_stop[e], plan_length[e], order,
            edge_ids, edge_weights, tokens[b], weights[b], kinds[b], column,
        )  # fmt: skip
        if n < 0:
            n = 0
        else:
            done[x] = True
        _finish(tokens[b], targets[b], weights[b], segments[b], positions[b], column, n, segment)
        stop = column + plan_length[e]
        _pad(tokens[b], targets[b], weights[b], segments[b], positions[b], kinds[b], column + n, stop)


@numba.njit(cache=True, nogil=True)
def _finish(tokens, targets, weights, segments, positions, column, n, segment):  # type: ignore[no-untyped-def]
    """What follows from the tokens of a segment. Loops run over views from 0 on: an index that might be negative is
    one that LLVM does not vectorise over, which took twice as long as all the rest."""
    if n == 0:
        return
    last = column + n - 1
    here, following, place = targets[column:last], tokens[column + 1 : last + 1], positions[column : last + 1]
    for j in range(n - 1):
        here[j] = following[j]
    targets[last] = 0
    weights[last] = 0
    segments[column : last + 1] = segment
    for j in range(n):
        place[j] = np.int32(j)


@numba.njit(cache=True, nogil=True)
def _pad(tokens, targets, weights, segments, positions, kinds, start, stop):  # type: ignore[no-untyped-def]
    tokens[start:stop] = 0
    targets[start:stop] = 0
    weights[start:stop] = 0
    segments[start:stop] = 0
    positions[start:stop] = 0
    kinds[start:stop] = 0


@numba.njit(cache=True, nogil=True)
def _is_in(values, value):  # type: ignore[no-untyped-def]
    if len(values) == 0:
        return False
    i = np.searchsorted(values, value)
    return i < len(values) and values[i] == value


@numba.njit(cache=True, nogil=True)
def _entry(  # type: ignore[no-untyped-def]
    shard, i, start, stop, length, order, edge_ids, edge_weights, tokens, weights, kinds, column
):
    """Write places start:stop of sample i as tokens from `column` on; returns how many, -1 where it must be rendered:
    another form, or something that is not as the catalog says."""
    form = _u1(shard[FORM])[i]
    if not (form == PLAIN or (form == CHOSEN and len(order))):
        return -1
    data = _u1(shard[DATA])
    at, size = _i8(shard[STARTS])[i], _i8(shard[SIZES])[i]
    record = shard[DATA] + at
    scratch = np.empty(size if at % BLOCK + size > BLOCK else 0, np.uint8)
    if len(scratch):  # it lies on both sides of a block header
        done = 0
        while done < size:
            if at % BLOCK == 0:
                at += BLOCK_HEADER
            some = min(size - done, BLOCK - at % BLOCK)
            if at + some > shard[SIZE]:
                return -1
            for j in range(some):
                scratch[done + j] = data[at + j]
            at, done = at + some, done + some
        record = scratch.ctypes.data
    elif at + size > shard[SIZE]:
        return -1
    codes, num_bytes = _codes_of(record, size)
    if num_bytes < 0:
        return -1
    n = _items(
        shard, i, start, stop, length, order, edge_ids, edge_weights, tokens, weights, kinds, column,
        record + codes, num_bytes,
    )  # fmt: skip
    # A use after the last read: the record may lie in the scratch array, which is freed when nothing names it
    return n if len(scratch) == 0 or scratch[0] >= 0 else -1


@numba.njit(cache=True, nogil=True)
def _codes_of(record, size):  # type: ignore[no-untyped-def]
    """(first byte, bytes) of the value of a record's first feature, its codes (mmdata/example.py); (0, -1): none.
    Features { entry { name, Feature { BytesList { value } } } }: each a tag, a length, and what it holds."""
    data = _u1(record)
    at = 0
    for depth in range(6):
        if at >= size or data[at] != (0x12 if depth == 3 else 0x0A):
            return 0, -1
        at += 1
        length, shift = np.int64(0), 0
        while True:
            if at >= size or shift > 56:
                return 0, -1
            byte = np.int64(data[at])
            at += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        if length > size - at:
            return 0, -1
        if depth == 2:
            at += length  # the name
        elif depth == 5:
            return at, length
    return 0, -1


@numba.njit(cache=True, nogil=True)
def _items(  # type: ignore[no-untyped-def]
    shard, i, start, stop, length, order, edge_ids, edge_weights, tokens, weights, kinds, column, codes, num_bytes
):
    items, units, num_codes = _i8(shard[ITEMS]), _i4(shard[UNITS]), _i4(shard[CODES])
    offset, width, number = _i8(shard[OFFSET]), _u1(shard[WIDTH]), _i4(shard[NUMBER])
    programs, runs, ids, books = _i8(shard[PROGRAMS]), _i4(shard[RUNS]), _i4(shard[IDS]), _i8(shard[BOOKS])
    end = column + length
    top = items[i + 1] - 1
    if top < items[i] or offset[top] + np.int64(num_codes[top]) * width[top] != num_bytes:
        return OTHER_RECORD
    edge = 0 if start == 0 else 2
    c = column
    if edge_ids[edge] >= 0:
        if c >= end:
            return -1
        tokens[c], kinds[c] = edge_ids[edge], CONTROL
        c += 1
    place, chosen = 0, len(order) > 0
    for x in range(len(order) if chosen else items[i + 1] - items[i]):
        m = items[i] + (order[x] if chosen else x)
        n = units[m]
        first, last = (0, n) if chosen else (max(start - place, 0), min(stop - place, n))
        place += n
        if first >= last:
            continue
        p = number[m]
        if first > 0 or last < n:
            unclosed = programs[5 * p + 2]
            if unclosed < 0:
                return -1
            if last < n:
                p = unclosed
        K = programs[5 * p + 4]
        if offset[m] < 0 or num_codes[m] < 0 or offset[m] + np.int64(num_codes[m]) * width[m] > num_bytes:
            return -1
        source = codes + offset[m] + np.int64(first) * (num_codes[m] // n) * width[m]
        rest = (last - first) * (num_codes[m] // n)
        for r in range(programs[5 * p], programs[5 * p + 1]):
            count = runs[4 * r] if runs[4 * r] >= 0 else rest
            if c + count > end:
                return -1
            if runs[4 * r + 1] >= 0:
                for j in range(count):
                    tokens[c + j] = ids[runs[4 * r + 1] + j]
            else:
                if count > rest or not _copy(source, width[m], count, books, programs[5 * p + 3], K, tokens[c:]):
                    return -1
                source += np.int64(count) * width[m]
                rest -= count
                if shard[NUM_SPECIAL] and runs[4 * r + 2] == TEXT and _any_special(shard, tokens[c : c + count]):
                    return -1
            kinds[c : c + count] = runs[4 * r + 2]
            weight = np.int32(runs[4 * r + 3])
            _weigh(weights, max(c - 1, column), c + count - 1, weight)
            c += count
    edge = 1 if chosen or stop == place else 2
    if edge_ids[edge] >= 0:
        if c >= end:
            return -1
        tokens[c], kinds[c] = edge_ids[edge], CONTROL
        if c > column:
            weights[c - 1] = edge_weights[edge]
        c += 1
    return c - column


@numba.njit(cache=True, nogil=True)
def _any_special(shard, tokens):  # type: ignore[no-untyped-def]
    """Whether one of the ids of text is a control of the layout (the range of text begins at 0)."""
    special = _u1(shard[SPECIAL])
    found = False
    for c in range(len(tokens)):
        found |= special[tokens[c]] > 0
    return found


@numba.njit(cache=True, nogil=True)
def _weigh(weights, start, stop, bits):  # type: ignore[no-untyped-def]
    """A weight stands where the token before its own is: that one's target."""
    weights.view(np.int32)[start:stop] = bits


@numba.njit(cache=True, nogil=True)
def _copy(source, width, count, books, book, K, out):  # type: ignore[no-untyped-def]
    """Codes as ids; False where one is outside its codebook."""
    if K == 1:
        base, size = np.int32(books[2 * book]), np.uint32(books[2 * book + 1])
        if width == 2:
            return _copy_one(_u2(source), np.uint16(0), count, base, size, out)
        if width == 1:
            return _copy_one(_u1(source), np.uint8(0), count, base, size, out)
        return _copy_one(_u4(source), np.uint32(0), count, base, size, out)
    u1, u2, u4 = _u1(source), _u2(source), _u4(source)
    k = 0
    for j in range(count):
        code = np.int64(u2[j]) if width == 2 else np.int64(u1[j]) if width == 1 else np.int64(u4[j])
        if code >= books[2 * (book + k) + 1]:
            return False
        out[j] = books[2 * (book + k)] + code
        k = k + 1 if k + 1 < K else 0
    return True


@numba.njit(cache=True, nogil=True)
def _copy_one(codes, top, count, base, size, out):  # type: ignore[no-untyped-def]
    """Codes of one codebook as ids; `top`: 0 of their type, as which the largest is kept so that LLVM vectorises."""
    for j in range(count):
        top = max(top, codes[j])
        out[j] = base + np.int32(codes[j])
    return np.uint32(top) < size
