"""The cache by itself, and which shards a Loader announces: no network."""

from __future__ import annotations

import gc
import hashlib
import multiprocessing
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.cache import Cache, Reader
from mmdata.errors import RunError
from mmdata.groups import shards_of_group
from mmdata.order import Order
from mmdata.remote import Listed, Retry, Store, url_of


class Fetched:
    """A cache whose files hold their names, with the names fetched in order."""

    def __init__(self, folder: Path, limit: int | None) -> None:
        self.names: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.cache = Cache(folder, self.fetch, limit)

    def fetch(self, name: str, to: Path) -> None:
        self.gate.wait(10)
        self.names.append(name)
        to.write_text(name)

    def read(self, name: str) -> str:
        with self.cache.hold(name) as path:
            return path.read_text()

    def here(self) -> set[str]:
        with self.cache.alone():
            return set(self.cache.files())


def settle(reader: Reader) -> None:
    """Wait until a reader's threads have nothing to do."""
    while reader._threads:
        threading.Event().wait(0.001)


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_the_least_recently_opened_goes_first(tmp_path_factory: Any, wanted: list[int], limit: int) -> None:
    made = Fetched(tmp_path_factory.mktemp("cache"), limit)
    model: list[str] = []
    for name in map(str, wanted):
        assert made.read(name) == name
        model = [*(n for n in model if n != name), name][-limit:]
        assert made.here() == set(model)


@given(st.lists(st.tuples(st.integers(0, 11), st.booleans()), max_size=40), st.integers(4, 8))
@settings(max_examples=30, deadline=None)
def test_what_is_claimed_now_is_never_removed(
    tmp_path_factory: Any, wanted: list[tuple[int, bool]], limit: int
) -> None:
    made = Fetched(tmp_path_factory.mktemp("cache"), limit)
    reader = Reader(made.cache, lambda name: made.cache.bring(name, ahead=True))
    now = ["0", "1", "2"]
    reader.need(now, ["3"])
    settle(reader)
    assert made.here() == {"0", "1", "2", "3"}
    for name, ahead in wanted:
        if ahead:
            made.cache.bring(str(name), ahead=True)
        else:
            assert made.read(str(name)) == str(name)
        assert set(now) <= made.here() and len(made.here()) <= limit
    reader.close()


def test_reading_ahead_stops_where_there_is_no_room_and_goes_on_when_the_group_changes(tmp_path: Path) -> None:
    made = Fetched(tmp_path, 5)
    reader = Reader(made.cache, lambda name: made.cache.bring(name, ahead=True))
    reader.need(["a", "b"], ["c", "d"], keep=["y", "z"])  # room is kept for y and z, which may be opened once more
    settle(reader)
    assert {"a", "b"} < made.here() and len(made.here()) == 3
    (ahead,) = made.here() - {"a", "b"}
    made.read("z")
    made.read("y")
    assert made.here() == {"a", "b", "y", "z", ahead} and ahead in ("c", "d")
    reader.need(["c", "d"], ["e", "f"], keep=["a", "b"])
    settle(reader)
    assert {"a", "b", "c", "d"} < made.here() and len(made.here()) == 5
    reader.need(["c", "d"], ["e", "f"])
    settle(reader)
    assert {"c", "d", "e", "f"} < made.here() and len(made.here()) == 5
    assert len(made.names) == len(set(made.names))  # nothing was fetched twice


def test_what_one_reader_needs_another_only_wants_ahead(tmp_path: Path) -> None:
    made = Fetched(tmp_path, 2)
    readers = [Reader(made.cache, lambda name: made.cache.bring(name, ahead=True)) for _ in range(2)]
    readers[0].need(["a", "b"])
    settle(readers[0])
    readers[1].need([], ["a", "b"])
    settle(readers[1])
    made.read("c")
    assert made.here() == {"a", "b", "c"}
    readers[0].close()
    made.read("d")
    assert len(made.here()) == 2 and "d" in made.here()


def test_a_file_that_is_renamed_while_it_is_removed_counts_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Fetched(tmp_path, 2)
    (tmp_path / "a.part").write_text("a")

    def finish_first(file: int, kind: int) -> bool:
        (tmp_path / "a.part").rename(tmp_path / "a")
        return True

    monkeypatch.setattr("mmdata.cache._lock", finish_first)
    assert not made.cache.drop("a.part") and (tmp_path / "a").exists()


def test_a_reader_that_is_gone_needs_nothing(tmp_path: Path) -> None:
    made = Fetched(tmp_path, 2)
    reader = Reader(made.cache, lambda name: made.cache.bring(name, ahead=True))
    reader.need(["a", "b"])
    settle(reader)
    made.read("c")  # one too many, as nothing else can be removed
    assert made.here() == {"a", "b", "c"}
    del reader
    gc.collect()
    made.read("d")
    assert made.here() == {"c", "d"}


def _claim_and_wait(folder: Path, ready: Any, end: Any) -> None:
    reader = Reader(Cache(folder, lambda name, to: None, 2), lambda name: True)
    reader.need(["a", "b"])
    ready.set()
    end.wait(60)


def test_the_claim_of_another_process_holds_until_it_is_killed(tmp_path: Path) -> None:
    made = Fetched(tmp_path, 2)
    made.read("a")
    made.read("b")
    spawn = multiprocessing.get_context("spawn")
    ready, end = spawn.Event(), spawn.Event()
    process = spawn.Process(target=_claim_and_wait, args=(tmp_path, ready, end))
    process.start()
    assert ready.wait(60)
    assert not made.cache.bring("c", ahead=True) and made.here() == {"a", "b"}
    process.kill()
    process.join()
    assert made.cache.bring("c", ahead=True) and made.here() == {"b", "c"}


def test_threads_that_want_one_file_fetch_it_once(tmp_path: Path) -> None:
    made = Fetched(tmp_path, 3)
    made.gate.clear()
    threads = [threading.Thread(target=made.read, args=("a",)) for _ in range(6)]
    for thread in threads:
        thread.start()
    made.gate.set()
    for thread in threads:
        thread.join()
    assert made.names == ["a"]


def test_a_file_that_is_being_opened_stays(tmp_path: Path) -> None:
    made = Fetched(tmp_path, 1)
    with made.cache.hold("a") as path:
        assert not made.cache.drop("a") and not made.cache.bring("b", ahead=True)
        assert path.read_text() == "a"
    assert made.cache.bring("b", ahead=True) and made.here() == {"b"}


def test_what_a_killed_fetch_left_is_overwritten_or_removed(tmp_path: Path) -> None:
    made = Fetched(tmp_path, 2)
    for name in ("a", "b"):
        (tmp_path / f"{name}.part").write_text("half of it, and longer than the whole")
    assert made.read("a") == "a" and made.read("c") == "c"
    assert made.here() == {"a", "c"}


def test_a_fetch_that_fails_leaves_nothing_and_says_so(tmp_path: Path) -> None:
    def fetch(name: str, to: Path) -> None:
        to.write_text("half")
        raise RunError("cannot fetch it")

    cache = Cache(tmp_path, fetch, 2)
    with pytest.raises(RunError, match="cannot fetch it"), cache.hold("a"):
        pass
    with cache.alone():
        assert cache.files() == []


def test_a_file_fetched_again_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    made = Fetched(tmp_path, 1)
    made.read("a")
    (tmp_path / "a").write_text("damaged")
    with made.cache.hold("a"):
        made.cache.bring("a", again=True)
    assert made.read("a") == "a" and made.names == ["a", "a"]


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=12).filter(sum),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(0, 5),
)
@settings(max_examples=100, deadline=None)
def test_the_rows_of_a_group_come_from_its_shards_and_groups_tile_the_epoch(
    rows: list[int], group_windows: int, window_shards: int, epoch: int
) -> None:
    windows = np.cumsum([0, *rows]).astype(np.int64)
    order = Order(windows, group_windows, 7, "print")
    num_shards = window_shards * (len(rows) - 1) + 1  # the last window has one shard only
    plan: Any = SimpleNamespace(windows=windows, settings=SimpleNamespace(window_shards=window_shards))
    position, seen = 0, set()
    while position < order.num_rows:
        group = shards_of_group(order, plan, num_shards, epoch, position)
        assert position < group.stop <= order.num_rows
        window = np.searchsorted(windows, order.rows(epoch, np.arange(position, group.stop)), "right") - 1
        assert {s // window_shards for s in group.shards} == set(window.tolist())
        assert not seen & set(group.shards) and max(group.shards) < num_shards
        assert len(group.shards) <= group_windows * window_shards
        assert shards_of_group(order, plan, num_shards, epoch, group.stop - 1) == group
        seen |= set(group.shards)
        position = group.stop
    assert len({s // window_shards for s in seen}) == sum(n > 0 for n in rows)


def test_pauses_double_up_to_the_most() -> None:
    retry = Retry(first_s=0.5, most_s=4.0)
    for attempt, most in enumerate([0.5, 1, 2, 4, 4], 1):
        pauses = [retry.pause(attempt) for _ in range(50)]
        assert most / 2 <= min(pauses) and max(pauses) <= most and len(set(pauses)) > 1


def test_a_download_is_the_listed_file_or_says_that_the_store_has_another(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe("/listed/a", b"hello")
    store, to = Store("memory://listed", retry=Retry(attempts=3, first_s=0.001)), tmp_path / "a"
    digest = hashlib.sha256(b"hello").hexdigest()
    assert store.download("a", to, Listed(5, digest)) and to.read_bytes() == b"hello"
    assert store.download("a", to, Listed()) and store.read("a") == b"hello"
    assert not store.download("a", to, Listed(6, digest))
    assert not store.download("a", to, Listed(5, "0" * 64))
    assert not store.download("a", to, Listed(catalog_digest="0" * 64))
    with pytest.raises(FileNotFoundError):
        store.download("b", to)


def test_urls_are_told_from_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert url_of("s3://b/x/") == "s3://b/x" and url_of(Path("gs://b/x")) == "gs://b/x"
    assert not any(map(url_of, ("runs/demo", "/data", "C:/data", "a b://c", tmp_path, "file:///data")))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s3:").mkdir()
    assert not url_of(Path("s3:/")) and url_of(Path("s3:/b")) == "s3://b"
