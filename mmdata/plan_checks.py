"""What `mmdata verify` looks at in a cached plan: are its rows rows, and is every place of every sample in one of them?

Nothing here packs. Whatever layout a plan is for, its arrays must agree, its entries lie inside their samples, and none
of them overlap; with the layout (the shipped ones are known), lengths, limits and what is left out are measured anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.checks import Found
from mmdata.dataset import Source, Split
from mmdata.pieces import Packable, Pieces, places_of
from mmdata.plan import Plan, read_plan
from mmdata.plan_windows import limits_of, window_edges
from tokenizer.codec import CodecSpec
from tokenizer.codecs import load_codec
from tokenizer.layout import Layout, load_layout, shipped_layouts


def check_plan(source: Source, path: Path, codecs: Sequence[Sequence[CodecSpec]], layouts: Sequence[str]) -> Found:
    """A cached plan of the source. `codecs`: the sets that its layout may be bound over; `layouts`: paths of some
    beside the shipped ones. A whole plan of another source, which an earlier build left, is nobody's: passed by."""
    found = Found(f"{source.name}/plans/{path.name}")
    try:
        plan = read_plan(path)
        if path.stem != plan.fingerprint:
            found.say(f"its settings, source and split have the fingerprint {plan.fingerprint}: delete it")
        elif plan.source == source.fingerprint:
            found.count(plans=1, entries=len(plan.sample))
            layout = _layout_of(plan.settings.layout, source, codecs, layouts)
            for problem in _plan_problems(plan, source, layout):
                found.say(problem)
            found.count(entries_measured=len(plan.sample) if layout else 0)
    except Exception as error:  # a damaged file fails in many ways
        found.say(f"cannot be checked: {(str(error) or type(error).__name__).splitlines()[0]}")
    return found


def _plan_problems(plan: Plan, source: Source, layout: Layout | None) -> Iterator[str]:
    data = source.splits[plan.split]
    edges = window_edges(data, plan.settings)
    if broken := list(_broken_arrays(plan, len(edges) - 1)):
        yield from broken
        return  # nothing can be looked up in it
    told = {"samples": len(data), "rows": plan.num_rows, "entries": len(plan.sample), "tokens": int(plan.length.sum())}
    for name, number in told.items():
        if plan.report.get(name) != number:
            yield f"its report says {plan.report.get(name)} {name}, found {number}"
    for window, (first, last) in enumerate(zip(edges.tolist(), edges[1:].tolist())):
        for what in _window_problems(plan, window, data, first, last, source, layout):
            yield f"window {window}: {what}"


def _broken_arrays(plan: Plan, num_windows: int) -> Iterator[str]:
    for name, bounds, parts, last in (
        ("windows", plan.windows, num_windows, plan.num_rows),
        ("rows", plan.rows, plan.num_rows, len(plan.sample)),
    ):
        if len(bounds) != parts + 1 or bounds[0] != 0 or bounds[-1] != last or (np.diff(bounds) < 0).any():
            yield f"{name} are no {parts + 1} bounds from 0 to {last}"
    lengths = {name: len(getattr(plan, name)) for name in ("sample", "start", "stop", "length")}
    if len(set(lengths.values())) > 1:
        yield f"its entries have arrays of different lengths: {lengths}"


def _window_problems(
    plan: Plan, window: int, data: Split, first: int, last: int, source: Source, layout: Layout | None
) -> Iterator[str]:
    """Of the window of samples first:last."""
    rows = plan.rows[plan.windows[window] : plan.windows[window + 1] + 1]
    entries = slice(int(rows[0]), int(rows[-1]))
    pieces = Pieces(plan.sample[entries] - first, plan.start[entries], plan.stop[entries], plan.length[entries])
    row = np.repeat(np.arange(len(rows) - 1), np.diff(rows))
    table = data.item_table(first, last)
    places = places_of(table)
    if broken := list(_broken_pieces(pieces, places, first)):
        yield from broken
        return  # nothing can be measured
    filled = np.bincount(row, pieces.length, minlength=len(rows) - 1)
    if (over := (filled > plan.settings.capacity) | (filled <= 0)).any():
        r, capacity = int(np.flatnonzero(over)[0]), plan.settings.capacity
        yield f"{over.sum()} rows are empty or over {capacity} tokens, the first row {r} with {filled[r]:.0f}"
    if layout is not None and len(table):
        rates = {codec.name: codec.rate for codec in source.codecs}
        packable = Packable(table, layout, plan.settings.capacity, limits_of(plan.settings), rates)
        yield from _measured_problems(packable, pieces, row, places, first)


def _broken_pieces(pieces: Pieces, places: np.ndarray, first: int) -> Iterator[str]:
    """Of samples that are not the window's, of places that the samples have not, or of places that come twice."""
    if (outside := (pieces.sample < 0) | (pieces.sample >= len(places))).any():
        named = pieces.sample[outside][0] + first
        yield f"{outside.sum()} entries of samples outside its shards, the first of sample {named}"
        return
    outside = (pieces.start < 0) | (pieces.start >= pieces.stop) | (pieces.stop > places[pieces.sample])
    if outside.any():
        has = places[pieces.sample[outside][0]]
        yield f"{outside.sum()} entries outside their sample, {_first(pieces[outside], first)}, which has {has}"
        return
    ordered = pieces[pieces.order()]
    same = np.flatnonzero(ordered.sample[1:] == ordered.sample[:-1])
    twice = same[ordered.start[same + 1] < ordered.stop[same]] + 1
    if twice.size:
        yield f"{twice.size} entries have places that come twice, {_first(ordered[twice], first)}"


def _measured_problems(
    window: Packable, pieces: Pieces, row: np.ndarray, places: np.ndarray, first: int
) -> Iterator[str]:
    """What the layout says of lengths, of the limits of a row, and of what is in no row, which must fit none."""
    lengths, costs = window.measure(window.table, pieces.sample, pieces.start, pieces.stop)
    if (wrong := lengths != pieces.length).any():
        yield (
            f"{wrong.sum()} entries of another length than the layout's, {_first(pieces[wrong], first)}:"
            f" {pieces.length[wrong][0]} for {lengths[wrong][0]}"
        )
    sums = np.zeros((int(row.max(initial=-1)) + 1, costs.shape[1]), np.int64)
    np.add.at(sums, row, costs)
    if (over := (sums > window.most).any(axis=1)).any():
        named = np.flatnonzero(over)[0]
        yield f"{over.sum()} rows over the limits of images, frames or sound, the first row {named}"
    gaps = _gaps(pieces, places)
    lengths, costs = window.measure(window.table, gaps.sample, gaps.start, gaps.stop)
    if (lost := window.fits(lengths, costs) & (lengths > 0)).any():
        yield f"{lost.sum()} stretches are in no row although they fit one, {_first(gaps[lost], first)}"


def _gaps(pieces: Pieces, places: np.ndarray) -> Pieces:
    """Every stretch of places that is in no piece, of length 0."""
    samples, none = np.arange(len(places)), np.zeros(len(places))
    # A piece of nothing at either end of each sample, so that a gap lies between two neighbours.
    ends = [Pieces.of(samples, none, none, none), Pieces.of(samples, places, places, none)]
    all_ = Pieces.joined([pieces, *ends])
    all_ = all_[np.lexsort((all_.stop, all_.start, all_.sample))]
    gap = np.flatnonzero((all_.sample[1:] == all_.sample[:-1]) & (all_.start[1:] > all_.stop[:-1]))
    return Pieces(all_.sample[gap], all_.stop[gap], all_.start[gap + 1], np.zeros(len(gap), np.int32))


def _first(pieces: Pieces, first: int) -> str:
    """The first of some pieces, in words; sample 0 of the window is sample `first`."""
    return f"the first places {pieces.start[0]}:{pieces.stop[0]} of sample {pieces.sample[0] + first}"


def _layout_of(
    digest: str, source: Source, codecs: Sequence[Sequence[CodecSpec]], layouts: Sequence[str]
) -> Layout | None:
    """The bound layout of a digest; None where it is none of those known here."""

    def load(name: str) -> Any:
        own = any(codec.name == name for codec in source.codecs)
        return source.load_codec(name) if own else load_codec(name)

    for name in (*layouts, *shipped_layouts()):
        spec = load_layout(name)
        for known in codecs:
            try:
                bound = spec.bind(known, load)
            except ValueError:  # a layout that takes other codecs
                continue
            if bound.digest == digest:
                return bound
    return None
