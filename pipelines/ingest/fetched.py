"""Sources behind a URL: the files that its path names, copied into the user's cache before a build reads them.

What the source's path names is copied, by the process that starts the build: workers on other machines need the cache
on a disk that they share (MMDATA_CACHE). A file is copied again where the store's size or stamp for it has changed.

Not copied are files that `include` and `exclude` leave out, and those over `max_bytes`: ledger lines both. Of a glob
pattern the files that fit come, the lists that the recipe names (manifest, licences, ...), and in formats that put
files together by name those with the name of one that fits. What pages and records refer to is not known before they
are read, so it must fit too: a reference to anything else is a ledger line ("not copied from the URL"). To have it,
name the folder as the path, and with `include` what is wanted of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mmdata.commit import temporary, write_bytes
from mmdata.errors import UserError
from mmdata.plan import user_cache
from mmdata.remote import Store, TooLong
from pipelines.ingest.files import stem
from pipelines.ingest.folder import EXCLUDED, LEFT_BEHIND, glob_regex, matches
from pipelines.ingest.media import MISSING, OVER_LIMIT, Limits
from pipelines.ingest.source import CommonOptions
from pipelines.ingest.transcripts import is_transcripts

_INDEX = ".fetched.json"
_BY_NAME = ("captions", "speech", "video")  # formats that put files together by their names

_Left = dict[str, tuple[str, str]]  # name -> (the ledger's reason, detail)


@dataclass(frozen=True)
class Wanted:
    """What is copied of the files that a path names."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    lists: frozenset[str] = frozenset()  # files that the recipe names, whatever include and exclude say
    by_name: bool = False  # also what goes by its name with a file that fits a pattern
    max_bytes: int = Limits.max_bytes

    @classmethod
    def of(cls, format: str, options: CommonOptions, limits: Limits) -> Wanted:
        keys = ("manifest", "licences", "opt_out", "transcripts")
        named = filter(None, (getattr(options, key, "") for key in keys))
        lists = frozenset(posixpath.normpath(name) for name in named)
        return cls(options.include, options.exclude, lists, format in _BY_NAME, limits.max_bytes)

    def why_not(self, name: str, size: int) -> tuple[str, str] | None:
        """The ledger's reason and detail for a file that is not copied."""
        if name not in self.lists and (
            (self.include and not matches(name, self.include)) or matches(name, self.exclude)
        ):
            return EXCLUDED, PurePosixPath(name).suffix
        if size > self.max_bytes:
            return OVER_LIMIT, f"{size:,} bytes, the limit max_bytes is {self.max_bytes:,}"
        return None

    def key(self, url: str) -> str:
        """Of the cache: sources that want other files of one URL have folders of their own."""
        words = [self.include, self.exclude, sorted(self.lists), self.by_name]
        return hashlib.sha256((json.dumps([url, *words]) if any(words) else url).encode()).hexdigest()[:32]


def fetched(source: str, url: str, cache: Path | None = None, wanted: Wanted = Wanted()) -> Path:
    """The path that stands for `url` on this machine: a folder, a file, or a glob pattern in a folder. What was not
    copied is noted beside the folder, where `open_folder` finds it.

    Raises UserError where there is nothing, nothing that may be copied, or a name that leads out of the folder;
    RunError where it cannot be read.
    """
    base, pattern = split_url(url)
    store = Store(base)
    try:
        listed = store.find()
    except FileNotFoundError:
        listed = {}
    if pattern:
        own = set(filter(glob_regex(pattern).fullmatch, listed))
        own |= _beside(own, listed, wanted) if own else set()
        listed = {name: stamp for name, stamp in listed.items() if name in own}
    if not listed:
        raise UserError(f"source {source!r}: there is nothing at {url}. Correct its path in the recipe.")
    if whole := listed.pop("", None):  # the URL of one file
        base, _, name = base.rpartition("/")
        store, listed, pattern = Store(base), {name: whole}, name
    left: _Left = {}
    for name, (size, _) in listed.items():
        if found := wanted.why_not(name, size):
            left[name] = found
    count, listed = len(listed), {name: stamp for name, stamp in listed.items() if name not in left}
    folder = (cache or user_cache()) / "sources" / wanted.key(url)
    left |= _copy(source, store, listed, folder / "files", folder / _INDEX, wanted.max_bytes)
    if len(left) == count:
        name, (reason, detail) = min(left.items())
        raise UserError(
            f"source {source!r}: nothing of {url} may be copied ({name[:200]!r}: {reason}, {detail}). Correct its path,"
            " its include and exclude, or max_bytes in [limits]."
        )
    write_bytes(folder / LEFT_BEHIND, json.dumps({"files": left, "in_part": bool(pattern)}).encode())
    return folder / "files" / pattern


def split_url(url: str) -> tuple[str, str]:
    """(the URL that a glob pattern begins at, the pattern from there).

    >>> split_url("s3://b/web/2024-*/**/*.html"), split_url("s3://b/web")
    (('s3://b/web', '2024-*/**/*.html'), ('s3://b/web', ''))
    """
    scheme, _, rest = url.partition("://")
    steps = rest.split("/")
    first = next((i for i, step in enumerate(steps) if re.search(r"[*?\[]", step)), len(steps))
    return f"{scheme}://{'/'.join(steps[:first])}", "/".join(steps[first:])


def _beside(own: Collection[str], listed: Iterable[str], wanted: Wanted) -> set[str]:
    """What comes with the files that fit a pattern: the recipe's lists, and what goes with them by name."""
    stems = {stem(name) for name in own} if wanted.by_name else set()
    folders = {posixpath.dirname(name) for name in own} if wanted.by_name else set()

    def goes_with(name: str) -> bool:
        folder, base = posixpath.split(name)
        ends = (found.start() for found in re.finditer("[._]", base))
        return folder in folders and (
            is_transcripts(name) or any(posixpath.join(folder, base[:end]) in stems for end in ends)
        )

    return {name for name in listed if name in wanted.lists or (stems and goes_with(name))}


def _copy(
    source: str, store: Store, listed: dict[str, tuple[int, str]], files: Path, index: Path, max_bytes: int
) -> _Left:
    """Bring the folder to what is listed: new and changed files come, others that are there go. Returns what could not
    be copied."""
    for name in listed:
        if name.startswith("/") or not {"", ".", ".."}.isdisjoint(name.split("/")):
            raise UserError(
                f"source {source!r}: the name {name[:200]!r} at {store} leads out of its folder."
                " Name the files to read by a glob pattern that leaves it out."
            )
    have, left = _read_index(index), _Left()
    files.mkdir(parents=True, exist_ok=True)
    for path in sorted(files.rglob("*")):
        if path.is_file() and path.relative_to(files).as_posix() not in listed:
            path.unlink()
    for name, stamp in listed.items():
        path = files / name
        if have.get(name) == list(stamp) and path.is_file() and path.stat().st_size == stamp[0]:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        part = temporary(path)
        try:
            store.download(name, part, most=max_bytes)
            os.replace(part, path)
        except TooLong as error:
            left[name] = OVER_LIMIT, f"{error} (max_bytes)"
            continue
        except FileNotFoundError:
            left[name] = MISSING, "gone from the URL since it was listed"
            continue
        finally:
            part.unlink(missing_ok=True)
        have[name] = list(stamp)
        write_bytes(index, json.dumps(have).encode())
    for name in left:  # of an earlier build
        (files / name).unlink(missing_ok=True)
    write_bytes(index, json.dumps({name: list(stamp) for name, stamp in listed.items() if name not in left}).encode())
    return left


def _read_index(index: Path) -> dict[str, list[object]]:
    try:
        return json.loads(index.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
