"""Figures of a search: trial curves with their stops, front, importance, parallel coordinates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .style import FORGET, INK, MUTED, UNSEEN, legend_above, panels, styled

CHOSEN, OTHER = "#0067ad", "#9ca3af"
Results = Mapping[str, Any]


def _done(results: Results) -> list[Mapping[str, Any]]:
    return [row for row in results["rows"] if row["state"] == "finished"]


@styled
def trial_curves(
    results: Results, curves: Mapping[int, Sequence[Mapping[str, Any]]], *, narrow: bool = False
) -> Figure:
    """Draw validation NoMUS over steps, a line per trial; a cross where one was stopped early."""
    fig, (ax,) = panels(1, narrow=narrow, height=3.2)
    for row in results["rows"]:
        probes = curves.get(row["trial"], [])
        if not probes:
            continue
        is_best = row["trial"] == results["winner"]
        color, width = (CHOSEN, 2.2) if is_best else (OTHER, 1.0)
        x, y = [p["step"] for p in probes], [p["nomus"] for p in probes]
        ax.plot(x, y, color=color, linewidth=width, zorder=3 if is_best else 2)
        if row["state"] == "stopped":
            ax.plot(x[-1], y[-1], marker="x", color=FORGET, markersize=6, zorder=4)
    ax.set_xlabel("step")
    ax.set_ylabel("validation NoMUS")
    handles = [
        Line2D([], [], color=CHOSEN, linewidth=2.2, label="chosen trial"),
        Line2D([], [], color=OTHER, label="other trials"),
        Line2D([], [], color=FORGET, marker="x", linestyle="", label="stopped early"),
    ]
    legend_above(fig, handles, columns=3)
    return fig


@styled
def pareto_front(results: Results, *, narrow: bool = False) -> Figure:
    """Draw accuracy against forgetting score on val, with standard errors, and the front."""
    fig, (ax,) = panels(1, narrow=narrow, height=3.2)
    done, front = _done(results), set(results["front"])
    for row in done:
        is_best, on_front = row["trial"] == results["winner"], row["trial"] in front
        color = CHOSEN if is_best else UNSEEN if on_front else OTHER
        ax.errorbar(
            row["forgetting_score"], row["accuracy"], xerr=row["forgetting_score_se"],
            color=color, marker="o" if on_front else ".", markersize=6 if on_front else 5,
            elinewidth=0.7, zorder=3 if on_front else 2,
        )  # fmt: skip
        ax.annotate(
            str(row["trial"]), (row["forgetting_score"], row["accuracy"]), xytext=(4, 4),
            textcoords="offset points", fontsize=7.5, color=INK if on_front else MUTED,
        )  # fmt: skip
    line = sorted((r["forgetting_score"], r["accuracy"]) for r in done if r["trial"] in front)
    if line:
        ax.step(*zip(*line, strict=True), where="post", color=UNSEEN, linewidth=1.0, zorder=1)
    ax.set_xlabel("forgetting score on val (lower is better)")
    ax.set_ylabel("validation accuracy")
    handles = [
        Line2D([], [], color=CHOSEN, marker="o", linestyle="", label="chosen trial"),
        Line2D([], [], color=UNSEEN, marker="o", label="front"),
        Line2D([], [], color=OTHER, marker=".", linestyle="", label="other trials"),
    ]
    legend_above(fig, handles, columns=3)
    return fig


@styled
def importances(results: Results, *, narrow: bool = False) -> Figure:
    """Draw the share of each setting in the variance of the objective."""
    shares = sorted(results["importance"].items(), key=lambda pair: pair[1])
    fig, (ax,) = panels(1, narrow=narrow, height=0.6 + 0.24 * len(shares))
    ax.barh([name for name, _ in shares], [100 * share for _, share in shares], color=CHOSEN)
    ax.set_xlabel("share of the variance (%)")
    ax.grid(axis="y", visible=False)
    return fig


@styled
def parallel_coordinates(results: Results, *, narrow: bool = False) -> Figure:
    """Draw every finished trial as a line through its settings, each scaled to its own range."""
    done = sorted(_done(results), key=lambda row: row["trial"] == results["winner"])
    names = list(results["space"])
    fig, (ax,) = panels(1, narrow=narrow, height=3.4)
    places = {name: _places(name, done, results) for name in names}
    for row in done:
        is_best = row["trial"] == results["winner"]
        ax.plot(
            [places[name][row["trial"]] for name in names], color=CHOSEN if is_best else OTHER,
            linewidth=2.2 if is_best else 0.8, alpha=1.0 if is_best else 0.7,
        )  # fmt: skip
    ax.set_xticks(
        range(len(names)), [name.split(".")[1] for name in names], rotation=40, ha="right"
    )
    ax.set_yticks([0, 1], ["smallest\nor first", "largest\nor last"])
    return fig


def _places(name: str, rows: Sequence[Mapping[str, Any]], results: Results) -> dict[int, float]:
    """Return where each trial's value stands between the smallest and the largest, 0..1."""
    values = [row["settings"][name] for row in rows]
    if any(isinstance(value, str | bool) or value is None for value in values):
        order = sorted(set(values), key=str)
        numbers = [float(order.index(value)) for value in values]
    elif name in results["log"] and min(values) > 0:
        numbers = [math.log(value) for value in values]
    else:
        numbers = [float(value) for value in values]
    low, span = min(numbers), max(np.ptp(numbers), 1e-12)
    return {row["trial"]: (n - low) / span for row, n in zip(rows, numbers, strict=True)}
