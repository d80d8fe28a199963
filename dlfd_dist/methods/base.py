"""What an unlearning method is to the loop that runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from ..config import JobConfig
from ..models import Classifier, set_dropout_rows
from ..registry import Registry
from ..runtime.collectives import Collectives
from ..runtime.seeding import purpose_key
from ..runtime.sync_bn import freeze_batch_norm
from .update import Updater


@dataclass(frozen=True)
class StepBatch:
    """One step's global retain and forget batch, this rank's shards of them."""

    index: int
    epoch: int
    ids: Tensor
    """(B,) sample ids of the global retain batch"""
    images: Tensor
    labels: Tensor
    total: int
    forget_images: Tensor
    forget_labels: Tensor
    forget_total: int


@dataclass(frozen=True)
class Probe:
    """A look at the model between steps: forget set against validation set."""

    step: int
    val_accuracy: float
    forgetting_score: float
    mia_auc: float
    nomus: float


@dataclass(frozen=True)
class MethodContext:
    """What a method may use."""

    config: JobConfig
    model: Classifier
    updater: Updater
    collectives: Collectives
    num_steps: int
    pixel_range: tuple[Tensor, Tensor]
    to_uint8: Callable[[Tensor], Tensor]
    synthesis_dir: Path


class UnlearningMethod(Protocol):
    """A method: `step` moves the weights, `observe` hears of every probe."""

    shuffle: bool
    """Whether the retain and forget order is shuffled."""
    initial_probe: bool
    """Whether a probe is wanted before the first step."""
    equal_batches: bool
    """Whether a step whose retain and forget batches differ in size is passed over."""

    def step(self, batch: StepBatch, *, stop: bool) -> dict[str, float]:
        """Take one step; return what is logged: at least loss, grad_norm and stop."""
        ...

    def observe(self, probe: Probe) -> dict[str, Any]:
        """Hear of a probe; return what is logged with it."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


methods: Registry[Callable[[MethodContext], UnlearningMethod]] = Registry("method")


def set_training_mode(context: MethodContext, batch: StepBatch) -> None:
    """Put the model into the mode of an update: train_mode=frozen keeps BatchNorm statistics."""
    context.model.train()
    if context.config.train_mode == "frozen":
        freeze_batch_norm(context.model)
    set_dropout_rows(
        context.model, batch.total, context.collectives,
        context.config.seed, purpose_key("dropout"), batch.index,
    )  # fmt: skip
