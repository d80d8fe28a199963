"""DLFD's settings by `dlfd search` on two face sets, and what they do on a third.

    python -m benchmarks.defaults --ck48 PATH --london PATH [--out DIR] [--trials N]

PATH holds metadata.csv (image_path, identity, label, and no split). On CK+48 and on ORL, ASHA +
Optuna search the space of DLFD by val NoMUS; the settings that each search chose, and those of
configs/method/dlfd.yaml, then run on both sets and on London, which no search saw, with every seed
from its own Original. How London's models are trained is chosen by the val accuracy of Original.
Chosen are the settings with the best mean val NoMUS over CK+48 and ORL; London and all test figures
are only looked at. A run that was interrupted goes on. Written:
benchmarks/results/defaults_<hardware>_<date>.md.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from dlfd_dist.errors import DlfdError
from dlfd_dist.report.intervals import t_interval
from launch.search.search import run_search
from launch.verbs.compare import run_compare

TRAINED = ["forget.fraction=0.2", "train.epochs=30"]
SETS = {
    "ck48": ["data=manifest", "data.image_size=48", "data.augment=none", *TRAINED],
    "orl": ["data=orl", "data.image_size=64", "data.augment=face", *TRAINED],
    # Other people in test than in the split that comes with the set, which had been looked at.
    "london": ["data=manifest", "data.split_seed=1", "data.augment=face", "forget.fraction=0.2"],
}  # fmt: skip
# A third of the images of ORL: it takes another training.
TRAININGS = [
    ["data.image_size=64", "train.epochs=30"],
    ["data.image_size=64", "train.epochs=60"],
    ["data.image_size=48", "train.epochs=60"],
    ["data.image_size=64", "train.epochs=40", "train.global_batch_size=8"],
]
SEARCHED = ("ck48", "orl")
SEEDS, TRAINING_SEEDS = range(5), range(3)
OWN = "dlfd.yaml"
FIGURES = {
    "val NoMUS": lambda r: r["validation"]["nomus"],
    "NoMUS": lambda r: r["nomus"],
    "gap to Retrained": lambda r: r["gap_to_retrained"],
    "test accuracy": lambda r: r["test_accuracy"],
    "forget accuracy": lambda r: r["forget_accuracy"],
    "seconds": lambda r: r["device_seconds"],
}
Results = dict[tuple[str, str], list[dict[str, Any]]]


def main() -> None:
    parser = argparse.ArgumentParser(description="DLFD's settings, searched")
    parser.add_argument("--ck48", required=True)
    parser.add_argument("--london", required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/defaults"))
    parser.add_argument("--trials", type=int, default=32)
    given = parser.parse_args()
    roots = {"ck48": given.ck48, "london": given.london}
    data = {
        name: [*words, *([f"data.root={roots[name]}"] if name in roots else [])]
        for name, words in SETS.items()
    }
    on_val = [
        trained(given.out / "trainings", [*data["london"], *words], number)
        for number, words in enumerate(TRAININGS)
    ]
    data["london"] += TRAININGS[int(np.argmax(on_val))]
    try:
        results = {(name, OWN): ran(given.out, name, data[name], []) for name in SETS}
        found = {
            f"by {name}": searched(given.out, name, data[name], given.trials) for name in SEARCHED
        }
        for settings, words in found.items():
            results |= {(name, settings): ran(given.out, name, data[name], words) for name in SETS}
    except DlfdError as err:
        sys.exit(f"{parser.prog}: {err}")
    store(given.trials, found, results, on_val)


def trained(out: Path, words: list[str], number: int) -> float:
    """Return the mean val accuracy of Original over the seeds, two trainings at a time."""

    def train(seed: int) -> float:
        folder = out / f"{number}-seed{seed}"
        settings = [*words, f"seed={seed}", f"run.dir={folder}", "runtime.threads_per_rank=1"]
        command = [sys.executable, "-m", "launch.cli", "train", *settings]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return json.loads((folder / "result.json").read_text(encoding="utf-8"))["val_accuracy"]

    with ThreadPoolExecutor(2) as pool:
        return statistics.fmean(pool.map(train, TRAINING_SEEDS))


def ran(out: Path, name: str, data: list[str], settings: list[str]) -> list[dict[str, Any]]:
    """Return the results of DLFD on a set with some settings, one per seed."""
    seeds = ",".join(map(str, SEEDS))
    words = [*data, "method=dlfd", f"seed={seeds}", f"run.dir={out / name}", *settings]
    if run_compare(words, dry_run=False, as_json=False, title=name):
        raise DlfdError(f"A run on {name} did not finish: see {out / name}.")
    return [_result(out / name, run) for run in _runs(out / name) if run["method"] == "dlfd"]


def searched(out: Path, name: str, data: list[str], trials: int) -> list[str]:
    """Return what a search by val NoMUS on a set chose, from its Original of seed 0."""
    original = next(run["run_dir"] for run in _runs(out / name) if run["role"] == "original")
    folder = out / f"{name}-search"
    words = [
        *data, "method=dlfd", "search=optuna", "search.scheduler=asha",
        f"search.num_samples={trials}", f"checkpoint={out / name / original}",
        f"run.dir={folder}",
    ]  # fmt: skip
    if run_search(words, dry_run=False, as_json=False, resume=None):
        raise DlfdError(f"The search on {name} chose nothing: see {folder}.")
    best = OmegaConf.to_container(OmegaConf.load(folder / "best.yaml"))
    assert isinstance(best, dict)
    return [
        f"{section}.{key}={'null' if value is None else value}"
        for section, held in best.items() if isinstance(held, dict)
        for key, value in held.items() if key != "name"
    ]  # fmt: skip


def _runs(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "comparison.json").read_text(encoding="utf-8"))["runs"]


def _result(folder: Path, run: dict[str, Any]) -> dict[str, Any]:
    return json.loads((folder / run["run_dir"] / "result.json").read_text(encoding="utf-8"))


def store(trials: int, found: dict[str, list[str]], results: Results, on_val: list[float]) -> None:
    """Write the result file."""
    today, num_cores = datetime.date.today().isoformat(), os.cpu_count()
    chosen = max([OWN, *found], key=lambda settings: _on_val(results, settings))
    versions = ", ".join(
        f"{n} {importlib.metadata.version(n)}" for n in ("torch", "ray", "optuna", "POT")
    )
    lines = [
        "# DLFD's settings, searched on CK+48 and ORL and shown on London", "",
        f"`python -m benchmarks.defaults --ck48 PATH --london PATH --trials {trials}`; {versions}, "
        f"{num_cores} cores. {trials} trials a set by ASHA + Optuna and val NoMUS, the best three "
        "and the method's own repeated with other seeds. Means with 95 % t-intervals over "
        f"{len(SEEDS)} seeds, each with its own Original and Retrained.", "",
        f"Chosen, by mean val NoMUS over CK+48 and ORL: **{chosen}**.", "",
        f"| set | settings | {' | '.join(FIGURES)} |", "| --- | --- |" + " ---: |" * len(FIGURES),
    ]  # fmt: skip
    for (name, settings), rows in sorted(results.items()):
        figures = [_mean(list(map(figure, rows))) for figure in FIGURES.values()]
        lines.append(f"| {name} | {settings} | {' | '.join(figures)} |")
    lines += ["", *(f"- {name}: `{' '.join(words)}`" for name, words in found.items())]
    seeds = len(TRAINING_SEEDS)
    lines += [
        "", f"London's training, by the val accuracy of Original, the mean over {seeds} seeds:", "",
        *(f"- {value:.3f} `{' '.join(words)}`"
          for value, words in zip(on_val, TRAININGS, strict=True)),
    ]  # fmt: skip
    path = Path(__file__).parent / "results" / f"defaults_cpu{num_cores}_{today}.md"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"written: {path}")


def _on_val(results: Results, settings: str) -> float:
    means = [
        statistics.fmean(map(FIGURES["val NoMUS"], results[name, settings])) for name in SEARCHED
    ]
    return statistics.fmean(means)


def _mean(values: list[float]) -> str:
    interval = t_interval(np.array(values))
    assert interval is not None
    return f"{statistics.fmean(values):.3f} ± {(interval[1] - interval[0]) / 2:.3f}"


if __name__ == "__main__":
    main()
