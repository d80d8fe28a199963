"""The tables of the page: which figures stand in which, and their cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .measured import CUSTOM
from .style import role_styles
from .tables import format_seeds, format_signed, format_value, marks
from .tuning import DASH

Row = dict[str, Any]
Column = tuple[str, str, int]
"""title, metric, digits; or SIGNED for a difference with its sign, TEXT for words"""
SIGNED, TEXT = -1, -2

MAIN_COLUMNS: tuple[Column, ...] = (
    ("NoMUS ↑", "nomus", 3),
    ("Test accuracy ↑", "test_accuracy", 3),
    ("Forgetting score ↓", "forgetting_score", 3),
    ("Attack accuracy", "mia_accuracy", 3),
    ("Attack that counted", "attack", TEXT),
    ("Attack AUC (of the confidence)", "mia_auc", 3),
    ("Gap to Retrained ↓", "gap_to_retrained", 3),
)
DETAILS: tuple[tuple[str, tuple[Column, ...]], ...] = (
    (
        "Four figures to read first",
        (
            ("Same answer on forget", "same_answers_forget", 3),
            ("Forget accuracy", "forget_accuracy", 3),
            ("Attack accuracy", "mia_accuracy", 3),
            ("Resurfaced", "resurfaced_accuracy", 3),
        ),
    ),
    (
        "Gap to Retrained, taken apart",
        (
            ("Retain acc.", "gap_retain", SIGNED),
            ("Forget acc.", "gap_forget", SIGNED),
            ("Test acc.", "gap_test", SIGNED),
            ("Attack acc.", "gap_attack", SIGNED),
            ("Divergence per image (bits)", "gap_js", SIGNED),
            ("Mean of absolute values", "gap_to_retrained", 3),
            ("SalUn's average gap", "salun_gap", 3),
            ("Tug-of-war ↑", "tug_of_war", 3),
        ),
    ),
    (
        "Did it act?",
        (
            ("Weights moved (share)", "weight_change", 4),
            ("Answers moved on retain (bits)", "divergence_retain", 4),
            ("on forget", "divergence_forget", 4),
            ("on val", "divergence_val", 4),
            ("Same answer on forget", "same_answers_forget", 3),
            ("Steps that synthesised", "synthesised_share", 2),
            ("Most frequent answer (share)", "alike_share", 3),
            ("Retrain-free divergence (bits)", "rf_js", 4),
            ("before unlearning", "rf_js_original", 4),
        ),
    ),
    (
        "Accuracy and attack",
        (
            ("Retain acc.", "retain_accuracy", 3),
            ("Forget acc.", "forget_accuracy", 3),
            ("Val acc.", "val_accuracy", 3),
            ("Attack acc.", "mia_accuracy", 3),
            ("TPR at 1 % FPR", "mia_tpr_at_1pct", 3),
            ("by correctness alone", "gap_attack", 3),
            ("Paper's attack", "mia_paper", 3),
            ("its floor (larger side)", "mia_paper_floor", 3),
            ("NoMUS by it, for published figures", "nomus_paper", 3),
            ("SalUn's attack", "salun_mia", 3),
            ("Tail share", "tail_share", 3),
            ("Relearn steps", "relearn_steps", 1),
            ("of Retrained", "relearn_steps_retrained", 1),
            ("Anamnesis index", "anamnesis_index", 2),
        ),
    ),
    (
        "Does it come back?",
        (
            ("Forget acc., delivered", "forget_accuracy", 3),
            ("after a mild update", "mild_forget_accuracy", 3),
            ("after a strong update", "strong_forget_accuracy", 3),
            ("Attack acc., delivered", "mia_accuracy", 3),
            ("after a mild update", "mild_attack_accuracy", 3),
            ("after a strong update", "strong_attack_accuracy", 3),
            ("Divergence from Retrained, mild (bits)", "mild_js_divergence", 4),
            ("strong (bits)", "strong_js_divergence", 4),
            ("Loss barrier to Original (nats)", "loss_barrier", 3),
        ),
    ),
    (
        "Features and cost",
        (
            ("Silhouette", "silhouette", 3),
            ("Linear probe", "linear_probe_accuracy", 3),
            ("Scatter ratio", "scatter_ratio", 3),
            ("Wall time (s)", "wall_seconds", 1),
            ("Device time (s)", "device_seconds", 1),
            ("Peak memory (MB)", "peak_memory_mb", 0),
        ),
    ),
)


def heads(rows: Sequence[Row], main: Row | None) -> list[dict[str, Any]]:
    """Return what stands left of every row: its name, colour, marks and seeds."""
    styles = role_styles([row["method"] for row in rows])
    return [
        {
            "method": row["method"],
            "color": styles[row["method"]][0],
            "main": row is main,
            "marks": marks(row),
            "seeds": format_seeds(row),
        }
        for row in rows
    ]


def measurements(rows: Sequence[Row], columns: Sequence[Column]) -> list[dict[str, Any]]:
    """Return title, metric and one cell per row of the metrics that at least one row has."""
    return [
        {"title": title, "metric": metric, "cells": [_cell(row, metric, digits) for row in rows]}
        for title, metric, digits in columns
        if any(row[metric] is not None for row in rows)
    ]


def _cell(row: Row, metric: str, digits: int) -> str:
    if digits == TEXT:
        return row[metric] or DASH
    if digits == SIGNED:
        return format_signed(row, metric)
    return format_value(row, metric, digits=digits)


def details(rows: Sequence[Row]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the tables below the main one; one that no row has a figure for is left out."""
    custom = tuple((m.partition(".")[2], m, 4) for m in (rows[0][CUSTOM] if rows else ()))
    tables = (*DETAILS, ("Metrics of other packages", custom))
    measured = [(title, measurements(rows, columns)) for title, columns in tables]
    return [(title, columns) for title, columns in measured if columns]
