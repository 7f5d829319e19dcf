"""Sound with transcripts of every convention."""

from __future__ import annotations

import time

import pytest
from toy_media import read_folder, sine, texts, wav, write

from mmdata.errors import UserError
from pipelines.ingest import speech, transcripts
from pipelines.ingest.sources import open_source

SOUND = wav(sine(0.1))


def said(documents):
    return {d.uri: texts(d) for d in documents}


def test_a_text_beside_the_sound_is_its_caption(tmp_path):
    [document], _, left = read_folder("speech", tmp_path, {"a.wav": SOUND, "a.txt": "hello\n", "b.txt": "alone"})
    assert [(p.kind, p.uri, p.group_role) for p in document.parts] == [
        ("text", "a.txt", "caption"),
        ("audio", "a.wav", "target"),
    ]
    assert [(d.uri, d.reason) for d in left] == [("b.txt", "nothing refers to it")]


def test_cmu_and_librispeech_transcriptions(tmp_path):
    files = {
        "c/transcription": "<s> ten of clubs </s> (001)\n<s> lost </s> (009)\n",
        "c/001.wav": SOUND,
        "l/84-1.trans.txt": "84-1-0 GO DO\n",
        "l/84-1-0.flac": SOUND,
    }
    documents, dropped, left = read_folder("speech", tmp_path, files)
    assert said(documents) == {"c/001.wav": ["ten of clubs"], "l/84-1-0.flac": ["GO DO"]}
    assert [(d.uri, d.reason) for d in dropped] == [("c/transcription#009", "missing file")]
    assert not left


def test_a_table_of_transcripts(tmp_path):
    table = "path\tsentence\tlocale\tclient_id\na.wav\tbonjour\tfr\tanna\n"
    [document], dropped, _ = read_folder("speech", tmp_path, {"t.tsv": table, "a.wav": SOUND}, transcripts="t.tsv")
    assert (texts(document), document.language, document.metadata) == (["bonjour"], "fr", {"speaker": "anna"})
    assert not dropped


def test_a_table_without_the_columns_is_a_ledger_line(tmp_path):
    files = {"t.csv": "x,y\n1,2\n", "a.wav": SOUND}
    documents, dropped, _ = read_folder("speech", tmp_path, files, transcripts="t.csv")
    assert said(documents) == {"a.wav": []}
    assert [(d.uri, d.reason) for d in dropped] == [("t.csv", "cannot decode")]


def test_a_table_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"transcripts = 'gone\.tsv'"):
        read_folder("speech", tmp_path, {"a.wav": SOUND}, transcripts="gone.tsv")


LUA = r"""
dialogId("a-one", "font", "Said \"so\".")
dialogStr("Řekl \"to\".")

dialogId("a-two", "font", "Nobody speaks this.")
dialogStr("Toto nikdo neříká.")
"""


def test_lua_dialogs_give_both_languages(tmp_path):
    documents, _, left = read_folder("speech", tmp_path, {"l/dialogs_cs.lua": LUA, "l/a-one.ogg": SOUND})
    spoken, rest = documents
    assert [(p.kind, p.text, p.stream) for p in spoken.parts] == [
        ("text", 'Řekl "to".', ""),
        ("audio", None, ""),
        ("text", 'Said "so".', "en"),
    ]
    assert spoken.language == "cs" and spoken.parts[0].uri == "l/dialogs_cs.lua#a-one"
    assert texts(rest) == ["Toto nikdo neříká.", "Nobody speaks this."]
    assert not left


def test_sound_without_words_is_a_document(tmp_path):
    [document], _, _ = read_folder("speech", tmp_path, {"a.wav": SOUND})
    assert [(p.kind, p.group) for p in document.parts] == [("audio", -1)]


def test_a_table_with_an_open_quote_is_ledgered(tmp_path):
    table = 'path,text\na.wav,"' + "x" * 200_000
    [document], [line], _ = read_folder("speech", tmp_path, {"a.wav": SOUND, "t.csv": table}, transcripts="t.csv")
    assert texts(document) == [] and (line.uri, line.reason) == ("t.csv", "cannot decode")


def test_sounds_are_read_again_when_their_transcripts_change(tmp_path):
    write(tmp_path, {"c/transcription": "<s> ten </s> (001)\n", "c/001.wav": SOUND, "d/a.wav": SOUND})
    files = {i.path: i.files for i in open_source("t", "speech", tmp_path).inputs()}
    assert files["c/001.wav"] == ("c/001.wav", "c/transcription") and files["d/a.wav"] == ("d/a.wav",)


def test_lines_that_say_nothing_of_a_sound_are_ledgered(tmp_path):
    files = {
        "c/transcription": "<s> ten </s> (001)\n\nno name\nclosed)\n(a b)\n<s> six ( half ) </s> (002)\n",
        "c/001.wav": SOUND,
        "c/002.wav": SOUND,
        "t.csv": "path,text\na.wav,one\n,two\na.wav,three\n",
        "a.wav": SOUND,
        "d/dialogs_en.lua": 'dialogId("a", "f", "fine")\n dialogId("b, "f", "broken")\n\n-- dialogId(x)\n',
    }
    documents, dropped, _ = read_folder("speech", tmp_path, files, transcripts="t.csv")
    assert said(documents) == {
        "a.wav": ["one", "three"], "c/001.wav": ["ten"], "c/002.wav": ["six ( half )"], "d/dialogs_en.lua": ["fine"],
    }  # fmt: skip
    assert [(d.uri, d.reason) for d in dropped] == [
        *((f"c/transcription#L{line}", "cannot decode") for line in (3, 4, 5)),
        ("d/dialogs_en.lua", "cannot decode"),
        ("t.csv#L3", "cannot decode"),
    ]
    assert dropped[3].detail == "1 of 2 dialogs"


@pytest.mark.parametrize("name", ["c/transcription", "c/a.trans.txt", "c/dialogs_en.lua", "t.csv"])
def test_the_time_of_a_transcript_file_grows_as_its_length_does(tmp_path, name):
    gaps = [" " * 300_000, "\n" * 300_000, "<s> " * 100_000, "( " * 100_000, 'dialogId("' * 20_000, "\n--" * 100_000]
    files = {name: "path,text\n" + "\n".join(f"x{gap}y" for gap in gaps) + "\n", "c/a.wav": SOUND}
    began = time.process_time()
    read_folder("speech", tmp_path, files, transcripts="t.csv" if name == "t.csv" else "")
    assert time.process_time() - began < 10


def test_a_transcript_file_is_read_once_and_only_for_the_sounds_it_may_speak_of(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(speech, "parse_transcripts", lambda path, text: read.append(path) or parse(path, text))
    parse = transcripts.parse_transcripts
    files = {f"{folder}/transcription": "<s> ten </s> (1)\n" for folder in "ab"}
    files |= {f"{folder}/{i}.wav": SOUND for folder in "ab" for i in range(3)}
    source = open_source("t", "speech", write(tmp_path, files))
    inputs = {input.path: input for input in source.inputs()}
    [document] = source.read(inputs["b/1.wav"])
    assert (texts(document), read) == (["ten"], ["b/transcription"])
    for input in inputs.values():
        list(source.read(input))
    assert sorted(read) == ["a/transcription", "b/transcription"]
