"""All rules of a source on one document: kept or not and why, with what they changed in it.

Families run in the order of `[curate]`, but listed words come after the language, whose list they are of. Each sees
what those before it left, and the first rule that fails decides. A rule on a part (a picture that is too small, a text
of which no line is left) costs the part. Rules on text see the text parts with an empty line between, and say nothing
of a document without text; `pictures` asks for words and pictures of any document.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipelines.curate import lists, media_steps
from pipelines.curate.adapters import hook_of
from pipelines.curate.c4 import c4_document, c4_lines
from pipelines.curate.fineweb import fineweb
from pipelines.curate.gopher_quality import gopher_quality
from pipelines.curate.gopher_repetition import gopher_repetition
from pipelines.curate.language import identify, language
from pipelines.curate.measure import Measure, at_least
from pipelines.curate.media_steps import answered
from pipelines.curate.obelics import LISTS, obelics_document, obelics_paragraph, obelics_perplexity, open_words
from pipelines.curate.personal import mask
from pipelines.curate.quality import quality
from pipelines.curate.settings import Curation
from pipelines.curate.words import Text
from pipelines.curate.work import Judged, Work
from pipelines.ingest.address import AddressList
from pipelines.ingest.document import Document
from pipelines.ingest.media import Limits

__all__ = ["Judged", "judge"]


def judge(document: Document, curation: Curation, limits: Limits | None = None, every: bool = False) -> Judged:
    """Apply the rules; `every` goes on after the first that fails, and keeps all measures."""
    work = Work(document, curation, limits or Limits(), every)
    failed: Measure | None = None
    on = curation.rules.rules
    for family, step in _STEPS:
        for measure in step(work) if family in on else ():
            work.measures.append(measure)
            failed = failed or (None if measure.kept else measure)
            if failed and not every:
                break
        if failed and not every:
            break
    return work.judged(failed)


def _hosts(work: Work) -> Iterator[Measure]:
    hosts = _host_list(work.curation.files_of(work.curation.rules.lists.hosts))
    if hosts:
        for address in (work.document.uri, work.document.metadata.get("url", "")):
            yield from lists.listed_host(address, hosts)
        for place, part in list(work.parts.items()):
            work.judge_part(place, lists.listed_host(part.address or part.uri, hosts))


def _words(work: Work) -> Iterator[Measure]:
    """After the language is known: each may have a list of its own."""
    words = _word_list(work.curation.files_of(work.rules.lists.words))
    if words is not None and work.text is not None:
        yield from lists.listed_words(work.text, words, work.rules.lists)


def _language(work: Work) -> Iterator[Measure]:
    rules, said = work.curation.rules.language, work.document.language
    text, score = work.text, None
    if text is None:
        return
    if not (said and rules.trust) and len(text.text) >= rules.min_characters:
        said, score = identify(text.text)
        work.say_language(said)
    if said:
        yield from language(text, said, score, work.rules.language)  # the limits of the language found


def _c4(work: Work) -> Iterator[Measure]:
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


def _obelics(work: Work) -> Iterator[Measure]:
    rules, curation = work.rules.obelics, work.curation
    words = open_words(*(tuple(map(curation.path_of, getattr(rules, key))) for key in LISTS))
    for place, part in work.of_kind("text"):
        work.judge_part(place, obelics_paragraph(Text(part.text or "", work.language), words, rules))
    if work.text is not None:
        yield from obelics_document(work.text, words, rules)
        if rules.perplexity:
            files = [curation.path_of(name) if name else None for name in (rules.model, rules.pieces)]
            hook = hook_of(rules.perplexity, curation.folder, *files)
            yield from answered("obelics", obelics_perplexity(work.text, hook, rules))


def _quality(work: Work) -> Iterator[Measure]:
    rules = work.rules.quality
    if work.text is not None:
        yield from answered("quality", quality(work.text, work.curation.classifier(rules.classifier), rules))


def _personal(work: Work) -> Iterator[Measure]:
    for place, part in work.parts.items():
        if part.text is not None:
            text, found = mask(part.text, work.rules.personal)
            work.changed.update(found)
            work.set_text(place, text)
    return iter(())


def _of_text(family: str, rule: Callable[[Text, Any], Iterator[Measure]]) -> Callable[[Work], Iterator[Measure]]:
    def step(work: Work) -> Iterator[Measure]:
        if work.text is not None:
            yield from rule(work.text, getattr(work.rules, family))

    return step


_STEPS: tuple[tuple[str, Callable[[Work], Iterator[Measure]]], ...] = (
    ("lists", _hosts),
    ("language", _language),
    ("lists", _words),
    ("gopher_repetition", _of_text("gopher_repetition", gopher_repetition)),
    ("gopher_quality", _of_text("gopher_quality", gopher_quality)),
    ("c4", _c4),
    ("fineweb", _of_text("fineweb", fineweb)),
    ("obelics", _obelics),
    ("pictures", media_steps.pictures_step),
    ("picture_copies", media_steps.copies_step),
    ("quality", _quality),
    ("safe_pictures", media_steps.safe_step),
    ("similarity", media_steps.similarity_step),
    ("speech", media_steps.speech_step),
    ("personal", _personal),
)


@functools.lru_cache(maxsize=16)
def _host_list(files: tuple[tuple[Path, str], ...]) -> AddressList:
    """The hosts and addresses in these files, read once a worker."""
    return AddressList(entry for path, _ in files for entry in lists.read_hosts(path))


@functools.lru_cache(maxsize=128)  # a few for each language
def _word_list(files: tuple[tuple[Path, str], ...]) -> lists.WordList | None:
    """The words in these files, read once a worker; None where there are none."""
    words = tuple(entry for path, _ in files for entry in lists.read_list(path))
    return lists.WordList(tuple(dict.fromkeys(words))) if words else None
