"""A run file over the toy dataset, and the `mmdata` command in this process."""

import sys
from pathlib import Path

import pytest

from pipelines import cli
from tests.mmdata.toy_data import write_toy_dataset

STEPS = 30
RUN = f"""
data = "data"
seq_len = 128
batch_size = 4
steps = {STEPS}
limits = {{images = 2}}
[[stage]]
weights = {{web = 0.7, speech = 0.3}}
[[stage]]
from_step = 15
batch_size = 8
weights = {{web = 0.5, speech = 0.5}}
max_epochs = {{speech = 5}}
"""


def write_run(folder: Path) -> Path:
    """`folder`/data, and the run file over it."""
    write_toy_dataset(folder / "data")
    (folder / "toy.toml").write_text(RUN)
    return folder / "toy.toml"


def say(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: object) -> tuple[int, str, str]:
    """`mmdata WORDS`: (exit code, stdout, stderr)."""
    monkeypatch.setattr(sys, "argv", ["mmdata", *map(str, words)])
    capfd.readouterr()
    with pytest.raises(SystemExit) as left:
        cli.main()
    return int(left.value.code or 0), *capfd.readouterr()
