"""Pictures that many documents show are left out of them, and the ledger says of how many."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import mmdata
from pipelines.build.engine import build
from pipelines.build.ledger import read_ledger
from tests.pipelines.build.toy_build import load_toy, toy_recipe, tree
from tests.pipelines.dedup.test_dedup_build import prose
from tests.pipelines.fit.test_exclude import draw

LOOKS = {"exact": "drop", "image": "phash"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pages 0 to 4 show a logo (1 and 2 at other sizes, 4 twice) and a picture of their own; a page is there twice; the
    one without words shows the logo alone."""
    root = tmp_path_factory.mktemp("site")
    pages = root / "pages"
    pages.mkdir()
    with Image.open(draw(pages / "logo.png", 99)) as logo:
        logo.resize((120, 120)).save(pages / "logo1.png")
        logo.resize((170, 170)).save(pages / "logo2.png")
    logos = ("logo.png", "logo1.png", "logo2.png", "logo.png", "logo.png")
    for i, name in enumerate(logos):
        draw(pages / f"own{i}.png", i)
        page(pages / f"{i}.html", prose(i), name, f"own{i}.png", *([name] if i == 4 else []))
    page(pages / "copy.html", prose(0), "logo.png", "own0.png")
    page(pages / "wordless.html", "", "logo.png")
    return root


def page(path: Path, words: str, *pictures: str) -> None:
    shown = "".join(f'<p><img src="{name}"></p>' for name in pictures)
    path.write_text(f"<html><body><p>{words}</p>{shown}</body></html>", "utf-8")


def run(root: Path, out: Path, dedup: dict[str, Any], workers: int = 1, **changes: Any) -> None:
    source = {"name": "pages", "format": "html", "path": "pages"}
    build(toy_recipe(root, source=[source], dedup=dedup, **changes), out, workers, progress=False, load=load_toy)


def pictures(out: Path) -> dict[str, list[str]]:
    """Of each page the pictures that its sample shows."""
    source = mmdata.open(out)["pages"]
    samples = (*source.train, *source.validation)
    return {s.uri: [Path(item.uri).name for item in s.items if item.kind == "image"] for s in samples}


def test_a_picture_of_too_many_documents_goes_from_all_of_them(site: Path, tmp_path: Path) -> None:
    run(site, tmp_path / "out", {**LOOKS, "image_uses": 5})
    (kept_copy,) = {"0.html", "copy.html"} & set(pictures(tmp_path / "out"))
    assert pictures(tmp_path / "out") == {kept_copy: ["own0.png"]} | {f"{i}.html": [f"own{i}.png"] for i in range(1, 5)}
    lines = [line for line in read_ledger(tmp_path / "out" / "ledger" / "pages.jsonl") if line["stage"] == "dedup"]
    said = [(line["uri"], line["detail"]) for line in lines if line["reason"] == "picture of many documents"]
    # six of the seven stay where copies go; the logo is there twice in one of them
    assert len(said) == 7 and {detail.partition(": ")[2] for _, detail in said} == {"6 documents show it, at most 5"}
    assert [uri for uri, _ in said].count("4.html") == 2
    assert [(x["uri"], x["detail"]) for x in lines if x["reason"] == "no part left"] == [
        ("wordless.html", "1 left out")
    ]


def test_as_many_as_are_allowed_stay(site: Path, tmp_path: Path) -> None:
    run(site, tmp_path / "out", {**LOOKS, "image_uses": 6})
    run(site, tmp_path / "all", LOOKS)
    assert pictures(tmp_path / "out") == pictures(tmp_path / "all")
    assert pictures(tmp_path / "out")["4.html"] == ["logo.png", "own4.png", "logo.png"]


def test_without_looks_copies_are_told_by_their_bytes(site: Path, tmp_path: Path) -> None:
    run(site, tmp_path / "out", {"image_uses": 4})
    shown = pictures(tmp_path / "out")
    assert shown["0.html"] == shown["copy.html"] == ["own0.png"] and shown["1.html"] == ["logo1.png", "own1.png"]


def test_cuts_and_workers_change_nothing(site: Path, tmp_path: Path) -> None:
    asked = {**LOOKS, "image_uses": 5}
    run(site, tmp_path / "one", asked)
    run(site, tmp_path / "three", asked, workers=3)
    run(site, tmp_path / "whole", asked, shards={"samples": 10, "unit_inputs": 100})
    assert tree(tmp_path / "one") == tree(tmp_path / "three")
    assert pictures(tmp_path / "one") == pictures(tmp_path / "whole")


def test_turning_it_off_gives_the_pictures_back(site: Path, tmp_path: Path) -> None:
    run(site, tmp_path / "out", LOOKS)
    before = tree(tmp_path / "out")
    run(site, tmp_path / "out", {**LOOKS, "image_uses": 5})
    run(site, tmp_path / "out", LOOKS)
    assert tree(tmp_path / "out") == before
