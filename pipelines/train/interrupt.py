"""Ctrl-C between steps: a run that is stopped has whole checkpoints and says one line.

Python raises KeyboardInterrupt wherever it stands. In the middle of a save that is inside Orbax, which tells a page of
it; in a callback it is printed and lost. So the first Ctrl-C is noted, and the loop asks; a second one is Python's own.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Interrupts:
    """While open, `check()` raises the KeyboardInterrupt that was asked for. Does nothing outside the main thread."""

    def __init__(self) -> None:
        self._asked = False
        self._before: Any = None

    def check(self) -> None:
        """Call where stopping is safe."""
        if self._asked:
            raise KeyboardInterrupt

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._heard)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
