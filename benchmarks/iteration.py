"""One synthesis iteration against its floor and against the authors' iteration, interleaved.

    python benchmarks/iteration.py [--batch 32] [--image-size 128] [--repeats 7] [--bfloat16]
                                   [--channels-last] [--write]

The floor is one forward pass and one backward pass with respect to the input of the same model and
batch, parameters frozen. The last line is `ratio R`: median of (our iteration / floor) over repeats
of one run. --write stores the table under benchmarks/results/.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from dlfd_dist.config import ModelConfig, SynthesisConfig, TransportConfig
from dlfd_dist.methods.dlfd_official import official_perturb
from dlfd_dist.models import build_model
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.synthesis import Objective, frozen, layer_output, perturb

STEPS = 3
"""Iterations per timed call; the cost of a call is divided by it."""


def timed(function: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / STEPS


def make_calls(args: argparse.Namespace, device: torch.device) -> dict[str, Callable[[], object]]:
    model = build_model(
        ModelConfig(head="mlp"), image_size=args.image_size, num_outputs=8, seed=0,
        bfloat16=args.bfloat16,
    ).to(device)  # fmt: skip
    memory_format = torch.channels_last if args.channels_last else torch.contiguous_format
    model = model.to(memory_format=memory_format)  # type: ignore[call-overload]
    generator = torch.Generator().manual_seed(0)
    shape = (args.batch, 3, args.image_size, args.image_size)
    images, forget = (
        torch.rand(shape, generator=generator).to(device, memory_format=memory_format)
        for _ in range(2)
    )
    labels = torch.randint(0, 8, (args.batch,), generator=generator).to(device)
    objective = Objective(
        layer_output(model, forget, "features"), labels, total=args.batch, forget_weight=3.0,
        retain_weight=0.5, layer="features", ot=TransportConfig(),
        collectives=Collectives(device=device),
    )  # fmt: skip
    low, high = (torch.full((1, 3, 1, 1), v, device=device) for v in (-2.0, 2.5))

    def floor() -> None:
        with frozen(model):
            for _ in range(STEPS):
                x = images.detach().requires_grad_(True)
                torch.autograd.grad(model(x).logits.sum(), x)

    def forward() -> None:
        with frozen(model), torch.no_grad():
            for _ in range(STEPS):
                model(images)

    def ours() -> None:
        cfg = SynthesisConfig(steps=STEPS, step_size=0.05)
        perturb(model, images, objective, cfg=cfg, pixel_range=(low, high))

    def authors() -> None:
        model.eval()
        official_perturb(
            model, images, labels, forget, steps=STEPS, strength=0.4, forget_weight=3.0,
            retain_weight=0.5,
        )  # fmt: skip

    return {"forward": forward, "floor": floor, "ours": ours, "authors": authors}


def measure(calls: dict[str, Callable[[], object]], repeats: int, device: torch.device):
    for call in calls.values():
        call()
    rows = []
    for number in range(repeats):
        rows.append({name: timed(call, device) for name, call in calls.items()})
        print(f"repeat {number + 1}/{repeats}", *(f"{k}={v:.3f}s" for k, v in rows[-1].items()))
    return {name: np.array([row[name] for row in rows]) for name in calls}


def table(seconds: dict[str, np.ndarray]) -> tuple[str, float]:
    floor = seconds["floor"]
    lines = ["| what | s, median | ratio to floor: median (min to max) |", "| --- | ---: | ---: |"]
    for name, values in seconds.items():
        ratio = values / floor
        lines.append(
            f"| {name} | {np.median(values):.3f} | {np.median(ratio):.3f} "
            f"({ratio.min():.3f} to {ratio.max():.3f}) |"
        )
    against = np.median(seconds["authors"] / seconds["ours"])
    lines.append(f"\nauthors' iteration over ours: {against:.2f}")
    return "\n".join(lines), float(np.median(seconds["ours"] / floor))


def hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device).replace(" ", "-").lower()
    return f"cpu{len(os.sched_getaffinity(0))}"


def write(text: str, device: torch.device) -> None:
    today = datetime.date.today().isoformat()
    path = Path(__file__).parent / "results" / f"iteration_{hardware(device)}_{today}.md"
    versions = ", ".join(f"{n} {importlib.metadata.version(n)}" for n in ("torch", "numpy", "POT"))
    command = " ".join(["python", "benchmarks/iteration.py", *sys.argv[1:]])
    path.write_text(
        f"# One synthesis iteration\n\n`{command}`\n\n{platform.machine()}, {hardware(device)}, "
        f"{torch.get_num_threads()} threads, python {platform.python_version()}, {versions}\n\n"
        f"{text}\n"
    )
    print(f"written: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    text, ratio = table(measure(make_calls(args, device), args.repeats, device))
    print(text)
    text += f"\n\nratio {ratio:.3f}"
    if args.write:
        write(text, device)
    print(f"ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
