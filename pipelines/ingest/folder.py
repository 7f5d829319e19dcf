"""The files under a source's root, and what is known of each: listing, globs, languages, a manifest of facts.

Nothing outside the root is ever listed: folders behind symbolic links are not entered, and a link that leads elsewhere
goes to the ledger.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
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
from pipelines.ingest.files import kind_of
from pipelines.ingest.media import MISSING
from pipelines.ingest.screen import NO_SCREEN, Screen, open_screen
from pipelines.ingest.source import CommonOptions

NO_SOURCE = "no source reads this format"
EXCLUDED = "excluded by the recipe"
OUTSIDE = "outside the folder"
UNREFERRED = "nothing refers to it"
NOT_COPIED = "not copied from the URL"

LEFT_BEHIND = ".left-behind.json"  # beside the root, where it is a copy of a URL's files: what was not copied, and why

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
    pattern: str = ""  # what the inputs' paths must fit, of a source whose path is a glob pattern
    facts: Mapping[str, Facts] = field(default_factory=dict)
    facts_digest: str = ""  # sha256 of the manifest: part of the settings
    screen: Screen = NO_SCREEN  # of documents, by the lists that the recipe names
    left_behind: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # path at the URL -> (reason, detail)
    copied_in_part: bool = False  # from a URL that names a file or a pattern: what lies beside those is not here

    @cached_property
    def _walk(self) -> tuple[tuple[str, ...], tuple[tuple[str, str, str], ...]]:
        """(all files under the root, sorted; ledger lines as (path, reason, detail) for what is not to be read)."""
        files: list[str] = []
        lost = [(path, reason, detail) for path, (reason, detail) in self.left_behind.items()]
        real = os.path.realpath(self.root).rstrip(os.sep) + os.sep
        waiting = [""]
        while waiting:
            below = waiting.pop()
            try:
                with os.scandir(os.path.join(self.root, below)) as listed:
                    entries = list(listed)
            except OSError as error:
                lost.append((below or ".", MISSING, error.strerror or "cannot be listed"))
                continue
            for entry in entries:
                relative = f"{below}/{entry.name}" if below else entry.name
                if entry.is_symlink():
                    if not os.path.realpath(entry.path).startswith(real):
                        lost.append((relative, OUTSIDE, "a symbolic link"))
                    elif os.path.isfile(entry.path):
                        files.append(relative)
                    elif not os.path.isdir(entry.path):
                        lost.append((relative, MISSING, "a symbolic link to nothing"))
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append(relative)
                elif entry.is_file(follow_symlinks=False):
                    files.append(relative)
                else:
                    lost.append((relative, OUTSIDE, "a pipe, a socket or a device"))
        return tuple(sorted(files)), tuple(sorted(lost))

    @cached_property
    def _own(self) -> tuple[tuple[str, ...], tuple[tuple[str, str, str], ...]]:
        """As `_walk`, of what the source's path names."""
        if self.only:
            return (self.only,), ()
        if not self.pattern:
            return self._walk
        fits = glob_regex(self.pattern)
        files, lost = self._walk
        own = tuple(path for path in files if fits.fullmatch(path))
        return own, tuple(line for line in lost if line[0] in self.left_behind or fits.fullmatch(line[0]))

    @cached_property
    def files(self) -> tuple[str, ...]:
        """Every file that the source's path names and the recipe does not exclude, sorted: what may be an input."""
        return tuple(filter(self._is_kept, self._own[0]))

    @cached_property
    def known(self) -> tuple[str, ...]:
        """Every file under the root that the recipe does not exclude, sorted: what inputs may refer to, and what may
        go with them, also beside a path that is a file or a glob pattern."""
        return tuple(sorted({*self.files, *filter(self._is_kept, self._walk[0])})) if self.is_narrow else self.files

    @cached_property
    def names(self) -> frozenset[str]:
        return frozenset(self.known)

    @property
    def is_narrow(self) -> bool:
        """Whether the source's path names less than all under the root."""
        return bool(self.only or self.pattern)

    @cached_property
    def referable(self) -> frozenset[str]:
        """The names whose coming or going has the inputs that refer to files read again. Beside a path that is a file
        or a pattern anything may lie, the build's own files too: there only media count."""
        return frozenset({*self.files, *filter(kind_of, self.known)}) if self.is_narrow else self.names

    def _is_kept(self, path: str) -> bool:
        include, exclude = self.options.include, self.options.exclude
        return (not include or matches(path, include)) and not matches(path, exclude) and path != self._manifest

    @cached_property
    def _manifest(self) -> str:
        """The manifest's own place under the root, if it lies there: it is read, so it is no leftover."""
        if not self.options.manifest:
            return ""
        return os.path.relpath(os.path.join(self.root, self.options.manifest), self.root).replace(os.sep, "/")

    def path(self, relative: str) -> Path:
        return self.root / relative

    def size(self, *files: str) -> int:
        """Bytes of files; none of one that is gone since it was listed, which reading it will say."""
        size = 0
        for file in files:
            with contextlib.suppress(OSError):
                size += self.path(file).stat().st_size
        return size

    def of_suffix(self, suffixes: Collection[str]) -> list[str]:
        """Files of the source's path whose name ends so (".txt"; case does not matter)."""
        return _ending(self.files, suffixes)

    def known_of_suffix(self, suffixes: Collection[str]) -> list[str]:
        """Files that end so and may go with an input."""
        return _ending(self.known, suffixes)

    def place(self, base: str, reference: str) -> str:
        """The path, from the root, that a reference in file `base` means, be there a file or not; "" where it means
        none. Above the root it begins with "..", which no listed file does."""
        reference = urllib.parse.unquote(reference.split("#")[0].split("?")[0])
        if not reference or "\0" in reference:
            return ""
        start = "" if reference.startswith("/") else os.path.dirname(base)
        return os.path.normpath(os.path.join(start, reference.lstrip("/"))).replace(os.sep, "/")

    def why_not(self, path: str) -> tuple[str, str]:
        """The ledger's reason, and the detail, for a file that is not among the names."""
        if path in self.left_behind:
            return self.left_behind[path]
        if path in self._walked:
            return EXCLUDED, uri_of(path[:200])
        if self.copied_in_part:
            return NOT_COPIED, f"{uri_of(path[:200])}: only what the path names is copied"
        return MISSING, f"{uri_of(path[:200])} is not in the folder"

    @cached_property
    def _walked(self) -> frozenset[str]:
        return frozenset(self._walk[0])

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
        lines = [Dropped(source, uri_of(path), "ingest", reason, detail) for path, reason, detail in self._own[1]]
        claimed = claimed if isinstance(claimed, frozenset | set) else set(claimed)
        for path in self._own[0]:
            if path in claimed or path == self._manifest:
                continue
            why = reason(path) if path in self.names else EXCLUDED
            lines.append(Dropped(source, uri_of(path), "ingest", why, PurePosixPath(path).suffix))
        return sorted(lines, key=lambda line: line.uri)

    def endings(self, most: int = 5) -> str:
        """ ".png 12, .txt 3": for messages."""
        counts = Counter(PurePosixPath(path).suffix or "no ending" for path in self._own[0])
        return ", ".join(f"{ending} {n}" for ending, n in counts.most_common(most))


def open_folder(source: str, path: Path, options: CommonOptions) -> Folder:
    """The folder (or single file) of a source with its manifest of facts read. Raises UserError where there is none."""
    path, pattern = split_glob(path)
    if not path.exists():
        raise UserError(f"source {source!r}: there is no folder {path}. Correct its path in the recipe.")
    root, only = (path.parent, path.name) if path.is_file() else (path, "")
    only = only if not pattern else ""
    screen = open_screen(source, root, options.licences, options.opt_out)
    left_behind, in_part = _read_left_behind(root)
    if not options.manifest:
        return Folder(root, options, only, pattern, {}, "", screen, left_behind, in_part)
    manifest = root / options.manifest
    try:
        data = manifest.read_bytes()
        facts = read_facts(manifest, root / options.manifest_root if options.manifest_root else manifest.parent, root)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"source {source!r}: cannot read the manifest {manifest}: {error}.") from None
    digest = hashlib.sha256(data).hexdigest()
    return Folder(root, options, only, pattern, facts, digest, screen, left_behind, in_part)


def _read_left_behind(root: Path) -> tuple[dict[str, tuple[str, str]], bool]:
    """What `fetched` says of a root that is its copy; nothing of other folders."""
    try:
        words = json.loads((root.parent / LEFT_BEHIND).read_text("ascii"))
    except (OSError, ValueError):
        return {}, False
    return {path: (reason, detail) for path, (reason, detail) in words["files"].items()}, words["in_part"]


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


def _ending(files: Iterable[str], suffixes: Collection[str]) -> list[str]:
    ends = tuple(suffixes)
    return [file for file in files if file.lower().endswith(ends)]


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
