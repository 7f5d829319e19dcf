"""Manifests and splits."""

import numpy as np
import pytest

from mmdata.errors import RunError, UserError
from mmdata.manifest import finish_source, split_of, write_dataset_manifest
from mmdata.media import Media, write_media_shard
from mmdata.shards import write_shard
from tests.mmdata.toy_source import CODECS, sample


def test_splits_follow_the_cluster_alone() -> None:
    clusters = [f"{i:032x}" for i in range(20_000)]
    share = sum(split_of(c, 0.01) == "validation" for c in clusters) / len(clusters)
    assert 0.007 < share < 0.013
    small = {c for c in clusters if split_of(c, 0.01) == "validation"}
    assert small <= {c for c in clusters if split_of(c, 0.05) == "validation"}  # a larger share only adds
    with pytest.raises(UserError, match="between 0 and 1"):
        split_of("00", 1.5)


def test_split_vectors_of_the_format_page(root) -> None:
    page = (root / "docs" / "format.md").read_text("utf-8")
    for i in range(3):
        cluster = f"{i:032x}"
        import hashlib

        number = int.from_bytes(hashlib.blake2b(b"split\0" + cluster.encode(), digest_size=6).digest(), "big")
        assert f"`{cluster}` | {number}" in page


def test_a_source_with_missing_or_foreign_shards_is_not_finished(tmp_path) -> None:
    info = write_shard(tmp_path, "toy", "train", 0, 2, [sample(1)])
    with pytest.raises(ValueError, match="expected"):
        finish_source(tmp_path, "toy", [info], CODECS, {})
    info = write_shard(tmp_path, "toy", "train", 0, 1, [sample(1)])
    with pytest.raises(ValueError, match="codec"):
        finish_source(tmp_path, "toy", [info], CODECS[:1], {})
    (tmp_path / info.file).unlink()
    with pytest.raises(RunError, match="missing"):
        finish_source(tmp_path, "toy", [info], CODECS, {})
    with pytest.raises(UserError):
        write_dataset_manifest(tmp_path.parent, [tmp_path.name])
    assert not list(tmp_path.glob("manifest.json"))


def test_media_of_one_digest_must_agree(tmp_path) -> None:
    a, b = (Media("aa" * 32, "image", np.full((2, 2, 3), v, np.uint8)) for v in (1, 2))
    assert write_media_shard(tmp_path, 0, 1, [a, a]).media == 1
    with pytest.raises(ValueError, match="two different media"):
        write_media_shard(tmp_path, 0, 1, [a, b])
    with pytest.raises(ValueError, match="uint8 with 3 dimensions"):
        Media("aa", "image", np.zeros((2, 2), np.uint8))
