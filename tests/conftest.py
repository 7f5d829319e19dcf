"""Shared fixtures: quiet JAX on the CPU, and where the sample corpus lies."""

import os
import signal
from pathlib import Path

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")

# Of several test processes (`make test`) each keeps to a core: the builds of one pin their workers among its own, and
# XLA starts as many threads as there are cores.
if (number := os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")) and hasattr(os, "sched_setaffinity"):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(number) % len(cores)]})

# A shell starts background jobs with SIGINT ignored, and ignoring is inherited: the tests of Ctrl-C need it heard.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The folder of real files named by MMDATA_CORPUS; tests that need it skip where it is unset."""
    folder = os.environ.get("MMDATA_CORPUS")
    if not folder:
        pytest.skip("MMDATA_CORPUS is not set")
    return Path(folder)
