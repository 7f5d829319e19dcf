"""What a rule says of a document or a part: what was measured, the value, the limit, and whether it is kept.

Bad data is a verdict, never an exception: a rule whose measure does not exist (the mean length of no words) says
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """One rule on one document or part. `rule` is the reason in the ledger where it is not kept."""

    rule: str  # fixed words: "gopher: too few words"
    value: float | str
    limit: float | str
    kept: bool
    bound: str  # "at least", "at most", "none of", "one of"

    @property
    def detail(self) -> str:
        """
        >>> at_least("gopher: too few words", 12, 50).detail
        '12, at least 50'
        """
        return f"{_number(self.value)}, {self.bound} {_number(self.limit)}"


def at_least(rule: str, value: float, limit: float) -> Measure:
    return Measure(rule, value, limit, value >= limit, "at least")


def at_most(rule: str, value: float, limit: float) -> Measure:
    return Measure(rule, value, limit, value <= limit, "at most")


def share(part: float, whole: float) -> float:
    """part / whole; 0 of nothing."""
    return part / whole if whole else 0.0


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}" if value != int(value) else f"{value:,.0f}"
