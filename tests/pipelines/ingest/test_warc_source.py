"""Crawls: WARC files through the reader of pages."""

from __future__ import annotations

import base64

from toy_archives import warc
from toy_media import png, read_all, read_folder, texts, write

from pipelines.ingest.media import Limits
from pipelines.ingest.reference import lost_by_host
from pipelines.ingest.sources import open_source


def test_pages_become_documents_under_their_address(tmp_path):
    page = b"<html lang=de><title>T</title><p>Hallo</p></html>"
    data = warc(("https://a.org/x", "text/html; charset=utf-8", page), ("https://a.org/t", "text/plain", b"plain"))
    for name in ("a.warc.gz", "b.warc"):
        documents, dropped, left = read_folder("warc", tmp_path / name, {name: data})
        assert [texts(d) for d in documents] == [["Hallo"], ["plain"]] and not dropped and not left
        assert documents[0].uri == f"{name}#https://a.org/x"
        assert (documents[0].language, documents[0].created) == ("de", "2024-05-01T00:00:00Z")
        assert documents[0].metadata == {"title": "T", "url": "https://a.org/x"}


def test_the_charset_of_the_header_comes_first(tmp_path):
    both = '<meta charset="utf-8"><p>café</p>'.encode("latin-1")
    page = '<meta charset="iso-8859-1"><p>naïve</p>'.encode("latin-1")
    data = warc(("http://a/1", "text/html; charset=ISO-8859-1", both), ("http://a/2", "text/html", page))
    documents, dropped, _ = read_folder("warc", tmp_path, {"a.warc": data})
    assert [texts(d) for d in documents] == [["café"], ["naïve"]] and not dropped


def test_media_elsewhere_are_ledgered_by_their_host(tmp_path):
    inline = base64.b64encode(png()).decode()
    page = f'<p>x<img src="/i/a.png" alt="A"><img src="//b.net/c.png"><img src="data:image/png;base64,{inline}">'
    [document], dropped, _ = read_folder(
        "warc", tmp_path, {"a.warc": warc(("http://a.org/p/", "text/html", page.encode()))}
    )
    assert [p.kind for p in document.parts] == ["text", "text", "image"]
    assert [d.uri for d in dropped] == ["http://a.org/i/a.png", "http://b.net/c.png"]
    assert lost_by_host(dropped) == {"a.org": 1, "b.net": 1}


def test_other_answers_are_ledgered_with_their_reason(tmp_path):
    found = warc(
        ("http://a/i", "image/png", png()), ("http://a/e", "text/html", b""), ("http://a/h", "text/html", b"<p>")
    )
    data = found + warc(("http://a/gone", "text/html", b"<p>no"), status="404 Not Found")
    documents, dropped, _ = read_folder("warc", tmp_path, {"a.warc": data})
    assert not documents
    assert [d.reason for d in dropped] == [
        "no source reads this format", "empty", "empty", "not a page that was found",
    ]  # fmt: skip


def test_pages_that_are_gone_count_as_lost_of_their_host(tmp_path):
    gone = [
        warc((f"http://a.org/{status[:3]}", "text/html", b"<p>no"), status=status)
        for status in ("404 Not Found", "410 Gone", "503 Busy", "301 Moved")
    ]
    _, dropped, _ = read_folder("warc", tmp_path, {"a.warc": b"".join(gone)})
    assert len(dropped) == 4 and lost_by_host(dropped) == {"a.org": 3}


def test_labels_in_headers_mean_what_they_mean_on_the_web(tmp_path):
    data = warc(
        ("http://a/1", "text/plain; charset=iso-8859-1", b"\x93quoted\x94"),
        ("http://a/2", "text/html; charset=utf-16", "<p>caf\u00e9".encode("utf-16-le")),
        ("http://a/3", "text/html; charset=us-ascii", b'<meta charset="utf-8"><p>\x80'),
    )
    documents, dropped, _ = read_folder("warc", tmp_path, {"a.warc": data})
    assert [texts(d) for d in documents] == [["\u201cquoted\u201d"], ["caf\u00e9"], ["\u20ac"]] and not dropped


def test_pages_seen_again_are_documents_of_their_own(tmp_path):
    data = warc(*[("http://a/x", "text/html", b"<p>same")] * 3)
    documents, _, _ = read_folder("warc", tmp_path, {"a.warc": data})
    assert len({d.id for d in documents}) == 3


def test_a_broken_crawl_keeps_what_came_before(tmp_path):
    data = warc(*((f"http://a/{i}", "text/html", b"<p>page %d" % i) for i in range(30)))
    documents, dropped, _ = read_folder("warc", tmp_path, {"a.warc.gz": data[: len(data) // 2]})
    assert 5 < len(documents) < 30 and dropped[-1].reason == "cannot decode"
    documents, dropped, _ = read_folder("warc", tmp_path, {"a.warc.gz": b"no crawl" * 50})
    assert not documents and dropped[0].reason == "cannot decode"


def test_a_page_over_the_limit_is_left_out(tmp_path):
    data = warc(("http://a/big", "text/html", b"<p>" + b"x" * 9000), ("http://a/ok", "text/html", b"<p>fine"))
    write(tmp_path, {"a.warc": data})
    documents, dropped = read_all(open_source("t", "warc", tmp_path, {}, Limits(max_bytes=8000 * 16)))
    assert [texts(d) for d in documents] == [["fine"]] and [d.reason for d in dropped] == ["over limit"]
