"""What all sources share: options, errors, the listing of files, manifests of facts, leftovers."""

from __future__ import annotations

import os

import pytest
from toy_media import png, read_all, read_folder, write

from mmdata.errors import UserError
from pipelines.ingest.document import document_id
from pipelines.ingest.sources import SOURCES, open_source, require_inputs


def test_an_unknown_format_names_the_nearest(tmp_path):
    with pytest.raises(UserError, match="Did you mean 'captions'"):
        open_source("pictures", "caption", tmp_path)


def test_an_unknown_key_names_the_nearest(tmp_path):
    with pytest.raises(UserError, match="Did you mean 'language'"):
        open_source("web", "html", tmp_path, {"langauge": "en"})


def test_a_wrong_value_names_the_key(tmp_path):
    with pytest.raises(UserError, match="man = 'troff'"):
        open_source("pages", "text", tmp_path, {"man": "troff"})
    with pytest.raises(UserError, match="not a CSS selector"):
        open_source("pages", "html", tmp_path, {"skip": ["div..["]})


@pytest.mark.parametrize("format", sorted(SOURCES))
def test_missing_and_empty_folders_are_refused(tmp_path, format):
    with pytest.raises(UserError, match="there is no folder"):
        open_source("a", format, tmp_path / "gone")
    with pytest.raises(UserError, match="is empty"):
        require_inputs(open_source("a", format, tmp_path))
    write(tmp_path, {"x.bin": b"1", "y.bin": b"2"})
    with pytest.raises(UserError, match=r"nothing that it reads \(\.bin 2\)"):
        require_inputs(open_source("a", format, tmp_path))


def test_ids_do_not_depend_on_where_the_folder_lies(tmp_path):
    files = {"a/b.txt": "words"}
    first, second = (read_folder("text", tmp_path / place, files)[0][0] for place in ("here", "there/deep"))
    assert first.id == second.id == document_id("toy", "a/b.txt")
    assert first.uri == "a/b.txt"


def test_a_manifest_gives_language_licence_and_caption(tmp_path):
    rows = "path\tlanguage\tcaption\tlicence\npics/a.png\tzh_CN\tone\tCC0\nother/a.png\ten\ttwo\tMIT\n"
    write(tmp_path, {"facts.tsv": rows, "pics/a.png": png()})
    source = open_source("pics", "captions", tmp_path / "pics", {"manifest": "../facts.tsv"})
    [document], _ = read_all(source)
    assert (document.language, document.licence, document.parts[0].text) == ("zh-CN", "CC0", "one")
    assert "facts" not in str(source.settings())


def test_settings_follow_the_manifest_by_content(tmp_path):
    write(tmp_path, {"a.txt": "x", "facts.tsv": "path\tlanguage\na.txt\ten\n"})
    before = open_source("t", "text", tmp_path, {"manifest": "facts.tsv"}).settings()
    write(tmp_path, {"facts.tsv": "path\tlanguage\na.txt\tfr\n"})
    assert before != open_source("t", "text", tmp_path, {"manifest": "facts.tsv"}).settings()


def test_an_unreadable_manifest_is_refused(tmp_path):
    write(tmp_path, {"a.txt": "x"})
    with pytest.raises(UserError, match="cannot read the manifest"):
        open_source("t", "text", tmp_path, {"manifest": "gone.tsv"})


def test_the_first_folder_can_name_the_language(tmp_path):
    documents, _, _ = read_folder("text", tmp_path, {"zh_CN/a.txt": "字", "top.txt": "x"}, language_from_folder=True)
    assert [d.language for d in documents] == ["", "zh-CN"]


def test_excluded_files_are_in_the_ledger(tmp_path):
    documents, _, left = read_folder("text", tmp_path, {"a.txt": "x", "b.txt": "y", "c.bin": "z"}, exclude=["b.*"])
    assert [d.uri for d in documents] == ["a.txt"]
    assert [(d.uri, d.reason) for d in left] == [
        ("b.txt", "excluded by the recipe"),
        ("c.bin", "no source reads this format"),
    ]


def test_links_that_lead_outside_are_not_followed(tmp_path):
    write(tmp_path, {"secret/key.txt": "secret", "root/a.txt": "x"})
    os.symlink(tmp_path / "secret/key.txt", tmp_path / "root/key.txt")
    os.symlink(tmp_path / "secret", tmp_path / "root/folder")
    documents, _, left = read_folder("text", tmp_path / "root", {})
    assert [d.uri for d in documents] == ["a.txt"]
    assert [(d.uri, d.reason) for d in left] == [("folder", "outside the folder"), ("key.txt", "outside the folder")]


def test_a_link_to_nothing_is_in_the_ledger(tmp_path):
    write(tmp_path, {"a.txt": "x"})
    os.symlink(tmp_path / "gone.txt", tmp_path / "b.txt")
    documents, _, left = read_folder("text", tmp_path, {})
    assert [d.uri for d in documents] == ["a.txt"]
    assert [(d.uri, d.reason) for d in left] == [("b.txt", "missing file")]


def test_a_path_may_be_one_file(tmp_path):
    write(tmp_path, {"a.txt": "x", "b.txt": "y"})
    source = open_source("t", "text", tmp_path / "a.txt")
    assert [d.uri for d in read_all(source)[0]] == ["a.txt"]
    assert source.leftovers() == []


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("2024-*/*.txt", ["2024-01/a.txt", "2024-02/b.txt"]),
        ("2024-*", ["2024-01/a.txt", "2024-01/deep/c.txt", "2024-02/b.txt"]),
        ("**/c.txt", ["2024-01/deep/c.txt"]),
        ("2024-0[12]/?.txt", ["2024-01/a.txt", "2024-02/b.txt"]),
        ("202[!4]-01/**", ["2023-01/d.txt"]),
    ],
)
def test_a_path_may_be_a_glob_pattern(tmp_path, pattern, found):
    names = ["2024-01/a.txt", "2024-01/deep/c.txt", "2024-02/b.txt", "2023-01/d.txt"]
    write(tmp_path, {name: "x" for name in names})
    source = open_source("t", "text", tmp_path / pattern)
    assert [d.uri for d in read_all(source)[0]] == found
    assert source.leftovers() == [] and source.settings()["pattern"] == pattern


def test_a_pattern_that_fits_nothing_is_refused(tmp_path):
    write(tmp_path, {"a.txt": "x"})
    with pytest.raises(UserError, match="is empty"):
        require_inputs(open_source("t", "text", tmp_path / "*.html"))
    with pytest.raises(UserError, match="there is no folder"):
        open_source("t", "text", tmp_path / "gone" / "*.html")
    with pytest.raises(UserError, match="cannot be read"):
        open_source("t", "text", tmp_path / "[z-a].txt").inputs()


def test_names_that_are_not_utf_8_are_printable(tmp_path):
    with open(os.path.join(os.fsencode(tmp_path), b"caf\xe9.txt"), "w") as file:
        file.write("x")
    [document], _ = read_all(open_source("t", "text", tmp_path))
    assert document.uri == "caf\\xe9.txt"
