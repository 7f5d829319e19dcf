"""Licence and opt-out lists, as filters of what a source yields."""

from __future__ import annotations

import hashlib
import json

import pytest
from toy_media import png, texts, write

from mmdata.errors import UserError
from pipelines.ingest.document import Document
from pipelines.ingest.screen import screened
from pipelines.ingest.sources import open_source


def read(root, files, format="jsonl", **options):
    source = open_source("t", format, write(root, files), options)
    found = [one for input in source.inputs() for one in screened(source, source.read(input))]
    return [f for f in found if isinstance(f, Document)], [f for f in found if not isinstance(f, Document)]


def lines(*records) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def test_only_listed_licences_are_kept(tmp_path):
    records = [{"text": str(i), "licence": word} for i, word in enumerate(["CC0-1.0", "CC-BY-4.0", "MIT", ""])]
    files = {"a.jsonl": lines(*records), "ok.txt": "# free\ncc0*\n\nCC-BY-*  # all versions\n"}
    documents, dropped = read(tmp_path, files, licences="ok.txt")
    assert [texts(d) for d in documents] == [["0"], ["1"]]
    assert [(d.uri, d.reason, d.detail) for d in dropped] == [
        ("a.jsonl#L3", "licence not in the list", "MIT"),
        ("a.jsonl#L4", "licence not in the list", "no licence"),
    ]


def test_documents_opt_out_by_host_address_and_uri(tmp_path):
    urls = ["https://www.example.org/a", "https://notexample.org/a", "https://b.net/private/x", "https://b.net/public"]
    files = {
        "a.jsonl": lines(*({"text": url, "url": url} for url in urls), {"text": "by uri"}),
        "out.txt": "Example.org\nhttps://b.net/private/\na.jsonl#L5\n",
    }
    documents, dropped = read(tmp_path, files, opt_out="out.txt")
    assert [texts(d)[0] for d in documents] == [urls[1], urls[3]]
    assert [(d.reason, d.detail) for d in dropped] == [
        ("opted out", "example.org"), ("opted out", "https://b.net/private/"), ("opted out", "a.jsonl#L5"),
    ]  # fmt: skip


def test_the_uri_of_a_record_takes_no_others_with_it(tmp_path):
    files = {name: lines(*({"text": f"{i}"} for i in range(12))) for name in ("a.jsonl", "b.jsonl", "c/x.jsonl")}
    files["out.txt"] = "a.jsonl#L1\nb.jsonl\nc/\n"
    documents, dropped = read(tmp_path, files, opt_out="out.txt")
    assert [d.uri for d in documents] == [f"a.jsonl#L{i}" for i in range(2, 13)]
    assert [d.detail for d in dropped] == ["a.jsonl#L1", *["b.jsonl"] * 12, *["c"] * 12]
    documents, _ = read(tmp_path, {"out.txt": "a.json\nb\nL1\n"}, opt_out="out.txt")
    assert len(documents) == 36


@pytest.mark.parametrize(
    "line", ["a.org", "https://a.org/", "https://A.org/1.png", "mirror/a.org", "mirror/a.org/1.png"]
)
def test_media_of_a_mirror_opt_out_by_their_address(tmp_path, line):
    page = {"texts": ["x", None, None], "images": [None, "https://a.org/1.png", " //b.net/2.png"]}
    files = {"p.jsonl": lines(page), "mirror/a.org/1.png": png(), "mirror/b.net/2.png": png(), "out.txt": line}
    [document], [dropped] = read(tmp_path, files, "interleaved", mirror="mirror", opt_out="out.txt")
    assert [(p.uri, p.address) for p in document.parts] == [("p.jsonl#1", ""), ("mirror/b.net/2.png", "//b.net/2.png")]
    assert (dropped.uri, dropped.reason) == ("mirror/a.org/1.png", "opted out")


def test_media_opt_out_by_digest_or_name_and_the_rest_stays(tmp_path):
    digest = hashlib.sha256(png()).hexdigest()
    record = {"text": "words", "image": ["a.png", "b.png", "c.png"]}
    files = {"a.jsonl": lines(record, {"image": "a.png"}), "a.png": png(), "b.png": png(3, 3), "c.png": png(4, 4)}
    documents, dropped = read(tmp_path, {**files, "out.txt": f"{digest.upper()}\nc.png"}, opt_out="out.txt")
    assert [[p.uri for p in d.parts] for d in documents] == [["a.jsonl#L1", "b.png"]]
    assert [(d.uri, d.detail) for d in dropped] == [
        ("a.png", "its sha256"), ("c.png", "c.png"), ("a.png", "its sha256"), ("a.jsonl#L2", "all its parts"),
    ]  # fmt: skip


def test_settings_follow_the_lists_by_content(tmp_path):
    write(tmp_path, {"a.txt": "x", "out.list": "a.org"})
    before = open_source("t", "text", tmp_path, {"opt_out": "out.list"}).settings()
    write(tmp_path, {"out.list": "a.org\nb.org"})
    after = open_source("t", "text", tmp_path, {"opt_out": "out.list"}).settings()
    assert before != after and "out.list" not in str(after)


def test_a_list_that_cannot_be_read_is_refused(tmp_path):
    write(tmp_path, {"a.txt": "x"})
    with pytest.raises(UserError, match=r"opt_out = 'gone\.txt'"):
        open_source("t", "text", tmp_path, {"opt_out": "gone.txt"})
