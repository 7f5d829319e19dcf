"""docs/files.md says what the code understands."""

import re
from pathlib import Path

import pytest

from pipelines.build.recipe import RecipeFile
from pipelines.look.reference import files_page
from pipelines.train.run import RunSettings


@pytest.fixture(scope="module")
def page() -> str:
    return files_page()


def test_the_page_on_disk_is_up_to_date(page: str, root: Path) -> None:
    assert (root / "docs" / "files.md").read_text("utf-8") == page, "docs/files.md is old: run `make docs`"


def test_every_key_has_a_meaning(page: str) -> None:
    assert re.findall(r"^\| `\w+` .*\|  \|$", page, re.MULTILINE) == []


def test_every_table_of_a_recipe_and_of_a_run_has_its_place(page: str) -> None:
    for model in (RecipeFile, RunSettings):
        for key in model.model_fields:
            assert f"| `{key}` |" in page or f"`[{key}]`" in page or f"`[[{key}]]`" in page, key


def test_choices_bounds_and_defaults_are_written_out(page: str) -> None:
    assert '| `keep_media` | `"none"` or `"resized"` or `"original"` | `"none"` |' in page
    assert "| `validation` | number, at least 0, at most 0.5 | `0.01` |" in page
    assert "| `path` | text | required |" in page
