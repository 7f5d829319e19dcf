"""Units leave whole outputs or none; documents survive the way between the stages."""

from __future__ import annotations

import math
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from pipelines.build.documents import DocumentWriter, read_documents
from pipelines.build.shuffle import PLACES_DTYPE, cut, order_key
from pipelines.build.units import Counts, Unit, fingerprint_of, read_marker, run_unit, sweep
from pipelines.build.worker import Call
from pipelines.ingest.document import Document, Part


def hello(call: Call, unit: Unit, folder: Path) -> Counts:
    (folder / "words.txt").write_text(unit.args)
    if unit.args == "broken":
        raise RuntimeError("in the middle")
    return {"words": 1}


def do(unit: Unit) -> None:
    run_unit(Call(unit))


def done_meanwhile(call: Call, unit: Unit, folder: Path) -> Counts:
    """While this one is at work, another process does the same unit."""
    other = get_context("spawn").Process(target=do, args=(replace(unit, function=hello),))
    other.start()
    other.join()
    (folder / "words.txt").write_text("too late")
    return {"words": 2}


def unit(work: Path, words: str) -> Unit:
    return Unit("say", "web", "00000", fingerprint_of(words), hello, work, words)


def test_a_unit_is_done_once_its_marker_bears_its_fingerprint(tmp_path: Path) -> None:
    one, two = unit(tmp_path, "one"), unit(tmp_path, "two")
    assert read_marker(one) is None
    marker = run_unit(Call(one))
    assert read_marker(one) == marker and read_marker(two) is None
    assert run_unit(Call(one))["digest"] == marker["digest"] != run_unit(Call(two))["digest"]
    assert read_marker(one) is None and (two.folder / "words.txt").read_text() == "two"


def test_a_unit_that_bears_its_marker_is_never_done_again(tmp_path: Path) -> None:
    """Its worker may have died before it could say so, or another machine may have been faster."""
    marker = run_unit(Call(unit(tmp_path, "one")))
    written = unit(tmp_path, "one").marker_path.stat()
    assert run_unit(Call(unit(tmp_path, "one"))) == marker
    assert unit(tmp_path, "one").marker_path.stat().st_mtime_ns == written.st_mtime_ns
    late = Unit("say", "web", "00000", fingerprint_of("late"), done_meanwhile, tmp_path, "late")
    assert run_unit(Call(late))["counts"] == {"words": 1}
    assert (late.folder / "words.txt").read_text() == "late" and not list(tmp_path.rglob("*.tmp"))


def test_a_unit_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    run_unit(Call(unit(tmp_path, "one")))
    with pytest.raises(RuntimeError):
        run_unit(Call(unit(tmp_path, "broken")))
    assert read_marker(unit(tmp_path, "one")) and not list(tmp_path.rglob("*.tmp"))


def test_sweep_removes_what_killed_workers_left(tmp_path: Path) -> None:
    (tmp_path / "say" / "00000.99.tmp").mkdir(parents=True)
    (tmp_path / "say" / "00000.done.json.99.tmp").touch()
    sweep(tmp_path)
    assert not list(tmp_path.rglob("*.tmp"))


def test_documents_come_back_as_they_were(tmp_path: Path) -> None:
    root = tmp_path / "root"
    parts = (
        Part("text", text="a\ud800b \0 é", role="user", stream="en", start_s=0.5, end_s=1.25),
        Part("image", data=b"\0\1\2", uri="x#1", group=3, group_role="target"),
        Part("audio", path=root / "a" / "b.wav", unit_times=((0.0, 0.5), (0.5, 1.0))),
        Part("video", path=Path("/elsewhere/v.mp4"), address="https://a.org/v.mp4"),
    )
    document = Document("ab" * 16, "web", parts, "u\udcff", "en", "MIT", "2020", {"title": "t"})
    with DocumentWriter(tmp_path, root) as writer:
        writer.write(document)
        writer.write(Document("cd" * 16, "web", ()))
    first, second = read_documents(tmp_path, root)
    assert second.parts == () and first.metadata == {"title": "t"} and first.uri == document.uri
    assert [p.text for p in first.parts] == [p.text for p in parts]
    assert [p.data for p in first.parts] == [p.data for p in parts]
    assert [p.path for p in first.parts] == [p.path for p in parts]
    assert first.parts[2].unit_times == parts[2].unit_times
    assert [p.address for p in first.parts] == ["", "", "", "https://a.org/v.mp4"]
    assert first.parts[0].end_s == 1.25 and math.isnan(first.parts[1].start_s)


def test_shards_close_at_their_samples_or_bytes() -> None:
    places = np.zeros(7, PLACES_DTYPE)
    places["length"] = [5, 5, 20, 1, 1, 1, 1]
    assert [part["length"].tolist() for part in cut(places, 3, 10)] == [[5, 5], [20], [1, 1, 1], [1]]


def test_the_order_of_a_source_is_fixed_for_good() -> None:
    assert order_key(0, bytes(16)).hex() == "827b61e778bd53c39a0854d0646cdb3c"
    assert order_key(1, bytes(16)) != order_key(0, bytes(16))
