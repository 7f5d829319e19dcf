"""Model-based quality: a classifier's probability that a text is good, as DCLM filters (Li et al. 2024, section 4.4).

The classifier is a shipped one, a file that `mmdata fit classifier` wrote, or a function of the user's own
(`module:function`, text -> probability; `hooks`).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from mmdata.commit import sha256_of
from mmdata.errors import UserError
from pipelines.config import expand
from pipelines.curate.classifier import load_classifier, shipped_file
from pipelines.curate.hooks import HOOK, HookError, check_hook, load_hook, number
from pipelines.curate.measure import Measure, at_least
from pipelines.curate.table import Table
from pipelines.curate.words import Text

_SUFFIX = ".safetensors"


class Quality(Table):
    """A classifier of good texts, as DCLM's."""

    classifier: str = Field(
        default="quality-en@1",
        description="a shipped one; or the path of a file that `mmdata fit classifier` wrote, relative to the recipe;"
        " or `module:function`, a function of text to a probability",
    )
    min_probability: float = Field(default=0.5, ge=0, le=1, description="probability of a text that is kept")
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
    if re.match(HOOK, classifier):
        check_hook(classifier, folder, where)
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
    return Scorer(load_hook(classifier.name, classifier.place), ())


def quality(text: Text, classifier: Named, rules: Quality) -> Iterator[Measure]:
    """The rule; HookError where a function of the user's own does not answer with a probability."""
    scorer = opened(classifier)
    if len(text.text) < rules.min_characters or (scorer.languages and text.language not in scorer.languages):
        return
    value = number(classifier.name, scorer.score(text.text))
    if not 0 <= value <= 1:
        raise HookError(f"{classifier.name}: answered with {value}; a probability lies between 0 and 1")
    yield at_least("quality: improbable", value, rules.min_probability)
