"""Whether a build may write into a folder: a new or empty one, or the folder of the same recipe."""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from mmdata.errors import RunError, UserError
from pipelines.build.units import lock, sweep, write_json

WORK = ".work"
_KNOWN = "recipe.json"


def claim(out: Path, settings: dict[str, dict[str, Any]]) -> IO[str]:
    """Take `out` for the sources with these settings; returns the lock to `release`. Raises as `check_place` does."""
    check_place(out, settings)
    held = lock(out / WORK)
    try:
        sweep(out)
        write_json(out / WORK / _KNOWN, settings)
    except BaseException:
        held.close()
        raise
    return held


def check_place(out: Path, settings: dict[str, dict[str, Any]]) -> None:
    """UserError where `out` is no folder, holds other files, or was built from a recipe whose sources were set
    otherwise.

    New sources may join those that are there; codecs, rules and what is said of duplicates may change. A build that
    has finished no source yet may go on with any other recipe: units which it still fits are not run again.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; give --out a folder")
    known = out / WORK / _KNOWN
    there = sorted(p.name for p in out.iterdir()) if out.is_dir() else []
    if (out / WORK).is_dir() and known.exists():
        if any(out.glob("manifest.json")) or any(out.glob("*/manifest.json")):
            _compare(out, json.loads(known.read_text("ascii")), settings)
    elif "manifest.json" in there:
        raise UserError(f"{out} holds another dataset; choose an empty or new folder for --out")
    elif [name for name in there if name != WORK]:
        names = ", ".join([n for n in there if n != WORK][:3])
        raise UserError(f"{out} holds other files ({names}); choose an empty or new folder for --out")


def release(held: IO[str] | None) -> None:
    """Let other builds have the folder."""
    if held is not None:
        held.close()


@contextlib.contextmanager
def resumable(out: Path) -> Iterator[None]:
    """Ctrl-C and a full disk as one line: the same command goes on from what is done."""
    try:
        yield
    except KeyboardInterrupt:
        raise RunError("interrupted; the same command again goes on from here") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise RunError(f"no space left to write {out}; free some, then run the same command again") from None
        raise


# These may change: the shards are then written anew, out of the units that still fit.
_MAY_CHANGE = ("recipe.codecs", "recipe.dedup", "recipe.decontaminate", "curate")


def _compare(out: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    for name in old:
        if name not in new:
            change = f"its source {name!r} is not in this recipe"
        else:
            change = _first_change(old[name], json.loads(json.dumps(new[name])), "")
        if change:
            raise UserError(
                f"{out} holds the dataset of another recipe ({change});"
                " choose another folder for --out, or delete this one to build it anew"
            )


def _first_change(old: Any, new: Any, key: str) -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        for word in sorted(w for w in {*old, *new} if not w.endswith("_sha256")):  # an input's content may change
            name = f"{key}.{word}" if key else word
            found = "" if name in _MAY_CHANGE else _first_change(old.get(word), new.get(word), name)
            if found:
                return found
        return ""
    return "" if old == new else f"{key} was {old!r}, is {new!r}"
