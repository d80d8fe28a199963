"""Every method against Original and Retrained by `dlfd compare`, stored as a result file.

    python -m benchmarks.comparison --name ck48 --data-root PATH [--out DIR] [key=value ...]
    python -m benchmarks.comparison --name ck48_gap|ck48_gate --data-root PATH [--out DIR]
    python -m benchmarks.comparison --name ck48_ablation|ck48_dlfm_ablation --data-root PATH
    python -m benchmarks.comparison --name ck48_reset|ck48_rounds --data-root PATH [--out DIR]
    python -m benchmarks.comparison --name orl|orl_own|orl_some|orl_dlfm
    python -m benchmarks.comparison --name orl_ablation|orl_dlfm_ablation
    python -m benchmarks.comparison --name london|utk_age|utk_age_gate|lfw_smile --data-root PATH
    python -m benchmarks.comparison --name synthetic
    python -m benchmarks.comparison --name table --data-root PATH [--out DIR] [key=value ...]

All methods get the same number of optimiser steps, about a tenth of the training (SSD has none),
20 trials each by the gap to Retrained on validation people of a draw of their own (orl_own,
orl_dlfm and the ablations: none), the same probes and the same rule of which weights are delivered
(the best validation NoMUS; ck48_gap and table: the last). PATH holds
metadata.csv: image_path, identity, label; for london no split, for utk_age (UTKFace, one image a
person) age_group, gender, race and split, for lfw_smile (LFW, several) smile and split.

table is the whole table: the sets utk_age, lfw_smile and ck48, folders of PATH, one after another.
Five seeds, each of which forgets people of its own; two epochs of steps for every method but
dlfd_official, which keeps its authors' loop; 20 trials each on people of no seed; contrasts named
before. It goes on where it was stopped. Written:
benchmarks/results/comparison_<name>_<hardware>_<date>.md with table, tuned settings, core-hours,
figure and versions; numbers, no images of people.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import shutil
import sys
import time
from collections import Counter
from pathlib import Path

import yaml

from dlfd_dist.errors import DlfdError
from launch.verbs.compare import run_compare

METHODS = (
    "finetune,neggrad,neggrad_plus,cf_k,eu_k,unsir,bad_teacher,scrub,salun,ssd,l1_sparse,dlfd,dlfm"
)
SOME = "method=finetune,eu_k,unsir,bad_teacher,scrub,salun,dlfd,dlfm"
"""Those that did more than nothing on CK+48."""
FAIR = [f"method={METHODS}", "method.select=nomus", "method.probe_every=10"]
TUNED = "compare.tune=20"
"""The fewest trials that a claim of the README may rest on: 10 to 12 settings are drawn."""
# compare.steps is three epochs over the retain set of each.
CK48 = [
    "compare.steps=51",
    "data=manifest", "data.image_size=48", "data.augment=none", "forget.fraction=0.2",
    "train.epochs=30", "seed=0,1,2,3,4",
]  # fmt: skip
# An epoch over ORL is 7 steps: a probe every ten would leave the dynamic strategy three looks.
ORL = [
    "compare.steps=21",
    "data=orl", "data.image_size=64", "data.augment=face", "forget.fraction=0.2",
    "train.epochs=30", "seed=0,1,2", "method.probe_every=3",
]  # fmt: skip
# Its training is that which benchmarks/defaults.py chose by validation, and so are the splits.
LONDON = [
    "compare.steps=12",
    "data=manifest", "data.split_seed=1", "data.image_size=64", "data.augment=face",
    "forget.fraction=0.2", "train.epochs=60", "seed=0,1,2,3,4", "method.probe_every=2",
]  # fmt: skip
SYNTHETIC = [
    "compare.steps=27",
    "data=synthetic", "data.image_size=32", "data.synthetic.num_identities=60",
    "data.synthetic.images_per_identity=8", "data.synthetic.num_expressions=4",
    "forget.fraction=0.2", "train.epochs=15", "seed=0,1,2,3,4", "method.probe_every=3",
]  # fmt: skip
# As MUFAC: 8 age groups, one image a person, 1,500 of 7,000 people forgotten.
UTK_AGE = [
    "compare.steps=516",
    "data=manifest", "data.label=age_group", "data.groups=[gender,race]", "data.image_size=64",
    "data.augment=none", "forget.fraction=0.2143", "train.epochs=30", "seed=0,1,2",
]  # fmt: skip
LFW_SMILE = [
    "compare.steps=360",
    "data=manifest", "data.label=smile", "data.image_size=64", "data.augment=none",
    "forget.fraction=0.2", "train.epochs=30", "seed=0,1,2",
]  # fmt: skip
ABLATION = [
    "method=finetune,dlfd", "method.distancing=true,false", "method.classification=true,false",
    "method.dynamic=true,false",
]  # fmt: skip
# The last weights count, as the choice of a probe goes by NoMUS.
BY_GAP = [SOME, "method.select=last", TUNED]
# Whether a set can tell methods apart at all: Original, Retrained, and one that does nothing much.
GATE = [
    "method=finetune", "method.select=last", "method.probe_every=null", "train_mode=frozen",
    "compare.steps=null", "seed=0,1,2",
]  # fmt: skip
# Every term off once, and every kind of reference that needs no further people.
DLFM_ABLATION = [
    "method=finetune,dlfm", "method.quantiles=true,false", "method.features=true,false",
    "method.kd_weight=1.0,0.0", "method.reference=val_split,synthesised",
]  # fmt: skip
TABLE = [
    "method=finetune,reset,gli,msg,ct,fcs,amun,rewind,weight_distortion,weight_dist_reg,scrub,salun,"
    "dlfm,dlfd,dlfd_official",
    "task=faces", "method.select=last", "method.probe_every=40", TUNED,
    "compare.contrasts=[dlfd/original,dlfd/finetune,dlfd/gli,dlfd/reset,dlfd/best]",
    "seed=0,1,2,3,4", "train.keep_every=2", "data.leaks=false",
]  # fmt: skip
"""The rivals of today, DLFD and its authors' loop. Leaks are told by the gates of the same sets."""
AT_32 = ["data.image_size=32", "train.epochs=16"]
SETTINGS = {
    "ck48": [*CK48, TUNED],
    "ck48_gap": [*CK48, *BY_GAP],
    "ck48_gate": [*CK48, *GATE],
    "ck48_ablation": [*CK48, *ABLATION],
    "ck48_dlfm_ablation": [*CK48, *DLFM_ABLATION],
    "orl": [*ORL, TUNED, "compare.tune_seeds=3"],
    "orl_own": ORL,
    "orl_some": [*ORL, SOME, "seed=0,1,2,3,4", TUNED],
    "orl_dlfm": [*ORL, "method=finetune,dlfd,dlfm"],
    "orl_ablation": [*ORL, *ABLATION],
    "orl_dlfm_ablation": [*ORL, *DLFM_ABLATION],
    "london": [*LONDON, SOME, TUNED],
    "utk_age": [*UTK_AGE, SOME, TUNED],
    "utk_age_gate": [*UTK_AGE, *GATE, "data.image_size=32", "train.epochs=16"],
    "lfw_smile": [*LFW_SMILE, SOME, TUNED],
    "synthetic": [*SYNTHETIC, SOME, TUNED],
    "table_utk_age": [*UTK_AGE, *TABLE, *AT_32, "compare.steps=344"],
    # What the synthesis adds: Fine-tune and DLFD on one schedule, that of DLFD in the table.
    "utk_age_schedule": [
        *UTK_AGE, *TABLE[1:], *AT_32, "method=finetune,dlfd", "compare.steps=344",
        "method.lr=0.05", "method.clip_norm=null", "compare.tune=0",
        "compare.contrasts=[dlfd/finetune]",
    ],
    "table_lfw_smile": [*LFW_SMILE, *TABLE, *AT_32, "compare.steps=242"],
    "table_ck48": [*CK48, *TABLE, "compare.steps=34"],
    # FCS and SCRUB go in rounds of forgetting and repair, of which 34 steps are one or two.
    "ck48_rounds": [
        *CK48, *TABLE[1:], "method=finetune,fcs,scrub", "compare.steps=34",
        "compare.contrasts=[fcs/original,scrub/original,fcs/finetune,scrub/finetune]",
    ],
    # Whether a start that forgets brings Fine-tune and DLFM nearer to Retrained.
    "ck48_reset": [
        *CK48, *TABLE[1:], "method=finetune,dlfm", "method.reset=none,shrink", "compare.steps=34",
        'compare.contrasts=["dlfm reset=shrink/dlfm","finetune reset=shrink/finetune",'
        '"dlfm reset=shrink/finetune reset=shrink","dlfm reset=shrink/original"]',
    ],
}  # fmt: skip
SETS = ("utk_age", "lfw_smile", "ck48")
"""Of the whole table, by the names of their folders."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", choices=[*sorted(SETTINGS), "table"], default="ck48")
    parser.add_argument("--data-root", help="needed unless the data set comes with the project")
    parser.add_argument("--out", default="runs/benchmark")
    parser.add_argument("settings", nargs="*")
    args = parser.parse_args()
    out, root = Path(args.out), args.data_root
    try:
        if args.name != "table":
            compare(args.name, root, out, args.settings)
            return
        for name in SETS:
            compare(f"table_{name}", str(Path(root or ".") / name), out / name, args.settings)
    except DlfdError as err:
        sys.exit(f"{parser.prog}: {err}")


def compare(name: str, root: str | None, out: Path, words: list[str]) -> None:
    """Run what is not finished of a comparison and write its result file."""
    given = {s.split("=", 1)[0] for s in words}
    defaults = {s.split("=", 1)[0]: s for s in [*FAIR, *SETTINGS[name]]}
    settings = [s for key, s in defaults.items() if key not in given] + words
    paths = [f"run.dir={out}"] + ([f"data.root={root}"] if root else [])
    before, start = _finished(out), time.monotonic()
    run_compare([*settings, *paths], dry_run=False, as_json=False, title=name)
    took = f"{_finished(out) - before} runs in {(time.monotonic() - start) / 60:.1f} min"
    took += f" ({before} were there already)" if before else ""
    store(name, out, settings, words, took)


def _finished(out: Path) -> int:
    return len(list(out.glob("runs/*/result.json")))


def store(name: str, out: Path, settings: list[str], given: list[str], took: str) -> None:
    """Write the result file of a finished comparison, and its figures beside it."""
    today, cores = datetime.date.today().isoformat(), len(os.sched_getaffinity(0))
    stem = f"comparison_{name}_cpu{cores}_{today}"
    results = Path(__file__).parent / "results"
    versions = ", ".join(f"{n} {importlib.metadata.version(n)}" for n in ("torch", "numpy", "POT"))
    rows = json.loads((out / "summary.json").read_text())["rows"]
    comparison = json.loads((out / "comparison.json").read_text())
    figure = ""
    drawn = {
        "trade_off": (f"{stem}.png", "accuracy against forgetting"),
        "gap_cost": (f"{stem}_gap.png", "gap to Retrained against cost"),
    }
    for name_of, (file, title) in drawn.items():
        if (source := out / "report_figures" / f"{name_of}.png").is_file():
            shutil.copyfile(source, results / file)
            figure += f"\n![{title}]({file})\n"
    root = "" if name.startswith(("orl", "synthetic")) else " --data-root PATH"
    words = "".join(f" {word}" for word in given)
    (results / f"{stem}.md").write_text(
        f"# Comparison on {name}\n\n"
        f"`python -m benchmarks.comparison --name {name}{root}{words}`\n\n"
        f"Settings: `{' '.join(settings)}`\n\n"
        f"{platform.machine()}, {cores} cores, python {platform.python_version()}, {versions}. "
        f"{took}. Means with 95 % intervals over the seeds.\n\n"
        f"{(out / 'table.md').read_text()}\n{_details(rows)}\n{_seeds(out, comparison)}\n"
        f"{_failed(comparison)}"
        f"{_tuned(comparison['tuning'])}\n{_cost(out)}{figure}"
    )
    print(f"written: {results / stem}.md")


def _details(rows: list[dict]) -> str:
    """Return the figures that the table of a comparison leaves out, as tables of means."""
    parts = (
        (
            "nomus_paper", "retain_accuracy", "forget_accuracy", "val_accuracy", "mia_auc",
            "tail_share", "linear_probe_accuracy", "wall_seconds",
        ),
        ("gap_retain", "gap_forget", "gap_test", "gap_attack", "salun_gap", "weight_change"),
        (
            "mild_forget_accuracy", "mild_attack_accuracy", "strong_forget_accuracy",
            "strong_attack_accuracy", "loss_barrier",
        ),
    )  # fmt: skip
    return "\n".join(_means(rows, names) for names in parts)


def _means(rows: list[dict], names: tuple[str, ...]) -> str:
    lines = [f"| Method | {' | '.join(names)} |", "| --- |" + " ---: |" * len(names)]
    for row in rows:
        cells = ("–" if row[name] is None else f"{row[name]:.3f}" for name in names)
        lines.append(f"| {row['method']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _seeds(out: Path, comparison: dict) -> str:
    """Return Original beside Retrained seed by seed, and whether the gate is open."""
    results: dict[int, dict[str, dict]] = {}
    for run in comparison["runs"]:
        if run["role"] in ("original", "retrained"):
            result = json.loads((out / run["run_dir"] / "result.json").read_text())
            results.setdefault(run["seed"], {})[run["role"]] = result
    lines = [
        "| Seed | NoMUS of Original | of Retrained | attack on Original | on Retrained |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    for seed, pair in sorted(results.items()):
        if len(pair) == 2:
            both = [pair[role] for role in ("original", "retrained")]
            figures = [*(r["nomus"] for r in both), *(r["mia"]["accuracy"] for r in both)]
            lines.append(f"| {seed} | " + " | ".join(f"{value:.3f}" for value in figures) + " |")
    gate = json.loads((out / "summary.json").read_text())["gate"]
    state = "open" if gate and gate["is_open"] else "closed"
    low, high = gate["interval"] if gate else (0.0, 0.0)
    return "\n".join(lines) + (
        f"\n\nThe gate is {state}: the attack on Original exceeds that on Retrained by "
        f"{gate['difference'] if gate else 0.0:.3f} [{low:.3f}, {high:.3f}].\n"
    )


def _failed(comparison: dict) -> str:
    return "".join(f"\nNot finished: {name}\n" for name in comparison["missing"])


def _tuned(tuning: dict | None) -> str:
    if tuning is None:
        return ""
    lines = [f"\nSettings taken after {tuning['trials']} trials each, by {tuning['objective']}:\n"]
    for method, one in tuning["methods"].items():
        if one["settings"] is None and one["no_gain"]:
            lines.append(
                f"- `{method}`: its defaults, for no trial did better than leaving the model as it "
                f"is ({one['untouched_value']:.3f}); {one['left_as_is']} trials did that"
            )
            continue
        if one["settings"] is None:
            lines.append(f"- `{method}`: no trial finished")
            continue
        chosen = " ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}"
                          for k, v in one["settings"].items())  # fmt: skip
        lines.append(
            f"- `{method}` {one['value']:.3f} (its defaults {one['default_value']:.3f}, the model "
            f"as it was {one['untouched_value']:.3f}): "
            f"{f'`{chosen}`' if chosen else 'its defaults'}"
        )
    return "\n".join(lines) + "\n"


def _cost(out: Path) -> str:
    """Return the core-hours of the loops of all runs under a folder, as their results tell.

    A run has one core. What is measured after its loop counts in trials alone.
    """
    hours: dict[str, Counter[str]] = {}
    for file in sorted(out.glob("*/*/result.json")):
        result = json.loads(file.read_text())
        config = yaml.safe_load(file.with_name("config.yaml").read_text())
        named = {"train": "trainings", "evaluate": "evaluations"}
        what = named.get(result["verb"], config["method"]["name"])
        hours.setdefault(what, Counter())[file.parts[-3]] += result["device_seconds"] / 3600
    lines = ["| Core-hours of the loops | runs | trials, measured |", "| --- | ---: | ---: |"]
    for what, spent in {**hours, "all": sum(hours.values(), Counter())}.items():
        lines.append(f"| {what} | {spent['runs']:.2f} | {spent['tuning']:.2f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
