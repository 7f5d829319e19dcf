"""Encoding takes the documents of a unit in windows: what it holds is bounded, what it writes is the same."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_build
from toy_build import load_toy, make_media, paint, toy_recipe, tree

from pipelines.build import encode
from pipelines.build.documents import DocumentWriter
from pipelines.build.engine import build
from pipelines.build.executor import Task
from pipelines.build.ledger import read_ledger
from pipelines.build.stages import VERDICTS, read_kept
from pipelines.build.units import write_lines
from pipelines.build.worker import Call
from pipelines.ingest.document import Document, Part


class InProcess:
    """The units one after the other, here; `isolate`: as after deaths; `traces`: notes what encoding takes."""

    workers, peak_bytes, isolate, traces = 1, 0, False, False
    encode_bytes = 0

    def __init__(self, *_: Any) -> None: ...

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *_: object) -> None: ...

    def run(self, tasks: list[Task], on_done: Any = None, on_poison: Any = None) -> dict[str, Any]:
        return {task.key: self._one(task) for task in tasks}

    def _one(self, task: Task) -> Any:
        if not (self.traces and task.key.startswith("encode/")):
            return task.function(Call(task.args, isolate=self.isolate))
        tracemalloc.start()
        try:
            return task.function(Call(task.args))
        finally:
            InProcess.encode_bytes = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("pipelines.build.engine.open_executor", InProcess)
    monkeypatch.setattr("pipelines.build.engine.write_build_page", lambda *_: None)
    monkeypatch.setattr(InProcess, "encode_bytes", 0)
    yield


def windows_of(monkeypatch: pytest.MonkeyPatch, num_bytes: int, documents: int) -> None:
    monkeypatch.setattr(encode, "_WINDOW_BYTES", num_bytes)
    monkeypatch.setattr(encode, "_WINDOW_DOCUMENTS", documents)


def run(root: Path, out: Path, **changes: Any) -> None:
    build(toy_recipe(root, **changes), out, 1, progress=False, load=load_toy)


@pytest.mark.parametrize("isolate", [False, True])
@pytest.mark.parametrize("keep", ["none", "resized", "original"])
def test_windows_of_any_size_give_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, isolate: bool, keep: str
) -> None:
    """Kept media once each and ledger lines in their order, over the ends of windows too."""
    root = tmp_path / "in"
    make_media(root, texts=10, pictures=20)
    for i in (3, 17):
        shutil.copy(root / "pictures" / "00.png", root / "pictures" / f"{i:02d}.png")
    paint(root / "pictures" / "05.png", toy_build.REFUSED)
    changes = {"keep_media": keep, "shards": {"unit_inputs": 100}}
    run(root, tmp_path / "whole", **changes)
    assert len(read_ledger(tmp_path / "whole" / "ledger" / "pictures.jsonl")) == 2
    monkeypatch.setattr(InProcess, "isolate", isolate)
    for i, (num_bytes, documents) in enumerate([(1, 1000), (40, 1000), (1 << 20, 3)]):
        windows_of(monkeypatch, num_bytes, documents)
        run(root, tmp_path / f"{i}", **changes)
        assert tree(tmp_path / f"{i}") == tree(tmp_path / "whole")
        for path in sorted((tmp_path / "whole").glob(".work/encode/*/*/*")):
            assert (tmp_path / f"{i}" / path.relative_to(tmp_path / "whole")).read_bytes() == path.read_bytes()


def test_a_unit_of_many_bytes_is_never_in_memory_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "in"
    root.mkdir()
    rows = (json.dumps({"text": f"{i} " + "words " * 10_000}) + "\n" for i in range(200))
    (root / "a.jsonl").write_text("".join(rows))
    changes = {"source": [{"name": "lines", "format": "jsonl", "path": "."}], "curate": {}}
    windows_of(monkeypatch, 1 << 20, 1000)
    monkeypatch.setattr(InProcess, "traces", True)
    run(root, tmp_path / "out", **changes)
    assert InProcess.encode_bytes < (root / "a.jsonl").stat().st_size  # all its codes alone take four times that


def test_media_that_wait_for_their_like_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of 40 shapes: none of them would fill a batch."""
    root = tmp_path / "in"
    for i in range(40):
        paint(root / "pictures" / f"{i:02d}.png", (i, 0, 0), (16 * (1 + i), 16 * 40 // (1 + i) // 16 * 16 + 16))
        (root / "pictures" / f"{i:02d}.txt").write_text("words")
    changes = {"source": [{"name": "pictures", "format": "captions", "path": "pictures"}]}
    waiting: list[int] = []
    add = encode._Batches.add

    def noted(self: Any, job: Any) -> None:
        add(self, job)
        rows = [medium for row in self._waiting.values() for _, _, medium in row]
        waiting.append(int(np.sum([medium.nbytes for medium in rows])))

    monkeypatch.setattr(encode._Batches, "add", noted)
    run(root, tmp_path / "whole", **changes, shards={"unit_inputs": 100})
    most = max(waiting)
    waiting.clear()
    monkeypatch.setattr(encode, "_HELD_BYTES", most // 4)
    run(root, tmp_path / "bounded", **changes, shards={"unit_inputs": 100})
    assert len(waiting) == 40 and max(waiting) <= most // 4
    assert tree(tmp_path / "bounded") == tree(tmp_path / "whole")


def test_verdicts_that_fit_no_document_lose_nothing_silently(tmp_path: Path) -> None:
    with DocumentWriter(tmp_path, tmp_path) as writer:
        for name in "abc":
            writer.write(Document(name, "s", (Part("text", text=name),), name))
    for names, fits in (("abc", True), ("ac", True), ("", True), ("ba", False), ("abx", False)):
        write_lines(tmp_path / VERDICTS, [[name, name, [""]] for name in names])
        kept = read_kept(tmp_path, tmp_path, tmp_path, tmp_path)
        if fits:
            assert [document.id for document, _ in kept] == list(names)
        else:
            with pytest.raises(RuntimeError, match="is of no document, or not in their order"):
                list(kept)
