"""All rules of a source on one document: kept or not and why, with what they changed in it.

Families run in the order of `[curate]`: each sees what those before it left, and the first rule that fails decides. A
rule on a part (a picture that is too small, a text of which no line is left) costs the part. Rules on text see the
text parts with an empty line between, and say nothing of a document without text; `pictures` asks for words and
pictures of any document.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipelines.curate import lists, pictures
from pipelines.curate.c4 import c4_document, c4_lines
from pipelines.curate.fineweb import fineweb
from pipelines.curate.gopher_quality import gopher_quality
from pipelines.curate.gopher_repetition import gopher_repetition
from pipelines.curate.language import identify, language
from pipelines.curate.measure import Measure, at_least
from pipelines.curate.personal import mask
from pipelines.curate.quality import quality
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


def judge(document: Document, curation: Curation, limits: Limits | None = None, every: bool = False) -> Judged:
    """Apply the rules; `every` goes on after the first that fails, and keeps all measures."""
    work = _Work(document, curation, limits or Limits())
    failed: Measure | None = None
    on = curation.rules.rules
    for family, step in _STEPS.items():
        for measure in step(work) if family in on else ():
            work.measures.append(measure)
            failed = failed or (None if measure.kept else measure)
            if failed and not every:
                break
        if failed and not every:
            break
    return work.judged(failed)


class _Work:
    """A document while rules change it."""

    def __init__(self, document: Document, curation: Curation, limits: Limits) -> None:
        self.document, self.curation, self.limits = document, curation, limits
        self.parts = dict(enumerate(document.parts))  # place -> part; those left out are gone
        self.left_out: list[tuple[Part, Measure]] = []
        self.changed: Counter[str] = Counter()
        self.measures: list[Measure] = []
        self._text: Text | None = None

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
        """Leave the part out at the first rule that fails."""
        for measure in measures:
            self.measures.append(measure)
            if not measure.kept:
                self.leave_out(place, measure)
                return

    def judged(self, failed: Measure | None) -> Judged:
        document = self.document
        if list(self.parts.values()) != list(document.parts):
            document = replace(document, parts=tuple(self.parts.values()))
        if not self.parts and failed is None:
            failed = Measure("no part left", len(self.left_out), 0, False, "left out, kept")
        return Judged(document, list(self.parts), failed, self.left_out, self.changed, self.measures)


def _lists(work: _Work) -> Iterator[Measure]:
    opened, rules = _opened(work.curation.lists), work.rules.lists
    if opened.hosts:
        for address in (work.document.uri, work.document.metadata.get("url", "")):
            yield from lists.listed_host(lists.host_of(address), opened.hosts)
        for place, part in list(work.parts.items()):
            work.judge_part(place, lists.listed_host(lists.host_of(part.uri), opened.hosts))
    if opened.words is not None and work.text is not None:
        yield from lists.listed_words(work.text, opened.words, rules)


def _language(work: _Work) -> Iterator[Measure]:
    rules, said = work.curation.rules.language, work.document.language
    if work.text is None:
        return
    if said and rules.trust:
        yield from language(work.text, said, None, rules)
    elif len(work.text.text) >= rules.min_characters:
        found, score = identify(work.text.text)
        yield from language(work.text, found, score, rules)
        work.say_language(found)
    elif said:
        yield from language(work.text, said, None, rules)


def _c4(work: _Work) -> Iterator[Measure]:
    if work.text is None:
        return
    for place, part in list(work.parts.items()):
        if part.text is None or part.unit_times:
            continue  # the times are of its words
        kept, gone = c4_lines(Text(part.text, work.language), work.rules.c4)
        work.changed.update(gone)
        if kept:
            work.set_text(place, kept)
        else:
            work.judge_part(place, iter([at_least("c4: no line is left", 0, 1)]))
    yield from c4_document(work.text or Text("", work.language), work.rules.c4)


def _pictures(work: _Work) -> Iterator[Measure]:
    rules = work.rules.pictures
    for place, part in list(work.parts.items()):
        if part.kind == "image":
            work.judge_part(place, _picture(part, rules, work.limits))
        elif part.text is not None:
            work.judge_part(place, pictures.paragraph(Text(part.text, work.language), rules))
    num_images = sum(part.kind == "image" for part in work.parts.values())
    yield from pictures.page(work.text or Text("", work.language), num_images, rules)


def _picture(part: Part, rules: pictures.Pictures, limits: Limits) -> Iterator[Measure]:
    """Of a picture that cannot be read nothing but its address is said: decoding it will say why."""
    from pipelines.ingest.decode_image import image_header

    yield from pictures.address(part.uri, rules)
    medium = part.data if part.data is not None else part.path
    if medium is not None:
        try:
            format, height, width = image_header(medium, limits)
        except MediaError:
            return
        yield from pictures.picture(format, width, height, rules)


def _quality(work: _Work) -> Iterator[Measure]:
    rules = work.rules.quality
    if work.text is not None:
        yield from quality(work.text, work.curation.classifier(rules.classifier), rules, work.document.uri)


def _personal(work: _Work) -> Iterator[Measure]:
    for place, part in work.parts.items():
        if part.text is not None:
            text, found = mask(part.text, work.rules.personal)
            work.changed.update(found)
            work.set_text(place, text)
    return iter(())


def _of_text(family: str, rule: Callable[[Text, Any], Iterator[Measure]]) -> Callable[[_Work], Iterator[Measure]]:
    def step(work: _Work) -> Iterator[Measure]:
        if work.text is not None:
            yield from rule(work.text, getattr(work.rules, family))

    return step


_STEPS: dict[str, Callable[[_Work], Iterator[Measure]]] = {
    "lists": _lists,
    "language": _language,
    "gopher_repetition": _of_text("gopher_repetition", gopher_repetition),
    "gopher_quality": _of_text("gopher_quality", gopher_quality),
    "c4": _c4,
    "fineweb": _of_text("fineweb", fineweb),
    "pictures": _pictures,
    "quality": _quality,
    "personal": _personal,
}


@dataclass(frozen=True)
class _Lists:
    words: lists.WordList | None
    hosts: frozenset[str]


@functools.lru_cache(maxsize=16)
def _opened(files: tuple[tuple[str, Path, str], ...]) -> _Lists:
    """The lists, read once a worker."""
    words = tuple(entry for kind, path, _ in files if kind == "words" for entry in lists.read_list(path))
    hosts = frozenset(entry for kind, path, _ in files if kind == "hosts" for entry in lists.read_list(path))
    return _Lists(lists.WordList(tuple(dict.fromkeys(words))) if words else None, hosts)
