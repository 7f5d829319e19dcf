"""PDF files: the text of the pages with the pictures in their places, or each page as a picture. The home of pypdfium2.

A page's text comes as PDFium orders it; a picture stands before the first line that lies below its middle (columns are
not told apart). A document is a file. A picture is kept as its own JPEG bytes where it is one, else as PNG.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from pipelines.ingest.document import Document, Dropped, Part
from pipelines.ingest.files import has_surrogate
from pipelines.ingest.folder import Folder, settings_of, uri_of
from pipelines.ingest.media import (
    CANNOT_DECODE,
    EMPTY,
    OVER_LIMIT,
    Limits,
    MediaError,
    Meter,
    one_line,
    opened,
    refused,
)
from pipelines.ingest.source import CommonOptions, Input

_FILES = (".pdf",)
_MOST_PICTURES = 1000  # of one page
TOO_SMALL = "too small"  # the ledger's reason


class PdfOptions(CommonOptions):
    """The keys of a `format = "pdf"` source."""

    pages: Literal["text", "images"] = Field(
        "text", description='"text": text with the pictures in place; "images": a picture of each page'
    )
    dpi: int = Field(144, ge=18, le=600, description="dots an inch of pages as images")
    max_pages: int = Field(2000, ge=1, description="pages read of a file; those after are a ledger line")
    min_side: int = Field(
        16, ge=1, description="pixels on the shorter side of the smallest picture that is taken; others are counted"
    )


@dataclass(frozen=True)
class PdfSource:
    """See the module docstring."""

    name: str
    folder: Folder
    limits: Limits
    Options: ClassVar = PdfOptions

    @property
    def root(self) -> Path:
        return self.folder.root

    def settings(self) -> dict[str, Any]:
        return settings_of("pdf", self.folder)

    def inputs(self) -> list[Input]:
        return [Input(path, (path,), self.folder.size(path)) for path in self.folder.of_suffix(_FILES)]

    def read(self, input: Input) -> Iterator[Document | Dropped]:
        import pypdfium2

        path, parts = input.path, list[Part]()
        meter = Meter(self.limits.max_text_bytes, "in a document (max_bytes / 16)")
        facts: dict[str, str] = {}
        small = Counter[str]()
        try:
            with opened(self.folder.path(path), self.limits) as file:
                pdf = _open(file.read())
                try:
                    facts = _facts(pdf)
                    for found in self._pages(path, pdf, meter, small):
                        if isinstance(found, Dropped):
                            yield found
                        else:
                            parts.append(found)
                finally:
                    pdf.close()
        except MediaError as error:
            yield Dropped(self.name, uri_of(path), "ingest", error.reason, error.detail)
            if not parts and not small:
                return
        except pypdfium2.PdfiumError as error:
            yield Dropped(self.name, uri_of(path), "ingest", CANNOT_DECODE, one_line(error))
        if small:
            detail = f"{small.total()} pictures under min_side = {self._options.min_side} pixels"
            yield Dropped(self.name, uri_of(path), "ingest", TOO_SMALL, detail)
        if parts:
            yield self.folder.document(self.name, path, parts, metadata=facts)
        else:
            yield Dropped(self.name, uri_of(path), "ingest", EMPTY, "no text and no picture on its pages")

    def leftovers(self) -> list[Dropped]:
        return self.folder.leftovers(self.name, set(self.folder.of_suffix(_FILES)))

    @property
    def _options(self) -> PdfOptions:
        assert isinstance(self.folder.options, PdfOptions)
        return self.folder.options

    def _pages(self, path: str, pdf: Any, meter: Meter, small: Counter[str]) -> Iterator[Part | Dropped]:
        """The parts of all pages; pictures under min_side are counted in `small`, by page.

        Raises MediaError where the document is too large to go on.
        """
        most = self._options.max_pages
        for number in range(min(len(pdf), most)):
            uri = uri_of(path, f"page={number + 1}")
            try:
                page = pdf[number]
                try:
                    yield from self._page(page, uri, meter, small)
                finally:
                    page.close()
            except MediaError as error:
                if meter.left < 0:
                    raise
                yield Dropped(self.name, uri, "ingest", error.reason, error.detail)
            except Exception as error:  # PdfiumError, ValueError, OSError of pictures ...
                yield Dropped(self.name, uri, "ingest", CANNOT_DECODE, refused(error).detail)
        if len(pdf) > most:
            yield Dropped(self.name, uri_of(path), "ingest", OVER_LIMIT, f"{len(pdf):,} pages, max_pages is {most:,}")

    def _page(self, page: Any, uri: str, meter: Meter, small: Counter[str]) -> Iterator[Part | Dropped]:
        if self._options.pages == "images":
            data = self._drawn(page)
            meter.add(len(data))
            yield Part("image", data=data, uri=uri)
            return
        text, tops = _text(page, self.limits)
        meter.add(len(text))
        begin = 0
        pictures = self._pictures(page, uri, tops, meter, small)
        for place, part in sorted(pictures, key=lambda pair: pair[0]):
            if isinstance(part, Dropped):
                yield part
                continue
            if before := text[begin:place].strip():
                yield Part("text", text=before, uri=uri)
            yield part
            begin = place
        if rest := text[begin:].strip():
            yield Part("text", text=rest, uri=uri)

    def _drawn(self, page: Any) -> bytes:
        """The page as PNG. Raises MediaError."""
        scale = self._options.dpi / 72
        width, height = page.get_size()
        self._check_size(width * scale, height * scale)
        return _png(page.render(scale=scale))

    def _pictures(
        self, page: Any, uri: str, tops: list[tuple[int, float]], meter: Meter, small: Counter[str]
    ) -> Iterator[Any]:
        """(place in the text, Part or Dropped) of each picture."""
        from pypdfium2 import raw

        pictures = page.get_objects(filter=(raw.FPDF_PAGEOBJ_IMAGE,), max_depth=4)
        for number, picture in enumerate(pictures):
            if number >= _MOST_PICTURES:
                yield tops[-1][0] if tops else 0, Dropped(self.name, uri, "ingest", OVER_LIMIT, "pictures on a page")
                return
            place = 0
            try:
                _, bottom, _, top = picture.get_bounds()
                middle = (bottom + top) / 2
                place = next((index for index, y in tops if y < middle), tops[-1][0] if tops else 0)
                width, height = picture.get_px_size()
                if min(width, height) < self._options.min_side:
                    small[uri] += 1
                    continue
                self._check_size(width, height)
                data = _picture(picture)
                meter.add(len(data))
                yield place, Part("image", data=data, uri=f"{uri}&picture={number}")
            except MediaError as error:
                if meter.left < 0:
                    raise
                yield place, Dropped(self.name, f"{uri}&picture={number}", "ingest", error.reason, error.detail)
            except Exception as error:  # PdfiumError, and what pictures that lie on their size raise
                detail = refused(error).detail
                yield place, Dropped(self.name, f"{uri}&picture={number}", "ingest", CANNOT_DECODE, detail)

    def _check_size(self, width: float, height: float) -> None:
        if not width * height <= self.limits.max_pixels:
            raise MediaError(
                OVER_LIMIT, f"{width:.0f} x {height:.0f} pixels, the limit max_pixels is {self.limits.max_pixels:,}"
            )


def _open(data: bytes) -> Any:
    import pypdfium2

    try:
        return pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:  # passwords too
        raise MediaError(CANNOT_DECODE, one_line(error)) from None


def _facts(pdf: Any) -> dict[str, str]:
    """Title and author, where the file says them."""
    import pypdfium2

    try:
        found = pdf.get_metadata_dict()
    except (pypdfium2.PdfiumError, ValueError):  # ValueError: words that are no UTF-16
        return {}
    words = {key.lower(): " ".join(str(found.get(key) or "").split())[:500] for key in ("Title", "Author")}
    return {key: word for key, word in words.items() if word and not has_surrogate(word)}


def _text(page: Any, limits: Limits) -> tuple[str, list[tuple[int, float]]]:
    """(the page's text, (place of its first letter, height of its middle on the page) of each line and of the end)."""
    layer = page.get_textpage()
    try:
        count = layer.count_chars()
        if count > limits.max_text_bytes:
            raise MediaError(OVER_LIMIT, f"{count:,} letters on a page")
        if count <= 0:
            return "", []
        text = layer.get_text_range(0, count).replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\ufffe", "-")
        tops = list(_lines(layer, text, count))
        return text, [*tops, (len(text), float("-inf"))]
    finally:
        layer.close()


def _lines(layer: Any, text: str, count: int) -> Iterator[tuple[int, float]]:
    """(place, height of the middle) of each line. PDFium counts a line's end as two letters, "\\r\\n"."""
    place = index = 0
    for line in text.split("\n"):
        if line.strip() and index < count:
            _, bottom, _, top = layer.get_charbox(min(index + len(line) - len(line.lstrip()), count - 1))
            yield place, (bottom + top) / 2
        place += len(line) + 1
        index += len(line) + 2


def _picture(picture: Any) -> bytes:
    """The picture's own JPEG file where it is one, else PNG."""
    filters = picture.get_filters(skip_simple=True)
    if filters == ["DCTDecode"]:
        data = bytes(picture.get_data(decode_simple=True))
        if data.startswith(b"\xff\xd8"):
            return data
    return _png(picture.get_bitmap(render=False))


def _png(bitmap: Any) -> bytes:
    out = io.BytesIO()
    bitmap.to_pil().convert("RGB").save(out, "PNG")
    return out.getvalue()
