"""Pool: one function over many arguments, in processes none of which is trusted to live.

A process that dies of an argument (`kill -9`, the kernel's out-of-memory killer, a crash in native code) is replaced
and the argument tried once more; what kills twice has `Lost` for its result, and all others have theirs.
(`multiprocessing.Pool` waits for ever for what a killed process had, `ProcessPoolExecutor` fails all that is left.)
Processes are spawned, never forked: JAX, pyarrow and array_record have threads.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from mmdata.errors import RunError

_TRIES = 2


@dataclass(frozen=True)
class Lost:
    """The result of an argument of which processes die."""

    cause: str


def run_each(
    function: Callable[[Any], Any],
    arguments: Sequence[Any],
    workers: int,
    done: Callable[[int], None] = lambda number: None,
) -> list[Any]:
    """`function` of each argument, in their order, in `workers` processes; with 1 in this one. Function, arguments and
    results are pickled. `done(number)` is told of each as it comes. What `function` raises is raised here."""
    if min(workers, len(arguments)) <= 1:
        results = []
        for number, argument in enumerate(arguments):
            results.append(function(argument))
            done(number)
        return results
    waiting = deque(range(len(arguments)))
    answers: dict[int, Any] = {}
    deaths = [0] * len(arguments)
    processes: list[_Process] = []
    try:
        while len(answers) < len(arguments):
            while len(processes) < min(workers, len(arguments) - len(answers)):  # those that died are replaced
                processes.append(_Process(function))
            for process in processes:
                if process.number is None and waiting:
                    process.give(number := waiting.popleft(), arguments[number])
            for process in _speaking(processes):
                had, (word, answer) = process.number, process.hear()
                if word == "raised":
                    raise answer
                if word == "died":
                    processes.remove(process)
                    answer = Lost(answer)
                    if had is not None:
                        deaths[had] += 1
                        if deaths[had] < _TRIES:
                            waiting.appendleft(had)
                            continue
                if word != "ready" and had is not None:
                    answers[had], process.number = answer, None
                    done(had)
    finally:
        for process in processes:
            process.kill()
    return [answers[number] for number in range(len(arguments))]


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Process:
    """One process and the number of the argument that it has."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.number: int | None = None
        self._ready = False
        self._process = context.Process(target=_serve, args=(theirs, function), daemon=True)
        self._process.start()
        theirs.close()

    def give(self, number: int, argument: Any) -> None:
        self.number = number
        with contextlib.suppress(OSError):  # it died just now: its end of the pipe says so
            self.connection.send(argument)

    def hear(self) -> tuple[str, Any]:
        """("ready", None), ("answer", result), ("raised", exception) or ("died", cause). RunError where it does not
        even start."""
        try:
            word, answer = self.connection.recv()
        except (EOFError, OSError):
            cause = _cause(self.kill())
            if not self._ready:
                raise RunError(f"a worker process does not start ({cause}): use one worker (--workers 1)") from None
            return "died", cause
        self._ready = True
        return word, answer

    def kill(self) -> int:
        """End it and return its exit status (negative: the signal)."""
        self.connection.close()
        self._process.kill()
        self._process.join()
        return self._process.exitcode or 0


def _speaking(processes: list[_Process]) -> list[_Process]:
    """Those that have something to say, or died; waits for the first."""
    by_connection = {process.connection: process for process in processes}
    return [by_connection[connection] for connection in wait(list(by_connection))]  # type: ignore[index]


def _serve(connection: Connection, function: Callable[[Any], Any]) -> None:
    """The life of a process. It ends when nobody listens any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    with contextlib.suppress(EOFError, OSError):
        connection.send(("ready", None))
        while True:
            argument = connection.recv()
            try:
                said = ("answer", function(argument))
            except Exception as error:
                error.add_note(traceback.format_exc())  # a traceback cannot be sent
                said = ("raised", error)
            connection.send(said)


def _cause(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"
    return f"{name}, which the kernel also sends when memory is short" if name == "SIGKILL" else name
