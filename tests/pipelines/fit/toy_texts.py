"""A dataset of texts, as a build writes one."""

import hashlib
from pathlib import Path

from mmdata.manifest import finish_source, write_dataset_manifest
from mmdata.sample import Sample
from mmdata.shards import write_shard
from tests.tokenizer.toy_vocabularies import spm
from tokenizer.codec import spec_of
from tokenizer.codecs import load_codec
from tokenizer.item import Item
from tokenizer.text import TextSpm


def write_dataset(folder: Path, texts: dict[str, list[str]]) -> Path:
    """Two codecs of text, one of which loses something: its items keep their text. A tenth more for validation."""
    lossy = TextSpm.of("lossy", 1, spm())
    exact = load_codec("text-spm16k")
    for name, each in texts.items():
        samples = []
        for i, text in enumerate(each):
            codec = (exact, lossy)[i % 2]
            kept = None if codec.exact else text
            digest = hashlib.sha256(text.encode()).hexdigest()
            item = Item("text", f"{codec.name}@1", codec.encode(text).codes, digest=digest, text=kept)
            samples.append(Sample(f"{i:032x}", f"{i:032x}", name, (item,), uri=f"{i}"))
        validation = [Sample("f" * 32, "f" * 32, name, (Item("text", "text-spm16k@1", exact.encode("never").codes),))]
        shards = [
            write_shard(folder / name, name, "train", 0, 2, samples[:3]),
            write_shard(folder / name, name, "train", 1, 2, samples[3:]),
            write_shard(folder / name, name, "validation", 0, 1, validation),
        ]
        finish_source(folder / name, name, shards, (spec_of(exact), spec_of(lossy)), {})
    write_dataset_manifest(folder, list(texts))
    return folder
