"""WebDataset tar archives, honest and hostile."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import tarfile

from toy_archives import link, tar
from toy_media import png, read_all, read_folder, sine, texts, wav, write

from pipelines.ingest.media import Limits
from pipelines.ingest.sources import open_source


def read(tmp_path, data: bytes, name: str = "a.tar", **options):
    return read_folder("webdataset", tmp_path, {name: data}, **options)


def test_members_named_alike_are_one_document(tmp_path):
    facts = json.dumps({"licence": "CC0", "lang": "fr", "width": 12}).encode()
    archive = tar(
        ("s/1.png", png()), ("s/1.txt", b"a cat\n"), ("s/1.json", facts), ("s/1.cls", b"3"), ("s/2.txt", b"x")
    )
    [first, second], dropped, left = read(tmp_path, archive)
    assert [(p.kind, p.uri, p.group_role) for p in first.parts] == [
        ("text", "a.tar#s/1.txt", "caption"),
        ("image", "a.tar#s/1.png", "target"),
    ]
    assert (texts(first), first.parts[1].read()) == (["a cat"], png())
    assert (first.uri, first.language, first.licence) == ("a.tar#s/1", "fr", "CC0")
    assert first.metadata == {"width": "12", "cls": "3"}
    assert texts(second) == ["x"] and not dropped and not left


def test_ids_follow_path_and_key(tmp_path):
    before = read(tmp_path, tar(("k.txt", b"x")))[0]
    after = read(tmp_path, tar(("new.txt", b"y"), ("k.txt", b"changed"), ("j.txt", b"z"), ("k.txt", b"again")))[0]
    assert before[0].id == after[1].id
    assert len({d.id for d in after}) == 4, "a key that comes again is another document"


def test_sound_video_and_streams_keep_their_order(tmp_path):
    archive = tar(("k.wav", wav(sine(0.1))), ("k.seg.png", png()), ("k.caption", b"words"))
    [document], _, _ = read(tmp_path, archive, caption=False)
    assert [(p.kind, p.stream, p.group) for p in document.parts] == [
        ("audio", "", -1),
        ("image", "seg", -1),
        ("text", "", -1),
    ]


def test_the_json_member_may_hold_the_caption(tmp_path):
    [document], _, _ = read(tmp_path, tar(("k.jpg", png()), ("k.json", b'{"caption": "in json"}')))
    assert texts(document) == ["in json"] and document.parts[0].group_role == "caption"


def test_gzipped_archives_are_read_by_content(tmp_path):
    [document], dropped, _ = read(tmp_path, tar(("k.txt", b"x"), mode="w:gz"), "a.tar")
    assert texts(document) == ["x"] and not dropped


def test_names_that_climb_out_links_and_devices_are_ledgered(tmp_path):
    device = tarfile.TarInfo("dev.txt")
    device.type = tarfile.CHRTYPE
    members = [
        ("../../etc/cron.txt", b"x"), ("/etc/passwd.txt", b"x"), ("a/../../b.txt", b"x"), ("C:/b.txt", b"x"),
        link("l.txt", "/etc/passwd"), link("h.txt", "ok.txt", tarfile.LNKTYPE), device, ("ok.txt", b"fine"),
    ]  # fmt: skip
    documents, dropped, _ = read(tmp_path, tar(*members))
    assert [texts(d) for d in documents] == [["fine"]]
    assert [d.reason for d in dropped] == ["outside the folder"] * 7
    assert {p.name for p in tmp_path.iterdir()} == {"a.tar"}, "nothing is unpacked"


def test_bad_members_cost_only_themselves(tmp_path):
    members = [("a.txt", b"\xff\xfe\xfa"), ("b.json", b"{"), ("b.txt", b"kept"), ("c.xyz", b"1"), ("d.png", b"")]
    documents, dropped, _ = read(tmp_path, tar(*members, ("e.json", b"[1]"), ("f.txt", b" ")))
    assert [texts(d) for d in documents] == [["kept"]]
    assert [(d.uri, d.reason) for d in dropped if "#" in d.uri and "." in d.uri.split("#")[1]] == [
        ("a.tar#a.txt", "cannot decode"),
        ("a.tar#b.json", "cannot decode"),
        ("a.tar#c.xyz", "no source reads this format"),
        ("a.tar#d.png", "empty"),
        ("a.tar#e.json", "cannot decode"),
        ("a.tar#f.txt", "empty"),
    ]


def test_a_broken_archive_keeps_what_came_before(tmp_path):
    whole = tar(*((f"{i}.txt", b"words %d" % i) for i in range(50)))
    for cut in (700, 20_000, 20_480, 20_900):
        documents, dropped, _ = read(tmp_path, whole[:cut])
        assert 0 < len(documents) < 50 and dropped[-1].reason == "cannot decode"
    damaged = bytearray(whole)
    damaged[20 * 1024 : 20 * 1024 + 512] = b"\x55" * 512
    documents, dropped, _ = read(tmp_path, bytes(damaged))
    assert len(documents) == 20 and "damaged header" in dropped[-1].detail


def test_headers_that_lie_on_sizes_are_over_the_limit(tmp_path):
    huge = tarfile.TarInfo("huge.txt")
    huge.size = 1 << 50
    pax = tarfile.TarInfo("pax")
    pax.type, pax.size = tarfile.XHDTYPE, 1 << 40
    for info in (huge, pax):
        data = tar(("ok.txt", b"x"))[:1024] + info.tobuf(tarfile.GNU_FORMAT) + b"0" * 2048
        documents, dropped, _ = read(tmp_path, data)
        assert [texts(d) for d in documents] == [["x"]]
        assert dropped and dropped[0].reason == "over limit"


def test_a_bomb_is_not_unpacked(tmp_path):
    write(tmp_path, {"a.tar.gz": gzip.compress(tar(("k.txt", b"x"), ("z.txt", b"0" * (30 << 20)), ("l.txt", b"y")))})
    source = open_source("t", "webdataset", tmp_path, {}, Limits(max_bytes=64 << 20, max_expansion=20))
    documents, dropped = read_all(source)
    assert [texts(d) for d in documents] == [["x"]]
    assert [d.reason for d in dropped] == ["over limit", "over limit"], "the member, then the archive"


def test_a_record_of_many_members_is_bounded(tmp_path):
    write(tmp_path, {"a.tar": tar(*((f"k.{i}.txt", b"x" * 600) for i in range(9)), ("j.txt", b"y"))})
    documents, dropped = read_all(open_source("t", "webdataset", tmp_path, {}, Limits(max_bytes=2000 * 16)))
    assert [len(d.parts) for d in documents] == [3, 1] and {d.reason for d in dropped} == {"over limit"}


def test_pax_headers_nest_no_deeper_than_python_can(tmp_path):
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 0
    data = tar(("ok.txt", b"x"))[:1024] + info.tobuf() * 5000
    documents, dropped, _ = read(tmp_path, data)
    assert [texts(d) for d in documents] == [["x"]] and dropped[-1].reason == "cannot decode"


def test_an_archive_of_nothing_is_ledgered(tmp_path):
    documents, dropped, _ = read(tmp_path, tar())
    assert not documents and [d.reason for d in dropped] == ["empty"]
    documents, dropped, _ = read(tmp_path, b"no archive at all" * 100)
    assert not documents and [d.reason for d in dropped] == ["cannot decode"]


def test_the_packed_archive_of_the_corpus_gives_its_samples(corpus):
    source = open_source("packed", "webdataset", corpus / "packed", {"include": ["*.tar"]})
    documents, dropped = read_all(source)
    assert len(documents) == 24 and not dropped
    kinds = [part.kind for document in documents for part in document.parts]
    assert (kinds.count("image"), kinds.count("text"), kinds.count("audio")) == (24, 24, 8)
    assert {d.licence for d in documents} == {"GPL-2"}
    assert io.BytesIO(documents[0].parts[1].read()).read(4) == b"\x89PNG"


def sparse_member(name: str, real: int) -> bytes:
    """The GNU header of a member that has no bytes, and says that it has `real`."""
    info = tarfile.TarInfo(name)
    info.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"%011o\0" % real
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def test_sparse_members_are_over_the_limit_and_the_others_are_read(tmp_path):
    whole = tar(("ok.txt", b"x"))
    data = b"".join(sparse_member(f"{i}.txt", 4_000_000) for i in range(3)) + whole
    documents, dropped, _ = read(tmp_path, data)
    assert [texts(d) for d in documents] == [["x"]]
    assert [(d.uri, d.reason, d.detail) for d in dropped] == [
        (f"a.tar#{i}.txt", "over limit", "a sparse file") for i in range(3)
    ]


def test_a_member_of_less_than_nothing_ends_the_archive(tmp_path):
    info = tarfile.TarInfo("../again.txt")  # is not read, and the next member would be itself
    info.size = -512
    data = tar(("ok.txt", b"x"))[:1024] + info.tobuf(tarfile.GNU_FORMAT) + b"\0" * 1024
    write(tmp_path, {"a.tar": data})
    reading = open_source("t", "webdataset", tmp_path)
    found = list(itertools.islice(reading.read(reading.inputs()[0]), 10))
    assert [texts(d) for d in found[:1]] == [["x"]] and [d.reason for d in found[1:]] == ["cannot decode"]


def test_a_quality_that_is_no_number_is_left_out_of_the_facts(tmp_path):
    facts = b'{"quality.score": "high", "quality.other": 0.5, "title": "T"}'
    [document], dropped, _ = read(tmp_path, tar(("k.txt", b"x"), ("k.json", facts)))
    assert document.metadata == {"quality.other": "0.5", "title": "T"} and not dropped


def test_facts_with_lone_surrogates_cost_only_themselves(tmp_path):
    facts = json.dumps({"licence": "\ud800"})
    for data in (facts.encode(), b"\xff\xfe" + facts.encode("utf-16-le"), b'{"licence": "\xed\xa0\x80"}'):
        [document], [line], _ = read(tmp_path, tar(("k.txt", b"x"), ("k.json", data)))
        assert (document.licence, line.uri, line.reason) == ("", "a.tar#k.json", "cannot decode")
