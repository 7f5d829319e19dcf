"""The card beside shipped weights: data, licences, settings, figures and the command, written by the program itself.

`NAME.json` is what a program reads, `NAME.md` the same for people, `NAME.files.tsv` the list of training files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Data:
    """One set of training files. `files` are (path relative to the set, sha256)."""

    name: str
    licence: str
    origin: str = ""  # package and version, or address
    files: Sequence[tuple[str, str]] = ()
    dropped: Mapping[str, str] = field(default_factory=dict)  # relative path -> why


@dataclass(frozen=True)
class Card:
    """All that a card says."""

    name: str  # "image-fsq16@1"
    summary: str
    command: str  # gives the weights again
    licence: str  # of the weights
    data: Sequence[Data]
    settings: Mapping[str, Any]
    figures: Mapping[str, Mapping[str, float]]  # set -> measure -> value
    notes: Sequence[str] = ()


def write_card(weights: Path, card: Card) -> None:
    """Write the card's three files beside the weights file (whose suffix they replace)."""
    _write(weights.with_suffix(".json"), json.dumps(_as_json(card), indent=1, ensure_ascii=False) + "\n")
    _write(weights.with_suffix(".md"), _as_markdown(card))
    lines = ["set\tpath\tsha256\n"]
    lines += [f"{data.name}\t{path}\t{sha256}\n" for data in card.data for path, sha256 in data.files]
    _write(weights.with_suffix(".files.tsv"), "".join(lines))


def _as_json(card: Card) -> dict[str, Any]:
    return {
        "name": card.name,
        "summary": card.summary,
        "command": card.command,
        "licence": card.licence,
        "data": [
            {
                "name": data.name,
                "licence": data.licence,
                "origin": data.origin,
                "files": len(data.files),
                "dropped": dict(data.dropped),
            }
            for data in card.data
        ],
        "settings": dict(card.settings),
        "figures": {name: dict(values) for name, values in card.figures.items()},
        "notes": list(card.notes),
    }


def _as_markdown(card: Card) -> str:
    lines = [f"# {card.name}", "", card.summary, "", "## Figures", ""]
    for name, values in card.figures.items():
        lines.append(f"* {name}: " + ", ".join(f"{measure} {value:g}" for measure, value in values.items()))
    lines += ["", "## Data", "", f"Weights: {card.licence}. Each training file is listed in `.files.tsv`.", ""]
    lines += ["| set | origin | licence | files | left out |", "|---|---|---|---|---|"]
    lines += [f"| {d.name} | {d.origin} | {d.licence} | {len(d.files)} | {len(d.dropped)} |" for d in card.data]
    lines += ["", "## Settings", "", "```json", json.dumps(dict(card.settings), indent=1), "```", ""]
    lines += ["## Command", "", "```", card.command, "```", ""]
    if card.notes:
        lines += ["## Notes", "", *(f"* {note}" for note in card.notes), ""]
    return "\n".join(lines)


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
