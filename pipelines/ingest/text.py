"""Plain text, man pages, source code, translation files: a file is one document, or one a record.

Man pages (`ls.1.gz`) become text through `roff.to_text`, or stay source where the recipe says so. Text is kept as it
is, white space included; only line ends become "\\n".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from pipelines.ingest.document import Document, Dropped, Part
from pipelines.ingest.files import read_text
from pipelines.ingest.folder import Folder, settings_of, uri_of
from pipelines.ingest.media import EMPTY, Limits, MediaError
from pipelines.ingest.roff import to_text
from pipelines.ingest.source import CommonOptions, Input

_PLAIN = (
    ".txt", ".text", ".md", ".rst", ".tex", ".org", ".adoc", ".po", ".pot", ".csv", ".tsv", ".log", ".srt",
    ".vtt",
)  # fmt: skip
_CODE = (
    ".py", ".pyi", ".c", ".h", ".cc", ".cpp", ".hpp", ".cs", ".go", ".rs", ".java", ".kt", ".scala", ".js", ".ts",
    ".jsx", ".tsx", ".lua", ".rb", ".pl", ".pm", ".php", ".sh", ".bash", ".zsh", ".sql", ".r", ".jl", ".m",
    ".swift", ".hs", ".ml", ".el", ".lisp", ".clj", ".erl", ".ex", ".css", ".scss", ".xml", ".toml", ".yaml",
    ".yml", ".ini", ".cfg", ".cmake", ".mk",
)  # fmt: skip
_MAN = re.compile(r"\.[1-9](x|p|pm|ssl|posix)?(\.gz)?$")


class TextOptions(CommonOptions):
    """The keys of a `format = "text"` source. `include = ["*"]` reads files of any name as text."""

    encoding: str = Field("", description="of all files; empty: UTF-8, or what a byte order mark says")
    separator: str = Field("", description='a line that parts a file into records, as "%" in fortune files')
    man: Literal["text", "source"] = Field("text", description="man pages as readable text, or as their roff source")


@dataclass(frozen=True)
class TextSource:
    """See the module docstring."""

    name: str
    folder: Folder
    limits: Limits
    Options: ClassVar = TextOptions

    @property
    def root(self) -> Path:
        return self.folder.root

    def settings(self) -> dict[str, Any]:
        return settings_of("text", self.folder)

    def inputs(self) -> list[Input]:
        return [Input(path, (path,), self.folder.size(path)) for path in self.folder.files if self._reads(path)]

    def read(self, input: Input) -> Iterator[Document | Dropped]:
        options = self._options
        try:
            text = read_text(self.folder.path(input.path), self.limits, options.encoding)
        except MediaError as error:
            yield Dropped(self.name, uri_of(input.path), "ingest", error.reason, error.detail)
            return
        if _MAN.search(input.path) and options.man == "text":
            text = to_text(text)
        if options.separator:
            yield from self._records(input.path, text, options.separator)
        elif text.strip():
            part = Part("text", text=text, uri=uri_of(input.path))
            yield self.folder.document(self.name, input.path, [part])
        else:
            yield Dropped(self.name, uri_of(input.path), "ingest", EMPTY, "only white space")

    def leftovers(self) -> list[Dropped]:
        return self.folder.leftovers(self.name, {input.path for input in self.inputs()})

    @property
    def _options(self) -> TextOptions:
        assert isinstance(self.folder.options, TextOptions)
        return self.folder.options

    def _reads(self, path: str) -> bool:
        name = path.lower()
        plain = name.removesuffix(".gz")
        return bool(self._options.include) or plain.endswith((*_PLAIN, *_CODE)) or bool(_MAN.search(name))

    def _records(self, path: str, text: str, separator: str) -> Iterator[Document | Dropped]:
        seen: Counter[str] = Counter()
        records = [r.strip("\n") for r in re.split(rf"(?m)^{re.escape(separator)}[ \t]*(?:\n|\Z)", text)]
        if not any(record.strip() for record in records):
            yield Dropped(self.name, uri_of(path), "ingest", EMPTY, "no record in the file")
        for number, record in enumerate(records):
            if not record.strip():
                continue
            fragment = str(number)
            part = Part("text", text=record, uri=uri_of(path, fragment))
            # The record itself is its key, so that one inserted above it changes no id.
            yield self.folder.document(self.name, path, [part], key=record, occurrence=seen[record], fragment=fragment)
            seen[record] += 1
