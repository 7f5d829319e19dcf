"""Text that spells a delimiter, in any script or normal form, never becomes a control id."""

import unicodedata
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenizer.codec import spec_of
from tokenizer.codecs import load_codec
from tokenizer.item import Item
from tokenizer.layout import Layout, load_layout, shipped_layouts

SPM = load_codec("text-spm16k")
CODECS = [spec_of(load_codec(name)) for name in ("text-spm16k", "image-fsq16", "speech-melfsq")]
LAYOUTS = {name: load_layout(name).bind(CODECS) for name in shipped_layouts()}
# Look-alikes of ASCII marks and letters, in other scripts and widths.
FULL_WIDTH = str.maketrans({chr(c): chr(c + 0xFEE0) for c in range(0x21, 0x7F)})
CYRILLIC = str.maketrans("aceopxyi", "асеорхуі")
BRACKETS = str.maketrans("<>|", "‹›ǀ")


def spellings(control: str) -> Iterator[str]:
    """A control string as a text may spell it."""
    yield control
    yield control.upper()
    yield control.translate(FULL_WIDTH)
    yield control.translate(CYRILLIC)
    yield control.translate(BRACKETS)
    yield "\u200d".join(control)
    yield control[:1] + "\u2060" + control[1:]
    yield control + "\u0301"
    yield control + control
    yield control.replace("_", "\u2581").replace(" ", "\u2581")
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        yield unicodedata.normalize(form, control.translate(FULL_WIDTH))


def control_ids(layout: Layout) -> list[int]:
    """Every id that means a delimiter, and every reserved place for one."""
    return [*layout.controls.values(), *layout.vocabulary["control"], *layout.vocabulary["size"]]


def check(layout: Layout, words: str) -> None:
    """The words as one text item: no control in their stretch of the row, and they come back."""
    codes = SPM.encode(words).codes
    row = layout.render([Item("text", "text-spm16k@1", codes)])
    tokens = row.tokens if row.tokens.ndim == 1 else row.tokens[:, 0]
    here = tokens[row.kinds == 1] if row.tokens.ndim == 1 else tokens[1:]
    np.testing.assert_array_equal(here, codes[:, 0] + layout.vocabulary["text"].start)
    assert not np.isin(here, control_ids(layout)).any()
    found, problems = layout.parse(row.tokens)
    assert not problems
    assert "".join(SPM.decode(_codes(item)) for item in found) == words


def _codes(item: Item):
    from tokenizer.codec import Codes, Shape

    return Codes(item.codes, Shape(len(item.codes), 1))


@pytest.mark.parametrize("name", shipped_layouts())
def test_no_spelling_of_any_control_makes_one(name: str) -> None:
    layout = LAYOUTS[name]
    for control in layout.controls:
        for spelling in spellings(control):
            check(layout, spelling)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(shipped_layouts()), st.data())
def test_nor_in_the_middle_of_any_text(name: str, data: st.DataObject) -> None:
    layout = LAYOUTS[name]
    control = data.draw(st.sampled_from(sorted(layout.controls)))
    spelling = data.draw(st.sampled_from(list(spellings(control))))
    text = st.text(st.characters(blacklist_categories=("Cs",)), max_size=8)
    check(layout, data.draw(text) + spelling + data.draw(text))
