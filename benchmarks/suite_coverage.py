"""Line and branch coverage of a test suite, of one tree or of several one after another.

    python benchmarks/suite_coverage.py [--tree old=PATH --tree new=.] [--folder DIR] [--write]

Counted are the lines and branches of `dlfd_dist/` and `launch/` that `pytest -n 2` reaches in any
of its processes, also in those that tests start or fork, and without a SLURM lab. Each tree is a
checkout (git worktree add PATH REVISION), whose suite runs with this Python. A tree that --folder
holds the figures of is not run again. The last line is `ratio R`: the share of lines of the last
tree over that of the first.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from results import write_result

RULES = """[run]
source_pkgs = dlfd_dist,launch
branch = true
parallel = true
sigterm = true
patch = subprocess, _exit, fork
concurrency = thread,multiprocessing
data_file = {folder}/data
disable_warnings = module-not-measured, no-data-collected, couldnt-parse, module-not-imported
"""


def covered(tree: Path, folder: Path) -> dict[str, float]:
    """Return the totals of coverage's report of a tree; those that are there already are read."""
    report, rules = folder / "cov.json", folder / "rules"
    if not report.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        rules.write_text(RULES.format(folder=folder), encoding="utf-8")
        environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
        makefile = (tree / "Makefile").read_text(encoding="utf-8")
        shared_out = "loadgroup" if "loadgroup" in makefile else "loadfile"
        coverage = [sys.executable, "-m", "coverage"]
        suite = ["-m", "pytest", "-q", "-n", "2", "--dist", shared_out, "-p", "no:cacheprovider"]
        by_rules = [f"--rcfile={rules}"]
        for words in (
            ["run", *by_rules, *suite, "--timeout=1200"],
            ["combine", *by_rules, "-q"],
            ["json", *by_rules, "-q", "-o", str(report), f"--include={tree}/*"],
        ):
            subprocess.run([*coverage, *words], cwd=tree, env=environment, check=True)
    return json.loads(report.read_text(encoding="utf-8"))["totals"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tree", action="append", metavar="NAME=PATH", default=[])
    parser.add_argument("--folder", type=Path, help="where the figures of each tree are left")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    trees = dict(word.split("=", 1) for word in args.tree or ["this=."])
    lines = ["| tree | lines | covered, % | branches | covered, % |", "| --- |" + " ---: |" * 4]
    shares = []
    with tempfile.TemporaryDirectory() as name:
        for tree, path in trees.items():
            totals = covered(Path(path).resolve(), (args.folder or Path(name)).resolve() / tree)
            shares.append(totals["percent_statements_covered"])
            lines.append(
                f"| {tree} | {totals['num_statements']:,} | {shares[-1]:.2f} | "
                f"{totals['num_branches']:,} | {totals['percent_branches_covered']:.2f} |"
            )
    text, ratio = "\n".join(lines), shares[-1] / shares[0]
    print(text)
    if args.write:
        title = "Lines and branches that the suite reaches"
        write_result("suite_coverage", title, text, ratio)
    print(f"ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
