"""A build with curation rules: what they drop and change, what runs again when one changes, and what dry-run shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import toy_build
from toy_build import load_toy, make_media, open_deadly, paint, toy_recipe, tree

import mmdata
from pipelines.build.engine import build
from pipelines.build.inputs import open_one
from pipelines.build.ledger import read_ledger
from pipelines.build.report import BuildReport, print_report
from pipelines.build.runner import open_executor
from pipelines.build.sample_rules import sample_rules
from pipelines.build.settings import limits_of
from pipelines.ingest.sources import open_source
from tokenizer.codec import Codes, Shape

GOOD = "This page has words to read, and it is one of them. Here we have more of that. And so it ends with this."
PAGES = [
    {"id": "good", "text": GOOD, "url": "https://good.org/1"},
    {"id": "menu", "text": f"home\n{GOOD}\nabout"},
    {"id": "mail", "text": f"{GOOD} Write to ann@mail.org."},
    {"id": "short", "text": "Short phrases to be. That is. Yes indeed."},
    {"id": "code", "text": f"{{ {GOOD}"},
    {"id": "host", "text": GOOD + " It is here.", "url": "https://www.bad.org/1"},
    {
        "id": "german",
        "text": "Das ist ein Satz auf Deutsch, und er ist lang genug. Und noch einer. So ist das hier eben.",
    },
]
RULES = {
    "rules": ["lists", "language", "gopher_quality", "c4", "personal"],
    "lists": {"hosts": ["hosts.txt"]},
    "language": {"languages": ["en"], "min_characters": 60, "min_score": 0.2},
    "gopher_quality": {"min_words": 10},
}


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    root = tmp_path / "media"
    (root / "web").mkdir(parents=True)
    (root / "web" / "a.jsonl").write_text("\n".join(map(json.dumps, PAGES)), "utf-8")
    (root / "hosts.txt").write_text("bad.org\n", "utf-8")
    return root


def run(root: Path, out: Path, curate: dict[str, Any], workers: int = 1, **options: Any) -> BuildReport:
    recipe = toy_recipe(root, source=[{"name": "web", "format": "jsonl", "path": "web"}], curate=curate)
    return build(recipe, out, workers, progress=False, load=load_toy, **options)


def texts(out: Path) -> list[str]:
    source = mmdata.open(out)["web"]
    items = [item for split in (source.train, source.validation) for s in split for item in s.items]
    return sorted(toy_build.ToyText().decode(Codes(i.codes, Shape(len(i.codes), 1))) for i in items)


def stale(report: BuildReport) -> dict[str, int]:
    return {stage.stage: stage.stale for stage in report.stages}


def test_each_document_is_in_the_shards_or_in_the_ledger_with_what_was_measured(pages: Path, tmp_path: Path) -> None:
    report = run(pages, tmp_path / "out", RULES)
    assert texts(tmp_path / "out") == sorted([GOOD, GOOD, f"{GOOD} Write to email@example.com."])
    ledger = {line["uri"]: line for line in read_ledger(tmp_path / "out" / "ledger" / "web.jsonl")}
    assert {uri: (line["stage"], line["reason"], line["detail"]) for uri, line in ledger.items()} == {
        "a.jsonl#L4": ("curate", "gopher: too few words", "8, at least 10"),
        "a.jsonl#L5": ("curate", "c4: curly bracket", "1, at most 0"),
        "a.jsonl#L6": ("curate", "lists: listed host", "www.bad.org, none of 1 hosts"),
        "a.jsonl#L7": ("curate", "language: not kept", "de, one of en"),
    }
    assert report.dropped["gopher: too few words"] == 1 and sum(report.dropped.values()) == 4
    assert report.changed == {"c4: lines without an end mark": 2, "personal: e-mail addresses masked": 1}
    saved = json.loads((tmp_path / "out" / "report.json").read_text())
    assert saved["dropped"] == report.dropped and saved["changed"] == report.changed
    settings = json.loads((tmp_path / "out" / "web" / "manifest.json").read_text())["settings"]
    assert settings["curate"]["gopher_quality"]["min_words"] == 10 and str(pages) not in json.dumps(settings)


def test_duplicates_are_told_by_what_rules_left_of_a_document(pages: Path, tmp_path: Path) -> None:
    """Two documents are the same once their menus are gone; the one after them is read as its rules left it."""
    source = [{"name": "web", "format": "jsonl", "path": "web"}]
    recipe = toy_recipe(pages, source=source, curate=RULES, dedup={"exact": "drop"})
    report = build(recipe, tmp_path / "out", 1, progress=False, load=load_toy)
    assert texts(tmp_path / "out") == sorted([GOOD, f"{GOOD} Write to email@example.com."])
    assert [row["uri"] in ("a.jsonl#L1", "a.jsonl#L2") for row in ledger_of(tmp_path / "out", "dedup")] == [True]
    assert report.total("samples") == 2
    # Without the rule that makes them the same, the menu is a document of its own
    other = {**RULES, "rules": [rule for rule in RULES["rules"] if rule != "c4"]}
    recipe = toy_recipe(pages, source=source, curate=other, dedup={"exact": "drop"})
    build(recipe, tmp_path / "out", 1, progress=False, load=load_toy)
    assert f"home\n{GOOD}\nabout" in texts(tmp_path / "out")


def ledger_of(out: Path, stage: str) -> list[dict[str, Any]]:
    return [row for row in read_ledger(out / "ledger" / "web.jsonl") if row["stage"] == stage]


def test_two_workers_write_the_same_bytes(pages: Path, tmp_path: Path) -> None:
    run(pages, tmp_path / "a", RULES)
    run(pages, tmp_path / "b", RULES, workers=2)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_a_changed_threshold_runs_curation_again_and_what_follows_only_where_its_output_changed(
    pages: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = run(pages, out, RULES)
    assert run(pages, out, RULES).units_run == 0
    idle = run(pages, out, {**RULES, "gopher_quality": {"min_words": 9}})  # no document has 9 words
    ran = {stage for stage, units in stale(idle).items() if units}
    assert ran == {"curate", "finish"}  # finish: the manifest says which rules it was
    assert texts(out) and idle.total("samples") == first.total("samples")
    more = run(pages, out, {**RULES, "gopher_quality": {"min_words": 8}})
    assert stale(more)["ingest"] == 0 and stale(more)["curate"] == 1 and stale(more)["encode"] == 1
    assert "gopher: too few words" not in more.dropped
    run(pages, tmp_path / "anew", {**RULES, "gopher_quality": {"min_words": 8}})
    assert tree(out) == tree(tmp_path / "anew")


def test_a_changed_list_is_read_again(pages: Path, tmp_path: Path) -> None:
    run(pages, tmp_path / "out", RULES)
    (pages / "hosts.txt").write_text("good.org\n", "utf-8")
    report = run(pages, tmp_path / "out", RULES)
    assert stale(report)["ingest"] == 0 and stale(report)["curate"] == 1
    lines = read_ledger(tmp_path / "out" / "ledger" / "web.jsonl")
    assert [line["uri"] for line in lines if line["reason"] == "lists: listed host"] == ["a.jsonl#L1"]


def test_without_rules_no_word_of_them_is_written(pages: Path, tmp_path: Path) -> None:
    run(pages, tmp_path / "out", {})
    run(pages, tmp_path / "off", {"gopher_quality": {"min_words": 3}})
    assert tree(tmp_path / "out") == tree(tmp_path / "off")
    assert len(texts(tmp_path / "out")) == len(PAGES)
    assert not any(b"curate" in data for name, data in tree(tmp_path / "out").items() if name.endswith(".json"))


def test_a_dry_run_shows_what_each_rule_would_drop_of_a_sample_and_writes_nothing(
    pages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = run(pages, tmp_path / "out", RULES, dry_run=True)
    assert not (tmp_path / "out").exists() and report.sources[0].inputs == 1
    (sample,) = report.rules
    assert (sample.source, sample.documents, sample.dropped, sample.complete) == ("web", 7, 4, True)
    row = next(row for row in sample.rules if row.rule == "gopher: too few words")
    assert (row.measured, row.failed, row.lowest, row.limit) == (7, 1, 8, "at least 10")
    short = {"uri": "a.jsonl#L4", "value": "8, at least 10", "text": "Short phrases to be. That is. Yes indeed."}
    assert row.examples == [short]
    print_report(report)
    shown = capsys.readouterr().out
    assert "of 7 documents 4 would be dropped" in shown and "Short phrases to be." in shown
    json.dumps(report.to_json())


def test_the_sample_is_spread_over_the_inputs_and_bounded(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    for i in range(10):
        lines = [json.dumps({"id": f"{i}.{k}", "text": f"{k} {GOOD}"}) for k in range(9)]
        (tmp_path / "web" / f"{i}.jsonl").write_text("\n".join(lines), "utf-8")
    curate = {"rules": ["gopher_quality"], "gopher_quality": {"min_words": 10_000}}
    entry = {"name": "web", "format": "jsonl", "path": "web"}
    recipe = toy_recipe(tmp_path, source=[entry], curate=curate)
    source = open_one(recipe, recipe.source[0], open_source)
    with open_executor("local", 2, tmp_path / "scratch", recipe) as pool:
        sample = sample_rules(source, limits_of(recipe), pool, documents=5)
        assert sample.documents == sample.dropped == 5 and sample.complete
        assert [e["uri"] for e in sample.rules[0].examples] == ["0.jsonl#L1", "2.jsonl#L1"]
        assert sample_rules(source, limits_of(recipe), pool, documents=25).documents == 25
        late = sample_rules(source, limits_of(recipe), pool, seconds=0.0)
        assert late.documents == 1 and not late.complete


def test_the_sample_ends_in_time_also_where_inputs_hold_no_document(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    for i in range(3):
        (tmp_path / "web" / f"{i}.jsonl").write_text("no record\n" * 9, "utf-8")
    entry = {"name": "web", "format": "jsonl", "path": "web"}
    recipe = toy_recipe(tmp_path, source=[entry], curate={"rules": ["gopher_quality"]})
    source = open_one(recipe, recipe.source[0], open_source)
    with open_executor("local", 1, tmp_path / "scratch", recipe) as pool:
        late = sample_rules(source, limits_of(recipe), pool, seconds=0.0)
        assert (late.documents, late.complete) == (0, False)
        assert sample_rules(source, limits_of(recipe), pool).complete


def test_a_file_that_kills_its_reader_costs_a_dry_run_that_file_alone(pages: Path, tmp_path: Path) -> None:
    (pages / "web" / "deadly.jsonl").write_text(json.dumps(PAGES[0]), "utf-8")
    (sample,) = run(pages, tmp_path / "out", RULES, dry_run=True, open=open_deadly).rules
    assert sample.lost == [{"uri": "deadly.jsonl", "reason": "crashed its worker", "detail": "SIGSEGV"}]
    assert sample.documents == len(PAGES) and sample.complete


def test_limits_that_languages_have_of_their_own_are_shown_as_a_range(pages: Path, tmp_path: Path) -> None:
    german = {"language": {"languages": ["de"]}, "gopher_quality": {"min_words": 5}}
    curate = {**RULES, "rules": ["language", "gopher_quality"], "languages": {"de": german}}
    (sample,) = run(pages, tmp_path / "out", curate, dry_run=True).rules
    limits = {row.rule: row.limit for row in sample.rules}
    assert limits["gopher: too few words"] == "at least 5 to 10" and limits["language: not kept"] == "one of en; or de"
    assert limits["language: not sure"] == "at least 0.2"


def test_clusters_and_digests_are_of_what_came_in(pages: Path, tmp_path: Path) -> None:
    run(pages, tmp_path / "plain", {})
    run(pages, tmp_path / "ruled", RULES)

    def known(out: Path) -> dict[str, tuple[str, ...]]:
        source = mmdata.open(out)["web"]
        return {
            s.id: (s.cluster, *(item.digest for item in s.items))
            for split in (source.train, source.validation)
            for s in split
        }

    plain, ruled = known(tmp_path / "plain"), known(tmp_path / "ruled")
    assert len(ruled) == 3 and all(plain[name] == words for name, words in ruled.items())


def test_a_picture_that_a_rule_refuses_is_left_out_of_its_document(tmp_path: Path) -> None:
    root, out = tmp_path / "media", tmp_path / "out"
    make_media(root, texts=0, pictures=3)
    paint(root / "pictures" / "big.png", (1, 2, 3), (200, 160))
    (root / "pictures" / "big.txt").write_text("a caption with enough words", "utf-8")
    curate = {"rules": ["pictures"], "pictures": {"min_words": 0, "min_paragraph_words": 2, "min_images": 0}}
    curate["pictures"] |= {"max_special": 1, "max_paragraph_special": 1}  # type: ignore[operator]
    sources = [{"name": "pictures", "format": "captions", "path": "pictures"}]
    recipe = toy_recipe(root, source=sources, curate=curate)
    report = build(recipe, out, 1, progress=False, load=load_toy)
    lines = read_ledger(out / "ledger" / "pictures.jsonl")
    assert sorted(line["uri"] for line in lines if line["reason"] == "pictures: too small") == [
        "00.png", "01.png", "02.png"
    ]  # fmt: skip
    assert report.total("samples") == 5 and report.codes["image"] > 0
    assert {line["detail"] for line in lines if line["stage"] == "curate"} == {"64, at least 150"}
