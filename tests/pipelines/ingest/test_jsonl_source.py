"""JSON lines, plain and gzipped."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import random
from dataclasses import replace

from toy_media import png, read_all, read_folder, texts, write

from pipelines.ingest import jsonl
from pipelines.ingest.document import Document, Dropped
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


def in_ranges(root, num_bytes, monkeypatch, backwards=False, limits=None):
    """Documents and ledger lines of a folder whose plain files are read in ranges of so many bytes."""
    monkeypatch.setattr(jsonl, "_RANGE", num_bytes)
    jsonl._known_line_ends.cache_clear()
    source = open_source("t", "jsonl", root, {}, limits)
    inputs = source.inputs()
    found = [list(source.read(input)) for input in (reversed(inputs) if backwards else inputs)]
    return [one for part in (reversed(found) if backwards else found) for one in part], len(inputs)


def test_ranges_of_a_file_give_what_the_whole_gives(tmp_path, monkeypatch):
    """Ids, uris with the line's number, ledger lines: whatever a range begins in, and whichever is read first."""
    draw = random.Random(0)
    rows = [json.dumps({"text": f"{i}" + "x" * draw.choice([0, 1, 30, 200])}).encode() for i in range(60)]
    rows[7], rows[33] = b"{broken", rows[33] + b"\r"
    rows[20:20] = [b"", b"\r"]
    for end in (b"\n", b""):
        root = write(tmp_path / f"{len(end)}", {"a.jsonl": b"\n".join(rows) + end, "b.jsonl": lines({"text": "b"})})
        whole, number = in_ranges(root, 1 << 20, monkeypatch)
        assert number == 2 and len(whole) == 61
        for size in (1, 2, 13, 37, 100, 1000, root.joinpath("a.jsonl").stat().st_size // 2):
            for backwards in (False, True):
                found, number = in_ranges(root, size, monkeypatch, backwards)
                assert found == whole and number > 2


def test_a_plain_file_has_no_limit_but_that_of_its_lines(tmp_path, monkeypatch):
    limits = Limits(max_bytes=16 * 100)
    write(tmp_path, {"a.jsonl": lines(*({"text": f"{i}"} for i in range(300)), {"text": "x" * 5000}, {"text": "end"})})
    for size in (64, 1000, 1 << 20):
        found, _ = in_ranges(tmp_path, size, monkeypatch, limits=limits)
        assert [(d.uri, d.reason) for d in found if isinstance(d, Dropped)] == [("a.jsonl#L301", "over limit")]
        assert len(found) == 302 and found[-1].uri == "a.jsonl#L302"


def test_a_packed_file_under_a_plain_name_is_read_once_and_whole(tmp_path, monkeypatch):
    rows = lines(*({"text": f"{i} {hash(i * 977)}"} for i in range(100)))
    write(tmp_path, {"a.jsonl": gzip.compress(rows)})
    found, number = in_ranges(tmp_path, 100, monkeypatch)
    assert number > 3 and [d.uri for d in found] == [f"a.jsonl#L{i}" for i in range(1, 101)]
    write(tmp_path, {"b.jsonl.gz": gzip.compress(rows)})
    assert in_ranges(tmp_path, 100, monkeypatch)[1] == number + 1


def test_a_file_in_ranges_that_changes_after_listing(tmp_path, monkeypatch):
    """What is cut off is a ledger line of each range that is gone; what is added is of the last range."""
    monkeypatch.setattr(jsonl, "_RANGE", 100)
    rows = [json.dumps({"text": f"{i:03d}"}).encode() + b"\n" for i in range(30)]  # of 16 bytes
    path = write(tmp_path, {"a.jsonl": b"".join(rows)}) / "a.jsonl"
    source = open_source("t", "jsonl", tmp_path, {})
    inputs = source.inputs()
    assert [input.size for input in inputs] == [100, 100, 100, 100, 80]
    path.write_bytes(b"".join(rows[:15]))
    found = [one for input in inputs for one in source.read(input)]
    assert [d.uri for d in found if isinstance(d, Document)] == [f"a.jsonl#L{i}" for i in range(1, 16)]
    assert [d.uri for d in found[15:]] == ["a.jsonl#00003", "a.jsonl#00004"]
    assert {d.reason for d in found[15:]} == {"cannot decode"}
    path.write_bytes(b"".join(rows * 2))
    assert len([one for input in inputs for one in source.read(input)]) == 60


def test_line_ends_are_counted_on_from_where_they_were(tmp_path, monkeypatch):
    """A worker reads a file's bytes once for them, not once a range."""
    monkeypatch.setattr(jsonl, "_RANGE", 1000)
    jsonl._known_line_ends.cache_clear()
    write(tmp_path, {"a.jsonl": lines(*({"text": f"{i:03d}"} for i in range(1000)))})
    source = open_source("t", "jsonl", tmp_path, {})
    alive = []
    monkeypatch.setattr(jsonl, "_AT_ONCE", 1000)
    for input in source.inputs():
        list(source.read(replace(input, step=alive.append)))
    assert alive.count("a.jsonl#00009") == 1 and sum(name.startswith("a.jsonl#0") for name in alive) == 15


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
