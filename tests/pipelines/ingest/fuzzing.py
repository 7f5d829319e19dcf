"""Damaged files for the fuzz tests: seeds of every format, mutations by a seeded generator, and what must hold of them.

Seeds are real files where the examples have them (pages, man pages, records, transcripts, captions, subtitles, media);
the archives and tables are synthesised by the libraries that usually write them, the LibriSpeech transcript and the
conversations by hand. Workers import this module too.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import random
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from toy_archives import arrow_stream, epub, hf, link, parquet, pdf, tar, tfds_files, warc, zipped
from toy_media import sine, wav

from mmdata.catalog import QUALITY
from pipelines.build.worker import Call
from pipelines.ingest.document import Document, Dropped
from pipelines.ingest.media import Limits, MediaError

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = ROOT / "examples" / "media"
LIMITS = Limits(max_pixels=4_000_000, max_seconds=60.0, max_frames=500, max_bytes=32 << 20, max_expansion=50)
SECRET = b"what lies beside the folder"
MOST_MEMORY = 2 << 30  # bytes of one worker
WHOLE = "whole"  # what the names of whole files beside the mutants begin with


def picture() -> bytes:
    return next(iter(sorted(EXAMPLES.rglob("*/toolbox/*.png")))).read_bytes()


def seeds(format: str) -> list[bytes]:
    """Whole files of a format: real ones of the examples, archives as their usual libraries write them."""
    if format == "html":
        return [p.read_bytes() for p in sorted(EXAMPLES.rglob("*.html"))[:6]] + [_HTML]
    if format == "text":
        packed = [p.read_bytes() for p in sorted(EXAMPLES.rglob("*.1.gz"))[:6]]
        return [*packed, *map(gzip.decompress, packed)]
    if format == "jsonl":
        lines = b"".join(
            b'{"text": "line %d", "image": "../secret.png", "lang": "fr", %s}\n' % (i, _FACTS) for i in range(9)
        )
        real = gzip.decompress((EXAMPLES / "records" / "fortunes-part.jsonl.gz").read_bytes()).splitlines(keepends=True)
        return [lines, gzip.compress(lines), b"".join(real[:20])]
    if format == "speech":
        real = [EXAMPLES / path for _, _, path in _TRANSCRIPTS[1:]]
        return [_LIBRISPEECH, *(path.read_bytes() for path in real)]
    if format == "captions":
        return [p.read_bytes() for p in sorted(EXAMPLES.rglob("stamps/**/*.txt"))[:6]]
    if format == "video":
        return [p.read_bytes() for end in ("srt", "vtt") for p in sorted(EXAMPLES.rglob(f"*.{end}"))]
    return _ARCHIVES[format]()


def ending_of(format: str) -> str:
    return f".{_ENDINGS[format]}"


def _saved() -> list[bytes]:
    rows: dict[str, list[Any]] = {
        "text": [f"row {i}" for i in range(20)],
        "image": [{"bytes": picture(), "path": None}] * 20,
    }
    return [arrow_stream(rows, rows=5), arrow_stream(rows, rows=5, compression="zstd")]


def _table() -> list[bytes]:
    rows: dict[str, list[Any]] = {
        "text": [f"row {i}" for i in range(40)], "image": [{"bytes": picture(), "path": None}] * 40,
        "licence": ["CC0"] * 40, "quality.score": [0.125] * 40, "parts": [["a", "b"]] * 40,
    }  # fmt: skip
    return [parquet(rows, row_group_size=9, compression=how) for how in ("none", "snappy", "zstd")]


def _tars() -> list[bytes]:
    members: list[Any] = [("1.png", picture()), ("1.json", b"{%s}" % _FACTS), link("2.txt", "../secret.png")]
    texts = [(f"{i}.txt", b"words %d" % i) for i in range(3, 9)]
    return [tar(*members, *texts), tar(*members, *texts, mode="w:gz"), tar(("../../../etc/x.txt", b"x"), *texts)]


_FACTS = b'"id": "a", "licence": "CC BY-SA 4.0", "created": "2024-01-02", "quality.score": 0.125, "title": "A title"'
_LIBRISPEECH = b"".join(b"84-121123-%04d GO DO YOU HEAR %d\n" % (i, i) for i in range(9))
# (name of a transcript, a sound of its folder, its place in the examples)
_TRANSCRIPTS = (
    ("84-121123.trans.txt", "84-121123-0003.wav", ""),
    ("dialogs_cs.lua", "kni-v-ber.wav", "dialogs/airplane/dialogs_cs.lua"),
    ("dialogs_cs.lua", "kni-v-ber.wav", "dialogs/alibaba/dialogs_cs.lua"),
    ("transcription", "sense_and_sensibility_01_austen_64kb-0890.wav", "speech/librivox/transcription"),
    ("cards.transcription", "003.wav", "speech/cards/cards.transcription"),
)
_HTML = b"""<html lang=fr><meta charset=utf-8><p>caf\xc3\xa9<img src="../secret.png"><img src="/../secret.png">
<img alt=x src="data:image/png;base64,iVBORw0KGgo="><pre>a
 b</pre><video src="file:///etc/passwd"><img src="http://a.org/x.png"></html>"""
_PAGES = [(f"https://a.org/{i}", "text/html; charset=utf-8", b"<p>page %d<img src=x.png>" % i) for i in range(5)]
_TALK = {
    "id": "1",
    "licence": "CC BY-SA 4.0",
    "quality.score": 0.125,
    "image": "../secret.png",
    "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "That."}],
}
_PAGE = {
    "texts": ["a", None, "b"],
    "images": [None, "../secret.png", None],
    "sha256": [None, "0" * 64, None],
    "licence": "CC BY-SA 4.0",
    "general_metadata": json.dumps({"language": "fr", "url": "https://a.org/1"}),
    "quality.score": 0.125,
}
_LINES = "BT /F 12 Tf 20 250 Td (Words on a page) Tj ET q 90 0 0 90 9 9 cm /P Do Q"
_BESIDE = {"captions": ".png", "video": ".mp4"}
_ENDINGS = {
    "html": "html", "text": "1.gz", "jsonl": "jsonl", "captions": "txt", "video": "srt",
    "webdataset": "tar", "warc": "warc", "epub": "epub", "chat": "json", "interleaved": "jsonl", "parquet": "parquet",
    "hf": "arrow", "pdf": "pdf",
}  # fmt: skip
_ARCHIVES = {
    "webdataset": _tars,
    "warc": lambda: [warc(*_PAGES), warc(*_PAGES, gzip=False)],
    "epub": lambda: [
        epub({"a.xhtml": "<p>one<img src='i.png'>", "b.xhtml": "<p>two<img src='../../../secret.png'>"}, {
            "OEBPS/i.png": picture(), "../../evil.png": picture(),
        }),
        zipped({"META-INF/container.xml": "<a/>"}),
    ],
    "chat": lambda: [json.dumps([_TALK] * 5).encode(), json.dumps([_TALK] * 5, indent=1).encode()],
    "interleaved": lambda: [b"\n".join([json.dumps(_PAGE).encode()] * 5)],
    "parquet": _table,
    "hf": _saved,
    "pdf": lambda: [pdf(_LINES, _LINES, picture=(32, 32, b"\xff\0\0" * 1024)), *_real_pdf()],
}  # fmt: skip


def _real_pdf() -> list[bytes]:
    """A file as Pillow writes it, with compressed streams."""
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (64, 48), (200, 30, 60)).save(out, "PDF")
    return [out.getvalue()]


def media_seeds() -> dict[str, list[tuple[str, bytes]]]:
    """Kind -> (name, content) of small real media, one or more of each container."""
    import io

    from PIL import Image

    image = Image.open(next(iter(sorted(EXAMPLES.rglob("chelsea.png")))))
    small = image.convert("RGB").resize((96, 64))
    images = []
    for form in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "TGA", "PPM", "JPEG2000", "ICO"):
        out = io.BytesIO()
        small.save(out, form)
        images.append((form, out.getvalue()))
    out = io.BytesIO()
    small.convert("P").save(out, "TIFF", compression="tiff_lzw")
    images.append(("TIFF-LZW", out.getvalue()))
    real = ("china.webp", "china_palette.gif", "china_exif_orient6.jpg", "china_gray16.png", "china_cmyk.jpg")
    images += [(name, (EXAMPLES / "pictures" / name).read_bytes()) for name in real]
    sounds = [p for end in (".wav", ".ogg", ".flac", ".mp3") for p in sorted(EXAMPLES.rglob(f"*{end}"))[:3]]
    films = [p for end in (".mp4", ".webm", ".mpg") for p in sorted(EXAMPLES.rglob(f"*{end}"))[:1]]
    return {
        "image": images,
        "audio": [(p.name, p.read_bytes()[:200_000]) for p in sounds],
        "video": [(p.name, p.read_bytes()) for p in films] or [("toy.mp4", _film())],
    }


def _film() -> bytes:
    from toy_media import movie

    with tempfile.TemporaryDirectory() as folder:
        return movie(Path(folder) / "a.mp4", [0, 40, 80], sound_s=0.3).read_bytes()


def mutants(wholes: list[bytes], number: int, seed: int) -> Iterator[bytes]:
    """So many damaged files, each after one to three kinds of damage; the same for the same seed."""
    rng = random.Random(seed)
    for i in range(number):
        data = bytearray(wholes[i % len(wholes)])
        for _ in range(rng.choice((1, 1, 2, 3))):
            rng.choice(_DAMAGES)(data, rng, wholes)
        yield bytes(data)


def _flip(data: bytearray, rng: random.Random, wholes: list[bytes]) -> None:
    for _ in range(rng.randint(1, 12)):
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _extremes(data: bytearray, rng: random.Random, wholes: list[bytes]) -> None:
    """A number of a header, perhaps, that lies: all ones, all zeros, the sign alone."""
    width, at = rng.choice((1, 2, 4, 8)), _early(data, rng)
    data[at : at + width] = rng.choice((b"\xff" * width, b"\0" * width, b"\x80" + b"\0" * (width - 1), b"\x7f" * width))


def _cut(data: bytearray, rng: random.Random, wholes: list[bytes]) -> None:
    del data[rng.randint(0, len(data)) :]


def _lose(data: bytearray, rng: random.Random, wholes: list[bytes]) -> None:
    at = _early(data, rng)
    del data[at : at + rng.choice((1, 7, 512, 4096))]


def _repeat(data: bytearray, rng: random.Random, wholes: list[bytes]) -> None:
    at = _early(data, rng)
    piece = bytes(data[at : at + rng.choice((1, 16, 600))])
    data[at:at] = piece * rng.choice((1, 3, 200))


def _noise(data: bytearray, rng: random.Random, wholes: list[bytes]) -> None:
    at = rng.randint(0, len(data))
    data[at:at] = rng.randbytes(rng.choice((1, 33, 700)))


def _splice(data: bytearray, rng: random.Random, wholes: list[bytes]) -> None:
    """The end of another file, or something of another kind altogether."""
    other = rng.choice((*wholes, picture(), b"%PDF-1.4\n", b"PK\x03\x04", gzip.compress(b"x" * 99), b"", b"[" * 3000))
    del data[rng.randint(0, len(data)) :]
    data += other[rng.randint(0, len(other)) :]


def _words(data: bytearray, rng: random.Random, wholes: list[bytes]) -> None:
    at = rng.randint(0, len(data))
    data[at:at] = rng.choice(
        (b"\xed\xa0\x80", b"\xff\xfe", b"\\ud800", b"\0", b"../" * 9, b'"', b"<" * 99, b"\xc3(", b"-1")
    )


def _overwrite(data: bytearray, rng: random.Random, wholes: list[bytes]) -> None:
    """Letters become others that no text can hold, and a number becomes a word, with all lengths kept."""
    numbers = [found.span() for found in re.finditer(rb"(?<=: )[0-9.]{3,20}(?=[,}])", data)]
    if numbers and rng.random() < 0.5:
        begin, end = rng.choice(numbers)
        data[begin:end] = b'"' + b"x" * (end - begin - 2) + b'"'
        return
    letters = [found.start() for found in re.finditer(rb"[A-Za-z0-9 -]{6}", data)]
    for at in rng.sample(letters, min(len(letters), 3)):
        piece = rng.choice((b"\xed\xa0\x80", b"\\ud800", b"\xff", b"\xc3("))
        data[at : at + len(piece)] = piece


def _early(data: bytearray, rng: random.Random) -> int:
    """A place, every other time among the first bytes, where headers are, or the last."""
    near = min(len(data), 200)
    return rng.choice((rng.randint(0, len(data)), rng.randint(0, near), len(data) - rng.randint(0, near)))


_DAMAGES = (_flip, _flip, _extremes, _extremes, _cut, _lose, _repeat, _noise, _splice, _words, _overwrite, _overwrite)


def write_mutants(format: str, root: Path, number: int, seed: int) -> list[str]:
    """The damaged files of a format in `root`, and a secret beside it; the names of the inputs that they come to."""
    root.mkdir(parents=True)
    (root.parent / "secret.png").write_bytes(SECRET)
    if format == "tfds":
        return _write_tfds(root, number, seed)
    wholes = seeds(format)
    names = []
    for i, data in enumerate(mutants(wholes, number, seed)):
        names += _write_one(format, root, f"{i:04d}", i % len(wholes), data)
        if format == "hf" and i % 4 == 0:
            info = root / f"{i:04d}" / "dataset_info.json"
            info.write_bytes(next(mutants([info.read_bytes()], 1, seed + i)))
    return names


def write_wholes(format: str, root: Path) -> list[str]:
    """The seeds of a format, as they are, in a folder that may hold mutants; the names of their inputs."""
    root.mkdir(parents=True, exist_ok=True)
    if format == "tfds":
        return _write_tfds(root, 0, 0)
    wholes = seeds(format)
    return [name for i, data in enumerate(wholes) for name in _write_one(format, root, f"{WHOLE}{i:02d}", i, data)]


def _write_one(format: str, root: Path, place: str, number: int, data: bytes) -> list[str]:
    """One file made of seed `number`, and what goes with it; the names of its inputs."""
    if format == "hf":
        names = [f"{place}/{place}.arrow"]
        files = {
            names[0]: data,
            f"{place}/dataset_info.json": hf({"text": ["x"]}, {"image": {"_type": "Image"}})["dataset_info.json"],
        }
    elif format == "speech":
        transcript, sound, _ = _TRANSCRIPTS[number]
        names = [f"{place}/{transcript}", f"{place}/{sound}"]
        files = {names[0]: data, names[1]: wav(sine(0.1))}
    elif format in _BESIDE:  # the file that is read is the medium beside
        names = [f"{place}{_BESIDE[format]}"]
        files = {f"{place}{ending_of(format)}": data, names[0]: picture()}
    else:
        names = [f"{place}{ending_of(format)}"]
        files = {names[0]: data}
    for name, content in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(content)
    return names


def _write_tfds(root: Path, number: int, seed: int) -> list[str]:
    """Datasets of two records with one of their three files damaged; a whole one where `number` is 0."""
    import io
    import shutil

    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict({"image": tfds.features.Image(), "text": tfds.features.Text()})
    whole = root.parent / "whole" if number else root / WHOLE
    examples = [{"image": io.BytesIO(picture()), "text": f"words {i}"} for i in range(2)]
    tfds_files(whole, features, [examples])
    files = sorted(path.name for path in whole.iterdir())
    names = [] if number else [f"{WHOLE}/toy-train.array_record-00000-of-00001"]
    for i in range(number):
        shutil.copytree(whole, root / f"{i:04d}")
        damaged = root / f"{i:04d}" / files[i % len(files)]
        damaged.write_bytes(next(mutants([damaged.read_bytes()], 1, seed + i)))
        names.append(f"{i:04d}/toy-train.array_record-00000-of-00001")
    return names


def check_found(root: Path, found: Iterable[Document | Dropped]) -> None:
    """What holds of all that a source yields, whatever the file: nothing of outside, and all of it can be stored."""
    size = 0
    for one in found:
        assert isinstance(one, Document | Dropped)
        one.uri.encode("utf-8")  # strictly: the catalog and the records hold nothing else
        if isinstance(one, Dropped):
            assert one.reason and one.stage == "ingest"
            one.detail.encode("utf-8", "surrogatepass")
            continue
        assert one.parts and re.fullmatch("[0-9a-f]{32}", one.id)
        for word in (one.language, one.licence, one.created, *one.metadata, *one.metadata.values()):
            word.encode("utf-8")
        for key, value in one.metadata.items():
            assert not key.startswith(QUALITY) or math.isfinite(float(value)), f"{key} is no number, but {value!r}"
        for part in one.parts:
            f"{part.uri}{part.stream}".encode()
            assert not math.isinf(part.start_s) and not math.isinf(part.end_s)
            if part.path is not None:
                assert part.path.resolve().is_relative_to(root.resolve())
                continue
            data = part.read()  # raises for a text with lone surrogates
            size += len(data)
            assert SECRET not in data and len(data) <= LIMITS.max_text_bytes
    assert size <= LIMITS.max_unpacked(LIMITS.max_text_bytes)


def described(root: Path, found: Iterable[Document | Dropped]) -> list[Any]:
    """All that a source says, without the place of its root."""
    said: list[Any] = []
    for one in found:
        if isinstance(one, Dropped):
            said.append(one)
            continue
        parts = []
        for part in one.parts:
            path = "" if part.path is None else part.path.relative_to(root).as_posix()
            digest = hashlib.sha256(part.read()).hexdigest()
            times = f"{part.start_s} {part.end_s} {part.unit_times}"
            parts.append(
                (part.kind, digest, path, part.uri, times, part.role, part.stream, part.group, part.group_role)
            )
        said.append((one.id, one.uri, one.language, one.licence, one.created, one.metadata, parts))
    return said


def decode_files(call: Call) -> dict[str, str]:
    """In a worker: name -> "decoded", or the ledger's reason, of media files (kind, path)."""
    said: dict[str, str] = {}
    for kind, path in call.args:
        if path.name in call.skip:
            said[path.name] = call.skip[path.name]
            continue
        call.at(path.name)
        try:
            said[path.name] = _decode(kind, path)
        except MediaError as error:
            said[path.name] = error.reason
    return said


def _decode(kind: str, path: Path) -> str:
    """Raises MediaError, and AssertionError where a limit did not hold."""
    if kind == "image":
        from pipelines.ingest.decode_image import decode_image

        image = decode_image(path, LIMITS)
        assert image.ndim == 3 and image.shape[0] * image.shape[1] <= LIMITS.max_pixels
    elif kind == "audio":
        from pipelines.ingest.decode_audio import decode_audio

        assert len(decode_audio(path, 16_000, LIMITS)) <= LIMITS.max_seconds * 16_000 * 1.01
    else:
        from pipelines.ingest.decode_video import decode_video

        clip = decode_video(path, fps=2, max_frames=8, size=64, limits=LIMITS)
        assert len(clip.frames) <= 8 and clip.frames[0].shape[0] * clip.frames[0].shape[1] <= LIMITS.max_pixels
    return "decoded"
