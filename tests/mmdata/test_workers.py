"""Worker processes: the same stream, without a copy; what happens when a worker, or the consumer, ends."""

import gc
import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmdata
from mmdata import Batch, Loader, Mixture, Schedule, Stage, UserError
from mmdata.errors import RunError
from mmdata.quarantine import BadRecords
from mmdata.workers import _cause
from tests.mmdata.toy_data import toy_samples, write_source, write_toy_dataset

L, B = 128, 8


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def no_worker_is_left() -> Iterator[None]:
    yield
    gc.collect()
    assert not children()


def loader_of(data: Any, **more: Any) -> Loader:
    defaults = {"seq_len": L, "batch_size": B, "window_shards": 1, "group_windows": 2, "threads": 0}
    return Loader(data, **{**defaults, **more})


def assert_same(a: Batch, b: Batch) -> None:
    x, y = a.arrays(), b.arrays()
    assert x.keys() == y.keys()
    for name in x:
        np.testing.assert_array_equal(x[name], y[name])


def children() -> list[int]:
    """Processes begun by this one which run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rsplit(")", 1)[1].split()[:2]
        except OSError:
            continue
        if int(parent) == os.getpid() and state != "Z" and b"mmdata.workers" in cmdline(int(path.parent.name)):
            found.append(int(path.parent.name))
    return found


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def wait_until(there: Any) -> None:
    deadline = time.monotonic() + 60
    while not there() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert there()


def schedule_of(data: Path) -> Schedule:
    both = {"web": data / "web", "speech": data / "speech"}
    first = Mixture(both, weights={"web": 0.7, "speech": 0.3})
    return Schedule([Stage(0, first, 8), Stage(3, Mixture(both), 4, {"web": 50}), Stage(5, first, 16)])


@pytest.mark.parametrize("workers, shard", [(1, (0, 1)), (3, (0, 1)), (2, (1, 4))])
def test_workers_and_shards_change_no_row_over_all_stages(data: Path, workers: int, shard: tuple[int, int]) -> None:
    plain = loader_of(schedule_of(data), batch_size=None, shard=shard)
    loader = loader_of(schedule_of(data), batch_size=None, shard=shard, workers=workers)
    for step in range(12):
        assert_same(next(loader), plain.batch_at(step))
        assert loader.state() == {**plain.state(), "step": step + 1, "stages": loader.state()["stages"]}
    assert len(loader.worker_pids) == workers
    loader.close()
    assert not loader.worker_pids
    assert_same(next(loader), plain.batch_at(12))  # a closed Loader can be used
    loader.close()


def test_the_stream_goes_on_from_any_state_and_nothing_stale_comes(data: Path) -> None:
    plain, loader = loader_of(data), loader_of(data, workers=2, read_ahead=6)
    state = json.loads(json.dumps(plain.state()))
    for step in (5, 0, 6, 6, 7, 31, 2, 10**6):
        loader.restore({**state, "step": step})
        for more in range(2):
            assert_same(next(loader), plain.batch_at(step + more))
    loader.close()


def test_a_source_or_dataset_that_is_open_is_read_by_its_folder(data: Path) -> None:
    opened = mmdata.open(data)
    opened["web"].train[0]
    for what in (opened, opened["speech"], Mixture({"other name": opened["web"]})):
        loader = loader_of(what, workers=1)
        assert_same(next(loader), loader_of(what).batch_at(0))
        loader.close()


@pytest.mark.parametrize("shard", [(0, 1), (1, 2)])
def test_a_validation_split_ends_padded_and_begins_again(data: Path, shard: tuple[int, int]) -> None:
    more: dict[str, Any] = {"split": "validation", "batch_size": 4, "shard": shard}
    plain = list(loader_of(data, **more))
    rows = loader_of(data, **more).feeds.num_rows
    assert rows and rows % 4 and not plain[-1].segment_ids[-1].any(), "the last batch has rows of padding"
    loader = loader_of(data, **more, workers=2, read_ahead=5)
    for _ in range(2):
        batches = list(loader)
        assert len(batches) == len(plain)
        for a, b in zip(batches, plain):
            assert_same(a, b)
    loader.close()


def test_two_loaders_at_a_time(data: Path) -> None:
    a, b = loader_of(data, workers=1), loader_of(data, workers=1, seed=1)
    for step in range(4):
        assert_same(next(a), loader_of(data).batch_at(step))
        assert_same(next(b), loader_of(data, seed=1).batch_at(step))
    a.close()
    b.close()


def test_batches_held_are_not_written_again_and_their_memory_is_given_back(data: Path) -> None:
    plain, loader = loader_of(data), loader_of(data, workers=2)
    held = [next(loader) for _ in range(100)]
    assert all(batch.tokens.base is not None for batch in held)
    ring = loader._ahead._ring  # type: ignore[union-attr]
    most = ring.allocated_bytes()
    for _ in range(100):
        next(loader)
    assert ring.allocated_bytes() <= 1.1 * most
    for step, batch in enumerate(held):
        assert_same(batch, plain.batch_at(step))
    del held, batch
    next(loader)
    assert ring.allocated_bytes() < 0.2 * most
    batch = next(loader)
    loader.close()
    assert_same(batch, plain.batch_at(201))  # and it outlives the workers
    assert not [name for name in os.listdir("/dev/shm") if "mmdata" in name]


def test_a_killed_worker_is_started_again_and_its_steps_are_made_again(data: Path) -> None:
    plain, loader = loader_of(data), loader_of(data, workers=2, read_ahead=8)
    before = None
    for step in range(30):
        if step in (4, 5, 17):
            before = loader.worker_pids
            for pid in before[: 1 if step < 17 else 2]:
                os.kill(pid, signal.SIGKILL)
        assert_same(next(loader), plain.batch_at(step))
    assert before and set(loader.worker_pids).isdisjoint(before)
    loader.close()


def patch_workers(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Have each process that Python begins run `code` first, in which `at(step)` is called before a batch is made."""
    program = """
        import os, sys, signal
        if "mmdata.workers" in " ".join(sys.orig_argv):
            from mmdata import loader
            plain = loader.Loader.write_batch
            def write_batch(self, step, memory):
                at(step)
                plain(self, step, memory)
            loader.Loader.write_batch = write_batch
    """
    (folder / "sitecustomize.py").write_text(textwrap.dedent(code) + textwrap.dedent(program))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(Path(mmdata.__file__).parents[1])]))


def test_a_step_that_kills_every_worker_is_an_error_that_says_so(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed, tried = tmp_path / "allowed", tmp_path / "tried"
    code = f"""
        def at(step):
            if step == 3 and not os.path.exists({str(allowed)!r}):
                with open({str(tried)!r}, "a") as file:
                    print(os.getpid(), file=file)
                os.kill(os.getpid(), signal.SIGKILL)
    """
    patch_workers(tmp_path, monkeypatch, code)
    plain, loader = loader_of(data), loader_of(data, workers=2)
    for step in range(3):
        assert_same(next(loader), plain.batch_at(step))
    with pytest.raises(RunError, match=r"makes step 3 died 3 times: killed by signal 9 \(SIGKILL\), likely as memory"):
        next(loader)
    assert len(set(tried.read_text().split())) == 3 and loader.step == 3
    allowed.touch()
    for step in range(3, 9):
        assert_same(next(loader), plain.batch_at(step))
    loader.close()


def test_steps_that_are_not_wanted_any_more_are_not_made(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, go = tmp_path / "made", tmp_path / "go"
    code = f"""
        import time
        def at(step):
            with open({str(made)!r}, "a") as file:
                print(step, file=file)
            while step == 1 and not os.path.exists({str(go)!r}):
                time.sleep(0.01)
    """
    patch_workers(tmp_path, monkeypatch, code)
    loader = loader_of(data, workers=1, read_ahead=9)
    next(loader)
    loader.seek(100)
    go.touch()
    assert_same(next(loader), loader_of(data).batch_at(100))
    assert {int(step) for step in made.read_text().split()} <= {0, 1, *range(100, 109)}
    loader.close()


def test_an_error_in_a_worker_is_the_consumers_and_comes_at_its_step(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
        class Odd(Exception):
            def __reduce__(self):
                raise TypeError("not to be pickled")

        def at(step):
            if step == 2:
                raise ZeroDivisionError("a bug")
            if step == 4:
                raise Odd("very odd")
    """
    patch_workers(tmp_path, monkeypatch, code)
    plain, loader = loader_of(data), loader_of(data, workers=1, read_ahead=5)
    for step in range(2):
        assert_same(next(loader), plain.batch_at(step))
    pids = loader.worker_pids
    for _ in range(2):
        with pytest.raises(ZeroDivisionError, match="a bug") as error:
            next(loader)
        assert "in write_batch" in error.value.__notes__[0]
    assert loader.step == 2 and loader.worker_pids == pids
    loader.seek(3)
    assert_same(next(loader), plain.batch_at(3))
    with pytest.raises(RunError, match="Odd in a worker process: very odd"):
        next(loader)
    loader.close()


def test_a_bad_record_and_a_cap_are_the_same_errors_as_without_workers(tmp_path: Path) -> None:
    write_source(tmp_path, "web", {"train": toy_samples("web", 20, 0)}, num_shards=1)
    shard = next((tmp_path / "web").glob("web-train.array_record*"))
    plain_rows = loader_of(tmp_path / "web", batch_size=1).report()["sources"]["web"]["rows"]
    capped = Schedule([Stage(0, Mixture({"web": tmp_path / "web"}), 1, {"web": 1})])
    loader = loader_of(capped, batch_size=None, workers=1, read_ahead=3)
    for _ in range(plain_rows):
        next(loader)
    with pytest.raises(UserError, match="has given all rows"):
        next(loader)
    loader.close()
    damaged = bytearray(shard.read_bytes())
    damaged[damaged.find(b"web/7.txt")] ^= 1
    shard.write_bytes(bytes(damaged))
    plain, loader = (loader_of(tmp_path / "web", batch_size=1, workers=n, on_bad_record="raise") for n in (0, 2))
    errors = []
    for one in (plain, loader):
        with pytest.raises(BadRecords) as found:
            for _ in range(plain_rows):
                next(one)
        errors.append(found.value)
    assert errors[0].entries == errors[1].entries and str(errors[0]) == str(errors[1])
    assert plain.step == loader.step
    healed = {**loader.state(), "quarantine": [entry.to_json() for entry in errors[0].entries]}
    loader.restore(healed)  # the workers learn of it
    plain.restore(healed)
    for _ in range(5):
        assert_same(next(loader), next(plain))
    loader.close()


def test_a_dataset_that_was_built_anew_is_refused(tmp_path: Path) -> None:
    write_toy_dataset(tmp_path / "data")
    loader = loader_of(tmp_path / "data", workers=1)
    write_source(tmp_path / "other", "web", {"train": toy_samples("web", 30, 9)})
    (tmp_path / "data" / "web").rename(tmp_path / "old")
    (tmp_path / "other" / "web").rename(tmp_path / "data" / "web")
    with pytest.raises(UserError, match="source 'web' is not what it was when the Loader was made"):
        next(loader)
    loader.close()


def test_a_pickled_loader_goes_on_with_the_same_step(data: Path) -> None:
    loader = loader_of(schedule_of(data), batch_size=None, shard=(1, 2), limits={"images": 2})
    loader.seek(4)
    again = pickle.loads(pickle.dumps(loader))
    assert again.state() == loader.state() and again.shard == (1, 2)
    for _ in range(4):
        assert_same(next(again), next(loader))


def test_workers_load_no_jax(data: Path) -> None:
    loader = loader_of(data, workers=1)
    next(loader)
    maps = Path(f"/proc/{loader.worker_pids[0]}/maps").read_text()
    assert "numpy" in maps and "jaxlib" not in maps
    loader.close()


def test_workers_end_with_a_loader_that_nothing_refers_to(data: Path) -> None:
    loader = loader_of(data, workers=2)
    next(loader)
    assert len(children()) == 2
    del loader
    assert not children()


PROGRAM = """
import sys, time
from mmdata import Loader
loader = Loader({data!r}, seq_len=128, batch_size=8, window_shards=1, group_windows=2, workers=2)
held = [next(loader) for _ in range(5)]
print(*loader.worker_pids, flush=True)
"""


def start(data: Path, more: str, tmp_path: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """A script without a `__main__` guard, and the process ids of its workers."""
    (tmp_path / "script.py").write_text(PROGRAM.format(data=str(data)) + more)
    process = subprocess.Popen(
        [sys.executable, tmp_path / "script.py"],
        env={**os.environ, "PYTHONPATH": str(Path(mmdata.__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    return process, [int(pid) for pid in process.stdout.readline().split()]


def test_no_worker_outlives_a_consumer_that_is_killed(data: Path, tmp_path: Path) -> None:
    process, pids = start(data, "time.sleep(60)", tmp_path)
    assert len(pids) == 2 and all(b"mmdata.workers" in cmdline(pid) for pid in pids)
    process.kill()
    process.communicate()
    wait_until(lambda: not any(cmdline(pid) for pid in pids))


def test_a_script_that_ends_leaves_no_process_and_says_nothing(data: Path, tmp_path: Path) -> None:
    process, pids = start(data, "", tmp_path)
    assert process.communicate(timeout=60)[1] == "" and process.returncode == 0
    assert len(pids) == 2 and not any(cmdline(pid) for pid in pids)


def test_batches_held_to_the_end_of_a_script_say_nothing(data: Path, tmp_path: Path) -> None:
    process, _ = start(data, "held = [next(loader) for _ in range(3)]\nloader.close()", tmp_path)
    assert process.communicate(timeout=60)[1] == "" and process.returncode == 0


def test_ctrl_c_is_the_consumers_alone(data: Path, tmp_path: Path) -> None:
    more = """
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    same = (next(loader).tokens == loader.batch_at(5).tokens).all()
    print("went on", same, *loader.worker_pids)
"""
    process, pids = start(data, more, tmp_path)
    assert all(os.getsid(pid) == pid for pid in pids)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    out, said = process.communicate(timeout=60)
    assert out.split() == ["went", "on", "True", *map(str, pids)] and said == ""


@pytest.mark.parametrize("does", ["held.clear()", "loader.close()", "loader.seek(9)", "del loader", "ask()"])
def test_what_a_forked_child_ends_or_lets_go_stays_its_parents(data: Path, tmp_path: Path, does: str) -> None:
    more = f"""
import gc, os, traceback
from mmdata import RunError
held += [next(loader) for _ in range(15)]
free = [next(loader) for _ in range(5)]
del free[:], free
def ask():
    try:
        next(loader)
    except RunError as error:
        assert "forked" in str(error)
        loader.close()
        assert (next(loader).tokens == loader.batch_at(25).tokens).all()
        loader.close()
        return
    raise AssertionError("took its parent's batch")
pids, child = loader.worker_pids, os.fork()
if not child:
    try:
        {does}
        gc.collect()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
assert os.waitpid(child, 0)[1] == 0
for step, batch in enumerate(held):
    assert (batch.tokens == loader.batch_at(step).tokens).all(), step
for step in range(25, 40):
    assert (next(loader).tokens == loader.batch_at(step).tokens).all(), step
assert loader.worker_pids == pids
"""
    process, _ = start(data, more, tmp_path)
    try:
        said = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode == 0, said


@pytest.mark.parametrize("signals, words", [("SIGKILL", ["memory"]), ("SIGBUS", ["memory", "cut short"])])
def test_what_kills_workers_is_said_with_every_likely_cause(signals: str, words: list[str]) -> None:
    said = _cause(-signal.Signals[signals])
    assert signals in said and all(word in said for word in words)


@pytest.mark.parametrize("name", ["threads", "workers", "read_ahead"])
@pytest.mark.parametrize("value", [-1, 1.5, True, "2"])
def test_counts_are_whole_numbers(data: Path, name: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"{name} is {value!r}: use a whole number"):
        loader_of(data, **{name: value})
