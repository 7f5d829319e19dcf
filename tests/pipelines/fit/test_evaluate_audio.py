"""How audio codecs are measured: groups, lists of clips, references, and a picture."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmdata.errors import UserError
from pipelines.cli import main
from pipelines.fit.evaluate_audio import evaluate_audio, measure
from pipelines.fit.heard import Heard, coder, opus
from tests.pipelines.fit.drawn_sounds import RATE_HZ, babble, write_wav
from tests.tokenizer.toy_vocabularies import spm


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A list of three clips of two groups, whose packages lie in tmp_path/media."""
    lines = ["group\tpackage\tversion\tpath\tsha256\tseconds\tstart"]
    for group, package, name, start in (("seen", "a", "x", 0.5), ("seen", "a", "y", 0), ("music", "b", "z", 0)):
        path = write_wav(tmp_path / "media" / package / "usr" / f"{name}.wav", babble(ord(name), 2.0))
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        lines.append(f"{group}\t{package}\t1\tusr/{name}.wav\t{sha256}\t2.0\t{start}")
    (tmp_path / "clips.tsv").write_text("\n".join(lines) + "\n")
    return tmp_path / "clips.tsv"


def test_a_list_of_clips_gives_a_row_a_codec_and_group(clips: Path, tmp_path: Path) -> None:
    pytest.importorskip("pystoi")
    rows = evaluate_audio(["griffin-lim", "opus-16"], tmp_path / "media", clips, 1.25)
    assert [(row["codec"], row["group"], row["clips"]) for row in rows] == [
        ("griffin-lim", "seen", 2),
        ("griffin-lim", "music", 1),
        ("opus-16", "seen", 2),
        ("opus-16", "music", 1),
    ]
    assert rows[0]["seconds"] == 2.5 and "kbit_a_second" not in rows[0] and rows[0]["log_mel_l1"] == 0
    assert 0 < rows[0]["stoi"] <= 1 and "stoi" not in rows[1]  # music has no words
    assert 2 < rows[2]["kbit_a_second"] < 40


def test_a_sound_that_comes_back_whole_has_no_distance() -> None:
    figures = measure(lambda sound: Heard(sound, 2 * len(sound)), [babble(0, 2.0)])
    assert figures["log_mel_l1"] == figures["sound_log_mel_l1"] == 0
    assert figures["kbit_a_second"] == 2 * RATE_HZ / 1000
    if "stoi" in figures:
        assert figures["stoi"] > 0.999


def test_silence_and_the_shortest_clips_are_measured() -> None:
    for sound in (np.zeros(RATE_HZ * 2, np.float32), babble(0, 0.001)):
        assert np.isfinite(measure(coder("griffin-lim"), [sound])["sound_log_mel_l1"])


def test_opus_comes_back_aligned() -> None:
    """Its delay is taken away: the original lies best on the decoded sound unshifted."""
    sound = babble(3, 3.0)
    heard = opus(sound, 24_000)
    assert heard.sound.shape == sound.shape
    inner = sound[4000:-4000]
    match = [float(inner @ heard.sound[4000 + lag : len(sound) - 4000 + lag]) for lag in range(-400, 401)]
    assert abs(int(np.argmax(match)) - 400) <= 2
    assert heard.bits < opus(sound, 48_000).bits


def test_a_codec_that_is_an_object_is_measured_at_its_own_rate() -> None:
    class Double:
        """At twice the rate, exact to 8 bits."""

        sample_rate_hz, codebooks = 32_000, (256,)

        def encode(self, sound: np.ndarray) -> "Double":
            self.codes = np.int32(np.clip(sound * 127 + 128, 0, 255))[:, None]
            return self

        def decode(self, codes: "Double") -> np.ndarray:
            return np.float32((codes.codes[:, 0] - 128) / 127)

    sound = babble(0, 1.5)
    assert measure(coder(Double()), [sound])["kbit_a_second"] == pytest.approx(256, abs=0.1)
    np.testing.assert_allclose(coder(Double())(sound).sound, sound, atol=0.02)


def test_a_folder_is_grouped_by_the_folders_in_it(tmp_path: Path) -> None:
    for name in ("one/a.wav", "one/b.wav", "two/c.wav"):
        write_wav(tmp_path / name, babble(1, 1.2))
    rows = evaluate_audio(["griffin-lim"], tmp_path)
    assert [(row["group"], row["clips"]) for row in rows] == [("one", 2), ("two", 1)]


def test_a_picture_has_a_row_a_group_and_a_column_a_codec(clips: Path, tmp_path: Path) -> None:
    evaluate_audio(["griffin-lim"], tmp_path / "media", clips, 1.0, tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.size == (2 * (50 + 6), 2 * (160 + 16))


def test_the_command_prints_rows_as_json(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = [
        "mmdata",
        "evaluate",
        "audio",
        str(tmp_path / "media"),
        "--clips",
        str(clips),
        "--codec",
        "griffin-lim",
        "--json",
    ]
    monkeypatch.setattr("sys.argv", line)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert [row["group"] for row in json.loads(capsys.readouterr().out)] == ["seen", "music"]


def test_a_clip_that_is_missing_or_another_is_named(clips: Path, tmp_path: Path) -> None:
    write_wav(tmp_path / "media/a/usr/x.wav", babble(9, 1.0))
    with pytest.raises(UserError, match=r"x\.wav has other bytes"):
        evaluate_audio(["griffin-lim"], tmp_path / "media", clips)
    (tmp_path / "media/a/usr/x.wav").unlink()
    with pytest.raises(UserError, match=r"x\.wav, which is not there; unpack a below"):
        evaluate_audio(["griffin-lim"], tmp_path / "media", clips)


def test_what_is_no_audio_codec_or_no_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder"):
        evaluate_audio(["griffin-lim"], tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no recording"):
        evaluate_audio(["griffin-lim"], tmp_path / "empty")
    with pytest.raises(UserError, match="text-spm16k is a codec of text"):
        coder("text-spm16k")
    (tmp_path / "toy.model").write_bytes(spm())
    with pytest.raises(UserError, match=r"toy\.model is a codec of text"):  # a file is opened by its path
        coder(str(tmp_path / "toy.model"))
    with pytest.raises(ValueError, match="no codec 'opus'"):
        coder("opus")
