"""DLFD's schedule on utk_age, chosen on validation, and what each of its freedoms is worth.

    python -m benchmarks.dlfd_freedoms --data-root PATH [--out DIR] [--seed 0] [--seeds 0]
                                       [--workers 1] [--write]

PATH holds metadata.csv: image_path, identity, age_group, split (UTKFace, one image a person). 32
pixels, ResNet18, 16 epochs, the last weights, as many people forgotten as test has. First every
candidate unlearns the Original of --seed, and the one with the smallest gap to Retrained on
validation is taken; no figure of test is read for that. Then, on --seeds, each freedom is taken
away in turn, beside Fine-tune with the same schedule and the authors' own settings.

Every run is a directory under --out that is found again: the same command goes on after a kill.
--write stores benchmarks/results/dlfd_freedoms_<hardware>_<date>.md of what has ended. The last
line is `gain G`: how much larger NoMUS is than Original's, the mean over the seeds.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.results import write_result
from dlfd_dist.compose import compose_job
from dlfd_dist.errors import NonFiniteLossError
from dlfd_dist.jobs import run_job
from dlfd_dist.objectives import gap_on_val, on_val
from dlfd_dist.run_dir import RunDir
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag

DATA = [
    "data.label=age_group", "data.groups=[gender,race]", "data.image_size=32", "data.augment=none",
    "data.leaks=false", "forget.fraction=0.2143", "train.epochs=16", "train.keep_every=4",
    "runtime.threads_per_rank=1",
]  # fmt: skip
# Thirty times the rate of Fine-tune, to zero over the steps: Original's weights must be left.
SCHEDULE = {
    "method.lr": 0.05, "method.lr_scheduler": "cosine_batch", "method.epochs": 2,
    "method.clip_norm": "null", "method.augment": "false", "method.select": "last",
    "train_mode": "sync_bn",
}  # fmt: skip
DLFD = {
    **SCHEDULE, "method.probe_every": 40, "method.clean_share": 0.5, "method.kd_weight": 0.0,
    "synthesis.steps": 2, "synthesis.step_size": 0.05, "synthesis.pgd_radius": 0.1,
}  # fmt: skip
AUTHORS = {
    "method.lr": 0.008, "method.clip_norm": "null", "method.augment": "false",
    "method.initial_retain_weight": 0.0, "method.forget_threshold": 0.15,
    "method.probe_attack": "mia_paper", "method.probe_every": 40, "method.select": "last",
    "synthesis.steps": 15, "synthesis.step_size": 0.4, "synthesis.pgd_radius": "null",
}  # fmt: skip
CANDIDATES = {
    "half unperturbed": {},
    "a quarter unperturbed": {"method.clean_share": 0.25},
    "rate .1": {"method.lr": 0.1},
    "rate .02": {"method.lr": 0.02},
    "distillation .5": {"method.kd_weight": 0.5},
    "radius .5": {"synthesis.pgd_radius": 0.5, "synthesis.step_size": 0.25},
    "one epoch": {"method.epochs": 1},
    "three epochs": {"method.epochs": 3},
}
ABLATION = {
    "all of it": {},
    "no synthesis: Fine-tune": {"method": "finetune"},
    "rate .002, constant": {"method.lr": 0.002, "method.lr_scheduler": "constant"},
    "constant rate": {"method.lr_scheduler": "constant"},
    "BatchNorm frozen": {"train_mode": "frozen"},
    "no unperturbed images": {"method.clean_share": 0.0},
    "no radius": {"synthesis.pgd_radius": "null"},
    "one epoch": {"method.epochs": 1},
    "always synthesising": {"method.dynamic": "false"},
    "no distancing": {"method.distancing": "false"},
    "no classification": {"method.classification": "false"},
    "distillation of .5": {"method.kd_weight": 0.5},
}
FIGURES = (
    "retain_accuracy", "forget_accuracy", "test_accuracy", "nomus", "nomus_paper",
    "gap_to_retrained", "resurfaced_accuracy",
)  # fmt: skip


class Run(NamedTuple):
    """A run by its name, and the words of its command line."""

    name: str
    verb: str
    words: tuple[str, ...]


Results = dict[str, dict[str, Any]]


def words_of(settings: dict[str, Any]) -> list[str]:
    """Return a command line; settings of synthesis go where Fine-tune, which has none, is asked."""
    settings = {"method": "dlfd", **settings}
    own = ("method.epochs", "method.select", *SCHEDULE)
    if settings["method"] == "finetune":
        settings = {k: v for k, v in settings.items() if k in ("method", *own)}
    return [f"{name}={value}" for name, value in settings.items()]


def training(out: Path, data: list[str], seed: int, on: str) -> Run:
    words = [*data, f"seed={seed}", f"train.on={on}", f"run.dir={out / f'{on}-{seed}'}"]
    return Run(f"{on}-{seed}", "train", tuple(words))


def unlearning(
    out: Path, data: list[str], seed: int, name: str, settings: dict[str, Any], *more: str,
    under: str = "",
) -> Run:  # fmt: skip
    folder = f"{name}-{seed}".replace(" ", "_").replace(",", "").replace(":", "")
    models = [f"checkpoint={out / f'all-{seed}'}", f"reference={out / f'retain-{seed}'}"]
    place = f"run.dir={out / under / folder}"
    words = [*data, f"seed={seed}", *models, *words_of(settings), *more, place]
    return Run(f"{name}-{seed}", "unlearn", tuple(words))


def run(one: Run) -> dict[str, Any] | None:
    """Return the result of a run, which goes on where an earlier start of it was stopped.

    None: its loss became no number, so that it has none.
    """
    try:
        result = run_job(compose_job(one.verb, list(one.words)), Collectives(), StopFlag())
    except NonFiniteLossError as err:
        print(f"{one.name}: {err}", flush=True)
        return None
    print(f"{one.name}: {result['wall_seconds']:.0f} s", flush=True)
    return result


def run_all(runs: list[Run], workers: int) -> Results:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        results = zip(runs, pool.map(run, runs), strict=True)
        return {one.name: result for one, result in results if result is not None}


def finished(runs: list[Run]) -> Results:
    """Return the results of the runs that have ended."""
    found = {}
    for one in runs:
        folder = RunDir(Path(next(w for w in one.words if w.startswith("run.dir="))[8:]))
        if folder.finished():
            found[one.name] = folder.read_result()
    return found


def chosen(results: Results, seed: int) -> tuple[str, dict[str, float]]:
    """Return the candidate with the smallest gap on validation, and the gaps of all."""
    retrained = on_val(results[f"retain-{seed}"])
    gaps = {
        name: gap_on_val(on_val(results[f"{name}-{seed}"]), retrained)
        for name in CANDIDATES
        if f"{name}-{seed}" in results
    }
    return min(gaps, key=lambda name: gaps[name]), gaps


def candidates_table(results: Results, gaps: dict[str, float], seed: int) -> str:
    lines = [
        "| candidate | gap on validation | retain | forget | val | AUC against val |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    rows = {"Original": f"all-{seed}", "Retrained": f"retain-{seed}"}
    rows |= {name: f"{name}-{seed}" for name in gaps}
    retrained = on_val(results[f"retain-{seed}"])
    for title, name in rows.items():
        figures = on_val(results[name])
        shown = [gap_on_val(figures, retrained)]
        shown += [figures[f"{part}_accuracy"] for part in ("retain", "forget", "val")]
        lines.append(
            f"| {title} | {' | '.join(f'{v:.3f}' for v in [*shown, figures['mia_auc']])} |"
        )
    return "\n".join(lines)


def ablation_table(results: Results, names: dict[str, list[str]]) -> str:
    """Return the figures of each row, the mean over its runs."""
    titles = ("retain", "forget", "test acc.", "NoMUS", "papers' NoMUS", "gap", "resurfaced")
    lines = [
        f"| what | runs | {' | '.join(titles)} | attack | AUC |",
        "| --- |" + " ---: |" * (len(titles) + 3),
    ]
    for title, runs in names.items():
        ended = [results[name] for name in runs if name in results]
        shown = [_mean([r[figure] for r in ended]) for figure in FIGURES]
        shown += [_mean([r["mia"][f] for r in ended]) for f in ("accuracy", "auc")]
        lines.append(f"| {title} | {len(ended)} | {' | '.join(shown)} |")
    return "\n".join(lines)


def _mean(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.fmean(known):.3f}" if known else "-"


def main() -> None:
    parser = argparse.ArgumentParser(description="DLFD's freedoms, on and off")
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/dlfd_freedoms"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=lambda text: [int(s) for s in text.split(",")], default=[0])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="of what has ended; runs nothing")
    parser.add_argument("settings", nargs="*", help="of every run, such as train.max_steps=2")
    args = parser.parse_args()
    out, seed = args.out, args.seed
    data = [*DATA, f"data.root={args.data_root}", *args.settings]
    seeds = list(dict.fromkeys([seed, *args.seeds]))
    models = [training(out, data, s, on) for s in seeds for on in ("all", "retain")]
    unmeasured = "metrics.resurface_steps=0"
    tried = [
        unlearning(out, data, seed, name, {**DLFD, **settings}, unmeasured, under="candidates")
        for name, settings in CANDIDATES.items()
    ]
    go = finished if args.write else (lambda runs: run_all(runs, args.workers))
    results = go(models) | go(tried)
    best, gaps = chosen(results, seed)
    print(f"chosen: {best}, {gaps}", flush=True)
    settings = {**DLFD, **CANDIDATES[best]}
    rows = {title: {**settings, **changed} for title, changed in ABLATION.items()}
    rows["the authors' settings"] = AUTHORS
    runs = [unlearning(out, data, s, title, row) for title, row in rows.items() for s in args.seeds]
    results |= go(runs)
    if args.write:
        # Where the images and runs of this machine lie is nobody else's business.
        given = [f"--seed={seed}", f"--seeds={','.join(map(str, args.seeds))}", *args.settings]
        sys.argv[1:] = ["--data-root=PATH", *given]
        store(results, best, gaps, seed, args.seeds, settings)


def store(
    results: Results, best: str, gaps: dict[str, float], seed: int, seeds: list[int],
    settings: dict[str, Any],
) -> None:  # fmt: skip
    names = {"Original": "all", "Retrained": "retain"}
    names |= {title: title for title in [*ABLATION, "the authors' settings"]}
    runs = {title: [f"{name}-{s}" for s in seeds] for title, name in names.items()}
    both = [s for s in seeds if f"all of it-{s}" in results]
    gains = {
        figure: statistics.fmean(
            results[f"all of it-{s}"][figure] - results[f"all-{s}"][figure] for s in both
        )
        for figure in ("nomus", "nomus_paper", "test_accuracy")
    }
    text = (
        f"Candidates, seed {seed}, without any figure of test:\n\n"
        f"{candidates_table(results, gaps, seed)}\n\n"
        f"Taken: {best} (`{' '.join(words_of(settings))}`). {len(CANDIDATES) - len(gaps)} of "
        f"{len(CANDIDATES)} candidates have not ended.\n\nEach row changes one thing of it, and is "
        f"the mean over the seeds {seeds}, or over as many of them as have ended (runs): none "
        f"where the loss became no number. Test is read here for the first "
        f"time:\n\n{ablation_table(results, runs)}\n\nOver Original, mean "
        f"of {len(both)} seeds: NoMUS {gains['nomus']:+.3f}, the papers' NoMUS "
        f"{gains['nomus_paper']:+.3f}, test accuracy {gains['test_accuracy']:+.3f}."
    )
    print(text)
    write_result("dlfd_freedoms", "DLFD's freedoms on utk_age", text, gains["nomus"], named="gain")


if __name__ == "__main__":
    main()
