"""Text codecs that are files: named by the file's name and bytes, loaded by path; what is written down of a codec."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.tokenizer.toy_vocabularies import byte_level, spm, unigram
from tokenizer import codecs
from tokenizer.codec import CodecSpec, spec_of
from tokenizer.codecs import (
    CodecFile,
    FileCodecs,
    is_codec_file,
    load_codec,
    load_codec_file,
    load_text_codec,
    open_codec,
)


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    path = tmp_path / "My Model v2.json"
    path.write_bytes(byte_level())
    return path


def test_a_name_comes_from_the_files_name_and_bytes_not_from_its_place(vocabulary: Path, tmp_path: Path) -> None:
    file = CodecFile.of(vocabulary)
    assert file.codec == f"my-model-v2-{file.sha256[:8]}@1" and len(file.sha256) == 64
    (tmp_path / "else" / "where").mkdir(parents=True)
    moved = Path(shutil.copy(vocabulary, tmp_path / "else" / "where"))
    assert CodecFile.of(moved).codec == file.codec
    vocabulary.write_bytes(byte_level() + b"\n")
    assert CodecFile.of(vocabulary).codec != file.codec
    (tmp_path / "你好.json").write_bytes(byte_level())
    assert CodecFile.of(tmp_path / "你好.json").codec == f"text-{file.sha256[:8]}@1"


def test_a_copy_that_bears_the_name_keeps_it(vocabulary: Path, tmp_path: Path) -> None:
    file = CodecFile.of(vocabulary)
    copy = Path(shutil.copy(vocabulary, tmp_path / f"{file.codec}.json"))
    assert CodecFile.of(copy).codec == file.codec
    copy.write_bytes(unigram())  # other bytes under the name: another codec
    assert CodecFile.of(copy).codec != file.codec and CodecFile.of(copy).codec.count("@") == 1


def test_both_kinds_of_file_are_loaded_by_their_path(vocabulary: Path, tmp_path: Path) -> None:
    (tmp_path / "a.model").write_bytes(spm())
    for path, exact in ((vocabulary, True), (tmp_path / "a.model", False)):
        codec = load_text_codec(path)
        assert f"{codec.name}@{codec.revision}" == CodecFile.of(path).codec and codec.exact == exact
        assert codec.decode(codec.encode("a red cat")) == "a red cat"
        spec = spec_of(codec)
        assert spec.specials and CodecSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_files_are_found_before_names(vocabulary: Path) -> None:
    file = CodecFile.of(vocabulary)
    load = FileCodecs((file,))
    assert load(file.codec).name == file.codec.partition("@")[0]
    assert load("text-spm16k@1") is load_codec("text-spm16k@1")
    np.testing.assert_array_equal(
        load(file.codec).encode("a cat").codes, load_text_codec(vocabulary).encode("a cat").codes
    )


def test_a_file_that_changed_is_not_the_codec_any_more(vocabulary: Path) -> None:
    file = CodecFile.of(vocabulary)
    vocabulary.write_bytes(byte_level() + b" \n")
    with pytest.raises(ValueError, match=rf"has changed: it is no longer the codec {file.codec}"):
        replace(file, sha256="0" * 64).load()


@pytest.mark.parametrize("name", ["nothing.json", "folder.json", "a.txt"])
def test_what_is_no_such_file_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "a.txt").write_text("words")
    assert is_codec_file(name) == name.endswith(".json")
    with pytest.raises(ValueError, match=r"check the path|tokenizer\.json or a SentencePiece") as error:
        load_text_codec(tmp_path / name)
    assert "\n" not in str(error.value) and name in str(error.value)


def test_fitted_codecs_are_loaded_by_the_path_of_their_file(tmp_path: Path) -> None:
    weights = Path(codecs.__file__).parent / "weights"
    for name in ("image-fsq16-1.safetensors", "speech-melfsq-1.safetensors", "jpeg-bytes-1.bpe"):
        shutil.copy(weights / name, tmp_path / name.replace("-1.", "-of.mine-7."))
        codec = open_codec(str(tmp_path / name.replace("-1.", "-of.mine-7.")))
        shipped = load_codec(name.rpartition("-")[0] + "@1")
        assert (codec.name, codec.revision) == (f"{shipped.name}-of.mine", 7) and codec.kind == shipped.kind
        assert codec.codebooks == shipped.codebooks
    copy = shutil.copy(weights / "speech-melfsq2-1.safetensors", tmp_path)
    assert open_codec(str(copy)).fingerprint == load_codec("speech-melfsq2@1").fingerprint
    (tmp_path / "a.model").write_bytes(spm())
    assert load_codec_file(tmp_path / "a.model") is load_text_codec(tmp_path / "a.model")
    assert open_codec("dmel") is load_codec("dmel")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("absent-1.safetensors", "no file .*absent-1.safetensors"),
        ("toy.bpe", "toy.bpe is no codec's file: give NAME-REVISION"),
        ("toy-1.bpe", "toy-1.bpe is no vocabulary of bytes"),
        ("toy-1.safetensors", "toy-1.safetensors is not a safetensors file"),
    ],
)
def test_what_is_no_fitted_codec_is_refused_in_one_line(name: str, words: str, tmp_path: Path) -> None:
    for broken in ("toy.bpe", "toy-1.bpe", "toy-1.safetensors"):
        (tmp_path / broken).write_text("words")
    with pytest.raises(ValueError, match=words) as error:
        open_codec(str(tmp_path / name))
    assert "\n" not in str(error.value)


def test_specials_are_written_down_only_where_there_are_some() -> None:
    plain = CodecSpec("toy@1", "text", (9,), "f", True)
    assert "specials" not in plain.to_json() and CodecSpec.from_json(plain.to_json()) == plain
    special = replace(plain, specials=(("<s>", 1), ("</s>", 2)))
    assert special.to_json()["specials"] == [["<s>", 1], ["</s>", 2]]
    assert CodecSpec.from_json(special.to_json()) == special
