"""Man pages to text: the macros of man(7) and the common ones of mdoc(7), without running groff.

Not a typesetter: no tables (tbl rows stay as they are), no user macros, no conditions but n and t. What is not known
loses its markup and keeps its words.
"""

from __future__ import annotations

import re

_CHARACTERS = {
    "em": "—", "en": "–", "hy": "-", "aq": "'", "dq": '"', "lq": "“", "rq": "”", "oq": "‘", "cq": "’", "co": "©",
    "bu": "•", "rs": "\\", "ti": "~", "ha": "^", "ga": "`", "at": "@", "sh": "#", "Do": "$", "or": "|", "ba": "|",
    "mu": "×", "di": "÷", "+-": "±", "<=": "≤", ">=": "≥", "!=": "≠", "->": "→", "<-": "←", "de": "°", "rg": "®",
    "tm": "™", "ss": "ß", "Fo": "«", "Fc": "»", "fo": "‹", "fc": "›", "la": "⟨", "ra": "⟩", "mi": "−", "sq": "□",
    ":a": "ä", ":o": "ö", ":u": "ü", ":A": "Ä", ":O": "Ö", ":U": "Ü", "'e": "é", "`e": "è", "^e": "ê", "`a": "à",
    "'a": "á", "^a": "â", "'i": "í", "'o": "ó", "^o": "ô", "'u": "ú", "`u": "ù", "~n": "ñ", ",c": "ç", "^i": "î",
}  # fmt: skip
_STRINGS = {"lq": "“", "rq": "”", "R": "®", "Tm": "™", 'L"': "“", 'R"': "”", "S": ""}

_ESCAPE = re.compile(
    r"""\\(?:
      f(?:\[[^\]]*\]|\(..|.)            # a font
    | [sm](?:\[[^\]]*\]|[+-]?\d{1,2})   # a size
    | [mMFgkn](?:\[[^\]]*\]|\(..|.)     # colours, registers
    | \*(?:\[(?P<string3>[^\]]*)\]|\((?P<string2>..)|(?P<string1>.))
    | \[(?P<name>[^\]]*)\]              # a character by name
    | \((?P<two>..)
    | [hvwlLbDoxXZzSHN]'[^']*'          # motions, drawings
    | (?P<one>.)
    )""",
    re.X | re.S,
)
_ONE = {
    "-": "-",
    "e": "\\",
    "\\": "\\",
    " ": " ",
    "~": "\u00a0",
    "0": " ",
    "t": "\t",
    "'": "'",
    "`": "`",
    ".": ".",
    "E": "\\",
}
_FONTS = {"B", "I", "SM", "SB", "R"}
_MIXED = {"BR", "RB", "BI", "IB", "IR", "RI"}
_BREAKS = {
    "PP",
    "P",
    "LP",
    "HP",
    "IP",
    "TP",
    "TQ",
    "sp",
    "RS",
    "RE",
    "Pp",
    "Bl",
    "El",
    "Bd",
    "Ed",
    "Lp",
    "EX",
    "EE",
    "SY",
    "YS",
}
_DROPPED = {
    "TH", "Dd", "Dt", "Os", "so", "ad", "hy", "nh", "na", "ft", "ps", "vs", "ll", "in", "ti", "ta", "ne", "ds",
    "nr", "rm", "rn", "als", "cc", "c2", "mso", "tr", "hw", "pl", "po", "ie", "if", "el", "ig", "de", "am", "PD",
    "DT", "UC", "AT", "OP", "TS", "TE", "T&", "Sm", "Bk", "Ek", "ss", "ev", "di", "fam", "lf", "bd",
}  # fmt: skip
_MDOC_QUOTES = {
    "Sq": "‘’",
    "Dq": "“”",
    "Qq": '""',
    "Pq": "()",
    "Bq": "[]",
    "Op": "[]",
    "Aq": "<>",
    "Brq": "{}",
    "Ql": "‘’",
}
_MDOC = {
    "Nm", "Fl", "Ar", "Cm", "Pa", "Em", "Sy", "Li", "Xr", "Ev", "Va", "Vt", "Fn", "Ic", "Nd", "No", "Ns", "Ad",
    "An", "Dv", "Er", "Fa", "Ft", "In", "Lk", "Mt", "Ms", "Tn", "Ux", "Bx", "Fx", "Nx", "St", "Ta",
    *_MDOC_QUOTES,
}  # fmt: skip
_WIDE = "[\u3000-\u30ff\u3400-\u9fff\uff00-\uff60]"
_CONDITION = re.compile(r"^[.'][ \t]*(?:if|ie|el)[ \t]*(?P<test>!?[nteo]\b|\S*)[ \t]*(?P<rest>.*)$")


def to_text(source: str) -> str:
    """The page as text: headings on their own line, paragraphs parted by an empty line, lines joined.

    >>> print(to_text('.TH LS 1\\n.SH NAME\\nls \\\\- list\\n.PP\\n.B ls\\nlists\\n.IR files .'))
    NAME
    <BLANKLINE>
    ls - list
    <BLANKLINE>
    ls lists files.
    """
    page = _Page()
    for line in _plain_lines(source):
        page.line(line)
    return page.text()


def _plain_lines(source: str) -> list[str]:
    """Lines without comments, macro definitions, skipped blocks and the branches for typesetters (`t`)."""
    lines, kept, i = source.replace("\\\n", "").split("\n"), [], 0
    while i < len(lines):
        line = re.sub(r'\\["#].*', "", lines[i])
        i += 1
        if line[:1] in ".'" and (found := re.match(r"[.'][ \t]*(de1?|am1?|ig)\b[ \t]*(\S*)[ \t]*(\S*)", line)):
            end = "." + (
                found[3] if found[1] != "ig" and found[3] else found[2] if found[1] == "ig" and found[2] else "."
            )
            while i < len(lines) and lines[i].rstrip() != end:
                i += 1
            i += 1
        elif line[:1] in ".'" and re.match(r"[.'][ \t]*(if|ie|el)\b", line):
            found = _CONDITION.match(line)
            rest = found["rest"] if found else ""
            wanted = found is not None and found["test"] in ("n", "!t")
            if rest.startswith("\\{") or "\\{" in line:
                depth, block = line.count("\\{") - line.count("\\}"), [rest.replace("\\{", "")]
                while i < len(lines) and depth > 0:
                    depth += lines[i].count("\\{") - lines[i].count("\\}")
                    block.append(lines[i].replace("\\}", "").replace("\\{", ""))
                    i += 1
                kept += [b for b in block if b.strip(". ")] if wanted else []
            elif wanted:
                kept.append(rest)
        elif line.strip() not in (".", "'", "..") and (line or lines[i - 1] == ""):
            kept.append(line)
    return kept


class _Page:
    """Paragraphs as they come; `_fill` is off between .nf and .fi, where lines stay lines."""

    def __init__(self) -> None:
        self.blocks: list[str] = []
        self._words: list[str] = []
        self._fill = True
        self._tag = False  # the next line is the tag of a .TP
        self._glue = False  # .Ns
        self._name = ""  # of .Nm
        self._link = ""

    def line(self, line: str) -> None:
        if line[:1] not in (".", "'") or len(line) < 2:
            self._text(line)
            return
        found = re.match(r"[.'][ \t]*(\S+)[ \t]*(.*)", line)
        if found:
            self._macro(found[1], found[2])

    def text(self) -> str:
        self._flush()
        return re.sub(r"\n{3,}", "\n\n", "\n\n".join(self.blocks)).strip("\n")

    def _macro(self, macro: str, rest: str) -> None:
        words = _arguments(rest)
        if macro in ("SH", "SS", "Sh", "Ss"):
            self._flush()
            self._fill, self._tag = True, False
            self.blocks += [_plain(" ".join(words))] if words else []
        elif macro in ("nf", "EX", "Bd") or macro in ("fi", "EE", "Ed"):
            self._flush()
            self._fill = macro not in ("nf", "EX", "Bd")
        elif macro == "IP" or macro == "It":
            self._flush()
            tag = (_mdoc(words) if macro == "It" else words[:1]) if words else []
            self._text(_plain(" ".join(tag)), done=True)
            self._break()
        elif macro in ("TP", "TQ"):
            self._flush()
            self._tag = True
        elif macro in _BREAKS:
            self._flush()
        elif macro == "br":
            self._break()
        elif macro in ("UR", "MT"):
            self._link = words[0] if words else ""
        elif macro in ("UE", "ME"):
            self._text(" ".join([f"⟨{_plain(self._link)}⟩", *words]), done=True)
        elif macro in _MIXED:
            self._text("".join(_plain(word) for word in words), done=True)
        elif macro in _FONTS:
            self._text(" ".join(_plain(word) for word in words), done=True)
        elif macro in _MDOC:
            if macro == "Nm":
                self._name = words[0] if words else self._name
                words = words or [self._name]
            self._text(" ".join(_mdoc([macro, *words])), done=True)
        elif macro not in _DROPPED and words:
            self._text(" ".join(_plain(word) for word in words), done=True)

    def _text(self, line: str, done: bool = False) -> None:
        text = line if done else _plain(line)
        if not text.strip():
            if not done:
                self._flush() if self._fill else self._words.append("\n")
            return
        self._words.append(
            text if not self._fill else text.strip() if not line.startswith((" ", "\t")) else "\n" + text
        )
        if not self._fill:
            self._words.append("\n")
        if self._tag:
            self._tag = False
            self._break()

    def _break(self) -> None:
        if self._words:
            self._words.append("\n")

    def _flush(self) -> None:
        if self._fill:
            # Chinese and Japanese lines are joined without a space, others with one.
            text = re.sub(rf"(?<={_WIDE})\0(?={_WIDE})", "", "\0".join(self._words)).replace("\0", " ")
            text = re.sub(r" ?\n ?", "\n", text)
        else:
            text = "".join(self._words)
        if text.strip():
            self.blocks.append(text.strip("\n").rstrip())
        self._words = []


def _plain(text: str) -> str:
    """Without escapes."""

    def one(found: re.Match[str]) -> str:
        name = found["name"] or found["two"]
        if name is not None:
            if re.fullmatch(r"u[0-9A-F]{4,6}", name) and int(name[1:], 16) < 0x110000 and name[1:2] != "D":
                return chr(int(name[1:], 16))
            return _CHARACTERS.get(name, "")
        string = found["string3"] or found["string2"] or found["string1"]
        if string is not None:
            return _STRINGS.get(string, "")
        return _ONE.get(found["one"] or "", "")

    return _ESCAPE.sub(one, text)


def _arguments(rest: str) -> list[str]:
    """A macro's arguments: parted by spaces, kept together by double quotes or by an escaped space."""
    found = re.findall(r'"((?:[^"]|"")*)"?|((?:\\.|[^\s"\\])(?:\\.|[^\s\\])*)', rest)
    return [bare if bare else quoted.replace('""', '"') for quoted, bare in found]


def _mdoc(words: list[str]) -> list[str]:
    """Words of an mdoc line whose macros may call others: flags get their dash, quotes their marks."""
    out: list[str] = []
    closing = ""
    dash = False
    for word in words:
        if word in _MDOC_QUOTES:
            out.append(_MDOC_QUOTES[word][0] + "\0")
            closing = _MDOC_QUOTES[word][1] + closing
        elif word == "Fl":
            dash = True
        elif word == "Ns":
            out.append("\0")
        elif word not in _MDOC:
            out.append(("-" if dash else "") + _plain(word))
            dash = False
    text = re.sub(r" ?\0 ?", "", " ".join(out)) + closing
    return [re.sub(r" ([.,;:)\]])(?= |$)", r"\1", text)]
