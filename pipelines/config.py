"""TOML files checked by pydantic models, with errors that a person can act on: file, key, nearest name, choices."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from mmdata.errors import UserError

M = TypeVar("M", bound=BaseModel)

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"  # of what becomes a file's name


def read_toml(path: Path) -> dict[str, Any]:
    """The file as a dict; UserError where it is missing or no TOML."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(f"no file {path}; check the path") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; name the TOML file in it") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no TOML file: {error}") from None


def check(model: type[M], data: dict[str, Any], where: str) -> M:
    """`data` as a `model`; UserError in one line: what is wrong in `where`, and the nearest name or the choices."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = [_explain(model, e) for e in error.errors()]
        raise UserError(f"{where}: {'; '.join(lines)}") from None


def nearest(name: str, choices: list[str]) -> str:
    """`; did you mean 'web'? The choices are ...`: the end of an error about a name nobody knows."""
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}The choices are {', '.join(sorted(choices))}"


def expand(path: str, where: str) -> str:
    """`${VAR}/x` with the variable's value, `~` with the home; UserError names a variable that is not set."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if not os.environ.get(name):
            raise UserError(f"{where}: the environment variable {name} in {path!r} is not set; set it to a folder")
        return os.environ[name]

    return os.path.expanduser(re.sub(r"\$\{(\w+)\}", value, path))


def _explain(model: type[BaseModel], error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"unknown key {key!r}; {nearest(str(error['loc'][-1]), _fields_at(model, error['loc'][:-1]))}"
    if error["type"] == "missing":
        return f"the key {key!r} is missing"
    given = "" if isinstance(error["input"], dict | list) else f" (got {error['input']!r})"
    return f"{key}: {error['msg']}{given}"


def _fields_at(model: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    """Names of the keys of the model that lies at `loc` inside `model`."""
    for part in loc:
        if isinstance(part, int) or part not in model.model_fields:
            continue
        found = _model_in(model.model_fields[part].annotation)
        if found is None:
            return []
        model = found
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _model_in(inner)
        if found is not None:
            return found
    return None
