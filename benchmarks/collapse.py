"""Correlation collapse as a number: NegGrad against DLFD, each of several lengths, and Fine-tune.

    python -m benchmarks.collapse [--data-root PATH] [--name orl] [--out DIR]
                                  [--epochs 5,7,10] [key=value ...]

Without --data-root the ORL faces; PATH holds metadata.csv (image_path, identity, label). Every
method runs through `dlfd compare` on seeds 0, 1, 2 and is probed after every step; --epochs lists
how often NegGrad passes over the forget set. NegGrad needs a rate of 0.03 to move at all; DLFD is
therefore also run longer, and longer at that rate. Written: benchmarks/results/
collapse_<name>_<hardware>_<date>.md with the class separation on val before the first and after the
last step, and the figure beside it (numbers and curves, no images).
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dlfd_dist.report import RunRecord, read_comparison, summarise
from dlfd_dist.report.figures import SEPARATION_PANELS, separation_curves
from dlfd_dist.report.intervals import over_seeds, seeds_mean
from dlfd_dist.report.records import FINE_TUNE, of_label
from dlfd_dist.report.summary import labels_in_order
from dlfd_dist.report.tables import format_value
from launch.verbs.compare import run_compare

SETTINGS = [
    "forget.fraction=0.2",
    "data.augment=face",
    "train.epochs=30",
    "seed=0,1,2",
    "method.probe_every=1",
    "metrics.separation=true",
]
NEGGRAD = "NegGrad"
# At the DLFD authors' rate of 0.001 without clipping nothing moves in 20 steps on CK+48, as the
# forget losses start near zero, and by step 40 a seed in three is not finite.
FAST = ["method.lr=0.03", "method.clip_norm=1.0"]
DLFD_LONGER = "method.epochs=3"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root")
    parser.add_argument("--name", default="orl")
    parser.add_argument("--out", default="runs/collapse")
    parser.add_argument("--epochs", default="5,7,10")
    parser.add_argument("settings", nargs="*")
    args = parser.parse_args()
    data = ["data=manifest", f"data.root={args.data_root}"] if args.data_root else ["data=orl"]
    given = {s.split("=", 1)[0] for s in args.settings}
    settings = [s for s in [*data, *SETTINGS] if s.split("=", 1)[0] not in given] + args.settings
    epochs = sorted(int(number) for number in args.epochs.split(","))
    records = run(settings, Path(args.out), epochs)
    if not records:
        return 1
    store(args.name, records)
    return 0


def run(settings: Sequence[str], out: Path, epochs: Sequence[int]) -> list[RunRecord]:
    """Return the runs of all methods, NegGrad named by its steps; empty when one did not finish.

    All comparisons share one directory, so that Original and Retrained are trained once.
    """
    records: list[RunRecord] = []
    longer, neggrad = ["method=dlfd", DLFD_LONGER], ["method=neggrad", *FAST]
    for methods in (
        ["method=dlfd,finetune"], longer, [*longer, *FAST],
        *([*neggrad, _epochs(n)] for n in epochs),
    ):  # fmt: skip
        overrides = [*settings, *methods, f"run.dir={out}"]
        if run_compare(overrides, dry_run=False, as_json=False, title="Collapse") != 0:
            return []
        found = [record for record in read_comparison(out).records if record.unlearned]
        records += [replace(record, label=_label(record)) for record in found]
    return records


def _epochs(number: int) -> str:
    return f"method.epochs={number}"


def _label(record: RunRecord) -> str:
    """Return the method, with its length and rate where it is run with several."""
    if record.label == FINE_TUNE:
        return record.label
    steps, lr = record.result["num_steps"], record.config["method"]["lr"]
    return f"{record.label}, {steps} steps, lr {lr:g}"


def end_points(records: Sequence[RunRecord], metric: str) -> str:
    """Return the mean of a figure before the first and after the last step, with intervals."""
    return " → ".join(
        _mean([(r.train_seed, r.seed, r.probes[which].get(metric)) for r in records])
        for which in (0, -1)
    )


def _mean(found: Sequence[tuple[int, int, float | None]]) -> str:
    values = [(train_seed, seed, value) for train_seed, seed, value in found if value is not None]
    mean, estimate = seeds_mean(values), over_seeds(values)
    row = {"value": mean, "value_interval": estimate and estimate.interval()}
    return format_value(row, "value")


def table(records: Sequence[RunRecord]) -> str:
    """Return the Markdown table, a line per method and length."""
    heads = ["Method", "Clip", "Runs", *(f"{title} on val" for title, _ in SEPARATION_PANELS)]
    heads += ["Test accuracy", "Forgetting score", "Attack AUC", "Tail share", "Forgotten too hard"]
    rows = {row["method"]: row for row in summarise(records)}
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for label in labels_in_order(records):
        runs, row = of_label(records, label), rows[label]
        cells = [label, str(runs[0].config["method"]["clip_norm"]), str(len(runs))]
        cells += [end_points(runs, metric) for _, metric in SEPARATION_PANELS]
        names = ("test_accuracy", "forgetting_score", "mia_auc", "tail_share")
        cells += [format_value(row, name) for name in names]
        hard = sum(bool(run.over_forgetting.get("flag")) for run in runs)
        lines.append([*cells, f"{hard} of {len(runs)}"])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def hardware(records: Sequence[RunRecord]) -> str:
    """Return what the runs were made on, as a part of a file name."""
    if records[0].result["device"] == "cpu":
        return f"cpu{len(os.sched_getaffinity(0))}"
    import torch

    return "-".join(torch.cuda.get_device_name().lower().split())


def longest(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Return the runs with, of NegGrad, the longest alone: the others are its beginnings."""
    lengths = [r.result["num_steps"] for r in records if r.label.startswith(NEGGRAD)]
    return [
        r
        for r in records
        if not r.label.startswith(NEGGRAD) or r.result["num_steps"] == max(lengths)
    ]


def store(name: str, records: Sequence[RunRecord]) -> None:
    today = datetime.date.today().isoformat()
    stem = f"collapse_{name}_{hardware(records)}_{today}"
    results = Path(__file__).parent / "results"
    fig = separation_curves(longest(records))
    fig.savefig(results / f"{stem}.png", dpi=160)
    packages = ("torch", "numpy", "POT", "scikit-learn")
    versions = ", ".join(f"{n} {importlib.metadata.version(n)}" for n in packages)
    seeds = ", ".join(str(seed) for seed in sorted({r.seed for r in records}))
    (results / f"{stem}.md").write_text(
        f"# Class separation while unlearning, {name}\n\n`{_command()}`\n\n"
        f"{platform.machine()}, {hardware(records)}, python {platform.python_version()}, "
        f"{versions}. Seeds {seeds}; means with 95 % t intervals over the seeds.\n\n"
        f"{table(records)}\n\n"
        "On val: before the first step → after the last step. Silhouette by cosine distance "
        "(-1..1), balanced cross-validated accuracy of a linear probe (chance 1 / classes), trace "
        "of between over within scatter. The last five columns are of the delivered model on "
        "test.\n\n"
        f"![class separation over steps]({stem}.png)\n",
        encoding="utf-8",
    )
    print(f"written: {results / stem}.md")


def _command() -> str:
    """Return the command that was given, without the places of this machine."""
    words = list(sys.argv[1:])
    for option in ("--data-root", "--out"):
        if option in words:
            words[words.index(option) + 1] = "PATH" if option == "--data-root" else "DIR"
    return shlex.join(["python", "-m", "benchmarks.collapse", *words])


if __name__ == "__main__":
    sys.exit(main())
