"""Images with captions, written and spoken."""

from __future__ import annotations

from toy_media import png, read_folder, sine, texts, wav


def parts_of(document):
    return [(p.kind, p.text or p.uri, p.stream, p.group, p.group_role) for p in document.parts]


def test_an_image_goes_with_its_caption_and_its_spoken_captions(tmp_path):
    sound = wav(sine(0.1))
    files = {
        "f/apple.png": png(),
        "f/apple.txt": "An apple.\nfr.utf8=Une pomme.\nde.utf8=Ein Apfel.\n",
        "f/apple_desc.wav": sound,
        "f/apple_desc_fr.wav": sound,
        "f/apple_desc_ru.wav": sound,
        "f/apple.wav": sound,
        "f/apple.dat": "scale",
        "f/pear.txt": "no picture",
    }
    [document], dropped, left = read_folder("captions", tmp_path, files)
    assert parts_of(document) == [
        ("text", "An apple.", "", 0, "caption"),
        ("image", "f/apple.png", "", 0, "target"),
        ("audio", "f/apple_desc.wav", "", -1, "none"),
        ("text", "Ein Apfel.", "de", -1, "none"),
        ("text", "Une pomme.", "fr", 4, "caption"),
        ("audio", "f/apple_desc_fr.wav", "fr", 4, "target"),
        ("audio", "f/apple_desc_ru.wav", "ru", -1, "none"),
        ("audio", "f/apple.wav", "sound", -1, "none"),
    ]
    assert document.uri == "f/apple.png" and not dropped
    assert [(d.uri, d.reason) for d in left] == [
        ("f/apple.dat", "no source reads this format"),
        ("f/pear.txt", "nothing refers to it"),
    ]


def test_languages_may_be_chosen(tmp_path):
    files = {"a.png": png(), "a.txt": "A.\nfr.utf8=B.\nde.utf8=C.", "a.fr.wav": wav(sine(0.1))}
    [document], _, _ = read_folder("captions", tmp_path, files, languages=["de"])
    assert texts(document) == ["A.", "C."]


def test_an_image_without_a_caption_stays_or_is_dropped(tmp_path):
    documents, _, _ = read_folder("captions", tmp_path, {"a.png": png()})
    assert [p.kind for p in documents[0].parts] == ["image"]
    documents, dropped, _ = read_folder("captions", tmp_path, {}, require_caption=True)
    assert not documents and [d.reason for d in dropped] == ["empty"]


def test_a_broken_caption_leaves_the_image(tmp_path):
    [document], dropped, _ = read_folder("captions", tmp_path, {"a.png": png(), "a.txt": b"\xff\xff"})
    assert [p.kind for p in document.parts] == ["image"]
    assert [(d.uri, d.reason) for d in dropped] == [("a.txt", "cannot decode")]


def test_images_of_one_name_share_the_caption(tmp_path):
    documents, _, _ = read_folder("captions", tmp_path, {"a.png": png(), "a.webp": png(), "a.txt": "both"})
    assert [(d.uri, texts(d)) for d in documents] == [("a.png", ["both"]), ("a.webp", ["both"])]


def test_a_spoken_caption_of_an_excluded_language_is_in_the_ledger(tmp_path):
    files = {"a.png": png(), "a.txt": "An apple.", "a_desc_fr.wav": wav(sine(0.1))}
    [document], [line], left = read_folder("captions", tmp_path, files, languages=["de"])
    assert "a_desc_fr.wav" not in [p.uri for p in document.parts] and not left
    assert (line.uri, line.reason) == ("a_desc_fr.wav", "excluded by the recipe")
