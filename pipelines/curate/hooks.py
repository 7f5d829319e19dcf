"""Functions that a recipe names: `classifier = "module:function"`, of a module beside the recipe or installed.

A worker imports a module once: a model that it loads at import, or behind `functools.cache`, is loaded once a worker.
A hook that cannot be found or imported stops the build. One that raises on a document, or answers with what no rule
can read, raises HookError, which rules turn into a verdict.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from mmdata.errors import UserError
from pipelines.ingest.media import one_line

HOOK = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"  # of a key of a recipe


class HookError(Exception):
    """A hook could not say anything of a document: the name of the hook and why, in one line."""


@functools.lru_cache(maxsize=64)
def load_hook(name: str, folder: Path) -> Callable[..., Any]:
    """The function of `module:function`, looked for in `folder` first; UserError where it cannot be had.

    What it raises when it is called becomes HookError.
    """
    module, _, attribute = name.partition(":")
    try:
        function = getattr(_module(module, folder), attribute, None)
    except Exception as error:  # other people's code runs at import, and may raise anything
        raise UserError(
            f"the hook {name!r} cannot be imported ({type(error).__name__}: {one_line(error)});"
            f" put {module.split('.')[0]}.py beside the recipe, or install the package that it is of"
        ) from None
    if not callable(function):
        raise UserError(f"the hook {name!r}: the module {module} has no function {attribute}; define it there")

    return guarded(name, function)


def guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, of which HookError is raised whatever it raises."""

    @functools.wraps(function)
    def hook(*args: Any) -> Any:
        try:
            return function(*args)
        except MemoryError:
            raise  # the executor runs the unit again, alone
        except Exception as error:  # other people's code may raise anything
            raise HookError(f"{name}: {type(error).__name__}: {one_line(error)}") from None

    return hook


def check_hook(name: str, folder: Path, where: str) -> None:
    """Before a build: UserError where there is no module of that name. Nothing of it is run."""
    top = name.partition(":")[0].split(".")[0]
    if not _beside(top, folder) and importlib.util.find_spec(top) is None:
        raise UserError(
            f"{where}: no module {top} for the hook {name!r}; put {top}.py into {folder}, or install its package"
        )


def number(name: str, answer: Any) -> float:
    """What a hook answered as a finite number; HookError where it is none."""
    try:
        value = float(answer)
    except (TypeError, ValueError):
        raise HookError(f"{name}: answered with {type(answer).__name__}, not a number") from None
    if not math.isfinite(value):
        raise HookError(f"{name}: answered with {value}")
    return value


def _module(name: str, folder: Path) -> ModuleType:
    """Imported with the folder first on the path where the module lies in it. The folder stays on the path, last, for
    what the module imports later."""
    top = name.split(".")[0]
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    if not _beside(top, folder):
        return importlib.import_module(name)
    importlib.invalidate_caches()
    file = getattr(sys.modules.get(top), "__file__", None)
    if file is None or not Path(file).resolve().is_relative_to(folder.resolve()):  # of another recipe's folder
        for known in [known for known in sys.modules if known == top or known.startswith(f"{top}.")]:
            del sys.modules[known]
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))


def _beside(top: str, folder: Path) -> bool:
    return (folder / f"{top}.py").is_file() or (folder / top / "__init__.py").is_file()
