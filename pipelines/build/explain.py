"""Why units run again, and which ones would: what `mmdata build --explain` says without running any.

A unit that bears its fingerprint is done. Where one is not, what it will make is not known: what comes after it is
looked at as if it made what it made last time. What runs even so runs for certain; all else that comes after it runs
perhaps, if it makes something else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping

from pipelines.build.inputs import EVERY, INPUT, KnownInputs, Marker
from pipelines.build.report import StageReport
from pipelines.build.units import Unit, changed_limits, last_marker, read_marker

NEVER = "not done yet"
PERHAPS = "perhaps: if the stage before it makes something else than last time"
_SHARDS = "as many as its samples fill"
_BY_UNIT = ("ingest", "curate", "decontaminate", "sign", "encode")  # unit i of one reads what unit i before it made
_OUT_OF_SHARDS = ("write", "media", "finish")
_SHOWN = 2  # reasons of one stage

Known = Mapping[str, KnownInputs]  # by source


class Foresight:
    """Stands in for the running of stages: takes their units in order, and gives the markers that they are taken for.
    `follows`: the sources whose documents show other files; `keeps_media`: whether there is a stage of media."""

    def __init__(self, known: Known, follows: Container[str], keeps_media: bool) -> None:
        self.rows: list[StageReport] = []
        self._known, self._follows, self._keeps_media = known, follows, keeps_media
        self._open: dict[str, set[int]] = {}  # source -> ingest units from which on something runs, or might
        self._all_open: set[str] = set()  # sources of which all units are, by a stage over several sources

    def run(self, stage: str, units: dict[str, list[Unit]]) -> dict[str, list[Marker]]:
        """The markers of each owner's units: a source's, or those over several sources."""
        return {owner: self._of(stage, owner, row) for owner, row in units.items()}

    def _of(self, stage: str, owner: str, units: list[Unit]) -> list[Marker]:
        found, stale, perhaps = [], [], 0
        shards_unknown = stage in _OUT_OF_SHARDS and self._after(stage, owner, 0)
        for i, unit in enumerate(units):
            marker, after = read_marker(unit), self._after(stage, owner, i)
            if marker is None:
                stale.append(unit)
            elif after:
                perhaps += 1
            if marker is None or after:
                self._note(stage, owner, i)
            found.append(marker or last_marker(unit) or _unknown(unit))
        row = StageReport(stage, owner, len(units), len(stale), why_of(stale, self._known), maybe=perhaps)
        if shards_unknown and not units and (stage != "media" or self._keeps_media):
            row.units = row.stale = 1
            row.why = NEVER
        if shards_unknown and stage != "finish" and row.units:
            row.about = True
        row.why = "; ".join(filter(None, [row.why, PERHAPS if perhaps else "", _SHARDS if row.about else ""]))
        self.rows.append(row)
        return found

    def _after(self, stage: str, owner: str, i: int) -> bool:
        """Whether something that the unit reads is not known."""
        if stage in ("ingest", "benchmarks"):
            return False
        if stage == "dedup":
            return any(self._open.get(name) for name in (self._known if owner == EVERY else [owner]))
        if stage == "leftovers":
            return owner in self._follows and bool(self._open.get(owner))
        if owner in self._all_open or EVERY in self._all_open:
            return True
        found = self._open.get(owner, set())
        return i in found if stage in _BY_UNIT else bool(found)

    def _note(self, stage: str, owner: str, i: int) -> None:
        if stage in ("benchmarks", "dedup"):
            self._all_open.add(owner)
        elif stage != "leftovers":  # they lead to the ledger alone
            self._open.setdefault(owner, set()).add(i)


def why_of(stale: list[Unit], known: Known) -> str:
    """A line on why these units of one stage run: the most frequent reasons."""
    reasons = Counter(reason for unit in stale for reason in reasons_of(unit, known))
    shown = [reason for reason, _ in reasons.most_common(_SHOWN)]
    more = len(reasons) - len(shown)
    return "; ".join([*shown, *([f"and {more} more"] if more > 0 else [])])


def reasons_of(unit: Unit, known: Known) -> list[str]:
    """Why a unit that is not done runs: what has changed of that which decides it since it was done last."""
    last = last_marker(unit)
    if last is None or "decides" not in last:
        inputs = [word.removeprefix(INPUT) for word in unit.decides if word.startswith(INPUT)]
        if not inputs or not known[unit.source].begins:
            return [NEVER]
        new = [f"{path} is new" for path in inputs if path not in known[unit.source].paths]
        return new or [f"{inputs[0]} begins a unit now"]
    old, reasons = last["decides"], []
    for word in dict.fromkeys([*unit.decides, *old]):
        if old.get(word) != unit.decides.get(word):
            how = "changed" if word in unit.decides and word in old else _came_or_went(unit, word, known)
            reasons.append(f"{word.removeprefix(INPUT)} {how}")
    reasons += [f"limits.{name} changed, and something was left out" for name in changed_limits(unit, last)]
    return reasons or [NEVER]


def _came_or_went(unit: Unit, word: str, known: Known) -> str:
    if not word.startswith(INPUT):
        return "is new" if word in unit.decides else "is gone"
    if word not in unit.decides:
        return "is gone, or in another unit now"
    return "was in another unit" if word.removeprefix(INPUT) in known[unit.source].paths else "is new"


def _unknown(unit: Unit) -> Marker:
    """Of a unit that was never done."""
    return {"digest": f"unknown: {unit.key}", "counts": {}, "seconds": 0.0}
