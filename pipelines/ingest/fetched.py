"""Sources behind a URL: the files that its path names, copied into the user's cache before a build reads them.

The whole source is copied, by the process that starts the build: workers on other machines need the cache on a disk
that they share (MMDATA_CACHE). A file is copied again where the store's size or stamp for it has changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

from mmdata.commit import temporary, write_bytes
from mmdata.errors import UserError
from mmdata.plan import user_cache
from mmdata.remote import Store
from pipelines.ingest.folder import glob_regex

_INDEX = ".fetched.json"


def fetched(source: str, url: str, cache: Path | None = None) -> Path:
    """The path that stands for `url` on this machine: a folder, a file, or a glob pattern in a folder.

    Raises UserError where there is nothing, or a name that leads out of the folder; RunError where it cannot be read.
    """
    base, pattern = split_url(url)
    store = Store(base)
    try:
        listed = store.find()
    except FileNotFoundError:
        listed = {}
    if pattern:
        fits = glob_regex(pattern)
        listed = {name: stamp for name, stamp in listed.items() if fits.fullmatch(name)}
    if not listed:
        raise UserError(f"source {source!r}: there is nothing at {url}. Correct its path in the recipe.")
    if whole := listed.pop("", None):  # the URL of one file
        base, _, name = base.rpartition("/")
        store, listed, pattern = Store(base), {name: whole}, name
    folder = (cache or user_cache()) / "sources" / hashlib.sha256(url.encode()).hexdigest()[:32]
    _copy(source, store, listed, folder / "files", folder / _INDEX)
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


def _copy(source: str, store: Store, listed: dict[str, tuple[int, str]], files: Path, index: Path) -> None:
    """Bring the folder to what is listed: new and changed files come, others that are there go."""
    for name in listed:
        if name.startswith("/") or not {"", ".", ".."}.isdisjoint(name.split("/")):
            raise UserError(
                f"source {source!r}: the name {name[:200]!r} at {store} leads out of its folder."
                " Name the files to read by a glob pattern that leaves it out."
            )
    have = _read_index(index)
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
            store.download(name, part)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
        have[name] = list(stamp)
        write_bytes(index, json.dumps(have).encode())
    write_bytes(index, json.dumps({name: list(stamp) for name, stamp in listed.items()}).encode())


def _read_index(index: Path) -> dict[str, list[object]]:
    try:
        return json.loads(index.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
