"""Mixture: sources with token weights, and which source each row comes from (docs/format.md, "Mixture and schedule").

Integers only. Among the first t rows of a stage each source has a count that never goes back, is its share to within
one row a level of the chain, and inverts: `Shares.pick(t)` and `Shares.place(source, i)` are inverses of one another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from itertools import pairwise
from typing import Any

from mmdata.errors import UserError

SHARE_BITS = 32  # row weights are integers of sum 2^32
_MOST_DIGITS = 400  # before or after the point of a weight; every float has less


@dataclass(frozen=True, eq=False)
class Mixture:
    """Named sources with weights by tokens. Without weights: each source by the tokens it has."""

    sources: Mapping[str, Any]  # name -> folder DIR/<source>, or an opened source
    weights: Mapping[str, Any] | None = field(default=None)  # name -> exact decimal (int, float, str, Decimal)

    def __post_init__(self) -> None:
        if not isinstance(self.sources, Mapping) or not self.sources:
            raise UserError("a mixture needs at least one source: Mixture({'web': 'DIR/web'})")
        if self.weights is None:
            return
        if not isinstance(self.weights, Mapping):
            raise UserError(f"weights are {self.weights!r}: give one by name, such as {{'web': 0.7, 'speech': 0.3}}")
        unknown, missing = set(self.weights) - set(self.sources), set(self.sources) - set(self.weights)
        if unknown or missing:
            known = sorted(self.sources)
            if unknown:
                raise UserError(f"weights name {sorted(unknown)[0]!r}, no source of the mixture; it has {known}")
            raise UserError(f"no weight for {sorted(missing)[0]!r}: give each of {known} one (0 leaves it out)")
        if not sum(exact(w, name) for name, w in self.weights.items()):
            raise UserError(f"all weights are 0: {dict(self.weights)}; give one source of the mixture a positive one")


def exact(value: Any, name: str = "", what: str = "the weight") -> Fraction:
    """A weight (or another number of a source) as the decimal that was written: 0.7 is 7/10. UserError where it is
    negative or no number."""
    try:
        number = value if isinstance(value, Fraction) else Decimal(str(value))
        if isinstance(number, Decimal) and abs(number.adjusted()) > _MOST_DIGITS:  # 1e999999999 takes all memory
            raise ValueError
        fraction = Fraction(number)
    except (InvalidOperation, ValueError, OverflowError):
        fraction = Fraction(-1)
    if fraction < 0:
        raise UserError(f"{what} of {name!r} is {value!r}: use a number of 0 or more, such as 0.7")
    return fraction


def row_weights(
    weights: Sequence[Fraction], tokens: Sequence[int], rows: Sequence[int], names: Sequence[str] = ()
) -> list[int]:
    """Integers of sum 2^32 in proportion to weight / (mean tokens a row), for sources in their order.

    Each is a difference of the running sums, scaled and rounded half to even, so the sum is exact. A positive weight
    which becomes 0 is refused.
    """
    shares = [w * Fraction(r, t) if w else Fraction(0) for w, t, r in zip(weights, tokens, rows)]
    total = sum(shares, Fraction(0))
    ends, running = [0], Fraction(0)
    for share in shares:
        running += share
        ends.append(round(running / total * (1 << SHARE_BITS)))  # Fraction rounds half to even
    whole = [b - a for a, b in pairwise(ends)]
    for number, (share, weight) in enumerate(zip(shares, whole)):
        if share and not weight:
            name = f" of {names[number]!r}" if names else ""
            raise UserError(
                f"the weight{name} is {float(weights[number])}, below 1 row in 2^{SHARE_BITS}: use 0 or a larger one"
            )
    return whole


@dataclass(frozen=True)
class Shares:
    """Nested two-way Beatty splits over a left chain: level k parts source k from the sources before it."""

    weights: tuple[int, ...]  # integers, in the order of the sources' fingerprints
    sums: tuple[int, ...] = field(init=False, default=())  # sums[k] = weights[0] + ... + weights[k]

    def __post_init__(self) -> None:
        sums, running = [], 0
        for weight in self.weights:
            running += weight
            sums.append(running)
        object.__setattr__(self, "sums", tuple(sums))

    def counts(self, t: int) -> list[int]:
        """How many of the first t rows come from each source."""
        out = [0] * len(self.weights)
        for k in range(len(self.weights) - 1, 0, -1):
            left = t * self.sums[k - 1] // self.sums[k] if self.sums[k] else 0
            out[k], t = t - left, left
        out[0] = t
        return out

    def pick(self, t: int) -> tuple[int, int]:
        """(source, how many of its rows came before) of row t."""
        for k in range(len(self.weights) - 1, 0, -1):
            a, total = self.sums[k - 1], self.sums[k]
            left = t * a // total
            if (t + 1) * a // total == left:  # the left part gains nothing at t: the row is source k's
                return k, t - left
            t = left
        return 0, t

    def place(self, source: int, i: int) -> int:
        """The row t at which row i of a source comes: `pick(place(k, i)) == (k, i)`."""
        if not self.weights[source]:
            raise ValueError(f"source {source} has weight 0: none of its rows comes")
        t = i
        if source:
            t = t * self.sums[source] // self.weights[source]
        for k in range(source + 1, len(self.weights)):
            a, total = self.sums[k - 1], self.sums[k]
            t = -(-(t + 1) * total // a) - 1
        return t
