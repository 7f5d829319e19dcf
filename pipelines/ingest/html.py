"""A folder tree of HTML pages: text and inline media in the order of the page. The home of selectolax.

SVG drawings that the recipe includes (`include = ["*.svg"]`) are read as pages too: for the words in them.
Media are local files under the source's root, or `data:` addresses; nothing is fetched. An image's alt text comes
before it as its caption (a group). Boilerplate is what the recipe's `skip` selectors say, nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator
from selectolax.lexbor import LexborHTMLParser, LexborNode, SelectolaxError

from pipelines.ingest.document import Document, Dropped, Part
from pipelines.ingest.files import decode_text, read_bytes
from pipelines.ingest.folder import Folder, language_tag, matches, settings_of, uri_of
from pipelines.ingest.media import EMPTY, Limits, MediaError
from pipelines.ingest.reference import References
from pipelines.ingest.rows import leftovers_of
from pipelines.ingest.source import CommonOptions, Input

_PAGES = (".html", ".htm", ".xhtml")
_NEVER = ("head", "script", "style", "template", "noscript", "iframe", "object", "defs", "select", "textarea")
_BLOCKS = frozenset((
    "address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "details", "dialog", "dir",
    "div", "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6",
    "header", "hgroup", "hr", "li", "main", "menu", "nav", "ol", "p", "pre", "search", "section", "summary",
    "table", "tbody", "tfoot", "thead", "tr", "ul", "text", "flowroot", "flowpara",
))  # fmt: skip
_CLOSE = frozenset(
    ["li", "dt", "dd", "tr", "flowpara"]
)  # parted from the next by one line end, other blocks by an empty line
_MEDIA = {"img": "image", "audio": "audio", "video": "video"}


def are_selectors(selectors: tuple[str, ...]) -> tuple[str, ...]:
    """The selectors, if each can be read. Raises ValueError."""
    page = LexborHTMLParser("<p></p>")
    for selector in selectors:
        try:
            page.css(selector)
        except (SelectolaxError, ValueError):  # ValueError: lone surrogates
            raise ValueError(f"{selector!r} is not a CSS selector") from None
    return selectors


class HtmlOptions(CommonOptions):
    """The keys of a `format = "html"` source."""

    encoding: str = Field("", description="of all pages; empty: what each declares, else UTF-8")
    skip: tuple[str, ...] = Field(
        ("nav",), description='CSS selectors of what is left out with all inside it, as "div.navheader"'
    )

    mirror: str = Field("", description="folder with copies of remote media, as `wget -x` writes them: HOST/PATH")

    _selectors = field_validator("skip")(are_selectors)


@dataclass(frozen=True)
class HtmlSource:
    """See the module docstring."""

    name: str
    folder: Folder
    limits: Limits
    Options: ClassVar = HtmlOptions
    follows: ClassVar = True

    @property
    def root(self) -> Path:
        return self.folder.root

    def settings(self) -> dict[str, Any]:
        return settings_of("html", self.folder)

    def inputs(self) -> list[Input]:
        return [Input(path, (path,), self.folder.size(path)) for path in self._pages()]

    def read(self, input: Input) -> Iterator[Document | Dropped]:
        try:
            page = self._page(input.path)
        except MediaError as error:
            yield Dropped(self.name, uri_of(input.path), "ingest", error.reason, error.detail)
            return
        parts = []
        references = References(self.name, self.folder, self.limits, self._options.mirror)
        for found in page_parts(page, uri_of(input.path), _from_folder(references, input.path)):
            if isinstance(found, Dropped):
                yield found
            else:
                parts.append(found)
        if not parts:
            yield Dropped(self.name, uri_of(input.path), "ingest", EMPTY, "no text and no media on the page")
            return
        yield self.folder.document(
            self.name,
            input.path,
            parts,
            language=self.folder.fact(input.path).language or declared_language(page),
            metadata=title_of(page),
        )

    def leftovers(self, shown: Collection[str] | None = None) -> list[Dropped]:
        return leftovers_of(self, self._pages(), shown)

    def _pages(self) -> list[str]:
        """By ending; an .svg only where the recipe asks for it, as it is an image elsewhere."""
        named = matches("a.svg", self.folder.options.include)
        return self.folder.of_suffix((*_PAGES, ".svg") if named else _PAGES)

    @property
    def _options(self) -> HtmlOptions:
        assert isinstance(self.folder.options, HtmlOptions)
        return self.folder.options

    def _page(self, path: str) -> LexborHTMLParser:
        drawing = path.lower().endswith(".svg")
        data = read_bytes(self.folder.path(path), self.limits)
        return parse_page(data, self._options.encoding, self._options.skip, drawing=drawing)


@dataclass(frozen=True)
class Media:
    """A picture, sound or video that a page names."""

    kind: str
    src: str
    alt: str


def parse_page(data: bytes, encoding: str = "", skip: Iterable[str] = (), *, drawing: bool = False) -> LexborHTMLParser:
    """A page without what the selectors name, and without drawings in it. Raises MediaError where it is no text."""
    page = LexborHTMLParser(decode_text(data, encoding, declared=True))
    for selector in (*skip, *(() if drawing else ("svg",))):
        for node in page.css(selector):
            node.decompose()
    return page


def page_parts(
    page: LexborHTMLParser, uri: str, follow: Callable[[Media, int], Part | Dropped]
) -> Iterator[Part | Dropped]:
    """The parts of a page in its order. `follow` gives a medium, of place so many; an alt text is its caption."""
    place = 0
    for piece in _pieces(page):
        if isinstance(piece, str):
            found = [Part("text", text=piece, uri=uri)]
        else:
            medium = follow(piece, place)
            caption = [Part("text", text=piece.alt, uri=uri)] if piece.alt else []
            if isinstance(medium, Dropped):
                yield medium
                found = caption
            elif caption:
                found = [
                    replace(caption[0], group=place, group_role="caption"),
                    replace(medium, group=place, group_role="target"),
                ]
            else:
                found = [medium]
        yield from found
        place += len(found)


def title_of(page: LexborHTMLParser) -> dict[str, str]:
    """{"title": ...} where the page has one."""
    title = page.css_first("title")
    words = " ".join(title.text().split()) if title is not None else ""
    return {"title": words} if words else {}


def _from_folder(references: References, path: str) -> Callable[[Media, int], Part | Dropped]:
    def follow(media: Media, place: int) -> Part | Dropped:
        uri = uri_of(path, f"data-{place}") if media.src.startswith("data:") else uri_of(path)
        return references.part(path, media.src, media.kind, uri)

    return follow


def _pieces(page: LexborHTMLParser) -> Iterator[str | Media]:
    """Texts and media in document order. White space folds as a browser folds it, except in <pre>."""
    text = _Text()
    for node, opens in _events(page.root):
        tag = node.tag
        if tag == "-text":
            text.add((node.text_content or "") if opens else "")
        elif tag == "pre":
            text.end_block()
            text.keep += 1 if opens else -1
        elif tag == "br" and opens:
            text.add_line_end()
        elif tag in ("td", "th") and not opens:
            text.add_tab()
        elif tag in _BLOCKS:
            text.end_block(1 if tag in _CLOSE else 2)
        elif tag in _MEDIA and opens:
            src = _source(node)
            if not src:
                continue
            if written := text.take():
                yield written
            yield Media(_MEDIA[tag], src, " ".join((node.attributes.get("alt") or "").split()))
    if written := text.take():
        yield written


def _events(root: LexborNode | None) -> Iterator[tuple[LexborNode, bool]]:
    """(node, opens) in document order, by a stack of our own: pages nest deeper than Python's."""
    stack = [(root, True)] if root is not None else []
    while stack:
        node, opens = stack.pop()
        if node.tag in _NEVER:
            continue
        yield node, opens
        if not opens:
            continue
        stack.append((node, False))
        children, child = [], node.child
        while child is not None:
            children.append((child, True))
            child = child.next
        stack += reversed(children)


class _Text:
    """Text being put together; `breaks` line ends are owed before the next word."""

    def __init__(self) -> None:
        self.keep = 0  # depth of <pre>
        self._pieces: list[str] = []
        self._breaks = 0
        self._space = False

    def add(self, text: str) -> None:
        if self.keep > 0:
            if text:
                self._owed()
                self._pieces.append(text)
            return
        words = text.split()
        if not words:
            self._space = self._space or bool(text)
            return
        self._space = self._space or text[0].isspace()
        self._owed()
        self._pieces.append(" ".join(words))
        self._space = text[-1].isspace()

    def add_line_end(self) -> None:
        self._breaks = max(self._breaks, 1)

    def add_tab(self) -> None:
        self._space = True

    def end_block(self, breaks: int = 2) -> None:
        self._breaks = max(self._breaks, breaks)

    def take(self) -> str:
        """What was written so far, "" where nothing; starts anew."""
        text = "".join(self._pieces).strip()
        self._pieces, self._breaks, self._space = [], 0, False
        return text

    def _owed(self) -> None:
        if self._pieces:
            self._pieces.append("\n" * self._breaks if self._breaks else " " if self._space else "")
        self._breaks, self._space = 0, False


def _source(node: LexborNode) -> str:
    src = node.attributes.get("src") or ""
    if not src and node.tag != "img":
        first = node.css_first("source[src]")
        src = (first.attributes.get("src") or "") if first is not None else ""
    return src.strip()


def declared_language(page: LexborHTMLParser) -> str:
    root = page.css_first("html")
    return (
        language_tag(root.attributes.get("lang") or root.attributes.get("xml:lang") or "") if root is not None else ""
    )
