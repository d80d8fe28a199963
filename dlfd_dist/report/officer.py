"""The first screen of the page, for whoever must answer for the request: in words, no table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..plain import band
from .records import RunRecord, of_label
from .verdict import forgotten

Row = dict[str, Any]

AT_FLOOR = "The attack does no better than guessing: a low score says little of what is remembered."
TOO_HARD = "Forgotten too hard: losses above those of unseen images can betray people too."
LEFT_AS_IS = "Left the model as it is: neither its weights nor its answers moved."
ONLY_CONFIDENCE = "Only lowers its confidence: it answers as before, less sure."
ALIKE = "Answers everything alike."
ONE_SEED = "One seed: another may turn out differently."
ONE_TRAINING = "One trained model: another training may turn out differently."
NO_GUARD = "No guard fired."
LIMITS = (
    "This report certifies a procedure and its measurements, not a privacy guarantee. The attack "
    "used here is one of many; that it fails does not prove that nothing can be recovered. Scores "
    "on few images are uncertain: read the intervals before the means. Copies of the original "
    "model, backups, and models derived from it are not covered."
)


LOST_BY = 0.03
"""The loss of test accuracy from which the page names it."""


def guards(row: Row, original: Row | None) -> dict[str, list[str]]:
    """Return by metric what must be held against the figure, in words."""
    cost = [ALIKE] if row["alike"] else []
    if original is not None and None not in (own := [r["test_accuracy"] for r in (original, row)]):
        lost = own[0] - own[1]
        cost += [f"{100 * lost:.0f} points below Original."] if lost > LOST_BY else []
    seeds = [ONE_SEED] if row["one_seed"] else []
    seeds += [ONE_TRAINING] if row["one_training"] else []
    attack = [LEFT_AS_IS] if row["left_as_is"] else []
    attack += [ONLY_CONFIDENCE] if row["only_confidence"] else []
    attack += [AT_FLOOR] if row["floor"] else []
    attack += [row["low_power_reason"]] if row["low_power"] else []
    attack += [TOO_HARD] if row["over_forgetting"] else []
    return {
        "forgetting_score": attack or [NO_GUARD],
        "test_accuracy": [*cost, *seeds] or [NO_GUARD],
        "nomus": ["It weighs the other two, and what is said of them holds."],
    }


def what_was_done(row: Row, records: Sequence[RunRecord]) -> list[tuple[str, str]]:
    """Return request, method, and when by which code: three lines, nobody named."""
    runs = of_label(records, row["method"])
    return [
        ("Request", _request(runs)),
        ("Method", _method(row, runs)),
        ("When", _when(runs)),
    ]


def _request(runs: Sequence[RunRecord]) -> str:
    text = f"Forget {forgotten(runs)}."
    request = runs[0].request
    if request is None:
        return text
    # Lines that are no people are images, whose number could tell whose they are.
    count = str if request.lines == request.people else band
    text += f" The request has {count(request.lines)} {'line' if request.lines == 1 else 'lines'}"
    if request.outside:
        text += f", {count(request.outside)} of them of images that were never trained on"
    return text + "."


def _method(row: Row, runs: Sequence[RunRecord]) -> str:
    number = "one run" if len(runs) == 1 else f"{len(runs)} runs"
    text = f"{row['method']}, {number}."
    chosen = {str(run.result.get("selection") or "") for run in runs} - {""}
    if len(chosen) == 1:
        text += f" Delivered: {chosen.pop().rstrip('.')}."
    if all(run.result.get("test_read") == "after selection" for run in runs):
        text += " The test set was measured after that."
    return text


def _when(runs: Sequence[RunRecord]) -> str:
    starts = [start for run in runs for start in run.starts]
    if not starts:
        return "Not recorded by the run; its certificate says when and by which code it was issued."
    times = sorted(start["started"] for start in starts)
    first, last = (time.replace("T", " ").replace("Z", " UTC") for time in (times[0], times[-1]))
    when = first if first == last else f"{first} to {last}"
    codes = list(dict.fromkeys(_code(start["code"]) for start in starts))
    return f"Started {when} by {'; '.join(codes)}."


def _code(code: dict[str, Any]) -> str:
    text = f"dlfd-dist {code['version']}"
    if code["revision"]:
        text += f", revision {code['revision'][:12]}"
    if code["diff_sha256"]:
        text += f" with uncommitted changes {code['diff_sha256'][:12]}"
    return text
