"""kill -9 at any moment: what was done stays done, nothing is done twice, and the dataset is the one it would be."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toy_build
from toy_build import load_toy, make_media, toy_recipe, tree

from pipelines.build.engine import build

Markers = dict[str, tuple[int, int]]


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("media")
    make_media(root)
    return root


@pytest.fixture(scope="module")
def whole(media: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of an uninterrupted build with one worker, and its ledger."""
    out = tmp_path_factory.mktemp("whole") / "out"
    build(toy_recipe(media), out, 1, progress=False, load=load_toy)
    return tree(out)


def markers(out: Path) -> Markers:
    """Every marker there is, by its inode and the time it was written: one that is written anew differs."""
    found = out.glob(".work/*/*/*.done.json")
    return {str(p.relative_to(out)): (p.stat().st_ino, p.stat().st_mtime_ns) for p in found}


def start(media: Path, out: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TOY_SLEEP": "0.02"}
    command = [sys.executable, toy_build.__file__, str(media), str(out), "2"]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, start_new_session=True)


def wait_for(process: subprocess.Popen[bytes], out: Path, count: int) -> bool:
    """Whether so many markers came while the build ran."""
    while process.poll() is None:
        if len(markers(out)) >= count:
            return True
        time.sleep(0.005)
    return False


def kill(process: subprocess.Popen[bytes], everyone: bool) -> None:
    (os.killpg if everyone else os.kill)(process.pid, signal.SIGKILL)
    process.communicate()  # workers hold the other end of stderr no longer: they are gone too


def killed_often(media: Path, out: Path, kills: int, seed: int, total: int) -> None:
    """Kill builds of one folder at random moments spread over its units; each goes on where the last one ended.

    The moment: once a random number more of markers has come, and a random part of a second after that. By turns the
    whole process group is killed, and the supervisor alone.
    """
    draw = random.Random(seed)
    done: Markers = {}
    hits = 0
    for turn in range(3 * kills):
        process = start(media, out)
        goal = max(len(done), total * hits // kills) + draw.randint(0, 2)
        if wait_for(process, out, min(goal, total)):
            time.sleep(draw.uniform(0, 0.15))
        if process.poll() is None:
            kill(process, everyone=hits % 2 == 0)
            hits += 1
        else:
            words = process.communicate()[1]
            assert process.returncode == 0, words
        now = markers(out)
        assert {name: now.get(name) for name in done} == done, f"done twice, in turn {turn}"
        done = now
        if hits == kills:
            return
    raise AssertionError(f"only {hits} of {turn + 1} builds were still there to be killed")


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_a_build_killed_at_any_moments_is_the_one_that_was_not(
    media: Path, whole: dict[str, bytes], tmp_path: Path, kills: int
) -> None:
    out = tmp_path / "out"
    total = len(markers_of_a_build(media, tmp_path))
    killed_often(media, out, kills, seed=kills, total=total)
    before = markers(out)
    report = build(toy_recipe(media), out, 2, progress=False, load=load_toy)
    after = markers(out)
    assert {name: after[name] for name in before} == before
    assert report.units_run == len(after) - len(before) and len(after) == total
    assert tree(out) == whole
    assert not list(out.rglob("*.tmp"))


def markers_of_a_build(media: Path, folder: Path) -> Markers:
    build(toy_recipe(media), folder / "other", 2, progress=False, load=load_toy)
    found = markers(folder / "other")
    shutil.rmtree(folder / "other")
    return found
