"""A build that is killed, interrupted, starved or poisoned: it goes on to the same bytes, and never half a dataset."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import toy_build
from toy_build import load_toy, make_media, paint, toy_recipe, tree

import mmdata
from mmdata.errors import UserError
from pipelines.build.engine import build
from pipelines.build.graph import Graph
from pipelines.build.ledger import read_ledger
from pipelines.build.report import BuildReport


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("media")
    make_media(root)
    return root


@pytest.fixture(scope="module")
def whole(media: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BuildReport]:
    """An uninterrupted build with one worker."""
    out = tmp_path_factory.mktemp("whole") / "out"
    return out, run(media, out)


def run(media: Path, out: Path, workers: int = 1, **changes: Any) -> BuildReport:
    return build(toy_recipe(media, **changes), out, workers, progress=False, load=load_toy)


def start(media: Path, out: Path, workers: int = 2, sleep: float = 0.0, **how: Any) -> subprocess.Popen[bytes]:
    """A build in a process of its own, to be killed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TOY_SLEEP": str(sleep)}
    command = [sys.executable, toy_build.__file__, str(media), str(out), str(workers)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, start_new_session=True, **how)


def wait_for_units(out: Path, stage: str, count: int) -> None:
    for _ in range(600):
        if len(list(out.glob(f".work/{stage}/*/*.done.json"))) >= count:
            return
        time.sleep(0.02)
    raise AssertionError(f"no {count} units of {stage} in time")


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("everyone", [True, False])
def test_a_killed_build_goes_on_to_the_same_bytes(
    media: Path, whole: tuple[Path, BuildReport], tmp_path: Path, everyone: bool
) -> None:
    """kill -9 of the whole group, and of the supervisor alone, whose workers then leave by themselves."""
    out = tmp_path / "out"
    process = start(media, out, sleep=0.05)
    wait_for_units(out, "encode", 2)
    workers = children(process.pid)
    assert workers
    (os.killpg if everyone else os.kill)(process.pid, signal.SIGKILL)
    process.wait()
    with pytest.raises(UserError, match="not a finished dataset"):
        mmdata.open(out)
    done = len(list(out.glob(".work/encode/*/*.done.json")))
    report = run(media, out, workers=2)
    assert 0 < report.units_run < sum(s.units for s in report.stages)
    assert sum(s.stale for s in report.stages if s.stage == "encode") <= 16 - done
    assert tree(out) == tree(whole[0])
    assert not list(out.rglob("*.tmp"))
    for pid in workers:
        assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2]


def test_a_killed_worker_costs_nothing(media: Path, whole: tuple[Path, BuildReport], tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(media, out, sleep=0.05)
    wait_for_units(out, "encode", 1)
    os.kill(children(process.pid)[0], signal.SIGKILL)
    assert process.wait(timeout=60) == 0, process.communicate()[1]
    assert tree(out) == tree(whole[0])


def test_ctrl_c_leaves_a_build_that_goes_on(media: Path, whole: tuple[Path, BuildReport], tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(media, out, sleep=0.05)
    wait_for_units(out, "encode", 1)
    os.killpg(process.pid, signal.SIGINT)
    _, words = process.communicate(timeout=60)
    assert process.returncode == 1
    assert words.decode().strip() == "interrupted; the same command again goes on from here"
    run(media, out)
    assert tree(out) == tree(whole[0])


def test_a_full_disk_is_one_line_and_no_dataset(media: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(media, out, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)))
    _, words = process.communicate(timeout=60)
    assert process.returncode == 1, words
    assert len(words.decode().strip().splitlines()) == 1 and "space" in words.decode()
    assert not list(out.glob("*/manifest.json")) and not (out / "manifest.json").exists()
    run(media, out)
    assert mmdata.open(out)


def test_a_picture_that_crashes_the_codec_is_found_and_left_out(media: Path, tmp_path: Path) -> None:
    poisoned = tmp_path / "media"
    shutil.copytree(media, poisoned)
    paint(poisoned / "pictures" / "05.png", toy_build.KILLER)
    report = run(poisoned, tmp_path / "out", workers=2)
    assert report.total("samples") == 46 and report.dropped == {"cannot decode": 1, "crashed its worker": 1}
    lines = {line["uri"]: line for line in read_ledger(tmp_path / "out" / "ledger" / "pictures.jsonl")}
    assert lines["05.png"]["stage"] == "encode" and lines["05.png"]["detail"].startswith("SIGKILL")
    assert run(poisoned, tmp_path / "out").units_run == 0
    paint(poisoned / "pictures" / "05.png", (1, 2, 3))
    assert run(poisoned, tmp_path / "out").dropped == {"cannot decode": 1}  # mended, so tried again


@pytest.mark.parametrize(
    ("colour", "reason", "limits"),
    [
        (toy_build.STUCK, "took too long", {"stuck_seconds": 6.0}),
        (toy_build.HUNGRY, "out of memory", {"worker_bytes": 600_000_000}),
    ],
)
def test_a_picture_that_takes_all_time_or_memory_costs_no_other(
    media: Path, tmp_path: Path, colour: tuple[int, int, int], reason: str, limits: dict[str, float]
) -> None:
    """A real hang, and real memory: the others of its unit and of its batch are kept, each whole."""
    poisoned, mild = tmp_path / "media", tmp_path / "mild"
    for folder, paint_it in ((poisoned, colour), (mild, toy_build.REFUSED)):
        shutil.copytree(media, folder)
        paint(folder / "pictures" / "05.png", paint_it)
    report = run(poisoned, tmp_path / "out", workers=2, limits=limits)
    assert report.dropped == {"cannot decode": 1, reason: 1} and report.total("samples") == 46
    (line,) = [x for x in read_ledger(tmp_path / "out" / "ledger" / "pictures.jsonl") if x["reason"] == reason]
    assert line["uri"] == "05.png" and line["stage"] == "encode"
    run(mild, tmp_path / "refused")
    assert items(tmp_path / "out") == items(tmp_path / "refused")  # as where that picture costs no more than itself


def test_another_limit_runs_the_units_again_that_left_something_out_and_no_other(media: Path, tmp_path: Path) -> None:
    """A picture for which the codec needs a gigabyte: too much for one limit, and well below another."""
    own, out = tmp_path / "media", tmp_path / "out"
    shutil.copytree(media / "pictures", own / "pictures")
    paint(own / "pictures" / "05.png", toy_build.LARGE)
    source = [{"name": "pictures", "format": "captions", "path": "pictures"}]
    strict, mild = {"worker_bytes": 600_000_000}, {"worker_bytes": 4_000_000_000}
    assert run(own, out, source=source, limits=strict).dropped == {"cannot decode": 1, "out of memory": 1}
    assert run(own, out, source=source, limits=strict).units_run == 0
    said = build(toy_recipe(own, source=source, limits=mild), out, 1, explain=True, progress=False, load=load_toy)
    assert [(row.stage, row.stale, row.why) for row in said.stages if row.stale] == [
        ("encode", 1, "limits.worker_bytes changed, and something was left out")
    ]
    report = run(own, out, source=source, limits=mild)
    assert report.dropped == {"cannot decode": 1}
    assert {s.stage: s.stale for s in report.stages if s.stale} == {"encode": 1, "shuffle": 1, "write": 3, "finish": 1}
    run(own, tmp_path / "fresh", source=source, limits=mild)
    assert tree(out) == tree(tmp_path / "fresh")
    assert run(own, out, source=source, limits=strict).units_run == 0  # nothing is left out now


def items(out: Path) -> dict[str, list[tuple[str, list[list[int]]]]]:
    """The codes of every sample of a dataset."""
    dataset = mmdata.open(out)
    samples = [s for name in dataset for split in (dataset[name].train, dataset[name].validation) for s in split]
    return {f"{s.source}/{s.uri}": [(item.kind, item.codes.tolist()) for item in s.items] for s in samples}


def test_two_builds_of_one_folder_do_not_meet(media: Path, tmp_path: Path) -> None:
    process = start(media, tmp_path / "out", sleep=0.05)
    wait_for_units(tmp_path / "out", "ingest", 1)
    with pytest.raises(UserError, match="another build is writing"):
        run(media, tmp_path / "out")
    assert process.wait(timeout=60) == 0


@pytest.mark.parametrize("keep_media", ["none", "original"])
def test_a_picture_replaced_while_the_build_runs_is_ledgered_and_read_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep_media: str
) -> None:
    root, out = tmp_path / "media", tmp_path / "out"
    for i in range(3):
        paint(root / "pictures" / f"{i}.png", (9, 9, i))
    changes: dict[str, Any] = {"source": [{"name": "pictures", "format": "captions", "path": "pictures"}]}
    describe_codecs = Graph.describe_codecs

    def late(self: Graph, found: Any) -> None:  # after the pictures' digests were taken
        paint(root / "pictures" / "1.png", (200, 200, 200))
        describe_codecs(self, found)

    with monkeypatch.context() as patch:
        patch.setattr(Graph, "describe_codecs", late)
        run(root, out, keep_media=keep_media, **changes)
    ledger = list(read_ledger(out / "ledger" / "pictures.jsonl"))
    assert [(line["uri"], line["stage"], line["reason"]) for line in ledger] == [
        ("1.png", "decode", "changed while the build ran"), ("1.png", "encode", "no part left"),
    ]  # fmt: skip
    run(root, out, keep_media=keep_media, **changes)
    run(root, tmp_path / "fresh", keep_media=keep_media, **changes)
    assert tree(out) == tree(tmp_path / "fresh")
