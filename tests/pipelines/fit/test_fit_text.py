"""`mmdata fit text` and `mmdata evaluate text`: a small model of small texts, the same again, and what goes wrong."""

import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from sentencepiece import SentencePieceProcessor

from mmdata.errors import UserError
from pipelines import cli
from pipelines.fit import text as fit
from pipelines.fit.evaluate_text import evaluate_text
from pipelines.fit.text import fit_text
from tests.pipelines.fit.toy_texts import write_dataset
from tokenizer.codec import Codec
from tokenizer.codecs import load_text_codec

CONFIG = """
name = "toy"
licence = "CC0-1.0"
pieces = 420
sample_bytes = 30_000
[[data]]
name = "much"
paths = ["much"]
origin = "drawn"
licence = "CC0-1.0"
weight = 2.0
[[data]]
name = "little"
paths = ["little"]
licence = "CC-BY-4.0"
"""
HARD = "\u2581 \0 <reserved_0> <s> 12 \n\t naïve 你好 👩‍👩‍👧‍👦 \u202eאב\u202c e\u0301"


def write_texts(folder: Path, names: str, seed: int = 0) -> None:
    """Some files of lines of made-up words."""
    drawn = random.Random(seed)
    words = ["".join(drawn.choices("abcdefghij", k=drawn.randint(2, 7))) for _ in range(300)]
    folder.mkdir(exist_ok=True)
    for name in names:
        lines = [" ".join(drawn.choices(words, k=9)) for _ in range(400)]
        (folder / f"{name}.txt").write_text("\n".join(lines))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    write_texts(tmp_path / "much", "abc", 1)
    write_texts(tmp_path / "little", "d", 2)
    (tmp_path / "fit.toml").write_text(CONFIG)
    return tmp_path / "fit.toml"


def fitted(config: Path, out: str = "out") -> Codec:
    fit_text(config, config.parent / out)
    return load_text_codec(config.parent / out / "toy-1.model")


def change(config: Path, old: str, new: str) -> None:
    assert old in config.read_text()
    config.write_text(config.read_text().replace(old, new))


def test_a_model_and_its_card_are_written(config: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (config.parent / "eval.txt").write_bytes((config.parent / "much" / "b.txt").read_bytes())
    figures = fit_text(config, config.parent / "out", exclude=[config.parent / "eval.txt"])
    assert capfd.readouterr() == ("", "")  # bars are for terminals
    out = config.parent / "out"
    codec = load_text_codec(out / "toy-1.model")
    assert codec.exact and codec.decode(codec.encode(HARD)) == HARD
    card = json.loads((out / "toy-1.json").read_text())
    assert card["figures"] == figures and figures["much"]["exact"] == 1 and figures["much"]["bytes_a_token"] > 1.5
    assert card["command"].endswith("--exclude eval.txt") and card["settings"]["pieces"] == 420
    assert [(d["licence"], d["files"]) for d in card["data"]] == [("CC0-1.0", 2), ("CC-BY-4.0", 1)]
    assert list(card["data"][0]["dropped"]) == ["much/b.txt"]
    listed = (out / "toy-1.files.tsv").read_text().splitlines()
    assert [line.split("\t")[:2] for line in listed[1:]] == [
        ["much", "much/a.txt"], ["much", "much/c.txt"], ["little", "little/d.txt"]
    ]  # fmt: skip


def test_the_same_lines_give_the_same_model_however_they_lie_in_files(config: Path) -> None:
    model = fitted(config).model  # type: ignore[attr-defined]
    lines = (config.parent / "much" / "a.txt").read_text().split("\n")
    (config.parent / "much" / "a.txt").write_text("\n".join(lines[300:]))
    (config.parent / "much" / "z.txt").write_text("\n".join([*lines[:300], *lines[50:90]]))
    assert fitted(config, "again").model == model  # type: ignore[attr-defined]
    change(config, "pieces = 420", "pieces = 420\nseed = 1")
    assert fitted(config, "seed").model != model  # type: ignore[attr-defined]


def test_sets_are_sampled_by_their_weights(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(fit, "train_spm", lambda lines, _: seen.extend(lines) or load_model())
    fit_text(config, config.parent / "out")
    little = set((config.parent / "little" / "d.txt").read_text().split("\n"))
    sizes = [sum(len(line) for line in seen if (line in little) == inside) for inside in (False, True)]
    assert 20_000 <= sizes[0] < 20_080 and 10_000 <= sizes[1] < 10_080  # the last line is whole


def load_model() -> bytes:
    from tests.tokenizer.toy_vocabularies import spm

    return spm()


def test_a_sample_is_kept_and_taken_again_only_for_the_same_files(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fitted(config).model  # type: ignore[attr-defined]
    read: list[str] = []
    sampled = fit._sampled
    monkeypatch.setattr(fit, "_sampled", lambda data, *rest: read.append(data.name) or sampled(data, *rest))
    assert fitted(config).model == model and read == []  # type: ignore[attr-defined]
    write_texts(config.parent / "little", "d", 3)
    assert fitted(config).model != model and read == ["little"]  # type: ignore[attr-defined]
    for old, new in (
        ("sample_bytes = 30_000", "sample_bytes = 29_000"),
        ("pieces = 420", "pieces = 420\nseed = 1"),
        ("weight = 2.0", 'weight = 2.0\nform = "html"'),
    ):
        read.clear()
        change(config, old, new)
        fitted(config)
        assert read == (["much"] if "html" in new else ["much", "little"])
    kept = sorted((config.parent / "out" / "samples").iterdir(), key=lambda path: path.stat().st_mtime)[-1]
    kept.write_text(kept.read_text().replace('"key": "', '"key": "0'))
    read.clear()
    fitted(config)
    assert read == ["much"]


def test_what_is_excluded_of_a_dataset_is_a_part_of_its_sample(config: Path) -> None:
    lines = (config.parent / "much" / "a.txt").read_text().split("\n")[:80]
    write_dataset(config.parent / "data", {"web": lines})
    change(config, 'paths = ["much"]', 'paths = ["data"]')
    seen = []
    for text in ("nothing", lines[5]):
        (config.parent / "eval.txt").write_text(text)
        fit_text(config, config.parent / "out", exclude=[config.parent / "eval.txt"])
        kept = [path.read_text().split("\n") for path in (config.parent / "out" / "samples").iterdir()]
        seen.append((len(kept), sum(lines[5] in each for each in kept)))
    assert seen == [(2, 1), (3, 1)]  # little's and the dataset's; and the dataset's without that text


def test_a_fit_that_was_stopped_goes_on_with_the_sets_that_were_read(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fitted(config, "whole").model  # type: ignore[attr-defined]
    read: list[str] = []
    sampled = fit._sampled

    def stopped(data: fit.TextSet, *rest: object) -> fit.SetSample:
        read.append(data.name)
        if read == ["much", "little"]:
            raise KeyboardInterrupt
        return sampled(data, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(fit, "_sampled", stopped)
    with pytest.raises(KeyboardInterrupt):
        fitted(config)
    assert fitted(config).model == model and read == ["much", "little", "little"]  # type: ignore[attr-defined]


def test_reserved_pieces_are_controls_that_no_text_becomes(config: Path) -> None:
    change(config, "pieces = 420", "pieces = 420\nreserved = 8")
    codec = fitted(config)
    names = [f"<reserved_{i}>" for i in range(8)]
    assert [name for name, _ in codec.specials] == names and codec.codebooks == (420,)  # type: ignore[attr-defined]
    reserved = [code for _, code in codec.specials]  # type: ignore[attr-defined]
    text = "".join(names) + HARD
    assert not np.isin(codec.encode(text).codes, reserved).any() and codec.decode(codec.encode(text)) == text
    theirs = SentencePieceProcessor(model_proto=codec.model)  # type: ignore[attr-defined]
    assert [theirs.piece_to_id(name) for name in names] == reserved
    assert not np.isin(theirs.encode(text), reserved).any()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('paths = ["little"]', 'paths = ["pictures"]', "'little' has no text in 1 files read as 'plain'; .*not UTF-8"),
        ('paths = ["little"]', 'paths = ["nowhere"]', r"fit.toml: data 'little': no folder or file .*nowhere"),
        ('name = "little"', 'name = "much"', "two sets of data have the name 'much'"),
        ("pieces = 420", "pieces = 259", "SentencePiece cannot make 259 pieces of"),
        ("pieces = 420", "pieces = 0", "pieces: .*greater than 257.*got 0"),
        ("pieces = 420", "peices = 420", "unknown key 'peices'; did you mean 'pieces'"),
        ("weight = 2.0", "weight = -1", "weight: .*greater than 0"),
        ("weight = 2.0", 'form = "pdf"', "form: .*'plain', 'html' or 'jsonl'"),
    ],
)
def test_what_cannot_be_fitted_is_one_line_that_names_the_file(config: Path, old: str, new: str, words: str) -> None:
    (config.parent / "pictures").mkdir()
    (config.parent / "pictures" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    change(config, old, new)
    with pytest.raises(UserError, match=words) as error:
        fit_text(config, config.parent / "out")
    assert "fit.toml" in str(error.value) and "\n" not in str(error.value)


def test_datasets_and_json_lines_are_learnt_from(config: Path) -> None:
    lines = (config.parent / "much" / "a.txt").read_text().split("\n")
    write_dataset(config.parent / "data", {"web": lines})
    (config.parent / "lines").mkdir()
    (config.parent / "lines" / "a.jsonl").write_text("\n".join(json.dumps({"body": line}) for line in lines))
    change(config, 'paths = ["much"]', 'paths = ["data"]')
    change(config, 'paths = ["little"]', 'paths = ["lines"]\nform = "jsonl"\nfield = "body"')
    fitted(config)
    card = json.loads((config.parent / "out" / "toy-1.json").read_text())
    figures = card["figures"]
    assert figures["much"] == figures["little"] and figures["much"]["texts"] > 2  # the same lines are held out
    assert [data["files"] for data in card["data"]] == [2, 1]


def test_files_that_are_no_text_are_named_in_the_card(config: Path) -> None:
    (config.parent / "much" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    fitted(config)
    card = json.loads((config.parent / "out" / "toy-1.json").read_text())
    assert "not UTF-8 at byte 0" in card["data"][0]["dropped"]["much/a.png"]


# --- evaluation


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Texts of two languages, a page, a picture."""
    for name, text in {"en/a.txt": "a cat\n" * 40, "cs/a.txt": "kočka " * 30, "cs/b.html": "<b>kočka</b>"}.items():
        (tmp_path / "texts" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "texts" / name).write_text(text)
    (tmp_path / "texts" / "en" / "a.png").write_bytes(b"\x89PNG\xff")
    return tmp_path / "texts"


def test_figures_are_by_folder_and_add_up(folder: Path) -> None:
    rows = evaluate_text("text-spm16k", folder)
    assert list(rows) == ["cs", "en", "all"] and rows["cs"]["texts"] == 2
    assert rows["cs"]["characters"] == 6 * 30 + 5 and rows["cs"]["bytes"] == 7 * 30 + 6
    assert rows["all"]["tokens"] == rows["cs"]["tokens"] + rows["en"]["tokens"] and rows["all"]["exact"] == 1
    for row in rows.values():
        assert row["bytes_a_token"] == pytest.approx(row["bytes"] / row["tokens"], abs=1e-3)
        assert row["tokens_a_character"] == pytest.approx(row["tokens"] / row["characters"], abs=1e-3)


def test_a_manifest_says_the_language(folder: Path) -> None:
    (folder / "MANIFEST.tsv").write_text("path\tlanguage\nen/a.txt\tde\ncs/a.txt\t\n")
    assert list(evaluate_text("text-spm16k", folder)) == ["cs", "de", "all"]


def test_any_text_codec_is_measured_and_one_that_loses_something_says_so(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs.model").write_bytes(load_model())
    rows = evaluate_text(str(tmp_path / "theirs.model"), folder)
    assert rows["all"]["exact"] == 0 and rows["all"]["tokens"] > 0


@pytest.mark.parametrize(
    ("codec", "inside", "words"),
    [
        ("image-fsq16", "", "image-fsq16 is a codec of image"),
        ("text-spm", "", "did you mean 'text-spm16k"),
        ("nowhere.model", "", "cannot read the text codec nowhere.model"),
        ("TEXT", "", "text.model: .*is no SentencePiece model"),
        ("text-spm16k", "en/sub", "no folder"),
        ("text-spm16k", "empty", "no text in .*of 1 files none is UTF-8 text"),
    ],
)
def test_what_cannot_be_measured_is_one_line(folder: Path, codec: str, inside: str, words: str) -> None:
    (folder / "empty").mkdir()
    (folder / "empty" / "a.png").write_bytes(b"\x89PNG\xff")
    if codec == "TEXT":
        codec = str(folder / "text.model")
        (folder / "text.model").write_text("just words")
    with pytest.raises((UserError, ValueError), match=words) as error:
        evaluate_text(codec, folder / inside)
    assert "\n" not in str(error.value)


def test_the_command_prints_a_table_or_json(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {}
    for options in ([], ["--json"]):
        monkeypatch.setattr(sys, "argv", ["mmdata", "evaluate", "text", str(folder), *options])
        with pytest.raises(SystemExit) as left:
            cli.main()
        assert not left.value.code
        said[bool(options)] = capsys.readouterr().out
    assert json.loads(said[True]) == evaluate_text("text-spm16k", folder)
    assert "bytes a token" in said[False] and "100.00 %" in said[False]
