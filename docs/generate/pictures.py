"""Draw the pictures of README and site from numbers: python -m docs.generate.pictures

Read: docs/pictures/losses.json, which `--runs RUN_DIR...` writes anew from finished runs, and
docs/pictures/demo.cast, which `python -m docs.generate.recording` records anew.
Written: losses.svg, attack.svg and demo.svg in docs/pictures/.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .recording import CAST, drawing
from .svg import Picture

PICTURES = Path(__file__).parents[1] / "pictures"
NUMBERS = PICTURES / "losses.json"
RANGE = (-4.0, 1.0)
"""log10 of the losses that are drawn; what lies beyond is drawn at the end."""
BINS = 25
WIDTH = 215
"""Pixels of a panel of losses."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, nargs="+", help="runs of Original, DLFD, Retrained")
    runs = parser.parse_args().runs
    if runs:
        NUMBERS.write_text(json.dumps(losses_of(runs)) + "\n", encoding="utf-8")
    for name, text in drawn().items():
        (PICTURES / name).write_text(text, encoding="utf-8")


def drawn() -> dict[str, str]:
    """Return name and text of every picture."""
    numbers = json.loads(NUMBERS.read_text(encoding="utf-8"))
    return {
        "losses.svg": str(losses_picture(numbers)),
        "attack.svg": str(attack_picture()),
        "demo.svg": drawing(CAST),
    }


def losses_of(runs: Sequence[Path]) -> dict[str, dict[str, list[int]]]:
    """Return counts of log10 losses by model and part, over all runs of a model."""
    import numpy as np
    import yaml
    from safetensors.numpy import load_file

    counts: dict[str, dict[str, list[int]]] = {}
    for run in runs:
        model = _model_of(yaml.safe_load((run / "config.yaml").read_text("utf-8")))
        arrays = load_file(run / "samples.safetensors")
        for part in ("forget", "test"):
            logs = np.log10(np.clip(arrays[f"{part}.loss"], 1e-12, None)).clip(*RANGE)
            new = np.histogram(logs, bins=BINS, range=RANGE)[0]
            old = counts.setdefault(model, {}).setdefault(part, [0] * BINS)
            counts[model][part] = [int(a + b) for a, b in zip(old, new, strict=True)]
    return counts


def losses_picture(numbers: dict[str, dict[str, list[int]]]) -> Picture:
    """Draw how many images have which loss: forgotten against unseen people, before and after."""
    picture = Picture(
        760, 260, "Losses of forgotten and of unseen people",
        "Three panels: Original, where forgotten people have lower losses than unseen people; the "
        "model after DLFD; and Retrained, which never saw the forgotten people.",
    )  # fmt: skip
    titles = {"original": "Original", "dlfd": "after DLFD", "retrained": "Retrained, the goal"}
    for place, (model, title) in enumerate(titles.items()):
        left = 34 + 242 * place
        picture.text(left, 28, title)
        picture.path([(left, 210), (left + WIDTH, 210)], "rule", width=1)
        for part, kind in (("forget", "forget"), ("test", "other")):
            picture.path(_curve(numbers[model][part], left, WIDTH, 210, 150), kind)
        for exponent in range(-4, 2, 2):
            x = left + WIDTH * (exponent - RANGE[0]) / (RANGE[1] - RANGE[0])
            picture.text(x, 227, f"{10.0**exponent:g}", kind="soft", anchor="middle")
    picture.path([(34, 246), (58, 246)], "forget")
    picture.text(64, 250, "forgotten people")
    picture.path([(194, 246), (218, 246)], "other")
    picture.text(224, 250, "unseen people")
    picture.text(740, 250, "loss of an image", kind="soft", anchor="end")
    return picture


def attack_picture() -> Picture:
    """Draw two normal densities of the logarithm of a loss, and the threshold halfway."""
    picture = Picture(
        640, 210, "An attack by a threshold",
        "Two bell curves. Images left of the threshold are taken for images of the training set.",
    )  # fmt: skip
    picture.path([(20, 160), (620, 160)], "rule", width=1)
    for mean, kind in ((-1.0, "forget"), (1.0, "other")):
        picture.path(_density(lambda x, m=mean: math.exp(-((x - m) ** 2) / 2)), kind)
    picture.path([(320, 30), (320, 172)], "line", width=1)
    picture.text(320, 190, "threshold", anchor="middle")
    picture.text(160, 24, "taken for members", kind="soft", anchor="middle")
    picture.text(480, 24, "taken for strangers", kind="soft", anchor="middle")
    picture.text(20, 190, "low loss", kind="soft")
    picture.text(620, 190, "high loss", kind="soft", anchor="end")
    return picture


def _density(height: Callable[[float], float]) -> list[tuple[float, float]]:
    steps = [step / 10 - 4 for step in range(81)]
    return [(320 + 75 * x, 160 - 110 * height(x)) for x in steps]


def _curve(
    counts: Sequence[int], left: float, width: float, bottom: float, height: float
) -> list[tuple[float, float]]:
    """Return a histogram as points, smoothed over three bins; shares from .3 on fill the height."""
    total = sum(counts)
    padded = [counts[0], *counts, counts[-1]]
    shares = [sum(padded[i : i + 3]) / 3 / total for i in range(len(counts))]
    most = 0.3
    return [
        (left + width * (i + 0.5) / len(counts), bottom - height * min(share / most, 1))
        for i, share in enumerate(shares)
    ]


def _model_of(config: dict[str, Any]) -> str:
    """Return which model a run made: original, retrained, or the name of the method."""
    if config["verb"] == "unlearn":
        return config["method"]["name"]
    return {"all": "original", "retain": "retrained"}[config["train"]["on"]]


if __name__ == "__main__":
    main()
