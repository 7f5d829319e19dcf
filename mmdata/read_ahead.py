"""Batches of coming steps, made by Grain in threads of this process; the one home of Grain in the Loader.

Grain's machinery costs some 90 microseconds an element, of whatever size, which is a third of what making a usual batch
costs: an element is a run of steps, as many as a few megabytes hold.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from mmdata.batch import Batch

if TYPE_CHECKING:
    from mmdata.loader import Loader

FOREVER = 1 << 60  # steps of an endless stream, as Grain asks for a length
_RUN_BYTES = 12 << 20  # of batches made in one go
_MOST_STEPS = 8


def steps_a_run(batch_bytes: int) -> int:
    """How many steps are made in one go."""
    return max(1, min(_MOST_STEPS, _RUN_BYTES // max(batch_bytes, 1)))


class StepSource:
    """A random-access source for Grain: element i is the batch of step start + i."""

    def __init__(self, loader: Loader, start: int, decides: bool = True) -> None:
        """`decides`: whether the Loader may leave out what cannot be read."""
        self._loader, self.start = loader, start
        self._read = loader.batch_at if decides else loader.read

    def __len__(self) -> int:
        return (self._loader.num_steps or FOREVER) - self.start

    def __getitem__(self, i: int) -> Batch:
        return self._read(self.start + int(i))

    def __repr__(self) -> str:
        return f"StepSource({self._loader!r}, start={self.start})"


class Threads:
    """Grain's read-ahead. Used from one thread."""

    def __init__(self, loader: Loader, steps: int) -> None:
        """`steps`: of a run."""
        self._loader, self._steps = loader, steps
        self._iterator: Any = None  # of the runs that follow what is made
        self._runs: _Runs | None = None  # what it iterates over
        self._made: deque[Batch | Exception] = deque()  # from step `_next` on
        self._next = -1

    def batch(self, step: int) -> Batch:
        """The batch of a step, while those after it are made; an exception that it raised."""
        if self._iterator is None or step != self._next:
            self.drop()
            self._iterator, self._next = self._runs_from(step), step
        if not self._made:
            try:
                self._made.extend(next(self._iterator))
            except BaseException:  # Ctrl-C: Grain has passed that run, so read ahead from it afresh
                self.drop()
                raise
        made = self._made.popleft()
        if isinstance(made, Exception):
            self.drop()
            raise made
        self._next = step + 1
        return made

    def drop(self) -> None:
        """Make none of the steps that are not begun."""
        iterator, self._iterator = self._iterator, None
        self._made.clear()
        if self._runs is not None:
            self._runs.dropped = True
        if iterator is not None and hasattr(iterator, "close"):
            iterator.close()

    close = drop

    def _runs_from(self, step: int) -> Any:
        import grain

        threads, ahead = self._loader.threads, -(-self._loader.read_ahead // self._steps)
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(ahead, threads))
        self._runs = _Runs(StepSource(self._loader, step, decides=False), self._steps)
        return iter(grain.MapDataset.source(self._runs).to_iter_dataset(options))


class _Runs:
    """The random-access source of runs of steps: element i is the batches of steps i * n to (i + 1) * n of `source`,
    and in place of the first that could not be made, its exception."""

    def __init__(self, source: StepSource, steps: int) -> None:
        self._source, self._steps = source, steps
        self.dropped = False  # nobody takes what is made from now on: Grain's threads go on with what they have begun

    def __len__(self) -> int:
        return -(-len(self._source) // self._steps)

    def __getitem__(self, i: int) -> list[Batch | Exception]:
        made: list[Batch | Exception] = []
        for step in range(int(i) * self._steps, min((int(i) + 1) * self._steps, len(self._source))):
            if self.dropped:
                break
            try:
                made.append(self._source[step])
            except Exception as error:  # raised to whoever asks for that step
                made.append(error)
                break
        return made

    def __repr__(self) -> str:
        return f"runs of {self._steps} steps of {self._source!r}"
