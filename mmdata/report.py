"""What a Loader will read, in numbers, before it has read anything."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmdata.loader import Loader


def report(loader: Loader) -> dict[str, Any]:
    """What this Loader will read, in plain JSON values: each source's plan, and each stage's shares and epochs."""
    feeds, stages = loader.feeds.feeds, []
    for stage in loader.feeds.timeline.stages:
        total = stage.shares.sums[-1]
        sources = {}
        for feed, weight in zip((feeds[i] for i in stage.sources), stage.shares.weights):
            rows_a_step = Fraction(weight * stage.batch_size, total)
            sources[feed.name] = {
                "row_share": round(weight / total, 6),
                "steps_an_epoch": float(feed.plan.num_rows / rows_a_step) if weight else None,
            }
        stages.append({"from_step": stage.from_step, "batch_size": stage.batch_size, "sources": sources})
    return {
        "split": loader.split,
        "seq_len": loader.seq_len,
        "layout": loader.layout.digest,
        "num_steps": loader.num_steps,
        "sources": {
            feed.name: {"fingerprint": feed.source.fingerprint, "plan": feed.plan.fingerprint, **feed.plan.report}
            for feed in feeds
        },
        "stages": stages,
    }
