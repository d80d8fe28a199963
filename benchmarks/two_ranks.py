"""What a second rank gains: an outer step of DLFD on one rank and on two, interleaved.

    python benchmarks/two_ranks.py [--batch 32] [--image-size 128] [--iterations 15]
                       [--repeats 5] [--write]

Both ranks live in one process group (gloo, one thread and one core each). In turn the first takes a
step alone while the other waits; both share a step of the same batch (strong scaling); and both
share one of twice the batch (weak). An outer step is the synthesis and the update with it, on
ResNet18. Wall seconds, so the machine must be idle: the load of it stands in the result. The last
line is `ratio R`: alone / shared, the median over repeats.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from results import spread, write_result

from dlfd_dist.config import DLFDConfig, ModelConfig, SynthesisConfig, TransportConfig
from dlfd_dist.methods import Updater
from dlfd_dist.models import FoldedClassifier, build_model
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.synthesis import Objective, layer_output, perturb

RANKS, CLASSES = 2, 8


def outer_step(
    collectives: Collectives, batch: int, image_size: int, iterations: int
) -> Callable[[], None]:
    """Return a step of synthesis and update on this rank's share of a batch."""
    model = build_model(ModelConfig(), image_size=image_size, num_outputs=CLASSES, seed=0)
    model.eval()  # BatchNorm is frozen, as in an unlearning run
    updater = Updater(model, DLFDConfig(), collectives=collectives)
    rows = collectives.shard(batch)
    generator = torch.Generator().manual_seed(0)
    images, forget = torch.rand(2, batch, 3, image_size, image_size, generator=generator)
    images, forget, labels = images[rows], forget[rows], torch.arange(batch)[rows] % CLASSES
    limits = (torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1))
    cfg = SynthesisConfig(steps=iterations)

    folding = FoldedClassifier(model)

    def step() -> None:
        with folding.computed_in(images.shape, bfloat16=False) as folded:
            own = layer_output(folded, forget, "features")
            objective = Objective(
                collectives.gather_rows(own, batch), labels, total=batch, forget_weight=3.0,
                retain_weight=0.5, layer="features", ot=TransportConfig(), collectives=collectives,
            )  # fmt: skip
            made = perturb(folded, images, objective, cfg=cfg, pixel_range=limits)
        updater.classify(made.images, labels, total=batch, report=made.report())

    return step


def rank(number: int, folder: str, args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[number]})
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=number, world_size=RANKS
    )
    together = Collectives(number, RANKS)
    given = (args.image_size, args.iterations)
    steps = {
        "one rank": outer_step(Collectives(), args.batch, *given),
        "two ranks, same batch": outer_step(together, args.batch, *given),
        "two ranks, twice the batch": outer_step(together, 2 * args.batch, *given),
    }
    rows = []
    for number_of in range(args.repeats + 1):
        row = []
        for name, step in steps.items():
            dist.barrier()
            start = time.perf_counter()
            if number == 0 or name != "one rank":
                step()
            dist.barrier()
            row.append(time.perf_counter() - start)
        # The first round warms up.
        if number_of and number == 0:
            rows.append(row)
            print(f"repeat {number_of}/{args.repeats}:", *(f"{s:.2f} s" for s in row), flush=True)
    if number == 0:
        np.save(Path(folder) / "found.npy", np.array(rows))
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--iterations", type=int, default=15)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(rank, (folder, args), RANKS)
        alone, strong, weak = np.load(Path(folder) / "found.npy").T
    load = os.getloadavg()[0]
    text = "\n".join([
        "| what | s, median (min to max) | gain: median (min to max) | to reach |",
        "| --- | ---: | ---: | ---: |",
        f"| one rank, batch {args.batch} | {spread(alone)} | | |",
        f"| two ranks, batch {args.batch} | {spread(strong)} | {spread(alone / strong)} | 1.85 |",
        f"| two ranks, batch {2 * args.batch} | {spread(weak)} | {spread(2 * alone / weak)} | |",
        "",
        f"Gain: images per second over those of one rank. {args.iterations} iterations and the "
        f"update, ResNet18, {args.image_size} px, a core for each rank; load of the machine at the "
        f"end: {load:.1f}.",
    ])  # fmt: skip
    print(text)
    ratio = float(np.median(alone / strong))
    if args.write:
        write_result("two_ranks", "A second rank", text, ratio)
    print(f"ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
