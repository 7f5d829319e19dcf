"""Sources behind a URL: on fsspec's store in memory, and on real servers of the APIs of S3 and of Google's storage."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest
from toy_media import read_all, texts, write

from mmdata.errors import UserError
from pipelines.ingest.fetched import fetched
from pipelines.ingest.sources import open_source
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
