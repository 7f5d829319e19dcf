"""What a Loader will read, in numbers, before it has read anything: `report` of its plans, `forecast` of a run.

Numbers come from the plans and from the schedule's closed form; catalogs are opened for the bytes of records and for
examples alone. Rows, steps and epochs are exact. Tokens, codes and bytes are those of the rows where whole epochs are
read; of a part of an epoch they are the source's mean a row (`exact` says which).
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from mmdata.errors import UserError
from mmdata.find import column_of
from tokenizer.item import KINDS

if TYPE_CHECKING:
    from mmdata.dataset import Split
    from mmdata.feeds import Feed
    from mmdata.loader import Loader
    from mmdata.plan import Plan

_MEDIA = KINDS[1:5]
_EXAMPLES = 5  # of documents that are split


def report(loader: Loader) -> dict[str, Any]:
    """What this Loader will read, in plain JSON values: each source's plan, and each stage's shares and epochs."""
    stages = []
    for number, stage in enumerate(loader.feeds.timeline.stages):
        sources = _shares(loader, number)
        stages.append({"from_step": stage.from_step, "batch_size": stage.batch_size, "sources": sources})
    return {
        "split": loader.split,
        "seq_len": loader.seq_len,
        "layout": loader.layout.digest,
        "num_steps": loader.num_steps,
        "sources": {
            feed.name: {"fingerprint": feed.source.fingerprint, "plan": feed.plan.fingerprint, **feed.plan.report}
            for feed in loader.feeds.feeds
        },
        "stages": stages,
    }


def forecast(loader: Loader, steps: int, data_shards: int = 1) -> dict[str, Any]:
    """What the first `steps` steps of a training Loader will read, in plain JSON values.

    {"steps", "seq_len", "layout", "data_shards",
     "sources": {name: the plan's report, with "waste", "split" with examples, "plan_bytes", "record_bytes" and
                 "shard_bytes" of an epoch},
     "stages": [{"from_step", "to_step", "batch_size", "rows", "tokens", "sources": {name: {"rows", "row_share",
                 "steps_an_epoch", "epochs" by its end, "tokens", "codes" by kind, "other" tokens, "bytes", "exact"}}}],
     "all": the sums over the run, with "fill", "first_epoch_steps" and bytes by step and by data shard,
     "caps": [{"source", "stage", "max_epochs", "epochs", "passed_at"}], "error": what `Loader.check` says or None}
    """
    feeds, timeline = loader.feeds.feeds, loader.feeds.timeline
    per_epoch = [_epoch_bytes(feed.plan, feed.source.splits[loader.split]) for feed in feeds]
    reached = [number for number, stage in enumerate(timeline.stages) if stage.from_step < steps]
    ends = [*(stage.from_step for stage in timeline.stages[1 : len(reached)]), steps]
    stages = [_stage(loader, number, end, per_epoch) for number, end in zip(reached, ends)]
    return {
        "steps": steps,
        "seq_len": loader.seq_len,
        "layout": loader.layout.digest,
        "data_shards": data_shards,
        "sources": {feed.name: _source(loader, feed, size) for feed, size in zip(feeds, per_epoch)},
        "stages": stages,
        "unreached_stages": [stage.from_step for stage in timeline.stages[len(reached) :]],
        "all": _all(loader, stages, steps, data_shards),
        "caps": _caps(loader, reached, ends),
        "error": _refusal(loader, steps),
    }


def _shares(loader: Loader, number: int) -> dict[str, dict[str, Any]]:
    """Share of a stage's rows, and steps an epoch, of each of its sources."""
    stage = loader.feeds.timeline.stages[number]
    total, out = stage.shares.sums[-1], {}
    for feed, weight in zip((loader.feeds.feeds[i] for i in stage.sources), stage.shares.weights):
        rows_a_step = Fraction(weight * stage.batch_size, total)
        out[feed.name] = {
            "row_share": round(weight / total, 6),
            "steps_an_epoch": float(feed.plan.num_rows / rows_a_step) if weight else None,
        }
    return out


def _source(loader: Loader, feed: Feed, epoch_bytes: int) -> dict[str, Any]:
    plan, data = feed.plan, feed.source.splits[loader.split]
    return {
        "fingerprint": feed.source.fingerprint,
        "plan": plan.fingerprint,
        **plan.report,
        "other": _other(loader, plan.num_tokens, plan.report["codes"]),
        "waste": _waste(plan),
        "split": {**plan.report["split"], "examples": _split_examples(plan, data)},
        "plan_bytes": sum(
            getattr(plan, name).nbytes for name in ("windows", "rows", "sample", "start", "stop", "length")
        ),
        "record_bytes": epoch_bytes,
        "shard_bytes": sum(shard.bytes for shard in data.shards),
    }


def _stage(loader: Loader, number: int, end: int, per_epoch: list[int]) -> dict[str, Any]:
    """One stage up to the step `end`."""
    stage, timeline = loader.feeds.timeline.stages[number], loader.feeds.timeline
    before, after = timeline.bases[number], timeline.counts_in(number, end)
    sources = _shares(loader, number)
    for i in stage.sources:
        feed = loader.feeds.feeds[i]
        sources[feed.name] |= _read(loader, feed, before[i], after[i], per_epoch[i])
    return {
        "from_step": stage.from_step,
        "to_step": end,
        "batch_size": stage.batch_size,
        "rows": (end - stage.from_step) * stage.batch_size,
        **_sums(list(sources.values())),
        "sources": sources,
    }


def _read(loader: Loader, feed: Feed, first: int, last: int, epoch_bytes: int) -> dict[str, Any]:
    """Rows first:last of a source's whole past."""
    num_rows, numbers = feed.plan.num_rows, feed.plan.report
    share = Fraction(last - first, num_rows) if num_rows else Fraction(0)
    tokens = round(share * feed.plan.num_tokens)
    codes = {kind: round(share * numbers["codes"][kind]) for kind in _MEDIA}
    return {
        "rows": last - first,
        "epochs": float(Fraction(last, num_rows)) if num_rows else 0.0,
        "tokens": tokens,
        "codes": codes,
        "other": _other(loader, tokens, codes),
        "bytes": round(share * epoch_bytes),
        "exact": first == last or not (first % num_rows or last % num_rows),
    }


def _other(loader: Loader, tokens: int, codes: dict[str, int]) -> int | None:
    """Tokens that are no codes: delimiters, sizes, times, words of the layout, soft positions. None where a place of a
    row holds the codes of several streams: places and codes are then different counts."""
    return tokens - sum(codes.values()) if loader.layout.num_streams == 1 else None


def _sums(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Tokens, codes, other tokens and bytes of some sources or stages together."""
    others = [part["other"] for part in parts]
    return {
        "tokens": sum(part["tokens"] for part in parts),
        "codes": {kind: sum(part["codes"][kind] for part in parts) for kind in _MEDIA},
        "other": None if None in others else sum(others),
        "bytes": sum(part["bytes"] for part in parts),
        "exact": all(part["exact"] for part in parts),
    }


def _all(loader: Loader, stages: list[dict[str, Any]], steps: int, data_shards: int) -> dict[str, Any]:
    """The whole run."""
    rows, sums = sum(stage["rows"] for stage in stages), _sums(stages)
    epochs = loader.feeds.timeline.counts_in(len(stages) - 1, steps)
    return {
        "rows": rows,
        **sums,
        "fill": round(sums["tokens"] / (rows * loader.seq_len), 6),
        "epochs": {
            feed.name: count / feed.plan.num_rows if count else 0.0 for feed, count in zip(loader.feeds.feeds, epochs)
        },
        "first_epoch_steps": _first_epoch(loader),
        "bytes_a_step": round(sums["bytes"] / steps),
        "bytes_a_data_shard": round(sums["bytes"] / data_shards),
    }


def _first_epoch(loader: Loader) -> int | None:
    """Steps until every row of every source that is drawn from has come once; None where some never do."""
    timeline, last = loader.feeds.timeline, 0
    drawn = {i for stage in timeline.stages for i, weight in zip(stage.sources, stage.shares.weights) if weight}
    for i in drawn:
        place = timeline.place(i, loader.feeds.feeds[i].plan.num_rows - 1)
        if place is None:
            return None
        last = max(last, place[0] + 1)
    return last


def _caps(loader: Loader, reached: list[int], ends: list[int]) -> list[dict[str, Any]]:
    """Each epoch cap of the stages reached, and the step at which the run would pass it."""
    timeline, out = loader.feeds.timeline, []
    for number, end in zip(reached, ends):
        counts = timeline.counts_in(number, end)
        stage = timeline.stages[number]
        for i, weight in zip(stage.sources, stage.shares.weights):
            cap, feed = loader.feeds.cap(number, i), loader.feeds.feeds[i]
            if cap is None or not weight:
                continue
            place = timeline.place(i, cap) if counts[i] > cap else None
            out.append(
                {
                    "source": feed.name,
                    "from_step": stage.from_step,
                    "to_step": end,
                    "rows": counts[i],
                    "most_rows": cap,
                    "rows_an_epoch": feed.plan.num_rows,
                    "passed_at": max(place[0], stage.from_step) if place else None,
                }
            )
    return out


def _refusal(loader: Loader, steps: int) -> str | None:
    try:
        loader.check(steps)
    except UserError as error:
        return str(error)
    return None


def _waste(plan: Plan) -> dict[str, Any]:
    """Places left empty in the row which each window opened last, which nothing of the next window may fill."""
    last = plan.windows[1:][np.diff(plan.windows) > 0] - 1
    ends = np.concatenate([[0], np.cumsum(plan.length, dtype=np.int64)])
    empty = plan.settings.seq_len - (ends[plan.rows[last + 1]] - ends[plan.rows[last]])
    places = plan.num_rows * plan.settings.seq_len
    return {"tokens": int(empty.sum()), "share": round(int(empty.sum()) / places, 6) if places else 0.0}


def _split_examples(plan: Plan, data: Split) -> list[dict[str, Any]]:
    """The first documents that are in more than one piece."""
    pieces = np.bincount(plan.sample) if len(plan.sample) else np.zeros(0, np.int64)
    out = []
    for sample in np.flatnonzero(pieces > 1)[:_EXAMPLES].tolist():
        (names,) = data.catalog(["id", "uri"], sample, sample + 1).to_pylist()
        out.append({**names, "sample": sample, "pieces": int(pieces[sample])})
    return out


def _epoch_bytes(plan: Plan, data: Split) -> int:
    """Bytes of the records that the rows of an epoch read, each row by itself: a document in two rows counts twice, one
    that is left out not at all."""
    row = np.repeat(np.arange(plan.num_rows), np.diff(plan.rows))
    first = np.ones(len(row), bool)  # of its document in its row: a row's entries are in the order of their samples
    first[1:] = (np.diff(row) > 0) | (np.diff(plan.sample) != 0)
    return int(column_of(data, "record_bytes")[plan.sample[first]].sum())
