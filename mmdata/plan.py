"""The plan: how the samples of one split are packed into rows, as data (docs/format.md, "Plan").

Windows of whole shards are packed each by itself from the catalog's item tables; no code is read. Row k is data, not
the state of an iterator. A plan is cached under its fingerprint, and is the same on every machine.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.commit import commit, temporary, writing
from mmdata.errors import RunError, UserError
from mmdata.manifest import canonical_json
from mmdata.packing import pack
from mmdata.pieces import Packable, costs_of, pieces_of_window

PLAN_VERSION = 1
LIMITS = ("tokens", "images", "frames", "audio_seconds")
_EXAMPLES = 5  # of what was left out, in the report
_ARRAYS = ("windows", "rows", "sample", "start", "stop", "length")
_HEADER = "mmdata"  # the one metadata key of the file: several would be written in any order


@dataclass(frozen=True)
class PlanSettings:
    """What decides a plan beside the source; part of a run's past. `limits`: most of each in one row."""

    layout: str  # digest of the bound layout
    seq_len: int
    window_shards: int = 2
    group_windows: int = 5
    limits: Mapping[str, int | float] = field(default_factory=dict)
    split_share: float = 0.0  # most documents, as a share, that may be split although they would fit a row
    too_long: str = "leave_out"  # what fits no row: "leave_out" or "error"
    version: int = PLAN_VERSION

    def __post_init__(self) -> None:
        for name in ("seq_len", "window_shards", "group_windows"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}: use 1 or more")
        if unknown := sorted(set(self.limits) - set(LIMITS)):
            raise UserError(f"no limit {unknown[0]!r} of a row; the limits are {list(LIMITS)}")
        if wrong := [name for name in self.limits if not 0 <= self.limits[name] < float("inf")]:
            raise UserError(f"limits[{wrong[0]!r}] is {self.limits[wrong[0]]}: use 0 or more")
        if self.too_long not in ("leave_out", "error"):
            raise UserError(f"too_long is {self.too_long!r}: use 'leave_out' or 'error'")
        if self.version != PLAN_VERSION:
            raise UserError(f"plan version {self.version} is not one that this mmdata packs: use {PLAN_VERSION}")
        if self.split_share != 0.0:
            raise UserError(f"split_share is {self.split_share}: version {self.version} splits no document that fits")

    @property
    def capacity(self) -> int:
        """Tokens of a row that may be filled."""
        return min(self.seq_len, int(self.limits.get("tokens", self.seq_len)))

    def to_json(self) -> dict[str, Any]:
        """Plain values; a limit that is a whole number is an integer, so that 16 and 16.0 are one plan."""
        given = {k: float(self.limits[k]) for k in LIMITS if k in self.limits}
        return {**asdict(self), "limits": {k: int(v) if v.is_integer() else v for k, v in given.items()}}


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

    @property
    def num_rows(self) -> int:
        return len(self.rows) - 1

    @property
    def num_tokens(self) -> int:
        return int(self.report["tokens"])

    @property
    def fingerprint(self) -> str:
        return plan_fingerprint(self.settings, self.source, self.split)


def plan_fingerprint(settings: PlanSettings, source: str, split: str) -> str:
    """Hex sha256 of the canonical JSON of settings, source fingerprint and split: the name of the plan's file."""
    return hashlib.sha256(canonical_json({"plan": settings.to_json(), "source": source, "split": split})).hexdigest()


def plan_of(
    source: Any,
    split: str,
    layout: Any,
    settings: PlanSettings,
    progress: Callable[[int, int], None] | None = None,
) -> Plan:
    """The plan of a source's split: from the cache, or made (with `progress` as in `make_plan`) and put there."""
    fingerprint = plan_fingerprint(settings, source.fingerprint, split)
    folders = [source.folder / "plans", user_cache() / "plans"]
    for folder in folders:
        path = folder / f"{fingerprint}.safetensors"
        if path.is_file():
            return read_plan(path)
    source.files.fetch(shard.catalog for shard in source.splits[split].shards)
    plan = make_plan(source, split, layout, settings, progress)
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_plan(folder / f"{fingerprint}.safetensors", plan)
            break
        except (OSError, RunError):  # a dataset that is read-only, a full disk: a plan can be made again
            continue
    return plan


def make_plan(
    source: Any,
    split: str,
    layout: Any,
    settings: PlanSettings,
    progress: Callable[[int, int], None] | None = None,
) -> Plan:
    """Pack a split, window by window. `layout` is bound; `progress(done, windows)` is told how far it is."""
    data = source.splits[split]
    bounds = np.asarray(data.shard_bounds, np.int64)
    edges = np.append(bounds[: -1 : settings.window_shards], bounds[-1]) if len(bounds) > 1 else np.zeros(1, np.int64)
    rates = {codec.name: codec.rate for codec in source.codecs}
    made = [_Made() for _ in edges[1:]]
    for number, (first, last) in enumerate(zip(edges.tolist(), edges[1:].tolist())):
        made[number] = _pack_window(data.item_table(first, last), first, layout, settings, rates)
        if settings.too_long == "error" and len(made[number].left_out):
            raise UserError(_too_long(data, made[number].left_out[0], settings))
        if progress:
            progress(number + 1, len(made))
    entries = [np.concatenate([np.zeros(0, np.int64), *(m.entries[:, c] for m in made)]) for c in range(4)]
    plan = Plan(
        settings=settings,
        source=source.fingerprint,
        split=split,
        windows=np.cumsum([0, *(len(m.row_sizes) for m in made)], dtype=np.int64),
        rows=np.cumsum(np.concatenate([[0], *(m.row_sizes for m in made)]), dtype=np.int64),
        sample=entries[0],
        start=entries[1].astype(np.int32),
        stop=entries[2].astype(np.int32),
        length=entries[3].astype(np.int32),
        report={},
    )
    plan.report.update(_report(plan, made, data))
    return plan


def write_plan(path: Path, plan: Plan) -> None:
    """The plan's file: safetensors, the arrays by name; settings, source, split and report as JSON in the header."""
    from safetensors.numpy import save

    header = {
        "version": plan.settings.version,
        "settings": plan.settings.to_json(),
        "source": plan.source,
        "split": plan.split,
        "report": plan.report,
    }
    arrays = {name: np.ascontiguousarray(getattr(plan, name)) for name in _ARRAYS}
    data = save(arrays, metadata={_HEADER: canonical_json(header).decode()})
    with writing(path):
        temporary(path).write_bytes(data)
    commit(temporary(path), path)


def read_plan(path: Path) -> Plan:
    """A plan from its file; UserError where it is of another version or damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads(file.metadata()[_HEADER])
            arrays = {name: file.get_tensor(name) for name in _ARRAYS}
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a plan ({error}): delete it, it is made again") from None
    if header["version"] != PLAN_VERSION:
        raise UserError(f"{path} is a plan of version {header['version']}, this mmdata reads {PLAN_VERSION}")
    settings = PlanSettings(**header["settings"])
    return Plan(settings, header["source"], header["split"], report=header["report"], **arrays)


def user_cache() -> Path:
    """Where plans of read-only datasets go: $MMDATA_CACHE, else mmdata/ in the user's cache folder."""
    if folder := os.environ.get("MMDATA_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmdata"


@dataclass(frozen=True, eq=False)
class _Made:
    """One packed window."""

    entries: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.int64))  # sample, start, stop, length
    row_sizes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # entries of each row
    left_out: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.int64))  # sample, start, stop, tokens
    codes: Mapping[str, int] = field(default_factory=dict)  # by kind, of what is in the rows
    samples: int = 0
    split_samples: int = 0  # documents in more than one piece


def _pack_window(table: Any, first: int, layout: Any, settings: PlanSettings, rates: Mapping[str, float]) -> _Made:
    limits = _limits(settings)
    window = Packable(table, layout, settings.capacity, limits, rates)
    pieces, left_out = pieces_of_window(window)
    costs, codes = costs_of(layout, table, pieces.sample, pieces.start, pieces.stop, rates)
    row = pack(pieces.length, settings.capacity, costs, limits)
    order = np.argsort(row, kind="stable")  # pieces are in the order of samples and places; so are a row's entries
    entries = np.stack([pieces.sample + first, pieces.start, pieces.stop, pieces.length], axis=1).astype(np.int64)
    lost = np.stack([left_out.sample + first, left_out.start, left_out.stop, left_out.length], axis=1).astype(np.int64)
    return _Made(
        entries=entries[order],
        row_sizes=np.bincount(row).astype(np.int64) if len(row) else np.zeros(0, np.int64),
        left_out=lost,
        codes=codes,
        samples=len(table),
        split_samples=int((np.bincount(pieces.sample) > 1).sum()) if len(row) else 0,
    )


def _limits(settings: PlanSettings) -> np.ndarray:
    """int64 [3]: images, frames, milliseconds of sound; the largest number where there is no limit."""
    most = np.iinfo(np.int64).max // 2
    scale = {"images": 1, "frames": 1, "audio_seconds": 1000}
    given = settings.limits
    return np.array([round(given[k] * s) if k in given else most for k, s in scale.items()], np.int64)


def _report(plan: Plan, made: list[_Made], data: Any) -> dict[str, Any]:
    """The plan in numbers, plain JSON values."""
    tokens, capacity = int(plan.length.sum(dtype=np.int64)), plan.num_rows * plan.settings.seq_len
    left_out = np.concatenate([np.zeros((0, 4), np.int64), *(m.left_out for m in made)])
    codes = {kind: sum(m.codes.get(kind, 0) for m in made) for kind in ("text", "image", "audio", "video")}
    return {
        "samples": sum(m.samples for m in made),
        "windows": len(made),
        "rows": plan.num_rows,
        "entries": len(plan.sample),
        "tokens": tokens,
        "fill": round(tokens / capacity, 6) if capacity else 0.0,
        "codes": codes,
        "split": {"documents": sum(m.split_samples for m in made)},
        "left_out": {
            "parts": len(left_out),
            "documents": len(np.unique(left_out[:, 0])),
            "tokens": int(left_out[:, 3].sum()),
            "examples": [_example(data, lost) for lost in left_out[:_EXAMPLES]],
        },
    }


def _example(data: Any, lost: np.ndarray) -> dict[str, Any]:
    sample, start, stop, tokens = (int(v) for v in lost)
    (found,) = data.catalog(["id", "uri"], sample, sample + 1).to_pylist()
    return {**found, "sample": sample, "start": start, "stop": stop, "tokens": tokens}


def _too_long(data: Any, lost: np.ndarray, settings: PlanSettings) -> str:
    example = _example(data, lost)
    return (
        f"document {example['id']} ({example['uri']}) has a part of {example['tokens']} tokens (places"
        f" {example['start']}:{example['stop']}) that fits no row of {settings.capacity} within the limits"
        f" {dict(settings.limits)}: raise seq_len or the limit, or set too_long = 'leave_out'"
    )
