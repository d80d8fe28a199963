"""The range of every setting that tuning may draw, per method; one space for tune and search."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Uniform:
    """A real number between two bounds; log: uniform in its logarithm."""

    low: float
    high: float
    log: bool = False

    def draw(self, generator: np.random.Generator) -> float:
        if self.log:
            return math.exp(generator.uniform(math.log(self.low), math.log(self.high)))
        return generator.uniform(self.low, self.high)

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}" + (" (log)" if self.log else "")


@dataclass(frozen=True)
class Choice:
    """One of several values, all as likely."""

    values: Sequence[Any]

    def draw(self, generator: np.random.Generator) -> Any:
        return self.values[int(generator.integers(len(self.values)))]

    def __str__(self) -> str:
        return ", ".join(map(str, self.values))


Range = Uniform | Choice

LR = Uniform(1e-4, 3e-2, log=True)
ADAM_LR = Uniform(1e-5, 3e-3, log=True)
EPOCHS = Choice((1, 2, 3, 4))
TEMPERATURE = Choice((1.0, 2.0, 4.0))

SEARCH_SPACES: Mapping[str, Mapping[str, Range]] = {
    "finetune": {"method.lr": LR, "method.epochs": EPOCHS},
    "neggrad": {"method.lr": Uniform(1e-5, 1e-2, log=True), "method.epochs": EPOCHS},
    "neggrad_plus": {
        "method.lr": LR,
        "method.epochs": EPOCHS,
        "method.alpha": Uniform(0.5, 0.999),
    },
    "cf_k": {"method.lr": LR, "method.epochs": EPOCHS, "method.k": Choice((1, 2, 3, 5))},
    "eu_k": {"method.lr": LR, "method.epochs": EPOCHS, "method.k": Choice((1, 2, 3, 5))},
    "unsir": {
        "method.lr": ADAM_LR,
        "method.repair_lr": ADAM_LR,
        "method.repair_epochs": Choice((1, 2, 3)),
        "method.noise_penalty": Uniform(0.01, 1.0, log=True),
    },
    "bad_teacher": {
        "method.lr": ADAM_LR,
        "method.epochs": EPOCHS,
        "method.temperature": TEMPERATURE,
        "method.retain_fraction": Choice((0.3, 1.0)),
    },
    "scrub": {
        "method.lr": Uniform(1e-4, 1e-2, log=True),
        "method.epochs": Choice((2, 3, 4)),
        "method.max_epochs": Choice((1, 2)),
        "method.temperature": TEMPERATURE,
        "method.distill_weight": Uniform(1e-3, 1.0, log=True),
    },
    "salun": {
        "method.lr": LR,
        "method.epochs": EPOCHS,
        "method.sparsity": Choice((0.3, 0.5, 0.7, 0.9)),
    },
    "ssd": {
        "method.selection": Uniform(1.0, 10.0, log=True),
        "method.dampening": Uniform(0.1, 5.0, log=True),
    },
    "l1_sparse": {
        "method.lr": LR,
        "method.epochs": EPOCHS,
        "method.l1_weight": Uniform(1e-6, 1e-3, log=True),
    },
    "dlfd": {
        "method.lr": LR,
        "method.epochs": EPOCHS,
        "method.forget_weight": Uniform(0.5, 20.0, log=True),
        "method.initial_retain_weight": Uniform(0.0, 1.0),
        "method.forget_threshold": Uniform(0.01, 0.15),
        "synthesis.step_size": Uniform(0.01, 0.4, log=True),
        "synthesis.pgd_radius": Uniform(0.05, 2.0, log=True),
    },
}


def draw_settings(method: str, trial: int, seed: int) -> dict[str, Any]:
    """Return the settings of one trial, a function of (method, trial, seed) alone."""
    key = [seed, trial, *method.encode()]
    generator = np.random.default_rng(key)
    return {name: space.draw(generator) for name, space in SEARCH_SPACES[method].items()}
