"""Units leave whole outputs or none; documents survive the way between the stages."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from toy_build import load_toy, toy_recipe

from mmdata.manifest import split_of
from pipelines.build.documents import DocumentWriter, read_documents
from pipelines.build.encoded import INDEX, INDEX_DTYPE, MEDIA_INDEX
from pipelines.build.graph import Graph
from pipelines.build.inputs import BuildSource
from pipelines.build.shuffle import PLACES_DTYPE, PLAN, ShuffleArgs, cut, order_key, ordered, shuffle
from pipelines.build.units import Counts, Unit, fingerprint_of, read_lines, read_marker, run_unit, sweep, write_json
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


def starve(call: Call, unit: Unit, folder: Path) -> Counts:
    return {"dropped": {unit.args: 1}}


@pytest.mark.parametrize(
    ("reason", "skip", "stays"),
    [("cannot decode", {}, True), ("out of memory", {}, False), ("took too long", {"a.png": "no progress"}, False)],
)
def test_other_limits_of_workers_undo_only_a_unit_that_met_them(
    tmp_path: Path, reason: str, skip: dict[str, str], stays: bool
) -> None:
    old = Unit("say", "web", "00000", "one", starve, tmp_path, reason, worker_limits={"worker_bytes": 5})
    new = replace(old, worker_limits={"worker_bytes": 6})
    run_unit(Call(old, skip))
    assert read_marker(old) and (read_marker(new) is not None) == stays
    run_unit(Call(new))
    assert read_marker(new)


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


def plainly(ids: list[bytes], clusters: list[bytes], args: ShuffleArgs) -> tuple[dict[str, list[int]], list[int]]:
    """Split -> what is in it, in order; and what came again: one comparison of Python values after the other."""
    keys = [order_key(args.seed, i) for i in ids]
    found: dict[str, list[int]] = {"train": [], "validation": []}
    again: list[int] = []
    last = None
    for i in sorted(range(len(ids)), key=lambda i: (keys[i], ids[i])):
        if ids[i] == last:
            again.append(i)
        else:
            found[split_of(clusters[i].hex(), args.validation)].append(i)
        last = ids[i]
    return found, again


@pytest.mark.parametrize("seed", range(6))
def test_samples_lie_where_plain_sorting_puts_them(tmp_path: Path, seed: int) -> None:
    """Drawn ids, some of them more than once, and clusters of several."""
    draw = np.random.default_rng(seed)
    many = draw.integers(0, 256, (int(draw.integers(1, 400)), 16), np.uint8)
    rows = []
    for number in range(5):
        row = np.zeros(int(draw.integers(0, 120)), INDEX_DTYPE)
        row["id"] = many[draw.integers(0, len(many), len(row))]
        row["cluster"] = many[draw.integers(0, len(many), len(row)) // 3]
        row["length"] = draw.integers(1, 50, len(row))
        row["offset"] = np.cumsum(row["length"]) - row["length"]
        folder = tmp_path / str(number)
        folder.mkdir()
        np.save(folder / INDEX, row)
        (folder / MEDIA_INDEX).touch()
        rows.append(row)
    args = ShuffleArgs(tuple(tmp_path / str(i) for i in range(5)), seed, 0.3, 20, 400)
    out = tmp_path / "out"
    out.mkdir()
    counts = shuffle(Call(args), Unit("shuffle", "web", "all", "", shuffle, tmp_path, args), out)
    index = np.concatenate(rows)
    units = np.repeat(np.arange(5), [len(row) for row in rows])
    ids, clusters = ([word.tobytes() for word in index[name]] for name in ("id", "cluster"))
    found, again = plainly(ids, clusters, args)
    assert again and all(found.values())
    for split, order in found.items():
        wanted = [(units[i], index["offset"][i], index["length"][i]) for i in order]
        files = [np.load(path) for path in sorted(out.glob(f"{split}-*.npy"))]
        assert all(0 < len(file) <= 20 and file["length"].sum() <= 400 for file in files)
        assert np.concatenate(files).tolist() == wanted
    said = [row["detail"] for row in read_lines(out / "dropped.jsonl")]
    assert said == [f"document {ids[i].hex()} came twice" for i in again]
    assert counts == {"samples": len(set(ids)), "shards": counts["shards"], "dropped": {"same id": len(again)}}


def test_keys_and_ids_are_compared_as_bytes() -> None:
    ids = np.array([[255] * 16, [0] * 16, [127] + [255] * 15, [0] * 15 + [128], [128] + [0] * 15], np.uint8)
    keys = [order_key(3, word.tobytes()) for word in ids]
    assert ordered(ids, 3).tolist() == sorted(range(5), key=lambda i: keys[i])
    assert ordered(np.zeros((0, 16), np.uint8), 3).tolist() == []


def test_what_a_worker_is_sent_for_a_shard_does_not_grow_with_its_source(tmp_path: Path) -> None:
    sizes = set()
    for count in (10, 10_000):
        graph = Graph(toy_recipe(tmp_path), tmp_path / str(count).zfill(5), {}, (), load_toy)
        source = BuildSource(SimpleNamespace(name="web"), None, tmp_path, {}, [])  # type: ignore[arg-type]
        source.units["encode"] = [
            Unit("encode", "web", f"{i:016x}", "", hello, graph.work, "x" * 100) for i in range(count)
        ]
        source.markers["encode"] = [{"digest": "0" * 64}] * count
        source.units["shuffle"] = graph.shuffle(source)
        source.markers["shuffle"] = [{"digest": "1" * 64}]
        shards = [{"split": "train", "index": i, "num_shards": 3} for i in range(3)]
        (places,) = source.folders("shuffle")
        write_json(places / PLAN, {"shards": shards, "media_shards": 2})
        units = graph.write(source) + graph.media(source)
        assert len({unit.fingerprint for unit in units}) == 5
        sizes.update(len(pickle.dumps(unit)) for unit in units)
    assert max(sizes) < 2000 and max(sizes) - min(sizes) < 100


def test_the_order_of_a_source_is_fixed_for_good() -> None:
    assert order_key(0, bytes(16)).hex() == "827b61e778bd53c39a0854d0646cdb3c"
    assert order_key(1, bytes(16)) != order_key(0, bytes(16))
