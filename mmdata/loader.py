"""Loader: an endless stream of batches, where batch = f(schedule, layout, plan settings, seed, step).

Any step is computed without those before it, so resuming takes no time and neither data shards, threads nor hosts
change the order. Grain reads ahead: its source is random access over steps. Importing this module loads no Grain.
"""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mmdata.batch import Batch
from mmdata.dataset import Dataset, Source
from mmdata.errors import UserError
from mmdata.explain import Explained, explain, steps_of
from mmdata.feeds import Feeds, Located, codecs_of, load_from, make_feeds, open_stages, reopened
from mmdata.folder import CACHE_SHARDS, RemoteFolder
from mmdata.groups import Announcer
from mmdata.mixture import Mixture
from mmdata.plan import Plan, PlanSettings, plan_of
from mmdata.plan_settings import PLAN_VERSIONS
from mmdata.quarantine import LIMIT, BadRecords, Omitted, check_limit, log_entry, one_of_several
from mmdata.read_ahead import StepSource, Threads, steps_a_run
from mmdata.reading import Entry, Renderer
from mmdata.report import report
from mmdata.schedule import Schedule
from mmdata.sharding import data_shard as data_shard
from mmdata.shards import SPLITS
from mmdata.state import Quarantined, check_same_past, make_state, merge_quarantine
from mmdata.workers import Workers
from tokenizer.codec import CodecSpec
from tokenizer.layout import Layout, LayoutSpec, load_layout

T = TypeVar("T")
_STEPS_AT_ONCE = 64  # whose rows are found together


class Loader:
    """Batches of a dataset's folder or URL, a Dataset, a Source, a Mixture or a Schedule.

    seq_len, batch_size: tokens of a row; rows of all data shards together (a Schedule names its own batch sizes)
    layout: a name, a path to a TOML file, a loaded specification, or the bound layout of another Loader, whose
        vocabulary this one then has (to evaluate on one source what was trained on several)
    shard: (i, n): rows i*B/n to (i+1)*B/n of each global batch; `mmdata.data_shard(sharding)` gives it
    limits: most of "images", "frames", "audio_seconds", "tokens" in a row
    split: "train" is endless; "validation" is one epoch in proportion to each source's rows, the last batch filled up
        with padding; `iter(loader)` starts a finished one again
    quarantine: records to leave out: {"source", "shard", "record", "from_step"}; record -1: all of the shard
    on_bad_record: "quarantine" leaves a record that cannot be read out from the step that first delivers it, with a
        line in the log; "raise" raises `BadRecords` naming the entries, so that all processes can be given the same.
        None: "raise" where there are several data shards or processes of JAX, else "quarantine"
    quarantine_limit: most records that may be left out; RunError beyond
    codecs: names of codecs whose ids come first, in this order, whether the data has them yet or not: a source that
        brings one of them later moves no id
    split_share: most of the documents that would fit a row, as a share, that may be split so that rows are fuller
    plan_version: 2, which pours pieces of long documents into gaps, or 1; a run keeps the one it began with
    threads, workers, read_ahead: how batches are made ahead, which changes none of them: in threads of this process
        (by Grain, some steps at a time), or in worker processes (mmdata/workers.py; threads then says nothing); with
        neither, each is made when it is asked for. read_ahead: how many batches; with workers at least 2 and at most 64
        a worker
    progress: told (source, windows done, windows) of each plan that is made, as none was cached
    cache_shards: of sources named by a URL, most shards of each that are kept on this machine

    >>> loader = Loader("runs/demo/data", seq_len=1024, batch_size=8)        # doctest: +SKIP
    >>> batch = next(loader); batch.tokens.shape                             # doctest: +SKIP
    (8, 1024)
    """

    def __init__(
        self,
        data: str | os.PathLike[str] | Dataset | Source | Mixture | Schedule,
        layout: str | Path | LayoutSpec | Layout = "mmdata",
        seq_len: int = 0,
        batch_size: int | None = None,
        seed: int = 0,
        shard: tuple[int, int] = (0, 1),
        limits: Mapping[str, int | float] | None = None,
        split: str = "train",
        quarantine: Sequence[Any] = (),
        *,
        codecs: Sequence[str] = (),
        window_shards: int = 2,
        group_windows: int = 5,
        too_long: str = "leave_out",
        split_share: float = 0.0,
        plan_version: int = PLAN_VERSIONS[-1],
        threads: int = 1,
        workers: int = 0,
        read_ahead: int = 2,
        cache_shards: int = CACHE_SHARDS,
        on_bad_record: str | None = None,
        quarantine_limit: int = LIMIT,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> None:
        self._given = {name: value for name, value in locals().items() if name != "self"}
        for name, value in (("threads", threads), ("workers", workers), ("read_ahead", read_ahead)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise UserError(f"{name} is {value!r}: use a whole number of 0 or more")
        if seq_len < 1:
            raise UserError(f"seq_len is {seq_len}: give the Loader the tokens of a row, for example seq_len=1024")
        if split not in SPLITS:
            raise UserError(f"no split {split!r}; the splits are {list(SPLITS)}")
        if on_bad_record not in (None, "quarantine", "raise"):
            raise UserError(f"on_bad_record is {on_bad_record!r}: use 'quarantine' or 'raise'")
        stages = open_stages(data, batch_size, cache_shards)
        if split != "train" and len(stages) > 1:
            raise UserError(f"a {split} split is read once: give a folder or a Mixture and a batch_size, not stages")
        self.shard = _check_shard(shard, [stage.batch_size for stage in stages])
        self.seed, self.split, self.seq_len = seed, split, seq_len
        spec = load_layout(str(layout)) if isinstance(layout, str | Path) else layout
        known = codecs_of(stages, codecs)
        bound = spec.bind(known, load_from(stages), codecs) if isinstance(spec, LayoutSpec) else spec
        self.layout: Layout = bound
        _check_codecs(self.layout, known)
        self.settings = PlanSettings(
            layout=self.layout.digest,
            seq_len=seq_len,
            window_shards=window_shards,
            group_windows=group_windows,
            limits=dict(limits or {}),
            too_long=too_long,
            split_share=split_share,
            version=plan_version,
        )
        self.feeds = make_feeds(stages, split, seed, lambda source: self._plan_of(source, progress))
        self.renderer = Renderer(self.layout, seq_len, seed, split, self.feeds.feeds)
        most_rows = max(stage.batch_size for stage in stages) // self.shard[1]
        far = any(isinstance(feed.source.files, RemoteFolder) for feed in self.feeds.feeds)  # its cache counts steps
        self._run_steps = 1 if far else steps_a_run(self.renderer.form.size_bytes(most_rows))
        behind = max(threads * self._run_steps, read_ahead)  # steps that Grain may be reading at a time
        self._announcer = Announcer(self.feeds, split, behind, soft=bool(self.layout.soft_shapes))
        self.quarantine_limit = quarantine_limit
        self.quarantine: tuple[Quarantined, ...] = ()
        self._quarantine([Quarantined.of(entry) for entry in quarantine])
        self._deciding = threading.Lock()
        self._raises = on_bad_record == "raise" or (on_bad_record is None and (self.shard[1] > 1 or one_of_several()))
        self.threads, self.workers, self.read_ahead = threads, workers, read_ahead
        self.step = 0  # the next one
        self._block: tuple[int, Located] | None = None  # rows of a run of steps, from its first step on
        self._opener: threading.Thread | None = None
        self._ahead: Threads | Workers | None = None

    @property
    def num_steps(self) -> int | None:
        """Steps of the one epoch of a validation split; None for training, which is endless."""
        rows = self.feeds.num_rows
        return None if rows is None else -(-rows // self.feeds.stages[0].batch_size)

    @property
    def batch_size(self) -> int:
        """Rows of the next global batch."""
        return self.feeds.stages[self.feeds.timeline.stage_at(self.step)].batch_size

    @property
    def fingerprints(self) -> dict[str, str]:
        """Source name -> fingerprint, of every source of every stage."""
        return {feed.name: feed.source.fingerprint for feed in self.feeds.feeds}

    def __iter__(self) -> Iterator[Batch]:
        if self.num_steps is not None and self.step >= self.num_steps:
            self.seek(0)
        return self

    def __next__(self) -> Batch:
        if self.num_steps is not None and self.step >= self.num_steps:
            raise StopIteration
        batch = self.without_bad(self._next)
        self.step += 1
        return batch

    def batch_at(self, step: int) -> Batch:
        """This data shard's part of the global batch of any step."""
        return self.without_bad(lambda: self.read(step))

    def read(self, step: int) -> Batch:
        """`batch_at`, but BadRecords is raised whatever this Loader does about it: reading ahead decides nothing."""
        self.size_at(step)
        self._announcer.announce(step)
        return self.renderer.batch(self._rows_of(step), step)

    def leave_out(self, entries: Sequence[Any], *, quietly: bool = False) -> None:
        """Leave records out from their steps on, as if they had been in `quarantine`: what all processes do alike once
        one of them has raised `BadRecords`. What was delivered of these steps is to be taken again (`seek`). Each new
        entry is a line in the log, unless `quietly`. RunError where more than `quarantine_limit` records are out."""
        with self._deciding:  # batch_at may be called from threads
            known = {entry.place: entry for entry in self.quarantine}
            new = [e for e in sorted(set(map(Quarantined.of, entries))) if e.place not in known or e < known[e.place]]
            if new:  # an entry from an earlier step takes the place of a later one
                self._quarantine([*({**known, **{e.place: e for e in reversed(new)}}).values()])
            for entry in [] if quietly else new:
                if entry.place not in known:
                    log_entry(self.feeds.feeds, self.split, entry)
        if new:
            self.close()  # what was made ahead may hold them, and worker processes know them not

    def write_batch(self, step: int, memory: np.ndarray) -> None:
        """`read` into the first bytes of `memory` (uint8), where the `batch_in` of `renderer.form` finds it."""
        self.size_at(step)
        self._announcer.announce(step)
        self.renderer.batch(self._rows_of(step), step, memory)

    def source(self, start: int | None = None) -> StepSource:
        """The batches from step `start` on (None: the next one) as a random-access source, for
        `grain.MapDataset.source`: element i is this data shard's block of rows of step start + i."""
        start = self.step if start is None else start
        if start != self.num_steps:
            self.size_at(start)
        return StepSource(self, start)

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on with the next step: JSON in clear."""
        return self._state_at(self.step, self.quarantine)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken. UserError, naming the first difference, where its past is not this one's."""
        step = state.get("step") if isinstance(state, Mapping) else None
        check_same_past(state, self._state_at(step if isinstance(step, int) else 0, ()))
        quarantine = merge_quarantine(state, self.quarantine)
        if quarantine != self.quarantine:
            self.close()
            self._quarantine(quarantine)
        self.seek(state["step"])

    def seek(self, step: int) -> None:
        """Go on with any step; what is being made ahead is dropped."""
        if step != self.num_steps:
            self.size_at(step)
        if self._ahead is not None:
            self._ahead.drop()
        self.step = step

    def check(self, last_step: int) -> None:
        """UserError if a source would pass its epoch cap before `last_step`."""
        self.feeds.check(last_step)

    def explain(self, step: int, row: int | None = None) -> list[Explained]:
        """The documents of a step's global batch, or of one row of it, with their items' spans."""
        return explain(self, step, row)

    def steps_of(self, document_id: str, last_step: int) -> list[tuple[int, int]]:
        """(step, row of the global batch) of every row before `last_step` which holds a part of a document."""
        return steps_of(self, document_id, last_step)

    def report(self) -> dict[str, Any]:
        """What this Loader will read, in plain JSON values: each source's plan, and each stage's shares and epochs."""
        return report(self)

    def close(self) -> None:
        """End the threads or processes that make batches ahead; the Loader can still be used."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.close()
        self._announcer.close()

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the workers that run now."""
        return self._ahead.pids if isinstance(self._ahead, Workers) else []

    def size_at(self, step: int) -> int:
        """Rows of the global batch of a step; UserError where there is no such step."""
        if step < 0 or (self.num_steps is not None and step >= self.num_steps):
            raise UserError(
                f"no step {step}: steps begin at 0" + (f" and end before {self.num_steps}" if step > 0 else "")
            )
        return self.feeds.stages[self.feeds.timeline.stage_at(step)].batch_size

    def entries_at(self, step: int, rows: range) -> list[list[Entry]]:
        """The planned entries of rows of a step's global batch."""
        return self.renderer.entries(self.feeds.locate_rows(step, rows))

    def _rows_of(self, step: int) -> Located:
        """Which rows make up this data shard's part of a step's batch; found for a run of steps at a time."""
        found = self._block
        if found is None or not found[0] <= step < found[0] + len(found[1].offsets) - 1:
            capped = self.feeds.capped_at(step)
            num = _STEPS_AT_ONCE if capped is None else min(_STEPS_AT_ONCE, max(1, capped - step))
            before, found = found, (step, self.feeds.locate(step, num, self.shard))
            self._block = found  # other threads look at other steps
            if before is not None and 0 <= step - before[0] - len(before[1].offsets) + 1 < _STEPS_AT_ONCE:
                self._open_ahead(found[1])  # the steps go on: not one that is looked at by itself
        return found[1].step(step - found[0])

    def _open_ahead(self, rows: Located) -> None:
        """Open the shards of coming steps while this one is made: verifying one takes a while."""
        with self._deciding:
            if self._opener is None or not self._opener.is_alive():
                self._opener = threading.Thread(
                    target=self.renderer.ahead, args=(rows,), daemon=True, name="mmdata-open"
                )
                self._opener.start()

    def _plan_of(self, source: Source, progress: Callable[[str, int, int], None] | None) -> Plan:
        told = partial(progress, source.name) if progress else None
        return plan_of(source, self.split, self.layout, self.settings, told)

    def _state_at(self, step: int, quarantine: Sequence[Quarantined]) -> dict[str, Any]:
        feeds, stages = self.feeds.feeds, []
        for opened, stage in zip(self.feeds.stages, self.feeds.timeline.stages):
            names = {source.fingerprint: name for name, source in opened.sources.items()}
            sources = []
            for number, row_weight in zip(stage.sources, stage.shares.weights):
                fingerprint = feeds[number].source.fingerprint
                sources.append({"name": names[fingerprint], "fingerprint": fingerprint, "row_weight": row_weight})
            stages.append({"from_step": stage.from_step, "batch_size": stage.batch_size, "sources": sources})
        return make_state(step, self.seed, self.split, self.settings.to_json(), stages, quarantine)

    def without_bad(self, read: Callable[[], T]) -> T:
        """What `read` gives once the records for which it raises BadRecords are left out, where this Loader may decide
        on that. A step that was delivered is what it was."""
        while True:
            try:
                return read()
            except BadRecords as error:
                if self._raises or error.step < self.step:
                    raise
                self.leave_out(error.entries)

    def _next(self) -> Batch:
        """The batch of the next step, from what was made ahead."""
        if self._ahead is None and (self.workers or self.threads):
            self._ahead = self._start_workers() if self.workers else Threads(self, self._run_steps)
        return self._ahead.batch(self.step) if self._ahead else self.read(self.step)

    def _quarantine(self, entries: Sequence[Quarantined]) -> None:
        left_out = Omitted(self.feeds.feeds, self.split, entries)
        check_limit(left_out, entries, self.quarantine_limit)
        self.renderer.left_out = left_out
        self.quarantine = tuple(sorted(set(entries)))

    def _start_workers(self) -> Workers:
        stages, of = [stage.batch_size for stage in self.feeds.stages], self.shard[1]
        rows = partial(_rows_at, self.feeds, of)  # not of the Loader, which ends its workers when nothing refers to it
        loader = pickle.dumps(self)
        return Workers(
            loader, self.workers, self.read_ahead, self.renderer.form, rows, max(stages) // of, self.num_steps
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """For another process, which opens the same folders."""
        now = {
            "data": reopened(self.feeds.stages),
            "batch_size": None,
            "layout": self.layout,
            "codecs": (),
            "quarantine": self.quarantine,
            "on_bad_record": self._given["on_bad_record"] or "raise",
            "progress": None,
        }
        return _unpickled, ({**self._given, **now}, self.step)

    def __repr__(self) -> str:
        return f"Loader({list(self.fingerprints)}, split={self.split!r}, seq_len={self.seq_len}, step={self.step})"


def _rows_at(feeds: Feeds, of: int, step: int) -> int:
    """Rows of one of `of` data shards of a step's batch."""
    return feeds.stages[feeds.timeline.stage_at(step)].batch_size // of


def _unpickled(arguments: dict[str, Any], step: int) -> Loader:
    loader = Loader(**arguments)
    loader.step = step
    return loader


def _check_codecs(layout: Layout, codecs: Sequence[CodecSpec]) -> None:
    """UserError where the data's codes are not those for which a layout was bound."""
    bound = {codec.name: codec.fingerprint for codec in layout.codecs}
    for codec in codecs:
        if (other := bound.get(codec.name, codec.fingerprint)) != codec.fingerprint:
            raise UserError(
                f"codec {codec.name} of the data is not that of the bound layout (fingerprints"
                f" {codec.fingerprint[:12]} and {other[:12]}): build both with one version"
            )


def _check_shard(shard: tuple[int, int], batch_sizes: list[int]) -> tuple[int, int]:
    index, of = shard
    if not 0 <= index < of:
        raise UserError(f"shard is ({index}, {of}): use (i, n) with 0 <= i < n")
    for size in batch_sizes:
        if size % of:
            raise UserError(f"a batch_size of {size} does not divide by {of} data shards: use a multiple of {of}")
    return index, of
