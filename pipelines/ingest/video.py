"""Videos with their subtitles and their own sound. The home of pysubs2.

`talk.mp4` goes with `talk.srt`, `talk.cs.srt`, `talk.en.vtt`, `talk.ass`. The document is the video, its sound as an
audio part of the same file on the same clock (`talk.mp4#audio`), then the subtitles as timed texts, one stream for
each language.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import pysubs2
from pydantic import Field

from pipelines.ingest.decode_video import probe
from pipelines.ingest.document import Document, Dropped, Part
from pipelines.ingest.files import VIDEO, read_text, stem
from pipelines.ingest.folder import NO_SOURCE, UNREFERRED, Folder, language_tag, settings_of, uri_of
from pipelines.ingest.media import EMPTY, OVER_LIMIT, Limits, MediaError, refused
from pipelines.ingest.source import CommonOptions, Input

_SUBTITLES = (".srt", ".vtt", ".ass", ".ssa")
_MOST_CUES = 100_000


class VideoOptions(CommonOptions):
    """The keys of a `format = "video"` source."""

    sound: bool = Field(True, description="take the videos' own sound")
    languages: tuple[str, ...] = Field((), description="of subtitles to keep; empty: all")
    encoding: str = Field("", description="of subtitles; empty: UTF-8")


@dataclass(frozen=True)
class VideoSource:
    """See the module docstring."""

    name: str
    folder: Folder
    limits: Limits
    Options: ClassVar = VideoOptions

    @property
    def root(self) -> Path:
        return self.folder.root

    def settings(self) -> dict[str, Any]:
        return settings_of("video", self.folder)

    def inputs(self) -> list[Input]:
        listed = []
        for path in self._videos:
            files = (path, *(file for _, file in self._subtitles.get(stem(path), ())))
            listed.append(Input(path, files, self.folder.size(*files)))
        return listed

    def read(self, input: Input) -> Iterator[Document | Dropped]:
        options = self._options
        path = input.path
        parts = list(self._tracks(path, options.sound))
        caption = self.folder.fact(path).caption
        if caption:
            parts.insert(0, Part("text", text=caption, uri=uri_of(path)))
        for language, file in self._subtitles.get(stem(path), ()):
            uri = uri_of(file)
            if options.languages and language not in options.languages:
                yield Dropped(self.name, uri, "ingest", "excluded by the recipe", f"language {language!r}")
                continue
            try:
                parts += parse_subtitles(
                    read_text(self.folder.path(file), self.limits, options.encoding), uri, language
                )
            except MediaError as error:
                yield Dropped(self.name, uri, "ingest", error.reason, error.detail)
        yield self.folder.document(self.name, path, parts)

    def leftovers(self) -> list[Dropped]:
        claimed = {file for input in self.inputs() for file in input.files}
        return self.folder.leftovers(
            self.name, claimed, lambda path: UNREFERRED if path.lower().endswith(_SUBTITLES) else NO_SOURCE
        )

    @property
    def _options(self) -> VideoOptions:
        assert isinstance(self.folder.options, VideoOptions)
        return self.folder.options

    @cached_property
    def _videos(self) -> list[str]:
        """By ending, or all that the recipe includes (an animated .gif, say)."""
        if self._options.include:
            return [path for path in self.folder.files if not path.lower().endswith(_SUBTITLES)]
        return self.folder.of_suffix(VIDEO)

    @cached_property
    def _subtitles(self) -> dict[str, list[tuple[str, str]]]:
        """Stem of a video -> (language, file), in the order of the files' names."""
        found: dict[str, list[tuple[str, str]]] = {stem(path): [] for path in self._videos}
        for path in self.folder.known_of_suffix(_SUBTITLES):
            name = stem(path)
            if name in found:
                found[name].append((self.folder.fact(path).language, path))
            elif stem(name) in found:
                found[stem(name)].append((language_tag(name[len(stem(name)) + 1 :]), path))
        return found

    def _tracks(self, path: str, sound: bool) -> Iterator[Part]:
        """The video, and the sound of the same file. A file that cannot be opened stays: decoding will say why."""
        file, uri = self.folder.path(path), uri_of(path)
        try:
            tracks = probe(file, self.limits)
        except MediaError:
            yield Part("video", path=file, uri=uri)
            return
        if tracks.width or not tracks.has_audio:
            yield Part("video", path=file, uri=uri)
        if tracks.has_audio and (sound or not tracks.width):
            yield Part("audio", path=file, uri=uri_of(path, "audio"), start_s=tracks.audio_start_s)


def parse_subtitles(text: str, uri: str, language: str = "") -> list[Part]:
    """The cues as timed texts in the order of their start. Raises MediaError where the file is not subtitles."""
    try:
        cues = pysubs2.SSAFile.from_string(text)
    # pysubs2's parsers raise ValueError, IndexError, KeyError, ... besides its own errors
    except Exception as error:
        raise refused(error) from None
    if len(cues) > _MOST_CUES:
        raise MediaError(OVER_LIMIT, f"{len(cues):,} cues, the most is {_MOST_CUES:,}")
    parts = []
    for number, cue in enumerate(sorted(cues, key=lambda cue: (cue.start, cue.end)), 1):
        words = cue.plaintext.strip()
        if words and not cue.is_comment and cue.start <= cue.end:
            start, end = cue.start / 1000, cue.end / 1000
            part = Part("text", text=words, uri=f"{uri}#{number}", start_s=start, end_s=end, stream=language)
            parts.append(part)
    if not parts:
        raise MediaError(EMPTY, "no cue with words")
    return parts
