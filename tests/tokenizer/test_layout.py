"""Layouts: lengths, cuts, choices, render, apply and parse agree, over random samples and for any ids."""

import itertools
import math
import pickle
import re
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenizer.choose import _share
from tokenizer.codec import CodecSpec
from tokenizer.item import AUDIO, IMAGE, TEXT, VIDEO, Item, ItemTable
from tokenizer.layout import PLAIN, Choice, Layout, load_layout, read_layout

CODECS = (
    CodecSpec("bytes@1", "text", (256,), "", True),
    CodecSpec("toy-image@1", "image", (50,), "", False),
    CodecSpec("two-books@1", "image", (20, 30), "", False),
    CodecSpec("toy-sound@1", "audio", (16, 8, 4), "", False, 2.5),
    CodecSpec("timeless@1", "audio", (9,), "", False),
    CodecSpec("toy-video@1", "video", (11,), "", False),
)
BOOKS = {c.name: c.codebooks for c in CODECS}
SHIPPED = (resources.files("tokenizer") / "layouts" / "mmdata.toml").read_text(encoding="utf-8")
# No closers, no text times, blocks: what the default layout does not use.
BARE = (
    SHIPPED.replace('close = "</image>"', "")
    .replace('close = "</audio>"', "")
    .replace('close = "</video>"', "")
    .replace('times = "start_end"', 'times = "none"')
    .replace('times = "frames"', 'times = "none"')
    .replace("blocks = []", 'blocks = ["image", "video"]')
    .replace("condition_dropout = 0.0", "condition_dropout = 0.5")
)
LAYOUTS = (load_layout("mmdata").bind(CODECS), read_layout(BARE).bind(CODECS))
DEFAULT = LAYOUTS[0]
NAN = float("nan")


def codes_of(codec: str, num: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, BOOKS[codec], (num, len(BOOKS[codec]))).astype(np.int32)


def text_item(words: str, **fields) -> Item:
    return Item("text", "bytes@1", np.frombuffer(words.encode(), np.uint8).astype(np.int32)[:, None], **fields)


@st.composite
def items(draw: st.DrawFn) -> Item:
    kind = draw(st.sampled_from(["text", "image", "audio", "video"]))
    seed = draw(st.integers(0, 99))
    seconds = st.one_of(st.just(NAN), st.floats(-5, 20_000))
    group = draw(st.sampled_from([-1, -1, 0, 1]))
    fields = {"group": group, "group_role": draw(st.sampled_from(["none", "caption", "condition", "target"]))}
    if kind == "text":
        codes = codes_of("bytes@1", draw(st.integers(0, 12)), seed)
        ends = np.array(sorted(draw(st.sets(st.integers(0, 12), max_size=3))), np.int32)
        return Item(kind, "bytes@1", codes, start_s=draw(seconds), end_s=draw(seconds), sentence_ends=ends, **fields)
    if kind == "audio":
        codec = draw(st.sampled_from(["toy-sound@1", "timeless@1"]))
        codes = codes_of(codec, draw(st.integers(0, 12)), seed)
        return Item(kind, codec, codes, (len(codes), 0, 0), draw(seconds), draw(seconds), **fields)
    h, w = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    if kind == "image":
        codec = draw(st.sampled_from(["toy-image@1", "two-books@1"]))
        return Item(kind, codec, codes_of(codec, h * w, seed), (1, h, w), **fields)
    codec, t = draw(st.sampled_from(["toy-image@1", "two-books@1", "toy-video@1"])), draw(st.integers(0, 4))
    times = np.array(draw(st.lists(st.floats(-1, 14_000, width=32), min_size=t, max_size=t)), np.float32)
    if draw(st.booleans()):
        times = times[:0]
    return Item(kind, codec, codes_of(codec, t * h * w, seed), (t, h, w), times=times, **fields)


samples = st.lists(items(), max_size=5)
layouts = st.sampled_from(LAYOUTS)


def fields(found: Sequence[Item]) -> list[tuple]:
    """Items as comparable values, every field of them; NaN is spelled out."""
    return [
        (
            i.kind,
            i.codec,
            None if i.codes is None else (i.codes.shape, i.codes.dtype.str, i.codes.tobytes()),
            i.grid,
            str(i.start_s),
            str(i.end_s),
            i.times.tobytes(),
            (i.role, i.stream, i.group, i.group_role, i.digest, i.uri, i.text),
        )
        for i in found
    ]


def check_row(layout: Layout, sample: list[Item], choice: Choice, piece: tuple[int, int] | None) -> int:
    row = layout.render(sample, choice, piece)
    n = len(row)
    shapes = {a.shape for a in (row.tokens, row.loss_weights, row.positions, row.kinds)}
    assert shapes == {(n,)}
    assert (row.tokens >= 0).all() and (layout.vocabulary.range_index(row.tokens) >= 0).all()
    assert (np.diff(row.positions) == 1).all()
    # Spans follow one another and cover all but the first and last token.
    edges = [1, *row.spans["stop"].tolist()]
    assert row.spans["start"].tolist() == edges[:-1] and edges[-1] == n - 1
    found, problems = layout.parse(row.tokens)
    assert problems == []
    assert fields(found) == fields(layout.apply(sample, choice, piece))
    if piece is None:
        again = layout.render(found)
        for name in ("tokens", "loss_weights", "positions", "kinds"):
            np.testing.assert_array_equal(getattr(again, name), getattr(row, name))
    return n


@settings(max_examples=120, deadline=None)
@given(layouts, samples, st.integers(0, 5))
def test_what_was_rendered_comes_back_and_has_the_length_foretold(layout, sample, epoch):
    table = ItemTable.of([sample])
    length = int(layout.lengths(table)[0])
    assert check_row(layout, sample, PLAIN, None) == length
    choice = layout.choose(sample, 7, "id", epoch)
    assert choice == layout.choose(table, 7, "id", epoch)
    assert check_row(layout, sample, choice, None) <= length
    assert choice.dropped or len(layout.render(sample, choice)) == length


@settings(max_examples=120, deadline=None)
@given(layouts, samples, st.data())
def test_pieces_cover_every_code_once_and_have_the_length_foretold(layout, sample, data):
    table = ItemTable.of([sample])
    places, ranks = layout.cuts(table)
    assert places[0] == 0 and (np.diff(places) > 0).all() and ranks[0] == ranks[-1] == 0
    assert places[-1] == table.num_units().sum()
    inner = data.draw(st.lists(st.sampled_from(places.tolist()), max_size=3))
    edges = sorted({0, int(places[-1]), *inner})
    pieces = list(itertools.pairwise(edges)) or [(0, 0)]
    lengths = layout.lengths(table, np.array(pieces), samples=np.zeros(len(pieces), int))
    choice = layout.choose(sample, 1, "id", 0) if data.draw(st.booleans()) else PLAIN
    got = []
    for piece, length in zip(pieces, lengths):
        assert check_row(layout, sample, PLAIN, piece) == length
        assert check_row(layout, sample, choice, piece) <= length
        row = layout.render(sample, PLAIN, piece)
        codes = np.isin(row.kinds, [TEXT, IMAGE, AUDIO, VIDEO])
        got.append(row.tokens[codes])
    whole = layout.render(sample)
    want = whole.tokens[np.isin(whole.kinds, [TEXT, IMAGE, AUDIO, VIDEO])]
    np.testing.assert_array_equal(np.concatenate(got), want)
    assert sum(len(layout.render(sample, PLAIN, p).spans) for p in pieces) >= len(sample)


@settings(max_examples=60, deadline=None)
@given(layouts, st.lists(samples, max_size=4))
def test_lengths_of_many_samples_are_those_of_each(layout, many):
    lengths = layout.lengths(ItemTable.of(many))
    assert lengths.dtype == np.int32
    assert lengths.tolist() == [len(layout.render(sample)) for sample in many]
    whole = np.array([[0, ItemTable.of([s]).num_units().sum()] for s in many]).reshape(-1, 2)
    np.testing.assert_array_equal(layout.lengths(ItemTable.of(many), whole), lengths)


def wild_ids(layout: Layout) -> st.SearchStrategy[list[int]]:
    """Ids that look like a row often enough to reach every branch of the parser."""
    near = st.one_of(
        st.sampled_from(sorted(layout.controls.values())),
        st.integers(layout.size_start, layout.size_start + 5),
        st.integers(layout.time_hi_start, layout.time_hi_start + 2),
        st.integers(layout.time_lo_start, layout.time_lo_start + 2),
        st.integers(0, layout.vocabulary.size + 3),
        st.integers(-(2**63), 2**63 - 1),
    )
    return st.lists(near, max_size=40)


@settings(max_examples=200, deadline=None)
@given(st.data(), layouts)
def test_any_ids_parse_to_items_that_render(data, layout):
    ids = np.array(data.draw(wild_ids(layout)), np.int64)
    found, problems = layout.parse(ids)
    assert all(0 <= p.position <= len(ids) and p.what for p in problems)
    row = layout.render(found)
    assert fields(layout.parse(row.tokens)[0]) == fields(found)


@settings(max_examples=100, deadline=None)
@given(layouts, samples, st.data())
def test_truncated_and_changed_rows_are_reported_or_parse_to_other_items(layout, sample, data):
    tokens = layout.render(sample).tokens
    cut = data.draw(st.integers(0, len(tokens) - 1))
    assert layout.parse(tokens[:cut])[1], "a row without its end is malformed"
    changed = tokens.copy()
    changed[cut] = data.draw(st.integers(0, layout.vocabulary.size - 1))
    found, problems = layout.parse(changed)
    same = fields(found) == fields(layout.apply(sample))
    assert problems or not same or changed[cut] == tokens[cut]


def test_no_form_of_input_makes_parse_raise():
    for ids in (
        [],
        [[1, 2], [3, 4]],
        np.zeros((2, 0)),
        np.array([2**64 - 1], np.uint64),
        np.array([np.nan]),
        ["a"],
        None,
    ):
        found, problems = DEFAULT.parse(ids)
        assert found == [] and problems


def test_a_problem_says_what_and_where():
    c, image = DEFAULT.controls, DEFAULT.vocabulary["toy-image@1/0"].start
    ids = [c["<bos>"], *DEFAULT.opening("image", 2, 2), image, image + 1, c["</image>"], c["<text>"], 65, c["<eos>"]]
    found, problems = DEFAULT.parse(np.array(ids))
    assert [i.kind for i in found] == ["text"]
    assert (problems[0].position, problems[0].what) == (4, "2 codes of image where 4 should be")


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=8), st.sampled_from(sorted(DEFAULT.controls)), st.text(max_size=8))
def test_text_that_spells_a_delimiter_stays_text(before, control, after):
    words = before + control + after
    words = words.encode("utf-8", "ignore").decode()
    row = DEFAULT.render([text_item(words)])
    assert not np.isin(row.tokens[2:-1], list(DEFAULT.vocabulary["control"])).any()
    (found,), problems = DEFAULT.parse(row.tokens)
    assert not problems and found.codes.astype(np.uint8).tobytes() == words.encode()


def test_a_document_in_ids():
    v, c = DEFAULT.vocabulary, DEFAULT.controls
    picture = Item("image", "toy-image@1", np.array([[5], [6]], np.int32), (1, 1, 2))
    sound = Item("audio", "toy-sound@1", np.array([[1, 2, 3]], np.int32), (1, 0, 0), start_s=25.6 + 0.1)
    film = Item("video", "toy-image@1", np.array([[7], [8]], np.int32), (2, 1, 1), times=np.array([0, 1], np.float32))
    row = DEFAULT.render([text_item("hi"), picture, sound, film])
    size, hi, lo, image, s = v["size"], v["time_hi"], v["time_lo"], v["toy-image@1/0"], "toy-sound@1/"
    want = [c["<bos>"], c["<text>"], ord("h"), ord("i")]
    want += [c["<image>"], size[1], size[2], image[5], image[6], c["</image>"]]
    want += [c["<audio>"], hi[1], lo[1], v[s + "0"][1], v[s + "1"][2], v[s + "2"][3], c["</audio>"]]
    want += [c["<video>"], size[1], size[1], hi[0], lo[0], image[7], hi[0], lo[10], image[8], c["</video>"], c["<eos>"]]
    assert row.tokens.tolist() == want
    kinds = [5, 5, 1, 1, 5, 5, 5, 2, 2, 5, 5, 5, 5, 3, 3, 3, 5, 5, 5, 5, 5, 5, 4, 5, 5, 4, 5, 5]
    assert row.kinds.tolist() == kinds
    assert row.loss_weights.tolist() == [0.0] + [1.0] * (len(want) - 1)
    assert row.spans["item"].tolist() == [0, 1, 2, 3]
    assert row.spans["start"].tolist() == [1, 4, 10, 17] and row.spans["stop"].tolist() == [4, 10, 17, 27]
    assert row.spans["piece"].tolist() == [[0, 2], [0, 1], [0, 1], [0, 2]]
    assert row.blocks is None and row.soft == {} and row.soft_index is None


def test_a_continued_piece_repeats_the_header_with_absolute_times():
    sound = Item("audio", "toy-sound@1", codes_of("toy-sound@1", 10, 0), (10, 0, 0), start_s=4.0)
    c = DEFAULT.controls
    first, second = DEFAULT.render([sound], piece=(0, 5)).tokens, DEFAULT.render([sound], piece=(5, 10)).tokens
    assert first[0] == c["<bos>"] and first[-1] == c["<cont>"] and c["</audio>"] not in first
    assert (
        second[0] == c["<cont>"] and second[1] == c["<audio>"] and second[-2:].tolist() == [c["</audio>"], c["<eos>"]]
    )
    assert DEFAULT.parse(second)[0][0].start_s == 6.0, "5 frames at 2.5 a second later"


def test_cuts_are_ranked_item_then_frame_or_second_then_sentence_then_token():
    text = replace(text_item("One. Two."), sentence_ends=np.array([4, 9], np.int32))
    sound = Item("audio", "toy-sound@1", codes_of("toy-sound@1", 6, 0), (6, 0, 0))
    film = Item("video", "toy-image@1", codes_of("toy-image@1", 8, 0), (2, 2, 2))
    picture = Item("image", "toy-image@1", codes_of("toy-image@1", 4, 0), (1, 2, 2))
    places, ranks = DEFAULT.cuts(ItemTable.of([[text, sound, film, picture]]))
    assert places.tolist() == [*range(10), 9 + 3, 9 + 5, 15, 16, 17, 18]
    assert ranks.tolist() == [0, 3, 3, 3, 2, 3, 3, 3, 3, 0, 1, 1, 0, 1, 0, 0]


def test_the_order_of_a_caption_is_chosen_by_hash_and_goes_both_ways():
    picture = Item("image", "toy-image@1", codes_of("toy-image@1", 4, 0), (1, 2, 2), group=3, group_role="target")
    sample = [text_item("before"), picture, text_item("caption", group=3, group_role="caption")]
    chosen = [DEFAULT.choose(sample, 0, "id", epoch) for epoch in range(400)]
    first = sum(choice.order == ((3, "caption_first"),) for choice in chosen)
    assert 150 < first < 250
    kinds = [i.kind for i in DEFAULT.apply(sample, Choice(order=((3, "caption_first"),)))]
    assert kinds == ["text", "text", "image"]
    row = DEFAULT.render(sample, Choice(order=((3, "caption_first"),)))
    assert row.spans["item"].tolist() == [0, 2, 1] and row.choice.order == ((3, "caption_first"),)
    assert DEFAULT.choose([text_item("alone")], 0, "id", 0) is PLAIN
    # Pinned: a choice made today is the choice made in every later version.
    assert " ".join(c.order[0][1][8:] for c in chosen[:8]) == "last first last first last first last first"


def test_condition_dropout_shortens_and_never_lengthens():
    layout = LAYOUTS[1]
    sample = [text_item("style", group=0, group_role="condition"), text_item("poem", group=0, group_role="target")]
    dropped = [layout.choose(sample, 0, "id", epoch).dropped for epoch in range(100)]
    assert 30 < sum(d == (0,) for d in dropped) < 70
    assert len(layout.apply(sample, Choice(dropped=(0,)))) == 1


def test_blocks_number_each_image_and_each_frame():
    film = Item("video", "toy-image@1", codes_of("toy-image@1", 4, 0), (2, 1, 2))
    picture = Item("image", "toy-image@1", codes_of("toy-image@1", 2, 0), (1, 1, 2))
    row = LAYOUTS[1].render([picture, text_item("x"), film])
    assert LAYOUTS[1].needs_blocks and not DEFAULT.needs_blocks
    assert row.blocks.tolist() == [0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 2, 2, 3, 3, 0]


def test_soft_items_are_refused_by_name_where_the_layout_takes_none():
    soft = Item("image", "", None, (1, 32, 48), digest="abc")
    with pytest.raises(ValueError, match=r"image 'abc' is a soft item, and layout mmdata takes none"):
        DEFAULT.render([soft])
    with pytest.raises(ValueError, match=r"item 1 of sample 0 .*soft item"):
        DEFAULT.lengths(ItemTable.of([[text_item("x"), soft]]))


def test_soft_items_take_placeholders_and_bring_their_media():
    text = (
        SHIPPED.replace('"</video>"]', '"</video>", "<soft>"]')
        + '\n[soft]\nplaceholder = "<soft>"\npatch = 16\nsamples = 100\n'
    )
    layout = read_layout(text).bind(CODECS)
    rng = np.random.default_rng(0)
    media = {"a": rng.integers(0, 256, (32, 40, 3)).astype(np.uint8), "b": rng.integers(-9, 9, 250).astype(np.int16)}
    sample = [
        Item("image", "", None, (1, 32, 40), digest="a"),
        text_item("x"),
        Item("audio", "", None, (250, 0, 0), digest="b", start_s=1.0),
        Item("image", "", None, (1, 32, 40), digest="a"),
    ]
    row = layout.render(sample, media=lambda item: media[item.digest])
    assert len(row) == layout.lengths(ItemTable.of([sample]))[0]
    assert row.soft["image"].shape == (12, 16, 16, 3) and row.soft["audio"].shape == (3, 100)
    np.testing.assert_array_equal(row.soft["image"][1], media["a"][:16, 16:32])
    assert row.soft["image"][2, :, 8:].max() == 0 and row.soft["audio"][2, 50:].max() == 0
    where = row.soft_index >= 0
    assert row.soft_index[where & (row.kinds == IMAGE)].tolist() == list(range(12))
    assert row.soft_index[where & (row.kinds == AUDIO)].tolist() == [0, 1, 2]
    assert (row.loss_weights[where] == 0).all()
    found, problems = layout.parse(row.tokens)
    assert not problems and fields(found) == fields(layout.apply(sample))
    assert [i.grid for i in found] == [(1, 32, 48), (0, 0, 0), (300, 0, 0), (1, 32, 48)]


@pytest.mark.parametrize(
    "item, says",
    [
        (Item("image", "other@1", np.zeros((4, 1), np.int32), (1, 2, 2)), "other@1"),
        (Item("text", "other@1", np.zeros((4, 1), np.int32)), "mmdata recode DIR --text bytes@1"),
        (Item("image", "toy-image@1", np.zeros((4, 1), np.int32), (1, 3, 2)), "4 codes for a grid"),
        (Item("image", "toy-image@1", np.zeros((256, 1), np.int32), (1, 256, 1)), "256 x 1 codes"),
        (Item("audio", "toy-sound@1", np.zeros((4, 1), np.int32), (4, 0, 0)), "with 1 codebooks"),
        (
            Item("video", "toy-image@1", np.zeros((1, 1), np.int32), (1, 1, 1), times=np.array([NAN], np.float32)),
            "without a time",
        ),
    ],
)
def test_lengths_and_render_refuse_the_same_items(item, says):
    for act in (lambda: DEFAULT.lengths(ItemTable.of([[], [item]])), lambda: DEFAULT.render([item])):
        with pytest.raises(ValueError) as error:
            act()
        assert says in str(error.value)


@pytest.mark.parametrize("code", [-1, 50])
def test_a_code_outside_its_codebook_never_becomes_another_id(code):
    with pytest.raises(ValueError, match="codes outside"):
        DEFAULT.render([Item("image", "toy-image@1", np.array([[code]], np.int32), (1, 1, 1))])


def test_times_saturate_and_are_kept_to_the_quantum():
    for seconds, back in ((-3.0, 0.0), (0.04, 0.0), (12.34, 12.3), (1e9, 13107.1)):
        (found,), _ = DEFAULT.parse(DEFAULT.render([text_item("x", start_s=seconds)]).tokens)
        assert found.start_s == pytest.approx(back) and math.isnan(found.end_s)
    assert any("13107.1 s" in line for line in DEFAULT.keeps)


def test_a_layout_survives_pickling_and_its_digest_tells_codecs_apart():
    again = pickle.loads(pickle.dumps(DEFAULT))
    assert again.digest == DEFAULT.digest
    assert load_layout("mmdata").bind(CODECS[:2]).digest != DEFAULT.digest
    assert load_layout("mmdata").bind(CODECS[::-1]).digest == DEFAULT.digest
    assert LAYOUTS[1].digest != DEFAULT.digest


def test_two_text_codecs_are_refused_with_the_command_that_mends_it():
    other = CodecSpec("other@1", "text", (10,), "", True)
    with pytest.raises(ValueError, match="mmdata recode DIR --text bytes@1"):
        load_layout("mmdata").bind([*CODECS, other])
    with pytest.raises(ValueError, match="two codecs have the name bytes@1"):
        load_layout("mmdata").bind([*CODECS, replace(CODECS[0], codebooks=(9,))])


@pytest.mark.parametrize(
    "old, new, says",
    [
        ("[vocabulary]", "[vocabulray]", "did you mean 'vocabulary'"),
        ("sizes = 256", "size = 256", "did you mean 'sizes'"),
        ("sizes = 256", 'sizes = "many"', "must be of type int"),
        ("version = 1", "", "no 'version'"),
        ('open = "<image>"', 'open = "<picture>"', "'<picture>' is not in vocabulary.controls"),
        ('open = "<image>"', 'open = "<text>"', "'<text>' is open of [image] and open of [text]"),
        ('open = "<image>"', "", "[image] has no open"),
        ('"<bos>", "<eos>"', '"<bos>", "<bos>"', "listed twice"),
        ('header = "two_sizes"', 'header = "none"', "cannot be parsed back"),
        ("control_places = 64", "control_places = 4", "raise control_places"),
        ('plan = "linear"', 'plan = "spiral"', "must be one of ['linear']"),
        ("end = 1.0", "end = -1.0", "weight of end must be 0 or above"),
        ('order = "either"', 'order = "both"', "'given' or 'either'"),
        ("name =", "name", "is not TOML"),
    ],
)
def test_a_bad_layout_file_is_refused_with_line_and_remedy(old, new, says):
    assert old in SHIPPED
    text = SHIPPED.replace(old, new, 1)
    with pytest.raises(ValueError) as error:
        read_layout(text, "mine.toml")
    assert says in str(error.value) and "mine.toml" in str(error.value)


def test_the_line_named_is_the_line_of_the_fault():
    text = SHIPPED.replace("sizes = 256", "size = 256", 1)
    line = next(n for n, t in enumerate(text.splitlines(), 1) if t.startswith("size = 256"))
    with pytest.raises(ValueError, match=f"line {line}:"):
        read_layout(text)


def test_an_unknown_layout_names_the_shipped_ones(tmp_path):
    with pytest.raises(ValueError, match="Did you mean 'mmdata'"):
        load_layout("mmdat")
    with pytest.raises(ValueError, match="no layout file"):
        load_layout(str(tmp_path / "none.toml"))
    (tmp_path / "mine.toml").write_text(SHIPPED, encoding="utf-8")
    assert load_layout(str(tmp_path / "mine.toml")).digest == load_layout("mmdata").digest


def test_choices_are_the_numbers_of_the_format_page(root: Path) -> None:
    text = (root / "docs/format.md").read_text("utf-8")
    listed = [float(word) for word in re.findall(r"^u = ([\d., ]+)\.$", text, re.MULTILINE)[0].split(", ")]
    assert [round(_share(0, "00" * 16, epoch, "order", 0), 6) for epoch in range(4)] == listed


def test_a_key_at_its_default_does_not_move_a_layouts_digest() -> None:
    shorter = SHIPPED.replace('plan = "linear"', "")
    other = SHIPPED.replace("size = 1.0", "size = 0.5")
    assert SHIPPED not in (shorter, other)
    assert read_layout(shorter, "here").digest == load_layout("mmdata").digest
    assert read_layout(other, "here").digest != load_layout("mmdata").digest
