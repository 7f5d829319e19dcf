"""Wrong sources, weights, stages, caps and states: one line each, which says what, which, and the fix."""

import json
import math
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmdata import Loader, Mixture, Schedule, Stage, UserError
from mmdata.sample import Sample
from tests.mmdata.toy_data import toy_samples, write_source, write_toy_dataset
from tokenizer.item import Item

L, B = 128, 8


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """web and speech; empty has no sample; tall has one picture a document, longer than a row; more is another web."""
    folder = write_toy_dataset(tmp_path_factory.mktemp("data"))
    write_source(folder, "empty", {"train": []}, num_shards=1)
    grid = (1, 20, 20)
    tall = [
        Sample(
            id=f"{i:032x}",
            cluster=f"{i:032x}",
            source="tall",
            items=(Item("image", "toy-image@1", np.zeros((400, 1), np.int32), grid=grid),),
        )
        for i in range(6)
    ]
    write_source(folder, "tall", {"train": tall, "validation": tall[:1]}, num_shards=2)
    write_source(folder, "more", {"train": toy_samples("more", 40, 9)})
    return folder


def loader(data: Any, **more: Any) -> Loader:
    batch_size = None if isinstance(data, Schedule) else B
    return Loader(data, **{"seq_len": L, "batch_size": batch_size, "window_shards": 1, **more})


def mixture(data: Path, **weights: Any) -> Mixture:
    return Mixture({name: data / name for name in weights}, weights=weights)


def stages(data: Path, *given: tuple[int, int], **more: Any) -> Schedule:
    return Schedule([Stage(step, mixture(data, web=1, speech=1), size, **more) for step, size in given])


def refused(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        build()
    assert "\n" not in str(error.value)
    assert re.search(message, str(error.value)), str(error.value)


@pytest.mark.parametrize(
    "weight", [-1, "-0.5", math.nan, math.inf, -math.inf, "much", None, "1e999999999", Decimal("sNaN")]
)
def test_a_weight_that_is_no_number_of_0_or_more(data: Path, weight: Any) -> None:
    refused(lambda: mixture(data, web=1, speech=weight), "the weight of 'speech' is .*: use a number of 0 or more")
    wrong = {"speech": weight}
    if weight is not math.inf:  # which lifts a cap
        message = "max_epochs of 'speech' is .*: use a number of 0 or more"
        refused(lambda: Stage(0, mixture(data, web=1, speech=1), B, max_epochs=wrong), message)


def test_weights_that_leave_nothing_to_read(data: Path) -> None:
    refused(lambda: mixture(data, web=0, speech="0.0"), "all weights are 0.* give one .* a positive one")
    refused(lambda: Mixture({}), "at least one source")
    refused(lambda: Mixture({"web": data / "web"}, weights=[1]), "give one by name")  # type: ignore[arg-type]
    tiny = mixture(data, web=1, speech="1e-12")
    refused(lambda: loader(tiny), r"the weight of 'speech' is 1e-12, below 1 row in 2\^32: use 0 or a larger one")


def test_sources_without_a_row(data: Path) -> None:
    refused(
        lambda: loader(data / "empty"), r"no source of \['empty'\] has a sample in its train split: .* name another"
    )
    refused(lambda: loader(data / "web", split="nowhere"), "no split 'nowhere'; the splits are")
    refused(
        lambda: loader(mixture(data, web=1, empty=1)), "'empty' has weight 1 and no row: .* empty; give it weight 0"
    )
    too_long = "none of its 6 train samples fits one of 128 tokens within its limits; raise seq_len .* weight 0"
    refused(lambda: loader(mixture(data, web=1, tall="0.5")), f"source 'tall' has weight 1/2 and no row: {too_long}")
    both = Mixture({"web": data / "web", "tall": data / "tall"})
    refused(lambda: loader(both), f"source 'tall' has no row: {too_long}")  # not lost unseen, though it has tokens
    refused(
        lambda: loader(data / "tall"), "no source of .* has a sample that fits a row in its train split: .* seq_len"
    )
    refused(lambda: loader(data / "tall", split="validation"), "that fits a row in its validation split")
    assert loader(mixture(data, web=1, tall=0, empty=0)).batch_at(0).tokens.any()
    assert loader(both, seq_len=512).batch_at(0).tokens.any()
    assert loader(both, split="validation").batch_at(0).tokens.any()


def test_stages_out_of_order_and_sizes_of_batches(data: Path) -> None:
    for steps in ((), (1,), (0, 5, 5), (0, 7, 3)):
        refused(lambda s=steps: stages(data, *((step, B) for step in s)), "begin at step 0 and go up, each step once")  # type: ignore[misc]
    for step, size in ((0, 0), (0, -4), (-1, B), (0, 2.5), (0.5, B), ("0", B)):
        refused(lambda s=step, b=size: stages(data, (s, b)), "use whole numbers, from_step 0 or more, batch_size 1")  # type: ignore[misc]
    refused(lambda: loader(data, batch_size=0), "batch_size 0: use whole numbers")
    refused(lambda: loader(data, seq_len=0), "seq_len is 0: give the Loader the tokens of a row")
    wanted = "batch_size of 6 does not divide by 4 data shards: use a multiple of 4"
    refused(lambda: loader(stages(data, (0, 8), (3, 6)), shard=(0, 4)), wanted)
    refused(
        lambda: loader(stages(data, (0, 8)), split="validation", batch_size=8), "names the batch_size of each stage"
    )
    refused(lambda: loader(stages(data, (0, 8), (3, 8)), split="validation"), "a validation split is read once")


def test_caps_of_unknown_sources_and_runs_that_would_pass_one(data: Path) -> None:
    refused(lambda: stages(data, (0, B), max_epochs={"news": 1}), "max_epochs names 'news', .* its sources are")
    capped = loader(stages(data, (0, B), (50, B), max_epochs={"speech": 0.5}))
    last = capped.feeds.capped_at(0)
    assert last
    capped.check(last)
    refused(
        lambda: capped.check(last + 1), f"source 'speech' would give .* step {last} passes: lower its weight, raise"
    )
    refused(lambda: capped.batch_at(last), f"'speech' has given all rows .* at step {last}: end the run, or append")
    assert capped.batch_at(last - 1).tokens.any()


def test_numpy_integers_are_whole_numbers_too(data: Path) -> None:
    schedule = stages(data, (np.int64(0), np.int32(8)), (np.int16(2), np.uint8(4)))  # type: ignore[arg-type]
    state = loader(schedule).state()
    assert json.loads(json.dumps(state)) == loader(stages(data, (0, 8), (2, 4))).state()


def test_a_state_of_other_sources_names_them(data: Path) -> None:
    state = loader(mixture(data, web=1, speech=1)).state()
    refused(
        lambda: loader(mixture(data, web=1)).restore(state),
        r"stages\[0\].sources: source 'speech' is there in it and missing",
    )
    more = mixture(data, web=1, speech=1, more=1)
    refused(lambda: loader(more).restore(state), r"source 'more' is missing in it and there here")
    grown = Mixture({"web": data / "more", "speech": data / "speech"}, weights={"web": 1, "speech": 1})
    refused(
        lambda: loader(grown).restore(state), r"the fingerprint of 'web' is [0-9a-f]{12} in it and [0-9a-f]{12} here"
    )
    weights = mixture(data, web=2, speech=1)
    refused(lambda: loader(weights).restore(state), r"stages\[0\].sources\[\d\].row_weight is \d+ in it and \d+ here")
    renamed = Mixture({"a": data / "web", "web": data / "speech"}, weights={"a": 1, "web": 1})
    loader(renamed).restore(state)  # a source is its fingerprint
    for broken in ({**state, "stages": [{}]}, {**state, "stages": [{"sources": [1]}]}, {**state, "stages": None}):
        refused(lambda b=broken: loader(mixture(data, web=1, speech=1)).restore(b), "the state has another past")  # type: ignore[misc]


def test_sources_join_and_leave_without_a_change_of_the_past(data: Path) -> None:
    web, both = mixture(data, web=1), mixture(data, web=1, more=1)
    before = loader(Schedule([Stage(0, web, 8)]))
    after = loader(Schedule([Stage(0, web, 8), Stage(4, both, 16), Stage(6, mixture(data, more=1), 4)]))
    for step in range(4):
        assert np.array_equal(before.batch_at(step).tokens, after.batch_at(step).tokens)
    for step, names in ((3, {"web"}), (4, {"web", "more"}), (6, {"more"})):
        assert {e.source for e in after.explain(step)} == names
    before.seek(4)
    after.restore(before.state())
    past = {**after.state(), "step": 5, "stages": [*after.state()["stages"], {"from_step": 4}]}
    refused(lambda: before.restore(past), r"the number of stages is 2 in it and 1 here")
