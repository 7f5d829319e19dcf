"""Frames come by presentation time in one pass; hostile files raise MediaError and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from toy_media import movie, sine, wav

from pipelines.ingest import decode_video as decode_video_module
from pipelines.ingest.decode_video import decode_video, probe
from pipelines.ingest.media import REASONS, Limits, MediaError


def grays(frames: np.ndarray) -> list[int]:
    """The number of the drawn frame (toy_media.movie) that each picture shows."""
    return [round((float(frame.mean()) - 20) / 40) for frame in frames]


def test_frames_of_a_constant_rate(tmp_path):
    clip = decode_video(movie(tmp_path / "a.mp4", [0, 1000, 2000, 3000]), fps=1.0, max_frames=16)
    assert clip.frames.shape == (4, 48, 64, 3) and clip.frames.dtype == np.uint8
    assert grays(clip.frames) == [0, 1, 2, 3]
    np.testing.assert_allclose(clip.times, [0, 1, 2, 3])
    assert clip.audio is None


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv"])
def test_a_variable_rate_shows_what_is_on_the_screen(tmp_path, name):
    path = movie(tmp_path / name, [0, 200, 2500, 2700, 4100])
    assert grays(decode_video(path, times=[0.0, 0.1, 0.3, 2.4, 2.6, 4.0, 4.12]).frames) == [0, 0, 1, 1, 2, 3, 4]


def test_long_videos_are_spread_over_max_frames(tmp_path):
    path = movie(tmp_path / "a.mp4", [0, 1000, 2000, 3000, 4000])
    clip = decode_video(path, fps=4.0, max_frames=3)
    assert len(clip.frames) == 3
    assert clip.times[-1] < clip.duration_s


def test_sound_comes_in_the_same_pass(tmp_path):
    clip = decode_video(movie(tmp_path / "a.mp4", [0, 500, 1000], sound_s=1.5), fps=2.0, sample_rate_hz=8000)
    assert clip.audio is not None and abs(len(clip.audio) / 8000 - 1.5) < 0.2
    assert grays(clip.frames)[:3] == [0, 1, 2]
    tracks = probe(tmp_path / "a.mp4")
    assert tracks.has_audio and (tracks.width, tracks.height) == (64, 48)


def test_frames_are_reduced_to_the_asked_short_side(tmp_path):
    path = movie(tmp_path / "a.mp4", [0, 500], size=(128, 64))
    assert decode_video(path, size=32).frames.shape[1:] == (32, 64, 3)
    assert decode_video(path, size=512).frames.shape[1:] == (64, 128, 3), "never enlarged"


def test_times_past_the_end_get_no_frame(tmp_path):
    clip = decode_video(movie(tmp_path / "a.mp4", [0, 500]), times=[0.0, 0.52, 60.0])
    assert len(clip.frames) == len(clip.times) == 2


def test_limits_are_kept(tmp_path):
    path = movie(tmp_path / "a.mp4", list(range(0, 2000, 100)))
    for limits in (Limits(max_seconds=1.0), Limits(max_frames=5), Limits(max_pixels=100), Limits(max_bytes=100)):
        with pytest.raises(MediaError) as caught:
            decode_video(path, limits=limits)
        assert caught.value.reason == "over limit"


def test_a_sound_file_has_no_video_track():
    with pytest.raises(MediaError) as caught:
        decode_video(wav(sine(0.1)))
    assert caught.value.reason == "no such track"


def test_truncated_and_damaged_files_are_survived(tmp_path):
    whole = movie(tmp_path / "a.mkv", list(range(0, 2000, 100)), sound_s=1.0).read_bytes()
    rng = np.random.RandomState(2)
    for stop in range(0, len(whole), max(1, len(whole) // 15)):
        damaged = np.frombuffer(whole, np.uint8).copy()
        damaged[rng.randint(0, len(whole), 40)] ^= 0xFF
        for medium in (whole[:stop], damaged.tobytes()):
            try:
                decode_video(medium, sample_rate_hz=16000, limits=Limits(max_seconds=100, max_pixels=10**6))
            except MediaError as error:
                assert error.reason in REASONS


def test_sizes_over_the_limit_are_refused_before_a_frame_is_decoded(tmp_path, monkeypatch):
    path = movie(tmp_path / "a.mp4", [0, 40, 80])
    monkeypatch.setattr(decode_video_module.Patience, "decoded", None)
    with pytest.raises(MediaError) as caught:
        decode_video(path, limits=Limits(max_pixels=1000))
    assert caught.value.reason == "over limit" and "64 x 48" in caught.value.detail
