"""The two errors a command turns into one line: wrong input (exit code 2) and a run that failed (exit code 1)."""

from __future__ import annotations


class UserError(ValueError):
    """Wrong usage or configuration: the message says what, which and the fix. Exit code 2."""


class RunError(RuntimeError):
    """A run that could not go on: a full disk, a failed unit. Exit code 1."""
