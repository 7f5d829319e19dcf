"""The units on a Ray cluster: the bytes are those of a local build, whatever is killed."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import toy_build
from toy_build import load_toy, make_media, paint, toy_recipe, tree

from mmdata.errors import RunError, UserError
from pipelines.build.engine import build
from pipelines.build.executor import Task
from pipelines.build.ledger import read_ledger
from pipelines.build.ray_executor import NodeSettings, RayExecutor, _drop_pool, run_on_node
from tests.pipelines.dedup.test_decontaminate import plant as plant_evaluation
from tests.pipelines.dedup.test_dedup_build import ALL, copy_picture, plant
from tests.pipelines.fit.test_exclude import speak


def settings(folder: Path, platform: dict[str, str] | None = None) -> NodeSettings:
    words = {"PYTHONPATH": os.pathsep.join(sys.path)}
    return NodeSettings(folder, tuple(words.items()), 300.0, 0, tuple((platform or {}).items()))


def test_without_the_extra_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # what a missing package does
    make_media(tmp_path, texts=1, pictures=1)
    with pytest.raises(UserError, match=r"pip install 'mmdata\[ray\]'"):
        build(toy_recipe(tmp_path), tmp_path / "out", executor="ray", progress=False, load=load_toy)


def test_a_node_that_would_make_other_codes_is_refused(tmp_path: Path) -> None:
    """What a Ray process does with a unit, without Ray."""
    node = settings(tmp_path, {"jaxlib": "0.0.1"})
    found = run_on_node(node, Task("codecs", toy_build.double, None))
    assert found.error.startswith("a node has jaxlib ") and "the build's is 0.0.1" in found.error


def test_a_worker_that_a_node_kills_before_it_was_ready_stops_no_build(tmp_path: Path) -> None:
    code = f"""
import os, pathlib
if not (flag := pathlib.Path({str(tmp_path / "flag")!r})).exists():
    flag.touch()
    os.kill(os.getpid(), 15)
"""
    (tmp_path / "sitecustomize.py").write_text(code)
    words = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    node = NodeSettings(tmp_path / "logs", tuple(words.items()), 300.0, 0, ())
    try:
        found = run_on_node(node, Task("a", toy_build.steps, ["1"]))
    finally:
        _drop_pool()
    assert (found.error, found.poison, (tmp_path / "flag").exists()) == ("", (), True)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one CPU each, beside a head that runs nothing."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray = pytest.importorskip("ray", reason="ray is not installed")
    from ray.cluster_utils import Cluster

    before = {name: os.environ.get(name) for name in ("PYTHONPATH", "TOY_SLEEP")}
    os.environ.update(PYTHONPATH=os.pathsep.join(sys.path), TOY_SLEEP="0.1")
    memory = {"object_store_memory": 80_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **memory})
    cluster.nodes = [cluster.add_node(num_cpus=1, **memory) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    yield cluster
    ray.shutdown()
    cluster.shutdown()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


def processes(words: str) -> list[int]:
    """The processes whose command line holds these words."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if words in (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.slow
def test_rules_evaluation_data_and_duplicates_come_to_the_same_on_a_cluster(cluster: Any, tmp_path: Path) -> None:
    """Before the test that takes a node away: one worker here, two nodes there."""
    media = tmp_path / "media"
    plant(media)
    plant_evaluation(media)
    (media / "text" / "curly.txt").write_text("A text with a {curly} bracket.", "utf-8")
    copy_picture(media / "pictures" / "1.png", media / "pictures" / "again.jpg")
    speak(media / "speech" / "again.wav", 11, rate=22_050, gain=0.2)
    for kind in ("pictures", "speech"):
        (media / kind / "again.txt").write_text("words on 1", "utf-8")
    changes: dict[str, Any] = {
        "dedup": ALL,
        "decontaminate": {"against": ["eval"]},
        "curate": {"rules": ["c4"], "c4": {"min_sentences": 1, "min_line_words": 1, "require_end_mark": False}},
    }
    here = build(toy_recipe(media, **changes), tmp_path / "local", 1, progress=False, load=load_toy)
    there = build(toy_recipe(media, **changes), tmp_path / "ray", executor="ray", progress=False, load=load_toy)
    assert tree(tmp_path / "ray") == tree(tmp_path / "local")  # the ledger too: reasons, and which was kept
    assert (
        there.dropped == here.dropped
        and {
            "exact duplicate",
            "near duplicate of text",
            "near duplicate of image",
            "near duplicate of audio",
            "text of evaluation data",
            "image of evaluation data",
            "audio of evaluation data",
            "c4: curly bracket",
        }
        <= here.dropped.keys()
    )
    other = changes | {"dedup": {**ALL, "near": "group"}}  # clusters are in the samples and decide their splits
    build(toy_recipe(media, **other), tmp_path / "local", 2, progress=False, load=load_toy)
    build(toy_recipe(media, **other), tmp_path / "ray", executor="ray", progress=False, load=load_toy)
    assert tree(tmp_path / "ray") == tree(tmp_path / "local")


@pytest.mark.slow
def test_a_cluster_that_loses_workers_and_a_node_gives_the_bytes_of_a_local_build(cluster: Any, tmp_path: Path) -> None:
    import ray

    media, out = tmp_path / "media", tmp_path / "out"
    make_media(media)
    paint(media / "pictures" / "05.png", toy_build.KILLER)
    build(toy_recipe(media), tmp_path / "local", 2, progress=False, load=load_toy)
    met: list[str] = []

    def wait_for_units(count: int) -> None:
        wait_until(lambda: len(list(out.glob(".work/encode/*/*.done.json"))) >= count)

    def kill() -> None:
        wait_for_units(1)
        workers = [pid for pid in processes("pipelines.build.worker") if "ray::" in cmdline(parent(pid))]
        os.kill(workers[0], signal.SIGKILL)
        met.append("a worker")
        wait_for_units(3)
        os.kill(parent(workers[-1]), signal.SIGKILL)  # Ray's own process
        met.append("Ray's process")
        wait_for_units(6)
        cluster.remove_node(cluster.nodes[0], allow_graceful=False)
        met.append("a node")

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    report = build(toy_recipe(media), out, executor="ray", progress=False, load=load_toy)
    killer.join(60)
    assert met == ["a worker", "Ray's process", "a node"]
    wait_until(lambda: sum(node["Alive"] for node in ray.nodes()) == 2)  # the head and one, as soon as Ray knows
    assert tree(out) == tree(tmp_path / "local")
    assert report.dropped == {"cannot decode": 1, "crashed its worker": 1} and report.peak_bytes > 0
    lines = {line["uri"]: line for line in read_ledger(out / "ledger" / "pictures.jsonl")}
    assert lines["05.png"]["detail"].startswith("SIGKILL")
    assert len(list((out / ".work" / "logs").iterdir())) > 2  # Ray's processes, each with a log of its worker
    assert build(toy_recipe(media), out, executor="ray", progress=False, load=load_toy).units_run == 0
    assert not list(out.rglob("*.tmp"))

    with RayExecutor(2, tmp_path / "logs", dict(settings(tmp_path).environment)) as pool:
        assert pool.run([Task(str(i), toy_build.double, i) for i in range(5)]) == {str(i): 2 * i for i in range(5)}
        with pytest.raises(RunError, match="unit x failed: KeyError"):
            pool.run([Task("x", toy_build.fail, None)])
        with pytest.raises(RunError, match="unit y lost its node or Ray's process 8 times"):
            pool.run([Task("y", toy_build.kill_parent, None)])


def wait_until(true: Callable[[], bool], seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it never came to that"
        time.sleep(0.02)


def cmdline(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
