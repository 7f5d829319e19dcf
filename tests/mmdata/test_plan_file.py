"""The plan's file: the bytes of the safetensors library, written a window at a time, opened as views of its map."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from mmdata.errors import RunError, UserError
from mmdata.manifest import canonical_json
from mmdata.plan import PlanSettings, make_plan, read_plan, store_plan, write_plan
from mmdata.plan_file import ARRAYS, plan_writer
from tests.mmdata.toy_plan import ToyLayout, ToySource, drawn, source_of, text


def stored(path: Path, source: ToySource, **more: Any) -> Any:
    return store_plan(path, source, "train", ToyLayout(), PlanSettings("toy", 40, **more))


@pytest.mark.parametrize("share", [0.0, 0.1])
@pytest.mark.parametrize("num", [0, 1, 77])
def test_the_bytes_are_those_of_the_library(tmp_path: Path, num: int, share: float) -> None:
    source = source_of(drawn(1, num=num), shard=10)
    plan = make_plan(source, "train", ToyLayout(), PlanSettings("tö\x7fy\n", 40, split_share=share))
    path = tmp_path / "plan.safetensors"
    write_plan(path, plan)
    header = {
        "version": plan.settings.version,
        "settings": plan.settings.to_json(),
        "source": plan.source,
        "split": plan.split,
        "report": plan.report,
    }
    arrays = {name: getattr(plan, name) for name in ARRAYS}
    assert path.read_bytes() == save(arrays, metadata={"mmdata": canonical_json(header).decode()})
    for name, values in load_file(path).items():
        np.testing.assert_array_equal(values, getattr(plan, name))


def test_a_stored_plan_equals_one_made_in_memory(tmp_path: Path) -> None:
    source = source_of(drawn(2, num=90), shard=10)
    plan = stored(tmp_path / "a", source, split_share=0.1)
    write_plan(tmp_path / "b", make_plan(source, "train", ToyLayout(), PlanSettings("toy", 40, split_share=0.1)))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]  # nothing else is left behind
    assert plan.windows.tolist()[-1] == plan.num_rows and plan.report["windows"] == len(plan.windows) - 1


def test_a_read_plan_is_views_of_its_file_and_travels_as_its_path(tmp_path: Path) -> None:
    plan = stored(tmp_path / "a", source_of(drawn(2, num=200)))
    assert not plan.sample.flags.owndata and not plan.sample.flags.writeable
    sent = pickle.dumps(plan)
    assert len(sent) < plan.sample.nbytes
    again = pickle.loads(sent)
    assert again.fingerprint == plan.fingerprint and again.sample.tolist() == plan.sample.tolist()


def test_a_plan_whose_making_fails_leaves_nothing(tmp_path: Path) -> None:
    source = source_of([*drawn(2, num=30), [text(100)]], shard=5)
    with pytest.raises(UserError, match="raise seq_len"):
        stored(tmp_path / "a", source, too_long="error", limits={"images": 0})
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    class Full:
        def write(self, data: Any) -> None:
            raise OSError(28, "No space left on device")

    with plan_writer(tmp_path / "a") as writer:
        writer._files = dict.fromkeys(ARRAYS, Full())  # type: ignore[arg-type]
        with pytest.raises(RunError, match="no space left to write"):
            writer.append("rows", np.zeros(3, np.int64))


def test_a_damaged_plan_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    stored(path, source_of(drawn(2, num=20)))
    whole = path.read_bytes()
    for number, damaged in enumerate(
        [b"", whole[:5], whole[:200], whole[:-1], whole + b"\0", whole.replace(b'"I64"', b'"F64"', 1)]
    ):
        (bad := tmp_path / f"bad{number}").write_bytes(damaged)
        with pytest.raises(UserError, match=r"is not a plan .*: delete it, it is made again"):
            read_plan(bad)
    (tmp_path / "newer").write_bytes(whole.replace(rb'\"version\":2}"},"rows"', rb'\"version\":7}"},"rows"'))
    with pytest.raises(UserError, match="plan of version 7, this mmdata reads"):
        read_plan(tmp_path / "newer")
