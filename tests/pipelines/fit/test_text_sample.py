"""The sample of a stream of lines: the one that sorting all of them would give, in bounded memory."""

import tracemalloc
from hashlib import blake2b

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.fit import text_sample
from pipelines.fit.text_sample import LineSample, Sample, lines_of

# Few different lines, so that some come twice, in and out of the sample
LINES = st.lists(st.one_of(st.integers(0, 60).map(lambda i: f"line {i}"), st.text("aé你\u2028", max_size=9)))


def slowly(lines: list[str], max_bytes: int, max_held: int, seed: int = 0) -> Sample:
    """The same by sorting every line."""
    keys = {
        line: blake2b(line.encode(), digest_size=8, salt=seed.to_bytes(16, "big")).digest() for line in lines if line
    }
    chosen: list[str] = []
    held: list[str] = []
    for line in sorted(keys, key=lambda line: keys[line]):
        if keys[line][-1] % 64 == 0:
            held.append(line)
        elif sum(len(c.encode()) for c in chosen) < max_bytes:
            chosen.append(line)
    return Sample(tuple(chosen), tuple(held[:max_held]))


def taken(blocks: list[bytes], max_bytes: int, seed: int = 0) -> Sample:
    sample = LineSample(max_bytes, seed)
    for block in blocks:
        sample.add(block)
    return sample.sample()


@settings(deadline=None)
@given(LINES, st.integers(0, 200), st.integers(0, 3))
def test_it_is_what_sorting_all_lines_gives(lines: list[str], max_bytes: int, seed: int) -> None:
    for most in (0, 1, 2_000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(text_sample, "MOST_HELD", most)
            found = taken([line.encode() for line in lines], max_bytes, seed)
        assert found == slowly(lines, max_bytes, most, seed)


@settings(deadline=None)
@given(LINES, st.integers(1, 200), st.randoms(use_true_random=False))
def test_the_order_of_reading_and_the_blocks_change_nothing(lines: list[str], max_bytes: int, random: object) -> None:
    whole = taken(["\n".join(lines).encode()], max_bytes)
    random.shuffle(lines)  # type: ignore[attr-defined]
    half = len(lines) // 2
    assert taken(["\n".join(part).encode() for part in (lines[half:], lines[:half])], max_bytes) == whole


def test_a_line_counts_once_and_is_never_both_learnt_and_held_out() -> None:
    block = "\n".join(f"a line with the number {i % 3000}" for i in range(9000)).encode()
    sample = taken([block, block], 1 << 30)
    assert len(set(sample.chosen)) == len(sample.chosen) and len(sample.chosen) + len(sample.held) == 3000
    assert not set(sample.chosen) & set(sample.held) and 20 < len(sample.held) < 80


def test_two_lines_of_one_hash_count_as_the_first_by_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    for lines in ([b"b", b"a", b"c"], [b"c", b"b", b"a"], [b"a", b"c", b"b"]):
        sample = LineSample(1 << 20)
        monkeypatch.setattr(sample, "_hash", lambda line: blake2b(b"same", digest_size=8))
        for line in lines:
            sample.add(line)
        assert sample.sample().chosen == ("a",)


def test_another_seed_is_another_sample() -> None:
    block = "\n".join(map(str, range(5000))).encode()
    first, second = taken([block], 1000, 0), taken([block], 1000, 1)
    assert first != second and taken([block], 1000, 1) == second


def test_memory_is_the_samples_not_the_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_sample, "MOST_HELD", 20)

    def fed(blocks: int) -> int:
        tracemalloc.start()
        sample = LineSample(20_000)
        for number in range(blocks):
            sample.add("\n".join(f"{number} {i} {'x' * 80}" for i in range(500)).encode())
        sample.sample()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert fed(60) < 1.3 * fed(6)  # 3 MB of lines, and 0.3 MB


def test_no_line_is_longer_than_the_trainer_takes_and_none_holds_a_nul() -> None:
    text = "é你x\0" * 1000
    parts = lines_of(f"{text}\n\n\0\nshort".encode())
    assert "".join(part.decode() for part in parts) == text.replace("\0", "") + "short"
    assert max(len(part.decode()) for part in parts) <= text_sample.MOST_CHARACTERS
