"""The `[curate]` table of a recipe, and what it comes to for one source: `Curation`, which travels to workers.

No family is on unless `rules` names it. A source's own `[source.curate]` is laid over `[curate]` key by key, and a
language's `[curate.languages.LANG]` over both.
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from mmdata.commit import sha256_of
from mmdata.errors import UserError
from pipelines.config import check, expand
from pipelines.curate.adapters import ADAPTERS, check_name, version_of
from pipelines.curate.c4 import C4
from pipelines.curate.fineweb import FineWeb
from pipelines.curate.gopher_quality import GopherQuality
from pipelines.curate.gopher_repetition import GopherRepetition
from pipelines.curate.language import Language
from pipelines.curate.lists import Lists, read_hosts, read_list
from pipelines.curate.obelics import LISTS, MODELS, PERPLEXITIES, Obelics
from pipelines.curate.personal import Personal
from pipelines.curate.picture_copies import PictureCopies
from pipelines.curate.pictures import Pictures
from pipelines.curate.quality import Named, Quality, named
from pipelines.curate.safe_pictures import CLASSIFIERS, SafePictures
from pipelines.curate.similarity import Similarity
from pipelines.curate.speech import QUALITIES, VOICES, Speech
from pipelines.curate.table import Table
from pipelines.curate.words import main_language

VERSION = 2  # raise it when the code of a rule changes what it says
_LISTS = {"lists": ("words", "hosts"), "obelics": LISTS}  # keys that name lists, by family

# Keys that are read before the language of a document is known: no language can have its own.
_BEFORE_LANGUAGE = (
    "rules", "default_language", "languages", "lists.hosts", "language.trust", "language.min_characters",
)  # fmt: skip

# Keys that name a hook, by family, with the adapters that each may name.
_HOOKS: dict[str, dict[str, tuple[str, ...]]] = {
    "obelics": {"perplexity": PERPLEXITIES},
    "safe_pictures": {"classifier": CLASSIFIERS},
    "similarity": {"scorer": ()},
    "speech": {"voice": VOICES, "quality": QUALITIES},
}
_NEEDED = ("classifier", "scorer")  # of these keys: where the family is on, they must name one

# In the order in which they are applied.
Family = Literal[
    "lists", "language", "gopher_repetition", "gopher_quality", "c4", "fineweb", "obelics", "pictures",
    "picture_copies", "quality", "safe_pictures", "similarity", "speech", "personal",
]  # fmt: skip


class Curate(Table):
    """Which documents are kept, and what is changed in them (docs/rules.md)."""

    rules: tuple[Family, ...] = Field(
        default=(), description="the families that are on; they are applied in the order of these tables"
    )
    default_language: str = Field(
        default="en", description="of texts whose language nobody says: decides stop words and [curate.languages]"
    )
    lists: Lists = Lists()
    language: Language = Language()
    gopher_repetition: GopherRepetition = GopherRepetition()
    gopher_quality: GopherQuality = GopherQuality()
    c4: C4 = C4()
    fineweb: FineWeb = FineWeb()
    obelics: Obelics = Obelics()
    pictures: Pictures = Pictures()
    picture_copies: PictureCopies = PictureCopies()
    quality: Quality = Quality()
    safe_pictures: SafePictures = SafePictures()
    similarity: Similarity = Similarity()
    speech: Speech = Speech()
    personal: Personal = Personal()
    languages: dict[str, dict[str, Any]] = Field(
        default={},
        description="other numbers and lists for a language: `[curate.languages.zh.fineweb]`, with its keys",
    )


@dataclass(frozen=True)
class Curation:
    """The rules of one source, in plain values that can be hashed and pickled."""

    table: str  # canonical JSON of a Curate
    files: tuple[tuple[str, Path, str], ...] = ()  # lists and models: (as the recipe writes it, file, its sha256)
    folder: Path = Path()  # of the recipe: hooks are looked for in it
    classifiers: tuple[tuple[str, Named], ...] = ()  # as the table names them

    @property
    def rules(self) -> Curate:
        return _parsed(self.table)

    def path_of(self, name: str) -> Path:
        """The file of a list or a model that the rules name so."""
        return next(path for its, path, _ in self.files if its == name)

    def files_of(self, names: tuple[str, ...]) -> tuple[tuple[Path, str], ...]:
        """The files of lists that the rules name so, each with its digest: a changed list is another."""
        return tuple((path, digest) for name in names for its, path, digest in self.files if its == name)

    def classifier(self, name: str) -> Named:
        """The one that the table, or a language's, names so."""
        return dict(self.classifiers)[name]

    def settings(self) -> dict[str, Any]:
        """What decides the verdicts, and no path: the families that are on, with all their numbers."""
        rules = self.rules
        words: dict[str, Any] = {"version": VERSION, "default_language": rules.default_language}
        words |= {name: getattr(rules, name).model_dump(mode="json") for name in rules.rules}
        if over := {tag: tables for tag, tables in _overrides(rules).items() if tables}:
            words["languages"] = over
        for table in [words, *over.values()]:
            if "classifier" in table.get("quality", {}):
                name = table["quality"]["classifier"]
                table["quality"] = {**table["quality"], "classifier": self.classifier(name).words()}
        if "language" in rules.rules:
            words["py3langid"] = metadata.version("py3langid")
        for table in (words, *words.get("languages", {}).values()):
            for family in _LISTS.keys() & table.keys():
                table[family] = {**table[family], **self._digests(family, table[family])}
        for variant in _variants(rules):
            for name in _hooks(variant).values():
                if name in ADAPTERS:
                    words[ADAPTERS[name].package] = version_of(name)
        return words

    def _digests(self, family: str, table: dict[str, Any]) -> dict[str, Any]:
        """Of the files that a family's table names, in place of their names."""
        known = {name: digest for name, _, digest in self.files}
        lists = {key: [known[name] for name in table[key]] for key in _LISTS[family] if key in table}
        return lists | {key: known[table[key]] for key in MODELS if table.get(key)}


def curation_of(curate: Curate, own: dict[str, Any], folder: Path, where: str) -> Curation | None:
    """The rules of a source with `own` keys over those of the recipe in `folder`; None where no family is on.

    UserError names an unknown key and the nearest known one, or a list or classifier that cannot be read.
    """
    rules = laid_over(curate, own, where)
    if not rules.rules:
        return None
    table = json.dumps(rules.model_dump(mode="json", exclude_unset=True), sort_keys=True)
    found: dict[str, tuple[Path, str]] = {}
    for variant in _variants(rules):
        _check_hooks(variant, folder, where)
        found |= _files(variant, folder, where)
    classifiers = tuple((name, named(name, folder, f"{where}.quality.classifier")) for name in _classifiers(rules))
    return Curation(table, tuple((name, *file) for name, file in found.items()), folder, classifiers)


def laid_over(curate: Curate, own: dict[str, Any], where: str) -> Curate:
    """The rules with `own` keys over them; UserError names a wrong key of these, or of a language."""
    merged = _over(curate.model_dump(exclude_unset=True), own)
    rules = check(Curate, merged, where)
    for tag, tables in rules.languages.items():
        check(Curate, _over(merged, tables), f"{where}.languages.{tag}")
        _check_language(tag, tables, f"{where}.languages.{tag}")
    return rules


@functools.lru_cache(maxsize=256)
def rules_for(table: str, language: str) -> Curate:
    """The rules with what `[curate.languages]` says of a language laid over them."""
    rules = _parsed(table)
    if language not in rules.languages:
        return rules
    return Curate.model_validate(_over(rules.model_dump(exclude_unset=True), rules.languages[language]))


def _variants(rules: Curate) -> list[Curate]:
    """The rules, and what they are for each language that has numbers of its own."""
    below = rules.model_dump(exclude_unset=True)
    return [rules, *(Curate.model_validate(_over(below, over)) for over in _overrides(rules).values())]


def _hooks(rules: Curate) -> dict[str, str]:
    """`family.key` -> the hook that it names, of the families that are on."""
    return {
        f"{family}.{key}": getattr(getattr(rules, family), key)
        for family, keys in _HOOKS.items()
        for key in (keys if family in rules.rules else ())
    }


def _check_hooks(rules: Curate, folder: Path, where: str) -> None:
    """UserError names a hook that is not there, is missing, or lacks its model."""
    for place, name in _hooks(rules).items():
        family, _, key = place.partition(".")
        if name or key in _NEEDED:
            check_name(name, _HOOKS[family][key], folder, f"{where}.{place}")
    if "obelics" in rules.rules and rules.obelics.perplexity == "kenlm" and not rules.obelics.model:
        raise UserError(f'{where}.obelics: perplexity = "kenlm" needs a model; write model = "FILE.arpa"')


def _check_language(tag: str, tables: dict[str, Any], where: str) -> None:
    """UserError for what `[curate.languages]` says and no rule would read."""
    if tag != main_language(tag):
        raise UserError(f"{where}: languages are told apart by their first part; write {main_language(tag)!r}")
    for place in _BEFORE_LANGUAGE:
        table, _, key = place.partition(".")
        if place in tables or key in tables.get(table, ()):
            raise UserError(
                f"{where}.{place}: the language is known only after it is asked; write it for all, in [curate]"
            )


def _files(rules: Curate, folder: Path, where: str) -> dict[str, tuple[Path, str]]:
    """What families that are on name -> (file, sha256 of what it says); UserError where one cannot be read."""
    found = {}
    for family, keys in _LISTS.items():
        for key in keys if family in rules.rules else ():
            for name in getattr(getattr(rules, family), key):
                path = (folder / expand(name, f"{where}.{family}.{key}")).resolve()
                found[name] = path, _digest((read_hosts if key == "hosts" else read_list)(path))
    for key in MODELS if "obelics" in rules.rules else ():
        if name := getattr(rules.obelics, key):
            path = (folder / expand(name, f"{where}.obelics.{key}")).resolve()
            if not path.is_file():
                raise UserError(f"{where}.obelics.{key}: no file {path}; check the path")
            found[name] = path, sha256_of(path)
    return found


def _overrides(rules: Curate) -> dict[str, dict[str, Any]]:
    """What `languages` says of families that are on."""
    return {
        tag: {name: value for name, value in tables.items() if name in rules.rules}
        for tag, tables in rules.languages.items()
    }


def _classifiers(rules: Curate) -> list[str]:
    """Those that the rules name, and those of languages; none where the family is off."""
    if "quality" not in rules.rules:
        return []
    of_languages = (tables.get("quality", {}).get("classifier") for tables in rules.languages.values())
    return list(dict.fromkeys([rules.quality.classifier, *filter(None, of_languages)]))


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`, table by table, key by key."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _over(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _digest(entries: tuple[str, ...]) -> str:
    """Of what a list says: comments and order change no verdict."""
    return hashlib.sha256("\n".join(sorted(entries)).encode()).hexdigest()


@functools.lru_cache(maxsize=64)
def _parsed(table: str) -> Curate:
    return Curate.model_validate(json.loads(table))
