"""A folder tree of HTML pages: text and inline media in the order of the page. The home of selectolax.

SVG drawings that the recipe includes (`include = ["*.svg"]`) are read as pages too: for the words in them.
Media are local files under the source's root, or `data:` addresses; nothing is fetched. An image's alt text comes
before it as its caption (a group). Boilerplate is what the recipe's `skip` selectors say, nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator
from selectolax.lexbor import LexborHTMLParser, LexborNode

from pipelines.ingest.document import Document, Dropped, Part
from pipelines.ingest.files import AUDIO, IMAGE, REMOTE, VIDEO, data_address, decode_text, read_bytes
from pipelines.ingest.folder import NO_SOURCE, UNREFERRED, Folder, language_tag, matches, settings_of, uri_of
from pipelines.ingest.media import EMPTY, MISSING, Limits, MediaError
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


class HtmlOptions(CommonOptions):
    """The keys of a `format = "html"` source."""

    encoding: str = Field("", description="of all pages; empty: what each declares, else UTF-8")
    skip: tuple[str, ...] = Field(
        ("nav",), description='CSS selectors of what is left out with all inside it, as "div.navheader"'
    )

    @field_validator("skip")
    @classmethod
    def _are_selectors(cls, selectors: tuple[str, ...]) -> tuple[str, ...]:
        page = LexborHTMLParser("<p></p>")
        for selector in selectors:
            try:
                page.css(selector)
            except Exception:
                raise ValueError(f"{selector!r} is not a CSS selector") from None
        return selectors


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
        for piece in _pieces(page):
            if isinstance(piece, str):
                parts.append(Part("text", text=piece, uri=uri_of(input.path)))
                continue
            found = self._media(input.path, piece, len(parts))
            if isinstance(found, Dropped):
                yield found
                parts += [Part("text", text=piece.alt, uri=uri_of(input.path))] if piece.alt else []
            elif piece.alt:
                group = len(parts)
                caption = Part("text", text=piece.alt, uri=uri_of(input.path), group=group, group_role="caption")
                parts += [caption, _in_group(found, group)]
            else:
                parts.append(found)
        if not parts:
            yield Dropped(self.name, uri_of(input.path), "ingest", EMPTY, "no text and no media on the page")
            return
        title = page.css_first("title")
        words = " ".join(title.text().split()) if title is not None else ""
        yield self.folder.document(
            self.name,
            input.path,
            parts,
            language=self.folder.fact(input.path).language or _declared_language(page),
            metadata={"title": words} if words else {},
        )

    def leftovers(self) -> list[Dropped]:
        pages = self._pages()
        claimed = set(pages)
        for path in pages:
            try:
                pieces = list(_pieces(self._page(path)))
            except MediaError:
                continue
            referred = (self.folder.resolve(path, piece.src) for piece in pieces if isinstance(piece, _Media))
            claimed.update(file for file in referred if file is not None)
        return self.folder.leftovers(self.name, claimed, lambda path: UNREFERRED if _is_media(path) else NO_SOURCE)

    def _pages(self) -> list[str]:
        """By ending; an .svg only where the recipe asks for it, as it is an image elsewhere."""
        named = matches("a.svg", self.folder.options.include)
        return self.folder.of_suffix((*_PAGES, ".svg") if named else _PAGES)

    def _page(self, path: str) -> LexborHTMLParser:
        options = self.folder.options
        assert isinstance(options, HtmlOptions)
        text = decode_text(read_bytes(self.folder.path(path), self.limits), options.encoding, declared=True)
        page = LexborHTMLParser(text)
        drawings = () if path.lower().endswith(".svg") else ("svg",)
        for selector in (*options.skip, *drawings):
            for node in page.css(selector):
                node.decompose()
        return page

    def _media(self, page: str, media: _Media, place: int) -> Part | Dropped:
        if media.src.startswith("data:"):
            uri = uri_of(page, f"data-{place}")
            try:
                return Part(media.kind, data=data_address(media.src, self.limits), uri=uri)
            except MediaError as error:
                return Dropped(self.name, uri, "ingest", error.reason, error.detail)
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:|//", media.src):
            return Dropped(self.name, media.src[:500], "ingest", REMOTE, f"in {uri_of(page)}")
        file = self.folder.resolve(page, media.src)
        if file is None:
            return Dropped(self.name, uri_of(page), "ingest", MISSING, f"{media.src[:200]} is not in the folder")
        return Part(media.kind, path=self.folder.path(file), uri=uri_of(file))


@dataclass(frozen=True)
class _Media:
    kind: str
    src: str
    alt: str


def _pieces(page: LexborHTMLParser) -> Iterator[str | _Media]:
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
            yield _Media(_MEDIA[tag], src, " ".join((node.attributes.get("alt") or "").split()))
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


def _declared_language(page: LexborHTMLParser) -> str:
    root = page.css_first("html")
    return (
        language_tag(root.attributes.get("lang") or root.attributes.get("xml:lang") or "") if root is not None else ""
    )


def _is_media(path: str) -> bool:
    return path.lower().endswith((*IMAGE, *AUDIO, *VIDEO))


def _in_group(part: Part, group: int) -> Part:
    return Part(part.kind, data=part.data, path=part.path, uri=part.uri, group=group, group_role="target")
