"""The exact plan against the entropic one, by size: seconds, and what the entropic plan costs more.

    python benchmarks/transport.py [--sizes 32,64,128,256,512,1024,2048] [--repeats 3] [--write]

Both are `dlfd_dist/transport/solve.py` as a synthesis iteration calls it: cosine cost of n x 512
features of each side, float32, uniform marginals; exact is POT's network simplex, entropic its
Sinkhorn in the log domain at ot.reg=0.01 and ot.max_iter=1000 (the defaults). Three inputs: alike
(both sides one Gaussian, all costs nearly equal), apart (the second side moved by a deviation along
a direction) and classes (eight clusters, the second side moved; as a trained classifier has them).
Seconds are those of the process on one thread, the two solvers in turn; with CUDA those of a clock,
and the cost lies on the device: the simplex takes it to the host, Sinkhorn runs there. The error is
<P, C> of the entropic plan over that of the exact one, minus 1. The last line is `ratio R`:
entropic / exact at the largest size, the median over repeats.

solver=auto in dlfd_dist/transport/solve.py takes its limit from the result file of this script.
"""

from __future__ import annotations

import argparse
import warnings
from typing import NamedTuple

import numpy as np
import torch
from results import clock, pick_device, spread, write_result
from torch import Tensor

from dlfd_dist.transport import cosine_cost, solve

WIDTH, REG, MAX_ITER = 512, 0.01, 1000
INPUTS = {"alike": (0.0, 0.0), "apart": (1.0, 0.0), "classes": (1.0, 2.0)}
"""How far the second side is moved, and how far classes lie from their mean, in deviations."""
NUM_CLASSES = 8
LARGE = 1024
"""Rows from which on a size is measured once: Sinkhorn may take minutes there."""


class Row(NamedTuple):
    """What was measured of one size and input."""

    size: int
    kind: str
    exact: np.ndarray
    entropic: np.ndarray
    error: float
    iterations: int
    converged: bool


def cost_matrix(size: int, moved: float, spread_of_classes: float) -> Tensor:
    """Return the cost of features after a ReLU, as those of a ResNet are."""
    generator = torch.Generator().manual_seed(size)
    centres = spread_of_classes * torch.randn(NUM_CLASSES, WIDTH, generator=generator)
    x, y = (
        torch.randn(size, WIDTH, generator=generator)
        + centres[torch.randint(NUM_CLASSES, (size,), generator=generator)]
        for _ in range(2)
    )
    direction = torch.randn(WIDTH, generator=generator)
    return cosine_cost(x.relu(), (y + moved * direction).relu())


def measure(size: int, kind: str, repeats: int, device: torch.device) -> Row:
    cost, now = cost_matrix(size, *INPUTS[kind]).to(device), clock(device)
    seconds, solved = {"exact": [], "entropic": []}, {}
    for _ in range(repeats):
        for solver, taken in seconds.items():
            start = now()
            solved[solver] = solve(cost, solver=solver, reg=REG, max_iter=MAX_ITER)
            taken.append(now() - start)
    exact, entropic = solved["exact"], solved["entropic"]
    return Row(
        size, kind, np.array(seconds["exact"]), np.array(seconds["entropic"]),
        float(entropic.value / exact.value) - 1, entropic.num_iters, entropic.converged,
    )  # fmt: skip


def table(rows: list[Row]) -> str:
    lines = [
        "| rows a side | features | exact, ms | entropic, ms | entropic / exact: median (min to "
        "max) | cost of the entropic plan above the exact | Sinkhorn iterations |",
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        stopped = "" if row.converged else " (not converged)"
        lines.append(
            f"| {row.size:,} | {row.kind} | {np.median(row.exact) * 1e3:.1f} | "
            f"{np.median(row.entropic) * 1e3:.1f} | {spread(row.entropic / row.exact)} | "
            f"{row.error:+.2%} | {row.iterations}{stopped} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="32,64,128,256,512,1024,2048")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="The entropic transport solver")
    device = pick_device()
    measure(32, "alike", 1, device)  # loads what is loaded once
    rows = []
    for size in map(int, args.sizes.split(",")):
        for kind in INPUTS:
            repeats = args.repeats if size < LARGE else 1
            rows.append(measure(size, kind, repeats, device))
            print(table(rows[-1:]).splitlines()[-1], flush=True)
    text = table(rows)
    ratio = float(np.median(rows[-1].entropic / rows[-1].exact))
    faster = [f"{r.size:,} ({r.kind})" for r in rows if np.median(r.entropic / r.exact) < 1]
    text += (
        f"\n\nThe entropic plan was the faster one at: {', '.join(faster) or 'no size'}. "
        f"Sizes from {LARGE:,} on were timed once."
    )
    print(text)
    if args.write:
        write_result("transport", "Exact and entropic plans by size", text, ratio, device=device)
    print(f"ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
