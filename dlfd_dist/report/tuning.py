"""What a comparison's tuning chose, in words: for the table, the page and the console.

`tuning` is that of a comparison (`Comparison.tuning`); None of one that was not tuned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..plain import counted
from .records import label_of

Tuning = Mapping[str, Any]
DASH = "–"
UNEQUAL_STEPS = (
    "The methods took unequally many optimiser steps: a difference between them may be one of "
    "steps."
)


def tuning_lines(tuning: Tuning | None) -> list[str]:
    """Return how the settings of the methods were come by, and which methods gained nothing."""
    if tuning is None:
        return ["Not tuned: every method with its default settings, except those the command set."]
    # Comparisons of earlier versions tuned on the people that they forget.
    whom = (
        "other people than the comparison forgets" if tuning.get("draws")
        else "the people whom the comparison forgets"
    )  # fmt: skip
    head = (
        f"Tuned: {counted(tuning['trials'], 'trial')} per method on {tuning['objective']}, "
        f"each judged on {len(tuning['pairs'])} of the seeds, on {whom}."
    )
    names = [label_of(name) for name, record in tuning["methods"].items() if record.get("no_gain")]
    return [head, *([no_gain_line(names)] if names else [])]


def no_gain_line(names: Sequence[str]) -> str:
    """Return the sentence for methods with no trial worth choosing."""
    return (
        f"No trial of {', '.join(names)} did better than leaving the model as it is: own settings "
        "were taken."
    )


def steps_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return which methods took how many optimiser steps, and whether they were equally many.

    Nothing where no run says how many it took, as those of earlier versions.
    """
    names: dict[tuple[int, ...], list[str]] = {}
    for row in rows:
        if row["optimiser_steps"]:
            names.setdefault(tuple(row["optimiser_steps"]), []).append(row["method"])
    without = names.pop((0,), [])
    lines = [f"{_ends(counts)} optimiser steps in all: {', '.join(of)}."
             for counts, of in names.items()]  # fmt: skip
    lines += [f"No optimiser steps: {', '.join(without)}."] if without and lines else []
    return [*lines, *([UNEQUAL_STEPS] if len(names) > 1 else [])]


def _ends(counts: Sequence[int]) -> str:
    return str(counts[0]) if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"


def tuned_rows(tuning: Tuning | None) -> list[dict[str, Any]]:
    """Return per method what tuning chose, from which range, and what it gained on validation.

    A method for which nothing was chosen has no settings, and a `reason`.
    """
    return [
        {
            "label": label_of(name),
            "settings": [
                (setting, number_text(value, ".3g"), record["searched"].get(setting, ""))
                for setting, value in (record["settings"] or {}).items()
            ],
            "reason": _reason(record),
            "value": number_text(record["value"], ".3f"),
            "default_value": number_text(record["default_value"], ".3f"),
            "untouched_value": number_text(record.get("untouched_value"), ".3f"),
            "left_as_is": number_text(record.get("left_as_is"), ".0f"),
            "failed": record["failed"],
        }
        for name, record in (tuning["methods"] if tuning else {}).items()
    ]


def _reason(record: Mapping[str, Any]) -> str:
    if record["settings"] is not None:
        return ""
    if record.get("no_gain"):
        return "its own: no trial did better than leaving the model as it is"
    return "no trial finished"


def chosen_lines(tuning: Tuning | None) -> Iterator[str]:
    """Yield a line per tuned method: what was chosen, and what that gained on val."""
    for method, record in (tuning["methods"] if tuning else {}).items():
        number = len(record["trials"])
        if record["settings"] is None and not record["no_gain"]:
            yield f"tuned {method}: none of {number} trials finished"
            continue
        values = (
            f"({tuning['objective'] if tuning else ''} {_value(record['value'])}, its own settings "
            f"{_value(record['default_value'])}, the model as it was "
            f"{_value(record['untouched_value'])}, best of {number})"
        )
        if record["settings"] is None:
            yield (
                f"tuned {method}: no trial did better than leaving the model as it is, its own "
                f"settings were taken {values}"
            )
            continue
        settings = " ".join(f"{key}={_short(value)}" for key, value in record["settings"].items())
        yield f"tuned {method}: {settings} {values}"


def _value(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def number_text(value: Any, form: str) -> str:
    """Return a number in a form, other values as they are, a dash for none."""
    if value is None:
        return DASH
    return f"{value:{form}}" if isinstance(value, float) else str(value)
