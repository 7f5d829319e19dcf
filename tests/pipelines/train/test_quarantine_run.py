"""Quarantine in a run: what one process cannot read is left out by all, from the same step, and for good."""

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import mmdata
from mmdata.errors import RunError
from pipelines.train.checkpoint import restore_params
from pipelines.train.folder import read_metrics
from pipelines.train.quarantine import next_batch
from pipelines.train.run import open_loader
from pipelines.train.trainer import train
from tests.mmdata.test_quarantine import flip, spans_of
from tests.mmdata.toy_data import toy_samples, write_source

STEPS = 14
TOY = """
seq_len = 128
batch_size = 4
steps = {steps}
quarantine_limit = {limit}
[sources]
web = "{data}"
[model]
layers = 1
width = 16
heads = 2
head_dim = 8
mlp = 32
[optimizer]
learning_rate = 0.01
decay_steps = 14
[checkpoint]
every = 5
[mesh]
tensor = {tensor}
"""

# What each of two processes does: train, with files of its own, and tell what its Loader read at each step.
PROGRAM = """
import hashlib, json, os, sys, jax
port, number, run, out, log = sys.argv[1:]
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=int(number))
import mmdata
from pipelines.train import trainer
from pipelines.train.quarantine import next_batch
told = open(log, "w")
def telling(loader, folder):
    batch = next_batch(loader, folder)
    digest = hashlib.sha256(batch.tokens.tobytes() + batch.segment_ids.tobytes()).hexdigest()
    told.write(json.dumps([loader.step - 1, digest, loader.state()["quarantine"], loader.shard]) + "\\n")
    told.flush()
    return batch
trainer.next_batch = telling
try:
    trainer.train(run, out)
except mmdata.RunError as error:
    told.write(json.dumps(str(error)) + "\\n")
    told.flush()
    os._exit(3)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source `whole`, and `bad`, a copy of which a record of each of two shards is damaged."""
    folder = tmp_path_factory.mktemp("runs")
    write_source(folder, "web", {"train": toy_samples("web", 60, 0)})
    (folder / "web").rename(folder / "whole")
    shutil.copytree(folder / "whole", folder / "bad")
    spans = spans_of(folder / "whole")
    for shard, record in ((1, 5), (2, 3)):
        path = sorted((folder / "bad").glob("web-train.array_record*"))[shard]
        flip(path, 8 * spans[shard][record].start + 99)
    return folder


def run_file(home: Path, name: str, data: str, tensor: int = 1, steps: int = STEPS, limit: int = 100) -> Path:
    path = home / f"{name}.toml"
    path.write_text(TOY.format(data=data, tensor=tensor, steps=steps, limit=limit))
    return path


def entries_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]


def losses(out: Path) -> list[float]:
    return [line["total"] for line in read_metrics(out) if "total" in line]


def assert_same_end(a: Path, b: Path) -> None:
    (step, ours), (other, theirs) = restore_params(a / "checkpoints"), restore_params(b / "checkpoints")
    assert step == other == STEPS
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.fixture(scope="module")
def damaged(home: Path) -> Path:
    """The run of one process over damaged files."""
    train(run_file(home, "damaged", "bad"), home / "damaged")
    return home / "damaged"


def test_a_run_writes_what_it_leaves_out_and_explains_itself_by_it(home: Path, damaged: Path) -> None:
    entries = entries_of(damaged)
    assert sorted(entry["record"] for entry in entries) == [3, 5]
    assert all(entry["split"] == "train" and entry["source"] == "web" and entry["why"] for entry in entries)
    loader = open_loader(damaged)
    assert [e.to_json() for e in loader.quarantine] == sorted(
        ({key: entry[key] for key in ("source", "shard", "record", "from_step")} for entry in entries),
        key=lambda e: e["shard"],
    )
    plain = mmdata.Loader(home / "whole", seq_len=128, batch_size=4)
    split = plain.feeds.feeds[0].source.train
    for entry in entries:
        shard = [info.file for info in split.shards].index(entry["shard"])
        number = int(split.shard_bounds[shard]) + entry["record"]
        (document,) = split.catalog(["id"], number, number + 1).column("id").to_pylist()
        steps = [step for step, _ in plain.steps_of(document, STEPS)]
        assert entry["from_step"] == steps[0]  # the first that delivers it
        assert document not in {e.id for e in loader.explain(steps[0])}
        assert document in {e.id for e in plain.explain(steps[0])}


def test_a_run_stopped_anywhere_goes_on_over_healthy_files_as_over_damaged_ones(home: Path, damaged: Path) -> None:
    out = home / "resumed"
    # Stopped behind a checkpoint, and what was found after it is in quarantine.jsonl alone.
    last = max(entry["from_step"] for entry in entries_of(damaged))
    kept = (last // 5) * 5
    assert kept <= last < STEPS - 1
    run_file(home, "resumed", "bad", steps=last + 1).write_text(run_file(home, "r", "bad", steps=last + 1).read_text())
    train(home / "resumed.toml", out)
    shutil.rmtree(out / "checkpoints" / str(last + 1))
    (out / "summary.json").unlink()
    train(run_file(home, "resumed", "whole"), out)
    assert losses(out) == losses(damaged) and entries_of(out) == entries_of(damaged)
    assert_same_end(out, damaged)


def test_a_run_stops_above_its_limit_and_goes_on_when_it_is_raised(home: Path, damaged: Path) -> None:
    out = home / "limited"
    with pytest.raises(RunError, match="2 records of 2 shards would be left out, more than quarantine_limit = 1"):
        train(run_file(home, "limited", "bad", limit=1), out)
    assert len(entries_of(out)) == 1
    train(run_file(home, "limited", "bad", limit=2), out)
    assert losses(out) == losses(damaged)


class Threads:
    """Two threads in the place of two processes, for what they gather and for which of them is asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._here, self._barrier = threading.local(), threading.Barrier(2, timeout=60)
        self._given: list[Any] = [None, None]
        self.gathers = 0
        monkeypatch.setattr(jax, "process_count", lambda: 2)
        monkeypatch.setattr(jax, "process_index", lambda: self._here.number)
        monkeypatch.setattr("pipelines.train.quarantine._gather", self._gather)

    def run(self, task: Callable[[int], Any]) -> list[Any]:
        def one(number: int) -> Any:
            self._here.number = number
            try:
                return task(number)
            except Exception as error:
                return error

        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(one, (0, 1)))

    def _gather(self, array: np.ndarray) -> np.ndarray:
        self._given[self._here.number] = array
        self._barrier.wait()
        found = np.stack(self._given)
        self._barrier.wait()
        self.gathers += self._here.number == 0
        return found


@pytest.mark.parametrize("shards", [1, 2])
def test_processes_agree_on_every_batch_whichever_of_them_sees_damage(
    shards: int, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    other = tmp_path / "other"  # damaged in one place where `bad` is, and in another
    shutil.copytree(home / "bad", other)
    path = sorted(other.glob("web-train.array_record*"))[3]
    flip(path, 8 * spans_of(home / "whole")[3][0].start + 99)
    threads = Threads(monkeypatch)
    parts = [
        mmdata.Loader(folder, seq_len=128, batch_size=4, shard=(i % shards, shards), on_bad_record="raise", threads=1)
        for i, folder in enumerate((home / "bad", other))
    ]
    steps, out = 3 * STEPS, tmp_path / "run"
    out.mkdir()
    with caplog.at_level(logging.WARNING, "mmdata"):
        read = threads.run(lambda number: [next_batch(parts[number], out) for _ in range(steps)])
    assert parts[0].quarantine == parts[1].quarantine and len(parts[0].quarantine) == 3
    assert len(caplog.records) == len(entries_of(out)) == 3
    assert threads.gathers <= steps + 2 * 3  # one a step, and two more where something is found
    alone = mmdata.Loader(home / "whole", seq_len=128, batch_size=4, quarantine=parts[0].quarantine, threads=0)
    for step, batches in enumerate(zip(*read, strict=True)):
        whole = alone.batch_at(step).tokens
        for i, batch in enumerate(batches):
            np.testing.assert_array_equal(batch.tokens, np.split(whole, shards)[i % shards])
    for part in parts:
        part.close()


def test_processes_that_have_not_read_the_same_are_told_so(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = Threads(monkeypatch)
    parts = [mmdata.Loader(home / "whole", seq_len=128, batch_size=4, threads=0) for _ in (0, 1)]
    parts[1].seek(1)
    for error in threads.run(lambda number: next_batch(parts[number], tmp_path)):
        assert isinstance(error, RunError) and "have not read the same so far" in str(error)
    parts[1].seek(0)
    file = mmdata.open(home / "whole")["web"].train.shards[0].file
    parts[1].leave_out([{"source": "web", "shard": file, "record": 0, "from_step": 9}])
    for error in threads.run(lambda number: next_batch(parts[number], tmp_path)):
        assert isinstance(error, RunError) and "have not read the same so far" in str(error)


@pytest.mark.parametrize("blind", [0, 1])
@pytest.mark.parametrize("fault", [RunError("the store does not answer"), OSError("bad disk"), KeyError("a bug")])
def test_what_ends_one_process_ends_all(
    fault: Exception, blind: int, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = Threads(monkeypatch)
    parts = [mmdata.Loader(home / "whole", seq_len=128, batch_size=4, threads=0) for _ in (0, 1)]
    read = parts[1 - blind].read

    def faulty(step: int) -> mmdata.Batch:
        if step == 3:
            raise fault
        return read(step)

    monkeypatch.setattr(parts[1 - blind], "read", faulty)
    for _ in range(3):
        assert all(isinstance(b, mmdata.Batch) for b in threads.run(lambda number: next_batch(parts[number], tmp_path)))
    errors = threads.run(lambda number: next_batch(parts[number], tmp_path))
    assert errors[1 - blind] is fault
    assert isinstance(errors[blind], RunError)
    assert f"process {1 - blind} of this run could not read step 3" in str(errors[blind])


def test_a_full_disk_under_the_quarantine_ends_all_before_the_batch_is_used(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, full = Threads(monkeypatch), RunError("no space left")

    def write(*_: Any) -> None:
        raise full

    monkeypatch.setattr("pipelines.train.quarantine._write", write)
    options: dict[str, Any] = {"seq_len": 128, "batch_size": 4, "on_bad_record": "raise", "threads": 0}
    parts = [mmdata.Loader(home / "bad", **options) for _ in (0, 1)]
    errors = threads.run(lambda number: [next_batch(parts[number], tmp_path) for _ in range(STEPS)])
    assert errors[0] is full
    assert isinstance(errors[1], RunError) and "process 0 of this run" in str(errors[1])


def start(home: Path, name: str, data: tuple[str, str], tensor: int, limit: int = 100) -> list[subprocess.Popen[bytes]]:
    """Two processes of one run, each with its own folder of the data."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)}
    environment |= {"XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    processes = []
    for number in (0, 1):
        run = run_file(home, f"{name}-{number}", data[number], tensor, limit=limit)
        args = [str(port), str(number), str(run), str(home / name), str(home / f"{name}-{number}.log")]
        processes.append(
            subprocess.Popen([sys.executable, "-c", PROGRAM, *args], env=environment, stdout=subprocess.DEVNULL)
        )
    return processes


def finish(processes: list[subprocess.Popen[bytes]]) -> list[int]:
    try:
        return [process.wait(timeout=240) for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()


def told(home: Path, name: str, number: int) -> list[Any]:
    return [json.loads(line) for line in (home / f"{name}-{number}.log").read_text().splitlines()]


@pytest.mark.parametrize("blind", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_two_processes_of_one_tensor_group_agree_when_one_alone_sees_damage(
    blind: int, home: Path, damaged: Path
) -> None:
    """They read equal rows, each from its own files: one from whole ones, the other from damaged ones."""
    name = f"tensor{blind}"
    data = ("whole", "bad") if blind == 0 else ("bad", "whole")
    assert finish(start(home, name, data, tensor=2)) == [0, 0]
    one, other = told(home, name, 0), told(home, name, 1)
    assert [line[0] for line in one] == list(range(STEPS))
    assert one == other  # every batch, and at each step what is left out so far; both are data shard 0 of 1
    assert one[0][3] == [0, 1]
    assert [entry["record"] for entry in one[-1][2]] == [entry["record"] for entry in sorted_of(damaged)]
    assert [{**e, "why": ""} for e in entries_of(home / name)] == [{**e, "why": ""} for e in entries_of(damaged)]
    # The same batches as one process alone has: it reads the same global batch.
    alone = mmdata.Loader(home / "whole", seq_len=128, batch_size=4, quarantine=one[-1][2])
    for step, digest, *_ in one:
        assert digest == digest_of(alone.batch_at(step))
    np.testing.assert_allclose(losses(home / name), losses(damaged), rtol=1e-4)


@pytest.mark.slow
def test_two_data_shards_leave_out_the_same_and_a_resume_keeps_to_it(home: Path, damaged: Path) -> None:
    assert finish(start(home, "shards", ("bad", "bad"), tensor=1)) == [0, 0]
    one, other = told(home, "shards", 0), told(home, "shards", 1)
    assert [line[3] for line in (one[0], other[0])] == [[0, 2], [1, 2]]
    assert [(line[0], line[2]) for line in one] == [(line[0], line[2]) for line in other]
    assert [{**e, "why": ""} for e in entries_of(home / "shards")] == [{**e, "why": ""} for e in entries_of(damaged)]
    np.testing.assert_allclose(losses(home / "shards"), losses(damaged), rtol=1e-4)
    # Again from the checkpoint before the last, over whole files.
    shutil.rmtree(home / "shards" / "checkpoints" / str(STEPS))
    (home / "shards" / "summary.json").unlink()
    before = losses(home / "shards")
    assert finish(start(home, "shards", ("whole", "whole"), tensor=1)) == [0, 0]
    assert losses(home / "shards") == before
    again = told(home, "shards", 0)
    assert [line[:2] for line in again] == [line[:2] for line in one][-len(again) :] and len(again) < STEPS


@pytest.mark.slow
def test_two_processes_stop_together_above_the_limit(home: Path) -> None:
    assert finish(start(home, "stopped", ("whole", "bad"), tensor=2, limit=1)) == [3, 3]
    words = {told(home, "stopped", number)[-1] for number in (0, 1)}
    assert len(words) == 1 and "more than quarantine_limit = 1" in words.pop()


def sorted_of(out: Path) -> list[dict[str, Any]]:
    return sorted(entries_of(out), key=lambda entry: (entry["source"], entry["shard"], entry["record"]))


def digest_of(batch: mmdata.Batch) -> str:
    import hashlib

    return hashlib.sha256(batch.tokens.tobytes() + batch.segment_ids.tobytes()).hexdigest()
