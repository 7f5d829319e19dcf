"""A source that is added to a recipe changes no other: not its samples, not its clusters, not its pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mmdata
from pipelines.build.engine import build
from pipelines.build.ledger import read_ledger
from pipelines.dedup.clusters import connected, connected_hashes
from tests.pipelines.build.toy_build import load_toy, toy_recipe, tree
from tests.pipelines.dedup.test_clusters import brute
from tests.pipelines.dedup.test_dedup_build import ALL, copy_picture, made, prose, write
from tests.pipelines.fit.test_exclude import draw as draw_picture

GROUP = {**ALL, "exact": "keep", "near": "group"}


def edited(words: str, *places: int) -> str:
    """The words with one in fifty changed, by the place where that begins."""
    found = words.split()
    for place in places:
        found[place] = "edited"
    return " ".join(found)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of two texts and two pictures, `last` holds longer and larger copies, and one text that is near two others."""
    root = tmp_path_factory.mktemp("sources")
    for i in range(6):
        write(root / "first" / f"{i}.txt", prose(i))
    write(root / "first" / "near.txt", edited(prose(0), 50))
    for i in range(3):
        draw_picture(made(root / "shown" / f"{i}.png"), i, 200)
        write(root / "shown" / f"{i}.txt", f"picture of {i}")
    write(root / "last" / "0.txt", prose(0) + " and longer than it was before")
    write(root / "last" / "1.txt", prose(1) + " and longer")
    write(root / "last" / "own.txt", prose(50))
    draw_picture(made(root / "large" / "0.png"), 0, 400)
    copy_picture(root / "shown" / "1.png", root / "large" / "1.jpg")
    for i in range(2):
        write(root / "large" / f"{i}.txt", f"picture of {i}")
    return root


SOURCES = [
    {"name": "first", "format": "text", "path": "first"},
    {"name": "shown", "format": "captions", "path": "shown"},
    {"name": "last", "format": "text", "path": "last"},
    {"name": "large", "format": "captions", "path": "large"},
]


def run(root: Path, out: Path, count: int, dedup: dict[str, Any], sources: list[dict[str, str]] = SOURCES) -> None:
    build(toy_recipe(root, source=sources[:count], dedup=dedup), out, 1, progress=False, load=load_toy)


@pytest.mark.parametrize("dedup", [ALL, GROUP], ids=["drop", "group"])
def test_longer_and_larger_copies_in_a_source_that_is_added_change_no_earlier_one(
    root: Path, tmp_path: Path, dedup: dict[str, Any]
) -> None:
    run(root, tmp_path / "two", 2, dedup)
    run(root, tmp_path / "four", 4, dedup)
    before, after = tree(tmp_path / "two"), tree(tmp_path / "four")
    for name in ("first", "shown"):
        own = {path: data for path, data in before.items() if path.startswith((f"{name}/", f"ledger/{name}."))}
        assert own and own == {path: after.get(path) for path in own}
    lost = {f"{x['source']}/{x['uri']}": x["detail"] for x in ledger(tmp_path / "four") if x["stage"] == "dedup"}
    clusters = {s.uri: s.cluster for name in ("first", "shown") for s in samples(tmp_path / "four", name)}
    added = {s.uri: s.cluster for name in ("last", "large") for s in samples(tmp_path / "four", name)}
    if dedup is ALL:
        assert {"last/0.txt", "last/1.txt", "large/0.png", "large/1.jpg"} < set(lost) and set(added) == {"own.txt"}
        assert lost["last/1.txt"].startswith("kept first/1.txt ")
    else:
        assert not lost and added["1.txt"] == clusters["1.txt"] and added["1.jpg"] == clusters["1.png"]
        assert added["0.txt"] == clusters["0.txt"] == clusters["near.txt"]


def samples(out: Path, name: str) -> list[Any]:
    dataset = mmdata.open(out)
    return [*dataset[name].train, *dataset[name].validation] if name in dataset else []


def ledger(out: Path) -> list[dict[str, Any]]:
    return [line for path in sorted((out / "ledger").glob("*.jsonl")) for line in read_ledger(path)]


def test_pictures_are_counted_in_a_source_and_those_before_it(root: Path, tmp_path: Path) -> None:
    logos = tmp_path / "logos"
    sources = []
    for name in ("one", "two"):
        sources.append({"name": name, "format": "html", "path": name})
        for i in range(3):
            draw_picture(made(logos / name / "logo.png"), 99)
            write(logos / name / f"{i}.html", f'<p>{prose(hash_of(name) + i)}</p><p><img src="logo.png"></p>')
    asked = {"image_uses": 4}
    run(logos, tmp_path / "one", 1, asked, sources)
    run(logos, tmp_path / "both", 2, asked, sources)
    shown = {name: [len(s.items) for s in samples(tmp_path / "both", name)] for name in ("one", "two")}
    assert shown == {"one": [2, 2, 2], "two": [1, 1, 1]}
    details = {line["detail"] for line in ledger(tmp_path / "both")}
    assert details == {"part 2: 6 documents show it, at most 4"}
    before, after = tree(tmp_path / "one"), tree(tmp_path / "both")
    own = {path for path in before if path.startswith("one/")}
    assert own and all(before[path] == after[path] for path in own)


def hash_of(name: str) -> int:
    return 1000 * len(name) + ord(name[0])


rows_and_pairs = st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14)), max_size=30)


@settings(max_examples=200)
@given(rows_and_pairs, st.lists(st.integers(0, 15), max_size=4), st.integers(1, 5))
def test_a_row_is_connected_by_rows_of_its_source_and_those_before_it(
    pairs: list[tuple[int, int]], ends: list[int], run: int
) -> None:
    ends = sorted(ends)
    array = np.array(pairs, np.int64).reshape(-1, 2)
    runs = [(part[:, 0], part[:, 1]) for part in (array[i : i + run] for i in range(0, len(array), run))]
    expected, begin = [], 0
    for end in [*ends, 15]:
        expected += brute(15, {pair for pair in pairs if max(pair) < end})[begin:end]
        begin = end
    assert connected(15, runs, ends=ends).tolist() == expected
    known = connected(15, [(array[:, 0], array[:, 1])], ends=ends)
    for end in ends:  # what comes after the end of a source is nothing to it
        inside = (array < end).all(1)
        assert (
            connected(end, [(array[inside, 0], array[inside, 1])], ends=ends[: ends.index(end)]) == known[:end]
        ).all()


def test_a_row_near_two_earlier_clusters_joins_the_first_and_merges_none() -> None:
    hashes = np.array([0b0, 0b111111, 0b000111, 0b111111], np.uint64)
    assert connected_hashes(hashes, 3, ends=[2, 4]).tolist() == [0, 1, 0, 1]
    assert connected_hashes(hashes, 3).tolist() == [0, 0, 0, 0]
    assert connected_hashes(hashes[::-1], 3, ends=[1, 2, 4]).tolist() == [0, 0, 0, 0]
