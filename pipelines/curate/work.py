"""A document while rules change it, and what became of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from pipelines.curate.measure import Measure
from pipelines.curate.settings import Curate, Curation, rules_for
from pipelines.curate.words import Text, main_language
from pipelines.ingest.document import Document, Part
from pipelines.ingest.media import Limits, MediaError


@dataclass
class Judged:
    """What became of a document."""

    document: Document  # as the rules left it
    places: list[int]  # of its parts, among those it came with
    failed: Measure | None = None  # the rule that drops it
    parts: list[tuple[Part, Measure]] = field(default_factory=list)  # left out of it
    changed: Counter[str] = field(default_factory=Counter)  # lines taken out, addresses masked, ...
    measures: list[Measure] = field(default_factory=list)  # with `every`: all, of parts too


class Work:
    """A document while rules change it."""

    def __init__(self, document: Document, curation: Curation, limits: Limits, every: bool = False) -> None:
        self.document, self.curation, self.limits, self.every = document, curation, limits, every
        self.parts = dict(enumerate(document.parts))  # place -> part; those left out are gone
        self.left_out: list[tuple[Part, Measure]] = []
        self.changed: Counter[str] = Counter()
        self.measures: list[Measure] = []
        self._text: Text | None = None
        self._pixels: tuple[int, np.ndarray | None] = (-1, None)  # of the picture that was decoded last

    @property
    def rules(self) -> Curate:
        return rules_for(self.curation.table, self.language)

    @property
    def language(self) -> str:
        return main_language(self.document.language) or self.curation.rules.default_language

    @property
    def text(self) -> Text | None:
        """The text parts together; None where there is none. Made anew when a part has changed."""
        if self._text is None:
            texts = [part.text for part in self.parts.values() if part.text is not None]
            self._text = Text("\n\n".join(texts), self.language) if texts else None
        return self._text

    def of_kind(self, kind: str) -> list[tuple[int, Part]]:
        """The parts of a kind that are left, with their places."""
        return [(place, part) for place, part in self.parts.items() if part.kind == kind]

    def pixels(self, place: int) -> np.ndarray | None:  # uint8 [H, W, 3]
        """A picture, whole; None where it cannot be decoded: encoding it will say why."""
        from pipelines.ingest.decode_image import decode_image

        if self._pixels[0] != place:
            medium = medium_of(self.parts[place])
            try:
                found = None if medium is None else decode_image(medium, self.limits)
            except MediaError:
                found = None
            self._pixels = place, found
        return self._pixels[1]

    def say_language(self, tag: str) -> None:
        if tag != self.document.language:
            self.document, self._text = replace(self.document, language=tag), None

    def set_text(self, place: int, text: str) -> None:
        if text != self.parts[place].text:
            self.parts[place], self._text = replace(self.parts[place], text=text), None

    def leave_out(self, place: int, measure: Measure) -> None:
        self.left_out.append((self.parts.pop(place), measure))
        self._text = None

    def judge_part(self, place: int, measures: Iterator[Measure]) -> None:
        """Leave the part out at the first rule that fails; with `every` the others are asked too."""
        failed: Measure | None = None
        for measure in measures:
            self.measures.append(measure)
            failed = failed or (None if measure.kept else measure)
            if failed and not self.every:
                break
        if failed:
            self.leave_out(place, failed)

    def judged(self, failed: Measure | None) -> Judged:
        document = self.document
        if list(self.parts.values()) != list(document.parts):
            document = replace(document, parts=tuple(self.parts.values()))
        if not self.parts and failed is None:
            failed = Measure("no part left", len(self.left_out), 0, False, "left out, kept")
        return Judged(document, list(self.parts), failed, self.left_out, self.changed, self.measures)


def medium_of(part: Part) -> bytes | Path | None:
    """The bytes of a medium, or its file."""
    return part.data if part.data is not None else part.path
