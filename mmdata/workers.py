"""Worker processes: they make the batches of coming steps, in memory which the consumer gets without a copy.

A worker is a plain `python -c` process, never a fork. It builds the Loader from its arguments and reads jobs from a
socket: (generation, step, slot of the shared memory). To each it answers with eight bytes: done, or the length of the
pickled exception that follows. Which worker makes which step changes nothing, for a batch is a function of its step. A
worker that dies is started again and gets its steps again. It ends when its socket does, so no worker outlives its
consumer, however that ends. They are those of the process that began them: a forked child of it neither asks nor ends
them.
"""

from __future__ import annotations

import multiprocessing.spawn
import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mmdata.batch import Batch, BatchForm
from mmdata.errors import RunError, UserError
from mmdata.shared_memory import SharedRing, Slots

if TYPE_CHECKING:
    from mmdata.loader import Loader

_MOST_DEATHS = 3  # in making one step, before that is given up
_MOST_JOBS = 64  # of a worker at once: a socket holds some 250 small messages before it blocks
_GRACE_S = 0.2  # for a worker to end by itself
_LOOK_S = 5.0  # how often an idle worker looks whether its parent lives, where a fork of that keeps the socket open
_JOB = struct.Struct("<qqq")  # generation, step, slot
_SIZE = struct.Struct("<q")
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # a worker is one thread


@dataclass(eq=False)
class _Worker:
    """One process, and the jobs it has not answered, in the order in which it does them."""

    process: subprocess.Popen[bytes] | None = None
    socket: socket.socket | None = None
    jobs: deque[tuple[int, int, int]] = field(default_factory=deque)

    def end(self) -> int:
        """Its exit status, of a process that ends or is ended now."""
        assert self.process is not None and self.socket is not None
        self.socket.close()
        try:
            status = self.process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        self.process = self.socket = None
        return status


class Workers:
    """The processes of one Loader. Used from one thread.

    loader: the Loader, pickled, which each process makes its own of
    read_ahead: batches made ahead; at least 2 a worker, of which it makes one and has one waiting, and at most 64
    rows: of this data shard's part of a step's batch
    most_rows: of any of them
    stop: the step before which to end, None where there is no end
    """

    def __init__(
        self,
        loader: bytes,
        num: int,
        read_ahead: int,
        form: BatchForm,
        rows: Callable[[int], int],
        most_rows: int,
        stop: int | None,
    ) -> None:
        self._form, self._rows, self._stop = form, rows, stop
        self._ahead = min(max(read_ahead, 2 * num), _MOST_JOBS * num)
        self._ring = SharedRing(form.size_bytes(most_rows), keep=self._ahead + 2, note=loader)
        self._workers = [_Worker() for _ in range(num)]
        self._asked: dict[int, _Worker] = {}  # steps of this generation which are being made
        self._made: dict[int, int | Exception] = {}  # slots of steps not taken yet
        self._deaths: dict[int, int] = {}  # of workers, making a step
        self._next = -1  # the step that follows the last one taken
        weakref.finalize(self, _end, self._workers, self._ring)

    def batch(self, step: int) -> Batch:
        """The batch of a step, while those after it are made; an exception that it raised.
        RunError in a forked child."""
        if not self._ring.is_ours:
            raise RunError(
                "the worker processes of this Loader are those of the process that this one was forked from: call the"
                " Loader's close() here first, and it starts its own"
            )
        if step != self._next:
            self.drop()
        try:
            last = step + self._ahead
            for coming in range(step, last if self._stop is None else min(last, self._stop)):
                if coming not in self._asked and coming not in self._made:
                    self._ask(coming)
            while step not in self._made:
                self._receive(self._asked[step])
        except BaseException:  # Ctrl-C between two reads: what the sockets hold is not known any more
            self.close()
            raise
        self._next = step
        made = self._made.pop(step)
        if isinstance(made, Exception):
            raise made
        self._next = step + 1
        return self._form.batch_in(self._ring.lend(made), self._rows(step))

    def drop(self) -> None:
        """Make none of the steps asked for that are not begun."""
        if not self._ring.is_ours:  # whose generation and sockets are its parent's
            return
        self._ring.slots.generation[0] += 1
        for worker in self._workers:
            while worker.jobs and worker.socket is not None and _waits(worker.socket, 0):
                self._receive(worker)
        for made in self._made.values():
            self._give_back(made)
        self._asked, self._made, self._deaths = {}, {}, {}

    def close(self) -> None:
        """End the processes; `batch` starts them again."""
        _end(self._workers, self._ring)
        self.drop()
        self._ring.trim()

    @property
    def pids(self) -> list[int]:
        """Of the processes, as far as they run."""
        return [worker.process.pid for worker in self._workers if worker.process is not None]

    def _ask(self, step: int) -> None:
        worker = min(self._workers, key=lambda w: len(w.jobs))
        job = int(self._ring.slots.generation[0]), step, self._ring.take()
        worker.jobs.append(job)
        self._asked[step] = worker
        self._send(worker, [job] if worker.process else worker.jobs)

    def _send(self, worker: _Worker, jobs: Iterable[tuple[int, int, int]]) -> None:
        if worker.process is None:
            worker.process, worker.socket = _start(self._ring.slots)
        assert worker.socket is not None
        with suppress(OSError):  # it is dead, which is seen when its answers are read
            worker.socket.sendall(b"".join(_JOB.pack(*job) for job in jobs))

    def _receive(self, worker: _Worker) -> None:
        """Take a worker's next answer, or start it again."""
        assert worker.socket is not None
        try:
            answer = _read_sized(worker.socket)
        except (EOFError, OSError):
            self._died(worker, worker.end())
            return
        generation, step, slot = worker.jobs.popleft()
        if generation != self._ring.slots.generation[0]:
            self._ring.give_back(slot)
            return
        del self._asked[step]
        self._deaths.pop(step, None)
        if answer:
            self._ring.give_back(slot)
        self._made[step] = pickle.loads(answer) if answer else slot

    def _died(self, worker: _Worker, status: int) -> None:
        """Have the jobs of a dead worker done by a new one; give up the first where that has killed too many."""
        for job in [job for job in worker.jobs if job[0] != self._ring.slots.generation[0]]:
            worker.jobs.remove(job)
            self._ring.give_back(job[2])
        if worker.jobs:
            _, step, slot = worker.jobs[0]
            self._deaths[step] = self._deaths.get(step, 0) + 1
            if self._deaths[step] == _MOST_DEATHS:
                worker.jobs.popleft()
                self._ring.give_back(slot)
                del self._asked[step], self._deaths[step]
                self._made[step] = RunError(
                    f"the worker process that makes step {step} died {_MOST_DEATHS} times: {_cause(status)}"
                )
        if worker.jobs:
            self._send(worker, worker.jobs)

    def _give_back(self, made: int | Exception) -> None:
        if not isinstance(made, Exception):
            self._ring.give_back(made)


def _end(workers: list[_Worker], ring: SharedRing) -> None:
    if not ring.is_ours:
        return
    for worker in workers:
        if worker.socket is not None:
            worker.socket.close()  # all first: they end side by side
    for worker in workers:
        if worker.process is not None:
            worker.end()
        while worker.jobs:
            ring.give_back(worker.jobs.popleft()[2])
    ring.trim()


def _cause(status: int) -> str:
    if status >= 0:
        return f"exit status {status}; its last words are on stderr"
    name = signal.Signals(-status).name if -status in set(signal.Signals) else "a signal"
    less = "use fewer workers, a smaller batch_size or read_ahead, or more memory"
    if -status == signal.SIGKILL:
        return f"killed by signal {-status} ({name}), likely as memory ran out; {less}"
    if -status == signal.SIGBUS:
        return (
            f"killed by signal {-status} ({name}): either memory ran out ({less}), or a shard's file was cut short"
            " while it was read (see with `mmdata verify`)"
        )
    return f"killed by signal {-status} ({name}); make the step with workers=0 to see where"


def _start(slots: Slots) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """A worker's process and the socket to it. It does not read the terminal's signals: Ctrl-C is the consumer's."""
    ours, theirs = socket.socketpair()
    with theirs:
        files = theirs.fileno(), slots.file
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; from mmdata.workers import serve;"
            f" serve({files[0]}, {files[1]}, {slots.slot_bytes}, {slots.note_bytes})"
        )
        try:
            process = subprocess.Popen(
                [os.fsdecode(multiprocessing.spawn.get_executable()), "-c", code],
                stdin=subprocess.DEVNULL,
                env={**_ONE_THREAD, **os.environ},
                pass_fds=files,
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise RunError(f"cannot start a worker process ({error}): use fewer workers") from error
    return process, ours


def serve(socket_file: int, memory_file: int, slot_bytes: int, note_bytes: int) -> None:
    """The life of a worker's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.modules["jax"] = None  # type: ignore[assignment]  # `import jax` fails here: it is slow, and takes devices
    slots, parent = Slots(memory_file, slot_bytes, note_bytes), os.getppid()
    consumer = socket.socket(fileno=socket_file)
    loader: Loader | None = None
    with suppress(EOFError, OSError):
        while True:
            while not _waits(consumer, _LOOK_S):
                if os.getppid() != parent:
                    os._exit(0)
            generation, step, slot = _JOB.unpack(_read(consumer, _JOB.size))
            answer = b""
            if generation == slots.generation[0]:
                try:
                    loader = loader or pickle.loads(slots.note())
                    loader.write_batch(step, slots[slot])
                except Exception as error:
                    answer = _pickled(error)
            consumer.sendall(_SIZE.pack(len(answer)) + answer)
    os._exit(0)


def _waits(connected: socket.socket, seconds: float) -> bool:
    """Whether something can be read, or the other side is gone, within so many seconds."""
    poll = select.poll()
    poll.register(connected, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _read(connected: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes; EOFError where the other side is gone."""
    data = b""
    while len(data) < size:
        more = connected.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def _read_sized(connected: socket.socket) -> bytes:
    return _read(connected, _SIZE.unpack(_read(connected, _SIZE.size))[0])


def _pickled(error: Exception) -> bytes:
    """An exception, with where it was raised unless it is one of ours, which says all in its line."""
    where = traceback.format_exc()
    if not isinstance(error, UserError | RunError):
        error.add_note(f"in a worker process:\n{where}")
    with suppress(Exception):
        data = pickle.dumps(error)
        if isinstance(pickle.loads(data), Exception):
            return data
    return pickle.dumps(RunError(f"{type(error).__name__} in a worker process: {error}\n{where}"))
