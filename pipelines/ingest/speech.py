"""Sound files with what they say: a text beside each, or one file of transcripts for many.

`a.wav` goes with `a.txt` or `a.lab`; with its line in a `transcription`, `*.transcription`, `*.trans.txt` or
`dialogs_LANG.lua` of its folder; with its row in the TSV or CSV that the recipe names; or with the manifest's caption.
Lines for sound that is not there become documents of text (Lua dialogs) or ledger lines.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from pydantic import Field

from mmdata.errors import UserError
from pipelines.ingest.document import Document, Dropped, Part
from pipelines.ingest.files import AUDIO, read_text, stem
from pipelines.ingest.folder import NO_SOURCE, UNREFERRED, Folder, settings_of, uri_of
from pipelines.ingest.media import EMPTY, MISSING, Limits, MediaError
from pipelines.ingest.source import CommonOptions, Input
from pipelines.ingest.transcripts import Transcript, is_transcripts, parse_transcripts

_BESIDE = (".txt", ".lab")


class SpeechOptions(CommonOptions):
    """The keys of a `format = "speech"` source."""

    transcripts: str = Field("", description="a TSV or CSV with a path and a text column, from the source's path")
    encoding: str = Field("", description="of the transcripts; empty: UTF-8")


@dataclass(frozen=True)
class _Table:
    """What a file of transcripts says of each sound file ("": of those that are not there), and what of it is lost, as
    (fragment, why)."""

    said: dict[str, list[Transcript]] = field(default_factory=dict)
    lost: list[tuple[str, MediaError]] = field(default_factory=list)


@dataclass(frozen=True)
class SpeechSource:
    """See the module docstring."""

    name: str
    folder: Folder
    limits: Limits
    Options: ClassVar = SpeechOptions

    @property
    def root(self) -> Path:
        return self.folder.root

    def settings(self) -> dict[str, Any]:
        return settings_of("speech", self.folder)

    def inputs(self) -> list[Input]:
        listed = []
        for path in self._sounds:
            beside = self._beside(path)
            files = (path, beside) if beside else (path,)
            listed.append(Input(path, (*files, *self._tables_of(path)), self.folder.size(*files)))
        listed += [Input(path, (path,), self.folder.size(path)) for path in self._own_tables]
        return sorted(listed, key=lambda input: input.path)

    def read(self, input: Input) -> Iterator[Document | Dropped]:
        if input.path in self._sounds:
            yield from self._sound(input.path)
        else:
            yield from self._rest_of(input.path)

    def leftovers(self) -> list[Dropped]:
        claimed = {file for input in self.inputs() for file in input.files}
        return self.folder.leftovers(
            self.name, claimed, lambda path: UNREFERRED if path.lower().endswith(_BESIDE) else NO_SOURCE
        )

    @cached_property
    def _sounds(self) -> frozenset[str]:
        own = self.folder.of_suffix(AUDIO)
        if self.folder.is_narrow:  # a path that names files of transcripts means the sound that they speak of
            own += [sound for table in self._own_tables for sound in self._table(table).said if sound]
        return frozenset(own)

    @cached_property
    def _known_sounds(self) -> frozenset[str]:
        return frozenset(self.folder.known_of_suffix(AUDIO))

    @cached_property
    def _own_tables(self) -> tuple[str, ...]:
        """Those that are inputs: the others only say what the sounds do."""
        return tuple(table for table in self._tables if table in self._own_files)

    @cached_property
    def _own_files(self) -> frozenset[str]:
        return frozenset(self.folder.files)

    @cached_property
    def _tables(self) -> tuple[str, ...]:
        """The files of transcripts."""
        options = self.folder.options
        assert isinstance(options, SpeechOptions)
        named = options.transcripts
        if named and named not in self.folder.names:
            raise UserError(
                f"source {self.name!r}: transcripts = {named!r} is not a file under {self.root}."
                " Correct it in the recipe."
            )
        return tuple(path for path in self.folder.known if path == named or is_transcripts(path))

    @cached_property
    def _by_lead(self) -> dict[str, list[str]]:
        """The files of transcripts by where their paths start from."""
        found: dict[str, list[str]] = {}
        for table in self._tables:
            found.setdefault(_lead(table), []).append(table)
        return found

    def _tables_of(self, sound: str) -> list[str]:
        """The files of transcripts that may speak of a sound: those of its folder and of the folders around it."""
        leads = [sound[: place + 1] for place, letter in enumerate(sound) if letter == "/"]
        return sorted(table for lead in ("", *leads) for table in self._by_lead.get(lead, ()))

    @cached_property
    def _by_stem(self) -> dict[str, str]:
        return {stem(path): path for path in sorted(self._known_sounds, reverse=True)}

    @cached_property
    def _known(self) -> dict[str, _Table]:
        return {}

    def _table(self, path: str) -> _Table:
        """What a file of transcripts says, read once."""
        if path not in self._known:
            self._known[path] = table = _Table()
            try:
                for name, one in parse_transcripts(path, self._text(path)):
                    if isinstance(one, MediaError):
                        table.lost.append((name, one))
                        continue
                    sound = _lead(path) + name
                    sound = sound if sound in self._known_sounds else self._by_stem.get(sound, "")
                    table.said.setdefault(sound, []).append(one)
            except MediaError as error:
                table.lost.append(("", error))
        return self._known[path]

    def _text(self, path: str) -> str:
        options = self.folder.options
        assert isinstance(options, SpeechOptions)
        return read_text(self.folder.path(path), self.limits, options.encoding)

    def _beside(self, sound: str) -> str:
        return next((stem(sound) + end for end in _BESIDE if stem(sound) + end in self.folder.names), "")

    def _sound(self, path: str) -> Iterator[Document | Dropped]:
        said = [(table, one) for table in self._tables_of(path) for one in self._table(table).said.get(path, ())]
        beside = self._beside(path)
        if beside:
            try:
                said = [(beside, Transcript(self._text(beside).strip())), *said]
            except MediaError as error:
                yield Dropped(self.name, uri_of(beside), "ingest", error.reason, error.detail)
        if not said and (caption := self.folder.fact(path).caption):
            said = [(path, Transcript(caption))]
        said = [(file, transcript) for file, transcript in said if transcript.text]
        audio = Part("audio", path=self.folder.path(path), uri=uri_of(path), group=0 if said else -1)
        if said:
            audio = Part("audio", path=audio.path, uri=audio.uri, group=0, group_role="target")
        captions = [_caption(uri_of(file, one.key), one) for file, one in said]
        others = [
            Part("text", text=text, uri=uri_of(file, one.key), stream=language)
            for file, one in said
            for language, text in one.translations
        ]
        yield self.folder.document(
            self.name,
            path,
            [*captions, audio, *others],
            language=next((one.language for _, one in said if one.language), ""),
            metadata={"speaker": said[0][1].speaker} if said and said[0][1].speaker else {},
        )

    def _rest_of(self, table: str) -> Iterator[Document | Dropped]:
        """What a file of transcripts holds beyond the sound files: dialogs nobody speaks; lines whose sound is gone."""
        found = self._table(table)
        for fragment, error in found.lost:
            yield Dropped(self.name, uri_of(table, fragment), "ingest", error.reason, error.detail)
        lost = found.said.get("", [])
        if not found.said and not found.lost:
            yield Dropped(self.name, uri_of(table), "ingest", EMPTY, "no transcript in the file")
        elif table.lower().endswith(".lua"):
            parts = []
            for one in lost:
                uri = uri_of(table, one.key)
                parts.append(Part("text", text=one.text, uri=uri))
                parts += [Part("text", text=text, uri=uri, stream=language) for language, text in one.translations]
            if parts:
                yield self.folder.document(self.name, table, parts, language=lost[0].language)
        else:
            for one in lost:
                yield Dropped(
                    self.name, uri_of(table, one.key), "ingest", MISSING, "its sound file is not in the folder"
                )


def _lead(table: str) -> str:
    """What the paths in a file of transcripts start from: "a/b/" or ""."""
    folder = str(PurePosixPath(table).parent)
    return "" if folder == "." else folder + "/"


def _caption(uri: str, one: Transcript) -> Part:
    start, end = (one.start_s, one.end_s) if one.start_s <= one.end_s else (math.nan, math.nan)
    return Part(
        "text", text=one.text, uri=uri, start_s=start, end_s=end, stream=one.speaker, group=0, group_role="caption"
    )
