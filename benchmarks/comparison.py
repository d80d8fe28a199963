"""Methods x seeds on a data set, by `dlfd compare`, stored as a result file (numbers, no images).

    python benchmarks/comparison.py --data-root PATH [--name ck48] [--out DIR] [key=value ...]

PATH holds metadata.csv (image_path, identity, label). Written: benchmarks/results/
comparison_<name>_<hardware>_<date>.md with the table, the settings and the versions, and the
trade-off figure beside it.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import shutil
from pathlib import Path

from launch.compare import run_compare

SETTINGS = [
    "data=manifest",
    "data.image_size=48",
    "data.augment=none",
    "forget.fraction=0.2",
    "train.epochs=30",
    "method=finetune,dlfd",
    "seed=0,1,2",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--name", default="ck48")
    parser.add_argument("--out", default="runs/benchmark")
    parser.add_argument("settings", nargs="*")
    args = parser.parse_args()
    given = {s.split("=", 1)[0] for s in args.settings}
    settings = [s for s in SETTINGS if s.split("=", 1)[0] not in given] + args.settings
    paths = [f"data.root={args.data_root}", f"run.dir={args.out}"]
    status = run_compare([*settings, *paths], dry_run=False, as_json=False, title=args.name)
    if status == 0:
        store(args.name, Path(args.out), settings)


def store(name: str, out: Path, settings: list[str]) -> None:
    today = datetime.date.today().isoformat()
    stem = f"comparison_{name}_cpu{len(os.sched_getaffinity(0))}_{today}"
    results = Path(__file__).parent / "results"
    versions = ", ".join(f"{n} {importlib.metadata.version(n)}" for n in ("torch", "numpy", "POT"))
    rows = json.loads((out / "summary.json").read_text())
    attack = "\n".join(
        f"- {row['method']}: attack AUC {row['mia_auc']:.3f}, forget accuracy "
        f"{row['forget_accuracy']:.3f}"
        for row in rows
    )
    figure = ""
    if (drawn := out / "report_figures" / "trade_off.png").is_file():
        shutil.copyfile(drawn, results / f"{stem}.png")
        figure = f"\n![accuracy against forgetting]({stem}.png)\n"
    command = f"python benchmarks/comparison.py --data-root PATH --name {name}"
    (results / f"{stem}.md").write_text(
        f"# Comparison on {name}\n\n`{command}`\n\nSettings: `{' '.join(settings)}`\n\n"
        f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, python "
        f"{platform.python_version()}, {versions}. Means with 95 % t-intervals over the seeds.\n\n"
        f"{(out / 'table.md').read_text()}\n{attack}\n{figure}"
    )
    print(f"written: {results / stem}.md")


if __name__ == "__main__":
    main()
