"""Benchmarks measure what they say: the limit makes our six arrays, and every document is there once; codecs run on a
build's own path, and their networks on the same arrays."""

import importlib
import importlib.util
import itertools
import json
import os
import re
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmdata.batch import empty_batch, put_row
from tokenizer.codecs import load_codec
from tokenizer.row import Row

ARRAYS = ("tokens", "targets", "loss_weights", "segment_ids", "positions", "kinds")


@pytest.fixture
def bench(root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The folder benchmarks on the path, as its programs have it."""
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    import drawn
    import peers

    yield drawn, peers
    for name in [name for name in sys.modules if name.split(".")[0] in ("drawn", "peers")]:
        del sys.modules[name]


def test_documents_are_the_same_each_time_and_cut_at_the_row(bench: Any, tmp_path: Path) -> None:
    drawn, _ = bench
    first, second = drawn.documents(tmp_path / "a", 300), drawn.documents(tmp_path / "b", 300)
    np.testing.assert_array_equal(first.tokens, second.tokens)
    cut = first.cut()
    assert np.diff(cut.offsets).max() <= drawn.SEQ_LEN and np.diff(cut.offsets).min() > 0
    assert set(first.offsets.tolist()) <= set(cut.offsets.tolist()) and cut.offsets[-1] == len(first.tokens)
    assert np.concatenate(first.shards()).tolist() == list(range(300))


def test_the_limit_makes_the_six_arrays_of_a_batch(bench: Any, tmp_path: Path) -> None:
    drawn, peers = bench
    system = peers.systems()["limit"]
    documents = drawn.documents(tmp_path, 300)
    rows, length = documents.rows(), drawn.SEQ_LEN
    system.prepare(documents, drawn.prepared(tmp_path, "limit", lambda folder: None))
    made = next(iter(system.open(tmp_path / "limit", 1, 0).epoch()))
    order = np.random.default_rng(1).permutation(len(rows))[: drawn.BATCH]
    expected = empty_batch(len(order), length)
    for b, r in enumerate(order):
        starts = [r * length, *(o for o in documents.offsets if r * length < o < (r + 1) * length), (r + 1) * length]
        pieces = []
        for x, y in itertools.pairwise(starts):
            ids, n = documents.tokens[x:y].astype(np.int32), int(y - x)
            row = Row(ids, np.ones(n, np.float32), np.arange(n, dtype=np.int32), np.ones(n, np.uint8), ())
            pieces.append((int(x - r * length), row))
        put_row(expected, b, pieces)
    for name, array in zip(ARRAYS, made):
        assert array.dtype == getattr(expected, name).dtype
        np.testing.assert_array_equal(array, getattr(expected, name), err_msg=name)


@pytest.fixture
def codec_bench(root: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """benchmarks/codecs.py, whose name is also one of Python's own, and codec_job.py."""
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    spec = importlib.util.spec_from_file_location("benchmarks_codecs", root / "benchmarks" / "codecs.py")
    assert spec is not None and spec.loader is not None
    codecs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(codecs)
    return codecs, importlib.import_module("codec_job")


def test_the_codec_benchmark_times_the_builds_own_path_and_the_network_on_the_same_arrays(
    codec_bench: tuple[Any, Any], root: Path, tmp_path: Path
) -> None:
    codecs, job = codec_bench
    for name in ("files", "work"):
        (tmp_path / name).mkdir()
    codecs.make_pictures(root / "examples" / "media", tmp_path / "files", 3)
    files = sorted((tmp_path / "files").iterdir())
    assert [Image.open(path).size for path in files] == [(512, 512)] * 3
    codec = load_codec("image-fsq16")
    settings = job.encode_settings(codec, "image-fsq16@1", "scaled")
    media = [job.decoded(codec, path, settings) for path in files]
    assert all(medium.shape == (256, 256, 3) for medium in media)
    calls = job.network_calls(codec, lambda: codec.encode_batch(media))
    for medium, (function, args) in zip(media, calls, strict=True):
        np.testing.assert_array_equal(np.asarray(function(*args)).ravel(), codec.encode(medium).codes[:, 0])
    job.encode_stage(files, settings, tmp_path / "work")
    assert job.network_calls(load_codec("jpeg-bytes"), lambda: None) == []


def test_sounds_of_the_codec_benchmark_are_ten_seconds_at_48_khz(
    codec_bench: tuple[Any, Any], root: Path, tmp_path: Path
) -> None:
    codec_bench[0].make_sounds(root / "examples" / "media", tmp_path, 2)
    for path in tmp_path.iterdir():
        with wave.open(str(path)) as file:
            assert (file.getframerate(), file.getnframes(), file.getnchannels()) == (48_000, 480_000, 1)
            assert np.frombuffer(file.readframes(480_000), "<i2").any()


def test_rates_are_units_over_the_median_of_the_rounds(
    codec_bench: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([0.0, 10.0, 12.0, 20.0, 21.0, 30.0, 34.0])  # the first only warms up; then 2, 1 and 4
    monkeypatch.setattr(codec_bench[1].time, "process_time", lambda: next(seconds))
    found = codec_bench[1].timed({"encode": lambda: None}, 10, 3)
    assert found["encode"]["cpu"] == 10 / 2


def test_the_encode_stage_lasts_from_its_first_unit_to_its_last_marker(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    executors = importlib.import_module("executors")
    for name, begun, ended in (("00000", 100.0, 104.0), ("00001", 101.0, 109.5), ("00002", 104.0, 106.0)):
        marker = tmp_path / ".work" / "encode" / "pictures" / f"{name}.done.json"
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.write_text(json.dumps({"seconds": ended - begun}))
        os.utime(marker, (ended, ended))
    assert executors.encode_seconds(tmp_path) == 9.5


def test_the_build_benchmark_sets_each_library_beside_the_step_that_does_its_work(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    spec = importlib.util.spec_from_file_location("benchmarks_build", root / "benchmarks" / "build.py")
    assert spec is not None and spec.loader is not None
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    assert set(bench.STEPS) == set(bench.LIMITS)
    steps = {"encode text": 4.0, "decode image": 5.0, "encode image": 20.0, "decode audio": 2.0, "encode audio": 10.0}
    stages = [{"stage": "encode", "source": "all of it", "seconds": 50.0, "cpu_seconds": steps}]
    libraries = {"sentencepiece": 3.0, "Pillow": 4.0, "PyAV": 1.0, "image network": 18.0, "audio network": 5.0}
    found = {
        "libraries": {name: 2 * seconds for name, seconds in libraries.items()},
        "libraries_cpu": libraries,
        "report": {"stages": stages},
        "wall": 31.0,
        "cpu": 55.0,
        "peak_bytes": 1,
    }
    assert {name: row["share"] for name, row in bench.by_library(found).items()} == {
        "sentencepiece": 0.75, "Pillow": 0.8, "PyAV": 0.5, "image network": 0.9, "audio network": 0.5
    }  # fmt: skip
    bench.print_round(found)
    printed = capsys.readouterr().out
    assert re.search(r"decode image +Pillow +5\.00 +4\.00 +80\.0%", printed) and "are 100.0 % of 2 cores" in printed
