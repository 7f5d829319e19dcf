"""What the labels of encodings mean on the web: the WHATWG Encoding Standard's names and labels, section 4.2.

A browser reads `iso-8859-1` as windows-1252, `gb2312` as gb18030, and a page that calls itself UTF-16 in a tag, which
cannot be true, as UTF-8. Labels that Python reads as the standard does are not listed here.
"""

from __future__ import annotations

import codecs

_LABELS = {
    "utf-8": "unicode-1-1-utf-8 unicode11utf8 unicode20utf8 x-unicode20utf8",
    "utf-16-le": "utf-16 csunicode iso-10646-ucs-2 ucs-2 unicode unicodefeff",
    "utf-16-be": "unicodefffe",
    "cp1252": "ansi_x3.4-1968 ascii us-ascii cp819 csisolatin1 ibm819 iso-8859-1 iso-ir-100 iso8859-1 iso88591"
    " iso_8859-1 iso_8859-1:1987 l1 latin1 x-cp1252",
    "cp1250": "x-cp1250",
    "cp1251": "x-cp1251",
    "cp1253": "x-cp1253",
    "cp1254": "csisolatin5 iso-8859-9 iso-ir-148 iso8859-9 iso88599 iso_8859-9 iso_8859-9:1989 l5 latin5 x-cp1254",
    "cp1255": "x-cp1255",
    "cp1256": "x-cp1256",
    "cp1257": "x-cp1257",
    "cp1258": "x-cp1258",
    "cp874": "dos-874 iso-8859-11 iso8859-11 iso885911 tis-620 windows-874",
    "iso8859-8": "csiso88598i iso-8859-8-i logical visual",
    "koi8-r": "koi koi8",
    "koi8-u": "koi8-ru",
    "mac-roman": "csmacintosh mac macintosh x-mac-roman",
    "mac-cyrillic": "x-mac-cyrillic x-mac-ukrainian",
    "gb18030": "chinese csgb2312 csiso58gb231280 gb2312 gb_2312 gb_2312-80 gbk iso-ir-58 x-gbk",
    "big5hkscs": "big5 big5-hkscs cn-big5 csbig5 x-x-big5",
    "cp932": "csshiftjis ms932 ms_kanji shift-jis shift_jis sjis windows-31j x-sjis",
    "euc-jp": "cseucpkdfmtjapanese x-euc-jp",
    "cp949": "cseuckr csksc56011987 euc-kr iso-ir-149 korean ks_c_5601-1987 ks_c_5601-1989 ksc5601 ksc_5601"
    " windows-949",
}  # fmt: skip
_CODECS = {label: codec for codec, labels in _LABELS.items() for label in labels.split()}
_IN_A_TAG = {"x-user-defined": "cp1252"}
_CONTROLS = "mmdata-controls"


def codec_of(label: str, *, in_tag: bool = False) -> str:
    """Python's codec for a label, or the label where they say the same or it is unknown. in_tag: the page itself
    declares it, in bytes that could be read, so it is of neither UTF-16 nor UTF-32.

    >>> codec_of("ISO-8859-1"), codec_of("utf-16"), codec_of("utf-16", in_tag=True), codec_of("koi8-r")
    ('cp1252', 'utf-16-le', 'utf-8', 'koi8-r')
    """
    name = label.strip().lower()
    codec = _CODECS.get(name, _IN_A_TAG.get(name, name) if in_tag else name)
    return "utf-8" if in_tag and _is_wide(codec) else codec


def errors_of(codec: str) -> str:
    """How bytes are read that a codec of `codec_of` has nothing for: the standard has control characters in the gaps
    of Windows' one-byte encodings; else they are an error."""
    return _CONTROLS if codec == "cp874" or codec.startswith(("cp125", "windows-125")) else "strict"


def _is_wide(codec: str) -> bool:
    try:
        return codecs.lookup(codec).name.startswith(("utf-16", "utf-32"))
    except LookupError:
        return False


def _as_control(error: UnicodeError) -> tuple[str, int]:
    if isinstance(error, UnicodeDecodeError) and 0x80 <= error.object[error.start] < 0xA0:
        return chr(error.object[error.start]), error.start + 1
    raise error


codecs.register_error(_CONTROLS, _as_control)
