"""The files under a source's root, and what is known of each: listing, globs, languages, a manifest of facts.

Nothing outside the root is ever listed: folders behind symbolic links are not entered, and a link that leads elsewhere
goes to the ledger.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
import urllib.parse
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path, PurePosixPath

from mmdata.errors import UserError
from pipelines.ingest.document import Document, Dropped, Part, document_id
from pipelines.ingest.media import MISSING
from pipelines.ingest.screen import NO_SCREEN, Screen, open_screen
from pipelines.ingest.source import CommonOptions

NO_SOURCE = "no source reads this format"
EXCLUDED = "excluded by the recipe"
OUTSIDE = "outside the folder"
UNREFERRED = "nothing refers to it"

_LANGUAGE = re.compile(r"[A-Za-z]{2,3}([-_@][A-Za-z0-9]{2,8})*")


@dataclass(frozen=True)
class Facts:
    """What a manifest says of one file."""

    language: str = ""
    licence: str = ""
    caption: str = ""


@dataclass(frozen=True)
class Folder:
    """A source's root. Paths are relative to it, with "/", and may hold surrogates (names that are not UTF-8)."""

    root: Path
    options: CommonOptions
    only: str = ""  # the one file of a source whose path is a file
    pattern: str = ""  # what the files' paths must fit, of a source whose path is a glob pattern
    facts: Mapping[str, Facts] = field(default_factory=dict)
    facts_digest: str = ""  # sha256 of the manifest: part of the settings
    screen: Screen = NO_SCREEN  # of documents, by the lists that the recipe names

    @cached_property
    def _walk(self) -> tuple[tuple[str, ...], tuple[tuple[str, str, str], ...]]:
        """(all files sorted, ledger lines as (path, reason, detail) for what cannot be entered or read)."""
        if self.only:
            return (self.only,), ()
        files: list[str] = []
        lost: list[tuple[str, str, str]] = []
        real = os.path.realpath(self.root)

        def unreadable(error: OSError) -> None:
            lost.append((os.path.relpath(error.filename, self.root), MISSING, error.strerror or "cannot be listed"))

        for folder, folders, names in os.walk(self.root, onerror=unreadable, followlinks=False):
            below = os.path.relpath(folder, self.root)
            for name in (*names, *folders):
                path = os.path.join(folder, name)
                relative = PurePosixPath(below, name).as_posix() if below != "." else name
                if os.path.islink(path) and not os.path.realpath(path).startswith(real + os.sep):
                    lost.append((relative, OUTSIDE, "a symbolic link"))
                elif os.path.isfile(path):
                    files.append(relative)
                elif os.path.islink(path) and not os.path.isdir(path):
                    lost.append((relative, MISSING, "a symbolic link to nothing"))
                elif not os.path.isdir(path):
                    lost.append((relative, OUTSIDE, "a pipe, a socket or a device"))
        if self.pattern:
            fits = glob_regex(self.pattern)
            files = [path for path in files if fits.fullmatch(path)]
            lost = [line for line in lost if fits.fullmatch(line[0])]
        return tuple(sorted(files)), tuple(sorted(lost))

    @cached_property
    def files(self) -> tuple[str, ...]:
        """Every file under the root that the recipe does not exclude, sorted."""
        include, exclude = self.options.include, self.options.exclude
        return tuple(
            path
            for path in self._walk[0]
            if (not include or matches(path, include)) and not matches(path, exclude) and path != self._manifest
        )

    @cached_property
    def names(self) -> frozenset[str]:
        return frozenset(self.files)

    @cached_property
    def _manifest(self) -> str:
        """The manifest's own place under the root, if it lies there: it is read, so it is no leftover."""
        if not self.options.manifest:
            return ""
        return os.path.relpath(os.path.join(self.root, self.options.manifest), self.root).replace(os.sep, "/")

    def path(self, relative: str) -> Path:
        return self.root / relative

    def size(self, *files: str) -> int:
        return sum(self.path(file).stat().st_size for file in files)

    def of_suffix(self, suffixes: Collection[str]) -> list[str]:
        """Files whose name ends so (".txt"; case does not matter); all files where the recipe says what to include."""
        ends = tuple(suffixes)
        return [file for file in self.files if file.lower().endswith(ends)]

    def resolve(self, base: str, reference: str) -> str | None:
        """The listed file that a reference in file `base` means, or None: never one outside the root."""
        reference = urllib.parse.unquote(reference.split("#")[0].split("?")[0])
        if not reference or "\0" in reference:
            return None
        start = "" if reference.startswith("/") else os.path.dirname(base)
        relative = os.path.normpath(os.path.join(start, reference.lstrip("/"))).replace(os.sep, "/")
        return relative if relative in self.names else None

    def fact(self, path: str) -> Facts:
        """Language, licence and caption of a file: the manifest first, then the folder's name, then the options."""
        known = self.facts.get(path, Facts())
        language = known.language
        if not language and self.options.language_from_folder and "/" in path:
            language = language_tag(path.split("/")[0])
        return Facts(language or self.options.language, known.licence or self.options.licence, known.caption)

    def document(
        self,
        source: str,
        path: str,
        parts: Iterable[Part],
        *,
        key: str = "",
        occurrence: int = 0,
        fragment: str = "",
        language: str = "",
        licence: str = "",
        created: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> Document:
        """A document of file `path` (and record `key` in it), with what is known of the file."""
        fact = self.fact(path)
        return Document(
            id=document_id(source, path, key, occurrence),
            source=source,
            parts=tuple(parts),
            uri=uri_of(path, fragment),
            language=language or fact.language,
            licence=licence or fact.licence,
            created=created,
            metadata=dict(metadata or {}),
        )

    def leftovers(
        self, source: str, claimed: Collection[str], reason: Callable[[str], str] = lambda path: NO_SOURCE
    ) -> list[Dropped]:
        """A line for each file under the root that is not among the claimed."""
        lines = [Dropped(source, uri_of(path), "ingest", reason, detail) for path, reason, detail in self._walk[1]]
        claimed = claimed if isinstance(claimed, frozenset | set) else set(claimed)
        for path in self._walk[0]:
            if path in claimed or path == self._manifest:
                continue
            why = reason(path) if path in self.names else EXCLUDED
            lines.append(Dropped(source, uri_of(path), "ingest", why, PurePosixPath(path).suffix))
        return sorted(lines, key=lambda line: line.uri)

    def endings(self, most: int = 5) -> str:
        """ ".png 12, .txt 3": for messages."""
        counts = Counter(PurePosixPath(path).suffix or "no ending" for path in self._walk[0])
        return ", ".join(f"{ending} {n}" for ending, n in counts.most_common(most))


def open_folder(source: str, path: Path, options: CommonOptions) -> Folder:
    """The folder (or single file) of a source with its manifest of facts read. Raises UserError where there is none."""
    path, pattern = split_glob(path)
    if not path.exists():
        raise UserError(f"source {source!r}: there is no folder {path}. Correct its path in the recipe.")
    root, only = (path.parent, path.name) if path.is_file() else (path, "")
    only = only if not pattern else ""
    screen = open_screen(source, root, options.licences, options.opt_out)
    if not options.manifest:
        return Folder(root, options, only, pattern, screen=screen)
    manifest = root / options.manifest
    try:
        data = manifest.read_bytes()
        facts = read_facts(manifest, root / options.manifest_root if options.manifest_root else manifest.parent, root)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"source {source!r}: cannot read the manifest {manifest}: {error}.") from None
    return Folder(root, options, only, pattern, facts, hashlib.sha256(data).hexdigest(), screen)


def read_facts(manifest: Path, base: Path, root: Path) -> dict[str, Facts]:
    """The rows of a TSV or CSV manifest whose paths (relative to `base`) lie under `root`, by their path from there."""
    lead = os.path.relpath(root, base).replace(os.sep, "/")
    lead = "" if lead == "." else lead + "/"
    facts = {}
    with manifest.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE) if manifest.suffix == ".tsv" else None
        for row in rows if rows is not None else csv.DictReader(file):
            path = row.get("path") or ""
            if not path.startswith(lead):
                continue
            facts[path[len(lead) :]] = Facts(
                language=language_tag(row.get("language") or ""),
                licence=row.get("licence") or row.get("license") or "",
                caption=row.get("caption") or "",
            )
    return facts


def split_glob(path: Path) -> tuple[Path, str]:
    """(the folder that a glob pattern begins in, the pattern from there); ("" where the path is no pattern).

    >>> split_glob(Path("/data/2024-*/web/**/*.html"))
    (PosixPath('/data'), '2024-*/web/**/*.html')
    """
    if path.exists() or not re.search(r"[*?\[]", str(path)):
        return path, ""
    parts = path.parts
    first = next(i for i, part in enumerate(parts) if re.search(r"[*?\[]", part))
    return Path(*parts[:first]), "/".join(parts[first:])


def glob_regex(pattern: str) -> re.Pattern[str]:
    """As a shell reads it: * and ? stop at "/", ** does not. A pattern that fits a folder takes all that is in it."""
    pieces = []
    for step in re.findall(r"\*\*/?|\*|\?|\[[^\]/]+\]|.", pattern, re.DOTALL):
        if step.startswith("**"):
            pieces.append("(?:.*/)?" if step.endswith("/") else ".*")
        elif step.startswith("[") and len(step) > 1:
            pieces.append("[" + step[1:-1].replace("!", "^", 1).replace("\\", "\\\\") + "]")
        else:
            pieces.append({"*": "[^/]*", "?": "[^/]"}.get(step, re.escape(step)))
    try:
        return re.compile("".join(pieces) + "(?:/.*)?", re.DOTALL)
    except re.error as error:
        raise UserError(f"the glob pattern {pattern!r} cannot be read: {error}. Correct the path.") from None


def matches(path: str, globs: Iterable[str]) -> bool:
    """Whether a glob fits the whole relative path or the file's name."""
    name = path.rsplit("/", 1)[-1]
    return any(fnmatchcase(path, glob) or fnmatchcase(name, glob) for glob in globs)


def uri_of(path: str, fragment: str = "") -> str:
    """The path, and what names a record in it, as printable text: bytes of a name that are not UTF-8 become \\xNN."""
    return f"{_printable(path)}#{_printable(fragment)}" if fragment else _printable(path)


def _printable(name: str) -> str:
    try:
        clean = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a surrogate that stands for no byte, in a name that a record gives
        clean = name.encode("utf-8", "backslashreplace").decode("utf-8")
    return re.sub(r"[\x00-\x1f\x7f]", lambda control: f"\\x{ord(control[0]):02x}", clean)


def language_tag(word: str) -> str:
    """A BCP 47 tag out of the usual spellings, "" where the word is none.

    >>> [language_tag(w) for w in ("zh_TW", "sr@latin", "ca@valencia", "mul(47)", "code:python")]
    ['zh-TW', 'sr-Latn', 'ca-valencia', 'mul', '']
    """
    word = re.sub(r"^mul\(\d+\)$", "mul", word.strip())
    if not _LANGUAGE.fullmatch(word):
        return ""
    scripts = {"latin": "Latn", "cyrillic": "Cyrl", "devanagari": "Deva", "arabic": "Arab"}
    first, *rest = re.split("[-_@]", word)
    return "-".join([first.lower(), *(scripts.get(part.lower(), part) for part in rest)])


def settings_of(format: str, folder: Folder) -> dict[str, object]:
    """What decides a source's documents, for its fingerprint: the options, and the manifest by content, not place."""
    options = folder.options.model_dump(mode="json", exclude={"manifest", "manifest_root", "licences", "opt_out"})
    found = {"manifest_sha256": folder.facts_digest, "lists_sha256": folder.screen.digest}
    return {"format": format, **options, **found, **({"pattern": folder.pattern} if folder.pattern else {})}
