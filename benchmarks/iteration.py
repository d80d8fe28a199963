"""One synthesis iteration against its floor and against the authors' iteration, interleaved.

    python benchmarks/iteration.py [--batch 32] [--image-size 128] [--repeats 7]
                       [--autocast none,bfloat16] [--channels-last] [--compile] [--cuda-graphs]
                       [--write]

The floor is one forward pass and one backward pass with respect to the input of the same model,
dtype and batch, parameters frozen (`dlfd_dist/synthesis/floor.py`). "ours" folds BatchNorm into the
convolutions and counts what folding costs, once for STEPS iterations; "unfolded" is
runtime.fast=false. --channels-last, --compile (torch.compile of the model) and --cuda-graphs
(runtime.cuda_graphs=true, on CUDA alone) add variants to each --autocast; of each variant it is
said what it gains over the unfolded float32, and of float32 what it costs of the floor of plain
float32. The last line is `ratio R`: the largest median of (our iteration / floor) of the variants
that are not compiled, over repeats of one run. On the CPU, seconds are those of the process on one
thread, so that other processes of the machine do not count. --write stores the table under
benchmarks/results/.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from results import clock, pick_device, spread, write_result

from dlfd_dist.config import ModelConfig, SynthesisConfig, TransportConfig
from dlfd_dist.methods.dlfd_official import official_perturb
from dlfd_dist.models import FoldedClassifier, build_model
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.synthesis import (
    Objective,
    floor_iterations,
    frozen,
    interleaved,
    layer_output,
    perturb,
)

STEPS = 3
"""Iterations per timed call; the cost of a call is divided by it."""
AUTHORS = "authors' iteration, float32"

Calls = dict[str, Callable[[], object]]


class Variant(NamedTuple):
    """How the iteration is computed."""

    autocast: str = "none"
    channels_last: bool = False
    run_by: str = "eager"
    """eager, torch.compile or CUDA graphs"""

    @property
    def name(self) -> str:
        words = ["float32" if self.autocast == "none" else self.autocast]
        words += ["channels_last"] * self.channels_last + [self.run_by] * (self.run_by != "eager")
        return ", ".join(words)


PLAIN = Variant()
TO_REACH = {PLAIN: 0.90, Variant(channels_last=True): 0.85}
"""Our iteration over the floor of plain float32, by how it is computed."""


def variants(args: argparse.Namespace) -> list[Variant]:
    found = [PLAIN]
    ways = ["eager"] + ["torch.compile"] * args.compile + ["CUDA graphs"] * args.cuda_graphs
    for autocast in args.autocast.split(","):
        for channels_last in (False, True) if args.channels_last else (False,):
            found += [Variant(autocast, channels_last, run_by) for run_by in ways]
    return list(dict.fromkeys(found))


def make_calls(args: argparse.Namespace, variant: Variant, device: torch.device) -> Calls:
    model = build_model(
        ModelConfig(head="mlp"), image_size=args.image_size, num_outputs=8, seed=0,
        bfloat16=variant.autocast == "bfloat16",
    ).to(device)  # fmt: skip
    memory_format = torch.channels_last if variant.channels_last else torch.contiguous_format
    model = model.to(memory_format=memory_format)  # type: ignore[call-overload]
    generator = torch.Generator().manual_seed(0)
    shape = (args.batch, 3, args.image_size, args.image_size)
    images, forget = (
        torch.rand(shape, generator=generator).to(device, memory_format=memory_format)
        for _ in range(2)
    )
    labels = torch.randint(0, 8, (args.batch,), generator=generator).to(device)
    folding = FoldedClassifier(model, cuda_graphs=variant.run_by == "CUDA graphs")
    unfolded = FoldedClassifier(model, fold=False)
    if variant.run_by == "torch.compile":
        model.compile()
        folding.folded.compile()
    objective = Objective(
        layer_output(model, forget, "features"), labels, total=args.batch, forget_weight=3.0,
        retain_weight=0.5, layer="features", ot=TransportConfig(),
        collectives=Collectives(device=device),
    )  # fmt: skip
    cfg = SynthesisConfig(steps=STEPS, step_size=0.05)
    pixel_range = tuple(torch.full((1, 3, 1, 1), v, device=device) for v in (-2.0, 2.5))

    def forward() -> None:
        with frozen(model), torch.no_grad():
            for _ in range(STEPS):
                model(images)

    def authors() -> None:
        model.eval()
        official_perturb(
            model, images, labels, forget, steps=STEPS, strength=0.4, forget_weight=3.0,
            retain_weight=0.5,
        )  # fmt: skip

    def ours(folding: FoldedClassifier) -> None:
        with folding.computed_in(shape, bfloat16=variant.autocast == "bfloat16") as folded:
            perturb(folded, images, objective, cfg=cfg, pixel_range=pixel_range)

    calls: Calls = {
        f"{variant.name}: floor": lambda: floor_iterations(model, images, STEPS),
        f"{variant.name}: unfolded": lambda: ours(unfolded),
        f"{variant.name}: ours": lambda: ours(folding),
    }
    if variant == PLAIN:
        calls |= {"forward pass, float32": forward, AUTHORS: authors}
    if folding.captured:
        ours(folding)  # its second iteration is captured
        assert folding.captured.why_not is None, folding.captured.why_not
    return calls


def table(seconds: dict[str, np.ndarray], measured: list[Variant]) -> tuple[str, float]:
    plain = seconds[f"{PLAIN.name}: unfolded"]
    lines = [
        "| variant | floor, s | unfolded, s | ours, s | unfolded / floor | "
        "ours / floor: median (min to max) | unfolded float32 / ours: median (min to max) |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    ratios = {}
    for variant in measured:
        floor, unfolded, ours = (
            seconds[f"{variant.name}: {side}"] for side in ("floor", "unfolded", "ours")
        )
        ratios[variant] = float(np.median(ours / floor))
        lines.append(
            f"| {variant.name} | {np.median(floor):.3f} | {np.median(unfolded):.3f} | "
            f"{np.median(ours):.3f} | {np.median(unfolded / floor):.3f} | "
            f"{spread(ours / floor, 3)} | {spread(plain / ours)} |"
        )
    floor = seconds[f"{PLAIN.name}: floor"]
    for name in ("forward pass, float32", AUTHORS):
        lines.append(
            f"| {name} | {np.median(floor):.3f} | | {np.median(seconds[name]):.3f} | | "
            f"{spread(seconds[name] / floor, 3)} | {spread(plain / seconds[name])} |"
        )
    for variant in [v for v in TO_REACH if v in measured]:
        ours = seconds[f"{variant.name}: ours"]
        lines.append(
            f"\n{variant.name}, ours / floor of {PLAIN.name}: {spread(ours / floor, 3)} "
            f"(to reach: {TO_REACH[variant]:.2f})."
        )
    return "\n".join(lines), max(r for v, r in ratios.items() if v.run_by != "torch.compile")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--autocast", default="none")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--cuda-graphs", action="store_true")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    device = pick_device()
    if args.cuda_graphs and device.type != "cuda":
        parser.error(f"--cuda-graphs needs a CUDA device, and this machine has a {device.type}.")
    torch.set_num_threads(1)
    chosen, calls, rows = variants(args), {}, []
    for variant in chosen:
        calls |= make_calls(args, variant, device)
    for row in interleaved(calls, args.repeats, device, clock=clock(device)):
        rows.append({name: value / STEPS for name, value in row.items()})
        print(f"repeat {len(rows)}/{args.repeats}", *(f"{k} {v:.3f}s" for k, v in rows[-1].items()))
    text, ratio = table({name: np.array([row[name] for row in rows]) for name in calls}, chosen)
    print(text)
    if args.write:
        write_result("iteration", "One synthesis iteration", text, ratio, device=device)
    print(f"ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
