"""What the benchmarks share: device and clock, the table of ratios and the result file."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parent / "results"
PACKAGES = ("torch", "torchvision", "numpy", "POT", "scikit-learn")


def pick_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def clock(device: torch.device) -> Callable[[], float]:
    """Return a clock: seconds of the process, so that others do not count, or of a settled GPU."""
    if device.type == "cpu":
        return time.process_time

    def settled() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return settled


def hardware(device: torch.device | None = None) -> str:
    if device is not None and device.type == "cuda":
        return torch.cuda.get_device_name(device).replace(" ", "-").lower()
    return f"cpu{len(os.sched_getaffinity(0))}"


def spread(values: np.ndarray, digits: int = 2) -> str:
    """Return "median (min to max)"."""
    low, middle, high = np.min(values), np.median(values), np.max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def ratio_table(
    ratios: Mapping[str, np.ndarray], seconds: Mapping[str, np.ndarray], meaning: str
) -> str:
    """Return a table of what was timed: median seconds, and median and range of a ratio."""
    lines = [f"| what | s, median | {meaning}: median (min to max) |", "| --- | ---: | ---: |"]
    for name, values in seconds.items():
        lines.append(f"| {name} | {np.median(values):.3f} | {spread(ratios[name])} |")
    return "\n".join(lines)


def write_result(
    theme: str, title: str, text: str, figure: float, *,
    device: torch.device | None = None, named: str = "ratio",
) -> Path:  # fmt: skip
    """Write results/<theme>_<hardware>_<date>.md with versions, command and one named figure."""
    path = FOLDER / f"{theme}_{hardware(device)}_{datetime.date.today().isoformat()}.md"
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    path.write_text(
        f"# {title}\n\n`{command}`\n\n{platform.machine()}, {hardware(device)}, "
        f"{torch.get_num_threads()} threads, python {platform.python_version()}, "
        f"{versions}\n\n{text}\n\n{named} {figure:.3g}\n",
        encoding="utf-8",
    )
    print(f"written: {path.relative_to(FOLDER.parents[1])}")
    return path
