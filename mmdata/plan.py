"""The plan: how the samples of one split are packed into rows, as data (docs/format.md, "Plan").

Windows of whole shards are packed each by itself from the catalog's item tables; no code is read. Row k is data, not
the state of an iterator. A plan is cached under its fingerprint, and is the same on every machine.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.errors import RunError
from mmdata.plan_file import ARRAYS, open_plan, plan_writer
from mmdata.plan_settings import PlanSettings as PlanSettings
from mmdata.plan_settings import plan_fingerprint as plan_fingerprint
from mmdata.plan_windows import Totals, packed_windows, window_edges

Progress = Callable[[int, int], None]  # (windows done, windows)


@dataclass(frozen=True, eq=False)
class Plan:
    """Rows of entries: entry e is places start:stop of a sample, `length` tokens long at most."""

    settings: PlanSettings
    source: str  # fingerprint
    split: str
    windows: np.ndarray  # int64 [w+1], first row of each window
    rows: np.ndarray  # int64 [r+1], first entry of each row
    sample: np.ndarray  # int64 [e], number in the split
    start: np.ndarray  # int32 [e], place (tokenizer/item.py)
    stop: np.ndarray  # int32 [e]
    length: np.ndarray  # int32 [e], tokens in the longest form
    report: dict[str, Any]
    path: Path | None = None  # of the file that the arrays are views of

    @property
    def num_rows(self) -> int:
        return len(self.rows) - 1

    @property
    def num_tokens(self) -> int:
        return int(self.report["tokens"])

    @property
    def fingerprint(self) -> str:
        return plan_fingerprint(self.settings, self.source, self.split)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Another process opens the same file: a plan may be larger than its memory."""
        return super().__reduce_ex__(protocol) if self.path is None else (read_plan, (self.path,))


def plan_of(
    source: Any,
    split: str,
    layout: Any,
    settings: PlanSettings,
    progress: Progress | None = None,
) -> Plan:
    """The plan of a source's split: from the cache, or made (with `progress` as in `make_plan`) and put there."""
    name = f"{plan_fingerprint(settings, source.fingerprint, split)}.safetensors"
    paths = [folder / "plans" / name for folder in (source.folder, user_cache())]
    for path in paths:
        if path.is_file():
            return read_plan(path)
    source.files.fetch(shard.catalog for shard in source.splits[split].shards)
    for path in paths:
        try:
            return store_plan(path, source, split, layout, settings, progress)
        except (OSError, RunError):  # a dataset that is read-only, a full disk: a plan can be made again
            continue
    return make_plan(source, split, layout, settings, progress)


def make_plan(source: Any, split: str, layout: Any, settings: PlanSettings, progress: Progress | None = None) -> Plan:
    """Pack a split, window by window, in memory. `layout` is bound; `progress(done, windows)` is told how far it is."""
    parts: dict[str, list[np.ndarray]] = {name: [np.zeros(0, kind)] for name, kind in ARRAYS.items()}
    report = _pack(lambda name, values: parts[name].append(values), source, split, layout, settings, progress)
    arrays = {name: np.concatenate(parts[name]).astype(kind) for name, kind in ARRAYS.items()}
    return Plan(settings, source.fingerprint, split, report=report, path=None, **arrays)


def store_plan(
    path: Path, source: Any, split: str, layout: Any, settings: PlanSettings, progress: Progress | None = None
) -> Plan:
    """`make_plan` into a file, one window in memory at a time. RunError where it cannot be written."""
    with plan_writer(path) as writer:
        report = _pack(writer.append, source, split, layout, settings, progress)
        writer.finish(settings, source.fingerprint, split, report)
    return read_plan(path)


def write_plan(path: Path, plan: Plan) -> None:
    """The plan's file: safetensors, the arrays by name; settings, source, split and report as JSON in the header."""
    with plan_writer(path) as writer:
        for name in ARRAYS:
            writer.append(name, getattr(plan, name))
        writer.finish(plan.settings, plan.source, plan.split, plan.report)


def read_plan(path: Path) -> Plan:
    """A plan whose arrays are views of its file; UserError where it is of another version or damaged."""
    header, arrays = open_plan(path)
    settings = PlanSettings(**header["settings"])
    return Plan(settings, header["source"], header["split"], report=header["report"], path=path, **arrays)


def user_cache() -> Path:
    """Where plans of read-only datasets go: $MMDATA_CACHE, else mmdata/ in the user's cache folder."""
    if folder := os.environ.get("MMDATA_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmdata"


def _pack(
    append: Callable[[str, np.ndarray], None],
    source: Any,
    split: str,
    layout: Any,
    settings: PlanSettings,
    progress: Progress | None,
) -> dict[str, Any]:
    """Hand the arrays of each window to `append`; returns the report."""
    data, totals = source.splits[split], Totals(settings)
    num_windows = len(window_edges(data, settings)) - 1
    append("windows", np.zeros(1, np.int64))
    append("rows", np.zeros(1, np.int64))
    for window in packed_windows(source, split, layout, settings):
        append("rows", totals.entries + np.cumsum(window.row_sizes))
        totals.add(window)
        append("windows", np.array([totals.rows], np.int64))
        for name in ("sample", "start", "stop", "length"):
            append(name, getattr(window.entries, name))
        if progress:
            progress(totals.windows, num_windows)
    return totals.report(data)
