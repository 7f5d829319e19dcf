"""The vocabulary: ranges without gaps, names for ids, masks."""

import numpy as np
import pytest

from tests.tokenizer.toy_layouts import ToyText
from tokenizer.codec import CodecSpec
from tokenizer.grammar import layout_text, load_layout, read_layout
from tokenizer.vocabulary import Vocabulary

TEXT = CodecSpec("toy-text@1", "text", (300,), "", True)
IMAGE = CodecSpec("toy-image@1", "image", (50,), "", False)
SOUND = CodecSpec("toy-sound@1", "audio", (16, 8), "", False, 50.0)


def toy() -> Vocabulary:
    return load_layout("mmdata").bind([SOUND, TEXT, IMAGE]).vocabulary


def test_ranges_are_ordered_without_gaps_and_the_total_is_aligned():
    vocabulary = toy()
    names = [r.name for r in vocabulary.ranges]
    want = ["text", "control", "size", "time_hi", "time_lo", "toy-image@1/0", "toy-sound@1/0", "toy-sound@1/1"]
    assert names == want
    assert vocabulary.ranges[0].start == 0
    assert all(a.stop == b.start for a, b in zip(vocabulary.ranges, vocabulary.ranges[1:]))
    assert vocabulary.size % 128 == 0 and 0 <= vocabulary.size - vocabulary.ranges[-1].stop < 128


def test_the_order_of_the_codecs_does_not_matter():
    assert load_layout("mmdata").bind([TEXT, IMAGE, SOUND]).vocabulary == toy()


def test_a_codec_that_is_appended_moves_no_id():
    spec = load_layout("mmdata")
    began = spec.bind([SOUND, TEXT, IMAGE])
    earlier = CodecSpec("a-image@1", "image", (70,), "", False)  # by its name it would come first
    later = spec.bind([earlier, SOUND, TEXT, IMAGE], first=[c.name for c in began.codecs])
    assert later.vocabulary.ranges[: len(began.vocabulary.ranges)] == began.vocabulary.ranges
    assert later.vocabulary.ranges[-1].name == "a-image@1/0" and later.vocabulary.size % 128 == 0
    assert spec.bind([earlier, SOUND, TEXT, IMAGE]).vocabulary["toy-image@1/0"] != began.vocabulary["toy-image@1/0"]
    with pytest.raises(ValueError, match=r"codec none@1 is to come first and is not there"):
        spec.bind([TEXT], first=["none@1"])


def test_a_control_that_is_appended_moves_no_id_but_its_own():
    text = layout_text("mmdata")
    longer = read_layout(text.replace('"</video>"]', '"</video>", "<more>"]')).bind([SOUND, TEXT, IMAGE])
    assert [(r.start, r.size) for r in longer.vocabulary.ranges] == [(r.start, r.size) for r in toy().ranges]
    assert longer.controls["<eos>"] == toy().id_of("control", "<eos>")


def test_controls_that_the_text_codec_has_keep_their_ids_and_are_no_text():
    text = CodecSpec("hf@1", "text", (300,), "", True, specials=(("<|endoftext|>", 290), ("<|im_start|>", 291)))
    words = ToyText()
    layout = load_layout("qwen3-vl").bind([text], text=words)
    vocabulary = layout.vocabulary
    assert layout.controls["<|endoftext|>"] == 290 and layout.controls["<|im_end|>"] in vocabulary["control"]
    assert vocabulary.describe(291) == ("control", "<|im_start|>")
    assert vocabulary.id_of("control", "<|im_start|>") == 291
    assert not vocabulary.mask("text")[290] and vocabulary.mask("control")[290] and vocabulary.mask("text")[289]


def test_every_id_is_described():
    vocabulary = toy()
    bos = vocabulary.id_of("control", "<bos>")
    assert vocabulary.describe(bos) == ("control", "<bos>")
    assert vocabulary.describe(7) == ("text", "7")
    assert vocabulary.describe(vocabulary["size"][16]) == ("size", "16")
    assert vocabulary.describe(vocabulary["toy-sound@1/1"][3]) == ("toy-sound@1/1", "3")
    assert vocabulary.describe(vocabulary.size - 1)[0] == "unused"
    assert vocabulary.describe(-1)[0] == vocabulary.describe(10**9)[0] == "unused"


def test_a_mask_holds_just_the_named_ranges_and_a_group_all_of_its_ranges():
    vocabulary = toy()
    mask = vocabulary.mask("text", "toy-sound@1")
    assert mask.dtype == bool and len(mask) == vocabulary.size
    assert mask.sum() == 300 + 16 + 8
    assert vocabulary["time"] == range(vocabulary["time_hi"].start, vocabulary["time_lo"].stop)
    assert "time" in vocabulary and "tiem" not in vocabulary


def test_an_unknown_range_names_the_nearest():
    with pytest.raises(ValueError, match=r"no range 'contro'.*did you mean 'control'"):
        toy()["contro"]
    with pytest.raises(ValueError, match="<eos>"):
        toy().id_of("control", "<end>")


def test_two_ranges_of_one_name_and_too_many_names_are_refused():
    with pytest.raises(ValueError, match="two ranges have the name 'a'"):
        Vocabulary.of([("a", "a", 3, ()), ("a", "b", 3, ())])
    with pytest.raises(ValueError, match="2 names for 1 ids"):
        Vocabulary.of([("a", "a", 1, ("x", "y"))])


def test_range_index_agrees_with_describe():
    vocabulary = toy()
    ids = np.array([-5, 0, 299, 300, vocabulary.ranges[-1].stop - 1, vocabulary.ranges[-1].stop, 10**12])
    index = vocabulary.range_index(ids)
    names = [vocabulary.ranges[i].name if i >= 0 else "unused" for i in index]
    assert names == [vocabulary.describe(int(id))[0] for id in ids]
