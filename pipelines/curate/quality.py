"""Model-based quality: a classifier's probability that a text is good, as DCLM filters (Li et al. 2024, section 4.4).

The classifier is a shipped one, a file that `mmdata fit classifier` wrote, or a function of the user's own
(`module:function`, text -> probability), looked for where Python finds modules and then in the recipe's folder.
"""

from __future__ import annotations

import functools
import importlib
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from mmdata.commit import sha256_of
from mmdata.errors import UserError
from pipelines.config import expand
from pipelines.curate.classifier import load_classifier, shipped_file
from pipelines.curate.measure import Measure, at_least
from pipelines.curate.table import Table
from pipelines.curate.words import Text

_HOOK = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)")
_SUFFIX = ".safetensors"


class Quality(Table):
    """A classifier of good texts, as DCLM's."""

    classifier: str = Field(
        default="quality-en@1",
        description="a shipped one; or the path of a file that `mmdata fit classifier` wrote, relative to the recipe;"
        " or `module:function`, a function of text to a probability",
    )
    least: float = Field(default=0.5, ge=0, le=1, description="probability of a text that is kept")
    min_characters: int = Field(default=200, ge=0, description="a shorter text is not measured, and kept")
    version: str = Field(
        default="", description="of a `module:function`: another one has it asked again, as its code is not looked at"
    )


@dataclass(frozen=True)
class Named:
    """A classifier that a recipe names, in plain values that travel to workers."""

    kind: Literal["file", "function"]
    name: str  # "quality-en@1", "module:function"
    place: Path  # the file; of a function, the recipe's folder
    sha256: str = ""  # of the file

    def words(self) -> str:
        """What decides its answers, and no path."""
        return f"{self.name} {self.sha256}".strip()


def named(classifier: str, folder: Path, where: str) -> Named:
    """What a recipe in `folder` means; UserError where there is no such classifier."""
    if hook := _HOOK.fullmatch(classifier):
        top = hook[1].partition(".")[0]
        if top not in sys.modules and PathFinder.find_spec(top, [*sys.path, str(folder)]) is None:
            raise UserError(f"{where}: no module {top!r} in {folder} or on Python's path; set PYTHONPATH to its folder")
        return Named("function", classifier, folder)
    try:
        if "/" not in classifier and not classifier.endswith(_SUFFIX):
            path = shipped_file(classifier)
        else:
            path = (folder / expand(classifier, where)).resolve()
        return Named("file", load_classifier(path).name, path, sha256_of(path))
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


@dataclass(frozen=True)
class Scorer:
    """A classifier that is open: `score` gives a probability."""

    score: Callable[[str], Any]
    languages: tuple[str, ...]  # that it is asked of; empty: all


@functools.lru_cache(maxsize=16)
def opened(classifier: Named) -> Scorer:
    """Read once a worker; UserError where it cannot be."""
    if classifier.kind == "file":
        found = load_classifier(classifier.place)
        return Scorer(found, found.languages)
    folder = str(classifier.place)
    if folder not in sys.path:
        sys.path.append(folder)  # at the end: nothing in it stands before an installed module
    module, _, function = classifier.name.partition(":")
    try:
        score = getattr(importlib.import_module(module), function)
    except Exception as error:  # a user's module: whatever it raises when it is imported
        why = f"{type(error).__name__}: {error}"
        raise UserError(f"quality: cannot import {classifier.name}: {why}; mend the module") from error
    if not callable(score):
        raise UserError(f"quality: {classifier.name} is {score!r}, not a function of a text; name a function")
    return Scorer(score, ())


def quality(text: Text, classifier: Named, rules: Quality, uri: str) -> Iterator[Measure]:
    """The rule. A user's function that fails is an error, not a verdict: it would drop every document."""
    scorer = opened(classifier)
    if len(text.text) < rules.min_characters or (scorer.languages and text.language not in scorer.languages):
        return
    yield at_least("quality: improbable", _probability(scorer, text.text, classifier.name, uri), rules.least)


def _probability(scorer: Scorer, text: str, name: str, uri: str) -> float:
    try:
        value = float(scorer.score(text))
    except MemoryError:
        raise  # the executor's matter: alone the document gets its chance
    except Exception as error:  # a user's function: whatever it raises
        why = f"{type(error).__name__}: {error}"
        raise UserError(f"quality: {name} failed on {uri}: {why}; mend the function") from error
    if not 0 <= value <= 1:
        raise UserError(f"quality: {name} gave {value} for {uri}; a probability lies between 0 and 1")
    return value
