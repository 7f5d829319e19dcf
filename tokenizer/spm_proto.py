"""SentencePiece's two protobuf messages, as far as they are needed, read and changed without protobuf.

A `.model` is a ModelProto: its pieces are field 1, each {1: text, 2: score, 3: type}, its normaliser is field 3,
{2: compiled rules, 3: a space put in front, 4: extra white space removed}, the last two true where absent. What
`encode` gives as a serialized SentencePieceText has its pieces in field 2, each {1: text, 2: id, 3: surface, 4: begin,
5: end}, in bytes of the text as it was before normalisation. Every other field is passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

CONTROL, USER_DEFINED = 3, 4  # types of a piece


def without_symbols(model: bytes, hide: Callable[[str], bool]) -> tuple[bytes, list[tuple[str, int]]]:
    """The model with the user-defined symbols that `hide` names made control pieces, and (name, id) of all of these.

    SentencePiece matches a user-defined symbol wherever a text spells it, in the raw text and, normalised, in its
    full-width or ligature forms too; a control piece it never matches. Ids, scores and all other pieces stay.
    """
    changed = bytearray(model)
    controls = []
    for number, (start, stop) in enumerate(_messages(model, 1, 0, len(model))):
        name, kind, place = "", 1, -1
        for field, wire, begin, end in _fields(model, start, stop):
            if field == 1 and wire == 2:
                name = model[begin:end].decode("utf-8", "replace")
            elif field == 3 and wire == 0:
                kind, place = model[begin], begin  # types are below 128: one byte
        if kind == USER_DEFINED and hide(name):
            changed[place] = kind = CONTROL
        if kind == CONTROL:
            controls.append((name, number))
    return bytes(changed), controls


def piece_ends(encoded: bytes) -> list[int]:
    """Bytes of the text up to the end of each piece of a serialized SentencePieceText."""
    ends = []
    for start, stop in _messages(encoded, 2, 0, len(encoded)):
        found = [_varint(encoded, begin)[0] for field, _, begin, _ in _fields(encoded, start, stop) if field == 5]
        ends.append(found[-1] if found else 0)
    return ends


def changes_nothing(model: bytes) -> bool:
    """Whether the model's normaliser leaves each text as it is, but for U+2581 written for a space."""
    rules, prefix, trims = 0, 1, 1
    for start, stop in _messages(model, 3, 0, len(model)):
        for field, wire, begin, end in _fields(model, start, stop):
            if field == 2 and wire == 2:
                rules = end - begin
            elif field == 3 and wire == 0:
                prefix = _varint(model, begin)[0]
            elif field == 4 and wire == 0:
                trims = _varint(model, begin)[0]
    return not (rules or prefix or trims)


def _messages(data: bytes, number: int, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of each message in field `number`."""
    for field, wire, begin, end in _fields(data, start, stop):
        if field == number and wire == 2:
            yield begin, end


def _fields(data: bytes, at: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """(field, wire type, start, stop) of the value of each field of the message data[at:stop]; ValueError: damaged."""
    while at < stop:
        tag, at = _varint(data, at)
        field, wire = tag >> 3, tag & 7
        if wire == 0:
            end = _varint(data, at)[1]
        elif wire == 2:
            length, at = _varint(data, at)
            end = at + length
        elif wire in (1, 5):
            end = at + (8 if wire == 1 else 4)
        else:
            raise ValueError(f"no protobuf: wire type {wire} at byte {at}")
        if end > stop:
            raise ValueError(f"no protobuf: a field at byte {at} ends behind its message")
        yield field, wire, at, end
        at = end


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """(value, place after it)."""
    value = shift = 0
    while at < len(data):
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
    raise ValueError("no protobuf: it ends inside a number")
