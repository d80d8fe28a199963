"""A cheap stand-in for Retrained: weights that know little of the forget set, and retain epochs.

It starts from Original, reset, or from weights that training kept, and is a teacher after that.
"""

from __future__ import annotations

import copy
from dataclasses import replace

from torch import Tensor

from ..config import DLFMConfig
from ..models import Classifier, set_dropout_rows
from ..runtime.checkpoint import optimizer_tensors, restore_optimizers
from ..runtime.seeding import purpose_key
from ..runtime.sync_bn import freeze_batch_norm
from .bad_teacher import as_teacher
from .base import MethodContext, StepBatch
from .start import reset_weights
from .update import Updater


class StandIn:
    """A model that is trained on retain batches, and then answers for Retrained.

    BatchNorm learns the statistics of the retain images while it is trained.
    """

    def __init__(self, context: MethodContext, cfg: DLFMConfig):
        self.context = context
        self.model = _start(context, cfg)
        settings = replace(cfg, lr=cfg.teacher_lr)
        self.updater: Updater | None = Updater(
            self.model,
            settings,
            collectives=context.collectives,
            cuda_graphs=context.config.runtime.cuda_graphs,
        )

    def learn(self, batch: StepBatch, *, lr: float, stop: bool) -> dict[str, float]:
        """Take a step on the classification loss of the retain batch; return what is logged."""
        assert self.updater is not None
        for group in self.updater.optimizer.param_groups:
            group["lr"] = lr
        self.model.train()
        if batch.total == 1:  # a single image has no variance
            freeze_batch_norm(self.model)
        key = (self.context.config.seed, purpose_key("stand-in dropout"), batch.index)
        set_dropout_rows(self.model, (batch.total,), self.context.collectives, *key)
        return self.updater.classify(batch.images, batch.labels, total=batch.total, stop=stop)

    def teacher(self) -> Classifier:
        """Return the model, which is trained no further."""
        if self.updater is not None:
            self.updater = None
            as_teacher(self.model)
        return self.model

    def tensors(self) -> dict[str, Tensor]:
        """Return its weights, and the buffers of its optimiser while it is trained."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        if self.updater is not None:
            buffers = optimizer_tensors(self.updater.optimizers)
            tensors |= {f"optimizer.{name}": value for name, value in buffers.items()}
        return tensors

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}}
        for name, value in tensors.items():
            part, _, key = name.partition(".")
            parts[part][key] = value
        self.model.load_state_dict(parts["model"])
        assert self.updater is not None
        restore_optimizers(self.updater.optimizers, parts["optimizer"])


def _start(context: MethodContext, cfg: DLFMConfig) -> Classifier:
    if cfg.teacher == "rewound":
        return context.earlier_model()
    model = copy.deepcopy(context.model)
    how = cfg if cfg.reset != "none" else replace(cfg, reset="shrink")
    reset_weights(model, context.fresh_model(), how)
    return model
