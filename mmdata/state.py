"""Loader state: a small JSON in clear which says what a run's past was (docs/format.md, "Loader state").

`restore` compares it with the Loader's own past and refuses another one by naming the first difference. What lies
ahead may differ: later stages, epoch caps, data shards, threads, where the folders are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmdata.errors import UserError

STATE_VERSION = 1
WHOLE_SHARD = -1  # as a record's number


@dataclass(frozen=True, order=True)
class Quarantined:
    """A record left out from a step on: its span keeps its planned place as padding."""

    source: str  # name
    shard: str  # file name
    record: int  # in the shard; -1: all of them
    from_step: int = 0
    why: str = field(default="", compare=False)  # in words; no part of a state

    @classmethod
    def of(cls, value: Any) -> Quarantined:
        """From itself or its JSON form."""
        if isinstance(value, cls):
            return value
        try:
            where = str(value["source"]), str(value["shard"]), int(value["record"]), int(value.get("from_step", 0))
            return cls(*where, str(value.get("why", "")))
        except (TypeError, KeyError, ValueError, AttributeError):
            raise UserError(
                f"quarantine entry {value!r}: use {{'source': 'web', 'shard': FILE, 'record': 7, 'from_step': 0}}"
            ) from None

    @property
    def place(self) -> tuple[str, str, int]:
        """What is left out, whenever."""
        return self.source, self.shard, self.record

    @property
    def is_whole_shard(self) -> bool:
        return self.record == WHOLE_SHARD

    @property
    def what(self) -> str:
        """In words, without its source."""
        return f"shard {self.shard}" if self.is_whole_shard else f"record {self.record} of {self.shard}"

    def to_json(self) -> dict[str, Any]:
        """As a state keeps it."""
        return {"source": self.source, "shard": self.shard, "record": self.record, "from_step": self.from_step}


def make_state(
    step: int,
    seed: int,
    split: str,
    plan: Mapping[str, Any],
    stages: Sequence[Mapping[str, Any]],
    quarantine: Sequence[Quarantined],
) -> dict[str, Any]:
    """The state before `step`; only stages which have begun by then are part of it."""
    return {
        "version": STATE_VERSION,
        "step": step,
        "seed": seed,
        "split": split,
        "plan": dict(plan),
        "stages": [dict(stage) for stage in stages if stage["from_step"] < max(step, 1)],
        "quarantine": [entry.to_json() for entry in sorted(quarantine)],
    }


def check_same_past(theirs: Any, ours: Mapping[str, Any]) -> None:
    """UserError naming the first difference between a state and what this Loader would have saved at its step."""
    step = theirs.get("step") if isinstance(theirs, Mapping) else None
    if not isinstance(step, int) or isinstance(step, bool) or step < 0:
        raise UserError(f"this is no state of a Loader: {str(theirs)[:80]}")
    if theirs.get("version") != STATE_VERSION:
        raise UserError(f"the state has version {theirs.get('version')}, this mmdata reads {STATE_VERSION}")
    difference = _difference("", {**theirs, "quarantine": None}, {**ours, "quarantine": None})
    if difference:
        where, saved, here = difference
        raise UserError(
            f"the state has another past: {where} is {saved} in it and {here} here; give the Loader what the run had"
            " up to that step (new stages may only begin later), or start a new run"
        )


def merge_quarantine(theirs: Mapping[str, Any], ours: Sequence[Quarantined]) -> tuple[Quarantined, ...]:
    """What is left out after a restore: all of the state's, and ours where it begins at its step or later."""
    saved = {Quarantined.of(entry) for entry in theirs.get("quarantine") or ()}
    for entry in sorted(set(ours) - saved):
        if entry.from_step < theirs["step"]:
            raise UserError(
                f"the state has another past: {entry} is not left out in it before step {theirs['step']}; give it"
                f" from_step {theirs['step']} or later"
            )
    return tuple(sorted(saved | set(ours)))


def _difference(where: str, a: Any, b: Any) -> tuple[str, Any, Any] | None:
    """(path, a's value, b's value) of the first difference, in sorted order of keys; names of sources may differ."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in sorted(set(a) | set(b)):
            if key == "name":  # a source is its fingerprint
                continue
            path = f"{where}.{key}" if where else str(key)
            if key not in a or key not in b:
                return path, a.get(key, "missing"), b.get(key, "missing")
            if found := _difference(path, a[key], b[key]):
                return found
        return None
    if isinstance(a, list) and isinstance(b, list):
        if found := _other_source(where, a, b):
            return found
        for i, (x, y) in enumerate(zip(a, b)):
            if found := _difference(f"{where}[{i}]", x, y):
                return found
        if len(a) != len(b):
            return f"the number of {where}", len(a), len(b)
        return None
    return None if a == b else (where, a, b)


def _other_source(where: str, a: list[Any], b: list[Any]) -> tuple[str, Any, Any] | None:
    """The first difference of two stages' sources, by what the user calls them."""
    if not where.endswith(".sources") or not all(isinstance(s, Mapping) for s in [*a, *b]):
        return None
    theirs, ours = ({str(s.get("fingerprint")): str(s.get("name")) for s in side} for side in (a, b))
    lost = {name: print_ for print_, name in theirs.items() if print_ not in ours}
    new = {name: print_ for print_, name in ours.items() if print_ not in theirs}
    for name in sorted({*lost, *new}):
        if name in lost and name in new:
            return f"{where}: the fingerprint of {name!r}", lost[name][:12], new[name][:12]
        return f"{where}: source {name!r}", *(("there", "missing") if name in lost else ("missing", "there"))
    return None
