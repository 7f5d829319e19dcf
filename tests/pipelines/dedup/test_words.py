"""Texts as words: what does not count, and signatures that estimate what is shared."""

import random

import numpy as np

from pipelines.dedup.words import minhash, ngram_hashes, similarity, text_digest, word_hashes, words_of


def test_case_spaces_punctuation_and_forms_of_letters_do_not_count() -> None:
    one, other = words_of("The “CAT”,  sat-on\n\nﬁve mats!"), words_of("the cat sat on five mats")
    assert one == other and text_digest(one) == text_digest(other)
    assert text_digest(words_of("the cat sat on six mats")) != text_digest(one)


def test_scripts_without_spaces_are_read_by_characters() -> None:
    assert words_of("猫が 座った。") == ["猫", "が", "座", "っ", "た"]
    assert words_of("สวัสดี")[0] == "ส"
    assert words_of("हिन्दी में") == ["हिन्दी", "में"]  # marks belong to their letters


def test_ngrams_know_the_order_of_words() -> None:
    hashes = word_hashes(["a", "b", "c", "d", "a", "b", "c"])
    grams = ngram_hashes(hashes, 3)
    assert len(grams) == 5 and grams[0] == grams[4] and len(set(grams.tolist())) == 4
    assert ngram_hashes(word_hashes(["b", "a"]), 2) != ngram_hashes(word_hashes(["a", "b"]), 2)
    assert len(ngram_hashes(hashes, 8)) == 0


def test_signatures_estimate_the_share_of_common_shingles() -> None:
    draw = random.Random(1)
    words = [f"w{draw.randrange(5000)}" for _ in range(400)]
    for changed in (4, 20, 60):
        other = list(words)
        for place in draw.sample(range(400), changed):
            other[place] = "changed"
        sets = [{tuple(w[i : i + 5]) for i in range(len(w) - 4)} for w in (words, other)]
        true = len(sets[0] & sets[1]) / len(sets[0] | sets[1])
        one, two = minhash([words, other])
        assert abs(similarity(one, two) - true) < 0.15  # three standard deviations of 112 hashes


def test_signatures_do_not_depend_on_what_is_signed_beside() -> None:
    texts = [words_of(f"text {i} of some words that differ by {i * i}") for i in range(7)] + [[], ["one"]]
    together = minhash(texts)
    assert together.dtype == np.uint32 and together.shape == (9, 112)
    assert all((minhash([text])[0] == row).all() for text, row in zip(texts, together))
