"""A text as words: what is left of it once case, white space, punctuation and forms of one letter do not count.

Words are runs of letters, marks and digits of the NFKC form, case-folded. Where a script puts no space between words
(Han, kana, Thai, Lao, Khmer, Myanmar, ...), each character is one. n-grams of words are 64-bit hashes; MinHash
signatures (rensa) are made of them, and evaluation texts are found by them.
"""

from __future__ import annotations

import functools
import hashlib
import unicodedata

import numpy as np

SHINGLE = 5  # words, as FineWeb and most others
NUM_HASHES = 112
BANDS, ROWS = 14, 8  # two texts of Jaccard similarity s meet with 1 - (1 - s^8)^14: 0.92 at 0.8, 0.05 at 0.5
_SEED = 6_021_023
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd: words at other places of an n-gram give another hash

# First and last characters of blocks whose scripts part no words (Unicode 15).
_NO_SPACES = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19DF),  # Tai Le, New Tai Lue
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x2E80, 0x2FDF),  # radicals
    (0x3005, 0x3007),
    (0x3040, 0x30FF),  # kana
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),  # Han
    (0xA980, 0xA9DF),  # Javanese
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)


class _Letters(dict[int, str]):
    """For `str.translate`: what each character becomes, looked up once in the Unicode tables."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        if unicodedata.category(char)[0] not in "LMN":
            char = " "
        elif any(first <= code <= last for first, last in _NO_SPACES):
            char = f" {char} "
        self[code] = char
        return char


_LETTERS = _Letters()


def words_of(text: str) -> list[str]:
    """The words of a text.

    >>> words_of("The CAT,  sat-on “ﬁve” mats. 猫だ")
    ['the', 'cat', 'sat', 'on', 'five', 'mats', '猫', 'だ']
    """
    return unicodedata.normalize("NFKC", text).casefold().translate(_LETTERS).split()


def text_digest(words: list[str]) -> bytes:
    """16 bytes that are equal for texts which differ in case, white space and punctuation only."""
    return hashlib.blake2b(" ".join(words).encode("utf-8", "surrogatepass"), digest_size=16).digest()


@functools.lru_cache(maxsize=1 << 17)
def _hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def word_hashes(words: list[str]) -> np.ndarray:  # uint64 [n]
    """64 bits of each word; the same on every machine."""
    return np.fromiter(map(_hash, words), np.uint64, len(words))


def ngram_hashes(hashes: np.ndarray, n: int) -> np.ndarray:  # uint64 [len(hashes) - n + 1], or none
    """64 bits of each run of `n` words, out of `word_hashes`."""
    count = len(hashes) - n + 1
    if count <= 0:
        return np.zeros(0, np.uint64)
    total = hashes[:count].copy()
    for i in range(1, n):
        total *= _MULTIPLIER
        total += hashes[i : i + count]
    return total ^ (total >> np.uint64(29))


def minhash(words: list[list[str]]) -> np.ndarray:  # uint32 [texts, NUM_HASHES]
    """The MinHash signature of each text's set of 5-grams; a shorter text is one n-gram of all its words."""
    from rensa import RMinHash

    rows = [ngram_hashes(word_hashes(row), min(SHINGLE, max(1, len(row)))) for row in words]
    offsets = np.cumsum([0, *(len(row) for row in rows)]).astype(np.uint64)
    flat = np.concatenate([*rows, np.zeros(0, np.uint64)])
    found = RMinHash.digest_matrix_from_flat_token_hashes(flat, offsets, num_perm=NUM_HASHES, seed=_SEED)
    return np.array(found.to_rows(), np.uint32).reshape(len(words), NUM_HASHES)


def similarity(one: np.ndarray, other: np.ndarray) -> float:
    """The Jaccard similarity of two texts' 5-grams, estimated from their signatures."""
    return float((one == other).mean())
