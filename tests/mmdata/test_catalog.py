"""The catalog: the item table of the records, shards cut anywhere."""

import dataclasses

import numpy as np
import pytest

import mmdata
from mmdata.catalog import catalog_digest
from tests.mmdata.toy_source import sample, write_toy
from tokenizer.item import ItemTable


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    write_toy(folder, [sample(i, soft=i % 3 == 0) for i in range(20)])
    return mmdata.open(folder)["toy"]


def test_the_item_table_is_that_of_the_samples(source) -> None:
    for start, stop in ((0, None), (0, 1), (2, 8), (5, 5), (4, None)):
        table = source.train.item_table(start, stop)
        want = ItemTable.of([s.items for s in list(source.train)[start:stop]])
        assert len(table) == len(want)
        for field in dataclasses.fields(ItemTable):
            a, b = getattr(table, field.name), getattr(want, field.name)
            if field.name in ("codec", "stream"):  # numbered by name
                names = [(*t.codecs, "") if field.name == "codec" else t.streams for t in (table, want)]
                assert [names[0][i] for i in a] == [names[1][i] for i in b]
            elif isinstance(a, np.ndarray):
                np.testing.assert_array_equal(a, b, err_msg=field.name)
                assert a.dtype == b.dtype, field.name


def test_one_row_a_sample_with_its_counts(source) -> None:
    rows = source.catalog.to_pylist()
    assert len(rows) == 20 and [r["split"] for r in rows] == ["train"] * len(source.train) + ["validation"] * len(
        source.validation
    )
    first = source.train[0]
    assert rows[0]["id"] == first.id and rows[0]["cluster"] == first.cluster
    assert rows[0]["uri"].endswith("é\\xff.html")
    assert rows[0]["image_items"] == 1 + any(i.is_soft for i in first.items) and rows[0]["video_codes"] == 8
    assert dict(rows[0]["quality"]) == {"score": 0.25}
    assert [r["index"] for r in rows[:4]] == [0, 1, 2, 0] and [r["shard"] for r in rows[:4]] == [0, 0, 0, 1]


def test_the_digest_is_of_the_values(source) -> None:
    table = source.catalog
    assert catalog_digest(table) == catalog_digest(table.take(list(range(20))))
    assert catalog_digest(table) != catalog_digest(table.take([1, 0, *range(2, 20)]))
