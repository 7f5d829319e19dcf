"""TFDS datasets as sources."""

from __future__ import annotations

import io

import tensorflow_datasets as tfds
from toy_archives import tfds_files
from toy_media import png, read_all, texts

from pipelines.ingest.sources import open_source

f = tfds.features


def write(folder):
    features = f.FeaturesDict({
        "picture": f.Image(encoding_format="png"), "text": f.Text(), "label": f.ClassLabel(names=["cat", "dog"]),
    })  # fmt: skip
    examples = [{"picture": io.BytesIO(png(4 + i, 4)), "text": f"t{i}", "label": i % 2} for i in range(5)]
    tfds_files(folder / "toy" / "1.0.0", features, [examples[:3], examples[3:]])


def test_records_are_documents_in_shards(tmp_path):
    write(tmp_path)
    source = open_source("t", "tfds", tmp_path)
    assert len(source.inputs()) == 2
    documents, dropped = read_all(source)
    assert [texts(d) for d in documents] == [[f"t{i}"] for i in range(5)] and not dropped
    assert documents[3].parts[1].read() == png(7, 4)
    assert documents[1].metadata == {"label": "dog"}
    assert len({d.id for d in documents}) == 5 and source.leftovers() == []


def test_a_broken_shard_is_ledgered_and_the_other_is_read(tmp_path):
    write(tmp_path)
    shard = tmp_path / "toy/1.0.0/toy-train.array_record-00000-of-00002"
    shard.write_bytes(shard.read_bytes()[:1000])
    documents, dropped = read_all(open_source("t", "tfds", tmp_path))
    assert [texts(d) for d in documents] == [["t3"], ["t4"]]
    assert {d.reason for d in dropped} == {"cannot decode"}


def test_features_that_would_be_decoded_are_refused(tmp_path):
    features = f.FeaturesDict({"pictures": f.Sequence(f.Image(encoding_format="png")), "text": f.Text()})
    tfds_files(tmp_path, features, [[{"pictures": [io.BytesIO(png())], "text": "x"}]])
    documents, dropped = read_all(open_source("t", "tfds", tmp_path))
    assert not documents and "'pictures'" in dropped[0].detail


def test_lying_lengths_are_ledgered(tmp_path):
    write(tmp_path)
    info = tmp_path / "toy/1.0.0/dataset_info.json"
    info.write_text(info.read_text().replace('"3"', '"30"'))
    documents, dropped = read_all(open_source("t", "tfds", tmp_path))
    assert dropped and len(documents) <= 5
