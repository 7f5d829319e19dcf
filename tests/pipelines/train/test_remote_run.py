"""Run files whose data is behind a URL."""

from pathlib import Path

import fsspec
import numpy as np
import pytest

from pipelines.train.run import load_run, make_loader, open_loader, to_toml
from tests.mmdata.toy_data import write_toy_dataset


@pytest.mark.parametrize("written", ['data = "memory://run/toys"', '[sources]\nweb = "memory://run/toys/web"'])
def test_a_run_reads_urls_as_it_reads_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    monkeypatch.setenv("MMDATA_CACHE", str(tmp_path / "cache"))
    data = write_toy_dataset(tmp_path / "toys")
    fsspec.filesystem("memory").put(str(data), "/run/toys", recursive=True)
    head = "seq_len = 128\nbatch_size = 4\ncache_shards = 21\n"
    (tmp_path / "run.toml").write_text(head + written)
    (tmp_path / "local.toml").write_text(head + written.replace("memory://run/", ""))
    for split in ("train", "validation"):
        there, here = (make_loader(load_run(tmp_path / name), split) for name in ("run.toml", "local.toml"))
        np.testing.assert_array_equal(there.batch_at(1).tokens, here.batch_at(1).tokens)
        assert {feed.source.files.cache_shards for feed in there.feeds.feeds} == {21}  # type: ignore[attr-defined]
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "run.toml").write_text(to_toml(load_run(tmp_path / "run.toml").resolved(folder)))
    assert "memory://run/toys" in (folder / "run.toml").read_text()
    np.testing.assert_array_equal(
        open_loader(folder).batch_at(2).tokens, open_loader(tmp_path / "run.toml").batch_at(2).tokens
    )
