"""Where the CPU time of a unit goes: decoding and codecs, by kind.

Decoding runs in threads beside the codec on one core, so the clock on the wall would count what each waits for the
other: a step in a thread is timed by that thread's own CPU clock, and a call of a codec (whose network runs in threads
of XLA's) by the CPU clock of the process less what the threads that decode took meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Spent:
    """CPU seconds by step since `begin`, of one unit at a time: a worker runs no more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._beside: list[int] = []  # CPU clocks of the threads that decode

    def begin(self) -> None:
        with self._lock:
            self._seconds.clear()
            self._beside.clear()

    def join(self) -> None:
        """Said by a thread that works beside the codec: its time is none of the codec's."""
        if hasattr(time, "pthread_getcpuclockid"):  # macOS has none: there the codec's seconds hold both
            clock = time.pthread_getcpuclockid(threading.get_ident())
            with self._lock:
                self._beside.append(clock)

    @contextmanager
    def in_thread(self, step: str) -> Iterator[None]:
        """What this thread does inside is of this step."""
        begun = time.thread_time()
        try:
            yield
        finally:
            self._add(step, time.thread_time() - begun)

    @contextmanager
    def in_process(self, step: str) -> Iterator[None]:
        """What this process does inside is of this step, but for the threads that joined."""
        begun = time.process_time() - self._others()
        try:
            yield
        finally:
            self._add(step, time.process_time() - self._others() - begun)

    def seconds(self) -> dict[str, float]:
        """By step, in the order of their names."""
        with self._lock:
            return {step: round(seconds, 4) for step, seconds in sorted(self._seconds.items())}

    def _add(self, step: str, seconds: float) -> None:
        with self._lock:
            self._seconds[step] += seconds

    def _others(self) -> float:
        total = 0.0
        for clock in self._beside:
            with suppress(OSError):  # a thread that has ended
                total += time.clock_gettime(clock)
        return total


SPENT = Spent()
