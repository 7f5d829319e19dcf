"""The Ray executor: the same units as tasks of a Ray cluster (extra `ray`), with the same supervisor on every node.

A Ray task is one unit. In it a `LocalExecutor` of one worker runs the unit, so a worker that dies, hangs or takes too
much memory, and a poison document, are met by the same code as without Ray, in a process of the same environment, on a
core of its own; it stays with Ray's process for the next unit. What Ray alone can lose, its own process or a node, is
noticed here, and the unit given to another. Paths travel and small values: the output folder and the inputs must be on
a file system that all nodes share. Nothing here decides a byte of the output.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pickle
import socket
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from mmdata.errors import RunError, UserError
from pipelines.build.executor import DEATHS_BEFORE_ISOLATION, LocalExecutor, Task
from pipelines.build.worker import Call

MOST_LOSSES = 8  # of Ray processes and nodes, by one unit
_POLL_S = 0.5


@dataclass(frozen=True)
class NodeSettings:
    """How a node runs units."""

    logs: Path
    environment: tuple[tuple[str, str], ...]
    stuck_s: float
    memory_bytes: int
    platform: tuple[tuple[str, str], ...]  # what the codes depend on, of the process that started the build


@dataclass(frozen=True)
class NodeResult:
    """What came of a unit on a node: its pickled result or an error's words; the poison met on the way."""

    result: bytes = b""
    error: str = ""
    poison: tuple[tuple[str, str], ...] = ()  # (step, cause)
    worker: str = ""
    peak_bytes: int = 0


@dataclass
class _Flight:
    """A unit that is with Ray, or waits to be again."""

    task: Task
    losses: int = 0
    poison: dict[str, str] = field(default_factory=dict)

    def as_task(self) -> Task:
        """What a node is given: pickled, as Ray's own process need not import what a unit needs."""
        pickled = pickle.dumps((self.task.function, self.task.args))
        isolate = self.task.isolate or self.losses >= DEATHS_BEFORE_ISOLATION
        return Task(self.task.key, run_pickled, pickled, {**self.task.skip, **self.poison}, isolate)


class RayExecutor:
    """Runs tasks on the cluster that RAY_ADDRESS names, or that runs on this machine; else it starts one here.

    `workers`: units at a time, 0: one for each CPU that the cluster has. `stuck_s` and `memory_bytes` as of
    `LocalExecutor`; `platform`: what a node must have in common with this process, or the run stops. `peak_bytes` is
    the sum over Ray's processes of the highest each has seen.
    """

    def __init__(
        self,
        workers: int,
        logs: Path,
        environment: dict[str, str] | None = None,
        stuck_s: float = 300.0,
        memory_bytes: int = 0,
        platform: dict[str, str] | None = None,
    ) -> None:
        self._ray = _imported()
        self._workers = workers
        path = os.pathsep.join(os.path.abspath(p) for p in sys.path)
        words = {"PYTHONPATH": path, **(environment or {})}
        self._node = NodeSettings(
            logs, tuple(sorted(words.items())), stuck_s, memory_bytes, tuple(sorted((platform or {}).items()))
        )
        self._started = not self._ray.is_initialized()
        if self._started:
            self._ray.init(include_dashboard=False, log_to_driver=False, logging_level="error")
        # Retries are ours: Ray's own would not isolate, and a unit that always takes its node along would never end.
        self._remote = self._ray.remote(num_cpus=1, max_retries=0)(run_on_node)
        self._flying: dict[Any, _Flight] = {}
        self._peaks: dict[str, int] = {}

    @property
    def workers(self) -> int:
        """Units at a time, now: nodes come and go."""
        return self._workers or max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    @property
    def peak_bytes(self) -> int:
        return sum(self._peaks.values())

    def run(
        self,
        tasks: Iterable[Task],
        on_done: Callable[[Task, Any], None] = lambda task, result: None,
        on_poison: Callable[[Task, str, str], None] = lambda task, step, reason: None,
    ) -> dict[str, Any]:
        """Results by key, once all tasks are done. RunError: a unit raised, or kills workers for no single step."""
        waiting = deque(_Flight(task) for task in tasks)
        results: dict[str, Any] = {}
        while waiting or self._flying:
            while waiting and len(self._flying) < self.workers:
                flight = waiting.popleft()
                self._flying[self._remote.remote(self._node, flight.as_task())] = flight
            landed, _ = self._ray.wait(list(self._flying), timeout=_POLL_S)
            for reference in landed:
                flight = self._flying.pop(reference)
                found = self._landed(reference, flight)
                if found is None:
                    waiting.appendleft(flight)
                    continue
                self._peaks[found.worker] = max(self._peaks.get(found.worker, 0), found.peak_bytes)
                for step, cause in found.poison:
                    flight.poison[step] = cause
                    on_poison(flight.task, step, cause)
                if found.error:
                    raise RunError(found.error)
                results[flight.task.key] = pickle.loads(found.result)
                on_done(flight.task, results[flight.task.key])
        return results

    def _landed(self, reference: Any, flight: _Flight) -> NodeResult | None:
        """What a node answers; None where it, or Ray's process on it, is gone."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except errors.RayTaskError as error:
            last = str(error).strip().splitlines()[-1]
            raise RunError(
                f"unit {flight.task.key} cannot be run on a node ({last}); is mmdata installed there?"
            ) from None
        except errors.RayError as error:
            flight.losses += 1
            if flight.losses >= MOST_LOSSES:
                first = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise RunError(
                    f"unit {flight.task.key} lost its node or Ray's process {flight.losses} times ({first});"
                    " see Ray's logs, and try fewer --workers or a lower limits.worker_bytes"
                ) from None
            return None

    def close(self) -> None:
        """Take back what is running; what it had half done lies under temporary names."""
        for reference in self._flying:
            with contextlib.suppress(Exception):  # the cluster may be gone
                self._ray.cancel(reference, force=True)
        self._flying.clear()
        if self._started:
            self._ray.shutdown()

    def __enter__(self) -> RayExecutor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _imported() -> Any:
    """Ray, with nothing sent to its makers. UserError where it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise UserError("--executor ray needs the package ray: pip install 'mmdata[ray]'") from None
    return ray


# What follows runs on the nodes: `run_on_node` in Ray's process, the others in its worker.

_kept: list[tuple[NodeSettings, LocalExecutor]] = []  # the executor of this process, from its first unit on
_lock: list[tuple[int, IO[str]]] = []  # its core, and the file that says so


def run_on_node(node: NodeSettings, task: Task) -> NodeResult:
    """One unit, under a supervisor of this process's own."""
    who = f"{socket.gethostname()}-{os.getpid()}"
    poison: list[tuple[str, str]] = []
    try:
        pool = _pool(node, who)
        found = pool.run([task], on_poison=lambda _, step, cause: poison.append((step, cause)))
    except (RunError, UserError) as error:
        _drop_pool()
        return NodeResult(error=f"{error} (on {socket.gethostname()})", poison=tuple(poison), worker=who)
    return NodeResult(found[task.key], "", tuple(poison), who, pool.peak_bytes)


def run_pickled(call: Call) -> bytes:
    """Run the pickled function; its result is pickled too."""
    function, args = pickle.loads(call.args)
    return pickle.dumps(function(Call(args, call.skip, call.isolate, call.at)))


def platform_of(call: Call) -> dict[str, str]:
    """What the codes depend on, of this worker."""
    from pipelines.build.settings import platform_words

    return platform_words()


def _pool(node: NodeSettings, who: str) -> LocalExecutor:
    if not _kept or _kept[0][0] != node:
        _drop_pool()
        logs, words = node.logs / who, dict(node.environment)
        pool = LocalExecutor(1, logs, words, node.stuck_s, node.memory_bytes, _own_core())
        _kept.append((node, pool))
        if node.platform:
            _compare(dict(node.platform), pool.run([Task("platform", platform_of, None)])["platform"])
    return _kept[0][1]


def _drop_pool() -> None:
    while _kept:
        _kept.pop()[1].close()


def _compare(wanted: dict[str, str], found: dict[str, str]) -> None:
    """RunError where codes made here might differ from those made where the build was started."""
    for name in sorted(wanted):
        if found.get(name) != wanted[name]:
            what = "another CPU (its features differ)" if name == "cpu" else f"{name} {found.get(name)}"
            own = "" if name == "cpu" else f", the build's is {wanted[name]}"
            raise RunError(f"a node has {what}{own}: its codes may differ; use nodes of one kind, and start there")


def _own_core() -> int:
    """A core of this machine, by its place among those this process may use, that no other such process has: as long as
    it lives it holds a lock on it. With more processes than cores some share one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    folder = Path(tempfile.gettempdir()) / f"mmdata-cores-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    for core in range(0 if _lock else cores):
        file = (folder / str(core)).open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            continue
        _lock.append((core, file))
        break
    return _lock[0][0] if _lock else os.getpid() % cores
