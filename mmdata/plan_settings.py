"""What decides a plan beside the source: its settings, and the fingerprint that names it (docs/format.md, "Plan")."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mmdata.errors import UserError
from mmdata.manifest import canonical_json

PLAN_VERSIONS = (1, 2)
LIMITS = ("tokens", "images", "frames", "audio_seconds")


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
    version: int = 2  # 2 also cuts documents that are longer than a row so that they fill gaps

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
        if not 0 <= self.split_share <= 1:
            raise UserError(f"split_share is {self.split_share}: use a share of the documents, such as 0.02")
        object.__setattr__(self, "split_share", float(self.split_share))
        if self.version not in PLAN_VERSIONS:
            raise UserError(f"plan version {self.version} is not one that this mmdata packs: use {PLAN_VERSIONS[-1]}")
        if self.version == 1 and self.split_share:
            raise UserError(f"split_share is {self.split_share}: version 1 splits no document that fits, use version 2")

    @property
    def capacity(self) -> int:
        """Tokens of a row that may be filled."""
        return min(self.seq_len, int(self.limits.get("tokens", self.seq_len)))

    def to_json(self) -> dict[str, Any]:
        """Plain values; a limit that is a whole number is an integer, so that 16 and 16.0 are one plan."""
        given = {k: float(self.limits[k]) for k in LIMITS if k in self.limits}
        return {**asdict(self), "limits": {k: int(v) if v.is_integer() else v for k, v in given.items()}}


def plan_fingerprint(settings: PlanSettings, source: str, split: str) -> str:
    """Hex sha256 of the canonical JSON of settings, source fingerprint and split: the name of the plan's file."""
    return hashlib.sha256(canonical_json({"plan": settings.to_json(), "source": source, "split": split})).hexdigest()
