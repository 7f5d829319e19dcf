"""Pages as parallel lists of texts and images, in the forms of OBELICS and MMC4: JSON lines or lists, or Parquet.

OBELICS: `texts` and `images` of one length, a null where the other has something. MMC4: `text_list`, and `image_info`
with the text that each image goes before (`matched_text_index`). Images are references: files of the folder, remote
addresses found in a mirror, `data:` addresses; a sha256 beside them is checked. Losses are ledger lines by address.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from pipelines.ingest.address import kind_of_address
from pipelines.ingest.document import Document, Dropped, Part
from pipelines.ingest.files import has_surrogate
from pipelines.ingest.folder import Folder, language_tag, settings_of, uri_of
from pipelines.ingest.media import CANNOT_DECODE, EMPTY, Limits, MediaError, Meter, opened
from pipelines.ingest.parquet import table_rows
from pipelines.ingest.records import FILES, documents_of, json_records, record_digest, short_facts, string_or_empty
from pipelines.ingest.reference import References
from pipelines.ingest.rows import leftovers_of
from pipelines.ingest.source import CommonOptions, Input

_TABLES = (".parquet", ".pq", ".parq")


class InterleavedOptions(CommonOptions):
    """The keys of a `format = "interleaved"` source."""

    texts: str = Field("texts", description="field of the list of texts, with nulls where images stand")
    images: str = Field("images", description="field of the list of images: paths or addresses, with nulls")
    sha256: str = Field("sha256", description="field of a list of digests of the images, beside `images`")
    mirror: str = Field("", description="folder with copies of remote media, as `wget -x` writes them: HOST/PATH")
    id: str = Field("", description="field that names a record for good; empty: its content does")


@dataclass(frozen=True)
class InterleavedSource:
    """See the module docstring."""

    name: str
    folder: Folder
    limits: Limits
    Options: ClassVar = InterleavedOptions
    follows: ClassVar = True

    @property
    def root(self) -> Path:
        return self.folder.root

    def settings(self) -> dict[str, Any]:
        return settings_of("interleaved", self.folder)

    def inputs(self) -> list[Input]:
        return [Input(path, (path,), self.folder.size(path)) for path in self.folder.of_suffix((*FILES, *_TABLES))]

    def read(self, input: Input) -> Iterator[Document | Dropped]:
        path, seen = input.path, Counter[str]()
        return documents_of(
            self.name, input, self._records(path), lambda number, record: self._record(path, number, record, seen)
        )

    def leftovers(self, shown: Collection[str] | None = None) -> list[Dropped]:
        return leftovers_of(self, self.folder.of_suffix((*FILES, *_TABLES)), shown)

    @property
    def _options(self) -> InterleavedOptions:
        assert isinstance(self.folder.options, InterleavedOptions)
        return self.folder.options

    def _records(self, path: str) -> Iterator[Any]:
        if path.lower().endswith(_TABLES):
            with opened(self.folder.path(path), self.limits) as file:
                yield from (row for _, row in table_rows(file, self.limits))
        else:
            yield from json_records(self.folder.path(path), self.limits)

    def _record(self, path: str, number: str, record: Any, seen: Counter[str]) -> Iterator[Document | Dropped]:
        """The document of a record. Raises MediaError."""
        options, uri = self._options, uri_of(path, number)
        references = References(self.name, self.folder, self.limits, options.mirror)
        meter = Meter(self.limits.max_text_bytes, "in a record (max_bytes / 16)")
        parts = []
        for text, address, sha256 in _places(record, options):
            if text is not None:
                meter.add(len(text))
                parts += [Part("text", text=text, uri=uri)] if text.strip() else []
                continue
            found = references.part(path, address, kind_of_address(address), uri, sha256)
            if isinstance(found, Dropped):
                yield found
            else:
                meter.add(len(found.data or b""))
                parts.append(found)
        if not parts:
            raise MediaError(EMPTY, "no text and no image left")
        named = record.get(options.id) if options.id else None
        key = str(named) if named is not None else record_digest(record)
        facts = {**_inner(record.get("general_metadata")), **record}
        used = {options.texts, options.images, options.sha256, "language", "licence", "metadata", "general_metadata"}
        yield self.folder.document(
            self.name,
            path,
            parts,
            key=key,
            occurrence=seen[key],
            fragment=number,
            language=language_tag(string_or_empty(facts.get("language"))),
            licence=string_or_empty(facts.get("licence")),
            metadata=short_facts(facts, used),
        )
        seen[key] += 1


def _places(record: dict[str, Any], options: InterleavedOptions) -> Iterator[tuple[str | None, str, str]]:
    """(text or None, address of an image, its digest) in the order of the page. Raises MediaError.

    >>> list(_places({"texts": ["a", None], "images": [None, "b.png"]}, InterleavedOptions()))
    [('a', '', ''), (None, 'b.png', '')]
    """
    texts, images = record.get(options.texts), record.get(options.images)
    if isinstance(record.get("text_list"), list):
        yield from _mmc4(record)
        return
    if not isinstance(texts, list) or not isinstance(images, list):
        raise MediaError(EMPTY, f"no lists {options.texts!r} and {options.images!r}")
    if len(texts) != len(images):
        raise MediaError(CANNOT_DECODE, f"{len(texts)} texts beside {len(images)} images: the lists are not parallel")
    digests = record.get(options.sha256)
    digests = digests if isinstance(digests, list) and len(digests) == len(images) else [None] * len(images)
    for text, image, digest in zip(texts, images, digests):
        if isinstance(image, str):
            yield None, image, string_or_empty(digest)
        elif image is not None:
            raise MediaError(CANNOT_DECODE, f"an image that is a {type(image).__name__}")
        if isinstance(text, str):
            yield text, "", ""
        elif text is not None:
            raise MediaError(CANNOT_DECODE, f"a text that is a {type(text).__name__}")


def _mmc4(record: dict[str, Any]) -> Iterator[tuple[str | None, str, str]]:
    """Each image before the text it was matched with; images of one text in the order of the list."""
    infos = record.get("image_info")
    before: dict[int, list[dict[str, Any]]] = {}
    for info in infos if isinstance(infos, list) else ():
        if not isinstance(info, dict):
            raise MediaError(CANNOT_DECODE, f"an image that is a {type(info).__name__}")
        place = info.get("matched_text_index", 0)
        place = place if isinstance(place, int) and 0 <= place < len(record["text_list"]) else 0
        before.setdefault(place, []).append(info)
    for place, text in enumerate(record["text_list"]):
        for info in before.get(place, ()):
            address = string_or_empty(info.get("image_name")) or string_or_empty(info.get("raw_url"))
            yield None, address, string_or_empty(info.get("sha256"))
        if not isinstance(text, str):
            raise MediaError(CANNOT_DECODE, f"a text that is a {type(text).__name__}")
        yield text, "", ""


def _inner(value: Any) -> dict[str, Any]:
    """The facts that OBELICS keeps as JSON in a string; none where it is no JSON, or what is in it cannot be stored."""
    try:
        facts = json.loads(value) if isinstance(value, str) else None
        lone = has_surrogate(json.dumps(facts, ensure_ascii=False))
    except (ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) and not lone else {}
