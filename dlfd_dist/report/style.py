"""How figures look: one colour and one marker per role, and the frame all of them share.

The colours keep their distance under the common forms of colour blindness (after Okabe and Ito),
and no figure tells two things apart by colour alone.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .records import DLFD, DLFD_OFFICIAL, DLFM, FINE_TUNE, ORIGINAL, RETRAINED

INK, MUTED, GRID = "#1f2937", "#6b7280", "#e5e7eb"
FORGET, UNSEEN = "#c8403a", "#2a9d8f"
# Colour and marker; methods that are variants of one another have neighbouring colours.
ROLE_STYLES: dict[str, tuple[str, Any]] = {
    ORIGINAL: ("#6b7280", "s"),
    RETRAINED: ("#00966c", "D"),
    FINE_TUNE: ("#e08a00", "^"),
    "NegGrad": ("#a61e4d", "v"),
    "NegGrad+": ("#e879a6", "X"),
    "CF-k": ("#7a5cb8", "<"),
    "EU-k": ("#b79be8", ">"),
    "UNSIR": ("#8a6d1b", "h"),
    "Bad Teacher": ("#5b3a29", "d"),
    "SCRUB": ("#a3b018", "p"),
    "SalUn": ("#d4572a", (4, 1, 0)),
    "SSD": ("#111827", "8"),
    "l1-sparse": ("#0fb5ae", (6, 1, 0)),
    "Reset": ("#4c6a92", (5, 0, 0)),
    "Weight Distortion": ("#c2410c", (5, 1, 0)),
    "Weight Dist Reg": ("#f0a57a", (5, 2, 0)),
    "GLI": ("#7fb3d5", (3, 0, 0)),
    "FCS": ("#6b8e23", (7, 0, 0)),
    "CT": ("#8c6bb1", (7, 1, 0)),
    "MSG": ("#810f7c", (3, 2, 0)),
    "AMUN": ("#b10026", (6, 2, 0)),
    "Rewind": ("#41ae76", (8, 2, 0)),
    DLFD_OFFICIAL: ("#56b4e9", "P"),
    DLFD: ("#0067ad", "o"),
    DLFM: ("#d6007a", "*"),
}
_OTHER_STYLES: tuple[tuple[str, Any], ...] = (
    ("#b0568f", "H"), ("#3d5a80", (3, 1, 0)), ("#4b7f52", (8, 1, 0)), ("#9c3d2e", "1"),
)  # fmt: skip
CLASS_COLORS = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#8c564b", "#d55e00", "#b8ae1a",
)  # fmt: skip

_RC: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#9ca3af",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "white",
    # Labels come from data sets and configurations: a dollar sign in one is not mathematics.
    "text.parse_math": False,
}


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Run a drawing function under the report's settings, whatever the user's matplotlibrc says."""

    @functools.wraps(draw)
    def wrapper(*args: Any, **kwargs: Any) -> Figure:
        settings: Any = _defaults() | _RC
        with matplotlib.rc_context(settings):
            return draw(*args, **kwargs)

    return wrapper


@functools.cache
def _defaults() -> dict[str, Any]:
    """Return matplotlib's own settings, but for those that are no matter of looks."""
    elsewhere = ("backend", "interactive", "toolbar", "timezone", "webagg", "savefig.directory")
    return {k: v for k, v in matplotlib.rcParamsDefault.items() if not k.startswith(elsewhere)}


def role_styles(labels: Sequence[str]) -> dict[str, tuple[str, Any]]:
    """Return (colour, marker) per label; labels without a role of their own take the spare ones."""
    others = [label for label in labels if label not in ROLE_STYLES]
    spare = itertools.cycle(_OTHER_STYLES)
    return {**ROLE_STYLES, **dict(zip(others, spare, strict=False))}


def panels(
    num: int, *, narrow: bool, height: float, share_x: bool = False, share_y: bool = False
) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels side by side, or below each other on a narrow page."""
    rows, columns = (num, 1) if narrow else (1, num)
    size = (3.7, 0.5 + height * rows) if narrow else (9.5, 0.5 + height)
    fig = Figure(figsize=size, layout="constrained")
    axes = fig.subplots(rows, columns, sharex=share_x, sharey=share_y, squeeze=False)
    for ax in axes.ravel():
        ax.tick_params(length=0, labelbottom=True)
    return fig, list(axes.ravel())


def legend_above(fig: Figure, handles: Sequence[Any], *, columns: int) -> None:
    fig.legend(handles=handles, loc="outside upper left", ncols=columns, borderaxespad=0.2)
