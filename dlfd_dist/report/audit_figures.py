"""Figures of an audit: ROC curves on logarithmic axes, and how exposed people are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .style import MUTED, legend_above, panels, role_styles, styled

Worlds = Mapping[str, Mapping[str, Any]]
"""By label, as audit.json holds them."""
_DASHED = ("original", "control")


@styled
def roc_curves(worlds: Worlds, *, narrow: bool = False) -> Figure:
    """Draw every world's ROC against Retrained, from the smallest rate that can be resolved."""
    fig, (ax,) = panels(1, narrow=narrow, height=3.4)
    styles = role_styles(list(worlds))
    rocs = {label: world["roc"] for label, world in worlds.items()}
    curves = {label: roc for label, roc in rocs.items() if len(roc["fpr"]) > 1}
    lowest = min((1 / world["ulira"]["num_scores"] for world in worlds.values() if world["ulira"]),
                 default=1e-3)  # fmt: skip
    ax.plot([lowest, 1], [lowest, 1], color=MUTED, linewidth=1, linestyle=":")
    for label, curve in curves.items():
        fpr, tpr = (np.maximum(curve[name], lowest) for name in ("fpr", "tpr"))
        dash = "--" if worlds[label]["role"] in _DASHED else "-"
        ax.step(fpr, tpr, where="post", color=styles[label][0], linestyle=dash, linewidth=1.7)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(lowest, 1)
    ax.set_ylim(lowest, 1)
    ax.set_xlabel("retrained models accused falsely (FPR)")
    ax.set_ylabel("unlearned models told (TPR)")
    handles = [
        Line2D([], [], color=styles[label][0], linestyle="--" if world["role"] in _DASHED else "-",
               label=label)
        for label, world in worlds.items() if world["ulira"]
    ]  # fmt: skip
    handles.append(Line2D([], [], color=MUTED, linestyle=":", label="chance"))
    legend_above(fig, handles, columns=1 if narrow else 3)
    return fig


@styled
def exposure_histograms(worlds: Worlds, *, narrow: bool = False) -> Figure:
    """Draw how many people are told how well, a panel per world, on one scale."""
    shown = {label: world for label, world in worlds.items() if world["person_aucs"]}
    styles = role_styles(list(worlds))
    fig, axes = panels(len(shown), narrow=narrow, height=2.2, share_x=True, share_y=True)
    for ax, (label, world) in zip(axes, shown.items(), strict=True):
        edges = [float(edge) for edge in np.linspace(0, 1, 21)]
        ax.hist(world["person_aucs"], bins=edges, color=styles[label][0])
        ax.axvline(0.5, color=MUTED, linewidth=1, linestyle=":")
        ax.set_title(label)
        if ax is axes[-1] or not narrow:
            ax.set_xlabel("AUC of a person's images")
    for ax in axes if narrow else axes[:1]:
        ax.set_ylabel("people")
    return fig
