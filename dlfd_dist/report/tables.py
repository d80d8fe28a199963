"""The rows of a summary as text, Markdown, LaTeX and CSV.

Every table takes the findings of a summary (`findings_of`): a closed gate stands before everything
else, the contrasts below. Every table but CSV takes the `tuning` of a comparison
(`Comparison.tuning`), None without one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..plain import csv_text
from .contrasts import sentences
from .intervals import MIN_CROSSED
from .measured import CUSTOM, METRICS
from .records import RETRAINED
from .summary import Findings
from .tuning import DASH, Tuning, steps_lines, tuning_lines

Row = dict[str, Any]

COLUMNS = (
    ("NoMUS", "nomus"),
    ("Test acc.", "test_accuracy"),
    ("Forgetting", "forgetting_score"),
    ("Attack acc.", "mia_accuracy"),
    ("Attack", "attack"),
    ("AUC of the confidence", "mia_auc"),
    ("Gap", "gap_to_retrained"),
)
WHERE_MEASURED = (
    ("Resurfaced", "resurfaced_accuracy"),
    ("Relearn steps", "relearn_steps"),
    ("Anamnesis", "anamnesis_index"),
)
"""Columns of a table only where a row has such a figure."""
CONTRASTS = "Contrasts, named before the runs; p Holm-adjusted over those of a figure:"
ONE_SEED, AT_FLOOR, MIXED, TOO_HARD, ONE_TRAINING = "*", "†", "‡", "§", "¶"
LOW_POWER, AT_LEAST, OTHER_SEEDS = "‖", "+", "◦"
LEFT_AS_IS, ONLY_CONFIDENCE, ALIKE, FEW_CROSSED = "∅", "↓", "≡", "◇"
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
    LEFT_AS_IS: "Left the model as it is: neither its weights nor its answers moved.",
    ONLY_CONFIDENCE: "Only lowers its confidence: it answers as Original does, less sure of it.",
    ALIKE: "Answers everything alike: nearly every image gets the same answer.",
    FEW_CROSSED: f"Fewer than {MIN_CROSSED} of an axis of crossed seeds: no interval can be given.",
    MIXED: "The runs of this row differ in more than their seed.",
}


def format_value(row: Row, metric: str, *, digits: int = 3) -> str:
    """Return a mean with the half-width of its interval, such as `0.782 ± 0.011`."""
    return _with_half_width(row[metric], row[f"{metric}_interval"], f".{digits}f")


def format_signed(row: Row, metric: str) -> str:
    """Return a mean with its sign and the ends of its interval, such as `+0.021 [+0.009, +0.033]`.

    The ends, since an interval over people need not lie about the mean of a share.
    """
    if row[metric] is None:
        return DASH
    ends = row[f"{metric}_interval"]
    around = "" if ends is None else f" [{ends[0]:+.3f}, {ends[1]:+.3f}]"
    return f"{row[metric]:+.3f}{around}"


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
        "method": (MIXED if row["mixed_settings"] else "")
        + (LEFT_AS_IS if row["left_as_is"] else "")
        + (ONLY_CONFIDENCE if row["only_confidence"] else "")
        + (ALIKE if row["alike"] else ""),
        "seeds": (ONE_SEED if row["one_seed"] else "")
        + (ONE_TRAINING if row["one_training"] else "")
        + (FEW_CROSSED if row["few_crossed"] else ""),
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
    rows: Sequence[Row], tuning: Tuning | None = None, *, missing: Sequence[str] = ()
) -> list[str]:
    """Return the sentences below a table that belong to no mark.

    Parameters
    ----------
    missing : the runs that did not finish
    """
    lines = [f"Not finished, and in no row: {', '.join(missing)}."] if missing else []
    if any(row["unlearned"] for row in rows):
        lines += [*tuning_lines(tuning), *steps_lines(rows)]
    if any(row["crossed"] for row in rows):
        lines.append(
            "Seeds a × b: a trained models, b seeds of unlearning each; intervals are for other "
            "trainings and other seeds, by a mixed model of both."
        )
    if any(len(row["metrics_seeds"]) > 1 for row in rows):
        lines.append("× c ev.: c evaluation seeds of each, no independent values.")
    lines += dict.fromkeys(line for row in rows for line in row.get("group_lines", ()))
    return lines + [matched_line(row) for row in rows if row.get("reference_people")]


def head_line(findings: Findings | None) -> str:
    """Return the sentence that a table begins with where it can rank nothing; else nothing."""
    return findings.gate.sentence if findings and findings.gate else ""


def contrast_lines(findings: Findings | None) -> list[str]:
    """Return the contrasts in words, a title first; nothing where none was named."""
    contrasts = findings.contrasts if findings else []
    return [CONTRASTS, *sentences(contrasts)] if contrasts else []


def matched_line(row: Row) -> str:
    """Return one sentence: whom a row's method matched the forget set to."""
    people = row["reference_people"]
    whom = {
        "val_split": "validation people set apart, on whom it was not selected",
        "manifest": "strangers from outside the data set"
        + ("" if people["labelled"] else ", without labels"),
        "synthesised": "images that DLFD synthesises from the retain set, and to no people",
    }[people["kind"]]
    if people.get("strangers") is False:
        auc = max(people["probes"].values())
        whom += f", which are no strangers, as a probe tells them from some (AUC {auc:.2f})"
    count = f"{people['people']} " if people["people"] else ""
    return (
        f"{row['method']} was matched to {count}{whom}. It optimises what the attack of this table "
        "sees: judge it by attacks that it does not optimise."
    )


def _grid(rows: Sequence[Row]) -> list[list[tuple[str, str]]]:
    """Return (content, marks) per cell, the heads first."""
    measured = [
        (title, name)
        for title, name in WHERE_MEASURED
        if any(row[name] is not None for row in rows)
    ]
    metrics = dict([*COLUMNS, *measured])
    grid = [[(head, "") for head in ("Method", "Seeds", *metrics)]]
    for row in rows:
        mark = marks(row)
        cells = [(row["method"], mark["method"]), (format_seeds(row), mark["seeds"])]
        cells += [(_shown(row, name), mark.get(name, "")) for name in metrics.values()]
        grid.append(cells)
    return grid


def _shown(row: Row, name: str) -> str:
    return row["attack"] or DASH if name == "attack" else format_value(row, name)


def text_table(
    rows: Sequence[Row], tuning: Tuning | None = None, findings: Findings | None = None
) -> str:
    """Return the table as plain text, columns aligned, footnotes and contrasts below."""
    grid = text_grid(rows)
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(g, widths, strict=True)).rstrip() for g in grid]
    lines.insert(1, "  ".join("-" * width for width in widths))
    head = [line for line in (head_line(findings),) if line]
    return "\n".join([*head, *lines, *lines_below(rows, tuning, findings)]) + "\n"


def text_grid(rows: Sequence[Row]) -> list[list[str]]:
    """Return the cells of the table with their marks, the heads first."""
    return [["".join(cell) for cell in cells] for cells in _grid(rows)]


def lines_below(
    rows: Sequence[Row], tuning: Tuning | None = None, findings: Findings | None = None
) -> list[str]:
    """Return the footnotes, notes and contrasts that stand below a table of text."""
    marked = [f"{mark} {text}" for mark, text in footnotes(rows)]
    return [*marked, *notes(rows, tuning), *contrast_lines(findings)]


def _escape_markdown(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")


def markdown_table(
    rows: Sequence[Row],
    tuning: Tuning | None = None,
    missing: Sequence[str] = (),
    findings: Findings | None = None,
) -> str:
    """Return the table in Markdown, footnotes and contrasts below."""
    grid = [[_escape_markdown("".join(c)) for c in cells] for cells in _grid(rows)]
    grid.insert(1, ["---", *["---:"] * (len(grid[0]) - 1)])
    lines = [f"| {' | '.join(cells)} |" for cells in grid]
    below = [f"{mark} {text}" for mark, text in footnotes(rows)]
    below += [*notes(rows, tuning, missing=missing), *contrast_lines(findings)]
    head = head_line(findings)
    above = [f"**{_escape_markdown(head)}**\n"] if head else []
    return "\n".join([*above, *lines, *("\n" + _escape_markdown(text) for text in below)]) + "\n"


_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    **{sign: "\\" + sign for sign in "&%$#_{}"},
    "<": "$<$", ">": "$>$", "|": "$|$", "±": r"$\pm$", "×": r"$\times$", DASH: "--",
    ONE_SEED: r"$\ast$", AT_FLOOR: r"\dag{}", MIXED: r"\ddag{}", TOO_HARD: r"\S{}",
    ONE_TRAINING: r"\P{}", OTHER_SEEDS: r"$\circ$", LOW_POWER: r"$\Vert$",
    LEFT_AS_IS: r"$\emptyset$", ONLY_CONFIDENCE: r"$\downarrow$", ALIKE: r"$\equiv$",
    FEW_CROSSED: r"$\diamond$",
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
    rows: Sequence[Row],
    tuning: Tuning | None = None,
    missing: Sequence[str] = (),
    findings: Findings | None = None,
) -> str:
    r"""Return a LaTeX tabular for `\input`, footnotes below; it needs the package booktabs."""
    heads, *body = _grid(rows)
    head = head_line(findings)
    lines = [
        "% needs \\usepackage{booktabs}",
        *([rf"\noindent\textbf{{{_escape_latex(head)}}}\par\smallskip"] if head else []),
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
    below += map(_escape_latex, contrast_lines(findings))
    lines += [r"\bottomrule", r"\end{tabular}"]
    if below:
        lines += ["", r"\smallskip\noindent{\footnotesize", *(t + r"\par" for t in below), "}"]
    return "\n".join(lines) + "\n"


_CSV_FLAGS = (
    "one_seed", "one_training", "few_crossed", "floor", "low_power", "over_forgetting",
    "left_as_is", "only_confidence", "alike", "relearns_late",
)  # fmt: skip


def csv_table(rows: Sequence[Row], findings: Findings | None = None) -> str:
    """Return every metric at full precision: mean, `<metric>_lo` and `<metric>_hi`.

    `note` holds in every row the sentence of a closed gate.
    """
    head = head_line(findings)
    return _csv([_csv_cells(row, head) for row in rows])


def contrasts_csv(findings: Findings) -> str:
    """Return the contrasts at full precision, one a row."""
    cells = []
    for contrast in findings.contrasts:
        values = contrast.to_dict()
        low, high = values.pop("interval") or (None, None)
        cells.append([*values.items(), ("lo", low), ("hi", high)])
    return _csv(cells)


def _csv(rows: Sequence[Sequence[tuple[str, Any]]]) -> str:
    """Return rows of (column, value) pairs, the same columns in every row."""
    head = [[name for name, _ in row] for row in rows[:1]]
    return csv_text([*head, *([value for _, value in row] for row in rows)])


def _csv_cells(row: Row, head: str) -> list[tuple[str, Any]]:
    """Return (column, value) pairs, the same columns for every row."""
    cells = [
        ("method", row["method"]),
        ("note", head),
        ("seeds", " ".join(map(str, row["seeds"]))),
        ("num_seeds", row["num_seeds"]),
        ("train_seeds", " ".join(map(str, row["train_seeds"]))),
        ("metrics_seeds", " ".join(map(str, row["metrics_seeds"]))),
        ("attack", row["attack"] or ""),
        *((name, row[name]) for name in _CSV_FLAGS),
    ]
    for metric in (*METRICS, *row[CUSTOM]):
        low, high = row[f"{metric}_interval"] or (None, None)
        cells += [(metric, row[metric]), (f"{metric}_lo", low), (f"{metric}_hi", high)]
    return cells
