"""What is excluded from training: the same bytes, the same look, the same sound, and nothing else."""

import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.fit.exclude import Exclusions, audio_hash, digest, phash


def draw(path: Path, seed: int, size: int = 200) -> Path:
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size
    pixels = sum(
        np.sin(a * x + b * y + c)[..., None] * random.normal(size=3) for a, b, c in random.uniform(-15, 15, (6, 3))
    )
    Image.fromarray(np.uint8(np.clip(127 + 40 * pixels, 0, 255))).save(path)
    return path


def speak(path: Path, seed: int, rate: int = 16_000, gain: float = 0.5, silence: int = 0) -> Path:
    random = np.random.default_rng(seed)
    t = np.arange(int(2.5 * rate)) / rate
    sound = sum(
        np.sin(2 * np.pi * f * t + 3 * np.sin(2 * np.pi * m * t)) * (1 + np.sin(2 * np.pi * 3 * m * t))
        for f, m in zip(random.uniform(300, 3000, 12), random.uniform(0.5, 6, 12), strict=True)
    )
    samples = np.concatenate([np.zeros(silence), gain * sound / np.abs(sound).max()])
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.int16(samples * 32767).tobytes())
    return path


def test_a_copy_is_told_by_its_bytes_wherever_it_lies(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "a.txt").write_text("words")
    (tmp_path / "b.bin").write_text("words")
    exclusions = Exclusions.of([kept])
    assert "same bytes" in (exclusions.matches(tmp_path / "b.bin") or "")


def test_a_manifest_lists_files_that_are_not_there(tmp_path: Path) -> None:
    picture = draw(tmp_path / "a.png", 1)
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "MANIFEST.tsv").write_text(f"path\tsha256\ngone/a.png\t{digest(picture)}\n")
    assert Exclusions.of([corpus]).matches(picture) == "same bytes as gone/a.png"


def test_a_list_of_another_name_excludes_its_files_too(tmp_path: Path) -> None:
    sound = speak(tmp_path / "a.wav", 1)
    (tmp_path / "eval.tsv").write_text(f"group\tpath\tsha256\nseen\tusr/a.g722\t{digest(sound)}\n")
    exclusions = Exclusions.of([tmp_path / "eval.tsv"])
    assert exclusions.matches(sound) == "same bytes as usr/a.g722"
    assert exclusions.matches(speak(tmp_path / "b.wav", 2)) is None


def test_a_picture_saved_again_smaller_still_looks_the_same(tmp_path: Path) -> None:
    original = draw(tmp_path / "a.png", 1)
    with Image.open(original) as image:
        image.resize((120, 120)).save(tmp_path / "copy.jpg", quality=70)
    exclusions = Exclusions.of([original])
    assert "looks like" in (exclusions.matches(tmp_path / "copy.jpg") or "")
    others = [draw(tmp_path / f"other{i}.png", 10 + i) for i in range(5)]
    assert exclusions.split(others) == (others, {})


def test_a_flat_picture_has_no_look(tmp_path: Path) -> None:
    Image.new("RGB", (50, 50), "red").save(tmp_path / "red.png")
    assert phash(tmp_path / "red.png") is None
    (tmp_path / "bad.png").write_bytes(b"no picture")
    assert phash(tmp_path / "bad.png") is None


def test_a_recording_at_another_rate_and_loudness_sounds_the_same(tmp_path: Path) -> None:
    original = speak(tmp_path / "a.wav", 1)
    copy = speak(tmp_path / "copy.wav", 1, rate=22_050, gain=0.2, silence=5_000)
    exclusions = Exclusions.of([original])
    assert "sounds like" in (exclusions.matches(copy) or "")
    others = [speak(tmp_path / f"other{i}.wav", 10 + i) for i in range(5)]
    assert exclusions.split(others)[0] == others


def test_kinds_that_are_not_asked_for_are_told_by_bytes_only(tmp_path: Path) -> None:
    original = speak(tmp_path / "a.wav", 1)
    copy = speak(tmp_path / "copy.wav", 1, gain=0.2)
    exclusions = Exclusions.of([original], kinds=("image",))
    assert exclusions.matches(copy) is None
    assert exclusions.matches(original) is not None


def test_silence_has_no_sound(tmp_path: Path) -> None:
    assert audio_hash(speak(tmp_path / "a.wav", 1, gain=0.0)) is None


def test_a_path_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file or folder"):
        Exclusions.of([tmp_path / "absent"])


def test_nothing_excluded_matches_nothing(tmp_path: Path) -> None:
    assert Exclusions.of([]).matches(draw(tmp_path / "a.png", 1)) is None
