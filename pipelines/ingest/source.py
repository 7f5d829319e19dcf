"""The Source protocol: how a format of raw files becomes documents (one file a format beside this one).

Contract:
* `inputs()` lists what can be read, sorted, without reading contents: a build cuts the list into work units.
* `read(input)` yields the input's documents and a `Dropped` for each record or part that cannot be one. It depends
  on nothing but the input's files and the options, so any worker gives the same. It raises only for our own bugs, and
  MemoryError: the build then takes one input, or record, at a time.
* A reader of files that hold many records calls `input.step(name)` before it parses one; the name is that of no other
  record of the input. Where that record has killed or hung a worker, `step` raises MediaError, and the reader's ledger
  line says why: so a record costs itself, not its file. (`step(input.path)` says no more than that the reader lives.)
* `leftovers()` has a line for each file under the root which no input reads and no document refers to.
* So every file under the root is in a document, a part, or a `Dropped`.
* Media are not decoded here; a part carries its path or its bytes.
* A class whose documents name files that are not in `Input.files` says `follows = True`: it is read again when files
  come or go, and its `leftovers(shown)` is told which files documents show, so that nothing is read for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from pipelines.ingest.document import Document, Dropped


def _read_all(name: str) -> None:
    """The step of a reader which nobody watches."""


@dataclass(frozen=True)
class Input:
    """One thing to read: its main file, and all files known beforehand to belong to it (the main one first). It may be
    a range of the main file: what begins at or after byte `begin` and before byte `end` (None: to the end)."""

    path: str  # relative to the source's root, with "/"; of a range but the first, with its number
    files: tuple[str, ...] = ()
    size: int = 0  # bytes of all of them: the work to expect
    begin: int = 0
    end: int | None = None
    step: Callable[[str], None] = field(default=_read_all, compare=False, repr=False)


class Source(Protocol):
    """A named folder (or one file) of one format. See the module docstring for the contract."""

    name: str

    @property
    def root(self) -> Path: ...
    def settings(self) -> dict[str, Any]: ...  # what decides this source's documents, and no path of a machine
    def inputs(self) -> list[Input]: ...
    def read(self, input: Input) -> Iterator[Document | Dropped]: ...
    def leftovers(self) -> list[Dropped]: ...


class CommonOptions(BaseModel):
    """What every format understands in its [[source]] table. Never built itself: each format has its own model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    language: str = Field("", description="BCP 47 language of all documents, where nothing below says another")
    language_from_folder: bool = Field(False, description="the first folder under the path names the language")
    licence: str = Field("", description="licence of all documents (SPDX where there is one)")
    include: tuple[str, ...] = Field((), description="globs of the files to read; empty: all that the format reads")
    exclude: tuple[str, ...] = Field((), description="globs of files to leave out")
    licences: str = Field(
        "", description="a file with a glob of a licence to keep on each line (* too); documents of others are left out"
    )
    opt_out: str = Field(
        "",
        description="a file with a host, an address (what begins so), a uri (and what lies in it) or the sha256 of a"
        " medium on each line: those documents, or those media, are left out; copies in a mirror by their address too",
    )
    manifest: str = Field(
        "", description="a TSV or CSV file with a header (path, and any of language, caption, licence), from the path"
    )
    manifest_root: str = Field("", description="the folder its paths start from; empty: where the manifest lies")
