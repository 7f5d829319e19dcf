"""Small archives of every packed format, written by the libraries that usually write them."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def tar(*members: tuple[str, bytes] | tarfile.TarInfo, mode: str = "w") -> bytes:
    """An archive of (name, content) pairs, and of headers as they are."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return out.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def parquet(columns: dict[str, list], **options) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, **options)
    return out.getvalue()


def arrow_stream(columns: dict[str, list], rows: int = 2, **options) -> bytes:
    table, out = pa.table(columns), io.BytesIO()
    with pa.ipc.new_stream(out, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=rows)
    return out.getvalue()


def warc(*answers: tuple[str, str, bytes], status: str = "200 OK", gzip: bool = True) -> bytes:
    """A crawl of (address, content type, body), with its requests."""
    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import WARCWriter

    out = io.BytesIO()
    writer = WARCWriter(out, gzip=gzip)
    writer.write_record(writer.create_warcinfo_record("toy.warc", {"software": "toy"}))
    for address, kind, body in answers:
        headers = StatusAndHeaders(status, [("Content-Type", kind)], protocol="HTTP/1.1")
        record = writer.create_warc_record(
            address,
            "response",
            payload=io.BytesIO(body),
            http_headers=headers,
            warc_headers_dict={"WARC-Date": "2024-05-01T00:00:00Z"},
        )
        writer.write_record(record)
        asked = StatusAndHeaders("GET / HTTP/1.1", [("Host", "x")], is_http_request=True)
        writer.write_record(writer.create_warc_record(address, "request", http_headers=asked))
    return out.getvalue()


def zipped(files: dict[str, bytes | str], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def hf(columns: dict[str, list], features: dict) -> dict[str, bytes]:
    """The files that `Dataset.save_to_disk` writes."""
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": "train"}
    return {
        "data-00000-of-00001.arrow": arrow_stream(columns),
        "dataset_info.json": json.dumps({"features": features}).encode(),
        "state.json": json.dumps(state).encode(),
    }


def epub(chapters: dict[str, str], files: dict[str, bytes] | None = None, spine: list[str] | None = None) -> bytes:
    """A book of chapters (name in OEBPS/ -> page), `spine` in the order it is read."""
    items = "".join(
        f'<item id="i{i}" href="{name}" media-type="application/xhtml+xml"/>' for i, name in enumerate(chapters)
    )
    order = [list(chapters).index(name) for name in (spine or chapters)]
    refs = "".join(f'<itemref idref="i{i}"/>' for i in order)
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/">'
        "<metadata><dc:title>A Book</dc:title><dc:creator>Someone</dc:creator><dc:language>fr</dc:language>"
        f"<dc:rights>CC0</dc:rights></metadata><manifest>{items}</manifest><spine>{refs}</spine></package>"
    )
    container = (
        '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
        '<rootfile full-path="OEBPS/book.opf"/></rootfiles></container>'
    )
    return zipped(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": container,
            "OEBPS/book.opf": package,
            **{f"OEBPS/{name}": page for name, page in chapters.items()},
            **(files or {}),
        }
    )


def pdf(*pages: str, picture: tuple[int, int, bytes] | None = None, size: tuple[int, int] = (300, 300)) -> bytes:
    """A file of pages given as content streams; /F is a font, /P a picture of (width, height, RGB bytes)."""
    width, height, pixels = picture or (1, 1, b"\0\0\0")
    bodies = [b"<< /Type /Catalog /Pages 2 0 R >>", b"", b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    bodies.append(
        b"<< /Type /XObject /Subtype /Image /Width %d /Height %d /ColorSpace /DeviceRGB /BitsPerComponent 8"
        b" /Length %d >>\nstream\n" % (width, height, len(pixels)) + pixels + b"\nendstream"
    )
    kids = []
    for page in pages:
        content = page.encode()
        bodies.append(b"<< /Length %d >>\nstream\n" % len(content) + content + b"\nendstream")
        bodies.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 %d %d] /Contents %d 0 R"
            b" /Resources << /Font << /F 3 0 R >> /XObject << /P 4 0 R >> >> >>" % (*size, len(bodies))
        )
        kids.append(len(bodies))
    bodies[1] = b"<< /Type /Pages /Count %d /Kids [%s] >>" % (len(kids), b" ".join(b"%d 0 R" % k for k in kids))
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(bodies, 1):
        places.append(len(out))
        out += b"%d 0 obj\n" % number + body + b"\nendobj\n"
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    trailer = b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (len(bodies) + 1, len(out))
    return out + b"xref\n0 %d\n0000000000 65535 f \n" % (len(bodies) + 1) + table + trailer


def tfds_files(folder: Path, features: Any, shards: list[list[dict[str, Any]]]) -> None:
    """A TFDS dataset "toy" with a split train of these shards, in `folder`."""
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordWriter

    folder.mkdir(parents=True, exist_ok=True)
    for i, examples in enumerate(shards):
        name = folder / f"toy-train.array_record-{i:05d}-of-{len(shards):05d}"
        writer = ArrayRecordWriter(str(name), "group_size:1")
        for example in examples:
            writer.write(features.serialize_example(features.encode_example(example)))
        writer.close()
    template = tfds.core.ShardedFileTemplate(
        data_dir=str(folder),
        dataset_name="toy",
        filetype_suffix="array_record",
        template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    )
    split = tfds.core.SplitInfo(
        name="train",
        shard_lengths=[len(shard) for shard in shards],
        num_bytes=1,
        filename_template=template.replace(split="train"),
    )
    tfds.folder_dataset.write_metadata(
        data_dir=str(folder),
        features=features,
        split_infos=[split],
        filename_template=template,
        version="1.0.0",
        check_data=False,
    )
