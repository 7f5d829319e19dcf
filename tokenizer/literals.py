"""What a layout writes in words: literals, size headers and times as text, in ids of its text codec and back.

A literal is controls and texts. Its *mark* is its first control: by it a reader finds the item; the *lead* is the text
before it, which a reader takes back off the text that came before.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tokenizer.codec import Codes, Shape

_LAST_SECOND = 360_000  # 100 hours: where times as text saturate


@dataclass(frozen=True, eq=False)
class Literal:
    """A literal in ids."""

    ids: np.ndarray  # int32 [n]
    lead: tuple[int, ...]  # text before the mark; all of it where there is no mark
    mark: int  # id of the first control, -1 where there is none
    rest: tuple[int, ...]  # after the mark

    def __len__(self) -> int:
        return len(self.ids)


NOTHING = Literal(np.zeros(0, np.int32), (), -1, ())


@dataclass(eq=False)
class Words:
    """Texts as ids of the text codec. A layout without words has a Words that is never asked."""

    codec: Any = None  # encode(str) -> Codes, decode(Codes) -> str
    start: int = 0  # first id of the text range
    _ids: dict[str, tuple[int, ...]] = field(default_factory=dict, repr=False)

    def ids(self, text: str) -> tuple[int, ...]:
        """Global ids of a text by itself: ids("16*16")."""
        found = self._ids.get(text)
        if found is None:
            found = tuple((self.codec.encode(text).codes[:, 0] + self.start).tolist())
            if len(self._ids) > 1 << 20:  # as many times as a day has in quanta: start anew, never grow for good
                self._ids.clear()
            self._ids[text] = found
        return found

    def text(self, ids: np.ndarray) -> str:
        """The inverse, of any ids of the text range."""
        codes = np.asarray(ids, np.int64).astype(np.int32).reshape(-1, 1) - self.start
        return self.codec.decode(Codes(codes, Shape(len(codes), 1)))


def literal(parts: tuple[str, ...], controls: dict[str, int], words: Words) -> Literal:
    """("\\n\\n", "<start_of_image>") -> ids of the text, then of the control."""
    ids: list[int] = []
    first = -1
    for part in parts:
        if part in controls:
            first = len(ids) if first < 0 else first
            ids.append(controls[part])
        else:
            ids += words.ids(part)
    if not ids:
        return NOTHING
    lead = ids if first < 0 else ids[:first]
    rest = [] if first < 0 else ids[first + 1 :]
    return Literal(np.array(ids, np.int32), tuple(lead), ids[first] if first >= 0 else -1, tuple(rest))


@dataclass(frozen=True)
class TimeText:
    """Times written as text, in steps of a quantum: "<{seconds} seconds>" with 0.1 s -> "<1.5 seconds>"."""

    form: str
    quantum_s: float

    @property
    def last(self) -> int:
        """The step at which times saturate."""
        return int(_LAST_SECOND / self.quantum_s) - 1

    def write(self, step: int) -> str:
        """write(15) -> "<1.5 seconds>"; "[{minutes}:{second}]" and 1 s: write(75) -> "[01:15]"."""
        if "{minutes}" in self.form:
            second = self._decimal(step)
            minutes, seconds = divmod(float(second), 60)
            whole = f"{seconds:0{self.places + 3 if self.places else 2}.{self.places}f}"
            return self.form.replace("{minutes}", f"{int(minutes):02}").replace("{second}", whole)
        return self.form.replace("{seconds}", self._decimal(step))

    def read(self, text: str) -> int | None:
        """The step that is written so, or None."""
        found = self._pattern().fullmatch(text)
        if not found:
            return None
        if "{minutes}" in self.form:
            seconds = int(found["minutes"]) * 60 + float(found["second"])
        else:
            seconds = float(found["seconds"])
        step = round(seconds / self.quantum_s)
        return step if 0 <= step <= self.last and self.write(step) == text else None

    def _decimal(self, step: int) -> str:
        return f"{step * self.quantum_s:.{self.places}f}"

    @property
    def places(self) -> int:
        """Decimals that tell two steps apart: 0.1 -> 1, 0.25 -> 2, 1 -> 0."""
        return next((n for n in range(6) if abs(round(self.quantum_s, n) - self.quantum_s) < 1e-9), 6)

    def _pattern(self) -> re.Pattern[str]:
        escaped = re.escape(self.form)
        for name in ("seconds", "minutes", "second"):
            escaped = escaped.replace(re.escape("{" + name + "}"), rf"(?P<{name}>\d{{1,7}}(?:\.\d{{1,6}})?)")
        return re.compile(escaped)


@dataclass(frozen=True)
class SizeText:
    """A grid written as text: "{h}*{w}" -> "16*16"."""

    form: str

    def write(self, h: int, w: int) -> str:
        return self.form.replace("{h}", str(h)).replace("{w}", str(w))

    def read(self, text: str) -> tuple[int, int] | None:
        """(h, w), or None where the text is not exactly what `write` gives."""
        escaped = re.escape(self.form)
        for name in ("h", "w"):
            escaped = escaped.replace(re.escape("{" + name + "}"), rf"(?P<{name}>\d{{1,6}})", 1)
            escaped = escaped.replace(re.escape("{" + name + "}"), rf"(?P={name})")
        found = re.fullmatch(escaped, text)
        if not found:
            return None
        h, w = int(found["h"]), int(found["w"])
        return (h, w) if h and w and self.write(h, w) == text else None
