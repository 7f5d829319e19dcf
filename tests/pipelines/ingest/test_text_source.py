"""Text files, records, man pages."""

from __future__ import annotations

import gzip

import pytest
from toy_media import read_folder, texts

from pipelines.ingest.roff import to_text


def test_text_is_kept_as_it_is(tmp_path):
    documents, dropped, _ = read_folder("text", tmp_path, {"a.txt": "  two\r\nlines \n\n", "b.py": "if x:\n\ty()\n"})
    assert [texts(d) for d in documents] == [["  two\nlines \n\n"], ["if x:\n\ty()\n"]]
    assert not dropped


def test_records_are_parted_by_the_separator_line(tmp_path):
    [*documents], _, _ = read_folder("text", tmp_path, {"f.txt": "one\n%\ntwo\n lines\n%\n%\none\n"}, separator="%")
    assert [texts(d)[0] for d in documents] == ["one", "two\n lines", "one"]
    assert len({d.id for d in documents}) == 3, "identical records are told apart"


def test_an_inserted_record_changes_no_other_id(tmp_path):
    before, _, _ = read_folder("text", tmp_path / "1", {"f.txt": "one\n%\ntwo\n"}, separator="%")
    after, _, _ = read_folder("text", tmp_path / "2", {"f.txt": "new\n%\none\n%\ntwo\n"}, separator="%")
    assert {d.id for d in before} < {d.id for d in after}


@pytest.mark.parametrize(
    "content, reason",
    [(b"", "empty"), (b" \n\n", "empty"), (b"caf\xe9", "cannot decode"), (b"\x1f\x8b\x08broken", "cannot decode")],
)
def test_bad_files_are_dropped_and_the_rest_goes_on(tmp_path, content, reason):
    documents, dropped, _ = read_folder("text", tmp_path, {"a.txt": content, "b.txt": "fine"})
    assert [d.uri for d in documents] == ["b.txt"]
    assert [(d.uri, d.reason, d.stage) for d in dropped] == [("a.txt", reason, "ingest")]


def test_the_named_encoding_and_byte_order_marks_count(tmp_path):
    documents, _, _ = read_folder("text", tmp_path, {"a.txt": b"caf\xe9"}, encoding="latin-1")
    assert texts(documents[0]) == ["café"]
    documents, _, _ = read_folder("text", tmp_path, {"a.txt": "é".encode("utf-16")})
    assert texts(documents[0]) == ["é"]


def test_a_truncated_gzip_is_dropped(tmp_path):
    packed = gzip.compress(b"words " * 10_000)
    documents, dropped, _ = read_folder("text", tmp_path, {"a.txt.gz": packed[:-20], "b.txt.gz": packed})
    assert [d.uri for d in documents] == ["b.txt.gz"]
    assert [d.reason for d in dropped] == ["cannot decode"]


PAGE = r""".\" a comment
.TH LS 1 "now"
.SH NAME
ls \- list
.de XX
nothing to see
..
.SH OPTIONS
.TP
\fB\-a\fP, \fB\-\-all\fP
show all
.B bold
.IR files ,
really
.if t typeset
.nf
  kept   as
    it is
.fi
.PP
\(lqquoted\(rq \[u00E9] \*(lqx\*(rq
"""


def test_man_pages_become_text(tmp_path):
    [document], _, _ = read_folder("text", tmp_path, {"ls.1.gz": gzip.compress(PAGE.encode())})
    assert texts(document)[0].split("\n") == [
        "NAME", "", "ls - list", "", "OPTIONS", "", "-a, --all", "show all bold files, really", "",
        "  kept   as", "    it is", "", "“quoted” é “x”",
    ]  # fmt: skip


def test_man_pages_may_stay_source(tmp_path):
    [document], _, _ = read_folder("text", tmp_path, {"ls.1": PAGE}, man="source")
    assert texts(document) == [PAGE]


def test_mdoc_flags_and_options():
    page = ".Dd x\n.Sh SYNOPSIS\n.Nm cat\n.Op Fl benstuv\n.Op Ar\n.Sh DESCRIPTION\nThe\n.Nm\nutility."
    assert "cat [-benstuv]" in to_text(page)
    assert "The cat utility." in to_text(page)


def test_chinese_lines_join_without_a_space():
    assert to_text(".SH 名\n中文\n字。\nand words") == "名\n\n中文字。 and words"


@pytest.mark.parametrize("page", ["", ".", "\\", ".SH", ".de", ".if n \\{", "\\f", ".TP", ".it 1 an", "\\[u110000]"])
def test_broken_roff_never_raises(page):
    to_text(page)
