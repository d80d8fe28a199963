"""Records of runs with one thing changed, for the tests of the report."""

from __future__ import annotations

import dataclasses

from dlfd_dist.report.records import of_label

ALL_METHODS = ("dlfd", "dlfd_official", "finetune")

TUNING = {
    "trials": 8,
    "seed": 0,
    "pairs": [[4, 4], [5, 5]],
    "draws": [],
    "objective": "validation NoMUS",
    "methods": {
        "dlfd": {
            "settings": {"method.lr": 0.0123456, "method.epochs": 3},
            "no_gain": False,
            "untouched_value": 0.78,
            "left_as_is": 2,
            "value": 0.8125,
            "default_value": 0.79,
            "searched": {"method.lr": "0.0001 to 0.03 (log)", "method.epochs": "1, 2, 3, 4"},
            "failed": 1,
            "trials": [],
        },
        "ssd": {
            "settings": None, "no_gain": False, "value": None, "default_value": None,
            "untouched_value": 0.78, "left_as_is": 0, "searched": {}, "failed": 8, "trials": [],
        },
    },
}  # fmt: skip


def first(records, label):
    return of_label(records, label)[0]


def with_result(record, **changes):
    return dataclasses.replace(record, result={**record.result, **changes})


def with_attack(record, accuracy: float, **changes):
    """Return the record with another attack accuracy, its interval 0.01 to each side."""
    mia = {**record.mia, "accuracy": accuracy, "interval": [accuracy - 0.01, accuracy + 0.01]}
    return with_result(record, mia={**mia, **changes}, forgetting_score=abs(accuracy - 0.5))


def forgotten_too_hard(record):
    reason = "12.0 % of the forget losses lie in the highest 5.0 % of all losses."
    return with_result(record, over_forgetting={"flag": True, "tail_share": 0.12, "reason": reason})
