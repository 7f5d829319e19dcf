"""Records and shards: every column there and back, the same bytes every time, whole or not at all."""

import contextlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.errors import RunError, UserError
from mmdata.example import decode_example, encode_example, first_bytes
from mmdata.sample import Sample
from mmdata.shards import RecordFiles, ShardInfo, check_name, decode_sample, encode_sample, write_records, write_shard
from tests.mmdata.toy_source import assert_same, sample
from tokenizer.item import Item


@given(st.lists(st.integers(-(2**63), 2**63 - 1)), st.lists(st.binary()), st.lists(st.floats(width=32)))
def test_features_come_back_as_they_were(ints: list[int], data: list[bytes], floats: list[float]) -> None:
    features = {"b": data or [b""], "i": np.array(ints, np.int64), "f": np.array(floats, np.float32), "é": [b"x" * 300]}
    record = encode_example(features)
    again = decode_example(record)
    assert list(again) == ["b", "i", "f", "é"]
    assert again["b"] == features["b"] and first_bytes(record) == features["b"][0]
    np.testing.assert_array_equal(again["i"], features["i"])
    np.testing.assert_array_equal(again["f"], features["f"])


def test_the_wire_form_is_that_of_protobuf() -> None:
    from tensorflow_datasets.proto import tf_example_pb2

    features = {"b": [b"", b"\xff"], "i": np.array([3, 300, -1, 2**62]), "none": np.zeros(0, np.int64)}
    theirs = tf_example_pb2.Example.FromString(encode_example(features)).features.feature
    assert list(theirs["b"].bytes_list.value) == [b"", b"\xff"]
    assert list(theirs["i"].int64_list.value) == [3, 300, -1, 2**62]
    assert theirs["none"].HasField("int64_list")
    written = tf_example_pb2.Example.FromString(encode_example(features)).SerializeToString()
    assert decode_example(written)["i"].tolist() == [3, 300, -1, 2**62]


@given(st.binary(max_size=60))
def test_damaged_records_are_value_errors(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a"):
        decode_sample(data)


@given(st.integers(0, 3000), st.integers(0, 255))
def test_a_changed_byte_never_crashes_the_parser(place: int, byte: int) -> None:
    record = bytearray(encode_sample(sample(1)))
    record[place % len(record)] = byte
    with contextlib.suppress(ValueError):
        decode_sample(bytes(record))


@pytest.mark.parametrize("soft", [False, True])
def test_a_sample_comes_back_in_every_field(soft: bool) -> None:
    for seed in range(6):
        assert_same(decode_sample(encode_sample(sample(seed, soft))), sample(seed, soft))


def test_an_empty_sample_comes_back() -> None:
    empty = Sample("00" * 16, "01" * 16, "toy", ())
    assert_same(decode_sample(encode_sample(empty)), empty)


def test_codes_take_the_fewest_bytes_that_hold_them() -> None:
    def dtype(top: int) -> bytes:
        item = Item("text", "t@1", np.array([[0], [top]], np.int32))
        return decode_example(encode_sample(Sample("00", "00", "toy", (item,))))["item/dtype"][0]

    assert [dtype(top) for top in (255, 256, 65_535, 65_536, 2**31 - 1)] == [b"u1", b"u2", b"u2", b"u4", b"u4"]


def test_items_that_are_neither_hard_nor_soft_are_refused(tmp_path) -> None:
    for item in (Item("text", "", np.zeros((1, 1), np.int32)), Item("image", "a@1", None, (1, 2, 2))):
        with pytest.raises(ValueError, match="soft item has neither"):
            write_shard(tmp_path, "toy", "train", 0, 1, [Sample("00", "00", "toy", (item,))])
    with pytest.raises(ValueError, match="codes start at 0"):
        encode_sample(Sample("00", "00", "toy", (Item("text", "a@1", np.full((1, 1), -1, np.int32)),)))
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_the_same_samples_make_the_same_bytes(tmp_path) -> None:
    infos = [write_shard(tmp_path / d, "toy", "train", 0, 1, map(sample, range(20))) for d in "ab"]
    assert infos[0] == infos[1] == ShardInfo.from_json(infos[0].to_json())
    for name in (infos[0].file, infos[0].catalog):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert infos[0].samples == 20 and infos[0].counts["image"] == {"items": 20, "codes": 120}
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path) -> None:
    program = (
        "import resource, sys, os; from pathlib import Path; from mmdata.shards import write_records\n"
        "from mmdata.errors import RunError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, 1 << 18))\n"
        "try: write_records(Path(sys.argv[1]) / 'a', (os.urandom(1000) for _ in range(2000)))\n"
        "except RunError as error: print('refused:', error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("refused: cannot write") and "free some space" in done.stdout, done
    assert list(tmp_path.iterdir()) == []


def test_records_are_read_by_place_with_few_files_open(tmp_path) -> None:
    paths = [tmp_path / str(i) for i in range(3)]
    for i, path in enumerate(paths):
        assert write_records(path, (f"{i}-{j}".encode() for j in range(5))) == 5
    files = RecordFiles(paths, max_open=1)
    for _ in range(2):
        assert [files.read(i, [4, 0]) for i in range(3)] == [[f"{i}-4".encode(), f"{i}-0".encode()] for i in range(3)]
    paths[1].unlink()
    with pytest.raises(RunError, match="cannot be read"):
        RecordFiles(paths).read(1, [0])


def test_names_that_no_source_can_have_are_refused_with_one_that_it_can() -> None:
    assert check_name("web_2") == "web_2"
    for name in ("my-web", "2web", "", "a/b"):
        with pytest.raises(UserError, match="cannot be named"):
            check_name(name)
