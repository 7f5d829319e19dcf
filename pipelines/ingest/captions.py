"""Images with captions, written and spoken, put together by name.

`apple.png` goes with `apple.txt` (its caption), `apple_desc_fr.ogg` or `apple.fr.ogg` (the caption spoken) and
`apple.ogg` (a sound of the thing). A caption file is the caption alone, or a first line followed by translations as
`fr.utf8=Une pomme.` (Tux Paint's form). Without a file, the manifest's caption is taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from pipelines.ingest.document import Document, Dropped, Part
from pipelines.ingest.files import AUDIO, IMAGE, read_text, stem
from pipelines.ingest.folder import EXCLUDED, NO_SOURCE, UNREFERRED, Folder, language_tag, settings_of, uri_of
from pipelines.ingest.media import EMPTY, Limits, MediaError
from pipelines.ingest.source import CommonOptions, Input

_SPOKEN = re.compile(r"(?P<stem>.+?)(?:_desc(?:_(?P<desc>[A-Za-z@_-]+))?|[._](?P<tag>[a-z]{2,3}(?:[-_@][A-Za-z]+)?))")
_TRANSLATION = re.compile(r"(?P<language>[A-Za-z]{2,3}(?:[_@-][A-Za-z]+)*)\.utf8=(?P<text>.*)")


class CaptionOptions(CommonOptions):
    """The keys of a `format = "captions"` source."""

    languages: tuple[str, ...] = Field((), description="of translated and spoken captions to keep; empty: all")
    require_caption: bool = Field(False, description="leave out images that have no caption")


@dataclass(frozen=True)
class _Companions:
    """The files that go with one image."""

    text: str = ""
    sound: str = ""
    spoken: tuple[tuple[str, str], ...] = ()  # (language or "", path)

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(file for file in (self.text, *(path for _, path in self.spoken), self.sound) if file)


@dataclass(frozen=True)
class CaptionSource:
    """See the module docstring."""

    name: str
    folder: Folder
    limits: Limits
    Options: ClassVar = CaptionOptions

    @property
    def root(self) -> Path:
        return self.folder.root

    def settings(self) -> dict[str, Any]:
        return settings_of("captions", self.folder)

    def inputs(self) -> list[Input]:
        listed = []
        for image in self.folder.of_suffix(IMAGE):
            files = (image, *self._companions[stem(image)].files)
            listed.append(Input(image, files, self.folder.size(*files)))
        return listed

    def read(self, input: Input) -> Iterator[Document | Dropped]:
        options = self.folder.options
        assert isinstance(options, CaptionOptions)
        image, companions = input.path, self._companions[stem(input.path)]
        caption, uri = self.folder.fact(image).caption, uri_of(image)
        others: dict[str, str] = {}
        if companions.text:
            uri = uri_of(companions.text)
            try:
                caption, others = parse_captions(read_text(self.folder.path(companions.text), self.limits))
            except MediaError as error:
                yield Dropped(self.name, uri, "ingest", error.reason, error.detail)
        if options.require_caption and not caption:
            for file in dict.fromkeys((image, *companions.files)):
                yield Dropped(self.name, uri_of(file), "ingest", EMPTY, "no caption")
            return
        parts = [Part("image", path=self.folder.path(image), uri=uri_of(image))]
        if caption:
            parts = _pair(Part("text", text=caption, uri=uri), "", parts[0], group=0)
        spoken = dict(companions.spoken)
        if "" in spoken:
            parts.append(self._audio(spoken.pop(""), ""))
        for language in sorted({*others, *spoken}):
            if options.languages and language not in options.languages:
                if language in spoken:
                    yield Dropped(self.name, uri_of(spoken[language]), "ingest", EXCLUDED, f"language {language!r}")
                continue
            words = Part("text", text=others.get(language, ""), uri=uri, stream=language)
            if language in spoken and words.text:
                parts += _pair(words, language, self._audio(spoken[language], language), group=len(parts))
            else:
                parts.append(words if words.text else self._audio(spoken[language], language))
        if companions.sound:
            parts.append(self._audio(companions.sound, "sound"))
        yield self.folder.document(self.name, image, parts)

    def leftovers(self) -> list[Dropped]:
        claimed = {file for input in self.inputs() for file in input.files}
        return self.folder.leftovers(
            self.name, claimed, lambda path: UNREFERRED if path.lower().endswith((".txt", *AUDIO)) else NO_SOURCE
        )

    @cached_property
    def _companions(self) -> Mapping[str, _Companions]:
        """By the stem of the images."""
        texts: dict[str, str] = {}
        sounds: dict[str, str] = {}
        spoken: dict[str, list[tuple[str, str]]] = {stem(image): [] for image in self.folder.of_suffix(IMAGE)}
        for path in self.folder.known_of_suffix((".txt",)):
            texts.setdefault(stem(path), path)
        for path in self.folder.known_of_suffix(AUDIO):
            name = stem(path)
            found = _SPOKEN.fullmatch(name)
            if name in spoken:
                sounds.setdefault(name, path)
            elif found and found["stem"] in spoken:
                spoken[found["stem"]].append((language_tag(found["desc"] or found["tag"] or ""), path))
        return {
            name: _Companions(texts.get(name, ""), sounds.get(name, ""), _first_of_each(said))
            for name, said in spoken.items()
        }

    def _audio(self, path: str, stream: str) -> Part:
        return Part("audio", path=self.folder.path(path), uri=uri_of(path), stream=stream)


def parse_captions(text: str) -> tuple[str, dict[str, str]]:
    """(the caption, translations by language).

    >>> parse_captions("An apple.\\nfr.utf8=Une pomme.\\nzh_CN.utf8=苹果")
    ('An apple.', {'fr': 'Une pomme.', 'zh-CN': '苹果'})
    """
    own: list[str] = []
    others: dict[str, str] = {}
    for line in text.split("\n"):
        found = _TRANSLATION.fullmatch(line.strip())
        if found is None:
            own.append(line)
        elif found["text"].strip() and (language := language_tag(found["language"])):
            others.setdefault(language, found["text"].strip())
    return "\n".join(own).strip(), others


def _pair(words: Part, stream: str, medium: Part, group: int) -> list[Part]:
    """Caption and medium as a group."""
    caption = Part("text", text=words.text, uri=words.uri, stream=stream, group=group, group_role="caption")
    target = Part(medium.kind, path=medium.path, uri=medium.uri, stream=stream, group=group, group_role="target")
    return [caption, target]


def _first_of_each(said: list[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """One file a language: the first by name; a second one stays a leftover."""
    first: dict[str, str] = {}
    for language, path in sorted(said):
        first.setdefault(language, path)
    return tuple(first.items())
