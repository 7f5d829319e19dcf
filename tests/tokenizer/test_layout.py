"""The default layout in ids, what layouts refuse, and one by one what a layout file may say.

That the functions of every layout agree over random samples is in test_layouts.py."""

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.tokenizer.test_layouts import fields
from tests.tokenizer.toy_layouts import NAN, OWN, ToyText, bound, text_item
from tokenizer.choose import _share
from tokenizer.codec import CodecSpec
from tokenizer.grammar import layout_text
from tokenizer.item import AUDIO, IMAGE, Item, ItemTable
from tokenizer.layout import PLAIN, Choice, load_layout, read_layout

CODECS = (
    CodecSpec("bytes@1", "text", (256,), "", True),
    CodecSpec("toy-image@1", "image", (50,), "", False),
    CodecSpec("two-books@1", "image", (20, 30), "", False),
    CodecSpec("toy-sound@1", "audio", (16, 8, 4), "", False, 2.5),
    CodecSpec("timeless@1", "audio", (9,), "", False),
    CodecSpec("toy-video@1", "video", (11,), "", False),
)
BOOKS = {c.name: c.codebooks for c in CODECS}
SHIPPED = layout_text("mmdata")
DEFAULT = load_layout("mmdata").bind(CODECS)
BARE = read_layout(OWN["bare"]).bind(CODECS)


def codes_of(codec: str, num: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, BOOKS[codec], (num, len(BOOKS[codec]))).astype(np.int32)


def test_a_problem_says_what_and_where():
    c, image = DEFAULT.controls, DEFAULT.vocabulary["toy-image@1/0"].start
    ids = [c["<bos>"], *DEFAULT.opening("image", 2, 2), image, image + 1, c["</image>"], c["<text>"], 65, c["<eos>"]]
    found, problems = DEFAULT.parse(np.array(ids))
    assert [i.kind for i in found] == ["text"]
    assert (problems[0].position, problems[0].what) == (4, "2 codes of image where 4 should be")


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
    layout = BARE
    sample = [text_item("style", group=0, group_role="condition"), text_item("poem", group=0, group_role="target")]
    dropped = [layout.choose(sample, 0, "id", epoch).dropped for epoch in range(100)]
    assert 30 < sum(d == (0,) for d in dropped) < 70
    assert len(layout.apply(sample, Choice(dropped=(0,)))) == 1


def test_blocks_number_each_image_and_each_frame():
    film = Item("video", "toy-image@1", codes_of("toy-image@1", 4, 0), (2, 1, 2))
    picture = Item("image", "toy-image@1", codes_of("toy-image@1", 2, 0), (1, 1, 2))
    row = BARE.render([picture, text_item("x"), film])
    assert BARE.needs_blocks and not DEFAULT.needs_blocks
    assert row.blocks.tolist() == [0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 2, 2, 3, 3, 0]


def test_soft_items_are_refused_by_name_where_the_layout_takes_none():
    soft = Item("image", "", None, (1, 32, 48), digest="abc")
    with pytest.raises(ValueError, match=r"item 0 \(image\) is a soft item, and layout mmdata takes none"):
        DEFAULT.render([soft])
    with pytest.raises(ValueError, match=r"item 1 of sample 0 .*soft item"):
        DEFAULT.lengths(ItemTable.of([[text_item("x"), soft]]))


def test_soft_items_take_placeholders_and_bring_their_media():
    text = (
        SHIPPED.replace('"</video>"]', '"</video>", "<patch>", "<wave>"]')
        + '\n[soft.image]\nplaceholder = "<patch>"\npatch = 16\n'
        + '[soft.audio]\nplaceholder = "<wave>"\nsamples = 100\n'
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


def test_the_digest_tells_codecs_apart_and_not_their_order():
    assert load_layout("mmdata").bind(CODECS[:2]).digest != DEFAULT.digest
    assert load_layout("mmdata").bind(CODECS[::-1]).digest == DEFAULT.digest
    assert BARE.digest != DEFAULT.digest


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
        ('plan = "linear"', 'plan = "spiral"', "must be one of ['linear', 'grid'"),
        ("end = 1.0", "end = -1.0", "weight of end must be 0 or above"),
        ('order = "either"', 'order = "both"', "'given' or 'either'"),
        ("name =", "name", "is not TOML"),
        ('"<video>", "</video>"]', '"<video>", "</video>", ""]', "a control has no name"),
        ('end = "<eos>"', 'end = "<eos>"\ntask_other = "<eos>"', "give one of them its own control"),
        ('continued = "<cont>"', 'continued = ""', "continued of [document] is empty; it needs a delimiter"),
        ('open = "<text>"', 'open = "<text>"\nclose = "bye"', "close of [text] must begin with a control"),
        ('open = "<text>"\ntimes = "start_end"', 'open = "say:"\n#', "open of [text] is text itself"),
        ('open = "<image>"', 'open = ["<image>", "<pad>"]', "'<pad>' is open of [image] and padding of [document]"),
        ('open = "<image>"', 'open = ["see:", "<image>"]', "drop open of [text]"),
        ('header = "two_sizes"', 'header = "text"', "set after_header to a control that ends it"),
        ('header = "two_sizes"', 'header = "two_sizes"\ngrid = "16 x 16"', 'like "32x32"'),
        ('header = "two_sizes"', 'header = "two_sizes"\norder = "spiral"', "must be one of ['raster', 'columns'"),
        ('header = "two_sizes"', 'header = "two_sizes"\ncodebooks = "delayed"', "needs delays, like [0, 1]"),
        ('header = "two_sizes"', 'header = "two_sizes"\nframe_open = "x"', "only a video has frames"),
        ('header = "two_sizes"', 'header = "two_sizes"\nsize_unit = 0', "size_unit is 0; it must be at least 1"),
        ('times = "frames"', 'times = "frames"\ntime_form = "text"\ntime_text = "now"', "must hold {seconds}"),
        ('times = "frames"', 'times = "none"\nmax_rate = 1.0', "max_rate needs times = 'frames'"),
        ("sizes = 256", "sizes = 0", "writes two sizes and vocabulary.sizes is 0"),
        ("time_hi = 512", "time_hi = 0", "there are no time ids; raise time_hi"),
        ("time_quantum_s = 0.1", "time_quantum_s = 0", "time_quantum_s is 0.0; it must be above 0"),
        ("[positions]", '[merge]\nof = "video_audio"\n[positions]', "chunk_s is 0.0; it must be above 0"),
        ("[positions]", '[merge]\nof = "units"\n[positions]', "merged units have neither times nor codebook orders"),
        ("[positions]", '[turns]\nopen = "{role}"\n[positions]', "must begin with a control"),
        ("[positions]", '[turns]\nopen = ["<turn>", "user"]\n[positions]', "'<turn>' is not in vocabulary.controls"),
        ("[positions]", '[turns]\nlearn = ["robot"]\n[positions]', "learn has 'robot'; it may hold"),
        ("[positions]", "[soft.image]\npatch = 16\n[positions]", "[soft.image] has no placeholder"),
        ("[positions]", '[soft.image]\nplaceholder = "<x>"\n[positions]', "'<x>' is not in vocabulary.controls"),
        ("[positions]", "[soft.picture]\npatch = 16\n[positions]", "has no key 'picture'"),
        ("[positions]", "[streams]\nsounds = 2\n[positions]", "parallel streams have no end of their own"),
        ("blocks = []", 'blocks = ["image"]', "would be copied from the place after them"),
        ("blocks = []", 'prefix = ["robot"]', "prefix has 'robot'; it may hold"),
        ("image = 1.0", "codebooks = [1.0, -1.0]", "the weight of codebooks must be 0 or above"),
        ("image = 1.0", 'codebooks = ["one"]', "must be a list of numbers"),
    ],
)
def test_a_bad_layout_file_is_refused_with_line_and_remedy(old, new, says):
    assert old in SHIPPED
    text = SHIPPED.replace(old, new, 1)
    with pytest.raises(ValueError) as error:
        read_layout(text, "mine.toml")
    assert says in str(error.value) and "mine.toml" in str(error.value)


def test_two_kinds_with_one_delimiter_are_refused_unless_placeholders_tell_them_apart():
    assert read_layout(layout_text("qwen2.5-vl")).image.open == read_layout(layout_text("qwen2.5-vl")).video.open
    with pytest.raises(ValueError, match=r"'<image>' is open of \[video\] and open of \[image\]"):
        read_layout(SHIPPED.replace('open = "<video>"', 'open = "<image>"'))


def test_roles_whose_words_begin_one_another_are_refused_when_bound():
    text = layout_text("gemma3").replace('assistant = "model"', 'assistant = "user\\nmodel"')
    with pytest.raises(ValueError, match="what opens a turn of user begins what opens one of assistant"):
        bound(text, "gemma3")


def test_words_of_a_layout_are_of_the_datas_text_codec_and_no_other():
    spec = load_layout("emu3")
    stranger = CodecSpec("mine@1", "text", (256,), "abc", True)
    with pytest.raises(ValueError, match="writes words by mine@1, which is no shipped codec; give `text=`"):
        spec.bind([stranger])
    with pytest.raises(ValueError, match="is not the one of the data"):
        spec.bind([stranger], text=ToyText())
    assert spec.bind([CODECS[1]]).default_codec("text") == "text-spm16k@1"


def test_a_code_that_is_a_control_here_is_refused_as_text():
    layout = bound(layout_text("qwen3-vl"), "qwen3-vl")
    (_, code), *_ = layout.vocabulary.aliases
    with pytest.raises(ValueError, match=f"text\\) has code {code}, which is a control of layout qwen3-vl"):
        layout.render([Item("text", "bytes@1", np.array([[code]], np.int32))])


@pytest.mark.parametrize(
    "kind, layout, says",
    [
        ("image", "gemma3", 'takes it soft: build with codecs.image = "soft" and keep_media = "resized"'),
        ("image", "chameleon", 'writes squares only: build with policy = "crop"'),
        ("image", "lumina", "in steps of 2"),
        ("audio", "chameleon", "add a table [audio] to it"),
        ("image", "moshi", "add a table [image] to it"),
    ],
)
def test_what_a_layout_does_not_write_is_refused_with_what_would_mend_it(kind, layout, says):
    audio = CODECS[3:4] if layout == "moshi" else CODECS[3:5]
    codecs = [ToyText().spec, *CODECS[1:3], *audio]
    spec = read_layout(layout_text(layout).replace('specials = "text"', 'specials = "own"'), layout)
    item = Item("image", "toy-image@1", np.zeros((3, 1), np.int32), (1, 3, 1))
    if kind == "audio":
        item = Item("audio", "timeless@1", np.zeros((3, 1), np.int32), (3, 0, 0))
    bound_layout = spec.bind(codecs, text=ToyText())
    for act in (lambda: bound_layout.lengths(ItemTable.of([[item]])), lambda: bound_layout.render([item])):
        with pytest.raises(ValueError) as error:
            act()
        assert says in str(error.value)


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


def test_a_film_without_frames_shows_not_where_only_its_codes_would_show_it():
    text = layout_text("lwm").replace('grid = "square"', 'grid = "2x3"')
    layout = bound(text, "lwm")
    nothing = Item("video", "toy-image@1", np.zeros((0, 1), np.int32), (0, 4, 4))
    sample = [text_item("a"), nothing, text_item("b")]
    assert int(layout.lengths(ItemTable.of([sample]))[0]) == len(layout.render(sample)) == 4
