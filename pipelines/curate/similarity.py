"""How well a picture goes with the text of its document, by a function of the user's own: CLIP's cosine, say.

MMC4 (Zhu et al. 2023) leaves out a picture whose similarity to every sentence is below 0.15 (CLIP ViT-L/14). Here a
picture is compared with every text part, and the greatest counts. No kept package brings such a model's weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from pydantic import Field

from pipelines.curate.hooks import number
from pipelines.curate.measure import Measure, at_least
from pipelines.curate.table import Table


class Similarity(Table):
    """Pictures that go with none of the texts of their document are left out."""

    scorer: str = Field(default="", description='`"module:function"` of uint8 [H, W, 3] and a text to a number; needed')
    version: str = Field(default="", description="of your function: change it when the function changes")
    min_score: float = Field(default=0.15, description="the greatest, over the text parts of the document")


def similarity(
    pixels: np.ndarray, texts: list[str], scorer: Callable[[np.ndarray, str], object], rules: Similarity
) -> Iterator[Measure]:
    """The rule on a picture; HookError where the function gave no number."""
    best = max(number(rules.scorer, scorer(pixels, text)) for text in texts)
    yield at_least("similarity: goes with no text", best, rules.min_score)
