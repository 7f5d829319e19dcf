"""Rules that ask a function of pictures and sounds, and copies of a picture in a document."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_documents import document, image, rules

from mmdata.errors import UserError
from pipelines.curate.judge import judge
from pipelines.curate.speech import RATE_HZ, pieces
from pipelines.ingest.document import Part
from pipelines.ingest.media import Limits

HOOKS = """
import numpy as np

def brightness(pixels):
    assert pixels.dtype == np.uint8 and pixels.ndim == 3
    return pixels.mean() / 255

def classes(pixels):
    return {"porn": pixels.mean() / 255, "hentai": 0.0, "neutral": 1.0}

def strangers(pixels):
    return {"cat": 1.0}

def words(pixels):
    return "unsafe"

def broken(*anything):
    raise RuntimeError("no such layer")

def goes(pixels, text):
    return 0.3 if "bright" in text and pixels.mean() > 128 else 0.1

def loud(samples, rate):
    assert samples.dtype == np.float32 and rate == 16000
    return float(np.abs(samples).max() > 0.1)

def seconds(samples, rate):
    return len(samples) / rate
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_hooks.py").write_text(HOOKS, "utf-8")
    return tmp_path


def square(level: int, uri: str = "a.png") -> Part:
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (32, 32), (level, level, level)).save(file, "PNG")
    return Part("image", data=file.getvalue(), uri=uri)


def sound(level: float, seconds: float = 1.0) -> Part:
    import wave

    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE_HZ)
        out.writeframes((np.sin(np.arange(int(seconds * RATE_HZ)) / 9) * level * 32767).astype("<i2").tobytes())
    return Part("audio", data=file.getvalue(), uri="a.wav")


def safe(folder: Path, function: str, **keys: Any) -> Any:
    return rules("safe_pictures", folder=folder, safe_pictures={"classifier": f"my_hooks:{function}", **keys})


def test_pictures_above_the_limit_are_left_out(folder: Path) -> None:
    found = judge(document("words", square(255, "white.png"), square(10)), safe(folder, "brightness"))
    assert found.places == [0, 2] and not found.failed
    assert [(part.uri, m.rule, m.detail) for part, m in found.parts] == [
        ("white.png", "safe_pictures: unsafe", "1, at most 0.2")
    ]


def test_or_the_document_is_dropped(folder: Path) -> None:
    curation = safe(folder, "brightness", on_bad_part="drop_document")
    found = judge(document("words", square(10), square(255)), curation)
    assert found.failed and found.failed.rule == "safe_pictures: unsafe" and found.places == [0, 1, 2]
    assert not judge(document("words", square(10)), curation).failed


def film(levels: list[int]) -> Part:
    """A video of gray frames, one a second."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=1)
        stream.width = stream.height = 64
        for level in levels:
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), level, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return Part("video", data=file.getvalue(), uri="a.mp4")


def test_of_a_video_the_worst_of_a_few_frames_counts(folder: Path) -> None:
    calm, one = film([10] * 16), film([10] * 9 + [255] * 2 + [10] * 5)
    found = judge(document("words", calm, one), safe(folder, "brightness"))
    assert found.places == [0, 1] and [m.rule for _, m in found.parts] == ["safe_pictures: unsafe"]
    assert found.parts[0][1].value > 0.9
    assert judge(document("words", one), safe(folder, "brightness", frames=1)).places == [0, 1]  # the first
    assert judge(document("words", one), safe(folder, "brightness", frames=0)).places == [0, 1]
    assert judge(document("words", one), safe(folder, "broken", frames=0)).places == [0, 1]
    assert judge(document("words", one), safe(folder, "broken")).places == [0]
    assert judge(document("words", one), safe(folder, "brightness", on_bad_part="drop_document")).failed
    assert judge(document(Part("video", data=b"no film", uri="b.mp4")), safe(folder, "brightness")).places == [0]


def test_a_classifier_of_classes_judges_each_class_by_its_worst_frame(folder: Path) -> None:
    found = judge(document("words", film([10, 250, 10, 10])), safe(folder, "classes"))
    assert [(m.rule, m.limit) for _, m in found.parts] == [("safe_pictures: porn", 0.85)]


def test_scores_by_class_are_held_to_the_limits_of_obelics(folder: Path) -> None:
    found = judge(document("words", square(216), square(217)), safe(folder, "classes"))
    assert found.places == [0, 1]
    assert [(m.rule, m.limit) for _, m in found.parts] == [("safe_pictures: porn", 0.85)]


@pytest.mark.parametrize(
    ("function", "why"),
    [
        ("broken", "my_hooks:broken: RuntimeError: no such layer, not an answer"),
        ("words", "my_hooks:words: answered with str, not a number, not an answer"),
        ("strangers", "my_hooks:strangers: none of its classes cat is in max_scores, not an answer"),
    ],
)
def test_a_picture_that_could_not_be_judged_is_not_let_through(folder: Path, function: str, why: str) -> None:
    found = judge(document("words", square(10)), safe(folder, function))
    assert found.places == [0] and not found.failed
    assert [(m.rule, m.detail) for _, m in found.parts] == [("safe_pictures: the hook failed", why)]


def test_a_picture_that_cannot_be_decoded_is_left_to_encoding(folder: Path) -> None:
    broken = Part("image", data=b"no picture", uri="a.png")
    assert judge(document("words", broken), safe(folder, "brightness")).places == [0, 1]
    huge = judge(document("words", square(255)), safe(folder, "brightness"), Limits(max_pixels=100))
    assert huge.places == [0, 1]  # its decoder refuses it, at the recipe's limits


def test_a_picture_is_compared_with_every_text(folder: Path) -> None:
    curation = rules("similarity", folder=folder, similarity={"scorer": "my_hooks:goes"})
    found = judge(document("something dark", square(255), "a bright thing", square(0)), curation)
    assert found.places == [0, 1, 2]
    assert [(m.rule, m.detail) for _, m in found.parts] == [("similarity: goes with no text", "0.1, at least 0.15")]
    assert judge(document(square(0)), curation).places == [0]  # no text: nothing to compare with


def test_similarity_needs_a_function() -> None:
    with pytest.raises(UserError, match=r'curate.similarity.scorer = "" names no function; write "module:function"'):
        rules("similarity")


def test_sounds_are_measured_by_both_functions(folder: Path) -> None:
    keys: dict[str, Any] = {"voice": "my_hooks:loud", "quality": "my_hooks:seconds", "min_quality": 0.5}
    curation = rules("speech", folder=folder, speech=keys)
    assert not judge(document("words", sound(0.5)), curation).failed
    quiet, short = judge(document("words", sound(0.01)), curation), judge(document("words", sound(0.5, 0.4)), curation)
    assert quiet.failed and (quiet.failed.rule, quiet.failed.value) == ("speech: too little speech", 0)
    assert short.failed and (short.failed.rule, short.failed.value) == ("speech: poor quality", 0.4)
    curation = rules("speech", folder=folder, speech={**keys, "on_bad_part": "drop_part"})
    assert judge(document("words", sound(0.01), sound(0.5)), curation).places == [0, 2]
    curation = rules("speech", folder=folder, speech={**keys, "voice": ""})
    assert not judge(document(sound(0.01)), curation).failed


def test_a_sound_that_a_function_failed_on_is_not_let_through(folder: Path) -> None:
    curation = rules("speech", folder=folder, speech={"voice": "my_hooks:broken", "quality": ""})
    found = judge(document(sound(0.5)), curation).failed
    assert found and found.rule == "speech: the hook failed" and "RuntimeError: no such layer" in found.detail
    assert judge(document(Part("audio", data=b"no sound", uri="a.wav")), curation).places == [0]


def test_of_a_long_sound_pieces_spread_over_it_are_measured() -> None:
    samples = np.arange(100 * RATE_HZ)
    assert pieces(samples[: 90 * RATE_HZ], 90)[0] is not None and len(pieces(samples[: 90 * RATE_HZ], 90)) == 1
    cut = pieces(samples, 30)
    assert [len(piece) / RATE_HZ for piece in cut] == [9.1, 9.1, 9.1]
    assert cut[0][0] == 0 and cut[-1][-1] == samples[-1] and cut[1][0] == (100 - 9.1) / 2 * RATE_HZ


def drawn(seed: int, quality: int = 95, size: int = 256) -> Part:
    """A picture of a few soft blots, as a JPEG."""
    from PIL import Image

    small = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC).save(file, "JPEG", quality=quality)
    return Part("image", data=file.getvalue(), uri=f"{seed}-{quality}-{size}.jpg")


def test_near_copies_of_a_picture_in_a_document_are_left_out() -> None:
    parts = [drawn(1), drawn(2), drawn(1, 40), "words", drawn(1, 80, 200), image(9, 9), image(9, 9)]
    found = judge(document(*parts), rules("picture_copies"))
    assert found.places == [0, 1, 3, 5, 6]  # flat pictures have no look
    assert [(part.uri, m.rule) for part, m in found.parts] == [
        ("1-40-256.jpg", "picture_copies: a copy in its document"),
        ("1-80-200.jpg", "picture_copies: a copy in its document"),
    ]
    assert all(m.value <= 5 and m.limit == 6 for _, m in found.parts)
    assert judge(document(*parts), rules("picture_copies", picture_copies={"keep": 2})).places == [0, 1, 2, 3, 5, 6]


def test_the_version_of_a_function_is_part_of_the_settings(folder: Path) -> None:
    one, two = (safe(folder, "brightness", version=version).settings() for version in ("1", "2"))
    assert one != two and one["safe_pictures"]["classifier"] == "my_hooks:brightness"
    assert str(folder) not in str(one)
