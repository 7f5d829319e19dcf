"""One job on one system in a process of its own: `python benchmarks/timing.py JSON`, one line of JSON back.

The clock runs inside epochs: it starts when the first batch of an epoch has come and stops with its last one. So
starting an epoch (workers, a new shuffle) is left out, which favours who is slow at it: for the fast ones an epoch of
64 million tokens is a second or less. CPU seconds are of the same spans, children included.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from drawn import RING, documents, prepared
from peers import systems
from peers.system import Stream


def measure(
    stream: Stream, seconds: float, warm_seconds: float, ready: Callable[[], object] = lambda: None
) -> dict[str, float]:
    """Tokens, seconds and CPU seconds of about `seconds` of reading, warmed up."""
    held: deque[Any] = deque(maxlen=RING)
    total = {"tokens": 0.0, "seconds": 0.0, "cpu_seconds": 0.0}
    batches = _warmed(stream, held, warm_seconds)
    ready()
    while True:
        left = seconds - total["seconds"]
        children, cpu, begin = _children_seconds(), time.process_time(), time.perf_counter()
        now = begin
        for batch in batches:
            held.append(batch)
            total["tokens"] += stream.tokens(batch)
            now = time.perf_counter()
            if now - begin > left:
                break
        total["seconds"] += now - begin
        total["cpu_seconds"] += time.process_time() - cpu + _children_seconds() - children
        if total["seconds"] >= seconds:
            return total
        batches = _begun(stream, held)


def _begun(stream: Stream, held: deque[Any]) -> Iterator[Any]:
    """An epoch whose first batch has come."""
    batches = iter(stream.epoch())
    held.append(next(batches))
    return batches


def _warmed(stream: Stream, held: deque[Any], warm_seconds: float) -> Iterator[Any]:
    """An epoch to be timed, after `warm_seconds` of reading: a new one, or what is left of one that takes longer."""
    until = time.perf_counter() + warm_seconds
    while time.perf_counter() < until:
        batches = _begun(stream, held)
        for number, batch in enumerate(batches):
            held.append(batch)
            if time.perf_counter() > until and number > 2 * RING:
                return batches
    return _begun(stream, held)


def count(stream: Stream) -> dict[str, int]:
    """Useful tokens of an epoch, their sum and the sum of their squares."""
    out = {"tokens": 0, "sum": 0, "squares": 0}
    for batch in stream.epoch():
        ids = stream.ids(batch).astype("int64")
        out["tokens"] += ids.size
        out["sum"] += int(ids.sum())
        out["squares"] += int((ids * ids).sum())
    return out


def run(job: dict[str, Any]) -> dict[str, Any]:
    """What one job asks: {"do": "prepare" | "check" | "measure", "work", "documents", "system", "processes", ...}."""
    system, work = systems()[job["system"]], Path(job["work"])
    if job["do"] == "prepare":
        drawn = documents(work, job["documents"])
        begin = time.perf_counter()
        prepared(work, system.data, lambda folder: system.prepare(drawn, folder))
        return {"seconds": time.perf_counter() - begin}
    if job["do"] == "check":
        return count(_opened({**job, "processes": 1} if system.ranks else job, 0))
    if system.ranks and job["processes"] > 1:
        return _ranks(job)
    return measure(_opened(job, 0), job["seconds"], job["warm_seconds"])


def _ranks(job: dict[str, Any]) -> dict[str, Any]:
    """Readers side by side, which begin to measure together: their tokens a second, added."""
    context = get_context("spawn")
    barrier, answers = context.Barrier(job["processes"]), context.Queue()
    readers = [context.Process(target=_rank, args=(job, i, barrier, answers)) for i in range(job["processes"])]
    for reader in readers:
        reader.start()
    found = [answers.get(timeout=300) for _ in readers]
    for reader in readers:
        reader.join()
    seconds = sum(f["seconds"] for f in found) / len(found)
    tokens = sum(f["tokens"] / f["seconds"] for f in found) * seconds
    a_cpu_second = sum(f["tokens"] for f in found) / sum(f["cpu_seconds"] for f in found)
    return {"tokens": tokens, "seconds": seconds, "cpu_seconds": tokens / a_cpu_second}


def _rank(job: dict[str, Any], rank: int, barrier: Any, answers: Any) -> None:
    answers.put(measure(_opened(job, rank), job["seconds"], job["warm_seconds"], lambda: barrier.wait(120)))


def _opened(job: dict[str, Any], rank: int) -> Stream:
    system = systems()[job["system"]]
    return system.open(Path(job["work"]) / system.data, job["processes"], rank)


def _children_seconds() -> float:
    """User and system seconds of the children which ended and of those that live, theirs included."""
    import psutil

    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = ended.ru_utime + ended.ru_stime
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(child.cpu_times()[:4])
    return total


def main() -> None:
    answer, sys.stdout = sys.stdout, sys.stderr  # systems print
    found = run(json.loads(sys.argv[1]))
    print(json.dumps(found), file=answer, flush=True)
    os._exit(0)  # not through the shutdown of workers and threads, which may wait for ever


if __name__ == "__main__":
    main()
