"""Sound with transcripts of every convention."""

from __future__ import annotations

import pytest
from toy_media import read_folder, sine, texts, wav, write

from mmdata.errors import UserError
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
