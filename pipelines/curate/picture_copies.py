"""Pictures that a document shows more than once, told by perceptual hashes: MMC4's rule (Zhu et al. 2023).

Of pictures that differ in at most 5 of 64 bits one is kept, the first. A rule sees one document: pictures that many
documents show are counted by `[dedup]`, `image_uses`.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from pipelines.curate.measure import Measure
from pipelines.curate.table import Table


class PictureCopies(Table):
    """Near copies of a picture inside a document are left out; flat pictures have no look, and stay."""

    max_bits: int = Field(default=5, ge=0, le=64, description="of 64, in which copies differ")
    keep: int = Field(default=1, ge=1, description="so many of the pictures that look alike, the first ones")


def picture_copy(bits: int, seen: list[int], rules: PictureCopies) -> Iterator[Measure]:
    """The rule on a picture of these bits, after the `seen` ones that were kept."""
    near = sorted((bits ^ other).bit_count() for other in seen)
    if len(near) >= rules.keep:
        distance = near[rules.keep - 1]
        limit = rules.max_bits + 1
        yield Measure("picture_copies: a copy in its document", distance, limit, distance >= limit, "at least")
