"""Datasets on a real S3-compatible server: the batches of the local folder, whatever the network does."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import fsspec
import numpy as np
import pytest
from etils import epath

import mmdata
import mmdata.remote
from mmdata import Loader, Mixture, RunError, UserError
from mmdata.errors import DamagedRecord
from mmdata.folder import RemoteFolder
from mmdata.groups import shards_of_group
from mmdata.remote import Retry
from tests.mmdata import toy_source
from tests.mmdata.object_store import BUCKET, ENVIRONMENT, ObjectStore, serving
from tests.mmdata.toy_data import toy_samples, write_source, write_toy_dataset

L, B = 128, 8
SHARDS, CACHE = 200, 20
FAULTS = ("slow", "fail", "cut", "short", "flip", "drop")


@dataclass(frozen=True)
class Place:
    """The same data here and on the server."""

    folder: Path
    url: str
    store: ObjectStore


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A source of 200 shards of 8 documents, and a small dataset of two sources."""
    root = tmp_path_factory.mktemp("remote")
    write_source(root, "web", {"train": toy_samples("web", SHARDS * 8, 0)}, num_shards=SHARDS)
    write_toy_dataset(root / "two")
    with pytest.MonkeyPatch.context() as patch, serving() as store:
        for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": store.endpoint}.items():
            patch.setenv(name, value)
        store.upload(root / "two", "two")
        yield Place(root / "web", store.upload(root / "web", "big/web"), store)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, big: Place) -> Iterator[Path]:
    """An empty cache, no fault, no long pauses; in the end, no reader that goes on fetching into the next test."""
    monkeypatch.setenv("MMDATA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(mmdata.remote, "RETRY", Retry(attempts=8, first_s=0.01, most_s=0.1))
    big.store.forget()
    yield tmp_path / "cache"
    big.store.fault = lambda key, before: ""
    while reading := [t for t in threading.enumerate() if t.name.startswith(("grain-prefetch", "mmdata-fetch"))]:
        gc.collect()  # Grain's idle threads end with their iterator
        for thread in reading:
            thread.join(1)


def same(ours: Loader, local: Loader, steps: int) -> None:
    for step in range(steps):
        a, b = next(ours), local.batch_at(ours.step - 1)
        for name in ("tokens", "targets", "loss_weights", "segment_ids", "positions", "kinds"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=f"{name} of step {step}")
    ours.close()


def num_kept(loader_or_source: Loader | mmdata.Source) -> int:
    source = loader_or_source.feeds.feeds[0].source if isinstance(loader_or_source, Loader) else loader_or_source
    assert isinstance(source.files, RemoteFolder)
    return source.files.num_kept()


def test_two_epochs_fetch_each_shard_twice_and_never_keep_more_than_the_cache(big: Place, cache: Path) -> None:
    local = Loader(big.folder, seq_len=L, batch_size=B)
    ours = Loader(big.url, seq_len=L, batch_size=B, cache_shards=CACHE)
    steps = 2 * local.feeds.feeds[0].plan.num_rows // B
    most = 0
    for step in range(steps):
        np.testing.assert_array_equal(next(ours).tokens, local.batch_at(step).tokens)
        most = max(most, num_kept(ours))
    ours.close()
    gets = big.store.gets_of("array_record")
    assert len(gets) == SHARDS and 15 <= most <= CACHE
    assert sum(gets.values()) <= 2 * SHARDS * 1.05  # the third epoch's first group, read ahead, included
    assert max(gets.values()) <= 3 and sum(n > 2 for n in gets.values()) <= CACHE // 2


def test_the_next_group_is_fetched_while_this_one_is_read(big: Place, cache: Path) -> None:
    ours = Loader(big.url, seq_len=L, batch_size=B, threads=0)
    (feed,) = ours.feeds.feeds
    this = shards_of_group(feed.order, feed.plan, SHARDS, 0, 0)
    following = shards_of_group(feed.order, feed.plan, SHARDS, 0, this.stop)
    ours.batch_at(0)
    wanted = {feed.source.train.shards[s].file for s in (*this.shards, *following.shards)}
    deadline = time.monotonic() + 60
    while {path.name for path in (feed.source.folder / "shards").glob("web-*")} != wanted:
        assert time.monotonic() < deadline, "the next group was not fetched"
        time.sleep(0.01)


def test_batches_are_those_of_the_folder_whatever_the_network_does(big: Place, cache: Path) -> None:
    big.store.fault = lambda key, before: FAULTS[crc32(f"{key}".encode()) % len(FAULTS)] if not before else ""
    local = Loader(big.folder, seq_len=L, batch_size=B, seed=3)
    ours = Loader(big.url, seq_len=L, batch_size=B, seed=3)
    same(ours, local, 20)
    assert set(big.store.faults) == set(FAULTS)


def test_a_read_that_hangs_is_given_up_and_tried_again(big: Place, cache: Path) -> None:
    options = {"config_kwargs": {"read_timeout": 0.5, "connect_timeout": 5}}
    big.store.fault = lambda key, before: "hang" if "array_record" in key and not before else ""
    source = mmdata.open(big.url, storage_options=options)["web"]
    local = mmdata.open(big.folder)["web"]
    assert source.train.read_records([0, 9]) == local.train.read_records([0, 9])
    assert big.store.faults["hang"] >= 2


def test_resuming_and_data_shards_are_as_with_a_folder(big: Place, cache: Path) -> None:
    local, ours = (Loader(where, seq_len=L, batch_size=B) for where in (big.folder, big.url))
    for step in (150, 3, 77):
        ours.restore({**local.state(), "step": step})
        same(ours, local, 2)
    parts = [Loader(big.url, seq_len=L, batch_size=B, shard=(i, 2)) for i in range(2)]
    whole = np.concatenate([part.batch_at(5).tokens for part in parts])
    np.testing.assert_array_equal(whole, local.batch_at(5).tokens)


def test_worker_processes_read_what_the_folder_has_and_share_the_cache(big: Place, cache: Path) -> None:
    # A group lasts some 20 steps, more than the 4 which are made ahead: workers are side by side
    local = Loader(big.folder, seq_len=L, batch_size=2)
    feed = local.feeds.feeds[0]
    ours = Loader(big.url, seq_len=L, batch_size=2, workers=2)
    same(ours, local, feed.plan.num_rows // 2 - 8)
    gets = big.store.gets_of("array_record")
    coming = shards_of_group(feed.order, feed.plan, SHARDS, 1, 0).shards  # read ahead, of the next epoch
    ahead = {feed.source.train.shards[shard].file for shard in coming}
    again = sum(n - 1 for key, n in gets.items() if Path(key).name not in ahead)
    assert len(gets) == SHARDS and again <= 0.05 * SHARDS and sum(gets.values()) <= SHARDS * 1.05 + len(ahead)


def test_every_way_to_name_a_place_opens_it(big: Place, cache: Path) -> None:
    local = write_toy_dataset(cache / "data")
    files = fsspec.filesystem("memory")
    files.put(str(local), "/toys", recursive=True)
    names = list(mmdata.open(local))
    two = f"s3://{BUCKET}/two"
    wanted = Loader(local, seq_len=L, batch_size=B).batch_at(1).tokens
    for where in (two, f"{two}/", epath.Path(two), Path(two), "memory://toys", f"file://{local}", epath.Path(local)):
        assert list(mmdata.open(where)) == names
        np.testing.assert_array_equal(Loader(where, seq_len=L, batch_size=B).batch_at(1).tokens, wanted)
    mixture = Mixture({"web": f"{two}/web", "speech": epath.Path(two) / "speech"})
    np.testing.assert_array_equal(Loader(mixture, seq_len=L, batch_size=B).batch_at(1).tokens, wanted)
    validation = Loader(two, seq_len=L, batch_size=B, split="validation")
    same(validation, Loader(local, seq_len=L, batch_size=B, split="validation"), validation.num_steps or 0)
    assert mmdata.open(two).where == two
    with pytest.raises(UserError, match="not on this machine"):
        _ = mmdata.open(two).folder


def test_samples_catalog_and_kept_media_are_read_from_a_url(big: Place, cache: Path) -> None:
    folder = cache / "toy"
    toy_source.write_toy(folder, [toy_source.sample(seed, soft=True) for seed in range(12)], keep="resized")
    url = big.store.upload(folder, "toy")
    there, here = (mmdata.open(where, cache_shards=1)["toy"] for where in (url, folder))
    for a, b in zip(there.train, here.train, strict=True):
        toy_source.assert_same(a, b)
    assert str(there.catalog.to_pylist()) == str(here.catalog.to_pylist())  # not a number is nowhere equal to itself
    assert list(there.media) == list(here.media)
    for key in here.media:
        np.testing.assert_array_equal(there.media[key], here.media[key])
    shards = sorted(path.name for path in (there.folder / "media-shards").iterdir() if path.is_file())
    assert len(shards) == 1 and num_kept(there) == 1


def test_reading_at_random_keeps_the_cache_bounded(big: Place, cache: Path) -> None:
    source, local = mmdata.open(big.url, cache_shards=3)["web"], mmdata.open(big.folder)["web"]
    for i in np.random.default_rng(0).integers(0, len(local.train), 40).tolist():
        assert source.train.read_records([i]) == local.train.read_records([i])
        assert num_kept(source) <= 3


def test_two_versions_at_one_url_never_mix(big: Place, cache: Path) -> None:
    for seed in (0, 1):
        write_source(cache / str(seed), "web", {"train": toy_samples("web", 20, seed)}, num_shards=2)
    url = big.store.upload(cache / "0" / "web", "changing")
    before = mmdata.open(url)["web"]
    first = before.train.read_records([0])
    big.store.upload(cache / "1" / "web", "changing")
    after = mmdata.open(url)["web"]
    assert after.folder != before.folder
    assert after.train.read_records([0]) == mmdata.open(cache / "1" / "web")["web"].train.read_records([0])
    assert before.train.read_records([0]) == first
    with pytest.raises(RunError, match="is not the file that the manifest names: open the dataset again"):
        before.train.read_records([len(before.train) - 1])


@pytest.mark.parametrize(("windows", "need"), [(5, 20), (6, 24), (500, 200)])
def test_a_cache_too_small_for_the_plan_is_refused_with_the_size_it_needs(
    big: Place, cache: Path, windows: int, need: int
) -> None:
    with pytest.raises(UserError, match=f"cache of {need - 1}.*use cache_shards={need} or more"):
        Loader(big.url, seq_len=L, batch_size=B, group_windows=windows, cache_shards=need - 1)
    Loader(big.url, seq_len=L, batch_size=B, group_windows=windows, cache_shards=need).batch_at(0)


def test_a_damaged_shard_on_the_server_costs_one_record_and_a_missing_one_is_named(big: Place, cache: Path) -> None:
    write_source(cache, "web", {"train": toy_samples("web", 40, 5)}, num_shards=2)
    local = mmdata.open(cache / "web")["web"].train
    other = cache / "other"
    shutil.copytree(cache / "web", other)
    victim = other / local.shards[0].file
    data = bytearray(victim.read_bytes())
    data[data.find(local.read_records([3])[0]) + 20] ^= 1
    victim.write_bytes(data)
    url = big.store.upload(other, "damaged")
    split = mmdata.open(url)["web"].train
    good = [i for i in range(20) if i != 3]
    assert split.read_records(good) == local.read_records(good)
    with pytest.raises(DamagedRecord) as error:
        split.read_records([3])
    assert (error.value.shard, error.value.record) == (local.shards[0].file, 3)
    (other / local.shards[1].file).unlink()
    split = mmdata.open(big.store.upload(other, "missing"))["web"].train
    with pytest.raises(DamagedRecord, match=f"s3://{BUCKET}/missing/{local.shards[1].file} is missing"):
        split.read_records([30])


def test_what_cannot_be_read_is_one_line(big: Place, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def said(kind: type[Exception], url: str = big.url, **options: object) -> str:
        with pytest.raises(kind) as error:
            mmdata.open(url, storage_options=options)["web"].train.read_records([0])
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "no manifest.json at s3://nobucket/x; check the address" in said(UserError, "s3://nobucket/x")
    assert f"no manifest.json at s3://{BUCKET}/none" in said(UserError, f"s3://{BUCKET}/none")
    assert "Protocol not known: nosuch" in said(UserError, "nosuch://x/y")
    assert "needs the package adlfs: pip install adlfs" in said(UserError, "abfs://x/y")
    monkeypatch.setattr(mmdata.remote, "RETRY", Retry(attempts=2, first_s=0.01))
    big.store.fault = lambda key, before: "deny"
    assert f"not allowed to read {big.url}/manifest.json" in said(UserError)
    big.store.fault = lambda key, before: "short" if "array_record" in key else ""
    assert "2 attempts failed, the last with" in said(RunError)
    assert num_kept(mmdata.open(big.url)["web"]) == 0
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(cache / "none"))
    assert "give credentials as the backend takes them" in said(UserError, skip_instance_cache=True)


def test_a_cache_that_cannot_be_written_is_one_line(big: Place, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.mkdir()
    (cache / "file").write_text("no folder can be made here")
    monkeypatch.setenv("MMDATA_CACHE", str(cache / "file"))
    with pytest.raises(RunError, match=r"cannot keep fetched files in .*: set MMDATA_CACHE to a folder") as error:
        Loader(big.url, seq_len=L, batch_size=B)
    assert "\n" not in str(error.value)


READ = f"""
import resource, sys, mmdata
from mmdata.errors import RunError
url, i, n, limit = sys.argv[1], *map(int, sys.argv[2:])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    loader = mmdata.Loader(url, seq_len={L}, batch_size={B}, shard=(i, n))
    for step in sys.stdin:
        print(loader.batch_at(int(step)).tokens.sum(), flush=True)
except RunError as error:
    print(error)
"""


def reader(url: str, shard: tuple[int, int] = (0, 1), limit: int = 0) -> subprocess.Popen[str]:
    """Another process that reads the steps it is told, with files of at most `limit` bytes."""
    return subprocess.Popen(
        [sys.executable, "-c", READ, url, *map(str, (*shard, limit))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(mmdata.__file__).parents[1],
    )


def ask(process: subprocess.Popen[str], step: int) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{step}\n")
    process.stdin.flush()


def test_a_full_disk_is_one_line(big: Place, cache: Path) -> None:
    said = reader(big.url, limit=1000).communicate(timeout=120)[0]
    assert said.startswith(f"no space left to keep {cache}") and said.count("\n") == 1, said
    assert not list(cache.rglob("*.part"))


def fetching(cache: Path) -> list[Path]:
    """Shards of which a part is there: the store hangs half way through."""
    return [path for path in cache.rglob("*array_record*.part") if path.stat().st_size]


def test_a_process_killed_while_it_fetches_leaves_nothing_that_looks_whole(big: Place, cache: Path) -> None:
    big.store.fault = lambda key, before: "hang" if "array_record" in key else ""
    process = reader(big.url)
    ask(process, 0)
    deadline = time.monotonic() + 60
    while not fetching(cache) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert fetching(cache) and not list(cache.rglob("*array_record-*-of-00200"))
    big.store.forget()
    ours = Loader(big.url, seq_len=L, batch_size=B)
    same(ours, Loader(big.folder, seq_len=L, batch_size=B), 20)
    assert not list(cache.rglob(f"claims/{process.pid}-*"))


def test_processes_that_go_side_by_side_share_what_is_fetched(big: Place, cache: Path) -> None:
    local = Loader(big.folder, seq_len=L, batch_size=B)
    steps = local.feeds.feeds[0].plan.num_rows // B
    both = [reader(big.url, (i, 2)) for i in range(2)]
    most, source = 0, mmdata.open(big.url)["web"]
    for step in range(steps):
        for process in both:
            ask(process, step)
        read = sum(int(process.stdout.readline()) for process in both)  # type: ignore[union-attr]
        assert read == local.batch_at(step).tokens.sum()
        most = max(most, num_kept(source))
    for process in both:
        process.communicate()
    gets = big.store.gets_of("array_record")
    assert set(gets) == {f"big/web/{s.file}" for s in source.train.shards}
    assert sum(gets.values()) <= SHARDS * 1.05 + CACHE // 2 and most <= CACHE  # with what is read ahead at the end
