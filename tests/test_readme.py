"""Every command and example of README.md does what it says, on a demo that is built and trained here once.

The demo is examples/demo.sh with few steps; the real one, with its bars for the losses, is the slow test at the end.
"""

import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
STEPS = 3


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands(program: str) -> list[str]:
    """Lines of sh blocks and words in backticks that start with a program's name, each once, in order."""
    lines = [line.split("#")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    found = [*lines, *re.findall(rf"`({program} [^`]+)`", re.sub(r"```.*?```", "", README, flags=re.DOTALL))]
    return list(dict.fromkeys(line for line in found if line.split(" ")[0] == program))


def run(words: list[str], folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """The program in `folder`, with this Python's `mmdata` first on the PATH."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "JAX_PLATFORMS": "cpu", **more}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)


def said(done: subprocess.CompletedProcess[str]) -> str:
    return f"exit code {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the examples, where runs/ may be written; its run file asks for few steps."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "examples", folder / "examples")
    run_file = folder / "examples" / "demo-run.toml"
    words, found = re.subn(r"^steps = \d+$", f"steps = {STEPS}", run_file.read_text("utf-8"), flags=re.MULTILINE)
    assert found == 1
    run_file.write_text(words, "utf-8")
    return folder


@pytest.fixture(scope="module")
def demo(checkout: Path) -> Iterator[subprocess.CompletedProcess[str]]:
    yield run(["examples/demo.sh", "runs/demo"], checkout, MMDATA_DEMO_STEPS=str(STEPS))


def test_the_demo_builds_trains_samples_and_shows(demo: subprocess.CompletedProcess[str], checkout: Path) -> None:
    assert demo.returncode == 0, said(demo)
    assert not demo.stderr.count("Traceback")
    for name in ("data/manifest.json", "data.html", "run.html", "run/summary.json", "run/samples/text.txt"):
        assert (checkout / "runs" / "demo" / name).stat().st_size, name
    closing = demo.stdout[demo.stdout.rindex("Training:") :]
    for word in ("text", "image", "audio", "256 x 256 pixels", "16000 Hz", "Try next:"):
        assert word in closing, closing


@pytest.mark.parametrize("command", commands("mmdata"))
def test_a_command_of_the_readme_works(command: str, demo: subprocess.CompletedProcess[str], checkout: Path) -> None:
    words = shlex.split(command)
    done = run(words, checkout)
    assert done.returncode == 0, said(done)
    assert done.stdout.strip(), "it says nothing"
    for option, value in itertools.pairwise(words):
        if option in ("--out", "--html"):
            assert (checkout / value).exists()


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_an_example_of_the_readme_works(number: int, demo: subprocess.CompletedProcess[str], checkout: Path) -> None:
    done = run([sys.executable, "-c", blocks("python")[number]], checkout)
    assert done.returncode == 0, said(done)
    assert done.stdout.strip()


@pytest.mark.parametrize("command", commands("make"))
def test_a_make_target_of_the_readme_is_there(command: str) -> None:
    """What `make demo` runs is tested here, what `make test` runs is this."""
    done = run(["make", "-n", *shlex.split(command)[1:]], ROOT)
    assert done.returncode == 0, said(done)


def test_make_help_lists_every_target() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    listed = run(["make", "help"], ROOT).stdout
    assert {f"make {target}" for target in targets - {"clean", "help"}} <= set(re.findall(r"make [a-z-]+", listed))


def test_the_readme_opens_with_the_two_commands_and_a_short_example() -> None:
    assert commands("make")[:2] == ["make demo", "make test"]
    assert README.index("make test") < README.index("```python")
    example = [line for line in blocks("python")[0].splitlines() if line.strip() and not line.startswith("#")]
    assert len(example) <= 11


def test_every_place_the_readme_names_is_there() -> None:
    for name in re.findall(r"^([\w./-]+/) {2,}", README, re.MULTILINE):
        assert (ROOT / name).is_dir(), name
    for name in re.findall(r"`((?:docs|examples|tokenizer)/[\w./-]+)`", README):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"\b([a-z]+\.md) \(", README):
        assert (ROOT / "docs" / name).exists() or (ROOT / name).exists(), name


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_demo_learns(tmp_path: Path) -> None:
    """All of `make demo` but the installation: exit code 0 says that every loss is below its bar."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    done = run(["examples/demo.sh", "runs/demo"], tmp_path)
    assert done.returncode == 0, said(done)
