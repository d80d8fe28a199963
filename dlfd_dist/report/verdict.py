"""What the numbers say in plain words, and what a careful reader must hold against them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..metrics import Estimate, attack_error
from ..metrics.people import MIN_PEOPLE
from ..metrics.without_retrained import GONE, NOT_SAID, NOT_SHOWN, STILL_THERE
from ..plain import band
from .contrasts import paired
from .gate import Gate
from .records import ORIGINAL, RETRAINED, RunRecord, of_label

Row = dict[str, Any]
Judged = tuple[str, str]
"""a judgement and its tone"""

_NBSP = "\u00a0"  # keeps a number on the line of its unit
NOT_MEASURED = "not measured"
ORIGINAL_NOT_ATTACKED = (
    "Original was not attacked, because it was trained without a forget request: whether the "
    "forgotten images stand out less than before cannot be told. Train it with the request "
    "(forget.request=FILE), or use 'dlfd compare', which attacks it too."
)


@dataclass(frozen=True)
class Verdict:
    """The head of a report."""

    judgement: str
    """a few words: how the forgetting score moved, beyond or within its uncertainty"""
    tone: str
    """good, unclear or bad"""
    sentence: str
    caveats: list[str]


def row_of(rows: Sequence[Row], label: str) -> Row | None:
    return next((row for row in rows if row["method"] == label), None)


def unlearned_row(rows: Sequence[Row], records: Sequence[RunRecord]) -> Row | None:
    """Return the row that the report is about: the last one made by an unlearning method."""
    labels = {record.label for record in records if record.unlearned}
    return next((row for row in reversed(rows) if row["method"] in labels), None)


def _number(counts: Sequence[int], noun: str, plural: str) -> str:
    low, high = min(counts), max(counts)
    if low != high:
        return f"{low} to {high} {plural}"
    return f"{low} {noun if low == 1 else plural}"


def forgotten(records: Sequence[RunRecord]) -> str:
    """Return who was forgotten, in numbers only, such as `12 people (65 to 128 images)`."""
    images = [r.result["num_images"]["forget"] for r in records]
    # Exactly, a person could be known by it.
    total = " or ".join(dict.fromkeys(band(number) for number in images)) + " images"
    people = [r.request.people for r in records if r.request]
    singles = [r.request.single_images for r in records if r.request]
    if not any(people):
        return total
    others = f" and {band(max(singles))} single images" if any(singles) else ""
    return f"{_number(people, 'person', 'people')}{others} ({total})"


def forgetting_interval(row: Row) -> list[float] | None:
    """Return the interval over seeds, or, of a single run, that of the attack over people."""
    if row["forgetting_score_interval"] is not None:
        return row["forgetting_score_interval"]
    if row["attack_interval"] is None:
        return None
    low, high = (bound - 0.5 for bound in row["attack_interval"])
    nearest = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
    return [nearest, max(abs(low), abs(high))]


def _overlap(first: list[float] | None, second: list[float] | None) -> bool:
    """Whether two intervals share a point; without both, nothing separates them."""
    return not (first and second) or (first[0] <= second[1] and second[0] <= first[1])


def _compare(rows: dict[str, Row | None], metric: str, fmt: str, scale: float, unit: str) -> str:
    """Return `now unit (Original x, Retrained y)` of one metric; the first of `rows` is now.

    A figure that was not measured is "not measured" now, and is left out of the others.
    """
    measured = {n: row[metric] for n, row in rows.items() if row and row[metric] is not None}
    shown = {name: f"{value * scale:{fmt}}" for name, value in measured.items()}
    subject, *others = rows
    now = shown[subject] + unit if subject in shown else NOT_MEASURED
    around = ", ".join(f"{name} {shown[name]}" for name in others if name in shown)
    return now + (f" ({around})" if around else "")


def _sentence(row: Row, rows: Sequence[Row], records: Sequence[RunRecord]) -> str:
    trio = {name: row_of(rows, name) for name in (row["method"], ORIGINAL, RETRAINED)}
    who = forgotten(of_label(records, row["method"]))
    asked = f"{row['method']} was asked to forget {who}"
    accuracy = _compare(trio, "test_accuracy", ".1f", 100, _NBSP + "%")
    if answers := _instead(row, trio[RETRAINED]):
        return f"{asked}: {answers}, and test accuracy is {accuracy}."
    points = " percentage points away from a coin flip"
    return (
        f"{asked}: an attack that tries to tell them from images "
        f"the model never saw is now {_compare(trio, 'forgetting_score', '.1f', 100, points)}, "
        f"while test accuracy is {accuracy} and NoMUS, which weighs both, is "
        f"{_compare(trio, 'nomus', '.3f', 1, '')}."
    )


INSTEAD = {
    "left_as_is": "Left the model as it is",
    "only_confidence": "Only the confidence was lowered",
    "alike": "The model answers everything alike",
}
"""What a method did in place of forgetting, by the flag of its row."""
VERDICTS = {
    GONE: ("Gone: no attack tells the forgotten people from unseen ones", "good"),
    NOT_SHOWN: ("Not shown: neither a trace of the forgotten people nor its absence", "unclear"),
    STILL_THERE: ("Still there: the forgotten people are told from unseen ones", "bad"),
}


def _attacked(row: Row | None) -> bool:
    """Whether there is a row and its model was attacked: one trained without a request was not."""
    return row is not None and row["forgetting_score"] is not None


def _judge(row: Row, original: Row | None, retrained: Row | None, gate: Gate | None) -> Judged:
    for flag, words in INSTEAD.items():
        if row[flag]:
            return words, "bad"
    if retrained is None and row["without_retrained"]:
        return VERDICTS[row["without_retrained"]["verdict"]]
    if original is None:
        return "No Original to compare with", "unclear"
    if not _attacked(original):
        return "Original was not attacked, so there is no score to compare with", "unclear"
    if gate is not None and not gate.is_open:
        return "It cannot be told whether anything was forgotten", "unclear"
    if original["floor"]:
        return "It cannot be told whether anything was forgotten", "unclear"
    before, after = original["forgetting_score"], row["forgetting_score"]
    if after >= before:
        return "The forgotten images stand out as much as before", "bad"
    if _overlap(forgetting_interval(row), forgetting_interval(original)):
        return "The forgotten images stand out less, but within the uncertainty", "unclear"
    return "The forgotten images stand out clearly less than before", "good"


WITHIN_LABELS = (
    "The labels of the forgotten images are distributed unlike those of the unseen ones: the "
    "attack is taken within labels, and each weighs the same on both sides."
)


def _alone_caveats(row: Row, retrained: Row | None) -> list[str]:
    if retrained is not None or not row["without_retrained"]:
        return []
    judged = row["without_retrained"]
    return [
        f"Without Retrained, the verdict is one of three: {judged['verdict']}. {judged['reason']}"
    ]


def _floor_caveats(row: Row, original: Row | None) -> list[str]:
    if original is not None and original["floor"]:
        return [
            "The attack does not succeed on Original either, so this comparison cannot show that "
            f"anything was forgotten. {original['floor_reason']}".strip()
        ]
    if not row["floor"]:
        return []
    meaning = (
        "that is what forgetting should look like, but a stronger attack may still find traces."
    )
    if original is None or any(row[flag] for flag in INSTEAD):
        meaning = "it finds nothing here, which says nothing about forgetting."
    caveat = f"The attack is at its floor on {row['method']}: {meaning} {row['floor_reason']}"
    return [caveat.strip()]


def _answers(row: Row, retrained: Row | None) -> str:
    """Say how a model answers the images of the request; nothing where that was not measured."""
    if row["same_answers_forget"] is None:
        return ""
    same = 100 * row["same_answers_forget"]
    text = f"answers {same:.1f} % of the images of the request as before"
    if row["forget_accuracy"] is not None:
        text += f", {100 * row['forget_accuracy']:.1f} % of its answers are right"
        if retrained is not None and retrained["forget_accuracy"] is not None:
            text += f" (Retrained: {100 * retrained['forget_accuracy']:.1f} %)"
    return text


def _instead(row: Row, retrained: Row | None) -> str:
    """Say first how a model answers that did something in place of forgetting."""
    answers = _answers(row, retrained) if any(row[flag] for flag in INSTEAD) else ""
    return answers and f"the model {answers}"


def _answer_caveats(row: Row, original: Row | None, retrained: Row | None) -> list[str]:
    """Say how the model answers images of the request, where the attack says nothing."""
    blind = row["floor"] or (original is not None and original["floor"])
    answers = _answers(row, retrained)
    if not answers or not blind or _instead(row, retrained):
        return []
    return [f"{row['method']} {answers}."]


def _missed(records: Sequence[RunRecord], subject: str, other: str) -> str:
    """Return which difference would have been missed; nothing where the error is unknown, or is
    zero because there are too few people for one.

    Over the seeds that both rows have; of a single run each over people, by the attack's accuracy,
    whose errors are added as if independent.
    """
    estimate = paired(records, subject, other, "forgetting_score")
    if estimate is None:
        own, reference = (of_label(records, name)[0].mia for name in (subject, other))
        if not (own.get("interval") and reference.get("interval")):
            return ""
        estimate = Estimate(0.0, attack_error(own, reference), math.inf)
    least = f"{estimate.detectable():.3f}"
    return (
        ""
        if least == "0.000"
        else f" A difference below {least} is missed in a fifth of the cases."
    )


def _overlap_caveats(
    row: Row, original: Row | None, retrained: Row | None, records: Sequence[RunRecord]
) -> list[str]:
    mine = forgetting_interval(row)
    kind = "over seeds" if row["forgetting_score_interval"] else "of the attack"
    caveats = []
    if (
        original is not None
        and _attacked(original)
        and not original["floor"]
        and _overlap(mine, forgetting_interval(original))
    ):
        caveats.append(
            f"The 95 % intervals {kind} of {row['method']} and Original overlap in the forgetting "
            "score: an improvement is not established." + _missed(records, row["method"], ORIGINAL)
        )
    if (
        retrained is not None
        and _attacked(retrained)
        and _overlap(mine, forgetting_interval(retrained))
    ):
        caveats.append(
            f"The 95 % intervals {kind} of {row['method']} and Retrained overlap in the forgetting "
            "score: no difference from retraining was found, which does not prove that there is "
            "none." + _missed(records, row["method"], RETRAINED)
        )
    return caveats


def _cost_caveats(row: Row, retrained: Row | None) -> list[str]:
    caveats = []
    if retrained is not None:
        mine, theirs = row["test_accuracy_interval"], retrained["test_accuracy_interval"]
        if mine and theirs and mine[1] < theirs[0]:
            points = 100 * (retrained["test_accuracy"] - row["test_accuracy"])
            caveats.append(
                f"The model pays for it: test accuracy is {points:.1f} percentage points below "
                "Retrained, more than the intervals explain."
            )
    return caveats


def _over_forgetting_caveats(row: Row, retrained: Row | None) -> list[str]:
    if not row["over_forgetting"]:
        return []
    caveat = (
        f"{row['method']} forgot too hard, which can itself betray the forgotten: "
        f"{row['over_forgetting_reason']}"
    )
    if retrained is not None and retrained["over_forgetting"]:
        caveat += " Retrained shows it as well, so these images may simply be hard ones."
    return [caveat]


RESURFACED_BY = 0.05
"""Accuracy on forgotten images that training on may bring back beyond what it brings Retrained."""


def _resurfacing_caveats(row: Row, retrained: Row | None) -> list[str]:
    """Say that the forgotten come back, where that is known; Retrained's own rise is allowed."""
    before, after = row["forget_accuracy"], row["resurfaced_accuracy"]
    if before is None or after is None:
        return []
    own, beside = 0.0, ""
    if retrained is not None and retrained["resurfaced_accuracy"] is not None:
        own = retrained["resurfaced_accuracy"] - retrained["forget_accuracy"]
        beside = f", Retrained's by {100 * own:+.1f} points"
    if after - before <= max(own, 0.0) + RESURFACED_BY:
        return []
    return [
        "The forgotten come back: when the model is trained on, on retained images alone, its "
        f"accuracy on the forgotten ones rises from {100 * before:.1f} to {100 * after:.1f} "
        f"%{beside}."
    ]


def _seed_caveats(rows: Sequence[Row]) -> list[str]:
    caveats = []
    if single := [row["method"] for row in rows if row["one_seed"]]:
        caveats.append(
            f"Only one seed was run of {', '.join(single)}: another seed may turn out differently, "
            "and the table can give no interval."
        )
    if alike := [row["method"] for row in rows if row["one_training"]]:
        caveats.append(
            f"All runs of {', '.join(alike)} unlearn one trained model: the intervals say nothing "
            "of another training."
        )
    return caveats


@dataclass(frozen=True)
class Alone:
    """What can be said without Retrained: the verdict, its figures, and what nobody can say."""

    verdict: str
    reason: str
    figures: list[tuple[str, str]]
    has_gap: bool = False
    """The run was measured against Retrained, whose own run is not in the report."""
    not_said: tuple[str, ...] = NOT_SAID


def alone(rows: Sequence[Row], records: Sequence[RunRecord]) -> Alone | None:
    """Return what is said of the unlearned model of a report that has no Retrained."""
    row = unlearned_row(rows, records)
    if row is None or row_of(rows, RETRAINED) is not None or not row["without_retrained"]:
        return None
    judged = row["without_retrained"]
    titles = {"accuracy": "Accuracy of the attack", "auc": "AUC of the attack"}
    figures = []
    few = bool(judged["num_people"]) and min(judged["num_people"]) < MIN_PEOPLE
    for name, figure in judged["figures"].items():
        if few:
            figures.append((titles[name], f"{figure['value']:.3f}; so few people give no interval"))
            continue
        low, high = figure["interval_90"]
        within = "lies" if figure["within"] else "does not lie"
        text = (
            f"{figure['value']:.3f}; its 90 % interval over people, {low:.3f} to {high:.3f}, "
            f"{within} within {judged['margin']:g} of guessing (two one-sided tests)"
        )
        figures.append((titles[name], text))
    if judged["num_people"]:
        own, unseen = judged["num_people"]
        figures.append(("People", f"{own} forgotten, {unseen} unseen"))
    if row["rf_js"] is not None:
        text = (
            f"{row['rf_js']:.4f} bits: how far the answers on forgotten images are, class by "
            "class, from those of the model before unlearning on images it never saw; 0 is alike"
        )
        if row["rf_js_original"] is not None:
            text += f"; before unlearning it was {row['rf_js_original']:.4f} bits"
        figures.append(("Retrain-free divergence", text))
    has_gap = row["gap_to_retrained"] is not None
    return Alone(judged["verdict"], judged["reason"], figures, has_gap)


def judge(rows: Sequence[Row], records: Sequence[RunRecord], gate: Gate | None = None) -> Verdict:
    """Return the verdict on the unlearned model of a report, computed from its table rows."""
    row = unlearned_row(rows, records)
    if row is None or row["forgetting_score"] is None:
        names = ", ".join(r["method"] for r in rows)
        text = f"This report holds no unlearned model; it describes {names}."
        return Verdict("Nothing was unlearned", "unclear", text, _seed_caveats(rows))
    original, retrained = row_of(rows, ORIGINAL), row_of(rows, RETRAINED)
    caveats = [
        *([gate.sentence] if gate is not None and not gate.is_open else []),
        *[row[f"{flag}_reason"] for flag in INSTEAD if row[flag]],
        *_answer_caveats(row, original, retrained),
        *_alone_caveats(row, retrained),
        *([ORIGINAL_NOT_ATTACKED] if original is not None and not _attacked(original) else []),
        *_floor_caveats(row, original),
        *([WITHIN_LABELS] if row["within_labels"] else []),
        *_overlap_caveats(row, original, retrained, records),
        *_cost_caveats(row, retrained),
        *_over_forgetting_caveats(row, retrained),
        *_resurfacing_caveats(row, retrained),
        *_seed_caveats([r for r in (row, original, retrained) if r is not None]),
    ]
    judged = _judge(row, original, retrained, gate)
    return Verdict(*judged, _sentence(row, rows, records), caveats)
