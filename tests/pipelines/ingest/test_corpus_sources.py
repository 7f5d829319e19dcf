"""Every file of the real corpus ends in a document, a part or a `Dropped`, under the recipe examples/corpus.toml."""

from __future__ import annotations

import csv
import os
import tomllib

from pipelines.ingest.document import Document
from pipelines.ingest.sources import open_source, require_inputs


def test_every_file_of_the_manifest_is_reached(root, corpus):
    recipe = tomllib.loads((root / "examples" / "corpus.toml").read_text(encoding="utf-8"))
    with (corpus / "MANIFEST.tsv").open(encoding="utf-8", newline="") as file:
        manifest = {row["path"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)}
    used, dropped, ids = set(), set(), set()
    for table in recipe["source"]:
        name, format, path = (table.pop(key) for key in ("name", "format", "path"))
        folder, table["manifest"] = (
            word.replace("${MMDATA_CORPUS}", str(corpus)) for word in (path, table["manifest"])
        )
        source = open_source(name, format, corpus / folder, table)
        require_inputs(source)
        below = os.path.relpath(folder, corpus)
        for one in [*(one for input in source.inputs() for one in source.read(input)), *source.leftovers()]:
            if isinstance(one, Document):
                assert one.parts and one.id not in ids
                assert one.licence, f"{one.uri} of {name} has no licence"
                ids.add(one.id)
                used.update(f"{below}/{uri}".split("#")[0] for uri in (one.uri, *(part.uri for part in one.parts)))
            else:
                dropped.add(f"{below}/{one.uri}".split("#")[0])
    assert manifest - used - dropped == set()
    assert len(manifest & used) >= 1100
