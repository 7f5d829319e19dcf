"""Temporary names: one process's own, the same whenever it asks, and no data to a reader."""

import os
import socket
from pathlib import Path

import pytest

from mmdata import commit
from mmdata.commit import TEMPORARY, temporary, write_bytes


def test_a_temporary_name_stays_the_same_within_a_process(tmp_path: Path) -> None:
    path = tmp_path / "plan.npz"
    assert temporary(path) == temporary(path) != temporary(tmp_path / "other")
    assert temporary(path).parent == tmp_path and temporary(path).name.startswith("plan.npz.")
    assert temporary(path).name.endswith(TEMPORARY)


def test_processes_with_one_pid_and_one_host_name_have_names_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "plan.npz"
    ours = temporary(path)
    commit._own_name.cache_clear()  # what another process begins with
    theirs = temporary(path)
    assert ours != theirs
    for name in (ours.name, theirs.name):
        assert f"{socket.gethostname()}-{os.getpid()}-" in name


def test_a_forked_child_has_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = temporary(tmp_path / "a")
    pid = os.getpid()
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: pid + 1)  # what a fork changes: it keeps all memory
        theirs = temporary(tmp_path / "a")
    assert ours != theirs and temporary(tmp_path / "a") == ours


def test_nothing_temporary_is_left_whether_the_write_ends_well_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bytes(tmp_path / "a", b"1")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    monkeypatch.setattr(Path, "write_bytes", lambda path, data: path.touch() or fail())
    with pytest.raises(RuntimeError):
        write_bytes(tmp_path / "b", b"2")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def fail() -> None:
    raise RuntimeError
