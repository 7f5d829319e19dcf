"""Windows of whole shards, packed one at a time from the catalog, and the report that is added up from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmdata.errors import UserError
from mmdata.packing import in_rows, pack
from mmdata.pieces import NO_LIMIT, Packable, Pieces, costs_of, pieces_of_window, places_of
from mmdata.plan_settings import PlanSettings
from mmdata.pouring import packed_and_poured

_EXAMPLES = 5  # of what was left out, in the report
_KINDS = ("text", "image", "audio", "video")


@dataclass(frozen=True, eq=False)
class PackedWindow:
    """The rows of one window. Samples are numbers in the split."""

    entries: Pieces  # row by row, in a row by (sample, start)
    row_sizes: np.ndarray  # int64 [r], entries of each row
    left_out: Pieces
    codes: Mapping[str, int]  # by kind, of what is in the rows
    record_bytes: int  # of all its samples
    samples: int
    fitting: int  # documents that would fit a row
    split: int  # documents in more than one piece
    split_fitting: int  # of those, documents that would fit a row


def packed_windows(source: Any, split: str, layout: Any, settings: PlanSettings) -> Iterator[PackedWindow]:
    """The windows of a source's split, in their order; `layout` is bound. UserError where something fits no row and
    `too_long` is "error"."""
    data = source.splits[split]
    rates = {codec.name: codec.rate for codec in source.codecs}
    edges = window_edges(data, settings)
    for first, last in zip(edges.tolist(), edges[1:].tolist()):
        packable = Packable(data.item_table(first, last), layout, settings.capacity, limits_of(settings), rates)
        record_bytes = int(data.catalog(["record_bytes"], first, last).column("record_bytes").to_numpy().sum())
        window = _pack_window(packable, first, settings, record_bytes)
        if settings.too_long == "error" and len(window.left_out):
            raise UserError(_too_long(data, window.left_out, settings))
        yield window


def window_edges(data: Any, settings: PlanSettings) -> np.ndarray:  # int64 [w+1]
    """The first sample of each window, and the number of samples."""
    bounds = np.asarray(data.shard_bounds, np.int64)
    return np.append(bounds[: -1 : settings.window_shards], bounds[-1]) if len(bounds) > 1 else np.zeros(1, np.int64)


def limits_of(settings: PlanSettings) -> np.ndarray:
    """int64 [3]: images, frames, milliseconds of sound; NO_LIMIT where there is no limit."""
    scale = {"images": 1, "frames": 1, "audio_seconds": 1000}
    given = settings.limits
    return np.array([round(given[k] * s) if k in given else NO_LIMIT for k, s in scale.items()], np.int64)


def _pack_window(window: Packable, first: int, settings: PlanSettings, record_bytes: int) -> PackedWindow:
    pieces, left_out = pieces_of_window(window)
    whole = (pieces.start == 0) & (pieces.stop == places_of(window.table)[pieces.sample])
    fits = np.bincount(pieces.sample[whole], minlength=len(window.table)) > 0
    if settings.version == 1:
        row = pack(pieces.length, settings.capacity, window.costs(pieces), window.most)
    else:
        pieces, row = packed_and_poured(window, pieces, whole, int(settings.split_share * int(whole.sum())))
    _, codes = costs_of(window.layout, window.table, pieces.sample, pieces.start, pieces.stop, window.rates)
    order, row_sizes = in_rows(row)  # pieces are in the order of samples and places; so are a row's entries
    split = np.bincount(pieces.sample, minlength=len(window.table)) > 1
    return PackedWindow(
        entries=_numbered(pieces, first)[order],
        row_sizes=row_sizes,
        left_out=_numbered(left_out, first),
        codes=codes,
        record_bytes=record_bytes,
        samples=len(window.table),
        fitting=int(fits.sum()),
        split=int(split.sum()),
        split_fitting=int((split & fits).sum()),
    )


def _numbered(pieces: Pieces, first: int) -> Pieces:
    return Pieces(pieces.sample + first, pieces.start, pieces.stop, pieces.length)


@dataclass(eq=False)
class Totals:
    """What the windows so far add up to."""

    settings: PlanSettings
    windows: int = 0
    samples: int = 0
    rows: int = 0
    entries: int = 0
    tokens: int = 0
    record_bytes: int = 0
    codes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_KINDS, 0))
    split: int = 0
    split_fitting: int = 0
    largest_share: float = 0.0  # of a window's documents that would fit a row, split
    last_rows: int = 0  # padding of the last row of each window
    left_out_documents: int = 0
    left_out_tokens: int = 0
    left_out_parts: int = 0
    examples: list[Pieces] = field(default_factory=list)

    def add(self, window: PackedWindow) -> None:
        """Count a window in."""
        self.windows += 1
        self.samples += window.samples
        self.rows += len(window.row_sizes)
        self.entries += len(window.entries)
        self.tokens += int(window.entries.length.sum(dtype=np.int64))
        self.record_bytes += window.record_bytes
        for kind, count in window.codes.items():
            self.codes[kind] += count
        self.split += window.split
        self.split_fitting += window.split_fitting
        self.largest_share = max(self.largest_share, window.split_fitting / max(window.fitting, 1))
        if len(window.row_sizes):
            last = window.entries.length[-int(window.row_sizes[-1]) :]
            self.last_rows += self.settings.seq_len - int(last.sum(dtype=np.int64))
        if len(window.left_out):
            self.left_out_documents += len(np.unique(window.left_out.sample))
            self.left_out_tokens += int(window.left_out.length.sum(dtype=np.int64))
            self.examples += [window.left_out] if self.left_out_parts < _EXAMPLES else []
            self.left_out_parts += len(window.left_out)

    def report(self, data: Any) -> dict[str, Any]:
        """The plan in numbers, plain JSON values."""
        room = self.rows * self.settings.seq_len
        shown = Pieces.joined(self.examples)[: min(_EXAMPLES, self.left_out_parts)]
        return {
            "samples": self.samples,
            "windows": self.windows,
            "rows": self.rows,
            "entries": self.entries,
            "tokens": self.tokens,
            "fill": round(self.tokens / room, 6) if room else 0.0,
            "waste": {"last_rows": self.last_rows, "other_rows": room - self.tokens - self.last_rows},
            "codes": self.codes,
            "record_bytes": self.record_bytes,
            "split": {
                "documents": self.split,
                "would_fit_a_row": self.split_fitting,
                "largest_share": round(self.largest_share, 6),
            },
            "left_out": {
                "parts": self.left_out_parts,
                "documents": self.left_out_documents,
                "tokens": self.left_out_tokens,
                "examples": [_example(data, shown, n) for n in range(len(shown))],
            },
        }


def _example(data: Any, lost: Pieces, n: int) -> dict[str, Any]:
    sample, start, stop, tokens = (int(a[n]) for a in (lost.sample, lost.start, lost.stop, lost.length))
    (found,) = data.catalog(["id", "uri"], sample, sample + 1).to_pylist()
    return {**found, "sample": sample, "start": start, "stop": stop, "tokens": tokens}


def _too_long(data: Any, lost: Pieces, settings: PlanSettings) -> str:
    example = _example(data, lost, 0)
    return (
        f"document {example['id']} ({example['uri']}) has a part of {example['tokens']} tokens (places"
        f" {example['start']}:{example['stop']}) that fits no row of {settings.capacity} within the limits"
        f" {dict(settings.limits)}: raise seq_len or the limit, or set too_long = 'leave_out'"
    )
