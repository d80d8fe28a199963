"""The picture of the README, from the stored result file of benchmarks/yardstick.py.

    python benchmarks/yardstick_figure.py [RESULT.md]

Left: the share of the best threshold's advantage that an attack finds, by simulated world. Right:
how often a 95 % interval of the AUC holds the truth in equal worlds. Written: docs/yardstick.svg.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

HERE = Path(__file__).parent
OLD, NEW, PLAIN = "#9ca3af", "#0067ad", "#e08a00"
WORLDS = {
    "Gaussian, 50 + 50 people x 4": "Gaussian",
    "heavy-tailed, 50 + 50 people x 4": "heavy-tailed",
    "like CK+48 (1.0 against .77), 50 + 50 people x 4": "like CK+48",
}
CORRELATION = "0.5"
DARK = """
@media (prefers-color-scheme: dark) {
  [style*="fill: #ffffff"] { fill: #1b1e26 !important }
  [style*="stroke: #000000"], [style*="stroke: #374151"] { stroke: #e5e7eb !important }
  [style*="fill: #0067ad"] { fill: #6cb6f5 !important }
  [style*="stroke: #0067ad"] { stroke: #6cb6f5 !important }
  [id^="text_"] { fill: #e5e7eb }
}
"""
"""What a dark page changes of the colours, as in the pictures of docs/generate/pictures.py."""


def main() -> int:
    stored = sorted((HERE / "results").glob("yardstick_*.md"))
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else stored[-1]
    rows = table_rows(source)
    figure = Figure(figsize=(8.4, 2.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_strength(left, worlds_of(rows))
    draw_coverage(right, rows)
    target = HERE.parent / "docs" / "yardstick.svg"
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    target.write_text(drawn.getvalue().replace("</style>", f"{DARK}</style>", 1), encoding="utf-8")
    print(f"written: {target}")
    return 0


def table_rows(path: Path) -> list[list[str]]:
    """Return the cells of every row of every table."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [[c.strip() for c in line.strip("|").split("|")] for line in lines if line[:1] == "|"]


def worlds_of(rows: list[list[str]]) -> dict[str, list[str]]:
    """Return the rows of the table of strength that are drawn; other tables name worlds too."""
    return {WORLDS[row[0]]: row for row in rows if row[0] in WORLDS and " +- " in row[-1]}


def draw_strength(axes: Axes, worlds: dict[str, list[str]]) -> None:
    """Draw old attack, guessing by correctness and new attack, a group of bars a world."""
    series = [("earlier attack", 2, OLD), ("guessing by correctness", 3, PLAIN), ("now", 4, NEW)]
    for place, (label, column, color) in enumerate(series):
        means, errors = zip(*(_mean(row[column]) for row in worlds.values()), strict=True)
        at = [world + 0.27 * (place - 1) for world in range(len(worlds))]
        axes.bar(at, means, 0.25, yerr=errors, color=color, label=label, ecolor="#374151")
    axes.set_xticks(range(len(worlds)), list(worlds))
    axes.axhline(1, color="#6b7280", linewidth=0.8, linestyle="--")
    axes.set_ylabel("advantage found, 1 = best threshold", fontsize=9)
    axes.set_title("How much of a leak the attack sees", loc="left", fontsize=10)
    axes.set_ylim(-0.15, 1.55)
    axes.legend(
        frameon=False, fontsize=7.5, loc="upper left", ncols=3, columnspacing=0.7, handlelength=1.2
    )


def draw_coverage(axes: Axes, rows: list[list[str]]) -> None:
    """Draw how often intervals hold chance in equal worlds, by people a side."""
    people, old, new = [], [], []
    for row in rows:
        head = row[0].split(" people")[0]
        if row[0].endswith(f"correlation {CORRELATION}") and len(row) == 3 and " + " in head:
            one_side, other = head.split(" + ")
            if one_side == other and row[1] and float(row[2]) > 0.5:
                people.append(one_side)
                old.append(float(row[1]))
                new.append(float(row[2]))
    axes.plot(people, old, "s--", color=OLD, label="drawing images, as before")
    axes.plot(people, new, "o-", color=NEW, label="drawing people")
    axes.axhline(0.95, color="#6b7280", linewidth=0.8, linestyle="--")
    axes.set_ylim(0.5, 1.05)
    axes.set_xlabel("people a side, 1 to 8 images each")
    axes.set_ylabel("intervals that hold the truth")
    axes.set_title("Whether a 95 % interval is one", loc="left", fontsize=10)
    axes.legend(frameon=False, fontsize=8, loc="lower right")


def _mean(cell: str) -> tuple[float, float]:
    """Return mean and standard error of a cell `1.007 +- 0.048`."""
    mean, error = cell.split(" +- ")
    return float(mean), float(error)


if __name__ == "__main__":
    sys.exit(main())
