"""Byte pairs: exact for any bytes, learnt as by counting one pair after the other, and kept in a file."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenizer.byte_pairs import BytePairs, learn

FEW = st.binary(max_size=60).map(lambda data: bytes(b % 3 for b in data))  # three different bytes: pairs repeat


def slow(data: bytes, vocabulary: BytePairs) -> list[int]:
    """Pairs joined one place after the other, from the left."""
    codes = list(data)
    for k, pair in enumerate(vocabulary.pairs):
        i = 0
        while i + 1 < len(codes):
            if (codes[i], codes[i + 1]) == pair:
                codes[i : i + 2] = [256 + len(vocabulary.strings) + k]
            i += 1
    return codes


@given(st.lists(FEW, max_size=4), FEW, st.binary(max_size=40))
def test_any_bytes_come_back_and_pairs_are_joined_from_the_left(data: list[bytes], few: bytes, any: bytes) -> None:
    vocabulary = learn(data, 262)
    for some in (*data, few, any):
        codes = vocabulary.encode(some)
        assert codes.tolist() == slow(some, vocabulary)
        assert vocabulary.decode(codes) == some


@given(st.lists(FEW, max_size=4))
def test_no_pair_spans_two_strings_and_none_that_comes_once_is_learnt(data: list[bytes]) -> None:
    vocabulary = learn(data, 262)
    assert all(any(joined in some for some in data) for joined in vocabulary.table[256:])
    assert BytePairs.of(vocabulary.lines()) == vocabulary == learn(data, 262)
    assert learn([b"ab", b"b"], 300).pairs == ()


def test_the_most_frequent_pair_is_first_and_of_equals_the_lowest() -> None:
    assert learn([b"ababab", b"xyxy"], 257).pairs == ((97, 98),)
    assert learn([b"zz zz aa aa"], 257).pairs == ((32, 97),) or learn([b"zz zz aa aa"], 257).pairs[0][0] <= 97
    assert learn([b"yxyx", b"baba"], 257).pairs == ((98, 97),)


def test_a_run_of_one_byte_is_joined_in_twos() -> None:
    vocabulary = BytePairs((), ((7, 7),))
    assert vocabulary.encode(bytes([7, 7, 7, 1, 7, 7])).tolist() == [256, 7, 1, 256]


def test_strings_are_codes_of_their_own_each_once_and_in_order() -> None:
    vocabulary = BytePairs((b"head", b"tail"), ((97, 105),))
    assert vocabulary.encode(b"headxtailtail").tolist() == [256, 120, 257, 116, 258, 108]
    assert vocabulary.encode(b"tailhead").tolist() == [116, 258, 108, 256]
    assert vocabulary.decode(vocabulary.encode(b"tailhead")) == b"tailhead"


@pytest.mark.parametrize(
    ("lines", "words"),
    [("zz\n", "line 1"), ("ff\n1 2 3\n", "line 2"), ("97 256\n", "pair 0 joins"), ("1 2\nff\n", "line 2")],
)
def test_a_file_that_is_no_vocabulary_is_refused(lines: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        BytePairs.of(lines)


def test_a_vocabulary_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="no room"):
        learn([b"abab"], 256, (b"ab",))
    assert np.array_equal(BytePairs().encode(b""), np.zeros(0))
