"""Schedule: stages of mixtures by step, and the row of which source is at (step, row), forwards and back.

Each stage counts its rows from its own first step; each source, named by its fingerprint, goes on from where the
stages before left it (docs/format.md, "Mixture and schedule"). So a past never changes: stages may be appended, and
new data joins as a new source.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import inf
from numbers import Integral

import numpy as np

from mmdata.errors import UserError
from mmdata.mixture import Mixture, Shares, exact


@dataclass(frozen=True, eq=False)
class Stage:
    """From `from_step` on, batches of `batch_size` rows (of all hosts together) from this mixture.

    max_epochs: source name -> most epochs of it over the whole schedule, earlier stages counted. A cap holds from its
        stage on, until a later stage gives another; `math.inf` lifts it
    """

    from_step: int
    mixture: Mixture
    batch_size: int
    max_epochs: Mapping[str, int | float] | None = None

    def __post_init__(self) -> None:
        for name, least in (("from_step", 0), ("batch_size", 1)):
            value = getattr(self, name)
            if not isinstance(value, Integral) or value < least:
                raise UserError(
                    f"a stage has from_step {self.from_step} and batch_size {self.batch_size}: use whole numbers,"
                    " from_step 0 or more, batch_size 1 or more"
                )
        unknown = set(self.max_epochs or {}) - set(self.mixture.sources)
        if unknown:
            raise UserError(
                f"max_epochs names {sorted(unknown)[0]!r}, which is no source of the stage from step {self.from_step};"
                f" its sources are {sorted(self.mixture.sources)}"
            )
        _ = self.caps  # refuses what is no number

    @property
    def caps(self) -> dict[str, Fraction | None]:
        """`max_epochs` as exact numbers; None where a cap is lifted."""
        given = self.max_epochs or {}
        return {
            name: None if isinstance(cap, float) and cap == inf else exact(cap, name, "max_epochs")
            for name, cap in given.items()
        }


@dataclass(frozen=True, eq=False)
class Schedule:
    """Stages in the order of their first steps; the first begins at step 0."""

    stages: Sequence[Stage]

    def __post_init__(self) -> None:
        steps = [stage.from_step for stage in self.stages]
        if not steps or steps[0] != 0 or steps != sorted(set(steps)):
            raise UserError(f"the stages begin at steps {steps}: begin at step 0 and go up, each step once")


@dataclass(frozen=True)
class StagePlan:
    """One stage in numbers: sources by their place in `Timeline.fingerprints`, in ascending fingerprint order."""

    from_step: int
    batch_size: int
    sources: tuple[int, ...]
    shares: Shares


@dataclass(frozen=True)
class Timeline:
    """The arithmetic of a schedule: (step, row) <-> (source, number of the row in that source's whole past)."""

    stages: tuple[StagePlan, ...]
    num_sources: int
    bases: tuple[tuple[int, ...], ...] = field(init=False, default=())  # rows of each source before each stage

    def __post_init__(self) -> None:
        bases = [(0,) * self.num_sources]
        for stage, following in zip(self.stages, self.stages[1:]):
            rows = (following.from_step - stage.from_step) * stage.batch_size
            bases.append(self._after(stage, bases[-1], rows))
        object.__setattr__(self, "bases", tuple(bases))

    def stage_at(self, step: int) -> int:
        """The number of the stage which step belongs to."""
        return bisect_right([stage.from_step for stage in self.stages], step) - 1

    def pick(self, step: int, row: int) -> tuple[int, int]:
        """(source, its row number) at a row of a step's global batch."""
        number = self.stage_at(step)
        stage = self.stages[number]
        k, i = stage.shares.pick((step - stage.from_step) * stage.batch_size + row)
        return stage.sources[k], self.bases[number][stage.sources[k]] + i

    def place(self, source: int, number: int) -> tuple[int, int] | None:
        """(step, row) at which a source's row number comes; None if no stage reaches it."""
        for s, stage in enumerate(self.stages):
            last = s + 1 == len(self.stages)
            if (not last and self.bases[s + 1][source] <= number) or source not in stage.sources:
                continue
            k = stage.sources.index(source)
            if not stage.shares.weights[k]:
                continue
            step, row = divmod(stage.shares.place(k, number - self.bases[s][source]), stage.batch_size)
            return stage.from_step + step, row
        return None

    def runs(self, step: int, num_steps: int) -> Iterator[tuple[int, int, int]]:
        """(stage, first step, number of steps) of each stage's part of num_steps steps from `step` on."""
        end, number = step + num_steps, self.stage_at(step)
        while step < end:
            last = number + 1 == len(self.stages)
            until = end if last else min(end, self.stages[number + 1].from_step)
            yield number, step, until - step
            step, number = until, number + 1

    def picks(self, number: int, step: int, num_steps: int, rows: range) -> tuple[np.ndarray, np.ndarray]:
        """`pick` of `rows` of each of num_steps steps from `step` on, all of stage `number`: (source int32, row number
        int64), [num_steps * len(rows)] each, step by step."""
        from mmdata import arithmetic

        stage, bases = self.stages[number], self.bases[number]
        first = (step - stage.from_step) * stage.batch_size
        if sum(bases) + first + num_steps * stage.batch_size > arithmetic.MAX_ROW:
            raise UserError(f"no step {step + num_steps - 1}: all rows up to it are more than 2^62; use an earlier one")
        if stage.shares.sums[-1] <= arithmetic.MAX_SUM:
            sums, sources = np.array(stage.shares.sums, np.uint64), np.array(stage.sources, np.int64)
            start, size = first + rows.start, stage.batch_size
            return arithmetic.pick(sums, sources, np.array(bases, np.int64), start, size, len(rows), num_steps)
        found = [self.pick(step + s, row) for s in range(num_steps) for row in rows]
        return np.array([f[0] for f in found], np.int32), np.array([f[1] for f in found], np.int64)

    def places(self, source: int, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # int64 [m]
        """`place` of row numbers of one source: (step, row) int64 [m] each, -1 where no stage reaches it."""
        from mmdata import arithmetic

        steps, rows = np.full(len(numbers), -1, np.int64), np.full(len(numbers), -1, np.int64)
        of = np.searchsorted([base[source] for base in self.bases], numbers, side="right") - 1
        for s in np.unique(of).tolist():
            stage, base = self.stages[s], self.bases[s][source]
            k = stage.sources.index(source) if source in stage.sources else -1
            if k < 0 or not stage.shares.weights[k]:
                continue
            mine = np.flatnonzero(of == s)
            if stage.shares.sums[-1] <= arithmetic.MAX_SUM:
                t = arithmetic.place(np.array(stage.shares.sums, np.uint64), k, numbers[mine] - base)
            else:
                t = np.array([stage.shares.place(k, i - base) for i in numbers[mine].tolist()], np.int64)
            mine, t = mine[t >= 0], t[t >= 0]
            steps[mine], rows[mine] = stage.from_step + t // stage.batch_size, t % stage.batch_size
        return steps, rows

    def counts(self, step: int) -> tuple[int, ...]:
        """How many rows of each source all batches before `step` hold."""
        return self.counts_in(self.stage_at(step), step)

    def counts_in(self, number: int, end: int) -> tuple[int, ...]:
        """The same at a step `end` which stage `number` reaches, or at which it ends."""
        stage = self.stages[number]
        return self._after(stage, self.bases[number], (end - stage.from_step) * stage.batch_size)

    def _after(self, stage: StagePlan, base: tuple[int, ...], rows: int) -> tuple[int, ...]:
        out = list(base)
        for source, count in zip(stage.sources, stage.shares.counts(rows)):
            out[source] += count
        return tuple(out)
