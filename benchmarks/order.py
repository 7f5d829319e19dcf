"""From steps to plan rows, and back: python benchmarks/order.py [--steps 64] [--batch-size 16]

Prints, for mixtures of 1, 2, 5, 10 and 200 drawn sources, at the first row and 1,000,000,000,000 rows later: what a row
costs in `Feeds.locate`, a block of steps a call; what the mixture alone costs row by row in Python's integers, which
`Timeline.pick` is; and the way back, from a source's row to its step. Then what the tables of an epoch take.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np

from mmdata.feeds import Feeds, Opened, make_feeds
from mmdata.order import Order

FAR = 1_000_000_000_000


def drawn_feeds(num: int, batch_size: int, windows: int = 300, rows: int = 1000) -> Feeds:
    """A mixture of sources with drawn weights, the smallest about a thousandth of the largest."""
    rng = np.random.default_rng(0)
    sources: dict[str, Any] = {}
    for i in range(num):
        sizes = rng.integers(rows // 2, rows * 3 // 2, windows)
        plan = SimpleNamespace(
            windows=np.cumsum([0, *sizes.tolist()]),
            num_rows=int(sizes.sum()),
            num_tokens=int(sizes.sum()) * 4000,
            settings=SimpleNamespace(group_windows=5, seq_len=4096),
        )
        sources[f"s{i}"] = SimpleNamespace(name=f"s{i}", fingerprint=f"{i:064x}", plan=plan)
    weights = {name: Fraction(int(w)) for name, w in zip(sources, rng.integers(1, 1000, num))}
    plan_of: Callable[[Any], Any] = lambda source: source.plan  # noqa: E731
    return make_feeds([Opened(0, batch_size, sources, weights, {})], "train", 0, plan_of)


def seconds(call: Callable[[int], Any], times: int) -> float:
    """The median of `times` calls with 0, 1, 2, ..."""
    call(0)
    took = []
    for i in range(1, times + 1):
        begin = time.perf_counter()
        call(i)
        took.append(time.perf_counter() - begin)
    return float(np.median(took))


def measure(feeds: Feeds, far: int, batch_size: int, steps: int) -> None:
    """Print what a row costs from step `far` on."""
    timeline, rows = feeds.timeline, steps * batch_size
    numbers = timeline.counts(far)[0] + np.arange(1000)
    block = seconds(lambda i: feeds.locate(far + i * steps, steps), 100) / rows
    slow = seconds(lambda i: [timeline.pick(far + i, row) for row in range(batch_size)], 20) / batch_size
    back = seconds(lambda i: timeline.places(0, numbers + i), 20) / len(numbers)
    print(
        f"{len(feeds.feeds):4} sources, {far * batch_size:>17,} rows past: {block * 1e9:4.0f} ns a row,"
        f" {block * rows * 1e3:.2f} ms a block of {rows:,}; the mixture alone in Python {slow * 1e9:6.0f} ns a row;"
        f" back {back * 1e9:5.0f} ns"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=16)
    args = parser.parse_args()
    for num in (1, 2, 5, 10, 200):
        feeds = drawn_feeds(num, args.batch_size)
        for far in (0, FAR // args.batch_size):
            measure(feeds, far, args.batch_size, args.steps)
    for windows in (1_000, 31_000):
        order = Order(np.arange(windows + 1) * 1000, 5, 0, "ab" * 32)
        print(f"tables of an epoch of {windows:,} windows: {seconds(order.epoch, 20) * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
