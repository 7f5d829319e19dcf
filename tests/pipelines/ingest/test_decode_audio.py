"""Sound of any container becomes mono at the codec's rate; hostile files raise MediaError and nothing else."""

from __future__ import annotations

import io
import struct
from fractions import Fraction

import numpy as np
import pytest
from toy_media import png, sine, wav

from pipelines.ingest import containers
from pipelines.ingest import decode_audio as module
from pipelines.ingest.decode_audio import decode_audio
from pipelines.ingest.media import REASONS, Limits, MediaError


def test_a_wav_at_the_asked_rate_comes_back_as_it_is():
    wave = sine(0.3)
    got = decode_audio(wav(wave), 16000)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, wave, atol=1e-4)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_resampling_keeps_length_and_pitch(rate):
    got = decode_audio(wav(sine(1.0, rate), rate), 16000)
    assert abs(len(got) - 16000) <= 2
    middle = slice(4000, 12000)
    np.testing.assert_allclose(got[middle], sine(1.0)[: len(got)][middle], atol=0.02)


def test_channels_are_averaged():
    left, right = sine(0.2), np.zeros(3200, np.float32)
    got = decode_audio(wav(np.stack([left, right], 1).ravel(), channels=2), 16000)
    np.testing.assert_allclose(got, left / 2, atol=1e-4)


@pytest.mark.parametrize("container, codec", [("flac", "flac"), ("ogg", "libopus"), ("mp4", "aac")])
def test_containers_are_told_by_content(tmp_path, container, codec):
    import av

    path = tmp_path / "sound.wav"  # the wrong name
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream(codec, rate=16000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray((sine(0.5) * 32767).astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16000, 0, Fraction(1, 16000)
        resampler = av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=16000,
                                      frame_size=stream.codec_context.frame_size or 1024)  # fmt: skip
        for piece in (*resampler.resample(frame), *resampler.resample(None)):
            out.mux(stream.encode(piece))
        out.mux(stream.encode())
    got = decode_audio(path, 16000)
    assert abs(len(got) / 16000 - 0.5) < 0.15
    assert 0.3 < np.abs(got).max() < 0.7


@pytest.mark.parametrize("rate, channels", [(16000, 1), (48000, 1), (44100, 2)])
def test_the_options_for_wav_files_change_no_sample(monkeypatch, rate, channels):
    noise = np.random.RandomState(0).uniform(-0.5, 0.5, 150_000 * channels)
    medium = wav(noise, rate, channels)
    monkeypatch.setattr(module, "plain_wave", lambda file: None)
    got = decode_audio(medium, 16000)
    monkeypatch.setattr(containers, "_by_content", lambda file: {})
    np.testing.assert_array_equal(got, decode_audio(medium, 16000))


def test_the_same_file_gives_the_same_samples_twice():
    medium = wav(sine(0.4, 44100), 44100)
    np.testing.assert_array_equal(decode_audio(medium, 16000), decode_audio(medium, 16000))


def test_a_truncated_wav_gives_what_is_there():
    medium = wav(sine(1.0))
    assert abs(len(decode_audio(medium[: len(medium) // 2], 16000)) - 8000) < 100


def test_sound_over_the_limit_is_refused():
    with pytest.raises(MediaError) as caught:
        decode_audio(wav(sine(2.0)), 16000, Limits(max_seconds=1.0))
    assert caught.value.reason == "over limit"


def lying_wav() -> bytes:
    """A header that promises hours; a thousand samples follow."""
    medium = bytearray(wav(sine(0.0625)))
    medium[40:44] = struct.pack("<I", 0x7FFFFFF0)
    return bytes(medium)


def test_a_huge_promised_duration_costs_nothing():
    assert len(decode_audio(lying_wav(), 16000, Limits(max_seconds=60))) <= 1100


@pytest.mark.parametrize(
    "medium, reason",
    [
        (b"", "empty"),
        (wav(np.zeros(0)), "empty"),
        (b"RIFF\0\0\0\0WAVEfmt ", "cannot decode"),
        (b"not a sound" * 50, "cannot decode"),
        (png(), "cannot decode"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "cannot decode"),
        (b"ffconcat version 1.0\nfile /etc/hostname\n", "cannot decode"),
    ],
)
def test_hostile_sound_raises_media_errors(medium, reason):
    with pytest.raises(MediaError) as caught:
        decode_audio(medium, 16000)
    assert caught.value.reason == reason
    assert "0x" not in caught.value.detail


def test_a_playlist_reaches_no_file_beside_it(tmp_path):
    (tmp_path / "secret.wav").write_bytes(wav(sine(0.2)))
    playlist = tmp_path / "list.mp3"
    playlist.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.wav\n#EXT-X-ENDLIST\n")
    with pytest.raises(MediaError):
        decode_audio(playlist, 16000)


def test_random_damage_is_survived():
    whole = np.frombuffer(wav(sine(0.2, 44100), 44100), np.uint8)
    rng = np.random.RandomState(1)
    for _ in range(20):
        damaged = whole.copy()
        damaged[rng.randint(0, 60, 6)] = rng.randint(0, 256, 6)
        try:
            got = decode_audio(io.BytesIO(damaged.tobytes()).getvalue(), 16000, Limits(max_seconds=60))
            assert np.isfinite(got).all()
        except MediaError as error:
            assert error.reason in REASONS
