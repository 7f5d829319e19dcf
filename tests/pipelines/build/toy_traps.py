"""A parser that meets its end at some records: sources of every format, opened so by workers too."""

from __future__ import annotations

import functools
import os
import signal
import time
from pathlib import Path
from typing import Any

from pipelines.ingest.document import Part
from pipelines.ingest.media import Limits
from pipelines.ingest.source import Source
from pipelines.ingest.sources import open_source

KILLS, HANGS = "this kills whoever reads it", "and this holds them for ever"


def trapped(make: Any) -> Any:
    """`Part.__init__`, which every reader calls for the words that it has found."""

    @functools.wraps(make)
    def init(self: Part, kind: str, text: str | None = None, *rest: Any, **facts: Any) -> None:
        if text is not None and KILLS in text:
            os.kill(os.getpid(), signal.SIGKILL)
        if text is not None and HANGS in text:
            time.sleep(1000)
        make(self, kind, text, *rest, **facts)

    return init


def open_trapped(name: str, format: str, path: Path, options: dict[str, Any], limits: Limits) -> Source:
    if not hasattr(Part.__init__, "__wrapped__"):
        Part.__init__ = trapped(Part.__init__)  # type: ignore[method-assign]
    return open_source(name, format, path, options, limits)
