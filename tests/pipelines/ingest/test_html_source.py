"""HTML pages: document order, alt text, and nothing from outside the folder."""

from __future__ import annotations

import base64
import codecs

import pytest
from toy_media import png, read_folder, texts

from pipelines.ingest import charset


def kinds(document):
    return [(p.kind, p.text or p.uri) for p in document.parts]


def test_text_and_images_come_in_the_order_of_the_page(tmp_path):
    page = """<html lang=fr><head><title>A  page</title><style>p {}</style></head><body><h1>Head</h1>
    <p>One <b>two</b>,\n three.</p><p><img src="i/a.png" alt="a red\n box"></p>
    <ul><li>x<li>y</ul><img src='i/b.png'><p>end<br>line</p><script>no()</script></body></html>"""
    [document], dropped, left = read_folder(
        "html", tmp_path, {"p.html": page, "i/a.png": png(), "i/b.png": png(), "i/c.png": png(), "s.css": "p {}"}
    )
    assert kinds(document) == [
        ("text", "Head\n\nOne two, three."),
        ("text", "a red box"),
        ("image", "i/a.png"),
        ("text", "x\ny"),
        ("image", "i/b.png"),
        ("text", "end\nline"),
    ]
    assert [(p.group, p.group_role) for p in document.parts[1:3]] == [(1, "caption"), (1, "target")]
    assert (document.language, document.metadata) == ("fr", {"title": "A page"})
    assert not dropped
    assert [(d.uri, d.reason) for d in left] == [
        ("i/c.png", "nothing refers to it"),
        ("s.css", "no source reads this format"),
    ]


def test_pre_keeps_its_white_space(tmp_path):
    [document], _, _ = read_folder("html", tmp_path, {"p.html": "<p>a</p><pre>x\n  y\n</pre><p>b  c</p>"})
    assert texts(document) == ["a\n\nx\n  y\n\n\nb c"]


def test_skipped_elements_go_with_their_images(tmp_path):
    page = '<div class="navheader">top<img src="up.png"></div><p>words</p>'
    [document], _, left = read_folder("html", tmp_path, {"p.html": page, "up.png": png()}, skip=["div.navheader"])
    assert kinds(document) == [("text", "words")]
    assert [d.uri for d in left] == ["up.png"]


@pytest.mark.parametrize(
    "src", ["../secret.png", "/../secret.png", "%2e%2e/secret.png", "file:///etc/passwd", "gone.png"]
)
def test_nothing_outside_the_folder_is_reached(tmp_path, src):
    (tmp_path / "secret.png").write_bytes(png())
    [document], dropped, _ = read_folder("html", tmp_path / "root", {"a.html": f'<p>x</p><img alt="it" src="{src}">'})
    assert kinds(document) == [("text", "x"), ("text", "it")], "the alt text stays"
    assert len(dropped) == 1


def test_remote_images_are_not_fetched(tmp_path):
    _, dropped, _ = read_folder("html", tmp_path, {"a.html": '<p>x<img src="https://example.org/a.png">'})
    assert [(d.uri, d.reason) for d in dropped] == [("https://example.org/a.png", "remote media are not fetched")]


def test_data_addresses_are_parts(tmp_path):
    good = "data:image/png;base64," + base64.b64encode(png()).decode()
    page = f'<img src="{good}"><img src="data:image/png;base64,!!!!"><img src="data:oops">'
    [document], dropped, _ = read_folder("html", tmp_path, {"a.html": page})
    assert [p.read() for p in document.parts] == [png()]
    assert [d.reason for d in dropped] == ["cannot decode", "cannot decode"]


def test_the_declared_charset_counts(tmp_path):
    page = '<meta charset="iso-8859-1"><p>café</p>'.encode("latin-1")
    [document], _, _ = read_folder("html", tmp_path, {"a.html": page})
    assert texts(document) == ["café"]


def test_empty_and_broken_pages_are_dropped(tmp_path):
    documents, dropped, _ = read_folder("html", tmp_path, {"a.html": "", "b.html": "<p> </p>", "c.html": b"<p>\xff"})
    assert not documents
    assert [(d.uri, d.reason) for d in dropped] == [
        ("a.html", "empty"),
        ("b.html", "empty"),
        ("c.html", "cannot decode"),
    ]


def test_deep_nesting_is_survived(tmp_path):
    documents, dropped, _ = read_folder("html", tmp_path, {"a.html": "<div>" * 20_000 + "deep"})
    assert [texts(d) for d in documents] == [["deep"]] or dropped


def test_drawings_are_pages_only_where_the_recipe_says_so(tmp_path):
    drawing = '<svg xmlns="http://www.w3.org/2000/svg"><text>One <tspan>two</tspan></text><text>three</text></svg>'
    files = {"a.svg": drawing, "b.html": f"<p>x</p>{drawing}"}
    documents, _, left = read_folder("html", tmp_path, files)
    assert [texts(d) for d in documents] == [["x"]] and len(left) == 1
    documents, _, _ = read_folder("html", tmp_path, files, include=["*.svg"])
    assert [texts(d) for d in documents] == [["One two\n\nthree"]]


@pytest.mark.parametrize(
    ("charset", "data", "text"),
    [
        ("utf-16", "na\u00efve".encode(), "na\u00efve"),
        ("UTF-16LE", "na\u00efve".encode(), "na\u00efve"),
        ("utf_32", b"plain", "plain"),
        ("unicode", b"plain", "plain"),
        ("iso-8859-1", b"\x93caf\xe9\x94 \x81", "\u201ccaf\u00e9\u201d \x81"),
        ("US-ASCII", b"1 \x80", "1 \u20ac"),
        ("latin5", b"\x80\xfd", "\u20ac\u0131"),
        ("gb2312", "\u9555".encode("gbk"), "\u9555"),  # not in GB 2312
        ("shift_jis", "\u2460".encode("cp932"), "\u2460"),
        ("euc-kr", "\ub620".encode("cp949"), "\ub620"),
        ("big5", "\u5605".encode("big5hkscs"), "\u5605"),
        ("x-sjis", "\u30a2".encode("cp932"), "\u30a2"),
        ("tis-620", b"\x80", "\u20ac"),
        ("koi8-r", "\u0416".encode("koi8-r"), "\u0416"),
    ],
)
def test_labels_mean_what_they_mean_on_the_web(tmp_path, charset, data, text):
    page = f'<META http-equiv="Content-Type" content="text/html; CHARSET={charset}"><p>'.encode() + data
    [document], dropped, _ = read_folder("html", tmp_path, {"a.html": page})
    assert texts(document) == [text] and not dropped


def test_every_label_of_the_web_has_a_codec():
    for codec, labels in charset._LABELS.items():
        assert codecs.lookup(codec)
        assert all(charset.codec_of(label.upper()) == codec for label in labels.split())


@pytest.mark.parametrize("charset", ["undefined", "idna", "no-such-charset"])
def test_a_page_of_a_charset_that_decodes_nothing_is_ledgered(tmp_path, charset):
    page = f'<meta charset="{charset}"><p>caf\u00e9'.encode()
    documents, [line], _ = read_folder("html", tmp_path, {"a.html": page})
    assert not documents and line.reason == "cannot decode"
