"""A worker process of the local executor: runs one unit at a time and says where it is.

Started with a fresh interpreter (never forked, since JAX's threads do not survive a fork), pinned to one core before
anything heavy is imported. It imports nothing but the standard library until its first unit arrives: 60 ms to start.
It goes when its supervisor goes: the kernel ends it (Linux), and a thread of it which waits for messages notices too.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

_HEARTBEAT_S = 0.5
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass
class Call:
    """What a unit function is called with.

    `at(key)` before each step that might kill the process (a file, a part) tells the supervisor which one to blame;
    in `isolate` the function takes one step after the other, in no other thread. A key in `skip` has killed or hung
    a worker before: the function leaves it out with the given reason.
    """

    args: Any
    skip: dict[str, str] = field(default_factory=dict)
    isolate: bool = False
    at: Callable[[str], None] = lambda key: None


def main(fd: int, core: int) -> None:
    """The life of a worker: messages come and go through file descriptor `fd`; `core` -1 pins it to none."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor decides
    _go_with_parent()
    if core >= 0 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    connection = Connection(fd)
    tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, tasks), daemon=True).start()
    send = _Sender(connection)
    send(("ready", os.getpid()))
    while (task := tasks.get()) is not None:
        _run(task, send)
    os._exit(0)  # nothing to say good-bye to; threads of native libraries may hang


def _go_with_parent() -> None:
    """Have the kernel end this process with its parent. Its own thread cannot while native code holds the GIL, and
    what then wrote on would meet the next build."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class _Sender:
    """`send` under a lock; a supervisor that is gone ends the process."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def __call__(self, message: Any) -> None:
        try:
            with self._lock:
                self._connection.send(message)
        except OSError:
            os._exit(1)


def _listen(connection: Connection, tasks: queue.SimpleQueue[Any]) -> None:
    try:
        while True:
            tasks.put(connection.recv())
    except (EOFError, OSError):
        os._exit(1)
    except BaseException as error:  # a unit whose function cannot be imported here
        tasks.put(error)


def _run(task: Any, send: _Sender) -> None:
    try:
        if isinstance(task, BaseException):
            raise task
        function, args, skip, isolate = task
        result = function(Call(args, skip, isolate, _reporter(send, isolate)))
        send(("done", result, most_held()))
    except BaseException as error:
        with contextlib.suppress(OSError):  # a full disk must not make a death of it
            traceback.print_exc()  # into this worker's log
        number = getattr(error, "errno", None) if isinstance(error, OSError) else None
        kind = "MemoryError" if isinstance(error, MemoryError) else type(error).__name__  # libraries have their own
        send(("error", kind, str(error), number))


def most_held() -> int:
    """The most bytes of memory that this process ever held. (Of a process that was begun by another, Linux's getrusage
    says what that one held, if it is more.)"""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/status", "rb") as file:
        for line in file:
            if line.startswith(b"VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _reporter(send: _Sender, isolate: bool) -> Callable[[str], None]:
    """Every key while isolating, else one message in half a second: then it only says that the worker lives."""
    last = [0.0]

    def at(key: str) -> None:
        now = time.monotonic()
        if isolate or now - last[0] > _HEARTBEAT_S:
            last[0] = now
            send(("at", key))

    return at


if __name__ == "__main__":
    # Run as a module this file is `__main__`, which is not where units are pickled from: use the imported twin.
    from pipelines.build.worker import main as run_main

    run_main(int(sys.argv[1]), int(sys.argv[2]))
