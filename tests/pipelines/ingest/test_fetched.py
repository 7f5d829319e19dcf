"""Sources behind a URL: on fsspec's store in memory, and on real servers of the APIs of S3 and of Google's storage."""

from __future__ import annotations

import http.server
import threading
from pathlib import Path

import fsspec
import pytest
from toy_media import png, read_all, texts, write

from mmdata.errors import UserError
from pipelines.ingest.document import Dropped
from pipelines.ingest.fetched import Wanted, fetched
from pipelines.ingest.media import Limits
from pipelines.ingest.sources import open_source, source_class
from tests.mmdata.gcs_server import serving_gcs
from tests.mmdata.object_store import ENVIRONMENT, serving

FILES = {"web/2024-1/a.txt": "one", "web/2024-2/b.txt": "two", "web/2023-1/c.txt": "three", "web/2024-2/d.md": "four"}


@pytest.fixture
def memory():
    files = fsspec.filesystem("memory")
    for name, words in FILES.items():
        files.pipe(f"/{name}", words.encode())
    yield files
    files.rm("/web", recursive=True)


def words(url: str, cache: Path) -> list[str]:
    documents, _ = read_all(open_source("t", "text", fetched("t", url, cache)))
    return [text for document in documents for text in texts(document)]


def test_folders_files_and_patterns_are_copied(memory, tmp_path):
    assert words("memory://web", tmp_path) == ["three", "one", "two", "four"]
    assert words("memory://web/2024-1/a.txt", tmp_path) == ["one"]
    assert words("memory://web/2024-*/*.txt", tmp_path) == ["one", "two"]
    assert words("memory://web/**/*.md", tmp_path) == ["four"]


def test_a_build_that_comes_again_copies_only_what_changed(memory, tmp_path):
    path = fetched("t", "memory://web", tmp_path)
    before = {p.name: p.stat().st_mtime_ns for p in path.rglob("*.txt")}
    memory.pipe("/web/2024-1/a.txt", b"another")
    memory.rm("/web/2023-1/c.txt")
    assert words("memory://web", tmp_path) == ["another", "two", "four"]
    after = {p.name: p.stat().st_mtime_ns for p in path.rglob("*.txt")}
    assert after["b.txt"] == before["b.txt"] and after["a.txt"] != before["a.txt"] and "c.txt" not in after


def test_nothing_at_the_url_is_refused(memory, tmp_path):
    for url in ("memory://gone", "memory://web/*.html"):
        with pytest.raises(UserError, match="there is nothing at"):
            fetched("t", url, tmp_path)


def test_names_that_climb_out_are_refused(memory, tmp_path, monkeypatch):
    monkeypatch.setattr("mmdata.remote.Store.find", lambda self: {"../../evil.txt": (1, "x")})
    with pytest.raises(UserError, match="leads out of its folder"):
        fetched("t", "memory://web", tmp_path)
    assert not list(tmp_path.rglob("*"))


def lines_of(url: str, cache: Path, format: str = "text", max_bytes: int = 1 << 30, **options) -> list[Dropped]:
    """The ledger lines of a source behind a URL."""
    parsed = source_class(format).Options(**options)
    path = fetched("t", url, cache, Wanted.of(format, parsed, Limits(max_bytes=max_bytes)))
    source = open_source("t", format, path, options)
    return [*read_all(source)[1], *source.leftovers()]


def names_in(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.rglob("*") if path.is_file() and not path.name.startswith("."))


def test_what_the_recipe_leaves_out_is_not_copied_and_in_the_ledger(memory, tmp_path):
    lines = lines_of("memory://web", tmp_path, include=["*.txt"], exclude=["2023-1/*"])
    assert [(d.uri, d.reason, d.detail) for d in lines] == [
        ("2023-1/c.txt", "excluded by the recipe", ".txt"), ("2024-2/d.md", "excluded by the recipe", ".md"),
    ]  # fmt: skip
    assert names_in(tmp_path) == ["a.txt", "b.txt"]
    assert not lines_of("memory://web", tmp_path), "another source has a copy of its own"
    assert len(names_in(tmp_path)) == 6
    lines_of("memory://web", tmp_path, include=["*.txt"], exclude=["2023-1/*"])
    assert len(names_in(tmp_path)) == 6


def test_what_is_over_the_limit_is_not_copied_and_in_the_ledger(memory, tmp_path):
    [line] = lines_of("memory://web", tmp_path, max_bytes=4)
    assert (line.uri, line.reason) == ("2023-1/c.txt", "over limit")
    assert line.detail == "5 bytes, the limit max_bytes is 4" and names_in(tmp_path) == ["a.txt", "b.txt", "d.md"]
    assert not lines_of("memory://web", tmp_path, max_bytes=5)
    with pytest.raises(
        UserError, match=r"nothing of memory://web/2024-1/a.txt may be copied \('a.txt': over limit, 3 "
    ):
        lines_of("memory://web/2024-1/a.txt", tmp_path, max_bytes=2)
    with pytest.raises(UserError, match=r"nothing of memory://web may be copied .*excluded by the recipe"):
        lines_of("memory://web", tmp_path, include=["*.html"])


def test_a_file_gone_since_the_listing_is_in_the_ledger(memory, tmp_path, monkeypatch):
    listed = {"2024-1/a.txt": (3, "x"), "2024-1/gone.txt": (3, "x")}
    monkeypatch.setattr("mmdata.remote.Store.find", lambda self: dict(listed))
    [line] = lines_of("memory://web", tmp_path)
    assert (line.uri, line.reason) == ("2024-1/gone.txt", "missing file") and names_in(tmp_path) == ["a.txt"]


def test_what_a_pattern_does_not_name_is_called_so(memory, tmp_path):
    memory.pipe("/web/p.html", b'<p>x<img src="i/1.png"><img src="i/2.png">')
    memory.pipe("/web/i/1.png", png())
    for url in ("memory://web/*.html", "memory://web/p.html"):
        lines = lines_of(url, tmp_path, "html")
        assert [line.reason for line in lines] == ["not copied from the URL"] * 2 and "i/1.png" in lines[0].detail
    assert [path for path in names_in(tmp_path) if path != "p.html"] == []
    lines = lines_of("memory://web", tmp_path, "html", include=["*.html", "i/*"], exclude=[])
    assert [line.reason for line in lines if line.uri == "p.html"] == ["missing file"]  # 2.png
    [line] = [d for d in lines_of("memory://web", tmp_path, "html", max_bytes=len(png()) - 1) if d.uri == "p.html"][:1]
    assert line.reason == "over limit"


def test_captions_and_lists_come_with_the_images_of_a_pattern(memory, tmp_path):
    files = {
        "d/a.png": png(),
        "d/a.txt": b"an A",
        "d/a_desc_fr.ogg": b"x",
        "d/ab.txt": b"?",
        "e/a.txt": b"?",
        "l.tsv": b"path",
    }
    for name, data in files.items():
        memory.pipe(f"/web/pics/{name}", data)
    assert not lines_of("memory://web/pics/**/*.png", tmp_path, "captions", manifest="l.tsv")
    assert names_in(tmp_path) == ["a.png", "a.txt", "a_desc_fr.ogg", "l.tsv"]


class Endless(http.server.BaseHTTPRequestHandler):
    """A file of no stated length and without an end."""

    protocol_version = "HTTP/1.1"
    sent = 0

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        try:
            while Endless.sent < 200 << 20:
                self.wfile.write(b"10000\r\n" + bytes(1 << 16) + b"\r\n")
                Endless.sent += 1 << 16
        except OSError:  # nobody listens any more
            self.close_connection = True

    def log_message(self, *_: object) -> None: ...


def test_a_download_without_a_stated_length_has_a_ceiling(tmp_path):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(UserError, match=r"over limit, more than 1,000,000 bytes \(max_bytes\)"):
            lines_of(f"http://127.0.0.1:{server.server_port}/a.txt", tmp_path, max_bytes=1_000_000)
    finally:
        server.shutdown()
        server.server_close()
    assert Endless.sent < 100 << 20 and names_in(tmp_path) == []


def test_patterns_work_on_a_real_server(tmp_path, monkeypatch):
    with serving() as store:
        for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": store.endpoint}.items():
            monkeypatch.setenv(name, value)
        url = store.upload(write(tmp_path / "up", FILES), "some")
        assert words(f"{url}/web/2024-*/*.txt", tmp_path / "cache") == ["one", "two"]
        store.forget()
        assert words(f"{url}/web/2024-*/*.txt", tmp_path / "cache") == ["one", "two"]
        assert not store.gets_of("a.txt"), "nothing had changed"


def test_patterns_work_on_google_storage(tmp_path, monkeypatch):
    with serving_gcs(monkeypatch) as bucket:
        files = fsspec.url_to_fs(bucket)[0]
        for name, text in FILES.items():
            files.pipe(f"{bucket}/some/{name}", text.encode())
        cache = tmp_path / "cache"
        assert words(f"{bucket}/some/web/2024-*/*.txt", cache) == ["one", "two"]
        assert words(f"{bucket}/some/web/**/*.md", cache) == ["four"]
        assert words(f"{bucket}/some/web/2024-1/a.txt", cache) == ["one"]
        assert words(f"{bucket}/some/web", cache) == ["three", "one", "two", "four"]
        before = {path: path.stat().st_mtime_ns for path in cache.rglob("a.txt")}
        files.pipe(f"{bucket}/some/web/2024-2/b.txt", b"2nd")  # of the same size
        files.pipe(f"{bucket}/some/web/2024-3/e.txt", b"five")
        files.rm(f"{bucket}/some/web/2023-1/c.txt")
        assert words(f"{bucket}/some/web", cache) == ["one", "2nd", "four", "five"]
        assert before and all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())
        with pytest.raises(UserError, match="there is nothing at gs://"):
            fetched("t", f"{bucket}/some/web/*.html", cache)
