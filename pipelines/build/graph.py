"""The units of each stage, and what decides each of them.

What a unit makes is decided by its fingerprint, which hashes what it reads: the inputs' sizes and times for ingestion,
digests of the stage before it from there on. Each thing that decides has a name here, in words for a person: markers
keep them, so that a build can say why a unit runs again. Nothing is run here, and no order of stages is known.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from mmdata.errors import UserError
from mmdata.media import MediaInfo, MediaShard
from pipelines.build import encode, stages, write
from pipelines.build.inputs import EVERY, INPUT, BuildSource, Marker, touched
from pipelines.build.media import MediaSettings
from pipelines.build.recipe import SOFT, Recipe, soft_multiple
from pipelines.build.settings import limits_of, media_words, own_settings, platform_words, recipe_settings
from pipelines.build.shuffle import PLAN, ShuffleArgs, shuffle
from pipelines.build.units import Unit, fingerprint_of
from pipelines.dedup.decontaminate import DecontaminateArgs, decontaminate
from pipelines.dedup.duplicates import DedupArgs, SignedUnit, dedup
from pipelines.dedup.evaluation import IndexArgs, check_paths, make_index, state_of
from pipelines.dedup.sign import SignArgs, sign, versions
from tokenizer.codec import CodecSpec
from tokenizer.codecs import CodecFile

# Raise a stage's number when its code changes what it writes.
VERSIONS = {
    "ingest": 4, "leftovers": 1, "curate": 2, "benchmarks": 1, "decontaminate": 1, "sign": 2, "dedup": 1, "encode": 1,
    "shuffle": 1, "write": 1, "media": 1, "finish": 1,
}  # fmt: skip


class Graph:
    """The units of a recipe's stages. A stage's can be asked for once the markers of those before it are known."""

    def __init__(
        self, recipe: Recipe, work: Path, names: dict[str, str], files: tuple[CodecFile, ...], load: encode.LoadCodec
    ) -> None:
        self.recipe, self.work, self.names, self.files, self.load = recipe, work, names, files, load
        self.limits = limits_of(recipe)
        self.versions, self.platform = versions(), platform_words()
        self.specs: dict[str, CodecSpec] = {}
        self.media_settings: MediaSettings | None = None

    def ingest(self, source: BuildSource) -> list[Unit]:
        opened, listed = source.args.open(), ""
        if source.follows:
            inputs = {item.path for cut in source.cuts for item in cut}
            listed = fingerprint_of(sorted(opened.folder.names - inputs))  # type: ignore[attr-defined]
        units = []
        for cut in source.cuts:
            decides: dict[str, Any] = {
                "settings of the source": source.settings,
                "limits": vars(self.limits),
                "names of the files that may be shown": listed,
            }
            for p in cut:
                decides[INPUT + p.path] = [p.size, [touched(source.root / f) for f in p.files or (p.path,)]]
            args = stages.IngestArgs(source.args, cut)
            units.append(self._unit("ingest", source, _name_of(cut[0].path), stages.ingest, args, decides))
        return units

    def leftovers(self, source: BuildSource) -> list[Unit]:
        """The files that nothing reads are few words and always up to date: their listing decides."""
        opened = source.args.open()
        shown = {path for marker in source.markers["ingest"] for path in marker["counts"].get("media", ())}
        lines = opened.leftovers(shown) if source.follows else opened.leftovers()  # type: ignore[call-arg]
        decides = {"files that nothing reads": [[line.uri, line.reason] for line in lines]}
        args = stages.LeftoversArgs(tuple(lines))
        return [self._unit("leftovers", source, "all", stages.leftovers, args, decides)]

    def curate(self, source: BuildSource) -> list[Unit]:
        units = []
        for before, marker in zip(source.units["ingest"], source.markers["ingest"], strict=True):
            args = stages.CurateArgs(before.folder, source.root, self.limits, source.curation)
            decides: dict[str, Any] = {"documents": [before.fingerprint, marker["digest"]]}
            # Media that a page or a record names: their content may change while the page does not.
            decides |= {path: touched(source.root / path) for path in marker["counts"].get("media", ())}
            if source.curation is not None:
                rules = source.curation.settings()
                decides |= {f"curate.{name}": value for name, value in rules.items()} | {"limits": vars(self.limits)}
            units.append(self._unit("curate", source, before.name, stages.curate, args, decides))
        return units

    def benchmarks(self) -> dict[str, list[Unit]]:
        paths = self.recipe.evaluation_paths()
        check_paths(paths)
        decides = {"evaluation data": state_of(paths), "limits": vars(self.limits), "library versions": self.versions}
        return {EVERY: [self._across("benchmarks", EVERY, make_index, IndexArgs(paths, self.limits), decides)]}

    def decontaminate(self, source: BuildSource, benchmarks: Unit, made: Marker) -> list[Unit]:
        units = []
        for i, before in enumerate(source.units["ingest"]):
            verdicts, digest = source.verdicts[i]
            args = DecontaminateArgs(
                before.folder,
                source.folders("curate")[i],
                verdicts,
                source.root,
                benchmarks.folder,
                made["digest"],
                self.limits,
            )
            decides = {
                "documents": [*source.contents(i), digest],
                "evaluation data": made["digest"],
                "limits": vars(self.limits),
                "library versions": self.versions,
            }
            units.append(self._unit("decontaminate", source, before.name, decontaminate, args, decides))
        return units

    def sign(self, source: BuildSource) -> list[Unit]:
        kinds, units = self.recipe.dedup.near_kinds, []
        for i, before in enumerate(source.units["ingest"]):
            verdicts, digest = source.verdicts[i]
            args = SignArgs(before.folder, source.folders("curate")[i], verdicts, source.root, kinds, self.limits)
            decides = {
                "documents": [*source.contents(i), digest],
                "kinds in [dedup]": kinds,
                "limits": vars(self.limits),
                "library versions": self.versions,
            }
            units.append(self._unit("sign", source, before.name, sign, args, decides))
        return units

    def dedup(self, all_sources: list[BuildSource]) -> dict[str, list[Unit]]:
        options = self.recipe.dedup
        groups = {EVERY: all_sources} if options.scope == "all" else {s.name: [s] for s in all_sources}
        units = {}
        for name, sources in groups.items():
            signed = []
            decides: dict[str, Any] = {f"dedup.{key}": value for key, value in options.words().items()}
            for source in sources:
                words = decides.setdefault(f"documents of {source.name}", [])
                for i, part in enumerate(source.units["sign"]):
                    verdicts, digest = source.verdicts[i]
                    signed.append(SignedUnit(source.name, part.name, part.folder, verdicts))
                    words.append([part.name, source.markers["sign"][i]["digest"], digest])
            units[name] = [self._across("dedup", name, dedup, DedupArgs(tuple(signed), options), decides)]
        return units

    def describe_codecs(self, found: dict[str, dict[str, Any]]) -> None:
        """Take what `encode.describe_codecs` says of the codecs; UserError where one does not suit its kind."""
        self.specs = {name: found[name]["spec"] for name in found}
        for kind, name in self.names.items():
            right = ("image",) if kind == "video" else (kind,)
            if name != SOFT and self.specs[name].kind not in (*right, kind):
                raise UserError(f"codecs.{kind}: {name} is a codec of {self.specs[name].kind}, not of {kind}")
        if self.recipe.codecs.video not in ("", SOFT) and not found[self.names["video"]]["frames"]:
            raise UserError(f"codecs.video: {self.names['video']} gives each frame a grid of its own; it is for images")
        rate = found.get(self.names["audio"], {}).get("sample_rate_hz") or self.recipe.audio.sample_rate_hz
        resizing = {kind: self.recipe.resizing(kind, self._multiple(kind, found)) for kind in ("image", "video")}
        self.media_settings = MediaSettings(self.recipe.image, self.recipe.video, rate, resizing, self.limits)

    def _multiple(self, kind: str, codecs: dict[str, dict[str, Any]]) -> int:
        """Pixels that the sides of resized pictures of a kind are a multiple of: a code of the codec, or a patch."""
        if self.names[kind] == SOFT:
            return soft_multiple(self.recipe, kind)
        return codecs[self.names[kind]]["multiple"] or 16

    def encode(self, source: BuildSource) -> list[Unit]:
        assert self.media_settings is not None
        recipe = self.recipe
        settings = encode.EncodeSettings(
            tuple(sorted(self.names.items())), self.media_settings, recipe.keep_media, recipe.on_bad_part, self.load
        )
        units = []
        for i, before in enumerate(source.units["ingest"]):
            verdicts, digest = source.verdicts[i]
            args = encode.EncodeArgs(before.folder, source.folders("curate")[i], verdicts, source.root, settings)
            kinds = source.markers["curate"][i]["counts"].get("kinds", ())
            decides = {
                "documents": [*source.contents(i), digest],
                "on_bad_part": recipe.on_bad_part,
                "library versions and CPU": self.platform,
                **self._of_kinds(kinds),
            }
            units.append(self._unit("encode", source, before.name, encode.encode, args, decides))
        return units

    def _of_kinds(self, kinds: list[str]) -> dict[str, Any]:
        """What decides the items of documents of these kinds: another codec of images runs nothing of texts again."""
        assert self.media_settings is not None
        decides: dict[str, Any] = {}
        for kind in kinds:
            name = self.names[kind]
            decides[f"codecs.{kind}"] = name if name == SOFT else self.specs[name].to_json()
        if set(kinds) - {"text"}:
            words = media_words(self.media_settings, set(kinds))
            decides |= {"keep_media": self.recipe.keep_media, "sizes of media": words}
        return decides

    def shuffle(self, source: BuildSource) -> list[Unit]:
        shards = self.recipe.shards
        args = ShuffleArgs(
            source.folders("encode"), self.recipe.seed, self.recipe.validation, shards.samples, shards.bytes
        )
        decides = {
            "samples": source.digests("encode"),
            "seed": args.seed,
            "validation": args.validation,
            "shards": [shards.samples, shards.bytes],
        }
        return [self._unit("shuffle", source, "all", shuffle, args, decides)]

    def write(self, source: BuildSource) -> list[Unit]:
        (places,) = source.folders("shuffle")
        units = []
        for shard in _places(source)["shards"]:
            split, index, num = shard["split"], shard["index"], shard["num_shards"]
            args = write.WriteArgs(source.folders("encode"), places, split, index, num)
            units.append(
                self._unit(
                    "write", source, f"{split}-{index:05d}", write.write, args, _order(source, split, index, num)
                )
            )
        return units

    def media(self, source: BuildSource) -> list[Unit]:
        (places,) = source.folders("shuffle")
        num, form = _places(source)["media_shards"], self.recipe.keep_media
        units = []
        for index in range(num):
            args = write.MediaArgs(source.folders("encode"), places, form, index, num)
            decides = _order(source, form, index, num)
            units.append(self._unit("media", source, f"{index:05d}", write.write_kept_media, args, decides))
        return units

    def finish(self, source: BuildSource) -> list[Unit]:
        shards = tuple(marker["counts"]["shard"] for marker in source.markers["write"])
        if not shards:
            return []  # no document of it was kept; the report says so
        used = {name for shard in shards for name in shard["codecs"]}
        # Where --explain takes shards for what they were last, a codec may be one that is gone.
        codecs = tuple(self.specs[name] for name in sorted(used) if name in self.specs)
        kept = [marker["counts"]["shard"] for marker in source.markers["media"]]
        media = MediaInfo(self.recipe.keep_media if kept else "none", tuple(MediaShard(**m) for m in kept))
        kinds = {kind for shard in shards for kind, counts in shard["counts"].items() if counts.get("items")}
        settings = {**source.all_settings, **own_settings(recipe_settings(self.recipe, self.names), kinds - {"soft"})}
        written = source.folders("write") + source.folders("media")
        files = tuple(file for file in self.files if file.codec in used)
        args = write.FinishArgs(written, shards, codecs, settings, media, files)
        decides = {
            "shards": shards,
            "kept media": media.to_json(),
            "codecs": [[c.to_json() for c in codecs], *(f.sha256 for f in files)],
            **{f"the manifest's {key}": value for key, value in settings.items()},
        }
        return [self._unit("finish", source, "all", write.finish, args, decides)]

    def _unit(
        self, stage: str, source: BuildSource, name: str, function: Any, args: Any, decides: dict[str, Any]
    ) -> Unit:
        fingerprint, digests = _decided(stage, source.name, decides)
        return Unit(stage, source.name, name, fingerprint, function, self.work, args, digests)

    def _across(self, stage: str, name: str, function: Any, args: Any, decides: dict[str, Any]) -> Unit:
        fingerprint, digests = _decided(stage, name, decides)
        return Unit(stage, name, "all", fingerprint, function, self.work, args, digests)


def _decided(stage: str, owner: str, decides: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """(fingerprint, digest of each thing that decides it)."""
    digests = {word: fingerprint_of(value)[:16] for word, value in {"its version": VERSIONS[stage], **decides}.items()}
    return fingerprint_of(stage, VERSIONS[stage], owner, list(decides.items())), digests


def _order(source: BuildSource, *place: Any) -> dict[str, Any]:
    return {"order of the samples": source.digests("shuffle"), "samples": source.digests("encode"), "place": place}


def _places(source: BuildSource) -> dict[str, Any]:
    """What the shuffle wrote; of one that is not done yet, no shards."""
    (before,) = source.folders("shuffle")
    if not (before / PLAN).exists():
        return {"shards": [], "media_shards": 0}
    return json.loads((before / PLAN).read_text("ascii"))


def _name_of(path: str) -> str:
    """A unit is named after its first input, so that those before it may come and go."""
    return hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
