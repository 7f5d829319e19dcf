"""JSON lines, plain and gzipped."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json

from toy_media import png, read_all, read_folder, texts, write

from pipelines.ingest.media import Limits
from pipelines.ingest.sources import open_source


def lines(*records) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def test_each_line_is_a_document_with_its_facts(tmp_path):
    record = {"text": "héllo", "lang": "fr", "licence": "CC0", "created": "2024-01-02", "score": 3, "title": "T"}
    [document], dropped, _ = read_folder("jsonl", tmp_path, {"a.jsonl": lines(record)})
    assert (texts(document), document.uri) == (["héllo"], "a.jsonl#L1")
    assert (document.language, document.licence, document.created) == ("fr", "CC0", "2024-01-02")
    assert document.metadata == {"score": "3", "title": "T"} and not dropped


def test_identical_lines_are_told_apart_by_occurrence(tmp_path):
    documents, _, _ = read_folder("jsonl", tmp_path, {"a.jsonl.gz": gzip.compress(lines({"text": "x"}) * 3)})
    assert len({d.id for d in documents}) == 3


def test_ids_follow_the_line_not_its_number(tmp_path):
    before, _, _ = read_folder("jsonl", tmp_path, {"a.jsonl": lines({"text": "x"})})
    after, _, _ = read_folder("jsonl", tmp_path, {"a.jsonl": lines({"text": "new"}, {"text": "x"})})
    assert before[0].id == after[1].id


def test_bad_lines_are_ledgered_and_the_rest_is_read(tmp_path):
    content = b'{"text": "one"}\n{broken\n[1]\n\n{"other": 1}\n{"text": "\\ud800"}\n{"text": 5}\n' + b"[" * 5000 + b"\n"
    documents, dropped, _ = read_folder("jsonl", tmp_path, {"a.jsonl": content + b'{"text": "two"}'})
    assert [texts(d) for d in documents] == [["one"], ["two"]]
    assert [(d.uri[8:], d.reason) for d in dropped][:4] == [
        ("L2", "cannot decode"),
        ("L3", "cannot decode"),
        ("L5", "empty"),
        ("L6", "cannot decode"),
    ]
    assert len({d.uri for d in dropped}) == 6


def test_a_truncated_gzip_gives_what_came_before(tmp_path):
    packed = gzip.compress(lines(*({"text": f"record {i} {hash(i * 977)}"} for i in range(5000))))
    documents, dropped, _ = read_folder("jsonl", tmp_path, {"a.jsonl.gz": packed[: len(packed) // 2]})
    assert 100 < len(documents) < 5000
    assert dropped[-1].reason == "cannot decode"


def test_a_line_over_the_limit_is_skipped(tmp_path):
    write(tmp_path, {"a.jsonl": lines({"text": "x" * 5000}, {"text": "fine"})})
    documents, dropped = read_all(open_source("t", "jsonl", tmp_path, {}, Limits(max_bytes=1000 * 16)))
    assert [texts(d) for d in documents] == [["fine"]]
    assert [d.reason for d in dropped] == ["over limit"]


def test_media_are_files_beside_or_data_addresses(tmp_path):
    data = "data:image/png;base64," + base64.b64encode(png(3, 3)).decode()
    content = lines(
        {"text": "a", "image": "i/a.png"},
        {"parts": [{"kind": "text", "text": "b"}, {"kind": "image", "path": data}, {"kind": "text", "text": "c"}]},
        {"text": "d", "image": ["../out.png", "https://x.org/a.png"]},
    )
    documents, dropped, left = read_folder("jsonl", tmp_path, {"a.jsonl": content, "i/a.png": png(), "i/b.png": png()})
    assert [[p.kind for p in d.parts] for d in documents] == [["text", "image"], ["text", "image", "text"], ["text"]]
    assert documents[1].parts[1].read() == png(3, 3)
    assert [d.reason for d in dropped] == ["outside the folder", "remote media are not fetched"]
    assert [(d.uri, d.reason) for d in left] == [("i/b.png", "nothing refers to it")]


def test_a_digest_beside_a_medium_is_checked(tmp_path):
    good = hashlib.sha256(png()).hexdigest()
    content = lines(
        {"text": "a", "image": "a.png", "sha256": good},
        {"text": "b", "image": "a.png", "sha256": "0" * 64},
        {
            "parts": [
                {"kind": "image", "path": "a.png", "sha256": good},
                {"kind": "image", "path": "a.png", "sha256": "1"},
            ]
        },
    )
    documents, dropped, _ = read_folder("jsonl", tmp_path, {"a.jsonl": content, "a.png": png()})
    assert [[p.kind for p in d.parts] for d in documents] == [["text", "image"], ["text"], ["image"]]
    assert [d.reason for d in dropped] == ["another sha256"] * 2


def test_remote_media_are_found_in_a_mirror(tmp_path):
    content = lines({"image": "https://a.org/x/a.png"}, {"text": "y", "image": "https://a.org/x/gone.png"})
    files = {"a.jsonl": content, "mirror/a.org/x/a.png": png()}
    documents, dropped, left = read_folder("jsonl", tmp_path, files, mirror="mirror")
    assert len(documents) == 2 and documents[0].parts[0].read() == png() and not left
    assert [(d.uri, d.reason) for d in dropped] == [("https://a.org/x/gone.png", "missing file")]


def test_an_empty_file_is_a_ledger_line(tmp_path):
    documents, dropped, _ = read_folder("jsonl", tmp_path, {"a.jsonl": b"", "b.jsonl": b"\n\n"})
    assert not documents
    assert [(d.uri, d.reason) for d in dropped] == [("a.jsonl#L1", "empty"), ("b.jsonl", "empty")]


def test_a_quality_that_is_no_number_is_left_out(tmp_path):
    record = {"text": "x", "quality.words": "high", "quality.score": 0.5, "quality.seen": True}
    [document], _, _ = read_folder("jsonl", tmp_path, {"a.jsonl": lines(record)})
    assert document.metadata == {"quality.score": "0.5"}


def test_lines_that_are_not_utf_8_cost_only_themselves(tmp_path):
    whole = {"text": "x", "licence": "CC0"}
    bad = [b'{"text": "x", "%s": "\xed\xa0\x80"}' % field for field in (b"licence", b"created", b"id", b"other")]
    bad += [json.dumps(whole).encode("utf-16-be"), b'{"text": "x", "licence": "\\udc00"}']
    content = b"\n".join([*bad, lines(whole)])
    [document], dropped, _ = read_folder("jsonl", tmp_path, {"a.jsonl": content}, id="id")
    assert (texts(document), document.licence) == (["x"], "CC0")
    assert [(d.uri, d.reason) for d in dropped] == [(f"a.jsonl#L{i}", "cannot decode") for i in range(1, 7)]


def test_lines_may_be_nested_as_deep_as_can_just_be_read(tmp_path):
    deep = [b'{"text": "\\u0061", "x": %s1%s}\n' % (b"[" * i, b"]" * i) for i in range(700, 1010)]
    documents, dropped, _ = read_folder("jsonl", tmp_path, {"a.jsonl": b"".join(deep)})
    assert len(documents) + len(dropped) == len(deep) and documents and dropped
