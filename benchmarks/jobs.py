"""A job of a benchmark in a process of its own, so that neither memory nor threads of one system meet another's."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


class JobError(Exception):
    """What the process said last."""


def ask(file: str, job: dict[str, Any]) -> dict[str, Any]:
    """The answer of `python benchmarks/FILE JOB`; JobError where there is none."""
    command = [sys.executable, str(HERE / file), json.dumps(job)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=1_800)
    except subprocess.TimeoutExpired:
        raise JobError("no answer in 30 minutes") from None
    if done.returncode or not done.stdout.strip():
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise JobError(f"exit {done.returncode}: {lines[-1][:300] if lines else 'no word'}")
    return json.loads(done.stdout.splitlines()[-1])


def answer(run: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """The other side of `ask`: the job out of the arguments; what is printed meanwhile goes to stderr."""
    out, sys.stdout = sys.stdout, sys.stderr
    print(json.dumps(run(json.loads(sys.argv[1]))), file=out, flush=True)
