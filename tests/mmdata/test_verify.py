"""`mmdata verify`: whatever is not as it was written is named, by any number of processes in the same words."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mmdata
from mmdata.example import decode_example, encode_example
from mmdata.manifest import canonical_json, fingerprint_of
from mmdata.plan import Plan, PlanSettings, make_plan, plan_fingerprint, read_plan, write_plan
from mmdata.pool import Lost, run_each
from mmdata.shards import RecordFiles, encode_sample, write_records
from mmdata.verify import verify
from tests.mmdata.toy_data import write_toy_dataset
from tests.mmdata.toy_source import media_of, sample, write_toy
from tokenizer.item import Item

SAMPLES = [sample(i, soft=i % 3 == 0) for i in range(20)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    write_toy(folder, SAMPLES, keep="resized")
    return folder


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(folder, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sources with the plan of each split in its cache, some documents longer than a row, pictures limited."""
    folder = write_toy_dataset(tmp_path_factory.mktemp("planned"))
    for split in ("train", "validation"):
        mmdata.Loader(folder, seq_len=128, batch_size=2, split=split, limits={"images": 2})
    mmdata.Loader(folder, seq_len=128, batch_size=2, split_share=0.3)
    return folder


def words(folder: Path, **options: object) -> str:
    return "\n".join(f"{where}: {what}" for where, what in verify(folder, **options).problems)  # type: ignore[arg-type]


def shard(folder: Path, number: int) -> Path:
    return next((folder / "toy").glob(f"toy-train*{number:05d}-of*"))


def rewrite_record(path: Path, place: int, change: Callable[[mmdata.Sample], mmdata.Sample | bytes]) -> None:
    """The shard with one record written otherwise; manifest and catalog stay."""
    from mmdata.shards import decode_sample

    count = RecordFiles([path]).num_records(0)
    records = RecordFiles([path]).read(0, range(count))
    changed = change(decode_sample(records[place]))
    records[place] = changed if isinstance(changed, bytes) else encode_sample(changed)
    write_records(path, records)


# What is as it was written


def test_verify_is_content_with_what_was_written(folder: Path) -> None:
    report = verify(folder)
    assert report.ok, report.problems
    assert report.checked["samples"] == 20 and report.checked["media"] == 40
    assert report.checked["items"] == sum(len(s.items) for s in SAMPLES)
    quick = verify(folder, full=False)
    assert quick.ok and quick.checked["samples"] == 0 and quick.checked["bytes"] == report.checked["bytes"]


def test_plans_of_a_known_layout_are_measured_and_of_others_only_their_arrays(planned: Path) -> None:
    report = verify(planned)
    assert report.ok, report.problems
    assert report.checked["plans"] == 6 and report.checked["entries_measured"] == report.checked["entries"] > 100
    own = planned / "own.toml"
    own.write_text((Path(mmdata.__file__).parents[1] / "tokenizer/layouts/mmdata.toml").read_text() + "\n")
    text = own.read_text().replace('name = "mmdata"', 'name = "own"')
    assert text != own.read_text()
    own.write_text(text)
    mmdata.Loader(planned / "web", layout=own, seq_len=128, batch_size=2)
    more = verify(planned)
    assert more.ok and more.checked["plans"] == 7
    assert more.checked["entries_measured"] == report.checked["entries"] < more.checked["entries"]
    told = verify(planned, layouts=[str(own)])
    assert told.ok and told.checked["entries_measured"] == more.checked["entries"]


# Bytes


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_flipped_bit_of_any_file_is_found_by_the_quick_check(folder: Path, data: st.DataObject) -> None:
    files = sorted(path for path in (folder / "toy").rglob("*") if path.is_file() and path.suffix != ".json")
    path = data.draw(st.sampled_from([f for f in files if f.suffix != ".parquet" or f.parent.name == "catalog"]))
    whole = path.read_bytes()
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    damaged = bytearray(whole)
    damaged[bit // 8] ^= 1 << bit % 8
    path.write_bytes(damaged)
    try:
        found = words(folder, full=False)
    finally:
        path.write_bytes(whole)
    if path.suffix == ".parquet":  # whose values count, not its bytes
        assert not found or path.name in found
    else:
        assert f"toy/{path.relative_to(folder / 'toy')}: the sha256 is not the manifest's" in found


def test_a_changed_byte_a_lost_file_and_a_cut_one_are_named(copy: Path) -> None:
    data = bytearray(shard(copy, 1).read_bytes())
    data[data.index(b"toy-text@1")] ^= 1
    shard(copy, 1).write_bytes(data)
    shard(copy, 2).unlink()
    cut = shard(copy, 3).read_bytes()
    shard(copy, 3).write_bytes(cut[:-100])
    media = next((copy / "toy" / "media").glob("*00001-of*2"))
    media.unlink()
    for found in (words(copy), words(copy, full=False)):
        assert "00001-of-00004: the sha256 is not the manifest's" in found
        assert "00002-of-00004: the file is missing" in found
        assert f"00003-of-00004: {len(cut) - 100} bytes, the manifest says {len(cut)}" in found
        assert f"toy/media/{media.name}: the file is missing" in found
    assert "record 0: " in words(copy)


def test_a_catalog_of_another_shard_or_of_no_bytes_is_named(copy: Path) -> None:
    catalogs = sorted((copy / "toy" / "catalog").glob("train-*"))
    catalogs[0].write_bytes(catalogs[1].read_bytes())
    catalogs[3].write_bytes(b"PAR1")
    found = words(copy)
    assert "00000-of-00004: the values of catalog/train-00000-of-00004.parquet are not those" in found
    assert "00000-of-00004: record 0 is document" in found and "00000-of-00004: catalog" in found
    assert "00003-of-00004: catalog/train-00003-of-00004.parquet cannot be read" in found


def test_what_tfds_reads_and_what_the_manifest_says_agree(copy: Path) -> None:
    path = copy / "toy" / "dataset_info.json"
    info = json.loads(path.read_text())
    info["splits"][0]["shardLengths"][0] = "2"
    path.write_text(json.dumps(info))
    assert "dataset_info.json lists train shards of [2, 3" in words(copy, full=False)
    path.write_text("{}")
    assert "dataset_info.json cannot be read" in words(copy, full=False)


# Records


def test_a_record_that_is_another_one_than_the_catalogs(copy: Path) -> None:
    def shorter(before: mmdata.Sample) -> mmdata.Sample:
        text = before.items[0]
        assert text.codes is not None
        return mmdata.Sample(**{**vars(before), "items": (_with(text, codes=text.codes[:-1]), *before.items[1:])})

    rewrite_record(shard(copy, 0), 1, shorter)
    found = words(copy)
    for column in ("text_codes", "item_T", "item_offset", "record_bytes"):
        assert f"record 1 (document {_id(copy, 1)}): {column} differs in the catalog" in found, found
    assert "record 1 is not the one the catalog names (digest)" in found and "record 2" not in found
    rewrite_record(shard(copy, 1), 0, lambda before: b"no example")
    assert "00001-of-00004: record 0: not a tf.train.Example" in words(copy)


def test_codes_shapes_and_times_that_no_codec_gives(tmp_path: Path) -> None:
    text = sample(1).items[0]
    for number, (item, expected) in enumerate(
        (
            (Item("text", "toy-text@1", np.full((2, 1), 300, np.int32)), "has codes from 300 to 300"),
            (Item("text", "toy-image@2", np.ones((2, 1), np.int32)), "is text of an image codec"),
            (Item("audio", "toy-audio@1", np.ones((3, 1), np.int32), (3, 0, 0)), "has 1 codebooks"),
            (Item("audio", "toy-audio@1", np.ones((3, 2), np.int32), (2, 0, 0)), "a grid of (2, 0, 0)"),
            (
                Item("image", "toy-image@2", np.ones((6, 1), np.int32), (1, 2, 4)),
                "6 code frames in a grid of 1 x 2 x 4",
            ),
            (
                Item("image", "toy-image@2", np.ones((6, 1), np.int32), (2, 1, 3)),
                "6 code frames in a grid of 2 x 1 x 3",
            ),
            (_with(text, sentence_ends=np.array([1, 99], np.int32)), "sentence ends outside its"),
            (_with(text, start_s=2.0, end_s=1.0), "ends at 1.0 s before it starts"),
            (
                Item("video", "toy-image@2", np.ones((4, 1), np.int32), (2, 1, 2), times=np.zeros(3, np.float32)),
                "3 times for 2 frames",
            ),
        )
    ):
        bad = mmdata.Sample(**{**vars(sample(1)), "items": (text, item)})
        write_toy(tmp_path / str(number), [bad], share=0.0)
        found = words(tmp_path / str(number))
        assert expected in found and f"record 0 (document {bad.id}): item 1" in found, found


def test_a_code_that_is_no_int32(tmp_path: Path) -> None:
    picture = Item("image", "toy-image@2", np.full((6, 1), 69_999, np.int32), (1, 2, 3))  # codes of 4 bytes
    write_toy(tmp_path, [mmdata.Sample(**{**vars(sample(1)), "items": (sample(1).items[0], picture)})], share=0.0)
    features = decode_example(RecordFiles([shard(tmp_path, 0)]).read(0, [0])[0])
    place = int(features["item/offset"][1])  # type: ignore[index]
    assert features["item/dtype"][1] == b"u4"
    features["codes"] = [features["codes"][0][: place + 3] + b"\xff" + features["codes"][0][place + 4 :]]
    write_records(shard(tmp_path, 0), [encode_example(features)])
    assert "item 1 has codes from -16" in words(tmp_path)


def test_codes_where_the_catalog_does_not_look_for_them(tmp_path: Path) -> None:
    """A batch reads codes at the catalog's offsets; a record may have them elsewhere and still be whole by itself."""
    write_toy(tmp_path, [sample(1)], share=0.0)
    path = shard(tmp_path, 0)
    features = decode_example(RecordFiles([path]).read(0, [0])[0])
    features["item/offset"][1] -= 1  # type: ignore[operator]
    write_records(path, [encode_example(features)])
    assert "item 1 has other codes where the catalog looks for them" in words(tmp_path)


def test_counts_and_codecs_of_the_manifest_are_the_catalogs(copy: Path) -> None:
    path = copy / "toy" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["shards"][1]["counts"]["image"]["codes"] += 1
    manifest["shards"][2]["codecs"] = ["toy-text@1"]
    path.write_text(json.dumps(manifest))
    found = words(copy, full=False)
    assert "fingerprint" in found and "the manifest disagrees with itself in ['splits']" in found
    assert "00001-of-00004: the manifest counts" in found and "00002-of-00004: the manifest names the codecs" in found


def test_a_document_in_two_shards_is_named_in_the_later_one(tmp_path: Path) -> None:
    plain = [sample(i) for i in range(7)]
    write_toy(tmp_path, [*plain, plain[2], plain[1]], share=0.0)
    assert verify(tmp_path).problems == verify(tmp_path, full=False).problems == [
        ("toy/toy-train.array_record-00002-of-00003",
         f"record 1: document {SAMPLES[2].id} is in toy-train.array_record-00000-of-00003 record 2 too"),
        ("toy/toy-train.array_record-00002-of-00003",
         f"record 2: document {SAMPLES[1].id} is in toy-train.array_record-00000-of-00003 record 1 too"),
    ]  # fmt: skip


def test_the_lines_of_one_shard_are_capped(tmp_path: Path) -> None:
    write_toy(tmp_path, [SAMPLES[0]] * 3, share=0.0)
    for place in range(3):
        rewrite_record(shard(tmp_path, 0), place, lambda before: mmdata.Sample("0" * 32, "1" * 32, "toy", ()))
    problems = [what for _, what in verify(tmp_path).problems]
    assert len(problems) == 21 and problems[-1].startswith("and ")


# Media


def test_a_soft_item_that_is_not_what_is_kept(tmp_path: Path) -> None:
    picture, sound = media_of(1)
    times = np.array([0.0, 1.0], np.float32)
    name = f"record 0 (document {sample(1).id}): item 0"
    for item, expected in (
        (Item("image", "", None, (1, 4, 6), digest=sound.digest), f"is soft and its image {sound.digest} is not kept"),
        (Item("image", "", None, (1, 4, 6)), "is soft and its image without digest is not kept"),
        (Item("image", "", None, (1, 4, 8), digest=picture.digest), "has grid (1, 4, 8), its image"),
        (Item("audio", "", None, (41, 0, 0), digest=sound.digest), "is kept as (40, 0, 0)"),
        (Item("video", "", None, (3, 4, 6), times=times, digest=picture.digest), "has 2 times for 3 frames"),
    ):
        wrong = mmdata.Sample(**{**vars(sample(1)), "items": (item,)})
        shutil.rmtree(tmp_path / "soft", ignore_errors=True)
        write_toy(tmp_path / "soft", [wrong], share=0.0, keep="resized")
        found = words(tmp_path / "soft")
        assert name in found and expected in found, found


def test_media_that_are_not_what_the_index_says(copy: Path) -> None:
    one, other = sorted((copy / "toy" / "media").glob("*.parquet"))
    one.write_bytes(other.read_bytes())
    found = words(copy)
    assert "belongs into another shard" in found and "of the index is" in found and "is not kept" not in found
    assert verify(copy, full=False).ok  # which reads no record


def test_original_media_have_the_digest_they_are_named_by(tmp_path: Path) -> None:
    write_toy(tmp_path, SAMPLES[:4], keep="original")
    assert verify(tmp_path).ok
    path = sorted((tmp_path / "toy" / "media").glob("*.array_record-*"))[0]
    records = RecordFiles([path]).read(0, range(RecordFiles([path]).num_records(0)))
    picture = media_of(0)[0].data.tobytes()  # type: ignore[union-attr]
    records = [record.replace(picture, picture[::-1]) for record in records]
    write_records(path, records)
    assert f"image {media_of(0)[0].digest} has bytes of another digest" in words(tmp_path)


# Plans


def test_a_plan_that_is_not_one_is_named(planned: Path, tmp_path: Path) -> None:
    def no_source(plan: Plan) -> None:
        plan.sample[3] = 10_000

    def outside(plan: Plan) -> None:
        plan.stop[3] += 10_000

    def backwards(plan: Plan) -> None:
        plan.start[3] = plan.stop[3]

    def twice(plan: Plan) -> None:
        plan.sample[4], plan.start[4], plan.stop[4] = plan.sample[3], plan.start[3], plan.stop[3]

    def too_full(plan: Plan) -> None:
        plan.length[3] += 200

    def longer(plan: Plan) -> None:
        row = int(np.argmin(np.add.reduceat(plan.length, plan.rows[:-1])))
        plan.length[plan.rows[row]] += 1

    def shorter(plan: Plan) -> None:
        plan.stop[np.argmax(plan.stop - plan.start)] -= 1

    def bounds(plan: Plan) -> None:
        plan.rows[2] = plan.rows[3] + 1

    def told(plan: Plan) -> None:
        plan.report["tokens"] += 1

    for change, expected in (
        (no_source, "entries of samples outside its shards, the first of sample 10000"),
        (outside, "entries outside their sample, the first places"),
        (backwards, "entries outside their sample"),
        (twice, "entries have places that come twice"),
        (too_full, "rows are empty or over 128 tokens"),
        (longer, "entries of another length than the layout's"),
        (shorter, "are in no row although they fit one"),
        (bounds, "rows are no"),
        (told, "its report says"),
    ):
        path = _copy_of_a_plan(planned, tmp_path / change.__name__)
        plan = read_plan(path)
        writable = Plan(**{k: v.copy() if isinstance(v, np.ndarray) else v for k, v in vars(plan).items()})
        change(writable)
        write_plan(path, writable)
        report = verify(path.parents[1])
        assert all(where == f"web/plans/{path.name}" for where, _ in report.problems)
        assert any(expected in what for _, what in report.problems), (change.__name__, report.problems)


def test_a_row_over_a_limit_is_named(planned: Path, tmp_path: Path) -> None:
    path = _copy_of_a_plan(planned, tmp_path / "web")
    source = mmdata.open(path.parents[1])["web"]
    layout = mmdata.Loader(source, seq_len=128, batch_size=2).layout
    freely = make_plan(source, "train", layout, PlanSettings(layout.digest, 128))
    strict = PlanSettings(layout.digest, 128, limits={"images": 1})
    name = plan_fingerprint(strict, source.fingerprint, "train")
    write_plan(path.with_name(f"{name}.safetensors"), Plan(**{**vars(freely), "settings": strict}))
    assert "rows over the limits of images, frames or sound" in words(path.parents[1])


def test_plans_of_another_name_or_source_or_of_no_plan(planned: Path, tmp_path: Path) -> None:
    path = _copy_of_a_plan(planned, tmp_path / "web")
    other = path.with_name("0" * 64 + ".safetensors")
    path.rename(other)
    assert f"its settings, source and split have the fingerprint {path.stem}: delete it" in words(tmp_path / "web")
    other.write_bytes(other.read_bytes()[:-8])
    assert "is not a plan" in words(tmp_path / "web")
    other.unlink()
    # What an earlier build of the source left: its name is right, nobody will read it.
    plan = read_plan(next((planned / "speech" / "plans").iterdir()))
    write_plan(path.with_name(f"{plan.fingerprint}.safetensors"), plan)
    before = verify(tmp_path / "web")
    assert before.ok and before.checked["plans"] == 0


# Processes


def test_the_report_is_the_same_for_any_number_of_processes(copy: Path) -> None:
    for number in (0, 2, 3):
        rewrite_record(shard(copy, number), 0, lambda before: b"no example")
    shard(copy, 1).unlink()
    shutil.copytree(copy / "toy", copy / "toy" / ".." / "again")
    manifest = json.loads((copy / "again" / "manifest.json").read_text())
    manifest["name"] = "again"
    (copy / "again" / "manifest.json").write_text(json.dumps(manifest))
    told = {"format_version": 1, "kind": "dataset", "sources": []}
    for name in ("toy", "again"):
        fingerprint = fingerprint_of(json.loads((copy / name / "manifest.json").read_bytes()))
        told["sources"].append({"name": name, "fingerprint": fingerprint})  # type: ignore[attr-defined]
    (copy / "manifest.json").write_bytes(canonical_json(told))
    alone = verify(copy)
    seen: list[tuple[int, int]] = []
    assert len(alone.problems) > 8 and alone.checked["sources"] == 2
    assert verify(copy, workers=3, progress=lambda done, total: seen.append((done, total))) == alone
    assert seen == [(n, len(seen)) for n in range(1, len(seen) + 1)]


def test_a_process_killed_once_changes_nothing_and_one_killed_twice_is_named(tmp_path: Path) -> None:
    once = [(number, tmp_path / str(number), 1) for number in range(6)]
    assert run_each(_die, once, 2) == [0, 1, 2, 3, 4, 5]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "4"]  # they did die
    for path in tmp_path.iterdir():
        path.unlink()
    answers = run_each(_die, [(number, tmp_path / str(number), 2) for number in range(6)], 2)
    assert [a for a in answers if not isinstance(a, Lost)] == [0, 2, 3, 5]
    assert answers[1] == answers[4] == Lost("SIGKILL, which the kernel also sends when memory is short")


def test_what_a_process_raises_is_raised_here(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        run_each(_divide, [1, 2, 0, 3], 2)


def test_a_shard_whose_check_kills_is_a_line_and_all_others_are_checked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmdata.verify._check", _deadly_check)
    report = verify(folder, workers=2)
    name = "toy/toy-train.array_record-00001-of-00004"
    words = "not checked: two processes died of it (SIGKILL, which the kernel also sends when memory is short)"
    assert report.problems == [(name, f"{words}; try --workers 1")]
    assert report.checked["samples"] == 17


def _die(argument: tuple[int, Path, int]) -> int:
    """The number; of 1 and 4 the process dies `times` times."""
    number, marks, times = argument
    if number in (1, 4):
        seen = len(marks.read_bytes()) if marks.exists() else 0
        if seen < times:
            marks.write_bytes(b"x" * (seen + 1))
            os.kill(os.getpid(), signal.SIGKILL)
    return number


def _divide(number: int) -> float:
    return 1 / number


def _deadly_check(file: object) -> object:
    from mmdata.verify import _check

    if "00001-of-00004" in file.name:  # type: ignore[attr-defined]
        os.kill(os.getpid(), signal.SIGKILL)
    return _check(file)  # type: ignore[arg-type]


def _with(item: Item, **more: object) -> Item:
    return Item(**{**vars(item), **more})  # type: ignore[arg-type]


def _id(folder: Path, number: int) -> str:
    return mmdata.open(folder)["toy"].train.catalog(["id"], number, number + 1).to_pylist()[0]["id"]


def _copy_of_a_plan(planned: Path, to: Path) -> Path:
    """A copy of the source "web" with one plan: that of the train split in the default layout."""
    shutil.copytree(planned / "web", to)
    plans = {path: read_plan(path) for path in (to / "plans").iterdir()}
    (kept,) = (path for path, plan in plans.items() if plan.split == "train" and plan.settings.limits)
    for other in set(plans) - {kept}:
        other.unlink()
    return kept
