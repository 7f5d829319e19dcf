"""The conformance kit: a sound Loader passes, and each way to be broken is found and named."""

import dataclasses
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmdata import Batch, Loader, Mixture, Schedule, Stage, testing
from tests.mmdata.toy_data import write_toy_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_dataset(tmp_path_factory.mktemp("data"))


class Stub:
    """A Loader in the caller's thread, to be broken: whatever is not written here is a sound Loader's."""

    def __init__(self, data: Path, shard: tuple[int, int], threads: int, workers: int) -> None:
        self.threads, self.workers, self.shard = threads, workers, shard
        self.inner = Loader(data, seq_len=64, batch_size=8, shard=shard, window_shards=1, group_windows=2, threads=0)
        self.worker_pids: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        return next(self.inner)


def maker(data: Path, kind: type[Stub] = Stub) -> Callable[..., Stub]:
    def make_loader(shard: tuple[int, int] = (0, 1), threads: int = 1, workers: int = 0) -> Stub:
        return kind(data, shard, threads, workers)

    return make_loader


def changed(batch: Batch, **arrays: np.ndarray) -> Batch:
    return dataclasses.replace(batch, **arrays)


def rolled(batch: Batch) -> Batch:
    return changed(batch, targets=np.roll(batch.targets, 1, axis=1))


class OtherShards(Stub):
    def __next__(self) -> Batch:
        batch = next(self.inner)
        return rolled(batch) if self.shard[1] == 4 and self.inner.step == 3 else batch


class ShardInState(Stub):
    def state(self) -> dict[str, Any]:
        return {**self.inner.state(), "shard": self.shard[0]}


class OtherType(Stub):
    def __next__(self) -> Batch:
        batch = next(self.inner)
        return changed(batch, kinds=batch.kinds.astype(np.int64)) if self.shard[1] == 2 else batch


class NoPositions(Stub):
    def __next__(self) -> Batch:
        batch = next(self.inner)
        return changed(batch, positions=None) if self.shard[1] == 2 else batch


class OtherThreads(Stub):
    def __next__(self) -> Batch:
        if self.threads == 3 and self.inner.step == 5:
            self.inner.seek(6)
        return next(self.inner)


class ThreadsInState(Stub):
    def state(self) -> dict[str, Any]:
        return {**self.inner.state(), "threads": self.threads}


class LosesItsPlace(Stub):
    """Fine with the setting it began with, one step too far with another."""

    def state(self) -> dict[str, Any]:
        return {**self.inner.state(), "quarantine": [], "step": self.inner.step}

    def restore(self, state: dict[str, Any]) -> None:
        self.inner.restore(state)
        if self.shard[1] > 1 and state["step"]:
            self.inner.seek(state["step"] + 1)


class SkipsOnRestore(Stub):
    def restore(self, state: dict[str, Any]) -> None:
        self.skip = state["step"] == 7
        self.inner.restore(state)

    def __next__(self) -> Batch:
        batch = self.inner.batch_at(self.inner.step + int(getattr(self, "skip", False)))
        self.inner.seek(self.inner.step + 1)
        return batch


class NumberInState(Stub):
    def restore(self, state: dict[str, Any]) -> None:
        self.inner.restore({**state, "step": state["step"] // 2 * 2})


class Replays(Stub):
    def restore(self, state: dict[str, Any]) -> None:
        for _ in range(state["step"]):
            self.inner.size_at(0)
        self.inner.restore(state)


class SkipsAfterAKill(Stub):
    """One process for each worker; a step is lost when one has died."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        sleeping = [sys.executable, "-c", "import time; time.sleep(60)"]
        self.processes = [subprocess.Popen(sleeping) for _ in range(self.workers)]
        self.worker_pids = [process.pid for process in self.processes]

    def __next__(self) -> Batch:
        if self.inner.step == 5 and self.processes and self.processes[0].wait(60) == -9:
            self.inner.seek(6)
        return next(self.inner)

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


class UsesMemoryAgain(Stub):
    """Every 150th batch lies where the first did: by iteration, with three threads."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.memory: list[np.ndarray] = []

    def __next__(self) -> Batch:
        batch = next(self.inner)
        if self.threads != 3:
            return batch
        self.memory.append(batch.tokens)
        if self.inner.step > 150:
            self.memory[self.inner.step - 151][:] = batch.tokens
        return batch


class SourceUsesMemoryAgain(UsesMemoryAgain):
    def __next__(self) -> Batch:
        return next(self.inner)

    def source(self, start: int) -> Any:
        stub = self

        class Source:
            def __len__(self) -> int:
                return 10**6

            def __getitem__(self, i: int) -> Batch:
                batch = stub.inner.batch_at(start + i)
                stub.memory.append(batch.tokens)
                stub.memory[0][:] = batch.tokens
                return batch

        return Source()


def quick_settings(make_loader: Any) -> None:
    testing.check_settings(make_loader, steps=8)


@pytest.mark.parametrize(
    "kind, check, message",
    [
        (
            OtherShards,
            testing.check_shards,
            r"step 2, 4 data shards: array 'targets' differs first at \[\d+, \d+\]: it",
        ),
        (ShardInState, testing.check_shards, r"2 data shards: the state is .*\"shard\": 1"),
        (OtherType, testing.check_shards, "step 0, 2 data shards: array 'kinds' has dtype int64, it should have uint8"),
        (NoPositions, testing.check_shards, "step 0, 2 data shards: array 'positions' is missing"),
        (OtherThreads, quick_settings, "step 5, threads=3: array 'tokens' differs first at"),
        (ThreadsInState, quick_settings, "threads=1: the state is"),
        (LosesItsPlace, testing.check_changes, r"step \d+, \d data shards with .* from step \d+ on: array 'tokens'"),
        (
            SkipsOnRestore,
            testing.check_restore,
            "step 7, restored at step 7, threads=0, workers=0: array 'tokens' differ",
        ),
        (NumberInState, testing.check_restore, r"restored at step \d+, threads=0, workers=0: the Loader is at step"),
        (
            Replays,
            testing.check_work,
            r"step 1000000000, restored: over \d+ calls of functions, where step 0 takes \d+",
        ),
        (SkipsAfterAKill, testing.check_killed_worker, "step 5, after workers were killed: array 'tokens' differs"),
        (Stub, testing.check_killed_worker, "step 3: worker_pids is empty"),
        (UsesMemoryAgain, testing.check_held, "step 0, held while 100 more came from iteration, threads=3: array 'tok"),
        (
            SourceUsesMemoryAgain,
            testing.check_held,
            r"step \d+, held while 100 more came from a Grain source: array 't",
        ),
    ],
)
def test_what_is_broken_is_named(data: Path, kind: type[Stub], check: Callable[..., Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check(maker(data, kind))


@pytest.mark.parametrize(
    "check", [testing.check_shards, testing.check_settings, testing.check_changes, testing.check_restore,
              testing.check_work, testing.check_held],
)  # fmt: skip
def test_what_is_sound_passes(data: Path, check: Callable[..., Any]) -> None:
    check(maker(data))


def test_changes_of_shards_and_settings_are_drawn_from_the_seed(data: Path) -> None:
    for seed in range(1, 6):
        testing.check_changes(maker(data), seed=seed, changes=8)


def test_a_schedule_and_a_validation_split_conform(data: Path) -> None:
    both = {"web": data / "web", "speech": data / "speech"}
    stages = [Stage(0, Mixture(both), 8), Stage(3, Mixture(both, {"web": 1, "speech": 0}), 4, {"web": 50})]

    def scheduled(**given: Any) -> Loader:
        return Loader(Schedule(stages), seq_len=64, window_shards=1, **{**given, "workers": 0})

    def validation(**given: Any) -> Loader:
        return Loader(data, split="validation", seq_len=64, batch_size=2, window_shards=1, **{**given, "workers": 0})

    assert testing.check_shards(scheduled) == [1, 2, 4] and testing.check_shards(validation) == [1, 2]
    for make_loader in (scheduled, validation):
        testing.check_settings(make_loader)
        testing.check_changes(make_loader)
        testing.check_restore(make_loader)
        testing.check_work(make_loader)
        testing.check_held(make_loader, held=5)


def test_the_loader_conforms(data: Path) -> None:
    said: list[str] = []

    def make_loader(**given: Any) -> Loader:
        return Loader(data, seq_len=64, batch_size=8, window_shards=1, group_windows=2, **given)

    testing.conform(make_loader, steps=8, say=said.append)
    assert len(said) == 7 and said[0] == "1, 2, 4, 8 data shards give one global stream"


def test_the_command_says_what_holds_and_what_does_not(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [str(data), "--seq-len", "64", "--steps", "4"]

    def conform(make_loader: Any, *, steps: int, held: int, seed: int, say: Callable[[str], Any]) -> None:
        assert make_loader(shard=(1, 2), threads=0).batch_at(0).tokens.shape == (4, 64) and (steps, held) == (4, 100)
        say("something")
        if broken:
            raise AssertionError("step 3, with nothing: array 'tokens' differs")

    monkeypatch.setattr(testing, "conform", conform)
    for broken, status in ((False, 0), (True, 1)):
        assert testing.main(words) == status
        out, error = capsys.readouterr()
        assert out == "holds: something\n" and ("fails: step 3, with nothing" in error) == broken
    assert testing.main([str(data / "nothing"), "--seq-len", "64"]) == 2
    assert "no dataset" in capsys.readouterr().err
