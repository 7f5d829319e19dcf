"""Families on pictures and sounds, step by step over the parts of a document. A medium that cannot be decoded is judged
by nobody here: encoding it says why."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pipelines.curate import pictures
from pipelines.curate.adapters import RATE_HZ, hook_of
from pipelines.curate.hooks import HookError
from pipelines.curate.measure import Measure
from pipelines.curate.picture_copies import picture_copy
from pipelines.curate.pictures import Pictures
from pipelines.curate.safe_pictures import safe_pictures
from pipelines.curate.similarity import similarity
from pipelines.curate.speech import speech
from pipelines.curate.words import Text
from pipelines.curate.work import Work, medium_of
from pipelines.ingest.document import Part
from pipelines.ingest.media import Limits, MediaError

_FPS = 30.0  # at most, of a video that is shorter than the frames asked of it
_SIDE = 512  # pixels of a frame's shorter side: classifiers take 224 to 299


def pictures_step(work: Work) -> Iterator[Measure]:
    rules = work.rules.pictures
    for place, part in list(work.parts.items()):
        if part.kind == "image":
            work.judge_part(place, _picture(part, rules, work.limits))
        elif part.text is not None:
            work.judge_part(place, pictures.paragraph(Text(part.text, work.language), rules))
    num_images = sum(part.kind == "image" for part in work.parts.values())
    yield from pictures.page(work.text or Text("", work.language), num_images, rules)


def copies_step(work: Work) -> Iterator[Measure]:
    from pipelines.ingest.looks import look_of

    seen: list[int] = []
    for place, part in work.of_kind("image"):
        medium = medium_of(part)
        try:
            bits = None if medium is None else look_of(medium, work.limits).bits
        except MediaError:
            bits = None
        if bits is not None:
            work.judge_part(place, picture_copy(bits, seen, work.rules.picture_copies))
            if place in work.parts:
                seen.append(bits)
    return iter(())


def safe_step(work: Work) -> Iterator[Measure]:
    rules = work.rules.safe_pictures
    for place, part in list(work.parts.items()):
        shown: list[np.ndarray] | None = None
        if part.kind == "image":
            shown = None if (pixels := work.pixels(place)) is None else [pixels]
        elif part.kind == "video" and rules.frames:
            shown = _frames(part, rules.frames, work.limits)
        if shown is not None:
            classify = hook_of(rules.classifier, work.curation.folder)
            found = answered("safe_pictures", safe_pictures(shown, classify, rules))
            yield from _costs(work, place, found, rules.on_bad_part)


def similarity_step(work: Work) -> Iterator[Measure]:
    rules = work.rules.similarity
    texts = [part.text for part in work.parts.values() if part.text]
    for place, _ in work.of_kind("image") if texts else ():
        pixels = work.pixels(place)
        if pixels is not None:
            scorer = hook_of(rules.scorer, work.curation.folder)
            work.judge_part(place, answered("similarity", similarity(pixels, texts, scorer, rules)))
    return iter(())


def speech_step(work: Work) -> Iterator[Measure]:
    from pipelines.ingest.decode_audio import decode_audio

    rules = work.rules.speech
    for place, part in work.of_kind("audio"):
        medium = medium_of(part)
        try:
            samples = None if medium is None else decode_audio(medium, RATE_HZ, work.limits)
        except MediaError:
            samples = None
        if samples is not None:
            voice, quality = (
                hook_of(name, work.curation.folder) if name else None for name in (rules.voice, rules.quality)
            )
            found = answered("speech", speech(samples, voice, quality, rules))
            yield from _costs(work, place, found, rules.on_bad_part)


def answered(family: str, measures: Iterator[Measure]) -> Iterator[Measure]:
    """The measures; where a hook fails, one more that is not kept: what could not be judged is not let through."""
    try:
        yield from measures
    except HookError as error:
        yield Measure(f"{family}: the hook failed", str(error), "an answer", False, "not")


def _costs(work: Work, place: int, measures: Iterator[Measure], on_bad_part: str) -> Iterator[Measure]:
    """A part that fails is left out, or its document dropped."""
    if on_bad_part == "drop_part":
        work.judge_part(place, measures)
    else:
        yield from measures


def _frames(part: Part, count: int, limits: Limits) -> list[np.ndarray] | None:  # uint8 [H, W, 3]
    """At most so many frames, from the first on evenly spread; None where it cannot be decoded."""
    from pipelines.ingest.decode_video import decode_video

    medium = medium_of(part)
    try:
        found = None if medium is None else decode_video(medium, fps=_FPS, max_frames=count, size=_SIDE, limits=limits)
    except MediaError:
        return None
    return None if found is None else list(found.frames)


def _picture(part: Part, rules: Pictures, limits: Limits) -> Iterator[Measure]:
    """Of a picture that cannot be read nothing but its address is said: decoding it will say why."""
    from pipelines.ingest.decode_image import image_header

    yield from pictures.address(part.uri, rules)
    medium = medium_of(part)
    if medium is not None:
        try:
            format, height, width = image_header(medium, limits)
        except MediaError:
            return
        yield from pictures.picture(format, width, height, rules)
