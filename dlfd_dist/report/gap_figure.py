"""The figure of a comparison that is understood at once: gap to Retrained against cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator

from .figures import errors_of
from .records import ORIGINAL, RETRAINED
from .style import INK, legend_above, panels, role_styles, styled

Row = dict[str, Any]

LEVELS = (
    (ORIGINAL, "--", "doing nothing (Original)"),
    (RETRAINED, ":", "Retrained with another seed"),
)


def gap_and_cost(rows: Sequence[Row]) -> list[Row]:
    """Return the methods whose gap and cost are known, where Retrained's cost is known too."""
    if not any(row["method"] == RETRAINED and row["device_seconds"] for row in rows):
        return []
    return [
        row
        for row in rows
        if row["unlearned"] and row["gap_to_retrained"] is not None and row["device_seconds"]
    ]


@styled
def gap_against_cost(rows: Sequence[Row], *, narrow: bool = False) -> Figure:
    """Draw the gap to Retrained over device time as a share of training Retrained.

    Down is nearer to the model that never saw the forgotten people, left is cheaper. Bars are the
    intervals of the rows; the dashed line is the gap of Original, which costs nothing, the dotted
    one that of Retrained to itself with other train seeds.
    """
    shown = gap_and_cost(rows)
    row_of = {row["method"]: row for row in rows}
    whole = row_of[RETRAINED]["device_seconds"]
    styles = role_styles([row["method"] for row in rows])
    fig, (ax,) = panels(1, narrow=narrow, height=3.6)
    fig.set_size_inches(3.7 if narrow else 7.2, 4.1)
    ax.set_xscale("log")
    handles = []
    for row in shown:
        color, marker = styles[row["method"]]
        cost = errors_of(row, "device_seconds")
        ax.errorbar(
            100 * row["device_seconds"] / whole, row["gap_to_retrained"],
            # An interval that reaches zero has no end on a logarithmic axis.
            xerr=cost and [
                [100 * min(cost[0][0], 0.9 * row["device_seconds"]) / whole],
                [100 * cost[1][0] / whole],
            ],
            yerr=errors_of(row, "gap_to_retrained"),
            fmt="", ls="", marker=marker, color=color, markersize=9, elinewidth=1.1, capsize=3,
            markeredgecolor="white", label=row["method"], zorder=4,
        )  # fmt: skip
        handles.append(Line2D([], [], marker=marker, ls="", color=color, ms=8, label=row["method"]))
    color, marker = styles[RETRAINED]
    ax.plot(100, 0, marker=marker, ls="", color=color, markersize=9, clip_on=False, zorder=5)
    handles.append(Line2D([], [], marker=marker, ls="", color=color, ms=8, label=RETRAINED))
    for label, style, said in LEVELS:
        level = row_of.get(label, {}).get("gap_to_retrained")
        if level is not None:
            ax.axhline(level, color=INK, ls=style, lw=1)
            handles.append(Line2D([], [], color=INK, ls=style, lw=1, label=said))
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
    ax.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    ax.set_xlabel("cost: device time as a share of training Retrained")
    ax.set_ylabel("gap to Retrained (0 is best)")
    legend_above(fig, handles, columns=2 if narrow else min(5, len(handles)))
    return fig
