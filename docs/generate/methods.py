"""A page for each method, from its row in docs/methods.md, its phases and its settings."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import yaml

from dlfd_dist.config import METHOD_CONFIGS, MethodConfig
from dlfd_dist.methods import methods
from dlfd_dist.methods.base import Phase

from .settings import field_texts
from .svg import Picture

ROOT = Path(__file__).parents[2]
LANES = {"retain": ("retain",), "forget": ("forget",), "mixed": ("retain", "forget")}
COLUMNS = (
    "method=",
    "source",
    "what it optimises",
    "cost",
    "settings",
    "known failure",
    "where ours",
)
"""How the columns of the table in docs/methods.md begin."""


def rows_of(text: str) -> dict[str, list[str]]:
    """Return the cells of the table of methods by the method's name."""
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    cells = [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    head, *rows = cells
    begins = tuple(cell.strip("`").startswith(c) for cell, c in zip(head, COLUMNS, strict=True))
    assert all(begins), f"the table of docs/methods.md has the columns {head}, not {COLUMNS}"
    return {row[0].strip("`"): row for row in rows}


@functools.cache
def method_pages() -> dict[str, str]:
    """Return path and text of every method's page and picture."""
    rows = rows_of((ROOT / "docs/methods.md").read_text(encoding="utf-8"))
    missing = set(methods.names()) ^ set(rows)
    assert not missing, f"docs/methods.md and the registry differ in {sorted(missing)}"
    pages = {}
    for name, row in rows.items():
        pages[f"methods/{name}.md"] = _page(name, row)
        pages[f"methods/{name}.svg"] = str(passes_picture(name, row[2], row[3]))
    return pages


def _page(name: str, row: list[str]) -> str:
    _, source, objective, cost, settings, failure, difference = row
    return "\n\n".join(
        [
            f"# {name}",
            f"![The passes of {name} over the retain and the forget set]({name}.svg)",
            f"**What it optimises.** {objective}",
            f"**Source.** {source}",
            f"**Cost.** {cost}. [The units](../methods.md) are passes over a set.",
            f"**When it fails.** {failure}",
            f"**Where ours differs from the authors' code.** {difference}",
            f"**Settings.** {settings}",
            _settings_table(name),
            "[How this method stands among the others](../methods.md#a-fair-comparison)\n",
        ]
    )


def settings_of(name: str) -> MethodConfig:
    """Return the settings of a method as configs/method/NAME.yaml has them."""
    values = yaml.safe_load((ROOT / "configs/method" / f"{name}.yaml").read_text("utf-8"))
    return METHOD_CONFIGS[name](**values.get("method", values))


def _settings_table(name: str) -> str:
    """Return the settings of a method with the values of configs/method/NAME.yaml."""
    meanings = field_texts(METHOD_CONFIGS[name])
    rows = ["| setting | default | meaning |", "| --- | --- | --- |"]
    for setting, value in vars(settings_of(name)).items():
        if setting != "name":
            meaning = meanings.get(setting, "").replace("|", "\\|")
            shown = "null" if value is None else str(value).lower()
            rows.append(f"| `method.{setting}` | `{shown}` | {meaning} |")
    return "\n".join(rows)


def passes_picture(name: str, objective: str, cost: str) -> Picture:
    """Draw the passes of a method in their order, a lane for each set."""
    phases = methods.get(name).phases(settings_of(name))
    rides = re.search(r"\bb\b", cost) is not None
    picture = Picture(640, 170, f"Passes of {name}", "; ".join(_in_words(p, rides) for p in phases))
    picture.text(16, 26, _plain(objective)[:96])
    for lane, y in (("retain", 62), ("forget", 102)):
        picture.text(16, y + 19, lane, kind="soft")
    total = sum(_length(phase) for phase in phases)
    at = 80.0
    for phase in phases:
        width = 540 * _length(phase) / total
        for lane in LANES[phase.over]:
            kind = "forget-area" if lane == "forget" else "other-area"
            picture.box(at + 1, 62 if lane == "retain" else 102, width - 2, 28, kind)
        if phase.over == "retain" and rides:
            picture.box(at + 1, 112, width - 2, 8, "forget-area")
        if phase.retain_rides:
            picture.box(at + 1, 72, width - 2, 8, "other-area")
        at += width
    picture.text(80, 158, f"{total:g} passes, from left to right", kind="soft")
    if rides:
        picture.text(620, 158, "a thin bar: batches that ride along", kind="soft", anchor="end")
    return picture


def _length(phase: Phase) -> float:
    return phase.epochs if phase.steps is None else 1


def _in_words(phase: Phase, rides: bool) -> str:
    also = " with forget batches" if rides and phase.over == "retain" else ""
    return f"{phase.name}: {phase.epochs} over {phase.over}{also}"


def _plain(text: str) -> str:
    return re.sub(r"[*`]", "", text)
