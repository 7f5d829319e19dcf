"""`mmdata.open`: what was written is what is read, soft items and kept media too, and strangers are refused."""

import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import mmdata
from mmdata.manifest import split_of
from mmdata.verify import verify
from tests.mmdata.toy_source import assert_same, media_of, sample, write_toy

SAMPLES = [sample(i, soft=i % 3 == 0) for i in range(20)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    write_toy(folder, SAMPLES, keep="resized")
    return folder


def test_every_sample_is_read_back_in_its_split(folder) -> None:
    source = mmdata.open(folder)["toy"]
    for split in (source.train, source.validation):
        want = [s for s in SAMPLES if split_of(s.cluster, 0.3) == split.name]
        assert len(split) == len(want) > 3
        for a, b in zip(split, want, strict=True):
            assert_same(a, b)
        order = np.random.default_rng(0).permutation(len(split))
        for a, i in zip(split.read(order), order, strict=True):
            assert_same(a, want[i])
        assert_same(split[-1], want[-1])
        with pytest.raises(IndexError):
            split[len(split)]


def test_items_from_the_catalog_are_those_of_the_records(folder) -> None:
    split = pickle.loads(pickle.dumps(mmdata.open(folder)["toy"].train))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: split.read_items([i])[0], range(len(split))))
    light = split.read(range(len(split)), whole=False)
    assert [(s.id, s.cluster, len(s.items)) for s in light] == [(s.id, s.cluster, len(s.items)) for s in split]
    for items, want in zip(found, split, strict=True):
        for a, b in zip(items, want.items, strict=True):
            assert (a.kind, a.codec, a.grid, a.role, a.stream, a.group) == (
                b.kind, b.codec, b.grid, b.role, b.stream, b.group,
            )  # fmt: skip
            np.testing.assert_array_equal([a.start_s, a.end_s], [b.start_s, b.end_s])
            np.testing.assert_array_equal(a.times, b.times)
            np.testing.assert_array_equal(a.sentence_ends, b.sentence_ends)
            assert a.is_soft == b.is_soft and (a.codes is None or (a.codes == b.codes).all())


def test_soft_items_find_their_kept_media(folder) -> None:
    source = mmdata.open(folder)["toy"]
    soft = [(s, i) for s in source.train for i in s.items if i.is_soft]
    assert {i.kind for _, i in soft} == {"image", "audio"}
    for s, item in soft:
        picture, sound = media_of(int(s.id, 16))
        medium = source.media.get(item.digest)
        want = picture if item.kind == "image" else sound
        np.testing.assert_array_equal(source.media[item.digest], want.data)
        assert medium.kind == item.kind and medium.sample_rate_hz == want.sample_rate_hz
        assert item.grid == ((1, *want.data.shape[:2]) if item.kind == "image" else (len(want.data), 0, 0))
    assert "00" not in source.media and len(source.media) == 40 == len(list(source.media))
    with pytest.raises(KeyError, match="keeps 'resized'"):
        source.media["00"]


def test_original_media_come_back_byte_for_byte(tmp_path) -> None:
    write_toy(tmp_path, SAMPLES[:4], keep="original")
    media = mmdata.open(tmp_path)["toy"].media
    picture, sound = media_of(2)
    assert media[picture.digest] == picture.data.tobytes() and media[sound.digest, "audio"] == sound.data.tobytes()
    assert verify(tmp_path).ok


def test_the_fingerprint_stays_where_the_folder_moves(tmp_path) -> None:
    first = write_toy(tmp_path / "a", SAMPLES)
    assert write_toy(tmp_path / "b" / "c", SAMPLES) == first
    (tmp_path / "a").rename(tmp_path / "d")
    assert mmdata.open(tmp_path / "d")["toy"].fingerprint == first
    assert write_toy(tmp_path / "e", SAMPLES[:-1]) != first


def test_a_source_folder_opens_alone(folder) -> None:
    alone = mmdata.open(folder / "toy")
    assert list(alone) == ["toy"] and alone["toy"].fingerprint == mmdata.open(folder)["toy"].fingerprint
    with pytest.raises(KeyError, match="no source 'web'"):
        alone["web"]


def test_a_rewritten_source_loses_the_shards_of_before(tmp_path) -> None:
    write_toy(tmp_path, SAMPLES)
    write_toy(tmp_path, SAMPLES[:3], share=0.0, keep="resized")
    assert len(mmdata.open(tmp_path)["toy"].train) == 3
    assert len(list((tmp_path / "toy").glob("*.array_record-*"))) == 1
    assert verify(tmp_path).ok


def test_unfinished_newer_and_foreign_folders_are_refused(tmp_path) -> None:
    with pytest.raises(mmdata.UserError, match="no such folder"):
        mmdata.open(tmp_path / "none")
    write_toy(tmp_path, SAMPLES[:3])
    path = tmp_path / "toy" / "manifest.json"
    good = json.loads(path.read_text())
    path.write_text(json.dumps({**good, "format_version": 99}))
    with pytest.raises(mmdata.UserError, match="format version 99"):
        mmdata.open(tmp_path)
    path.write_text(json.dumps({**good, "settings": {"seed": 1}}))
    with pytest.raises(mmdata.UserError, match="not the one its manifest lists"):
        mmdata.open(tmp_path)
    path.write_text("[]")
    with pytest.raises(mmdata.UserError, match="not a manifest"):
        mmdata.open(tmp_path)
    path.unlink()
    with pytest.raises(mmdata.UserError, match="not a finished dataset"):
        mmdata.open(tmp_path)
