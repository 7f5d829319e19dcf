"""C4's rules (Raffel et al. 2020): lines that are no sentences go, then pages with too little left or with code.

Where sources disagree: the numbers are those of the code that made the published set (TensorFlow Datasets'
c4_utils.py: 3 sentences a page, 5 words a line); the first version of the paper and datatrove say 5 and 3. A line
that ends in an ellipsis goes, as in that code. To its end marks `. ? ! "` come those of other scripts; datatrove adds
`'`. Sentences are counted at end marks, not by a trained splitter. C4's list of bad words is a file of yours:
[curate.lists]. FineWeb runs datatrove's filter without its rule on end marks: require_end_mark = false,
min_sentences = 5, min_line_words = 3.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from pydantic import Field

from pipelines.curate.measure import Measure, at_least
from pipelines.curate.table import Table
from pipelines.curate.words import Text

_END_MARKS = (".", "?", "!", '"', "”", "。", "？", "！", "」", "؟", "۔", "।")
_ELLIPSES = ("...", "…")
_POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
_SENTENCE = re.compile(r"[^\s.?!。？！؟۔।](?:[.?!](?=[\s\"'”’)\]]|$)|[。？！؟۔।])")
_CITATION = re.compile(r"\[[0-9]{0,4}\]|\[edit\]|\[citation needed\]")


class C4(Table):
    """C4's rules. Lines are taken out of text parts; parts whose words have times keep theirs."""

    require_end_mark: bool = Field(default=True, description="a line must end in an end mark, and not in an ellipsis")
    min_line_words: int = Field(default=5, ge=0, description="of a line")
    max_word: int = Field(default=1000, ge=1, description="characters of the longest word of a line")
    javascript: bool = Field(default=True, description="lines with the word `javascript` go")
    policies: bool = Field(default=True, description="lines about cookies, terms of use and privacy policies go")
    citations: bool = Field(default=True, description="`[1]`, `[edit]` and `[citation needed]` are taken out of lines")
    min_sentences: int = Field(default=3, ge=0, description="of a document, in the lines that are left")
    lorem_ipsum: bool = Field(default=True, description="documents with `lorem ipsum` are dropped")
    curly_bracket: bool = Field(default=True, description="documents with `{` are dropped")


def c4_lines(text: Text, rules: C4) -> tuple[str, Counter[str]]:
    """The lines that are kept, joined again, and how many went for which reason.

    A text of which every line is kept comes back as it is, empty lines too.
    """
    kept, gone = [], Counter[str]()
    for raw in text.text.splitlines():
        line = raw.strip()
        clean = _CITATION.sub("", line) if rules.citations else line
        if why := line and _fault(Text(clean, text.language), rules):
            gone[why] += 1
            continue
        gone["c4: lines with citation marks taken out"] += clean != line
        kept.append(clean if clean != line else raw)
    gone = +gone
    return (re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip() if gone else text.text), gone


def c4_document(text: Text, rules: C4) -> Iterator[Measure]:
    """The rules on what the lines left of a document."""
    lower = text.text.lower()
    if rules.lorem_ipsum:
        yield Measure("c4: lorem ipsum", lower.count("lorem ipsum"), 0, "lorem ipsum" not in lower, "at most")
    if rules.curly_bracket:
        yield Measure("c4: curly bracket", lower.count("{"), 0, "{" not in lower, "at most")
    yield at_least("c4: too few sentences", num_sentences(text), rules.min_sentences)


def num_sentences(text: Text) -> int:
    """
    >>> num_sentences(Text("One. Two at 3.5 km? 三。"))
    3
    """
    return sum(max(1, len(_SENTENCE.findall(line))) for line in text.lines)


def _fault(line: Text, rules: C4) -> str:
    """Why a line goes, "" where it stays."""
    if rules.require_end_mark and (not line.text.endswith(_END_MARKS) or line.text.endswith(_ELLIPSES)):
        return "c4: lines without an end mark"
    if line.num_words < rules.min_line_words:
        return "c4: lines of few words"
    if max(map(len, line.tokens), default=0) > rules.max_word:
        return "c4: lines with a very long word"
    lower = line.text.lower()
    if rules.javascript and "javascript" in lower:
        return "c4: lines about javascript"
    if rules.policies and any(words in lower for words in _POLICY):
        return "c4: lines about policies"
    return ""
