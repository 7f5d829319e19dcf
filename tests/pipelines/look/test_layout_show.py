"""`mmdata layout`: every shipped layout shows what it keeps, its ids, what it costs and a row of it."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipelines import cli
from pipelines.look.layout_example import hard_image, hard_sound, hard_video
from pipelines.look.layout_print import budget_lines
from pipelines.look.layouts import PUBLISHED, Shown, first_sentence, show_layout
from tests.tokenizer.test_layouts import fields
from tests.tokenizer.toy_layouts import OWN
from tokenizer.codec import spec_of
from tokenizer.codecs import load_codec
from tokenizer.grammar import layout_text, load_layout
from tokenizer.item import Item, ItemTable
from tokenizer.layout import shipped_layouts

Say = Callable[..., tuple[int, str, str]]
NAMES = shipped_layouts()


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Say:
    """`mmdata ARGS` in this process: (exit code, stdout, stderr)."""

    def run(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mmdata", *map(str, args)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.main()
        return int(left.value.code or 0), *capfd.readouterr()

    return run


def media_of(item: Item) -> np.ndarray:
    """A black picture, a silent sound."""
    t, h, w = item.grid
    if item.kind == "audio":
        return np.zeros(t, np.int16)
    return np.zeros((t, h, w, 3) if item.kind == "video" else (h, w, 3), np.uint8)


def own_layout(folder: Path, name: str) -> Path:
    path = folder / f"{name}.toml"
    path.write_text(re.sub('^name = ".*"', f'name = "{name}"', OWN[name], flags=re.MULTILINE), "utf-8")
    return path


def check_shown(shown: Shown, said: dict) -> None:
    """What is said in JSON is what the layout's functions say."""
    layout, found = shown.layout, shown.example
    row = layout.render(found.items, found.choice, media=media_of)
    tokens = said["example"]["tokens"]
    K = layout.num_streams
    assert [t["id"] for t in tokens] == row.tokens.reshape(-1).tolist()
    assert [t["loss"] for t in tokens] == pytest.approx(row.loss_weights.reshape(-1).tolist())
    places = tokens[::K]
    assert np.array([t["position"] for t in places]).T.tolist() == row.positions.reshape(-1, len(row)).tolist()
    assert [t["block"] for t in places] == (row.blocks.tolist() if row.blocks is not None else [None] * len(row))
    if row.soft_index is not None:
        assert [-1 if t["soft_index"] is None else t["soft_index"] for t in places] == row.soft_index.tolist()
    assert {t["kind"] for t in tokens} == {*layout.kinds, "control"}
    assert said["keeps"] == list(layout.keeps)
    assert said["digest"] == shown.digest and said["bound_digest"] == layout.digest
    assert said["ranges"][-1]["start"] + said["ranges"][-1]["size"] <= said["vocabulary_size"]
    assert found.problems == said["example"]["problems"] == []
    assert fields(layout.parse(row.tokens)[0]) == fields(layout.apply(found.items, found.choice))


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_layout_in_json(name: str, say: Say) -> None:
    code, out, err = say("layout", "show", name, "--json")
    assert (code, err) == (0, "")
    shown = show_layout(name)
    assert shown.digest == load_layout(name).digest
    check_shown(shown, json.loads(out))


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_layout_on_paper(name: str, say: Say) -> None:
    """In a pipe: no colours, at most 100 columns, every kind, control and line of what it keeps."""
    code, out, err = say("layout", "show", name)
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) <= 100
    shown = show_layout(name)
    words = " ".join(out.split())
    for kind in (*shown.layout.kinds, "control"):
        assert re.search(rf"\b{kind}\b", words[words.index("colours") :]), kind
    for line in shown.layout.keeps:
        assert " ".join(line.split()) in words
    for control, id in shown.layout.controls.items():
        assert f"{id} {control}" in words
    for r in shown.layout.vocabulary.ranges:
        if r.size:
            assert f"{r.name} {r.start:,}-{r.stop - 1:,} {r.size:,}" in words


@pytest.mark.parametrize("name", [name for name in NAMES if name != "moshi"])
def test_ids_on_paper_are_those_of_a_render(name: str, say: Say) -> None:
    lines = [line.strip() for line in say("layout", "show", name)[1].split("colours")[1].splitlines()[1:]]
    found = [re.match(r"(?:\d+ )*\d+  +(\d+)  |\.\.\. (\d+) more", line) for line in lines]
    ids: list[int | None] = []
    for match in found:
        if match:
            ids += [int(match[1])] if match[1] else [None] * int(match[2])
    row = show_layout(name).example.row
    assert len(ids) == len(row)
    assert all(id is None or id == want for id, want in zip(ids, row.tokens.tolist()))
    assert name in ("mmdata", "gemini", "gemma3") or None not in ids


def test_parallel_streams_are_a_matrix(say: Say) -> None:
    shown = show_layout("moshi")
    lines = say("layout", "show", "moshi")[1].split("colours")[1].splitlines()
    ids = [[int(word) for word in line.split()[1:]] for line in lines if line.strip().startswith("id ")]
    assert ids == shown.example.row.tokens.T.tolist() and len(ids) == 17
    assert sum(line.strip().startswith("sound ") for line in lines) == 16


@pytest.mark.parametrize("name", OWN)
def test_a_layout_of_ones_own_by_its_path(name: str, tmp_path: Path, say: Say) -> None:
    path = own_layout(tmp_path, name)
    code, out, err = say("layout", "show", path, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["name"] == name
    check_shown(show_layout(str(path)), json.loads(out))
    code, out, _ = say("layout", "show", path)
    assert code == 0 and out.startswith(f"{name}, version 1\n") and max(map(len, out.splitlines())) <= 100


def test_a_text_codec_that_is_not_shipped_is_shown_by_another(tmp_path: Path, say: Say) -> None:
    path = tmp_path / "my.toml"
    path.write_text(layout_text("mmdata").replace('text_codec = ""', 'text_codec = "llama-0a1b2c3d@1"'), "utf-8")
    code, out, _ = say("layout", "show", path)
    assert code == 0 and "llama-0a1b2c3d@1 is no shipped one" in out


def test_a_wrong_name_is_one_line(say: Say) -> None:
    code, out, err = say("layout", "show", "gemni")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("mmdata: no layout 'gemni'") and "Did you mean 'gemini'?" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("name = ", "is not TOML"),
        (layout_text("mmdata").replace("sizes = 256", "sizes = -1"), "sizes is -1"),
        (layout_text("mmdata").replace('end = "<eos>"', 'edn = "<eos>"'), "did you mean 'end'?"),
    ],
)
def test_a_bad_file_is_one_line(words: str, said: str, tmp_path: Path, say: Say) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(words, "utf-8")
    for option in ((), ("--json",), ("--toml",)):
        code, out, err = say("layout", "show", path, *option)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith("mmdata: ") and said in err and str(path) in err
    assert say("layout", "show", tmp_path / "none.toml")[0] == 2


def test_the_default_is_the_default_layout_and_its_file_is_a_start(tmp_path: Path, say: Say) -> None:
    assert say("layout", "show")[1] == say("layout", "show", "mmdata")[1]
    text = say("layout", "show", "gemini", "--toml")[1]
    assert text == layout_text("gemini")
    (tmp_path / "my.toml").write_text(text, "utf-8")
    assert say("layout", "show", tmp_path / "my.toml")[1] == say("layout", "show", "gemini")[1]
    assert say("layout", "show", tmp_path / "my.toml", "--toml")[1] == text


def test_a_choice_is_said(say: Say) -> None:
    assert "group 0: caption" in say("layout", "show", "mmdata")[1]
    assert "conditions dropped in 5%" in say("layout", "show", "emu3")[1]
    assert "choice" not in say("layout", "show", "gemma3")[1].split("\nexample\n")[1]


# What it costs


def test_the_budget_of_gemini_is_what_lengths_say() -> None:
    """Beside Google's numbers: 258 a frame, 7 a time, 32 a second of sound."""
    codecs = [spec_of(load_codec(name)) for name in ("text-spm16k", "image-fsq16@1", "speech-melfsq@1")]
    layout = load_layout("gemini").bind(codecs)

    def length(*items: Item) -> int:
        return int(layout.lengths(ItemTable.of([items]))[0])

    def film(seconds: int) -> list[Item]:
        codes, times = np.zeros((256 * seconds, 1), np.int32), np.arange(seconds, dtype=np.float32)
        frames = Item("video", "image-fsq16@1", codes, (seconds, 16, 16), times=times)
        sound = np.zeros((50 * seconds, 1), np.int32)
        return [frames, Item("audio", "speech-melfsq@1", sound, (len(sound), 0, 0), 0.0, float(seconds))]

    picture = Item("image", "image-fsq16@1", np.zeros((256, 1), np.int32), (1, 16, 16))
    budget = show_layout("gemini").budget
    assert (budget.image_codes, budget.image) == (256, length(picture) - length())
    assert budget.second == length(*film(8)) - length(*film(7)) == budget.frame + budget.time + budget.sound
    assert (budget.frame, budget.time, budget.sound) == (256, 7, 50)
    assert length(*film(budget.seconds)) <= budget.row == 32_768 < length(*film(budget.seconds + 1))
    lines = "\n".join(budget_lines(budget))
    assert f"an image of 256 codes: {budget.image} tokens" in lines
    assert f"a second of video at 1 frame a second, with its sound: {budget.second} tokens" in lines
    assert f"{budget.seconds} s of it in a row of 32,768" in lines
    assert "297 tokens a second" in lines and "258 of a frame + 7 of its time + 32 of sound" in lines
    assert "110 s of it in a row of 32,768" in lines
    assert PUBLISHED["gemini"].second == 297


@pytest.mark.parametrize("name", NAMES)
def test_a_budget_is_of_what_a_layout_writes_in_codes(name: str) -> None:
    shown = show_layout(name)
    budget, kinds = shown.budget, shown.layout.spec.kinds
    soft = name in ("gemma3", "qwen2.5-vl", "qwen3-vl")
    assert (budget.image > 0) == ("image" in kinds and not soft)
    assert (budget.second > 0) == ("video" in kinds and not soft)
    assert (budget.sound > 0) == ("audio" in kinds and "video" in kinds)
    assert budget.published is None or name == "gemini"


def test_made_up_items_are_what_their_layout_writes() -> None:
    """Squares, sides in twos, any side; sound from its codec's rate."""
    layouts = {name: show_layout(name).layout for name in ("mmdata", "chameleon", "lumina")}
    assert hard_image(layouts["mmdata"], (2, 3)).grid == (1, 2, 3)
    assert hard_image(layouts["chameleon"], (2, 3)).grid == (1, 2, 2)
    assert hard_image(layouts["lumina"], (2, 3)).grid == (1, 2, 4)
    assert hard_sound(layouts["mmdata"], 0.1).grid == (5, 0, 0)
    assert hard_video(layouts["mmdata"], np.arange(3), (2, 3)).times.tolist() == [0, 1, 2]


# All of them


def test_the_list_has_a_line_for_each(say: Say) -> None:
    code, out, err = say("layout", "list")
    assert (code, err) == (0, "") and "\x1b" not in out
    assert [line.split()[0] for line in out.splitlines() if line[0] != " "] == NAMES
    assert max(map(len, out.splitlines())) <= 100
    found = json.loads(say("layout", "list", "--json")[1])
    assert [row["name"] for row in found] == NAMES and all(row["about"] and row["kinds"] for row in found)
    assert {row["name"]: row["kinds"] for row in found}["gemma3"] == ["text", "soft image"]


def test_the_first_sentence_of_a_file() -> None:
    assert first_sentence("# One (a.py, b.py): two\n# lines. More.\n#\n# Other.\n") == "One (a.py, b.py): two lines."
    assert first_sentence("# No stop\n\nname = 1") == "No stop"
    assert first_sentence('name = "mine"') == ""


def test_a_terminal_gets_colours_and_a_pipe_none() -> None:
    """In a process of its own, as it is used."""
    command = [sys.executable, "-m", "pipelines.cli", "layout", "show", "spirit"]
    plain = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "\x1b" not in plain and "[Speech]" in plain
    coloured = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "FORCE_COLOR": "1", "COLUMNS": "100"}
    ).stdout
    assert "\x1b[" in coloured and re.sub(r"\x1b\[[0-9;]*m", "", coloured).split() == plain.split()
