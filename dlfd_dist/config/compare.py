"""Settings of dlfd compare itself: what it tunes, on whose models, how many runs at a time."""

from __future__ import annotations

from dataclasses import dataclass

from ..objectives import TUNED
from .checks import chosen_on_val, one_of, require


@dataclass(frozen=True)
class CompareConfig:
    """The section `compare` of the command line; no run knows of it."""

    tune: int = 0
    """Trials per method, drawn at random and judged on val, before the comparison; 0: no tuning."""
    objective: str = "gap"
    """What trials are judged by, on val: gap (the distance to Retrained), attack_at_most (accuracy
    where the attack is hardly stronger than on Retrained), resurface (the distance once both were
    fine-tuned on) or nomus, which needs no Retrained and is often best where nothing was forgotten.
    With all but nomus and people drawn by each seed, the
    trials forget a draw of their own, against a Retrained of its own. A choice that is no better
    than the untouched model is refused."""
    tune_seed: int = 0
    """Seed of the draws, of settings and of the people whom trials forget."""
    tune_seeds: int = 1
    """How many of the comparison's first seeds (pairs of train seed and seed) a trial runs on; it
    is judged by the mean. One seed is noise: a setting that suits one model may ruin another."""
    steps: int | None = None
    """Optimiser steps of every method that has any, over all its phases, in place of its epochs;
    null: the epochs of each method."""
    train_seeds: list[int] | None = None
    """Seeds of Original and Retrained; every method runs on each of them with every seed. null:
    a seed unlearns the model that was trained with the same seed."""
    workers: int | None = None
    """Runs at a time, each on its share of the cores; null: one per core. Used while a run takes
    one rank (runtime.world_size=1)."""

    contrasts: list[str] | None = None
    """The pairs of rows that are tested, named before the runs, as SUBJECT/OTHER: a method (with
    its variant), original, retrained, or best as OTHER, the best method by validation that no
    contrast names. null: dlfd, or where it is not compared the last method, against original,
    retrained, finetune and best. Every further contrast makes the others harder to establish."""
    margin: float = 0.03
    """Two rows are called tied where two one-sided tests show their difference within +-margin."""

    def __post_init__(self) -> None:
        require(self.tune >= 0, "compare.tune", self.tune, ">= 0")
        chosen_on_val("compare.objective", self.objective)
        one_of("compare.objective", self.objective, TUNED)
        require(self.tune_seeds >= 1, "compare.tune_seeds", self.tune_seeds, ">= 1")
        require(self.tune_seed >= 0, "compare.tune_seed", self.tune_seed, ">= 0")
        if self.train_seeds is not None:
            require(
                len(self.train_seeds) >= 1 and min(self.train_seeds) >= 0,
                "compare.train_seeds", self.train_seeds, "a list of seeds >= 0, or null",
            )  # fmt: skip
        for pair in self.contrasts or []:
            require(
                pair.count("/") == 1 and all(side.strip() for side in pair.split("/")),
                "compare.contrasts", pair, "pairs such as dlfd/finetune",
            )  # fmt: skip
        require(0 < self.margin < 1, "compare.margin", self.margin, "between 0 and 1")
        if self.steps is not None:
            require(self.steps >= 1, "compare.steps", self.steps, ">= 1, or null")
        if self.workers is not None:
            require(self.workers >= 1, "compare.workers", self.workers, ">= 1, or null")
