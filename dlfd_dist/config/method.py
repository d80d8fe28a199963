"""The settings that every unlearning method has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..errors import ConfigError
from .checks import METHOD_SCHEDULERS, check_sgd, chosen_on_val, one_of, require

RESETS = ("none", "shrink", "layers")
PROFILES = ("even", "rising", "falling")
NO_RESET = {
    "reset": "shrinks every weight itself, as method.shrink says",
    "rewind": "starts from the weights of an earlier epoch",
    "weight_distortion": "starts from Original's weights with noise of its own",
    "ct": "starts from Original's kernels, transposed",
    "msg": "draws weights anew by their gradients in Original",
    "eu_k": "draws the last blocks anew itself",
    "ssd": "weighs Original's weights and takes no step that would repair a reset",
    "neggrad": "takes no step on the retain set that would repair a reset",
    "dlfd_official": "repeats the authors' loop, which starts from Original",
}
"""Why a method takes no method.reset."""


@dataclass(frozen=True)
class MethodConfig:
    """What every method has: SGD passes over the retain set, probed and selected on val."""

    takes_steps: ClassVar[bool] = True
    """Whether an optimiser moves the weights, step by step."""

    name: str = "finetune"
    """Registry key; see docs/methods.md."""
    epochs: int = 1
    """Passes over the retain set, or as the method has them."""
    lr: float = 1e-3
    """Learning rate at the beginning."""
    momentum: float = 0.9
    """Of SGD, 0..1; beta1 of adam."""
    weight_decay: float = 5e-4
    """L2 penalty of the optimiser."""
    global_batch_size: int = 32
    """Retain images of one step, of all ranks together."""
    optimizer: str = "sgd"
    """sgd, or adam (momentum is then its beta1)."""
    clip_norm: float | None = 1.0
    """Largest gradient norm; null: no clipping."""
    lr_scheduler: str = "constant"
    """constant, or one step per epoch: cosine (to zero) or triangle (up to lr and down again); or
    one per batch: cosine_batch (to zero over all steps)."""
    max_steps: int | None = None
    """Steps at most; null: all epochs."""
    steps: int | None = None
    """Optimiser steps in all, over every phase; epochs are then as many as these take. null: epochs
    and max_steps count. A method without optimiser steps does not read it, and one that forgets and
    repairs in turn ends with a repair."""
    augment: bool = False
    """Augment the retain images as data.augment says, before anything else is done with them."""
    probe_every: int | None = None
    """Steps between forgetting-score probes; null: before the first and after the last step."""
    probe_attack: str = "mia"
    """Attack of the probe: mia (balanced, on confidence) or mia_paper (raw loss)."""
    select: str = "last"
    """Which weights are delivered: last, accuracy (best validation accuracy among probes whose
    forgetting score is at most max_forgetting_score), nomus (best validation NoMUS) or rewind
    (the probe whose accuracy on the forget set is nearest to that on val: SCRUB+R)."""
    max_forgetting_score: float = 0.5
    """Largest forgetting score, 0..0.5, of a checkpoint that select=accuracy may take."""
    reset: str = "none"
    """What forgets before the first step: none, shrink (every weight of Original goes towards a
    fresh one) or layers (the weights of the last reset_blocks blocks do)."""
    reset_strength: float = 0.5
    """Share of a fresh weight in every weight that is reset, above 0; at 1 nothing of it stays."""
    reset_profile: str = "even"
    """Strength of each block that is reset: even, rising (in equal steps to reset_strength at the
    head) or falling (in equal steps from reset_strength at the first of them)."""
    reset_blocks: int = 1
    """Blocks that reset=layers takes, counted from the head, which is the first of them."""
    reset_images: int = 2048
    """Retain images, at most, on which BatchNorm statistics are measured again after a reset."""

    def __post_init__(self) -> None:
        check_sgd("method", self, schedulers=METHOD_SCHEDULERS)
        if self.steps is not None:
            require(self.steps >= 1, "method.steps", self.steps, ">= 1, or null")
            if self.max_steps is not None:
                raise ConfigError(
                    f"method.steps={self.steps} and method.max_steps={self.max_steps} are both "
                    "set: steps says how many there are, so set method.max_steps=null."
                )
        chosen_on_val("method.select", self.select)
        one_of("method.select", self.select, ("last", "accuracy", "nomus", "rewind"))
        one_of("method.probe_attack", self.probe_attack, ("mia", "mia_paper"))
        if self.probe_every is not None:
            require(self.probe_every >= 1, "method.probe_every", self.probe_every, ">= 1, or null")
        require(
            0 <= self.max_forgetting_score <= 0.5,
            "method.max_forgetting_score", self.max_forgetting_score, "between 0 and 0.5",
        )  # fmt: skip
        self._check_reset()

    @property
    def goes_back(self) -> tuple[str, str] | None:
        """Return what reads weights that training kept and the setting of how many epochs back."""
        return ("method=rewind", "epochs") if self.name == "rewind" else None

    def _check_reset(self) -> None:
        one_of("method.reset", self.reset, RESETS)
        one_of("method.reset_profile", self.reset_profile, PROFILES)
        require(
            0 < self.reset_strength <= 1,
            "method.reset_strength", self.reset_strength, "above 0 and at most 1",
        )  # fmt: skip
        for name, least in (("reset_blocks", 1), ("reset_images", 2)):
            require(
                getattr(self, name) >= least,
                f"method.{name}", getattr(self, name), f">= {least}",
            )  # fmt: skip
        if self.reset != "none" and self.name in NO_RESET:
            raise ConfigError(
                f"method.reset={self.reset} is not allowed with method={self.name}, which "
                f"{NO_RESET[self.name]}: leave method.reset out, or take another method."
            )
