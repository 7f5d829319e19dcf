"""Speech in sounds: how much of a sound is speech, and how good it is, by models of packages or of the user's own.

The limit on quality is Emilia's (He et al. 2024: DNSMOS P.835 OVRL above 3); that on the share of speech is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
from pydantic import Field

from pipelines.curate.adapters import RATE_HZ
from pipelines.curate.hooks import number
from pipelines.curate.measure import Measure, at_least
from pipelines.curate.table import Table

VOICES, QUALITIES = ("silero",), ("dnsmos",)
_PIECE_S = 9.1  # of what is measured of a long sound; DNSMOS takes 9.01


class Speech(Table):
    """Sounds that hold little speech, or speech of poor quality. Of videos nothing is said."""

    voice: str = Field(
        default="silero",
        description='who says the share of speech: `"silero"` (extra `speech`), `"module:function"` of float32 [n] in'
        ' [-1, 1] and its rate (16,000) to a number in [0, 1], or nobody: `""`',
    )
    min_speech: float = Field(default=0.5, ge=0, le=1, description="share of a sound that is speech")
    quality: str = Field(
        default="dnsmos", description='who says the quality: `"dnsmos"` (extra `speech`), a function like that, or `""`'
    )
    min_quality: float = Field(default=3.0, description="of a sound; DNSMOS gives about 1 to 5")
    version: str = Field(default="", description="of your own functions: change it when one changes")
    max_seconds: float = Field(
        default=90, ge=10, description="that are measured of a sound; of a longer one, pieces spread evenly over it"
    )
    on_bad_part: Literal["drop_part", "drop_document"] = Field(
        default="drop_document",
        description="what such a sound costs: itself, which leaves its transcript, or its document",
    )


Hook = Callable[[np.ndarray, int], object]


def speech(samples: np.ndarray, voice: Hook | None, quality: Hook | None, rules: Speech) -> Iterator[Measure]:
    """The rules on a sound, float32 [n] at 16 kHz; HookError where a hook gave no number."""
    cut = pieces(samples, rules.max_seconds)
    if voice is not None:
        found = [number(rules.voice, voice(piece, RATE_HZ)) for piece in cut]
        yield at_least("speech: too little speech", sum(found) / len(found), rules.min_speech)
    if quality is not None:
        found = [number(rules.quality, quality(piece, RATE_HZ)) for piece in cut]
        yield at_least("speech: poor quality", sum(found) / len(found), rules.min_quality)


def pieces(samples: np.ndarray, seconds: float) -> list[np.ndarray]:
    """The whole sound; of one longer than `seconds`, pieces of 9.1 s at even distances, the last at its end.

    >>> [len(piece) / RATE_HZ for piece in pieces(np.zeros(60 * RATE_HZ), 20)]
    [9.1, 9.1]
    """
    if len(samples) <= seconds * RATE_HZ:
        return [samples]
    size, count = int(_PIECE_S * RATE_HZ), int(seconds / _PIECE_S)
    starts = [i * (len(samples) - size) // max(1, count - 1) for i in range(count)]
    return [samples[start : start + size] for start in starts]
