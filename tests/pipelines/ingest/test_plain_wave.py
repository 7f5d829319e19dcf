"""Plain WAV files give the very samples that FFmpeg gives, and whatever is not plain is left to FFmpeg."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_media import sine, wav

from pipelines.ingest import decode_audio as module
from pipelines.ingest.decode_audio import decode_audio
from pipelines.ingest.media import Limits, MediaError
from pipelines.ingest.plain_wave import plain_wave

SAMPLES = 40  # of the small files


def riff(*chunks: tuple[bytes, bytes], sizes: dict[bytes, int] | None = None) -> bytes:
    body = b"".join(
        name + struct.pack("<I", (sizes or {}).get(name, len(data))) + data + b"\0" * (len(data) % 2)
        for name, data in chunks
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


def form(tag: int = 1, channels: int = 1, rate: int = 16000, bits: int = 16, more: bytes = b"") -> bytes:
    align = channels * bits // 8
    return struct.pack("<HHIIHH", tag, channels, rate, rate * align, align, bits) + more


DATA = np.arange(-20, 20, dtype="<i2").tobytes()


def taken(medium: bytes) -> bool:
    return plain_wave(io.BytesIO(medium)) is not None


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([8000, 16000, 22050, 44100, 48000]), st.integers(1, 200_000), st.integers(0, 2**32))
def test_a_plain_file_gives_what_ffmpeg_gives(rate: int, count: int, seed: int) -> None:
    samples = np.random.default_rng(seed).integers(-32768, 32768, count).astype("<i2")
    medium = riff((b"fmt ", form(rate=rate)), (b"data", samples.tobytes()))
    assert taken(medium)
    got = outcome(medium)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "plain_wave", lambda file: None)
        want = outcome(medium)
    assert type(got) is type(want)
    np.testing.assert_array_equal(got, want)


def outcome(medium: bytes) -> np.ndarray | str:
    try:
        return decode_audio(medium, 16000)
    except MediaError as error:
        return error.reason


def test_chunks_around_the_samples_are_passed_over() -> None:
    plain = riff((b"fmt ", form()), (b"data", DATA))
    odd = riff(
        (b"JUNK", b"\1" * 27), (b"fmt ", form(more=b"\0\0")), (b"LIST", b"odd"), (b"data", DATA), (b"id3 ", b"x")
    )
    assert taken(odd)
    np.testing.assert_array_equal(decode_audio(odd, 16000), decode_audio(plain, 16000))


@pytest.mark.parametrize(
    "medium",
    [
        riff((b"fmt ", form(channels=2)), (b"data", DATA)),
        riff((b"fmt ", form(bits=24)), (b"data", DATA)),
        riff((b"fmt ", form(bits=8)), (b"data", DATA)),
        riff((b"fmt ", form(tag=3, bits=32)), (b"data", DATA)),
        riff((b"fmt ", form(tag=0xFFFE, more=b"\0" * 24)), (b"data", DATA)),
        riff((b"fmt ", form(rate=0)), (b"data", DATA)),
        riff((b"data", DATA), (b"fmt ", form())),
        riff((b"fmt ", form()), (b"data", b"")),
        riff((b"fmt ", form()), (b"data", DATA), sizes={b"data": 0xFFFFFFFF}),
        riff((b"fmt ", form()), (b"data", DATA), sizes={b"data": len(DATA) + 2}),
        riff((b"fmt ", form()), (b"data", DATA), sizes={b"data": len(DATA) - 1}),
        riff((b"fmt ", form()), (b"LIST", b"abcd"), sizes={b"LIST": 1 << 31}),
        riff((b"fmt ", form())),
        riff(*[(b"JUNK", b"")] * 100, (b"fmt ", form()), (b"data", DATA)),
        b"RIFX" + wav(sine(0.1))[4:],
        b"RIFF\0\0\0\0WAVEfmt ",
        b"RIFF",
        b"",
    ],
)
def test_what_is_not_plain_is_left_to_ffmpeg(medium: bytes) -> None:
    assert not taken(medium)


def test_limits_hold_for_plain_files_too() -> None:
    with pytest.raises(MediaError, match="longer than max_seconds = 1"):
        decode_audio(wav(sine(2.0)), 16000, Limits(max_seconds=1.0))


def test_a_long_file_is_read_in_pieces() -> None:
    found = plain_wave(io.BytesIO(wav(sine(10.0, 48000), 48000)))
    assert found is not None and found[0] == 48000
    pieces = list(found[1])
    assert len(pieces) > 5 and sum(map(len, pieces)) == 480_000
    np.testing.assert_allclose(np.concatenate(pieces), sine(10.0, 48000), atol=1e-4)
