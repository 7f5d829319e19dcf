"""The Loader beside Grain, orbax and JAX: real ones, no copies of their interfaces."""

import json
import pickle
import re
from pathlib import Path
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from absl import flags

from mmdata import Batch, Loader, UserError
from tests.mmdata.toy_data import write_toy_dataset

L, B = 128, 8


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_dataset(tmp_path_factory.mktemp("data"))


def loader_of(data: Any, **more: Any) -> Loader:
    defaults = {"seq_len": L, "batch_size": B, "window_shards": 1, "group_windows": 2, "threads": 0}
    return Loader(data, **{**defaults, **more})


def same(a: Batch, b: Batch) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_a_source_gives_grain_the_block_of_rows_of_a_step(data: Path) -> None:
    loader = loader_of(data, shard=(1, 4))
    source = loader.source()
    assert len(source) > 2**50 and same(source[3], loader.batch_at(3)) and len(source[3].tokens) == B // 4
    loader.seek(5)
    assert same(loader.source()[0], loader.batch_at(5)) and loader.source(2).start == 2
    ahead = iter(grain.MapDataset.source(loader.source(2)).to_iter_dataset())
    for step in range(2, 8):
        assert same(next(ahead), loader.batch_at(step))
    ahead.close()
    assert same(pickle.loads(pickle.dumps(source))[3], loader.batch_at(3))
    ended = loader_of(data, split="validation")
    assert ended.num_steps and len(ended.source(1)) == ended.num_steps - 1
    assert len(list(grain.MapDataset.source(ended.source()).to_iter_dataset())) == ended.num_steps
    with pytest.raises(UserError, match="no step -1"):
        loader.source(-1)
    with pytest.raises(UserError, match=f"no step {ended.num_steps + 1}"):
        ended.source(ended.num_steps + 1)


def test_grains_state_is_the_step_of_ours(data: Path) -> None:
    loader = loader_of(data)
    dataset = grain.MapDataset.source(loader.source(0)).to_iter_dataset(grain.ReadOptions(num_threads=2))
    ahead = iter(dataset)
    for _ in range(7):
        next(ahead), next(loader)
    saved, ours = json.loads(json.dumps(ahead.get_state())), json.loads(json.dumps(loader.state()))
    assert saved == {"next_index": ours["step"]}
    following = [next(ahead) for _ in range(3)]
    again = iter(dataset)
    again.set_state(saved)
    assert all(same(next(again), batch) for batch in following)
    loader.restore(ours)
    assert all(same(next(loader), batch) for batch in following)
    again.set_state({"next_index": 10**9})  # our step, put into Grain's state
    assert same(next(again), loader.batch_at(10**9))
    ahead.close()
    again.close()


def test_grain_puts_blocks_of_rows_on_the_device(data: Path) -> None:
    loader = loader_of(data)
    dataset = grain.MapDataset.source(loader.source(0)).to_iter_dataset()
    moved = iter(grain.experimental.device_put(dataset, jax.devices()[0]))
    for step in range(5):
        batch = next(moved)
        assert isinstance(batch, Batch) and isinstance(batch.tokens, jax.Array)
        assert same(batch, loader.batch_at(step))
    assert moved.get_state() is not None
    moved.close()


def test_grain_reads_a_source_in_processes_of_its_own(data: Path) -> None:
    flags.FLAGS.mark_as_parsed()  # which Grain wants of a program that has processes
    loader = loader_of(data)
    dataset = grain.MapDataset.source(loader.source(0)).to_iter_dataset()
    options = grain.multiprocessing.MultiprocessingOptions(num_workers=1)
    ahead = iter(dataset.mp_prefetch(options))
    for step in range(3):
        assert same(next(ahead), loader.batch_at(step))
    ahead.close()


def test_orbax_saves_the_state_with_the_model_and_other_shards_restore_it(data: Path, tmp_path: Path) -> None:
    model = {"w": jnp.arange(6.0).reshape(2, 3)}
    loader = loader_of(data, shard=(1, 2), threads=1)
    for _ in range(5):
        next(loader)
    loader.close()
    with ocp.CheckpointManager(tmp_path / "checkpoints") as manager:
        args = ocp.args.Composite(model=ocp.args.StandardSave(model), loader=ocp.args.JsonSave(loader.state()))
        manager.save(loader.step, args=args)
    whole = loader_of(data)
    with ocp.CheckpointManager(tmp_path / "checkpoints") as manager:
        args = ocp.args.Composite(
            model=ocp.args.StandardRestore(jax.tree.map(jnp.zeros_like, model)), loader=ocp.args.JsonRestore()
        )
        found = manager.restore(manager.latest_step(), args=args)
    assert (found["model"]["w"] == model["w"]).all() and found["loader"] == loader.state()
    for index in range(4):
        part = loader_of(data, shard=(index, 4), workers=int(index == 3))
        part.restore(found["loader"])
        for step in range(5, 8):
            rows = slice(index * B // 4, (index + 1) * B // 4)
            assert same(next(part), jax.tree.map(lambda array: array[rows], whole.batch_at(step)))  # noqa: B023
        part.close()
    with pytest.raises(UserError, match="seed is 0 in it and 1 here"):
        loader_of(data, seed=1).restore(found["loader"])


PAGE = (Path(__file__).resolve().parents[2] / "docs" / "loading.md").read_text("utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_of_the_page_on_loading_runs(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_toy_dataset(tmp_path / "runs" / "demo" / "data", {"web": 600})
    monkeypatch.chdir(tmp_path)
    exec(EXAMPLES[number], {})
    assert capsys.readouterr().out
