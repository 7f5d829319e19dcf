"""Documents that kill or hang a worker while they are compared: each is found, left out and in the ledger."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.build import runner
from pipelines.build.engine import build
from pipelines.build.ledger import read_ledger
from pipelines.build.units import Unit, read_lines
from pipelines.build.worker import Call
from pipelines.dedup.decontaminate import DecontaminateArgs, decontaminate
from pipelines.dedup.sign import DOCUMENTS, MINHASH, POISONED, SignArgs, sign
from pipelines.ingest.document import document_id
from pipelines.ingest.media import Limits
from tests.pipelines.build.toy_build import load_toy
from tests.pipelines.dedup.test_decontaminate import plant, recipe
from tests.pipelines.dedup.test_dedup_build import ALL, kept, prose, write

ASKED: dict[str, Any] = {"decontaminate": {"against": ["eval"]}, "dedup": ALL}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = plant(tmp_path_factory.mktemp("poison"))
    write(root / "text" / "copy.txt", prose(1) + " and so on")
    out = root / "out"
    build(recipe(root, **ASKED), out, 1, progress=False, load=load_toy)
    return root, out


class Known(dict[str, dict[str, str]]):
    """What an earlier run found: steps that end with some words, of the units of a stage."""

    def __init__(self, stage: str, steps: dict[str, str]) -> None:
        super().__init__()
        self.stage, self.steps = stage, steps

    def get(self, key: str, default: Any = None) -> Any:
        return self.steps if key.startswith(f"{self.stage}/") else default


def run_again(built: tuple[Path, Path], out: Path, poison: Known, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A build that knows of the poison; its ledger by uri."""
    monkeypatch.setattr(runner, "_read_poison", lambda work: poison)
    build(recipe(built[0], **ASKED), out, 1, progress=False, load=load_toy)
    lines = [line for path in sorted((out / "ledger").glob("*.jsonl")) for line in read_ledger(path)]
    return {f"{line['source']}/{line['uri']}": (line["stage"], line["reason"], line["detail"]) for line in lines}


def test_what_was_not_held_against_evaluation_data_is_left_out(
    built: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = document_id("pictures", "2.png")
    steps = {"clean.txt": "no progress in 9 s", "1.png": "SIGKILL", f"{shown}/1": "SIGSEGV"}
    poison = Known("decontaminate", steps)
    lines = run_again(built, tmp_path / "out", poison, monkeypatch)
    assert lines["text/clean.txt"] == ("decontaminate", "took too long", "no progress in 9 s")
    assert lines["pictures/1.png"] == ("decontaminate", "crashed its worker", "SIGKILL")
    assert lines["pictures/2.png"] == ("decontaminate", "crashed its worker", "SIGSEGV")
    assert kept(tmp_path / "out") == (kept(built[1]) | {"text/copy.txt"}) - set(lines)


def test_what_was_not_signed_is_left_out_and_is_a_duplicate_of_none(
    built: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = {name: "SIGKILL" for name in ("copy.txt", "0.png", "1.png")}
    lines = run_again(built, tmp_path / "out", Known("sign", words), monkeypatch)
    for uri in ("text/copy.txt", "pictures/0.png", "pictures/1.png"):
        assert lines[uri] == ("sign", "crashed its worker", "SIGKILL")
    assert kept(tmp_path / "out") == (kept(built[1]) | {"text/clean.txt"}) - set(lines)


def unit_of(built: tuple[Path, Path], stage: str, source: str) -> tuple[Unit, Callable[..., Any]]:
    """A unit of what was built, with all documents of its source."""
    root, out = built
    work = next(path for path in out.iterdir() if (path / "ingest").is_dir())
    (documents,) = [path for path in (work / "ingest" / source).iterdir() if path.is_dir()]
    curated = work / "curate" / source / documents.name
    where = (documents, curated, curated, root / source)
    (index,) = [path for path in (work / "benchmarks").rglob("*") if path.is_dir() and path.name == "all"]
    args: Any = SignArgs(*where, ("text", "image"), Limits())
    if stage == "decontaminate":
        args = DecontaminateArgs(*where, index, str(out), Limits())
    function = decontaminate if stage == "decontaminate" else sign
    return Unit(stage, source, documents.name, "", function, work, args), function


@pytest.mark.parametrize("stage", ["decontaminate", "sign"])
@pytest.mark.parametrize("source", ["text", "pictures"])
def test_a_step_that_is_said_is_one_that_can_be_left_out(
    built: tuple[Path, Path], tmp_path: Path, stage: str, source: str
) -> None:
    unit, function = unit_of(built, stage, source)
    steps: list[str] = []
    function(Call(unit, isolate=True, at=steps.append), unit, made_folder(tmp_path / "all"))
    assert len(set(steps)) >= 3
    for i, step in enumerate(dict.fromkeys(steps)):
        again: list[str] = []
        function(Call(unit, {step: "SIGKILL"}, True, again.append), unit, made_folder(tmp_path / str(i)))
        assert step not in again


def made_folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_in_isolation_words_are_signed_under_the_name_of_their_document(
    built: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit, _ = unit_of(built, "sign", "text")
    at, signed = [""], []
    real = sign.__globals__["minhash"]

    def minhash(words: list[list[str]]) -> np.ndarray:
        signed.append((at[0], len(words)))
        return real(words)

    monkeypatch.setitem(sign.__globals__, "minhash", minhash)
    sign(Call(unit, isolate=True, at=lambda step: at.__setitem__(0, step)), unit, made_folder(tmp_path / "alone"))
    uris = list(read_lines(tmp_path / "alone" / "uris.jsonl"))
    assert signed == [*((uri, 1) for uri in uris), (uris[-1], 0)]
    sign(Call(unit), unit, made_folder(tmp_path / "together"))
    assert (tmp_path / "alone" / MINHASH).read_bytes() == (tmp_path / "together" / MINHASH).read_bytes()
    sign(Call(unit, {uris[1]: "SIGKILL"}), unit, made_folder(tmp_path / "without"))
    rows, without = (np.load(tmp_path / name / DOCUMENTS) for name in ("together", "without"))
    assert (rows["id"] == without["id"]).all() and without["chars"][1] == 0 < rows["chars"][1]
    ((row, line),) = read_lines(tmp_path / "without" / POISONED)
    assert row == 1 and line["uri"] == uris[1] and line["stage"] == "sign"
