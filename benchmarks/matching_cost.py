"""What DLFM costs against an epoch of DLFD with 15 synthesis iterations, by `dlfd bench`.

    python benchmarks/matching_cost.py --checkpoint PATH [--rounds 5] [--write] key=value ...

Both are timed in turn, round by round: all of DLFM's epochs with matching in every step (it never
rests), and one epoch of DLFD with synthesis in every step. Without probes, which both have alike,
and without what is around them: data, forward, backward, transport and update count.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
from typing import Any

import numpy as np
from results import ratio_table, spread, write_result

from launch.cli import main as dlfd

SIDES = {
    "DLFM, all its epochs": ["method=dlfm", "method.dynamic=false"],
    "DLFD, one epoch, 15 iterations": ["method=dlfd", "method.epochs=1", "synthesis.steps=15"],
}
COUNTED = ("data", "forward", "backward", "transport", "update", "other")


def benched(words: list[str]) -> dict[str, Any]:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert dlfd(["bench", *words, "--json"]) == 0
    return json.loads(out.getvalue())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("settings", nargs="*")
    given = parser.parse_args()
    words = [*given.settings, f"checkpoint={given.checkpoint}"]
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    steps = {}
    for number in range(given.rounds):
        for side, more in SIDES.items():
            figures = benched([*words, *more])
            steps[side] = figures["num_steps"]
            step = sum(figures["seconds"][phase] for phase in COUNTED)
            seconds[side].append(step * figures["num_steps"])
        print(number, {side: round(values[-1], 1) for side, values in seconds.items()}, flush=True)
    timed = {side: np.array(values) for side, values in seconds.items()}
    ratios = {
        side: values / timed["DLFD, one epoch, 15 iterations"] for side, values in timed.items()
    }
    ratio = ratios["DLFM, all its epochs"]
    print(f"DLFM over DLFD: {spread(ratio)}")
    text = "\n".join(
        [
            f"`{' '.join(given.settings)}`: "
            + ", ".join(f"{k} {n} steps" for k, n in steps.items())
            + ".",
            "",
            ratio_table(ratios, timed, "over DLFD with 15 iterations"),
        ]
    )
    if given.write:
        write_result("matching_cost", "What DLFM costs", text, float(np.median(ratio)))


if __name__ == "__main__":
    main()
