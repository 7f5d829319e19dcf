"""The local executor: worker processes under a supervisor that trusts none of them.

A worker that dies (a decoder's crash, the kernel's out-of-memory killer, `kill -9`), says nothing for too long or has
no memory left is replaced and its unit run again. A unit that keeps losing workers is run in isolation, one step at a
time; a step that even so loses its worker twice (a poison document) is then left out by the unit with the reason. Once
may be anybody's doing: the kernel's, short of memory, or an operator's.
What comes out never depends on which worker ran what. (`multiprocessing.Pool` loses the unit of a killed worker without
a word, and `ProcessPoolExecutor` fails the whole run.)
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import IO, Any

from mmdata.errors import RunError
from pipelines.build.worker import Call

DEATHS_BEFORE_ISOLATION = 2
DEATHS_OF_A_STEP = 2  # in isolation, before it is left out
STARTS = 3  # of one worker after the other, before it is taken that none can start
OUT_OF_MEMORY, NO_PROGRESS = "out of memory", "no progress"  # what the cause of a loss begins with
_MAX_POISON = 1000  # steps of one unit; more than that is no document's fault
_POLL_S = 0.2
_LONGEST_LOOK_S = 1.0  # what passes at most between two looks at the workers, as long as this process runs


@dataclass(frozen=True)
class Task:
    """One unit: a module-level function of a `Call`, and its arguments; both travel to the worker pickled."""

    key: str
    function: Callable[[Call], Any]
    args: Any
    skip: dict[str, str] = field(default_factory=dict)  # step -> why it is left out, from an earlier run
    isolate: bool = False  # from the first attempt on


@dataclass
class _Attempt:
    task: Task
    deaths: int = 0
    blamed: Counter[str] = field(default_factory=Counter)  # step -> deaths in isolation; "": at none
    poison: dict[str, str] = field(default_factory=dict)

    @property
    def isolate(self) -> bool:
        return self.task.isolate or self.deaths >= DEATHS_BEFORE_ISOLATION


class _Worker:
    """One process and what it is doing."""

    def __init__(self, core: int, log: Path, environment: dict[str, str], now: float) -> None:
        ours, theirs = Pipe(duplex=True)
        self.connection: Connection = ours
        self.log = log
        self.attempt: _Attempt | None = None
        self.step: str | None = None
        self.isolating = False
        self.heard = now
        self.ready = False
        self._log_file: IO[bytes] = log.open("ab")
        self._log_begin = self._log_file.tell()  # before it are the words of workers before this one
        # -P: the current folder is not on the path, whatever lies there.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "pipelines.build.worker", str(theirs.fileno()), str(core)],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=self._log_file,
            stderr=self._log_file,
            env=environment,
        )
        theirs.close()

    def give(self, attempt: _Attempt, now: float) -> None:
        self.attempt, self.step, self.heard = attempt, None, now
        self.isolating = attempt.isolate
        task = attempt.task
        with contextlib.suppress(OSError):  # it died just now: its end of the pipe says so at the next poll
            self.connection.send((task.function, task.args, {**task.skip, **attempt.poison}, attempt.isolate))

    def kill(self) -> int:
        """End it and return its exit status (negative: the signal)."""
        self.process.kill()
        status = self.process.wait()
        self.connection.close()
        self._log_file.close()
        return status

    def last_words(self) -> str:
        lines = self.log.read_bytes()[self._log_begin :].decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "it printed nothing"


class LocalExecutor:
    """Runs tasks on `workers` processes, each pinned to its own core while there are cores.

    `stuck_s`: a worker that reports no step for so long is killed, and treated as one that died. Time in which this
    process did not run itself (Ctrl-Z) does not count.
    `memory_bytes`: a worker that holds more resident memory, mapped files not counted, is killed likewise; 0: none is.
    (RLIMIT_DATA counts the stacks of threads: ArrayRecord starts 64 of 8 MB, and waits for ever where it may not.)
    `environment` is added to each worker's, `first_core` is that of the first worker, counted among those this process
    may use; `peak_bytes` is the highest sum of resident memory seen, and no less than what one worker ever held.
    """

    def __init__(
        self,
        workers: int,
        logs: Path,
        environment: dict[str, str] | None = None,
        stuck_s: float = 300.0,
        memory_bytes: int = 0,
        first_core: int = 0,
    ) -> None:
        if workers < 1:
            raise ValueError(f"workers is {workers}; at least 1")
        logs.mkdir(parents=True, exist_ok=True)
        self._logs = logs
        self._stuck_s, self._memory_bytes, self._first_core = stuck_s, memory_bytes, first_core
        path = os.pathsep.join(os.path.abspath(p) for p in sys.path)
        one = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMBA")}
        self._environment = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0", **one, **(environment or {})}
        self._cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        self.workers = workers
        self._workers: list[_Worker | None] = [None] * workers
        self._failed_starts = [0] * workers  # in a row
        self._now = 0.0  # seconds in which this process looked at its workers
        self._looked = 0.0  # when it did last, by the system's clock
        self.peak_bytes = 0

    def run(
        self,
        tasks: Iterable[Task],
        on_done: Callable[[Task, Any], None] = lambda task, result: None,
        on_poison: Callable[[Task, str, str], None] = lambda task, step, reason: None,
    ) -> dict[str, Any]:
        """Results by key, once all tasks are done. RunError: a unit raised, or kills workers for no single step, or a
        worker does not start."""
        waiting = deque(_Attempt(task) for task in tasks)
        results: dict[str, Any] = {}
        self._looked = time.monotonic()
        while waiting or any(w is not None and w.attempt for w in self._workers):
            self._hand_out(waiting)
            busy = {w.connection: i for i, w in enumerate(self._workers) if w is not None}
            for connection in wait(list(busy), timeout=_POLL_S):
                self._hear(busy[connection], waiting, results, on_done, on_poison)  # type: ignore[index]
            self._check_stuck(waiting, on_poison)
            self._watch_memory(waiting, on_poison)
        return results

    def close(self) -> None:
        """End the workers; what they had half done lies under temporary names."""
        for place, worker in enumerate(self._workers):
            if worker is not None:
                worker.kill()
                self._workers[place] = None

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _hand_out(self, waiting: deque[_Attempt]) -> None:
        for place, worker in enumerate(self._workers):
            if not waiting:
                return
            if worker is None:
                core = self._cores[(self._first_core + place) % len(self._cores)] if self._cores else -1
                log = self._logs / f"worker-{place}.log"
                worker = self._workers[place] = _Worker(core, log, self._environment, self._now)
            if worker.attempt is None:
                worker.give(waiting.popleft(), self._now)

    def _hear(
        self,
        place: int,
        waiting: deque[_Attempt],
        results: dict[str, Any],
        on_done: Callable[[Task, Any], None],
        on_poison: Callable[[Task, str, str], None],
    ) -> None:
        worker = self._workers[place]
        assert worker is not None
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            self._lost(place, _cause(worker.kill()), waiting, on_poison)
            return
        worker.heard = self._now
        if message[0] == "ready":
            worker.ready = True
            self._failed_starts[place] = 0
        elif message[0] == "at":
            worker.step = message[1]
        elif message[0] == "done":
            attempt, worker.attempt = worker.attempt, None
            assert attempt is not None
            self.peak_bytes = max(self.peak_bytes, message[2])
            results[attempt.task.key] = message[1]
            on_done(attempt.task, message[1])
        elif message[1] == "MemoryError":  # of a new process there is more left
            self._lost_for_good_reason(place, f"{OUT_OF_MEMORY} ({message[2]})", waiting, on_poison)
        else:
            attempt, worker.attempt = worker.attempt, None
            assert attempt is not None
            raise _failure(attempt.task.key, message[1:], worker.log)

    def _check_stuck(self, waiting: deque[_Attempt], on_poison: Callable[[Task, str, str], None]) -> None:
        # A stop of this process, and of its workers with it, is one long look: only a little of it counts.
        looked, self._looked = self._looked, time.monotonic()
        self._now += min(self._looked - looked, _LONGEST_LOOK_S)
        for place, worker in enumerate(self._workers):
            if worker is not None and worker.attempt and self._now - worker.heard > self._stuck_s:
                self._lost_for_good_reason(place, f"{NO_PROGRESS} in {self._stuck_s:g} s", waiting, on_poison)

    def _lost_for_good_reason(
        self, place: int, cause: str, waiting: deque[_Attempt], on_poison: Callable[[Task, str, str], None]
    ) -> None:
        """A worker that would be lost again: its unit is isolated at once, if that had begun."""
        worker = self._workers[place]
        assert worker is not None and worker.attempt is not None
        worker.kill()
        worker.attempt.deaths += DEATHS_BEFORE_ISOLATION if worker.ready else 0
        self._lost(place, cause, waiting, on_poison)

    def _lost(
        self, place: int, cause: str, waiting: deque[_Attempt], on_poison: Callable[[Task, str, str], None]
    ) -> None:
        """A worker is gone: note it of the step if it was isolated, and put its unit first in the queue."""
        worker = self._workers[place]
        assert worker is not None
        self._workers[place] = None
        attempt = worker.attempt
        if not worker.ready:
            self._failed_starts[place] += 1
            if self._failed_starts[place] >= STARTS:
                what = f"a worker process does not start, {STARTS} times in a row ({cause})"
                raise RunError(f"{what}: {worker.last_words()}; its log is {worker.log}")
            if attempt is not None:
                waiting.appendleft(attempt)
            return
        if attempt is None:
            return
        if worker.isolating:
            self._blame(attempt, worker, cause, on_poison)
        attempt.deaths += 1
        waiting.appendleft(attempt)

    def _blame(
        self, attempt: _Attempt, worker: _Worker, cause: str, on_poison: Callable[[Task, str, str], None]
    ) -> None:
        """Note a death in isolation of its step, which is poison once that has happened twice."""
        task = attempt.task
        step = worker.step if worker.step and worker.step != task.key else ""  # the unit's own: it commits its files
        attempt.blamed[step] += 1
        if attempt.blamed[step] < DEATHS_OF_A_STEP and len(attempt.blamed) <= _MAX_POISON:
            return
        if not step or step in {**task.skip, **attempt.poison} or len(attempt.blamed) > _MAX_POISON:
            raise RunError(f"unit {task.key} kills its worker ({cause}) at no single document; see {worker.log}")
        attempt.poison[step] = cause
        on_poison(task, step, cause)

    def _watch_memory(self, waiting: deque[_Attempt], on_poison: Callable[[Task, str, str], None]) -> None:
        total, _ = _resident(os.getpid())
        for place, worker in enumerate(self._workers):
            if worker is not None:
                resident, own = _resident(worker.process.pid)
                total += resident
                if 0 < self._memory_bytes < own and worker.attempt is not None:
                    cause = f"{OUT_OF_MEMORY} (more than {self._memory_bytes:,} bytes)"
                    self._lost_for_good_reason(place, cause, waiting, on_poison)
        self.peak_bytes = max(self.peak_bytes, total)


def _cause(status: int) -> str:
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        return f"{name}, which the kernel also sends when memory is short" if name == "SIGKILL" else name
    return f"exit status {status}"


def _failure(key: str, error: tuple[str, str, int | None], log: Path) -> Exception:
    kind, text, number = error
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return RunError(f"no space left on the disk ({text}); free some and run the command again")
    if kind in ("UserError", "RunError"):
        return RunError(text)
    return RunError(f"unit {key} failed: {kind}: {text} (the traceback is in {log})")


def _resident(pid: int) -> tuple[int, int]:
    """Bytes of memory a process has, and those of them that belong to no file; zeros where the system does not say."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            _, resident, shared, *_ = (int(word) * os.sysconf("SC_PAGE_SIZE") for word in file.read().split())
    except (OSError, ValueError):
        return 0, 0
    return resident, resident - shared
