"""Vocabulary: ordered, gap-free ranges of ids, so that no id is ever a literal in code.

The order is fixed: text, control, size, time, then one range a codebook of each codec by (kind number, codec name, k),
those that a run began with before those it learnt of later (`tokenizer.layout.bind`, `first`): a range that is appended
moves no id. The control range is wider than its names, so that a name appended to a layout moves none either. The
total is rounded up to a multiple for sharding; what lies past the last range is never rendered.
A *group* names adjacent ranges together: "time" is time_hi and time_lo, "image-fsq16@1" all its codebooks.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class IdRange:
    """Ids start .. start + size of one name; `labels` are the meanings of the first of them, where they have names."""

    name: str
    group: str
    start: int
    size: int
    labels: tuple[str, ...] = ()

    @property
    def stop(self) -> int:
        return self.start + self.size


@dataclass(frozen=True)
class Vocabulary:
    """All ranges of a bound layout; `vocabulary["control"]` is a Python range, `size` the aligned total.

    aliases: controls whose id lies in the text range, where the text codec has a special token of that name.
    """

    ranges: tuple[IdRange, ...]
    size: int
    aliases: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(
        cls,
        parts: Sequence[tuple[str, str, int, tuple[str, ...]]],
        multiple: int = 128,
        aliases: Mapping[str, int] | None = None,
    ) -> Vocabulary:
        """From (name, group, size, labels) in order.

        [("text", "text", 300, ()), ("control", "control", 8, ("<pad>",))] -> text 0..300, control 300..308, size 384
        """
        names = [name for name, _, _, _ in parts]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two ranges have the name {twice[0]!r}; give one of them another name")
        ranges, start = [], 0
        for name, group, size, labels in parts:
            if len(labels) > size:
                raise ValueError(
                    f"range {name!r} has {len(labels)} names for {size} ids; make it at least {len(labels)}"
                )
            ranges.append(IdRange(name, group, start, size, tuple(labels)))
            start += size
        return cls(tuple(ranges), -(-start // multiple) * multiple, tuple((aliases or {}).items()))

    def __getitem__(self, name: str) -> range:
        """Ids of a range or of a group."""
        found = [r for r in self.ranges if r.name == name] or [r for r in self.ranges if r.group == name]
        if not found:
            known = [r.name for r in self.ranges]
            near = difflib.get_close_matches(name, known, 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(f"no range {name!r} in this vocabulary{hint}, which has {known}")
        return range(found[0].start, found[-1].stop)

    def __contains__(self, name: str) -> bool:
        return any(name in (r.name, r.group) for r in self.ranges)

    def id_of(self, range_name: str, label: str) -> int:
        """The id of a name in a range: id_of("control", "<bos>")."""
        ids = self[range_name]
        labels = next(r.labels for r in self.ranges if r.start == ids.start and r.name == range_name)
        if range_name == "control" and label in dict(self.aliases):
            return dict(self.aliases)[label]
        if label not in labels:
            raise ValueError(f"no {label!r} in range {range_name!r}, which has {list(labels)}")
        return ids.start + labels.index(label)

    def describe(self, id: int) -> tuple[str, str]:
        """(range name, meaning) of an id; ("unused", ...) past the last range and for ids outside the vocabulary."""
        for name, alias in self.aliases:
            if id == alias:
                return "control", name
        for r in self.ranges:
            if r.start <= id < r.stop:
                local = id - r.start
                return r.name, r.labels[local] if local < len(r.labels) else f"{local}"
        where = "padding of the vocabulary" if 0 <= id < self.size else "outside the vocabulary"
        return "unused", where

    def mask(self, *names: str) -> np.ndarray:  # bool [size]
        """True for ids of the named ranges or groups: text-only sampling cannot leak image ids."""
        mask = np.zeros(self.size, bool)
        for name in names:
            ids = self[name]
            mask[ids.start : ids.stop] = True
        for _, id in self.aliases:  # a control, wherever it lies
            mask[id] = "control" in names
        return mask

    def range_index(self, ids: np.ndarray) -> np.ndarray:  # int32 [n]
        """Which range each id is in (an index into `ranges`), -1 where in none."""
        stops = np.array([r.stop for r in self.ranges], np.int64)
        index = np.searchsorted(stops, ids, side="right").astype(np.int32)
        index[(ids < 0) | (index >= len(self.ranges))] = -1
        return index
