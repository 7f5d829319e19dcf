"""The wheel: our three packages with their data, the command, and nothing else."""

import configparser
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PACKAGES = ("mmdata", "tokenizer", "pipelines")
WITH_IT = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "tests", "benchmarks", "examples")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "media", "golden")


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built by setuptools from a copy of the checkout: a build leaves folders behind."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in (*PACKAGES, *WITH_IT):
        source = root / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=LEFT_OUT)
        else:
            shutil.copy(source, copy / name)
    build = "from setuptools.build_meta import build_wheel; print(build_wheel('dist'))"
    done = subprocess.run([sys.executable, "-c", build], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stderr[-2000:]}\n(it needs setuptools>=70.1, in the extra `test`)"
    return zipfile.ZipFile(copy / "dist" / done.stdout.splitlines()[-1])


def test_only_our_packages_are_installed(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
    assert [name for name in wheel.namelist() if "test" in Path(name).name] == ["mmdata/testing.py"]  # for users


def test_every_module_is_in_the_wheel(wheel: zipfile.ZipFile, root: Path) -> None:
    modules = {str(path.relative_to(root)) for package in PACKAGES for path in (root / package).rglob("*.py")}
    assert modules == {name for name in wheel.namelist() if name.endswith(".py")}


def test_layouts_weights_cards_and_pages_are_in_the_wheel(wheel: zipfile.ZipFile, root: Path) -> None:
    found = set(wheel.namelist())
    for folder, ending in (("tokenizer/layouts", ".toml"), ("pipelines/look", ".html")):
        there = {str(path.relative_to(root)) for path in (root / folder).glob(f"*{ending}")}
        assert there and there <= found
    weights = [path for path in (root / "tokenizer/weights").iterdir() if path.suffix in (".safetensors", ".model")]
    assert {path.name for path in weights} >= {"text-spm16k-1.model", "image-fsq16-1.safetensors"}
    for path in weights:
        for name in (path.name, f"{path.stem}.md", f"{path.stem}.json"):
            assert f"tokenizer/weights/{name}" in found, f"{name} is missing: every codec ships with its card"


def test_classifiers_are_in_the_wheel_with_their_cards(wheel: zipfile.ZipFile, root: Path) -> None:
    weights = list((root / "pipelines/curate/weights").glob("*.safetensors"))
    assert "quality-en-1.safetensors" in {path.name for path in weights}
    for path in weights:
        assert path.stat().st_size < 1_500_000
        for ending in (".safetensors", ".md", ".json"):
            assert f"pipelines/curate/weights/{path.stem}{ending}" in wheel.namelist()


def test_the_command_is_mmdata(wheel: zipfile.ZipFile) -> None:
    entry = next(name for name in wheel.namelist() if name.endswith("/entry_points.txt"))
    points = configparser.ConfigParser()
    points.read_string(wheel.read(entry).decode())
    assert dict(points["console_scripts"]) == {"mmdata": "pipelines.cli:main"}
