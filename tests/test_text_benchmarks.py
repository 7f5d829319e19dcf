"""The benchmarks of text measure what they say: a stream that is not kept, texts by language, ratios within a round."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from pipelines.fit.text_sample import LineSample


def module(root: Path, name: str) -> ModuleType:
    sys.path.insert(0, str(root / "benchmarks"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


def test_the_stream_is_whole_lines_of_about_that_size_and_the_same_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = module(root, "text_stream")
    monkeypatch.setattr(bench, "WORDS", 500)
    monkeypatch.setattr(bench, "PHRASES", 1 << 10)
    monkeypatch.setattr(bench, "BLOCK_BYTES", 50_000)
    parts = bench.phrases(bench.LETTERS["cyrillic, devanagari, chinese"], 0)
    blocks = list(bench.stream(*parts, size=300_000, seed=1))
    assert len(blocks) > 5 and 300_000 <= sum(map(len, blocks)) < 310_000
    assert all(block.endswith(b"\n") and block.decode() for block in blocks)
    assert blocks == list(bench.stream(*parts, size=300_000, seed=1))
    lines = b"".join(blocks).split(b"\n")
    assert len(set(lines)) > 0.9 * len(lines)
    sample = LineSample(5_000)
    for block in blocks:
        sample.add(block)
    assert 5_000 <= sum(len(line.encode()) for line in sample.sample().chosen) < 6_000


def test_of_a_corpus_count_the_texts_with_one_language(root: Path, tmp_path: Path) -> None:
    bench = module(root, "fertility")
    entries = [
        'msgid ""\nmsgstr ""\n"Language: cs\\n"',
        'msgid "cat"\nmsgstr "kočka"',
        'msgid "dogs"\nmsgstr[0] "ps"\n"i\\n"',
    ]
    entries += ['msgid "long"\nmsgstr ""\n' + "\n".join('"slovo "' for _ in range(100))]
    (tmp_path / "a.po").write_text("\n\n".join(entries))
    (tmp_path / "a.html").write_text("<title>t</title><body>" + "<p>words</p>" * 100)
    (tmp_path / "b.txt").write_text("文" * 500)
    (tmp_path / "short.txt").write_text("x")
    rows = ["path\tmedia_type\tlanguage", "a.po\ttext/x-gettext-translation\tcs", "a.html\ttext/html\ten"]
    rows += ["b.txt\ttext/plain\tzh_CN", "short.txt\ttext/plain\ten", "a.html\ttext/html\tmul", "b.txt\ttext/plain\t"]
    (tmp_path / "MANIFEST.tsv").write_text("\n".join(rows))
    texts = bench.texts_by_language(tmp_path)
    assert sorted(texts) == ["cs", "en", "zh"] and all(len(each) == 1 for each in texts.values())
    assert texts["cs"] == ["kočka\npsi\n\n" + "slovo " * 100]
    assert texts["en"][0].split() == ["words"] * 100


def test_ratios_are_taken_within_a_round(root: Path) -> None:
    bench = module(root, "text_speed")
    rates = {
        "ours": [10.0, 1.0, 10.0],
        "library, a list": [10.0, 1.0, 5.0],
        "library, a list, arrays": [20.0, 2.0, 20.0],
    }
    ours = bench.lines_of("encode", rates)[0].split()
    assert ours[:2] == ["encode", "ours"] and "10.0" in ours and "1.00" in ours and "0.50" in ours
