"""Videos with subtitles and their own sound."""

from __future__ import annotations

from toy_media import movie, read_folder

SRT = "1\n00:00:00,500 --> 00:00:01,250\n<i>Hello</i>,\nyou\n\n2\n00:00:00,000 --> 00:00:00,400\nfirst\n"
VTT = "WEBVTT\n\n00:00.000 --> 00:00.400\nd'abord\n"


def test_a_video_comes_with_its_sound_and_its_subtitles(tmp_path):
    movie(tmp_path / "talk.mp4", [0, 500], sound_s=1.0)
    files = {"talk.srt": SRT, "talk.fr.vtt": VTT, "other.srt": SRT}
    [document], dropped, left = read_folder("video", tmp_path, files, language="en")
    assert [(p.kind, p.uri) for p in document.parts[:2]] == [("video", "talk.mp4"), ("audio", "talk.mp4#audio")]
    assert document.parts[1].start_s == 0.0
    # files in the order of their names; cues in the order of their times, without markup
    assert [(p.text, p.stream, p.start_s, p.end_s) for p in document.parts[2:]] == [
        ("d'abord", "fr", 0.0, 0.4),
        ("first", "en", 0.0, 0.4),
        ("Hello,\nyou", "en", 0.5, 1.25),
    ]
    assert not dropped
    assert [(d.uri, d.reason) for d in left] == [("other.srt", "nothing refers to it")]


def test_a_silent_video_has_no_sound_part(tmp_path):
    movie(tmp_path / "a.mp4", [0, 500])
    [document], _, _ = read_folder("video", tmp_path, {})
    assert [p.kind for p in document.parts] == ["video"]


def test_a_broken_video_stays_for_decoding_to_name(tmp_path):
    [document], _, _ = read_folder("video", tmp_path, {"a.mp4": b"not a video"})
    assert [p.kind for p in document.parts] == ["video"]


def test_broken_subtitles_are_a_ledger_line(tmp_path):
    movie(tmp_path / "a.mp4", [0, 500])
    files = {"a.srt": "", "a.fr.vtt": b"\xff\xff\xff", "a.de.srt": "no cues at all"}
    [document], dropped, _ = read_folder("video", tmp_path, files)
    assert [p.kind for p in document.parts] == ["video"]
    assert {d.uri for d in dropped} == set(files)
