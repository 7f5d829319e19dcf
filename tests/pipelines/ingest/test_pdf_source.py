"""PDF files: text with pictures in place, or pages as pictures."""

from __future__ import annotations

import pytest
from toy_archives import pdf
from toy_media import read_all, read_folder, texts, write

from pipelines.ingest.decode_image import decode_image
from pipelines.ingest.media import Limits
from pipelines.ingest.sources import open_source

RED = (40, 30, b"\xff\0\0" * 1200)
LINES = "BT /F 12 Tf 20 250 Td (Above the picture) Tj ET BT /F 12 Tf 20 60 Td (Below the picture) Tj ET"
PICTURE = "q 100 0 0 80 50 120 cm /P Do Q"


def test_pictures_stand_between_the_lines_around_them(tmp_path):
    for content in (f"{LINES} {PICTURE}", f"{PICTURE} {LINES}"):
        [document], dropped, left = read_folder("pdf", tmp_path, {"a.pdf": pdf(content, picture=RED)})
        assert [(p.kind, p.text) for p in document.parts] == [
            ("text", "Above the picture"), ("image", None), ("text", "Below the picture"),
        ]  # fmt: skip
        image = decode_image(document.parts[1].read())
        assert image.shape == (30, 40, 3) and (image == (255, 0, 0)).all()
        assert not dropped and not left


def test_pages_follow_one_another(tmp_path):
    pages = [f"BT /F 12 Tf 20 250 Td (Page {i}) Tj ET" for i in range(3)]
    [document], _, _ = read_folder("pdf", tmp_path, {"a.pdf": pdf(*pages)})
    assert texts(document) == ["Page 0", "Page 1", "Page 2"]
    assert [p.uri for p in document.parts] == [f"a.pdf#page={i}" for i in (1, 2, 3)]


def test_pages_can_be_pictures(tmp_path):
    files = {"a.pdf": pdf(LINES, PICTURE, picture=RED)}
    [document], _, _ = read_folder("pdf", tmp_path, files, pages="images", dpi=36)
    images = [decode_image(p.read()) for p in document.parts]
    assert [image.shape for image in images] == [(150, 150, 3)] * 2
    assert (images[0] < 128).any() and (images[1][70, 50] == (255, 0, 0)).all()


def test_limits_hold_before_pixels_are_made(tmp_path):
    huge = pdf(f"{LINES} {PICTURE}", picture=(60_000, 60_000, b"\xff\0\0"))
    [document], dropped, _ = read_folder("pdf", tmp_path, {"a.pdf": huge})
    assert texts(document) == ["Above the picture\nBelow the picture"] and [d.reason for d in dropped] == ["over limit"]
    wide = pdf(LINES, size=(14_000, 14_000))
    documents, dropped, _ = read_folder("pdf", tmp_path, {"a.pdf": wide}, pages="images", dpi=600)
    assert not documents and dropped[0].reason == "over limit"


def test_a_document_of_too_much_keeps_its_beginning(tmp_path):
    write(tmp_path, {"a.pdf": pdf(*[LINES] * 9)})
    [document], dropped = read_all(open_source("t", "pdf", tmp_path, {}, Limits(max_bytes=5000 * 16)))
    assert len(document.parts) == 9 and not dropped
    [document], dropped, _ = read_folder("pdf", tmp_path, {}, max_pages=4)
    assert len(document.parts) == 4 and [d.reason for d in dropped] == ["over limit"]


def test_small_pictures_are_decoration(tmp_path):
    page = f"{LINES} {PICTURE} {PICTURE}"
    files = {"a.pdf": pdf(page, page, picture=(8, 9, b"\0\0\0" * 72))}
    [document], dropped, _ = read_folder("pdf", tmp_path, files)
    assert [p.kind for p in document.parts] == ["text", "text"]
    assert [(d.uri, d.reason, d.detail) for d in dropped] == [
        ("a.pdf", "too small", "4 pictures under min_side = 16 pixels")
    ]


@pytest.mark.parametrize("data", [b"%PDF-1.4", b"no pdf", pdf(""), pdf(), pdf(LINES)[:300], b""])
def test_what_gives_nothing_is_ledgered(tmp_path, data):
    documents, dropped, _ = read_folder("pdf", tmp_path, {"a.pdf": data})
    assert not documents and dropped[-1].reason in ("cannot decode", "empty")
