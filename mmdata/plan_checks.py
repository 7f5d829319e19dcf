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
from mmdata.pieces import Packable, costs_of, places_of
from mmdata.plan import Plan, limits_of, read_plan
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
    edges = _window_edges(data, plan.settings.window_shards)
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


def _window_edges(data: Split, window_shards: int) -> np.ndarray:  # int64 [w+1]
    """First sample of each window of whole shards, and the number of samples."""
    bounds = np.asarray(data.shard_bounds, np.int64)
    return np.append(bounds[:-1:window_shards], bounds[-1]) if len(bounds) > 1 else np.zeros(1, np.int64)


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
    rows = plan.rows[plan.windows[window] : plan.windows[window + 1] + 1]
    entries = slice(int(rows[0]), int(rows[-1]))
    sample, start, stop, length = (
        getattr(plan, name)[entries].astype(np.int64) for name in ("sample", "start", "stop", "length")
    )
    sample = sample - first
    row = np.repeat(np.arange(len(rows) - 1), np.diff(rows))
    if (outside := (sample < 0) | (sample >= last - first)).any():
        yield f"{outside.sum()} entries of samples outside its shards, the first of sample {sample[outside][0] + first}"
        return
    table = data.item_table(first, last)
    places = places_of(table)
    if (outside := (start < 0) | (start >= stop) | (stop > places[sample])).any():
        e = int(np.flatnonzero(outside)[0])
        yield (
            f"{outside.sum()} entries outside their sample, the first places {start[e]}:{stop[e]} of sample"
            f" {sample[e] + first}, which has {places[sample[e]]}"
        )
        return
    filled = np.bincount(row, length, minlength=len(rows) - 1)
    if (over := (filled > plan.settings.capacity) | (filled <= 0)).any():
        r = int(np.flatnonzero(over)[0])
        capacity = plan.settings.capacity
        yield f"{over.sum()} rows are empty or over {capacity} tokens, the first row {r} with {filled[r]:.0f}"
    order = np.lexsort((start, sample))
    sample, start, stop, length, row = (a[order] for a in (sample, start, stop, length, row))
    same = np.flatnonzero(sample[1:] == sample[:-1])
    if (twice := same[start[same + 1] < stop[same]]).size:
        yield f"{twice.size} places come twice, the first of sample {sample[twice[0]] + first}"
        return
    if layout is not None and len(table):
        rates = {codec.name: codec.rate for codec in source.codecs}
        window_of = Packable(table, layout, plan.settings.capacity, limits_of(plan.settings), rates)
        yield from _measured_problems(window_of, first, places, sample, start, stop, length, row)


def _measured_problems(
    window: Packable,
    first: int,
    places: np.ndarray,
    sample: np.ndarray,
    start: np.ndarray,
    stop: np.ndarray,
    length: np.ndarray,
    row: np.ndarray,
) -> Iterator[str]:
    """Entries, ordered by (sample, start), against what their layout says: their lengths, the limits of a row, and that
    whatever is in no row fits none."""
    if len(sample):
        measured, _ = window.measure(sample, start, stop)
        if (wrong := np.flatnonzero(measured != length)).size:
            e = wrong[0]
            yield (
                f"{wrong.size} entries of another length than the layout's, the first {length[e]} for {measured[e]} of"
                f" sample {sample[e] + first}"
            )
        costs, _ = costs_of(window.layout, window.table, sample, start, stop, window.rates)
        sums = np.zeros((int(row.max()) + 1, costs.shape[1]), np.int64)
        np.add.at(sums, row, costs)
        if (over := (sums > window.limits).any(axis=1)).any():
            r = np.flatnonzero(over)[0]
            yield f"{over.sum()} rows over the limits of images, frames or sound, the first row {r}"
    gap_sample, gap_start, gap_stop = _gaps(places, sample, start, stop)
    if len(gap_sample):
        measured, fits = window.measure(gap_sample, gap_start, gap_stop)
        if (lost := np.flatnonzero(fits & (measured > 0))).size:
            g = lost[0]
            yield (
                f"{lost.size} stretches are in no row although they fit one, the first places"
                f" {gap_start[g]}:{gap_stop[g]} of sample {gap_sample[g] + first}"
            )


def _gaps(
    places: np.ndarray, sample: np.ndarray, start: np.ndarray, stop: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(sample, start, stop) of every stretch of places in no entry; entries ordered by (sample, start)."""
    all_samples = np.arange(len(places))
    # A piece of nothing at either end of each sample, so that a gap lies between two neighbours.
    samples = np.concatenate([sample, all_samples, all_samples])
    starts = np.concatenate([start, np.zeros_like(places), places])
    stops = np.concatenate([stop, np.zeros_like(places), places])
    order = np.lexsort((stops, starts, samples))
    samples, starts, stops = samples[order], starts[order], stops[order]
    gap = np.flatnonzero((samples[1:] == samples[:-1]) & (starts[1:] > stops[:-1]))
    return samples[gap], stops[gap], starts[gap + 1]


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
