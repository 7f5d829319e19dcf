"""Pictures and videos that are not safe for work, by a classifier: a package's, or a function of the user's own.

Of a video a few frames are asked about, and the worst counts. A probability is held to `max_score`, scores by class to
`max_scores`. Where sources disagree: OBELICS' (Laurencon et al. 2023) are of NSFWJS's classes, and a picture of these
costs the document; MMC4 (Zhu et al. 2023) leaves out the picture, above 0.1 of another classifier. Open NSFW's scale is
its own: its authors call what is below 0.2 likely safe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal

import numpy as np
from pydantic import Field

from pipelines.curate.hooks import HookError, number
from pipelines.curate.measure import Measure, at_most
from pipelines.curate.table import Table

CLASSIFIERS = ("opennsfw",)


class SafePictures(Table):
    """Pictures and videos that a classifier calls unsafe are left out, or their documents dropped."""

    classifier: str = Field(
        default="opennsfw",
        description='`"opennsfw"` (extra `safety`), or `"module:function"` of uint8 [H, W, 3] to a probability or to'
        " scores by class",
    )
    version: str = Field(default="", description="of your own function: change it when the function changes")
    max_score: float = Field(default=0.2, ge=0, le=1, description="of a classifier that gives one probability")
    max_scores: dict[str, float] = Field(
        default={"hentai": 0.9, "porn": 0.85}, description="of one that gives scores by class: those of these classes"
    )
    frames: int = Field(
        default=8,
        ge=0,
        le=64,
        description="of a video, evenly spread, of which the worst counts; 0: videos are not judged",
    )
    on_bad_part: Literal["drop_part", "drop_document"] = Field(
        default="drop_part",
        description="what an unsafe picture or video costs: itself (MMC4) or its document (OBELICS)",
    )


def safe_pictures(
    pictures: Iterable[np.ndarray], classifier: Callable[[np.ndarray], object], rules: SafePictures
) -> Iterator[Measure]:
    """The rule on the frames of a medium (of a picture: itself), each uint8 [H, W, 3]; the highest score of each class
    counts. HookError where an answer of the classifier cannot be read."""
    worst: dict[str, tuple[float, float]] = {}  # class -> (score, limit)
    for pixels in pictures:
        for name, score, limit in _scores(classifier(pixels), rules):
            worst[name] = max(worst.get(name, (score, limit)), (score, limit))
    for name, (score, limit) in worst.items():
        yield at_most(f"safe_pictures: {name}", score, limit)


def _scores(answer: object, rules: SafePictures) -> Iterator[tuple[str, float, float]]:
    """(class, score, limit)"""
    if not isinstance(answer, Mapping):
        yield "unsafe", number(rules.classifier, answer), rules.max_score
        return
    known = [name for name in rules.max_scores if name in answer]
    if not known:
        raise HookError(f"{rules.classifier}: none of its classes {', '.join(map(str, answer))} is in max_scores")
    for name in known:
        yield name, number(rules.classifier, answer[name]), rules.max_scores[name]
