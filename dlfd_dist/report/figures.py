"""Figures drawn from numbers: losses, probes and separation over steps, trade-off, training.

Every function returns a figure of its own; `narrow=True` puts panels below each other for a phone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from .records import RunRecord, of_label
from .style import FORGET, INK, MUTED, UNSEEN, legend_above, panels, role_styles, styled
from .summary import labels_in_order

# Beyond this ratio of large to small losses a linear axis shows one bar and nothing else.
_LOG_FROM_RATIO = 30.0
_SMALLEST_LOSS = 1e-5
# With more methods than this, single runs are left out where their mean is drawn.
_MAX_WITH_SINGLES = 6
_MARKS_PER_LINE = 8


def loss_edges(losses: np.ndarray, num_bins: int) -> tuple[np.ndarray, bool]:
    """Return bin edges that show `losses` well, and whether they are logarithmic."""
    floored = np.maximum(losses, _SMALLEST_LOSS)
    low, high = np.quantile(floored, [0.005, 0.995])
    low, high = float(low), max(float(high), float(low) * 1.01)
    if np.quantile(floored, 0.95) / np.quantile(floored, 0.05) > _LOG_FROM_RATIO:
        return np.geomspace(low, high, num_bins + 1), True
    return np.linspace(0.0, high, num_bins + 1), False


def _histogram(ax: Axes, losses: np.ndarray, edges: np.ndarray, color: str, dashed: bool) -> None:
    values = np.clip(losses, edges[0], edges[-1])
    weights = np.full(len(values), 100.0 / len(values))
    style: dict[str, Any] = {"bins": edges, "weights": weights, "color": color}
    ax.hist(values, histtype="stepfilled", alpha=0.22, **style)
    line = "--" if dashed else "-"
    ax.hist(values, histtype="step", linewidth=1.5, linestyle=line, **style)
    ax.axvline(np.median(values), color=color, linewidth=1.2, linestyle=":")


def _attack_line(record: RunRecord) -> str:
    if not record.mia:
        return ""
    accuracy, auc = record.mia["accuracy"], record.mia["auc"]
    return f"attack right {100 * accuracy:.1f} %, AUC {auc:.2f}"


@styled
def loss_distributions(records: Sequence[RunRecord], *, narrow: bool = False) -> Figure:
    """Draw the losses on forgotten and on unseen images, a panel per record (paper's figure 5)."""
    losses = [(r.require("forget.loss"), r.require("test.loss")) for r in records]
    parts = [part for pair in losses for part in pair]
    num_bins = int(np.clip(2 * np.sqrt(min(map(len, parts))), 8, 32))
    edges, is_log = loss_edges(np.concatenate(parts), num_bins)
    fig, axes = panels(len(records), narrow=narrow, height=2.5, share_x=True, share_y=True)
    for ax, record, (forget, unseen) in zip(axes, records, losses, strict=True):
        _histogram(ax, unseen, edges, UNSEEN, dashed=True)
        _histogram(ax, forget, edges, FORGET, dashed=False)
        ax.set_title(record.label, pad=18)
        ax.text(0, 1.03, _attack_line(record), transform=ax.transAxes, color=MUTED, fontsize=8.5)
        ax.set_xscale("log" if is_log else "linear")
        if ax is axes[-1] or not narrow:
            ax.set_xlabel("cross-entropy loss" + (" (log scale)" if is_log else ""))
    for ax in axes if narrow else axes[:1]:
        ax.set_ylabel("share of images (%)")
    handles = [
        Patch(facecolor=FORGET + "38", edgecolor=FORGET, label="forgotten images"),
        Patch(facecolor=UNSEEN + "38", edgecolor=UNSEEN, ls="--", label="images never seen (test)"),
        Line2D([], [], color=MUTED, linestyle=":", label="median"),
    ]
    legend_above(fig, handles, columns=2 if narrow else 3)
    return fig


def synthesis_spans(record: RunRecord) -> list[tuple[int, int]]:
    """Return the (first, last) steps between which the dynamic strategy let synthesis act."""
    spans: list[tuple[int, int]] = []
    for probe, following in zip(record.probes, record.probes[1:], strict=False):
        if not probe.get("synthesis"):
            continue
        start, end = probe["step"], following["step"]
        if spans and spans[-1][1] == start:
            start = spans.pop()[0]
        spans.append((start, end))
    return spans


def synthesis_switches(record: RunRecord) -> list[tuple[dict[str, Any], bool]]:
    """Return the probes at which synthesis was switched, each with whether it was switched on."""
    return [
        (now, bool(now["synthesis"]))
        for before, now in zip(record.probes, record.probes[1:], strict=False)
        if "synthesis" in before and "synthesis" in now and before["synthesis"] != now["synthesis"]
    ]


def _curve(
    ax: Axes,
    runs: Sequence[list[dict[str, Any]]],
    x: str,
    y: str,
    style: tuple[str, Any],
    *,
    singles: bool = True,
) -> None:
    """Draw one line per run, thin when there are several, and then their mean in bold.

    singles : whether the thin lines are wanted beside a mean
    """
    color, marker = style
    bold = {"color": color, "marker": marker, "markersize": 4.5, "linewidth": 1.9}
    lines = [[(e[x], e[y]) for e in run if e.get(y) is not None] for run in runs]
    lines = [line for line in lines if line]
    if len(lines) == 1:
        ax.plot(*zip(*lines[0], strict=True), markevery=_every(lines[0]), **bold)
        return
    has_mean = len({tuple(point[0] for point in line) for line in lines}) == 1
    if singles or not has_mean:
        for line in lines:
            ax.plot(*zip(*line, strict=True), color=color, linewidth=0.8, alpha=0.45)
    if has_mean:
        mean = np.mean(lines, axis=0)
        ax.plot(*mean.T, markevery=_every(mean), **bold)


def _every(points: Sequence[Any] | np.ndarray) -> int:
    return max(1, len(points) // _MARKS_PER_LINE)


def _line_handle(label: str, style: tuple[str, Any]) -> Line2D:
    return Line2D([], [], color=style[0], marker=style[1], markersize=4.5, lw=1.9, label=label)


def _mark_synthesis(axes: Sequence[Axes], runs: Sequence[RunRecord], color: str) -> None:
    for run in runs:
        for ax in axes:
            for start, end in synthesis_spans(run):
                ax.axvspan(start, end, color=color, alpha=0.18 / len(runs), linewidth=0, zorder=0)
        for probe, is_on in synthesis_switches(run):
            face = color if is_on else "white"
            axes[0].plot(
                probe["step"], probe["forgetting_score"], "o", markersize=6, color=color,
                markerfacecolor=face, markeredgewidth=1.4, zorder=5,
            )  # fmt: skip


def _delivered(run: RunRecord) -> list[dict[str, Any]]:
    step = run.result.get("selected_step")
    return [probe for probe in run.probes if step is not None and probe["step"] == step][:1]


def _mark_delivered(ax: Axes, runs: Sequence[RunRecord], color: str) -> None:
    for probe in (probe for run in runs for probe in _delivered(run)):
        ax.plot(
            probe["step"], probe["val_accuracy"], "*", markersize=11, color=color,
            markeredgecolor="white", zorder=6,
        )  # fmt: skip


def _threshold(records: Sequence[RunRecord]) -> float | None:
    thresholds = {
        r.config["method"]["forget_threshold"]
        for r in records
        if any("synthesis" in probe for probe in r.probes)
        and "forget_threshold" in r.config.get("method", {})
    }
    return thresholds.pop() if len(thresholds) == 1 else None


def _trajectory_legend(
    styles: dict[str, tuple[str, Any]], threshold: float | None, color: str | None
) -> list:
    handles: list[Any] = [_line_handle(name, style) for name, style in styles.items()]
    if color is not None:
        ring: dict[str, Any] = {"marker": "o", "linestyle": "", "color": color, "markersize": 6}
        handles += [
            Patch(facecolor=color, alpha=0.2, label="synthesis acts"),
            Line2D([], [], markerfacecolor="white", label="switched off", **ring),
            Line2D([], [], label="switched on", **ring),
        ]
    if threshold is not None:
        handles.append(Line2D([], [], color=INK, ls="--", lw=1, label=f"threshold {threshold:g}"))
    return handles


@styled
def trajectories(records: Sequence[RunRecord], *, narrow: bool = False) -> Figure:
    """Draw forgetting score and validation accuracy over steps, and when synthesis acted.

    A star marks the step whose weights were delivered, where a probe chose it.
    """
    probed = [record for record in records if len(record.probes) > 1]
    labels = labels_in_order(probed)
    styles = role_styles(labels)
    fig, axes = panels(2, narrow=narrow, height=2.7, share_x=True)
    shaded = None
    for label in labels:
        runs, color = of_label(probed, label), styles[label][0]
        switched = any(synthesis_spans(run) for run in runs)
        if switched:
            # Its rings stand on single runs, and a marker of its own would look like one.
            styles[label] = (color, "")
            shaded = shaded or color
            _mark_synthesis(axes, runs, color)
        singles = switched or len(labels) <= _MAX_WITH_SINGLES
        for ax, metric in zip(axes, ("forgetting_score", "val_accuracy"), strict=True):
            _curve(ax, [r.probes for r in runs], "step", metric, styles[label], singles=singles)
        _mark_delivered(axes[1], runs, color)
    threshold = _threshold(probed)
    handles = _trajectory_legend({name: styles[name] for name in labels}, threshold, shaded)
    if any(_delivered(run) for run in probed):
        handles.append(Line2D([], [], marker="*", ls="", color=MUTED, ms=10, label="delivered"))
    if threshold is not None:
        axes[0].axhline(threshold, color=INK, linestyle="--", linewidth=1)
    axes[0].set_title("Forgetting score (lower is better)")
    axes[0].set_ylim(bottom=0)
    axes[1].set_title("Validation accuracy (higher is better)")
    for ax in axes:
        ax.set_xlabel("unlearning step")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.margins(x=0.02)
    legend_above(fig, handles, columns=2 if narrow else min(7, len(handles)))
    return fig


def _iso_lines(ax: Axes) -> None:
    """Draw lines of equal NoMUS, accuracy = 2 NoMUS - 1 + 2 forgetting score, across the axes."""
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    lowest, highest = (bottom + 1 - 2 * right) / 2, (top + 1 - 2 * left) / 2
    step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 1.0) if (highest - lowest) / s <= 9)
    for nomus in np.arange(np.ceil(lowest / step) * step, highest, step):
        offset = 2 * nomus - 1
        ax.plot([left, right], [offset + 2 * left, offset + 2 * right], color="#d1d5db", lw=0.8)
        x = min(right, (top - offset) / 2)
        if x - left > 0.08 * (right - left):
            y = offset + 2 * x
            ax.annotate(
                f"{nomus:.2f}", (x, y), xytext=(-3, -3), textcoords="offset points", ha="right",
                va="top", fontsize=7, color="#9ca3af",
            )  # fmt: skip
    ax.set_xlim(left, right)
    ax.set_ylim(bottom, top)


def errors_of(row: dict[str, Any], metric: str) -> list[list[float]] | None:
    """Return the lengths of a row's error bar below and above its mean, None without interval."""
    interval = row[f"{metric}_interval"]
    return interval and [[row[metric] - interval[0]], [interval[1] - row[metric]]]


def in_trade_off(row: dict[str, Any]) -> bool:
    """Whether both figures of the trade-off were measured in a row."""
    return row["forgetting_score"] is not None and row["test_accuracy"] is not None


@styled
def trade_off(
    rows: Sequence[dict[str, Any]], records: Sequence[RunRecord] = (), *, narrow: bool = False
) -> Figure:
    """Draw test accuracy against forgetting score per table row, over lines of equal NoMUS.

    Bars are the intervals of the rows; `records`, when given, add one small mark per run.
    """
    shown = [row for row in rows if in_trade_off(row)]
    styles = role_styles([row["method"] for row in shown])
    fig, (ax,) = panels(1, narrow=narrow, height=3.6)
    fig.set_size_inches(3.7 if narrow else 7.2, 4.1)
    handles = []
    for row in shown:
        color, marker = styles[row["method"]]
        for run in of_label(records, row["method"]):
            score, accuracy = run.value("forgetting_score"), run.value("test_accuracy")
            if score is None or accuracy is None:
                continue
            ax.plot(
                score, accuracy, marker=marker, color=color, markersize=3.5, alpha=0.45,
                markeredgewidth=0,
            )  # fmt: skip
        ax.errorbar(
            row["forgetting_score"], row["test_accuracy"],
            xerr=errors_of(row, "forgetting_score"), yerr=errors_of(row, "test_accuracy"),
            fmt="", ls="", marker=marker, color=color, markersize=9, elinewidth=1.3, capsize=3,
            markeredgecolor="white", label=row["method"], zorder=4,
        )  # fmt: skip
        handles.append(Line2D([], [], marker=marker, ls="", color=color, ms=8, label=row["method"]))
    ax.set_xlim(left=-0.04 * ax.get_xlim()[1])
    ax.grid(False)
    _iso_lines(ax)
    ax.set_xlabel("forgetting score (0 is best)")
    ax.set_ylabel("test accuracy (1 is best)")
    ax.xaxis.set_major_locator(MaxNLocator(5))
    handles.append(Line2D([], [], color="#d1d5db", lw=1, label="equal NoMUS"))
    legend_above(fig, handles, columns=2 if narrow else min(6, len(handles)))
    return fig


SEPARATION_PANELS = (
    ("Silhouette", "silhouette"),
    ("Linear probe accuracy", "linear_probe_accuracy"),
    ("Between / within scatter", "scatter_ratio"),
)


@styled
def separation_curves(records: Sequence[RunRecord], *, narrow: bool = False) -> Figure:
    """Draw the class separation of the features on val over steps, one colour per method."""
    probed = [record for record in records if has_separation(record)]
    labels = labels_in_order(probed)
    styles = role_styles(labels)
    few = len(labels) <= _MAX_WITH_SINGLES
    fig, axes = panels(len(SEPARATION_PANELS), narrow=narrow, height=2.5, share_x=True)
    for label in labels:
        runs = [record.probes for record in of_label(probed, label)]
        for ax, (_, metric) in zip(axes, SEPARATION_PANELS, strict=True):
            _curve(ax, runs, "step", metric, styles[label], singles=few)
    for ax, (title, _) in zip(axes, SEPARATION_PANELS, strict=True):
        ax.set_title(title)
        ax.set_xlabel("unlearning step")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.margins(x=0.02)
    handles = [_line_handle(name, styles[name]) for name in labels]
    legend_above(fig, handles, columns=2 if narrow else min(7, len(handles)))
    return fig


def has_separation(record: RunRecord) -> bool:
    """Whether at least two probes of a run recorded the class separation."""
    names = [metric for _, metric in SEPARATION_PANELS]
    return sum(any(probe.get(n) is not None for n in names) for probe in record.probes) > 1


@styled
def training_curves(records: Sequence[RunRecord], *, narrow: bool = False) -> Figure:
    """Draw training loss and validation accuracy over epochs, one colour per model."""
    trained = [record for record in records if record.epochs]
    labels = labels_in_order(trained)
    styles = role_styles(labels)
    fig, axes = panels(2, narrow=narrow, height=2.3)
    for label in labels:
        runs = [record.epochs for record in of_label(trained, label)]
        for ax, metric in zip(axes, ("train_loss", "val_accuracy"), strict=True):
            _curve(ax, runs, "epoch", metric, styles[label])
    for ax, title in zip(axes, ("Training loss", "Validation accuracy"), strict=True):
        ax.set_title(title)
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    handles = [_line_handle(name, styles[name]) for name in labels]
    legend_above(fig, handles, columns=2 if narrow else min(6, len(handles)))
    return fig
