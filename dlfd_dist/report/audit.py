"""The page and the table of an audit; reads audit.json."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment

from .. import __version__
from ..metrics.told_apart import LEVEL, least_p
from ..plain import band
from ..run_dir import write_text
from . import audit_figures as figures
from .contrasts import holm
from .png import uri_of
from .records import ORIGINAL, RETRAINED, label_of

CONTROL = "Retrained again"
Row = list[str]
Result = Mapping[str, Any]

OWN_TEST = (
    ("AUC", "ulira", "auc"),
    ("AUC per person", "ulira_person", "auc"),
    ("TPR at 1 % FPR", "ulira", "tpr_at_1pct"),
    ("TPR at 0.1 % FPR", "ulira", "tpr_at_01pct"),
    ("AUC by RMIA", "rmia", "auc"),
)
"""Where the audit of Retrained against itself must be at chance: title, attack, figure."""


def label(title: str) -> str:
    """Return what a world is called in tables and figures."""
    return {"original": ORIGINAL, "retrained": RETRAINED, "control": CONTROL}.get(
        title
    ) or label_of(title)


def write_audit_page(out: Path) -> Path:
    """Write report.html into the directory of an audit that has its audit.json; return it."""
    result = json.loads((out / "audit.json").read_text(encoding="utf-8"))
    page = out / "report.html"
    write_text(page, _render(_context(result)))
    return page


def _in_order(worlds: Mapping[str, Any]) -> dict[str, Any]:
    """Return worlds as a reader expects them; audit.json holds them by name."""
    last = ("retrained", "control")
    place = {"original": -1} | {name: 1 + number for number, name in enumerate(last)}
    return dict(sorted(worlds.items(), key=lambda pair: place.get(pair[0], 0)))


def _context(stored: Result) -> dict[str, Any]:
    result = {**stored, "worlds": _in_order(stored["worlds"]), "cost": _in_order(stored["cost"])}
    worlds = {label(title): world for title, world in result["worlds"].items()}
    resolved = {name: world for name, world in worlds.items() if world["ulira"]}
    drawn = []
    if resolved:
        drawn = [
            _drawn(
                "Told apart", "U-LiRA over all images and models, logarithmic axes. A curve above "
                "that of Retrained again tells models that forgot from models that never saw. "
                "Dotted is guessing; equal worlds can lie below it.",
                lambda narrow: figures.roc_curves(resolved, narrow=narrow),
            ),
            _drawn(
                "How exposed each person is", "Chance that a model which forgot a person scores "
                "above that of its pair which never saw them, by their images; 0.5 is chance.",
                lambda narrow: figures.exposure_histograms(resolved, narrow=narrow),
            ),
        ]  # fmt: skip
    attacks = [("U-LiRA", *ulira_table(result))]
    if (attacked := rmia_table(result))[1]:
        attacks.append(("RMIA", *attacked))
    by_klom = [("KLoM", *klom_table(result))]
    return {
        "title": result["title"],
        "settings": result["settings"],
        "judgement": judgement(result),
        "tables": attacks + by_klom if result["kind"] == "ulira" else by_klom + attacks,
        "notes": notes(result),
        "exposed": [(name, world["most_exposed"]) for name, world in worlds.items()
                    if world["role"] == "method" and world["most_exposed"]],
        "figures": drawn,
        "cost": [(label(title), seconds) for title, seconds in result["cost"].items()],
        "missing": result["missing"],
        "version": __version__,
    }  # fmt: skip


def _drawn(title: str, caption: str, draw: Any) -> dict[str, str]:
    wide, narrow = uri_of(draw(False)), uri_of(draw(True))
    return {"title": title, "caption": caption, "wide": wide, "narrow": narrow}


def judgement(result: Result) -> list[str]:
    """Return in words whether the audit can be believed, and what it found of each method."""
    lines = [_own_test(result["worlds"].get("control", {}))]
    for title, world in result["worlds"].items():
        for attack, judged in (("U-LiRA", world["ulira"]), ("RMIA", world["rmia"])):
            if world["role"] == "method" and judged:
                lines.append(f"{label(title)}: {_finding(attack, judged)}")
    return lines


def _own_test(control: Mapping[str, Any]) -> str:
    """Say whether Retrained against itself is at chance, after Holm over the figures."""
    if not control.get("ulira"):
        return "The audit was not tested: Retrained was not audited against itself."
    tested = {
        title: control[attack][name] for title, attack, name in OWN_TEST
        if control.get(attack) and control[attack][name] is not None
    }  # fmt: skip
    figures = ", ".join(f"{title} {_in_words(figure)}" for title, figure in tested.items())
    if len(tested) * least_p(control["num_models"]) >= LEVEL:
        return (
            f"The audit was not tested: {control['num_models']} models are too few for Retrained "
            f"against Retrained to fail in one of {len(tested)} figures: {figures}."
        )
    adjusted = holm([figure["p"] for figure in tested.values()])
    off = [title for title, p in zip(tested, adjusted, strict=True) if p < LEVEL]
    if not off:
        return (
            f"The audit passes its own test: Retrained against Retrained is at chance, {figures}."
        )
    believed = (
        "believe no figure of it"
        if "AUC" in off
        else f"of the methods, believe {_listed(off)} no further than it exceeds this"
    )
    return (
        f"The audit fails its own test by {_listed(off)}, outside of what equal worlds give: "
        f"Retrained against Retrained gives {figures}; {believed}."
    )


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


_FINDINGS = {
    "U-LiRA": (
        "not told from Retrained by {num_models} models, AUC {auc}.",
        "told from models that never saw the people, AUC {auc}.",
        "AUC {auc} is below chance: the fits do not hold for models left out.",
    ),
    "RMIA": (
        "not told by RMIA, AUC {auc}.",
        "told by RMIA, AUC {auc}.",
        "forgotten too hard: RMIA ranks the forgotten lower than Retrained does, AUC {auc}, which "
        "can betray them too.",
    ),
}
"""What is said of a method that an attack does not tell, tells, or puts below chance."""


def _finding(attack: str, judged: Mapping[str, Any]) -> str:
    auc, num_models = judged["auc"], judged["num_models"]
    if least_p(num_models) >= LEVEL:
        return (
            f"{num_models} models are too few to tell it from Retrained, whatever it leaks: "
            f"{attack} gives AUC {_in_words(auc)}."
        )
    same, apart, below = _FINDINGS[attack]
    sentence = same if auc["p"] >= LEVEL else apart if auc["value"] > 0.5 else below
    return sentence.format(num_models=num_models, auc=_in_words(auc))


def _in_words(figure: Mapping[str, Any]) -> str:
    """Return a figure beside what equal worlds give."""
    low, high = figure["chance"]
    return f"{figure['value']:.3f} (equal worlds {low:.3f} to {high:.3f}, p = {figure['p']:.2g})"


def ulira_table(result: Result) -> tuple[Row, list[Row]]:
    """Return head and rows of the U-LiRA figures, with 95 % intervals."""
    head, rows = _attack_table(result, "ulira")
    people = [world["ulira_person"] for world in result["worlds"].values()]
    whole = [_cell(person and person["auc"]) for person in people]
    return [*head, "AUC per person"], [[*row, of] for row, of in zip(rows, whole, strict=True)]


def rmia_table(result: Result) -> tuple[Row, list[Row]]:
    """Return head and rows of the RMIA figures."""
    return _attack_table(result, "rmia")


def _attack_table(result: Result, attack: str) -> tuple[Row, list[Row]]:
    head = ["", "Models", "AUC", "AUC of equal worlds", "TPR at 1 % FPR", "TPR at 0.1 % FPR"]
    rows = []
    for title, world in result["worlds"].items():
        cells = ["–"] * 4
        if judged := world[attack]:
            low, high = judged["auc"]["chance"]
            rates = [
                _cell(judged[name]) if judged[name] else "not resolved"
                for name in ("tpr_at_1pct", "tpr_at_01pct")
            ]
            cells = [_cell(judged["auc"]), f"{low:.3f} to {high:.3f}", *rates]
        rows.append([label(title), str(world["num_models"]), *cells])
    return head, rows


def _cell(figure: Mapping[str, Any] | None) -> str:
    if not figure:
        return "–"
    low, high = figure["interval"]
    return f"{figure['value']:.3f} ({low:.3f} to {high:.3f})"


def klom_table(result: Result) -> tuple[Row, list[Row]]:
    """Return head and rows of KLoM: mean and 95th percentile on forget, retain and val."""
    parts = ("forget", "retain", "val")
    head = ["", "Models", *(f"{part} {what}" for part in parts for what in ("mean", "95 %"))]
    rows = []
    for title, world in result["worlds"].items():
        cells = []
        for part in parts:
            distances = world["klom"][part]
            for name in ("mean", "p95"):
                interval = distances and distances[f"{name}_interval"]
                value = distances and {"value": distances[name], "interval": interval}
                cells.append(_cell(value))
        rows.append([label(title), str(world["num_models"]), *cells])
    return head, rows


def notes(result: Result) -> list[str]:
    """Return what a reader must know of the figures."""
    scores = [world["ulira"]["num_scores"] for world in result["worlds"].values() if world["ulira"]]
    lines = [
        f"Gaussian fits with one variance per {_variance(result)}, the model under test and its "
        "pair left out. AUC: within each pair of models, the mean over pairs.",
        "Intervals, 95 %: of AUC over pairs and people, of TPR by the bootstrap over models and "
        "people. The fits are kept, so that with few models they are too narrow.",
        "Equal worlds: where 95 % of the audits lie whose pairs of models were swapped at random; "
        "p says how rare among them a figure is. A finding needs p < 0.05, of each method and "
        "attack by itself; the audit's own test takes Holm over its figures.",
        f"KLoM is KL(Retrained || world) of 20-bin histograms; with few models it is large for "
        f"equal worlds too: compare with {CONTROL}.",
    ]
    if any(world["rmia"] for world in result["worlds"].values()):
        lines.append(
            "RMIA: an image against validation images, by which checkpoints are selected too; its "
            "references are Original and Retrained of the other shadows that forget it. An attack "
            "of its own, at no further training."
        )
    if any(
        judged and None in judged.values()
        for world in result["worlds"].values()
        for judged in (world["ulira"], world["rmia"])
    ):
        lines.append(
            "Not resolved: so many scores are the highest that no threshold has so low a "
            "false-positive rate; nothing is said of leaks there."
        )
    if scores and min(scores) < 1000:
        lines.append(
            f"There are only {band(min(scores))} scores of Retrained: a false-positive rate of "
            "0.1 % cannot be told from 0."
        )
    if not scores:
        lines.append(
            "Too few models forget the same person for U-LiRA: give more audit.models, or a larger "
            "forget.fraction."
        )
    return lines


def _variance(result: Result) -> str:
    return {"pooled": "world", "example": "image"}[result["settings"]["variance"]]


def summary_lines(result: Result) -> list[str]:
    """Return the table of the kind that was asked for, and the judgement, for the terminal."""
    named = [("", klom_table(result))]
    if result["kind"] == "ulira":
        named = [("U-LiRA", ulira_table(result)), ("RMIA", rmia_table(result))]
    tables = [_aligned([[name, *head[1:]], *rows]) for name, (head, rows) in named if rows]
    return [*itertools.chain(*tables), *judgement(result), *notes(result)]


def markdown(table: tuple[Row, list[Row]]) -> str:
    """Return a table in Markdown."""
    head, rows = table
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _aligned(rows: Sequence[Row]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows]


def short_pseudonym(text: str) -> str:
    """Return enough of a pseudonym to find it in audit.csv."""
    return text.removeprefix("hmac-sha256:")[:12]


def _render(context: Mapping[str, Any]) -> str:
    """Return the page; every value is escaped."""
    source = resources.files("dlfd_dist.report").joinpath("audit.html.j2").read_text("utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["pseudonym"] = short_pseudonym
    return environment.from_string(source).render(context)
