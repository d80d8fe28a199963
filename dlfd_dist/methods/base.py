"""What an unlearning method is to the loop that runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from ..config import METHOD_CONFIGS, JobConfig, MethodConfig
from ..metrics import Equivalence
from ..models import Classifier, FoldedClassifier, set_dropout_rows
from ..registry import Registry
from ..runtime.collectives import Collectives
from ..runtime.seeding import purpose_key
from ..runtime.sync_bn import freeze_batch_norm
from .start import check_reset, reads_blocks
from .update import Updater


@dataclass(frozen=True)
class Phase:
    """Epochs of a method over one set."""

    name: str
    over: str = "retain"
    """What an epoch passes over: retain (each step with a forget batch of the forget set's own,
    cycled order), forget (no retain images) or mixed (batches drawn from both together)"""
    retain_rides: bool = False
    """with over=forget: each step has a retain batch too, of the retain set's own, cycled order"""
    epochs: int = 1
    first_epoch: int = 0
    """number of its first epoch in the schedule of the learning rate"""
    lr: float | None = None
    """learning rate in place of method.lr"""
    optimizer: str = ""
    """phases of one name share momentum, beside that of the others"""
    weight_decay: float | None = None
    """in place of method.weight_decay, for an optimizer of its own"""
    retain_fraction: float | None = 1.0
    """share of the retain set, drawn once, that is passed over; null: as many images as forget"""
    forget_batch: int | None = None
    """most images of a forget batch; null: as many as a retain batch"""
    reference_batch: int = 0
    """most images of a batch of the people who are matched to; 0: none is wanted"""
    selectable: bool = True
    """whether method.select may take a probe within it; that after the last step it always may"""
    steps: int | None = None
    """so many steps in place of whole epochs"""
    updates: bool = True
    """whether its steps are steps of the optimiser"""


@dataclass(frozen=True)
class StepBatch:
    """One step's global retain and forget batch, this rank's shards of them; one may be empty."""

    index: int
    """steps before this one, over all phases"""
    epoch: int
    phase: str
    ids: Tensor
    """(B,) sample ids of the global retain batch"""
    images: Tensor
    labels: Tensor
    total: int
    forget_ids: Tensor
    forget_images: Tensor
    forget_labels: Tensor
    forget_total: int
    reference_images: Tensor | None = None
    """images of people never trained on, where the phase wants them"""
    reference_labels: Tensor | None = None
    """None where nobody labelled them"""
    reference_total: int = 0
    reference_ids: Tensor | None = None
    """(B,) their sample ids in their own set"""

    @property
    def both(self) -> Tensor:
        """(n_retain + n_forget, 3, S, S) this rank's retain, then forget images"""
        return torch.cat([self.images, self.forget_images])


@dataclass(frozen=True)
class Probe:
    """A look at the model between steps: forget set against validation set."""

    step: int
    val_accuracy: float
    forget_accuracy: float
    forgetting_score: float
    mia_auc: float
    nomus: float
    auc_error: float = 0.0
    """standard error of mia_auc over people, if forget and val were alike"""
    forgetting_score_se: float = 0.0
    """standard error of the forgetting score over people"""
    nomus_se: float = 0.0
    over_forgotten: bool = False
    """forget losses are above those of val by more than chance allows"""
    separation: dict[str, float] | None = None
    """class separation of the features on val, where it is asked for"""
    standard_error: float | None = None
    """of the forgetting score, where it is that of a sample and not of all images"""
    equivalence: Equivalence | None = None
    """of forget to val, both against the people who are matched to, where it is asked for"""


@dataclass(frozen=True)
class MethodContext:
    """What a method may use.

    `model` is the original when the method is made; `fresh_model` returns one with new weights,
    `earlier_model` one with those of the epoch that the method goes back to, where training kept
    them.
    """

    config: JobConfig
    model: Classifier
    fresh_model: Callable[[], Classifier]
    collectives: Collectives
    num_steps: int
    num_outputs: int
    pixel_range: tuple[Tensor, Tensor]
    to_uint8: Callable[[Tensor], Tensor]
    synthesis_dir: Path
    earlier_model: Callable[[], Classifier]

    @cached_property
    def folded(self) -> FoldedClassifier:
        """`model` for the passes of a synthesis or a probe, while its weights stand still"""
        runtime = self.config.runtime
        return FoldedClassifier(self.model, fold=runtime.fast, cuda_graphs=runtime.cuda_graphs)


class UnlearningMethod:
    """A method: `step` moves the weights, `observe` hears of every probe.

    It is made before the optimizer and before a checkpoint is read: here it may freeze or draw
    weights and keep a copy of the original.
    """

    shuffle: ClassVar[bool] = True
    """Whether the retain and forget order is shuffled."""
    initial_probe: ClassVar[bool] = True
    """Whether a probe is wanted before the first step."""
    equal_batches: ClassVar[bool] = False
    """Whether a step whose retain and forget batches differ in size is passed over."""
    authors_train_mode: ClassVar[str] = "sync_bn"
    """How the method's authors treat BatchNorm in an update: frozen or sync_bn."""
    refuses_over_forgetting: ClassVar[bool] = False
    """Whether method.select may not take a probe whose forget losses are above those of val."""

    def __init__(self, context: MethodContext):
        self.context = context

    @classmethod
    def phases(cls, cfg: MethodConfig) -> list[Phase]:
        """Return what the method passes over, in order."""
        return [Phase("unlearn", epochs=cfg.epochs)]

    @classmethod
    def check(cls, cfg: MethodConfig, model: Classifier) -> None:
        """Raise ConfigError for settings that this model does not allow."""

    @classmethod
    def checks_model(cls, cfg: MethodConfig) -> bool:
        """Return whether `check_settings` looks at the model, which takes time to build."""
        own = cls.check.__func__ is not UnlearningMethod.check.__func__
        return own or reads_blocks(cfg)

    @classmethod
    def check_settings(cls, cfg: MethodConfig, model: Classifier) -> None:
        """Raise ConfigError for settings, of every method or its own, that the model forbids."""
        if reads_blocks(cfg):
            check_reset(cfg, model)
        cls.check(cfg, model)

    def step(self, batch: StepBatch, updater: Updater, *, stop: bool) -> dict[str, float]:
        """Take one step; return what is logged: at least loss, grad_norm and stop."""
        raise NotImplementedError

    def observe(self, probe: Probe) -> dict[str, Any]:
        """Hear of a probe; return what is logged with it."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert not state, f"{type(self).__name__} keeps no state, but found {sorted(state)}"

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that a resumed run needs, the same on every rank."""
        return {}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        assert not tensors, f"{type(self).__name__} keeps none, but found {sorted(tensors)}"


methods: Registry[type[UnlearningMethod]] = Registry("method")

M = TypeVar("M", bound=type[UnlearningMethod])


def plugin(settings: type[MethodConfig]) -> Callable[[M], M]:
    """Register a method of another package with its settings, as `@plugin(MineConfig)`.

    Its name is the default of `name` in them.
    """

    def add(method: M) -> M:
        registered = methods.register(settings().name)(method)
        METHOD_CONFIGS[settings().name] = settings
        return registered

    return add


def set_training_mode(context: MethodContext, batch: StepBatch, *totals: int) -> None:
    """Put the model into the mode of an update.

    train_mode=frozen keeps every BatchNorm statistic, sync_bn those of layers that are not trained
    and, as a single image has no variance, all of them in a batch of one. train_mode=authors is
    one of the two, as the method says.

    totals : sizes of the global batches that are forwarded as one; none given: the retain batch
    """
    totals = totals or (batch.total,)
    mode = context.config.train_mode
    if mode == "authors":
        mode = methods.get(context.config.method.name).authors_train_mode
    keep_all = mode == "frozen" or sum(totals) == 1
    context.model.train()
    freeze_batch_norm(context.model, trained_too=keep_all)
    set_dropout_rows(
        context.model, totals, context.collectives,
        context.config.seed, purpose_key("dropout"), batch.index,
    )  # fmt: skip
