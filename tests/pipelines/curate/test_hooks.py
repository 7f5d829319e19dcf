"""Functions that a recipe names: found beside it or installed; what they raise is a verdict, not a dead worker."""

import sys
from pathlib import Path

import pytest

from mmdata.errors import UserError
from pipelines.curate.hooks import HookError, check_hook, load_hook, number


def test_a_module_beside_the_recipe_is_found_and_imported_once(tmp_path: Path) -> None:
    (tmp_path / "counting_hook.py").write_text("loaded = []\nloaded.append(1)\ndef half(x):\n    return x / 2\n")
    check_hook("counting_hook:half", tmp_path, "here")
    assert load_hook("counting_hook:half", tmp_path)(3) == 1.5
    assert load_hook("counting_hook:half", tmp_path) is load_hook("counting_hook:half", tmp_path)
    assert sys.modules["counting_hook"].loaded == [1]


def test_modules_of_one_name_beside_two_recipes_are_two(tmp_path: Path) -> None:
    for word in ("one", "two"):
        (tmp_path / word).mkdir()
        (tmp_path / word / "same_name.py").write_text(f"def said():\n    return {word!r}\n")
    assert [load_hook("same_name:said", tmp_path / word)() for word in ("one", "two")] == ["one", "two"]


def test_a_package_beside_the_recipe_may_import_its_own(tmp_path: Path) -> None:
    (tmp_path / "hooks_of_mine").mkdir()
    (tmp_path / "hooks_of_mine" / "__init__.py").touch()
    (tmp_path / "hooks_of_mine" / "inner.py").write_text("from . import other\ndef one():\n    return other.ONE\n")
    (tmp_path / "hooks_of_mine" / "other.py").write_text("ONE = 1\n")
    assert load_hook("hooks_of_mine.inner:one", tmp_path)() == 1


def test_an_installed_function_is_a_hook(tmp_path: Path) -> None:
    check_hook("math:sqrt", tmp_path, "here")
    assert load_hook("math:sqrt", tmp_path)(9) == 3


def test_what_cannot_be_found_is_said_with_the_fix(tmp_path: Path) -> None:
    (tmp_path / "broken_hook.py").write_text("import nothing_of_this_name\n")
    (tmp_path / "empty_hook.py").touch()
    with pytest.raises(UserError, match=r"here: no module absent_hook .* put absent_hook.py into"):
        check_hook("absent_hook:f", tmp_path, "here")
    with pytest.raises(UserError, match=r"'broken_hook:f' cannot be imported \(ModuleNotFoundError: No module named"):
        load_hook("broken_hook:f", tmp_path)
    with pytest.raises(UserError, match="the module empty_hook has no function f; define it there"):
        load_hook("empty_hook:f", tmp_path)


def test_what_a_hook_raises_names_it(tmp_path: Path) -> None:
    with pytest.raises(HookError, match=r"^math:sqrt: ValueError: "):
        load_hook("math:sqrt", tmp_path)(-1)


@pytest.mark.parametrize("answer", ["high", None, float("nan"), float("inf"), {"a": 1}])
def test_an_answer_that_is_no_number_is_refused(answer: object) -> None:
    with pytest.raises(HookError, match=r"^m:f: answered with "):
        number("m:f", answer)


def test_numbers_of_numpy_are_numbers() -> None:
    import numpy as np

    assert number("m:f", np.float32(0.5)) == 0.5
