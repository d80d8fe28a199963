"""What it brings that a CPU rank keeps the memory it freed (dlfd_dist/runtime/allocator.py).

    python benchmarks/allocator.py [--repeats 5] [--steps 30] [--write]

A training step of ResNet18 on 32 images, at three sizes, in processes of its own: with the C
library's own settings and with ours, one after the other. Seconds are processor seconds of the
step; a ratio is ours over the other in one repeat. The last line is `ratio R`, the median at 64 px.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torchvision
from results import ratio_table, write_result

SIZES = (32, 64, 128)
ROOT = Path(__file__).resolve().parents[1]


def step_seconds(size: int, steps: int) -> float:
    """Return the median processor seconds of a step, after two that are not counted."""
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=8).train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    images, labels = torch.randn(32, 3, size, size), torch.randint(0, 8, (32,))
    seconds = []
    for _ in range(steps + 2):
        start = time.process_time()
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimiser.step()
        seconds.append(time.process_time() - start)
    return float(np.median(seconds[2:]))


def in_a_process(setting: str, size: int, steps: int) -> tuple[float, float]:
    """Return the seconds of a step and the largest resident memory in MB."""
    command = [sys.executable, __file__, "--child", setting, str(size), str(steps)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    seconds, memory = json.loads(done.stdout)
    return seconds, memory


def child(setting: str, size: str, steps: str) -> None:
    from dlfd_dist.runtime.allocator import keep_freed_memory

    torch.set_num_threads(1)
    if setting == "ours" and not keep_freed_memory():
        sys.exit("This C library does not take the setting, or a variable says otherwise.")
    seconds = step_seconds(int(size), int(steps))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(json.dumps([seconds, peak]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(*args.child)
        return
    ratios, seconds, memory = {}, {}, []
    for size in SIZES:
        timed = np.array([
            [in_a_process(setting, size, args.steps) for setting in ("its own", "ours")]
            for _ in range(args.repeats)
        ])  # fmt: skip
        print(f"{size} px done", flush=True)
        theirs, ours = timed[:, 0], timed[:, 1]
        for name, values in (("as it is", theirs), ("kept", ours)):
            seconds[f"{size} px, {name}"] = values[:, 0]
            ratios[f"{size} px, {name}"] = values[:, 0] / theirs[:, 0]
        memory.append(f"{size} px {np.median(theirs[:, 1]):.0f} and {np.median(ours[:, 1]):.0f} MB")
    text = ratio_table(ratios, seconds, "over the step as it is")
    text += f"\n\nLargest resident memory, as it is and kept: {'; '.join(memory)}."
    print(text)
    ratio = float(np.median(ratios["64 px, kept"]))
    if args.write:
        torch.set_num_threads(1)
        write_result("allocator", "Memory that a CPU rank keeps", text, ratio)
    print(f"ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
