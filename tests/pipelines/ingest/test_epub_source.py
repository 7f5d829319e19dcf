"""EPUB books, honest and hostile."""

from __future__ import annotations

import zipfile

import pytest
from toy_archives import epub, zipped
from toy_media import png, read_all, read_folder, texts, write

from pipelines.ingest.media import Limits
from pipelines.ingest.sources import open_source

CHAPTERS = {
    "a.xhtml": "<html><title>One</title><p>first</p><img alt='a cat' src='img/cat.png'/><p>after</p></html>",
    "b.xhtml": '<html lang="de"><nav>contents</nav><p>zweites</p></html>',
}


def book(**files: bytes) -> bytes:
    return epub(CHAPTERS, {"OEBPS/img/cat.png": png(), **files}, spine=["b.xhtml", "a.xhtml"])


def test_chapters_follow_the_spine_with_pictures_in_place(tmp_path):
    [first, second], dropped, left = read_folder("epub", tmp_path, {"a.epub": book()})
    assert (texts(first), first.language, first.uri) == (["zweites"], "de", "a.epub#OEBPS/b.xhtml")
    assert [(p.kind, p.text, p.group_role) for p in second.parts] == [
        ("text", "first", "none"), ("text", "a cat", "caption"), ("image", None, "target"), ("text", "after", "none"),
    ]  # fmt: skip
    assert second.parts[2].read() == png() and second.parts[2].uri == "a.epub#OEBPS/img/cat.png"
    assert (second.language, second.licence) == ("fr", "CC0")
    assert second.metadata == {"title": "A Book", "creator": "Someone", "chapter": "One"}
    assert not dropped and not left


def test_a_book_can_be_one_document(tmp_path):
    [document], _, _ = read_folder("epub", tmp_path, {"a.epub": book()}, chapters="book")
    assert texts(document) == ["zweites", "first", "a cat", "after"]
    groups = [p.group for p in document.parts if p.group >= 0]
    assert len(groups) == 2 and groups[0] == groups[1]
    assert document.uri == "a.epub" and document.metadata["title"] == "A Book"


def test_pictures_that_no_chapter_shows_are_ledgered(tmp_path):
    _, dropped, _ = read_folder("epub", tmp_path, {"a.epub": epub(CHAPTERS, {"OEBPS/cover.png": png()})})
    assert [(d.uri, d.reason) for d in dropped] == [
        ("a.epub#OEBPS/a.xhtml/1", "missing file"),
        ("a.epub#OEBPS/cover.png", "nothing refers to it"),
    ]


@pytest.mark.parametrize(
    ("src", "reason"),
    [
        ("../../../etc/passwd", "outside the folder"),
        ("/etc/passwd", "outside the folder"),
        ("%2e%2e/%2e%2e/x.png", "outside the folder"),
        ("https://a.org/x.png", "remote media are not fetched"),
        ("gone.png", "missing file"),
        ("data:image/png;base64,!!", "cannot decode"),
    ],
)
def test_references_reach_nothing_outside(tmp_path, src, reason):
    chapter = {"a.xhtml": f"<p>x</p><img src='{src}'>"}
    [document], dropped, _ = read_folder("epub", tmp_path, {"a.epub": epub(chapter)})
    assert texts(document) == ["x"] and [d.reason for d in dropped] == [reason]


def test_names_that_climb_out_are_ledgered_and_not_written(tmp_path):
    data = epub({"a.xhtml": "<p>x"}, {"../../evil.txt": b"x", "/abs.txt": b"y"})
    documents, dropped, _ = read_folder("epub", tmp_path, {"a.epub": data})
    assert len(documents) == 1 and [d.reason for d in dropped] == ["outside the folder"] * 2
    assert {p.name for p in tmp_path.iterdir()} == {"a.epub"}


def test_a_zip_bomb_is_stopped(tmp_path):
    chapters = {"ok.xhtml": "<p>fine</p>", "bomb.xhtml": "<p>" + "0" * (60 << 20), "late.xhtml": "<p>late</p>"}
    write(tmp_path, {"a.epub": epub(chapters)})
    limits = Limits(max_bytes=1 << 30, max_expansion=20)
    documents, dropped = read_all(open_source("t", "epub", tmp_path, {}, limits))
    assert [texts(d) for d in documents] == [["fine"]]
    assert [d.reason for d in dropped] == ["over limit", "over limit"]


def test_a_member_whose_header_lies_on_its_size_is_bounded(tmp_path):
    data = epub({"a.xhtml": "<p>" + "x" * 100_000})
    lying = data.replace((100_003).to_bytes(4, "little"), (9).to_bytes(4, "little"))
    assert lying != data
    documents, dropped, _ = read_folder("epub", tmp_path, {"a.epub": lying})
    assert not documents and dropped[0].reason == "cannot decode"


def test_entities_are_not_expanded(tmp_path):
    lol = '<!DOCTYPE c [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><container><rootfile full-path="&b;"/></container>'
    data = zipped({"META-INF/container.xml": lol})
    documents, dropped, _ = read_folder("epub", tmp_path, {"a.epub": data})
    assert not documents and "entities" in dropped[0].detail


def test_a_member_without_a_name_is_survived(tmp_path):
    data = epub({"a.xhtml": "<p>x"}, {"Q.txt": b"y"}).replace(b"Q.txt", b"\0.txt")
    documents, dropped, _ = read_folder("epub", tmp_path, {"a.epub": data})
    assert [texts(d) for d in documents] == [["x"]] and not dropped


def test_an_encrypted_chapter_costs_itself(tmp_path):
    data = bytearray(epub({"a.xhtml": "<p>x", "b.xhtml": "<p>y"}, spine=["a.xhtml", "b.xhtml"]))
    place = data.rindex(b"OEBPS/a.xhtml") - 46  # its entry in the central directory
    data[place + 8] |= 1
    documents, dropped, _ = read_folder("epub", tmp_path, {"a.epub": bytes(data)})
    assert [texts(d) for d in documents] == [["y"]]
    assert [(d.reason, d.detail) for d in dropped] == [("cannot decode", "encrypted")]


@pytest.mark.parametrize("data", [b"PK", b"not a zip" * 9, zipped({"x": "y"}), epub({"a.xhtml": ""}), b""])
def test_what_is_no_book_is_ledgered(tmp_path, data):
    documents, dropped, _ = read_folder("epub", tmp_path, {"a.epub": data})
    assert not documents and dropped


def test_too_many_files_in_an_archive_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.ingest.epub._MOST_FILES", 3)
    documents, dropped, _ = read_folder("epub", tmp_path, {"a.epub": zipped({f"{i}": "x" for i in range(5)})})
    assert not documents and dropped[0].reason == "over limit"
    assert zipfile.is_zipfile(tmp_path / "a.epub")
