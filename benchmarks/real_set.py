"""DLFD against the authors' loop on a real set: what the speed costs in quality.

    python benchmarks/real_set.py [--data-root PATH] [--name orl] [--out DIR] [key=value ...]

Without --data-root the ORL faces; PATH holds metadata.csv (image_path, identity, label). Three runs
from every seed's Original: method=dlfd_official with the authors' settings, method=dlfd with the
same (15 iterations, their rates, weights and threshold), and method=dlfd with its own. Written:
benchmarks/results/real_set_<name>_<hardware>_<date>.md with val NoMUS, what test says, and device
seconds, each with its ratio to the authors' loop on the same seed. The last line is `ratio R`: the
authors' seconds over ours, at the same settings.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
from results import spread, write_result

from dlfd_dist.report.intervals import t_interval
from launch.verbs.compare import run_compare

COMMON = ["forget.fraction=0.2", "train.epochs=30", "seed=0,1,2", "method.epochs=3",
          "data.augment=face", "runtime.threads_per_rank=1", "compare.workers=1"]  # fmt: skip
THEIRS = "authors' loop"
SAME = "ours, the authors' settings"
LOOPS = {
    THEIRS: ["method=dlfd_official"],
    SAME: [
        "method=dlfd", "method.lr=0.008", "method.initial_retain_weight=0.0",
        "method.forget_threshold=0.15", "synthesis.steps=15", "synthesis.step_size=0.4",
        "synthesis.pgd_radius=null", "method.probe_every=10",
    ],
    "ours, its own settings": ["method=dlfd"],
}  # fmt: skip
FIGURES = {
    "val NoMUS": lambda r: r["validation"]["nomus"],
    "NoMUS": lambda r: r["nomus"],
    "test accuracy": lambda r: r["test_accuracy"],
    "gap to Retrained": lambda r: r["gap_to_retrained"],
}
Results = dict[str, list[dict[str, Any]]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root")
    parser.add_argument("--name", default="orl")
    parser.add_argument("--out", type=Path, default=Path("runs/real-set"))
    parser.add_argument("settings", nargs="*")
    args = parser.parse_args()
    data = ["data=manifest", f"data.root={args.data_root}"] if args.data_root else ["data=orl"]
    given = {s.split("=", 1)[0] for s in args.settings}
    words = [s for s in [*data, *COMMON] if s.split("=", 1)[0] not in given] + args.settings
    results: Results = {}
    for name, loop in LOOPS.items():
        overrides = [*words, *loop, f"run.dir={args.out}"]
        if run_compare(overrides, dry_run=False, as_json=False, title=name):
            return 1
        results[name] = _results(args.out)
    text, ratio = table(results)
    shown = shlex.join([w for w in words if not w.startswith("data.root=")])
    write_result(f"real_set_{args.name}", f"DLFD against the authors' loop, {args.name}",
                 f"`{shown}`\n\n{text}", ratio)  # fmt: skip
    print(f"ratio {ratio:.2f}")
    return 0


def _results(out: Path) -> list[dict[str, Any]]:
    """Return what the unlearning runs of a comparison measured, by seed."""
    runs = json.loads((out / "comparison.json").read_text(encoding="utf-8"))["runs"]
    return [
        json.loads((out / run["run_dir"] / "result.json").read_text(encoding="utf-8"))
        for run in sorted(runs, key=lambda run: run["seed"]) if run["method"]
    ]  # fmt: skip


def table(results: Results) -> tuple[str, float]:
    """Return the Markdown table, and by how much ours is faster at the same settings."""
    theirs = _seconds(results[THEIRS])
    heads = ["", *FIGURES, "device seconds", "authors / it: median (min to max)"]
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1)]
    for name, found in results.items():
        cells = [_mean([figure(one) for one in found]) for figure in FIGURES.values()]
        seconds = _seconds(found)
        lines.append([name, *cells, f"{seconds.mean():.1f}", spread(theirs / seconds)])
    rows = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    better = [
        a["validation"]["nomus"] - b["validation"]["nomus"]
        for a, b in zip(results[SAME], results[THEIRS], strict=True)
    ]
    said = (
        f"{rows}\n\nMeans with 95 % t-intervals over {len(better)} seeds. Val NoMUS of ours less "
        f"the authors' on the same seed, at the same settings: {_mean(better, '+.3f')}. The "
        "authors' weights are chosen by val accuracy below max_forgetting_score, ours by val "
        "NoMUS. "
        "Seconds are those of the clock, other work of the machine included."
    )
    return said, float(np.median(theirs / _seconds(results[SAME])))


def _seconds(found: list[dict[str, Any]]) -> np.ndarray:
    return np.array([one["device_seconds"] for one in found])


def _mean(values: list[float], form: str = ".3f") -> str:
    interval = t_interval(np.array(values))
    half = "" if interval is None else f" ± {(interval[1] - interval[0]) / 2:.3f}"
    return f"{np.mean(values):{form}}{half}"


if __name__ == "__main__":
    sys.exit(main())
