"""The two errors a command turns into one line: wrong input (exit code 2) and a run that failed (exit code 1)."""

from __future__ import annotations


class UserError(ValueError):
    """Wrong usage or configuration: the message says what, which and the fix. Exit code 2."""


class RunError(RuntimeError):
    """A run that could not go on: a full disk, a failed unit. Exit code 1."""


class DamagedRecord(RunError):
    """A record, or a whole shard, whose bytes are not those that were written."""

    def __init__(self, shard: str, record: int | None, why: str) -> None:
        self.shard, self.record, self.why = shard, record, why  # file name; number in the shard, None: all of it
        super().__init__(f"{shard}: {f'record {record}' if record is not None else 'the shard'} cannot be read ({why})")

    def __reduce__(self) -> tuple[object, ...]:
        return DamagedRecord, (self.shard, self.record, self.why)
