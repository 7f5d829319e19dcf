"""docs/files.md and docs/layouts.md say what the code understands."""

import dataclasses
import re
from pathlib import Path

import pytest

from pipelines.build.recipe import RecipeFile
from pipelines.look.layout_reference import layouts_page, stale_meanings
from pipelines.look.reference import files_page, write_pages
from pipelines.train.run import RunSettings
from tokenizer import grammar
from tokenizer.layout import read_layout, shipped_layouts


@pytest.fixture(scope="module")
def page() -> str:
    return files_page()


@pytest.fixture(scope="module")
def layouts() -> str:
    return layouts_page()


def test_the_pages_on_disk_are_up_to_date(root: Path, tmp_path: Path) -> None:
    write_pages(tmp_path)
    for name in ("files.md", "layouts.md"):
        now = (tmp_path / name).read_text("utf-8")
        assert (root / "docs" / name).read_text("utf-8") == now, f"docs/{name} is old: run `make docs`"


def test_every_key_has_a_meaning(page: str, layouts: str) -> None:
    for text in (page, layouts):
        assert re.findall(r"^\| `\w+` .*\|  \|$", text, re.MULTILINE) == []
    assert stale_meanings() == set()


def test_every_table_and_key_of_a_layout_has_its_place(layouts: str) -> None:
    tables = {f.name: f.type for f in dataclasses.fields(grammar.LayoutSpec) if f.init and f.name != "kinds"}
    tables |= {f"soft.{f.name}": f.type for f in dataclasses.fields(grammar.SoftRule)}
    for name, kind in tables.items():
        rule = getattr(grammar, kind, None)
        if rule is None or not dataclasses.is_dataclass(rule):
            assert f"| `{name}` |" in layouts
        elif rule is not grammar.SoftRule:
            section = next(part for part in layouts.split("\n### ") if f"`[{name}]`" in part.split("\n")[0])
            for field in dataclasses.fields(rule):
                assert f"| `{field.name}` |" in section, (name, field.name)


def test_choices_and_defaults_of_a_layout_are_written_out(layouts: str) -> None:
    assert '| `header` | `"none"` or `"two_sizes"` or `"text"` | `"none"` |' in layouts
    assert '| `of` | `"none"` or `"video_audio"` or `"units"` | `"none"` |' in layouts
    assert "| `controls` | list of text | required |" in layouts
    assert "| `open` | literal | none |" in layouts
    assert all(f"| `{name}` |" in layouts for name in shipped_layouts())


def test_the_layout_on_the_page_reads(layouts: str) -> None:
    assert read_layout(re.findall(r"^```toml\n(.*?)^```", layouts, re.MULTILINE | re.DOTALL)[-1]).name == "mmdata"


def test_every_table_of_a_recipe_and_of_a_run_has_its_place(page: str) -> None:
    for model in (RecipeFile, RunSettings):
        for key in model.model_fields:
            assert f"| `{key}` |" in page or f"`[{key}]`" in page or f"`[[{key}]]`" in page, key


def test_choices_bounds_and_defaults_are_written_out(page: str) -> None:
    assert '| `keep_media` | `"none"` or `"resized"` or `"original"` | `"none"` |' in page
    assert "| `validation` | number, at least 0, at most 0.5 | `0.01` |" in page
    assert "| `path` | text | required |" in page
    assert "| `name` | text: letters, digits, `.`, `_`, `-` | required |" in page
    assert '| `dtype` | `"float32"` or `"bfloat16"` |' in page


def test_steps_of_a_run_are_not_said_to_be_those_of_a_fit(page: str) -> None:
    run, fit = page.split("## Fit config: image")
    said = [re.findall(r"^\| `steps` \|.*\| (.*) \|$", part, re.MULTILINE) for part in (run, fit)]
    assert said[0] == ["batches learnt from, in all"] and "cosine" in said[1][0]
