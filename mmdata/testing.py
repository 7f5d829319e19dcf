"""The conformance kit: what a Loader promises, shown on your own data. `python -m mmdata.testing DIR --seq-len 1024`.

    def make_loader(**overrides):      # takes shard, threads and workers
        return mmdata.Loader("runs/demo/data", seq_len=1024, batch_size=8, **overrides)

    mmdata.testing.conform(make_loader)

Each check makes its own Loaders, compares arrays bit by bit with those of one Loader that makes every batch when it is
asked for (threads=0, workers=0, one data shard), and raises AssertionError naming the step, the array and the place.
Nothing here looks inside a Loader: whatever has the same methods can be checked. Work is counted, never timed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from mmdata.batch import Batch
from mmdata.errors import RunError, UserError

MakeLoader = Callable[..., Any]  # make_loader(shard=, threads=, workers=) -> Loader

PLAIN = {"threads": 0, "workers": 0}  # the setting that all others are compared with
SETTINGS = ({"threads": 1}, {"threads": 3}, {"workers": 1}, {"workers": 2})  # of PLAIN, what is changed
SHARDS = (1, 2, 4, 8)
FAR = 10**9  # a step
_MOST_WORK = 10  # times the calls that restoring at the first step takes


def conform(
    make_loader: MakeLoader,
    *,
    steps: int = 12,
    held: int = 100,
    seed: int = 0,
    say: Callable[[str], Any] = lambda line: None,
) -> None:
    """Run every check; `say` is told each that holds. `held`: batches that are held in memory at once."""
    shown = check_shards(make_loader, steps=steps)
    say(f"{', '.join(map(str, shown))} data shards give one global stream")
    check_settings(make_loader, steps=steps)
    say("threads and workers change nothing")
    check_changes(make_loader, seed=seed)
    say("data shards, threads and workers may change at any step")
    check_restore(make_loader, steps=steps, seed=seed)
    say("a restored Loader goes on exactly")
    check_work(make_loader)
    say("restoring is no more work at a late step than at the first")
    check_killed_worker(make_loader, steps=steps)
    say("workers that are killed change nothing")
    check_held(make_loader, held=held)
    say("batches that are held are never overwritten")


def check_shards(make_loader: MakeLoader, *, steps: int = 12, shards: Sequence[int] = SHARDS) -> list[int]:
    """The rows of n data shards, one after the other, are the global batch: for each n that the batch sizes allow,
    which are returned."""
    reference = _Reference(make_loader)
    steps = reference.most(steps)
    allowed = [num for num in shards if _can_be_made(make_loader, num)]
    for num in allowed:
        with _opened(make_loader(shard=(index, num), **PLAIN) for index in range(num)) as parts:
            for step in range(steps):
                _compare(step, reference.batch(step), [next(part) for part in parts], f"{num} data shards")
            _compare_states(parts, f"{num} data shards")
    return allowed


def check_settings(make_loader: MakeLoader, *, steps: int = 12, settings: Sequence[dict[str, int]] = SETTINGS) -> None:
    """The stream of one data shard, and its state, are the same whatever makes batches ahead."""
    reference = _Reference(make_loader)
    for setting in settings:
        with _opened([make_loader(shard=(0, 1), **{**PLAIN, **setting})]) as (loader,):
            for step in range(reference.most(steps)):
                _compare(step, reference.batch(step), [next(loader)], _words(setting))
            plain = reference.loader
            plain.seek(loader.step)
            _compare_states([plain, loader], _words(setting))


def check_changes(make_loader: MakeLoader, *, changes: int = 5, seed: int = 0) -> None:
    """A stream goes on when data shards, threads and workers change, at steps drawn from `seed`."""
    reference, draw = _Reference(make_loader), random.Random(seed)
    state: Any = reference.loader.state()
    step = state["step"]
    shards = [num for num in SHARDS if _can_be_made(make_loader, num)]
    for _ in range(changes):
        steps, num = range(step, reference.most(step + draw.randint(1, 3))), draw.choice(shards)
        setting = {**PLAIN, **draw.choice([s for s in (PLAIN, *SETTINGS) if num < 4 or not s.get("workers")])}
        where = f"{num} data shards with {_words(setting)} from step {step} on"
        with _opened(make_loader(shard=(index, num), **setting) for index in range(num)) as parts:
            for part in parts:
                part.restore(json.loads(json.dumps(state)))
            for step in steps:
                _compare(step, reference.batch(step), [next(part) for part in parts], where)
            _compare_states(parts, where)
            state, step = parts[0].state(), steps.stop


def check_restore(make_loader: MakeLoader, *, steps: int = 12, times: int = 6, seed: int = 0) -> None:
    """A state taken at any step, sent through JSON, gives the batches of an uninterrupted run."""
    draw = random.Random(seed)
    for setting in (PLAIN, {"threads": 1}, {"workers": 1}):
        with _opened(make_loader(shard=(0, 1), **{**PLAIN, **setting}) for _ in range(2)) as (whole, again):
            steps = steps if whole.num_steps is None else min(steps, whole.num_steps)
            states, batches = [], []
            for _ in range(steps):
                states.append(json.dumps(whole.state()))
                batches.append(_copy(next(whole)))
            for begin in [0, *(draw.randrange(steps) for _ in range(times))]:
                again.restore(json.loads(states[begin]))
                where = f"restored at step {begin}, {_words(setting)}"
                assert again.step == begin, f"{where}: the Loader is at step {again.step}"
                for step in range(begin, min(begin + 3, steps)):
                    _compare(step, batches[step], [next(again)], where)


def check_work(make_loader: MakeLoader, *, far: int = FAR) -> None:
    """Restoring at a far step and making its batch takes no more calls than at the first step, but for a factor."""
    loader = make_loader(shard=(0, 1), **PLAIN)
    far = _allowed(loader, far)
    loader.seek(far)
    state = json.loads(json.dumps(loader.state()))
    first, late = make_loader(shard=(0, 1), **PLAIN), make_loader(shard=(0, 1), **PLAIN)
    loader.batch_at(0)  # what is imported and compiled once
    begin = first.state()
    calls = _calls(lambda: (first.restore(begin), next(first)))
    most = _MOST_WORK * calls
    if _calls(lambda: (late.restore(state), next(late)), most) > most:
        raise AssertionError(f"step {far}, restored: over {most} calls of functions, where step 0 takes {calls}")


def check_killed_worker(make_loader: MakeLoader, *, steps: int = 12, workers: int = 2) -> None:
    """Workers killed with signal 9, one and then all, change no batch."""
    reference = _Reference(make_loader)
    steps = reference.most(steps)
    with _opened([make_loader(shard=(0, 1), threads=0, workers=workers)]) as (loader,):
        for step in range(steps):
            if step in (steps // 4, steps // 2):
                pids = loader.worker_pids
                assert pids or not step, f"step {step}: worker_pids is empty, there is none to kill"
                for pid in pids[: 1 if step == steps // 4 else None]:
                    os.kill(pid, signal.SIGKILL)
            try:
                found = next(loader)
            except RunError as error:
                raise AssertionError(f"step {step}, after workers were killed: {error}") from error
            _compare(step, reference.batch(step), [found], "after workers were killed")


def check_held(make_loader: MakeLoader, *, held: int = 100) -> None:
    """`held` batches are as they were when as many more have come the same way: by iteration with each setting, from
    `batch_at`, a Grain source, Grain's `device_put` and `jax.device_put`, which on CPU may keep the very memory."""
    reference = _Reference(make_loader)
    num = reference.most(2 * held) // 2
    for name, stream in _ways(make_loader):
        batches = []
        try:
            for step, batch in zip(range(2 * num), stream):
                if step < num:
                    batches.append(batch)
        finally:
            stream.close()
        for step, batch in enumerate(batches):
            _compare(step, reference.batch(step), [batch], f"held while {num} more came from {name}")


def _ways(make_loader: MakeLoader) -> Iterator[tuple[str, Any]]:
    """(name, batches from step 0 on) of each way to get them."""
    import grain
    import jax

    for setting in (PLAIN, {"threads": 3}, {"workers": 2}):
        yield f"iteration, {_words(setting)}", _closing(make_loader(shard=(0, 1), **{**PLAIN, **setting}))
    loader = make_loader(shard=(0, 1), **PLAIN)
    yield "batch_at", (loader.batch_at(step) for step in count())
    cpu = jax.devices("cpu")[0]
    for setting in (PLAIN, {"workers": 2}):
        name = f"jax.device_put, {_words(setting)}"
        loader = make_loader(shard=(0, 1), **{**PLAIN, **setting})
        yield name, (jax.device_put(batch, cpu) for batch in _closing(loader))
    dataset = grain.MapDataset.source(make_loader(shard=(0, 1), **PLAIN).source(0)).to_iter_dataset()
    yield "a Grain source", _closing(iter(dataset))
    yield "grain.experimental.device_put", _closing(iter(grain.experimental.device_put(dataset, cpu)))


def _closing(stream: Any) -> Iterator[Batch]:
    try:
        yield from stream
    finally:
        stream.close()


class _Reference:
    """Global batches by step, from one Loader that makes each when it is asked for."""

    def __init__(self, make_loader: MakeLoader) -> None:
        self.loader = make_loader(shard=(0, 1), **PLAIN)

    def batch(self, step: int) -> Batch:
        found: Batch = self.loader.batch_at(step)
        return found

    def most(self, steps: int) -> int:
        """So many steps, or as many as there are."""
        return steps if self.loader.num_steps is None else min(steps, self.loader.num_steps)


@contextmanager
def _opened(loaders: Any) -> Iterator[list[Any]]:
    found = list(loaders)
    try:
        yield found
    finally:
        for loader in found:
            loader.close()


def _can_be_made(make_loader: MakeLoader, num: int) -> bool:
    """Whether the batch sizes, now and later, divide by a number of data shards."""
    try:
        make_loader(shard=(0, num), **PLAIN)
    except UserError:
        return num == 1
    return True


def _compare(step: int, expected: Batch, parts: Sequence[Batch], where: str) -> None:
    """Parts of a batch, one after the other, are the batch expected."""
    want, found = _arrays(expected), [_arrays(part) for part in parts]
    for part in found:
        names = sorted(set(want) ^ set(part))
        assert not names, f"step {step}, {where}: array {names[0]!r} is {'missing' if names[0] in want else 'too many'}"
    for name, array in want.items():
        values = np.concatenate([part[name] for part in found])
        said = f"step {step}, {where}: array {name!r}"
        for what, a, b in (("shape", array.shape, values.shape), ("dtype", array.dtype, values.dtype)):
            assert a == b, f"{said} has {what} {b}, it should have {a}"
        if (values != array).any():
            place = tuple(int(i) for i in np.argwhere(values != array)[0])
            raise AssertionError(f"{said} differs first at {list(place)}: it is {values[place]}, not {array[place]}")


def _arrays(batch: Batch) -> dict[str, np.ndarray]:
    found = {f"soft[{name!r}]": array for name, array in batch.soft.items()}
    found |= {name: array for name, array in batch.arrays().items() if name != "soft"}
    return {name: np.asarray(array) for name, array in found.items()}


def _copy(batch: Batch) -> Batch:
    import jax

    copied: Batch = jax.tree.map(np.array, batch)
    return copied


def _compare_states(loaders: Sequence[Any], where: str) -> None:
    """States that say the same, in JSON."""
    texts = [json.dumps(loader.state(), sort_keys=True) for loader in loaders]
    for text in texts:
        assert text == texts[0], f"{where}: the state is {text}, it should be {texts[0]}"


def _words(setting: dict[str, int]) -> str:
    return ", ".join(f"{name}={value}" for name, value in setting.items())


def _allowed(loader: Any, far: int) -> int:
    """`far`, or the last step below it by powers of ten that there is."""
    while far:
        try:
            loader.seek(far)
            loader.check(far + 1)
            return far
        except UserError:
            far //= 10
    return far


class _TooMuch(BaseException):
    """Ends work that is counted."""


def _calls(work: Callable[[], Any], most: float = math.inf) -> int:
    """How many calls of Python and C functions some work takes in this thread; it is ended beyond `most`."""
    made = 0

    def counting(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal made
        made += event in ("call", "c_call")
        if made > most:
            raise _TooMuch

    before = sys.getprofile()
    sys.setprofile(counting)
    try:
        work()
    except _TooMuch:
        pass
    finally:
        sys.setprofile(before)
    return made


def main(words: Sequence[str] | None = None) -> int:
    """The command: what holds, a line each; exit status 1 and the failure where one does not."""
    import mmdata

    parser = argparse.ArgumentParser(
        "python -m mmdata.testing", description="Show on your data what a Loader promises."
    )
    parser.add_argument("data", type=Path, help="the folder of a dataset or of a source")
    parser.add_argument("--layout", default="mmdata")
    parser.add_argument("--seq-len", type=int, required=True)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--held", type=int, default=100, help="batches held at once")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(words)

    def make_loader(**overrides: Any) -> mmdata.Loader:
        return mmdata.Loader(
            args.data, args.layout, seq_len=args.seq_len, batch_size=args.batch_size, seed=args.seed, **overrides
        )

    try:
        conform(
            make_loader,
            steps=args.steps,
            held=args.held,
            seed=args.seed,
            say=lambda line: print(f"holds: {line}", flush=True),
        )
    except AssertionError as error:
        print(f"fails: {error}", file=sys.stderr)
        return 1
    except (UserError, RunError) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
