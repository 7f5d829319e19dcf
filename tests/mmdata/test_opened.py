"""Open shards: mapped records are the reader's, and damage is found and named."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.errors import DamagedRecord
from mmdata.folder import LocalFolder
from mmdata.mapped import find_records, map_file
from mmdata.opened import open_shard
from mmdata.shards import RecordFiles, write_records
from tests.mmdata.toy_data import toy_samples, write_source


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_source(folder, "web", {"train": toy_samples("web", 60, 0)}, num_shards=1)
    return folder / "web"


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from([1, 2, 7, 100, 1_000, 30_000, 65_400, 65_512, 65_536, 200_000]), min_size=1, max_size=9)
)
def test_mapped_records_are_those_of_the_reader(tmp_path_factory: pytest.TempPathFactory, sizes: list[int]) -> None:
    path = tmp_path_factory.mktemp("records") / "file"
    rng = np.random.default_rng(len(sizes))
    records = [rng.integers(0, 256, size, np.uint8).tobytes() for size in sizes]
    write_records(path, records)
    mapped = find_records(map_file(path), len(records))
    assert [mapped.record(i) for i in range(len(records))] == records
    assert RecordFiles([path]).read(0, range(len(records))) == records


def test_a_file_of_another_form_is_not_mapped(tmp_path: Path) -> None:
    (tmp_path / "zeros").write_bytes(bytes(200_000))
    (tmp_path / "empty").write_bytes(b"")
    for name in ("zeros", "empty"):
        with pytest.raises(ValueError, match="0 of 3 records"):
            find_records(map_file(tmp_path / name), 3)


def test_a_flipped_bit_costs_one_record_at_most_and_no_other_changes(source: Path) -> None:
    import mmdata

    split = mmdata.open(source)["web"].train
    info, path = split.shards[0], source / split.shards[0].file
    whole, catalog = path.read_bytes(), source / split.shards[0].catalog
    records = split.read_records(range(len(split)))
    rng, lost = np.random.default_rng(1), 0
    for bit in rng.integers(0, 8 * len(whole), 60).tolist():
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        other = source / "damaged"
        other.write_bytes(damaged)
        shard = open_shard(other, catalog, info)
        assert shard.mapped is None
        bad = []
        for place, record in enumerate(records):
            try:
                assert shard.read([place]) == [record]
            except DamagedRecord as error:
                assert error.record == place and error.shard == info.file
                bad.append(place)
        lost += len(bad)
        assert len(bad) <= 1
    assert lost > 20  # most of a file are records


def test_a_missing_and_a_cut_shard_are_named_as_a_whole(source: Path, tmp_path: Path) -> None:
    import mmdata

    split = mmdata.open(source)["web"].train
    info = split.shards[0]
    with pytest.raises(DamagedRecord, match="No such file") as error:
        open_shard(tmp_path / "none", source / info.catalog, info)
    assert error.value.record is None
    whole = (source / info.file).read_bytes()
    (tmp_path / "cut").write_bytes(whole[: whole.index(split[40].uri.encode())])
    with pytest.raises(DamagedRecord, match=f"\\d+ bytes, the manifest says {len(whole)}"):
        open_shard(tmp_path / "cut", source / info.catalog, info)


def test_a_shard_is_hashed_once_and_again_when_its_file_has_changed(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    import mmdata
    from mmdata import opened
    from mmdata.opened import OpenShards

    folder = shutil.copytree(source, tmp_path / "web")
    split = mmdata.open(folder)["web"].train
    hashed = []
    inner = opened._difference
    monkeypatch.setattr(opened, "_difference", lambda data, info: hashed.append(info.file) or inner(data, info))
    shards = OpenShards(LocalFolder(folder), split.shards, max_open=1)
    for _ in range(3):
        assert shards[0].mapped is not None
        shards._open.clear()
    assert len(hashed) == 1
    path = folder / split.shards[0].file
    damaged = bytearray(path.read_bytes())
    damaged[5000] ^= 1
    path.write_bytes(damaged)
    assert shards[0].mapped is None and len(hashed) == 3  # looked at once more


def test_a_walk_over_a_damaged_header_ends(source: Path) -> None:
    """A size of 2^62 bytes is not walked block by block."""
    import mmdata

    split = mmdata.open(source)["web"].train
    data = np.fromfile(source / split.shards[0].file, np.uint8)
    start = data.tobytes().index(split.read_records([20])[0])
    found = set()
    for byte in range(start - 48, start):
        damaged = data.copy()
        damaged[byte] = 0x7F
        try:
            find_records(damaged, len(split))
        except ValueError as error:
            found.add(str(error).split()[0])
    assert "20" in found


def test_a_whole_record_of_another_content_is_found_by_its_digest(source: Path, tmp_path: Path) -> None:
    """Which the chunks' own hashes cannot see: a file of another build."""
    import mmdata

    split = mmdata.open(source)["web"].train
    info, catalog = split.shards[0], source / split.shards[0].catalog
    records = split.read_records(range(len(split)))
    write_records(tmp_path / "file", [*records[:7], records[7][:-1] + b"?", *records[8:]])
    shard = open_shard(tmp_path / "file", catalog, info)
    assert shard.read([6, 8, 9]) == [records[6], *records[8:10]]
    with pytest.raises(DamagedRecord, match=r"record 7 .*its digest is not the catalog's"):
        shard.read([6, 7])


def test_records_are_found_without_the_end_of_the_file_that_lists_them(source: Path, tmp_path: Path) -> None:
    import mmdata

    split = mmdata.open(source)["web"].train
    info, catalog = split.shards[0], source / split.shards[0].catalog
    whole, records = (source / info.file).read_bytes(), split.read_records(range(len(split)))
    end = whole.index(records[-1]) + len(records[-1])
    for damaged in (whole[:end], whole[: end + 100], whole[:-1], whole[:-8] + b"12345678", whole[:end] + bytes(99)):
        (tmp_path / "file").write_bytes(damaged)
        assert open_shard(tmp_path / "file", catalog, info).read(range(len(records))) == records
    (tmp_path / "file").write_bytes(whole[: end - 1])
    with pytest.raises(DamagedRecord):
        open_shard(tmp_path / "file", catalog, info)
