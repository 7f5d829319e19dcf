"""Parquet and Arrow files: columns, ranges, broken and hostile tables."""

from __future__ import annotations

import hashlib
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from toy_archives import arrow_stream, hf, parquet
from toy_media import png, read_all, read_folder, texts, write

from pipelines.ingest import parquet as parquet_source
from pipelines.ingest.document import Document
from pipelines.ingest.media import Limits
from pipelines.ingest.sources import open_source


def test_a_row_is_a_document_with_its_facts(tmp_path):
    table = parquet({"text": ["héllo", "b"], "lang": ["fr", None], "licence": ["CC0", "MIT"], "stars": [3, 4]})
    [first, second], dropped, left = read_folder("parquet", tmp_path, {"a.parquet": table})
    assert (texts(first), first.language, first.licence, first.metadata) == (["héllo"], "fr", "CC0", {"stars": "3"})
    assert (first.uri, second.uri) == ("a.parquet#0.0", "a.parquet#0.1") and not dropped and not left


def test_images_are_bytes_structs_paths_or_lists(tmp_path):
    raw = parquet({"image": [png(3, 3)], "caption": ["one"]})
    struct = parquet({"image": [{"bytes": png(4, 4), "path": "x.png"}, {"bytes": None, "path": "i/p.png"}]})
    several = parquet({"images": [[png(5, 5), png(6, 6)]], "text": ["words"]})
    files = {"a.parquet": raw, "b.parquet": struct, "c.parquet": several, "i/p.png": png(), "i/q.png": png()}
    documents, dropped, left = read_folder("parquet", tmp_path, files)
    assert [[p.kind for p in d.parts] for d in documents] == [
        ["text", "image"], ["image"], ["image"], ["text", "image", "image"],
    ]  # fmt: skip
    assert documents[0].parts[0].group_role == "caption" and documents[3].parts[0].group == -1
    assert documents[2].parts[0].path == tmp_path / "i/p.png"
    assert not dropped and [(d.uri, d.reason) for d in left] == [("i/q.png", "nothing refers to it")]


def test_every_row_group_is_in_one_range(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_source, "_RANGE", 4096)
    words = [f"row {i} " + hashlib.sha256(b"%d" % i).hexdigest() * 20 for i in range(200)]
    write(tmp_path, {"a.parquet": parquet({"text": words}, row_group_size=10, compression="none")})
    source = open_source("t", "parquet", tmp_path)
    assert len(source.inputs()) > 30
    documents, dropped = read_all(source)
    assert sorted(texts(d)[0] for d in documents) == sorted(words) and not dropped
    assert len({d.id for d in documents}) == 200


def test_equal_rows_have_ids_of_their_own(tmp_path):
    table = parquet({"text": ["x"] * 6}, row_group_size=2)
    documents, _, _ = read_folder("parquet", tmp_path, {"a.parquet": table})
    assert len({d.id for d in documents}) == 6


def test_ids_follow_the_column_that_names_a_row(tmp_path):
    before, _, _ = read_folder("parquet", tmp_path, {"a.parquet": parquet({"k": ["1"], "text": ["x"]})}, id="k")
    changed = parquet({"k": ["0", "1"], "text": ["new", "changed"]})
    after, _, _ = read_folder("parquet", tmp_path, {"a.parquet": changed}, id="k")
    assert before[0].id == after[1].id


def test_a_digest_beside_the_medium_is_checked(tmp_path):
    digests = [hashlib.sha256(png()).hexdigest(), "0" * 64]
    table = parquet({"image": [png(), png()], "text": ["a", "b"], "sha256": digests})
    documents, dropped, _ = read_folder("parquet", tmp_path, {"a.parquet": table})
    assert [[p.kind for p in d.parts] for d in documents] == [["text", "image"], ["text"]]
    assert [d.reason for d in dropped] == ["another sha256"]


def test_broken_text_costs_one_row(tmp_path):
    column = pa.array([b"good", b"\xff\xfe", b"also"], pa.binary()).view(pa.string())
    documents, dropped, _ = read_folder("parquet", tmp_path, {"a.parquet": parquet({"text": column})})
    assert [texts(d) for d in documents] == [["good"], ["also"]]
    assert [(d.uri, d.reason) for d in dropped] == [("a.parquet#0.1", "cannot decode")]


def test_rows_of_nothing_are_ledgered(tmp_path):
    documents, dropped, _ = read_folder("parquet", tmp_path, {"a.parquet": parquet({"text": [" ", None, "x"]})})
    assert len(documents) == 1 and [d.reason for d in dropped] == ["empty", "empty"]
    assert read_folder("parquet", tmp_path, {"a.parquet": parquet({"text": []})})[1][0].reason == "empty"


def test_a_table_that_unpacks_to_too_much_is_stopped(tmp_path):
    write(tmp_path, {"a.parquet": parquet({"text": ["x" * 100_000] * 3000})})
    documents, dropped = read_all(open_source("t", "parquet", tmp_path, {}, Limits(max_expansion=20)))
    assert 0 < len(documents) < 300 and dropped[-1].reason == "over limit"
    write(tmp_path, {"a.parquet": parquet({"text": pa.nulls(5_000_000, pa.string())})})
    found = read_all(open_source("t", "parquet", tmp_path, {}, Limits(max_expansion=1)))
    assert len(found[1]) < 40_000 and found[1][-1].reason == "over limit"


@pytest.mark.parametrize("data", [b"PAR1", b"PAR1" + b"x" * 100 + b"PAR1", b"PAR1" + b"\xff" * 8 + b"PAR1", b""])
def test_what_is_no_parquet_file_is_ledgered(tmp_path, data):
    documents, dropped, _ = read_folder("parquet", tmp_path, {"a.parquet": data})
    assert not documents and dropped[0].reason in ("cannot decode", "empty")


FEATURES = {
    "picture": {"_type": "Image"},
    "caption": {"dtype": "string", "_type": "Value"},
    "label": {"names": ["cat", "dog"], "_type": "ClassLabel"},
}


def test_a_saved_dataset_is_read_by_its_features(tmp_path):
    columns = {
        "picture": [{"bytes": png(), "path": None}, {"bytes": png(3, 3), "path": "b.png"}],
        "caption": ["a cat", "a dog"],
        "label": [0, 1],
    }
    documents, dropped, left = read_folder("hf", tmp_path, hf(columns, FEATURES))
    assert [[p.kind for p in d.parts] for d in documents] == [["text", "image"]] * 2
    assert [d.metadata for d in documents] == [{"label": "cat"}, {"label": "dog"}]
    assert documents[1].parts[1].read() == png(3, 3) and not dropped and not left


def test_splits_of_a_saved_dataset_are_folders(tmp_path):
    files = {f"{split}/{name}": data for split in ("train", "test") for name, data in hf({"text": ["x"]}, {}).items()}
    files["dataset_dict.json"] = b'{"splits": ["train", "test"]}'
    documents, _, left = read_folder("hf", tmp_path, files)
    assert [d.uri.split("/")[0] for d in documents] == ["test", "train"] and not left


def test_the_file_form_with_a_footer_is_read_too(tmp_path):
    out = pa.BufferOutputStream()
    table = pa.table({"text": ["a", "b"]})
    with pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table)
    documents, _, _ = read_folder("hf", tmp_path, {"a.arrow": out.getvalue().to_pybytes()})
    assert [texts(d) for d in documents] == [["a"], ["b"]]


def test_an_arrow_file_that_breaks_off_keeps_what_came_before(tmp_path):
    data = arrow_stream({"text": [f"row {i}" for i in range(100)]})
    documents, dropped, _ = read_folder("hf", tmp_path, {"a.arrow": data[: len(data) // 2]})
    assert 0 < len(documents) < 100 and dropped[-1].reason == "cannot decode"


def test_offsets_that_lead_out_of_their_buffer_are_refused(tmp_path):
    data = arrow_stream({"text": ["aaaa", "bbbb", "cccc"]}, rows=3)
    offsets = bytes([0, 0, 0, 0, 4, 0, 0, 0, 8, 0, 0, 0, 12, 0, 0, 0])
    assert offsets in data
    lying = data.replace(offsets, bytes([0, 0, 0, 0, 4, 0, 0, 0, 8, 0, 0, 0, 255, 255, 255, 0]))
    documents, dropped, _ = read_folder("hf", tmp_path, {"a.arrow": lying})
    assert len(documents) < 3 and {d.reason for d in dropped} == {"cannot decode"}


def test_a_broken_dataset_info_is_ledgered(tmp_path):
    files = hf({"text": ["x"]}, {}) | {"dataset_info.json": b"{"}
    documents, dropped, _ = read_folder("hf", tmp_path, files)
    assert not documents and dropped[0].reason == "cannot decode"
    files["dataset_info.json"] = json.dumps({"features": [1]}).encode()
    assert len(read_folder("hf", tmp_path, files)[0]) == 1


def test_the_packed_tables_of_the_corpus_give_their_samples(corpus):
    source = open_source("packed", "parquet", corpus / "packed", {"exclude": ["*.jsonl.gz", "*.tar"], "id": "id"})
    documents, dropped = read_all(source)
    assert len(documents) == 1500 + 12 and not dropped
    pictures = [d for d in documents if any(p.kind == "image" for p in d.parts)]
    assert len(pictures) == 12 and all(isinstance(d, Document) and len(d.parts) == 2 for d in pictures)


def test_a_lack_of_memory_is_no_verdict_on_a_file(tmp_path, monkeypatch):
    """The build takes its inputs one by one then; pyarrow's own error is a MemoryError too."""
    write(tmp_path, {"a.parquet": parquet({"text": ["a"]})})

    def short(*args, **options):
        raise pa.ArrowMemoryError("malloc of size 64 failed")

    monkeypatch.setattr("pyarrow.parquet.ParquetFile", short)
    with pytest.raises(MemoryError):
        read_all(open_source("t", "parquet", tmp_path))


def test_rows_keep_their_ids_when_others_come_before_them(tmp_path):
    """By content and occurrence in a range, whatever the row groups; by the id alone where there is one."""

    def ids(name, rows, options=None, **columns):
        table = parquet({"text": rows, **columns}, row_group_size=2)
        write(tmp_path / name, {"a.parquet": table})
        return [d.id for d in read_all(open_source("t", "parquet", tmp_path / name, options or {}))[0]]

    before = ids("before", ["a", "b", "a", "c"])
    assert len(set(before)) == 4 and ids("after", ["x", "a", "b", "y", "a", "c"])[1:3] == before[:2]
    assert set(ids("again", ["x", "a", "b", "y", "a", "c"])) > set(before)
    named = ids("named", ["a", "b", "c"], {"id": "n"}, n=[1, 2, 3])
    assert ids("renamed", ["x", "other words", "b", "c"], {"id": "n"}, n=[0, 1, 2, 3])[1:] == named


@pytest.mark.parametrize("format", ["parquet", "interleaved"])
def test_a_broken_row_group_costs_only_itself(tmp_path, format):
    words = [f"row {i} " + hashlib.sha256(b"%d" % i).hexdigest() for i in range(60)]
    lists = {"texts": [[word] for word in words], "images": [[None]] * 60}
    data = bytearray(parquet({"text": words} if format == "parquet" else lists, row_group_size=20, compression="zstd"))
    begin = pq.ParquetFile(io.BytesIO(bytes(data))).metadata.row_group(1).column(0).dictionary_page_offset
    data[begin : begin + 100] = b"\xff" * 100
    documents, dropped, _ = read_folder(format, tmp_path, {"a.parquet": bytes(data)})
    assert [texts(d)[0] for d in documents] == words[:20] + words[40:]
    assert [d.reason for d in dropped] == ["cannot decode"]
    assert format == "interleaved" or dropped[0].uri == "a.parquet#group 1"


def test_lone_surrogates_in_the_names_of_classes_are_ledgered(tmp_path):
    features = {"licence": {"names": ["\ud800"], "_type": "ClassLabel"}}
    documents, dropped, _ = read_folder("hf", tmp_path, hf({"text": ["x"], "licence": [0]}, features))
    assert not documents and [d.reason for d in dropped] == ["cannot decode"]
