"""The rows of a summary as text, Markdown, LaTeX and CSV.

Every table but CSV takes the `tuning` of a comparison (`Comparison.tuning`), None without one.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from .paired import PAIRED_METRICS
from .records import RETRAINED
from .summary import AXES, BOOTSTRAPPED, METRICS

Row = dict[str, Any]
Tuning = Mapping[str, Any]

COLUMNS = (
    ("NoMUS", "nomus"),
    ("Test acc.", "test_accuracy"),
    ("Forgetting", "forgetting_score"),
    ("Attack AUC", "mia_auc"),
    ("Gap", "gap_to_retrained"),
)
WHERE_MEASURED = (("Relearn steps", "relearn_steps"), ("Anamnesis", "anamnesis_index"))
"""Columns of a table only where a row has such a figure."""
PAIRED_COLUMNS = {"nomus": "vs DLFD (NoMUS)", "gap_to_retrained": "vs DLFD (gap)"}
"""metric -> its column of tests against DLFD"""
ONE_SEED, AT_FLOOR, MIXED, TOO_HARD, ONE_TRAINING = "*", "†", "‡", "§", "¶"
LOW_POWER, AT_LEAST, OTHER_SEEDS = "‖", "+", "◦"
FOOTNOTES = {
    ONE_SEED: "One seed: there is no interval, and a difference may be chance.",
    ONE_TRAINING: "One trained model: the interval is over seeds of unlearning it and says nothing "
    "of another training.",
    AT_FLOOR: "The attack is at its floor in this row: it does no better than guessing, or the set "
    "is too small; a low score then says little about what the model remembers.",
    LOW_POWER: "The sets are so small that the attack would often miss an AUC above 0.6: a figure "
    "near 0.5 is then no sign that nothing is left.",
    TOO_HARD: "Forgotten too hard: losses on forgotten images are higher than on images never "
    "seen, which can itself betray them.",
    AT_LEAST: "At least: not back in metrics.relearn_steps in some runs, which count as that many.",
    OTHER_SEEDS: "Retrained against Retrained of the other train seeds: what the seed alone makes "
    "of the gap, and so about the least that a method can be expected to reach.",
    MIXED: "The runs of this row differ in more than their seed.",
}
DASH = "–"


def format_value(row: Row, metric: str, *, digits: int = 3) -> str:
    """Return a mean with the half-width of its interval, such as `0.782 ± 0.011`.

    Where several axes of seeds vary, with the ends of the bootstrap, as `0.782 [0.771, 0.790]`.
    """
    ends = row.get(f"{metric}_bootstrap_interval")
    if ends is not None:
        return f"{row[metric]:.{digits}f} [{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]"
    return _with_half_width(row[metric], row[f"{metric}_interval"], f".{digits}f")


def format_paired(row: Row, metric: str) -> str:
    """Return the difference to DLFD and its adjusted p, such as `-0.021 ± 0.009, p 0.012`."""
    test = (row["paired"] or {}).get(metric)
    if test is None:
        return DASH
    p = "p < 0.001" if test["p_holm"] < 0.001 else f"p {test['p_holm']:.3f}"
    return f"{_with_half_width(test['difference'], test['interval'], '+.3f')}, {p}"


def _with_half_width(mean: float | None, interval: Sequence[float] | None, form: str) -> str:
    if mean is None:
        return DASH
    if interval is None:
        return f"{mean:{form}}"
    return f"{mean:{form}} ± {(interval[1] - interval[0]) / 2:{form.removeprefix('+')}}"


def format_seeds(row: Row) -> str:
    """Return the number of seeds, or `2 × 3`: trained models × seeds of unlearning each.

    With several evaluation seeds also × those.
    """
    seeds = str(row["num_seeds"])
    seeds = f"{len(row['train_seeds'])} × {seeds}" if row["crossed"] else seeds
    evaluations = len(row["metrics_seeds"])
    return f"{seeds} × {evaluations} ev." if evaluations > 1 else seeds


def marks(row: Row) -> dict[str, str]:
    """Return the footnote marks of a row by the column they stand in."""
    return {
        "method": MIXED if row["mixed_settings"] else "",
        "seeds": (ONE_SEED if row["one_seed"] else "")
        + (ONE_TRAINING if row["one_training"] else ""),
        "forgetting_score": (AT_FLOOR if row["floor"] else "")
        + (TOO_HARD if row["over_forgetting"] else ""),
        "mia_auc": LOW_POWER if row["low_power"] else "",
        "gap_to_retrained": OTHER_SEEDS if _against_itself(row) else "",
        "relearn_steps": AT_LEAST if row["relearns_late"] else "",
    }


def _against_itself(row: Row) -> bool:
    return row["method"] == RETRAINED and row["gap_to_retrained"] is not None


def footnotes(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Return the (mark, explanation) pairs that the rows need."""
    used = "".join(mark for row in rows for mark in marks(row).values())
    return [(mark, text) for mark, text in FOOTNOTES.items() if mark in used]


def notes(
    rows: Sequence[Row],
    tuning: Tuning | None = None,
    *,
    paired: bool = True,
    missing: Sequence[str] = (),
) -> list[str]:
    """Return the sentences below a table that belong to no mark.

    Parameters
    ----------
    paired : whether the table has the columns of the tests against DLFD
    missing : the runs that did not finish
    """
    found = [f"Not finished, and in no row: {', '.join(missing)}."] if missing else []
    if any(row["unlearned"] for row in rows):
        found.append(tuning_line(tuning))
    if any(row["crossed"] for row in rows):
        found.append(
            "Seeds a × b: a trained models, b seeds of unlearning each; means and intervals are "
            "over the trained models."
        )
    if any(len(row["metrics_seeds"]) > 1 for row in rows):
        found.append("× c ev.: c evaluation seeds of each, no independent values.")
    found += list(dict.fromkeys(bootstrap_line(row) for row in rows if _has_bootstrap(row)))
    found += dict.fromkeys(line for row in rows for line in row.get("group_lines", ()))
    found += [matched_line(row) for row in rows if row.get("reference_people")]
    if paired and _tested(rows):
        found.append(
            "vs DLFD: the figure minus that of DLFD on the same seeds; p of a paired t-test, "
            "Holm-adjusted over the methods."
        )
    return found


def _has_bootstrap(row: Row) -> bool:
    return any(row.get(f"{metric}_bootstrap_interval") for metric in BOOTSTRAPPED)


def bootstrap_line(row: Row) -> str:
    """Return one sentence: over which axes of seeds the intervals in brackets are."""
    axes = " and ".join(AXES[name] for name in row["axes"])
    return (
        f"[a, b]: 95 % hierarchical bootstrap over {axes}, drawn level by level; with few of the "
        "first it is too short."
    )


def matched_line(row: Row) -> str:
    """Return one sentence: whom a row's method matched the forget set to."""
    people = row["reference_people"]
    whom = {
        "val_split": "validation people set apart, on whom it was not selected",
        "manifest": "strangers from outside the data set"
        + ("" if people["labelled"] else ", without labels"),
        "synthesised": "images that DLFD synthesises from the retain set, and to no people",
    }[people["kind"]]
    count = f"{people['people']} " if people["people"] else ""
    return (
        f"{row['method']} was matched to {count}{whom}. It optimises what the attack of this table "
        "sees: judge it by attacks that it does not optimise."
    )


def tuning_line(tuning: Tuning | None) -> str:
    """Return one sentence: how the settings of the methods were come by."""
    if tuning is None:
        return "Not tuned: every method with its default settings, except those the command set."
    return (
        f"Tuned: {tuning['trials']} trials per method on {tuning['objective']}, "
        f"each judged on {len(tuning['pairs'])} of the seeds."
    )


def _tested(rows: Sequence[Row]) -> list[str]:
    """Return the metrics that some row is tested against DLFD in."""
    return [m for m in PAIRED_COLUMNS if any((row["paired"] or {}).get(m) for row in rows)]


def _grid(rows: Sequence[Row], *, paired: bool) -> list[list[tuple[str, str]]]:
    """Return (content, marks) per cell, the heads first."""
    measured = [
        (title, name)
        for title, name in WHERE_MEASURED
        if any(row[name] is not None for row in rows)
    ]
    metrics = dict([*COLUMNS, *measured])
    tested = _tested(rows) if paired else []
    heads = ["Method", "Seeds", *metrics, *(PAIRED_COLUMNS[metric] for metric in tested)]
    grid = [[(head, "") for head in heads]]
    for row in rows:
        mark = marks(row)
        cells = [(row["method"], mark["method"]), (format_seeds(row), mark["seeds"])]
        cells += [(format_value(row, name), mark.get(name, "")) for name in metrics.values()]
        grid.append(cells + [(format_paired(row, metric), "") for metric in tested])
    return grid


def text_table(rows: Sequence[Row], tuning: Tuning | None = None) -> str:
    """Return the table for a terminal, columns aligned, footnotes below."""
    grid = [["".join(cell) for cell in cells] for cells in _grid(rows, paired=False)]
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(g, widths, strict=True)).rstrip() for g in grid]
    lines.insert(1, "  ".join("-" * width for width in widths))
    lines += [f"{mark} {text}" for mark, text in footnotes(rows)]
    return "\n".join([*lines, *notes(rows, tuning, paired=False)]) + "\n"


def _escape_markdown(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")


def markdown_table(
    rows: Sequence[Row], tuning: Tuning | None = None, missing: Sequence[str] = ()
) -> str:
    """Return the table in Markdown, footnotes below."""
    grid = [[_escape_markdown("".join(c)) for c in cells] for cells in _grid(rows, paired=True)]
    grid.insert(1, ["---", *["---:"] * (len(grid[0]) - 1)])
    lines = [f"| {' | '.join(cells)} |" for cells in grid]
    below = [f"{mark} {text}" for mark, text in footnotes(rows)]
    below += notes(rows, tuning, missing=missing)
    return "\n".join([*lines, *("\n" + _escape_markdown(text) for text in below)]) + "\n"


_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    **{sign: "\\" + sign for sign in "&%$#_{}"},
    "<": "$<$", ">": "$>$", "|": "$|$", "±": r"$\pm$", "×": r"$\times$", DASH: "--",
    ONE_SEED: r"$\ast$", AT_FLOOR: r"\dag{}", MIXED: r"\ddag{}", TOO_HARD: r"\S{}",
    ONE_TRAINING: r"\P{}", OTHER_SEEDS: r"$\circ$", LOW_POWER: r"$\Vert$",
}  # fmt: skip


def _escape_latex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)


def _latex_mark(mark: str) -> str:
    return rf"\textsuperscript{{{_escape_latex(mark)}}}" if mark else ""


def _latex_number(text: str) -> str:
    """Return a number with a minus sign where a hyphen stands for one."""
    escaped = _escape_latex(text)
    return "$-$" + escaped[1:] if escaped.startswith("-") and text != DASH else escaped


def latex_table(
    rows: Sequence[Row], tuning: Tuning | None = None, missing: Sequence[str] = ()
) -> str:
    r"""Return a LaTeX tabular for `\input`, footnotes below; it needs the package booktabs."""
    heads, *body = _grid(rows, paired=True)
    lines = [
        "% needs \\usepackage{booktabs}",
        rf"\begin{{tabular}}{{ll{'r' * (len(heads) - 2)}}}",
        r"\toprule",
        " & ".join(_escape_latex(head) for head, _ in heads) + r" \\",
        r"\midrule",
    ]
    for (method, mark), *cells in body:
        shown = [_escape_latex(method) + _latex_mark(mark)]
        shown += [_latex_number(text) + _latex_mark(mark) for text, mark in cells]
        lines.append(" & ".join(shown) + r" \\")
    below = [_latex_mark(mark) + " " + _escape_latex(text) for mark, text in footnotes(rows)]
    below += map(_escape_latex, notes(rows, tuning, missing=missing))
    lines += [r"\bottomrule", r"\end{tabular}"]
    if below:
        lines += ["", r"\smallskip\noindent{\footnotesize", *(t + r"\par" for t in below), "}"]
    return "\n".join(lines) + "\n"


_CSV_FLAGS = ("one_seed", "one_training", "floor", "low_power", "over_forgetting", "relearns_late")


def csv_table(rows: Sequence[Row]) -> str:
    """Return every metric at full precision: mean, `<metric>_lo` and `<metric>_hi`, and the tests.

    Of each test against DLFD: `<metric>_vs_dlfd`, its `_lo` and `_hi`, `_p`, `_p_holm` and
    `_pairs`.
    """
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(
        [[name for name, _ in _csv_cells(row)] for row in rows[:1]]
        + [[value for _, value in _csv_cells(row)] for row in rows]
    )
    return out.getvalue()


def _csv_cells(row: Row) -> list[tuple[str, Any]]:
    """Return (column, value) pairs, the same columns for every row."""
    cells = [
        ("method", row["method"]),
        ("seeds", " ".join(map(str, row["seeds"]))),
        ("num_seeds", row["num_seeds"]),
        ("train_seeds", " ".join(map(str, row["train_seeds"]))),
        ("metrics_seeds", " ".join(map(str, row["metrics_seeds"]))),
        *((name, row[name]) for name in _CSV_FLAGS),
    ]
    for metric in METRICS:
        low, high = row[f"{metric}_interval"] or (None, None)
        cells += [(metric, row[metric]), (f"{metric}_lo", low), (f"{metric}_hi", high)]
    for metric in PAIRED_METRICS:
        test, name = (row["paired"] or {}).get(metric) or {}, f"{metric}_vs_dlfd"
        low, high = test.get("interval", (None, None))
        cells += [(name, test.get("difference")), (f"{name}_lo", low), (f"{name}_hi", high)]
        cells += [(f"{name}_{k}", test.get(k)) for k in ("p", "p_holm")]
        cells.append((f"{name}_pairs", test.get("num_pairs")))
    return cells
