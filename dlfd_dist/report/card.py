"""The model card of an unlearned model: README.md as Hugging Face reads it, in numbers and words.

It says how many people were forgotten and never who. The licence is left to the model's owner.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import __version__
from ..errors import RunDirError
from ..yaml_text import write_yaml
from .officer import LIMITS, NO_GUARD, guards, what_was_done
from .records import ORIGINAL, RunRecord, of_label
from .summary import findings_of, summarise
from .tuning import DASH
from .verdict import Row, forgetting_interval, forgotten, judge, row_of, unlearned_row

NAME = "README.md"
"""What the file of a card is called."""
LIBRARIES = {"huggingface": "transformers", "timm": "timm"}
"""By model.library, the library_name that Hugging Face knows."""
FIGURES = (
    ("Test accuracy", "test_accuracy", "accuracy", None),
    ("Accuracy on retained images", "retain_accuracy", None, None),
    ("Accuracy on forgotten images", "forget_accuracy", None, None),
    ("Accuracy of the attack", "mia_accuracy", "membership_inference_accuracy", "attack_interval"),
    ("AUC of the attack's confidence", "mia_auc", "membership_inference_auc",
     "attack_auc_interval"),
    ("Forgetting score", "forgetting_score", "forgetting_score", None),
    ("NoMUS", "nomus", "nomus", None),
    ("Gap to Retrained", "gap_to_retrained", "gap_to_retrained", None),
)  # fmt: skip
"""title, metric, type of the metric in the head (None: not there), and where a single run has its
interval over people"""
DIGITS = 3


def model_card(records: Sequence[RunRecord]) -> str:
    """Return the card of the unlearned model of a report; RunDirError where there is none."""
    rows = summarise(records)
    row = unlearned_row(rows, records)
    if row is None:
        raise RunDirError(
            f"{records[-1].path} holds no unlearned model: a model card is for runs of unlearn."
        )
    runs = of_label(records, row["method"])
    verdict = judge(rows, records, findings_of(records).gate)
    parts = [
        _head(row, runs),
        f"# An image classifier that was asked to forget {forgotten(runs)}",
        f"**{verdict.judgement}.** {verdict.sentence}",
        "## What was done",
        _list(f"**{name}.** {text}" for name, text in what_was_done(row, records)),
        "## Figures",
        _table(row),
        "Brackets are 95 % intervals: over seeds, or, of a single run, over people. The attack "
        "guesses whether an image was trained on; guessing is right half of the time.",
        "## What to hold against them",
        _list([*_guards(row, row_of(rows, ORIGINAL)), *verdict.caveats]),
        "## Limits",
        LIMITS,
        "## Licence and use",
        "For the owner of the model to fill in: the licence, what the model is for, and whom to "
        "ask. The data set and the forgotten people are not named on purpose.",
        *(f"Data: {credit}" for credit in _credits(runs)),
        f"Made by dlfd-dist {__version__}.",
    ]
    return "\n\n".join(parts) + "\n"


def _list(lines: Any) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _head(row: Row, runs: Sequence[RunRecord]) -> str:
    """Return the YAML head; values that were not measured are left out."""
    library = LIBRARIES.get((runs[0].config.get("model") or {}).get("library") or "")
    metrics = [
        {"type": kind, "name": title, "value": round(row[metric], DIGITS)}
        for title, metric, kind, _ in FIGURES
        if kind is not None and row[metric] is not None
    ]
    task = "image-classification"
    result = {
        "task": {"type": task, "name": "Image classification"},
        # Hugging Face asks for both; the name of a folder may be that of a person.
        "dataset": {"type": "private", "name": "data of the owner"},
        "metrics": metrics,
    }
    head = {
        **({} if library is None else {"library_name": library}),
        "pipeline_tag": task,
        "tags": [task, "machine-unlearning", "dlfd-dist"],
        "model-index": [{"name": "unlearned model", "results": [result]}],
    }
    return f"---\n# license: for the owner of the model to fill in\n{write_yaml(head)}---"


def _table(row: Row) -> str:
    lines = ["| figure | value | 95 % interval |", "| --- | --- | --- |"]
    for title, metric, _, people in FIGURES:
        if row[metric] is None:
            continue
        interval = row[f"{metric}_interval"] or (people and row[people])
        if metric == "forgetting_score":
            interval = forgetting_interval(row)
        between = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else DASH
        lines.append(f"| {title} | {row[metric]:.3f} | {between} |")
    return "\n".join(lines)


def _guards(row: Row, original: Row | None) -> list[str]:
    """Return the sentences of the guards that fired, each once."""
    fired = [text for texts in list(guards(row, original).values())[:2] for text in texts]
    return list(dict.fromkeys(text for text in fired if text != NO_GUARD)) or [NO_GUARD]


def _credits(runs: Sequence[RunRecord]) -> list[str]:
    return sorted({run.result["credit"] for run in runs if run.result.get("credit")})
