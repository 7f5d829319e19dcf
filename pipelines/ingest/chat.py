"""Conversations with media, in the form of LLaVA: a JSON list, or lines, of records with `image` and `conversations`.

A turn is `{"from": "human", "value": "<image>\\nWhat is this?"}` (or `role` and `content`): human and user become the
role user; gpt, assistant and model become assistant; system stays. Media stand where `<image>`, `<audio>` or `<video>`
marks them, those without a mark before the first turn; a mark without a medium is a ledger line.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from pipelines.ingest.document import Document, Dropped, Part
from pipelines.ingest.folder import Folder, language_tag, settings_of, uri_of
from pipelines.ingest.media import CANNOT_DECODE, EMPTY, MISSING, Limits, MediaError
from pipelines.ingest.records import FILES, documents_of, json_records, record_digest, short_facts, string_or_empty
from pipelines.ingest.reference import References
from pipelines.ingest.rows import leftovers_of
from pipelines.ingest.source import CommonOptions, Input

_ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "model": "assistant",
    "bot": "assistant", "system": "system",
}  # fmt: skip
_MARK = re.compile(r"\n?<(image|audio|video)>\n?")
_MEDIA = ("image", "audio", "video")


class ChatOptions(CommonOptions):
    """The keys of a `format = "chat"` source."""

    conversations: tuple[str, ...] = Field(("conversations", "messages"), description="fields of the list of turns")
    media_folder: str = Field("", description="folder, from the file's, that the paths of media start from")
    mirror: str = Field("", description="folder with copies of remote media, as `wget -x` writes them: HOST/PATH")
    sha256: str = Field(
        "sha256", description="field with the digest of the medium, or a list of them, in the same order"
    )
    id: str = Field("id", description="field that names a record for good; where it is missing its content does")


@dataclass(frozen=True)
class ChatSource:
    """See the module docstring."""

    name: str
    folder: Folder
    limits: Limits
    Options: ClassVar = ChatOptions
    follows: ClassVar = True

    @property
    def root(self) -> Path:
        return self.folder.root

    def settings(self) -> dict[str, Any]:
        return settings_of("chat", self.folder)

    def inputs(self) -> list[Input]:
        return [Input(path, (path,), self.folder.size(path)) for path in self.folder.of_suffix(FILES)]

    def read(self, input: Input) -> Iterator[Document | Dropped]:
        path, seen = input.path, Counter[str]()
        records = json_records(self.folder.path(path), self.limits)
        return documents_of(self.name, input, records, lambda number, record: self._record(path, number, record, seen))

    def leftovers(self, shown: Collection[str] | None = None) -> list[Dropped]:
        return leftovers_of(self, self.folder.of_suffix(FILES), shown)

    @property
    def _options(self) -> ChatOptions:
        assert isinstance(self.folder.options, ChatOptions)
        return self.folder.options

    def _record(
        self, path: str, number: str, record: dict[str, Any], seen: Counter[str]
    ) -> Iterator[Document | Dropped]:
        options, uri = self._options, uri_of(path, number)
        turns = next((record[f] for f in options.conversations if isinstance(record.get(f), list)), None)
        if turns is None:
            yield Dropped(self.name, uri, "ingest", EMPTY, f"no list of turns under {list(options.conversations)}")
            return
        parts = []
        for found in _in_place([one for turn in turns for one in _turn(turn, uri)], self._media(path, uri, record)):
            if isinstance(found, Part):
                parts.append(found)
            elif isinstance(found, Dropped):
                yield found
            else:
                yield Dropped(self.name, uri, "ingest", found.reason, found.detail)
        if not any(part.kind == "text" for part in parts):
            yield Dropped(self.name, uri, "ingest", EMPTY, "no turn with words")
            return
        key = str(record[options.id]) if isinstance(record.get(options.id), str | int) else record_digest(record)
        used = {
            *options.conversations,
            *_MEDIA,
            *(f"{kind}s" for kind in _MEDIA),
            options.sha256,
            "language",
            "licence",
        }
        yield self.folder.document(
            self.name,
            path,
            parts,
            key=key,
            occurrence=seen[key],
            fragment=number,
            language=language_tag(string_or_empty(record.get("language"))),
            licence=string_or_empty(record.get("licence")),
            metadata=short_facts(record, used),
        )
        seen[key] += 1

    def _media(self, path: str, uri: str, record: dict[str, Any]) -> dict[str, list[Part | Dropped]]:
        """The record's media by kind, in their order."""
        options = self._options
        base = f"{Path(path).parent.as_posix()}/{options.media_folder}/x" if options.media_folder else path
        references = References(self.name, self.folder, self.limits, options.mirror)
        digests = _strings(record.get(options.sha256))
        found: dict[str, list[Part | Dropped]] = {}
        number = 0
        for kind in _MEDIA:
            found[kind] = []
            for address in _strings(record.get(kind)) + _strings(record.get(f"{kind}s")):
                sha256 = digests[number] if number < len(digests) else ""
                found[kind].append(references.part(base, address, kind, uri, sha256))
                number += 1
        return found


def _in_place(
    said: list[Part | MediaError], media: dict[str, list[Part | Dropped]]
) -> Iterator[Part | Dropped | MediaError]:
    """The turns with each mark's medium in its place, and before them the media without a mark."""
    marks = Counter(one.kind for one in said if isinstance(one, Part))
    for kind in _MEDIA:
        for found in media[kind][marks[kind] :]:
            yield replace(found, role="user") if isinstance(found, Part) else found
    waiting = {kind: iter(media[kind]) for kind in _MEDIA}
    for one in said:
        if isinstance(one, MediaError) or one.kind == "text":
            yield one
            continue
        medium = next(waiting[one.kind], None)
        if medium is None:
            yield MediaError(MISSING, f"a mark <{one.kind}> without a medium")
        else:
            yield replace(medium, role=one.role) if isinstance(medium, Part) else medium


def _turn(turn: Any, uri: str) -> Iterator[Part | MediaError]:
    """The parts of one turn: texts, and a part without bytes for each mark."""
    if not isinstance(turn, dict):
        yield MediaError(CANNOT_DECODE, f"a turn that is a {type(turn).__name__}")
        return
    speaker = string_or_empty(turn.get("from")) or string_or_empty(turn.get("role"))
    said = turn.get("value", turn.get("content"))
    role = _ROLES.get(speaker.lower())
    if role is None or not isinstance(said, str):
        yield MediaError(CANNOT_DECODE, f"a turn of {speaker[:50]!r} with a {type(said).__name__}")
        return
    for place, piece in enumerate(_MARK.split(said)):
        if place % 2:
            yield Part(piece, uri=uri, role=role)
        elif piece.strip():
            yield Part("text", text=piece, uri=uri, role=role)


def _strings(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [one for one in values if isinstance(one, str)]
