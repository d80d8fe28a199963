"""One optimizer step of a global batch, the same for every number of ranks."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..config import MethodConfig, TrainConfig
from ..errors import NonFiniteLossError
from ..models import CapturedModel, Classifier, ModelOutput, task_loss
from ..runtime.collectives import Collectives
from ..runtime.phases import phase

logger = logging.getLogger(__name__)

Objective = Callable[[ModelOutput], dict[str, Tensor]]


def classification(labels: Tensor, total: int) -> Objective:
    """Return the classification loss of a global batch of `total` samples as an objective."""

    def objective(output: ModelOutput) -> dict[str, Tensor]:
        return {"loss": task_loss(output.logits, labels, "sum") / total}

    return objective


def scheduled_lr(cfg: TrainConfig | MethodConfig, epoch: float) -> float:
    """Return the learning rate of an epoch (from 0): constant, cosine to zero, or triangle.

    With lr_scheduler=cosine_batch `epoch` has the share of the epoch that is done in it. A triangle
    rises in equal steps to lr, which is that of the epoch in the middle, and falls by as many.
    """
    if cfg.lr_scheduler == "constant":
        return cfg.lr
    if cfg.lr_scheduler == "triangle":
        rising = (cfg.epochs + 1) // 2
        return cfg.lr * min((epoch + 1) / rising, (cfg.epochs - epoch) / (cfg.epochs + 1 - rising))
    return cfg.lr * 0.5 * (1 + math.cos(math.pi * epoch / cfg.epochs))


def _optimizer(
    model: nn.Module, cfg: TrainConfig | MethodConfig, weight_decay: float | None
) -> torch.optim.Optimizer:
    parameters = model.parameters()
    decay = cfg.weight_decay if weight_decay is None else weight_decay
    if cfg.optimizer == "adam":
        return torch.optim.Adam(parameters, cfg.lr, (cfg.momentum, 0.999), weight_decay=decay)
    # One pass over the weights, in under half the time of the plain loop and bit for bit the same.
    return torch.optim.SGD(
        parameters, cfg.lr, momentum=cfg.momentum, weight_decay=decay, fused=True
    )


def _replica(model: nn.Module, device: torch.device) -> nn.Module:
    """Return the model under DDP; every rank holds the same buffers, so none are broadcast."""
    with warnings.catch_warnings():
        # torch 2.14 renames broadcast_buffers; older versions know no other name.
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(
            model,
            device_ids=[device] if device.type == "cuda" else None,
            broadcast_buffers=False,
            # Saves a copy; and biases of one sum would otherwise share one gradient on a rank with
            # a single sample, which clipping in place would then scale twice.
            gradient_as_bucket_view=True,
        )


class Updater:
    """The model with its optimizers, under DDP when there are several ranks.

    A rank's loss is the sum over its samples * world_size / batch, so that DDP's mean over ranks
    is the mean over the global batch, whatever the shards.

    Parameters
    ----------
    cuda_graphs : replay the passes of an update; only of one rank, for DDP reduces gradients within
        the backward pass
    optimizers : names of further optimizers, each with a momentum of its own, and their weight
        decay; None: that of the settings
    """

    def __init__(
        self,
        model: Classifier,
        cfg: TrainConfig | MethodConfig,
        *,
        collectives: Collectives,
        cuda_graphs: bool = False,
        optimizers: Mapping[str, float | None] | None = None,
    ):
        self.model = model
        self.cfg = cfg
        self.collectives = collectives
        decays = {"": None, **(optimizers or {})}
        self.optimizers = {name: _optimizer(model, cfg, decay) for name, decay in decays.items()}
        self.optimizer = self.optimizers[""]
        """The optimizer that steps now."""
        self.forward: Callable[[Tensor], ModelOutput] = model
        if (ranks := collectives.world_size) > 1:
            self.forward = _replica(model, collectives.device)
            if cuda_graphs:
                logger.info("updates run without CUDA graphs: there are %d ranks", ranks)
        elif cuda_graphs:
            self.forward = CapturedModel(model)

    def set_epoch(self, epoch: float, base_lr: float | None = None, optimizer: str = "") -> float:
        """Set the learning rate of an epoch, by the schedule from base_lr or the settings' lr.

        Parameters
        ----------
        epoch : from 0, as in scheduled_lr
        optimizer : name of the optimizer that steps from here on
        """
        self.optimizer = self.optimizers[optimizer]
        lr = scheduled_lr(self.cfg, epoch) / self.cfg.lr * (base_lr or self.cfg.lr)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        return lr

    def step(
        self,
        images: Tensor,
        objective: Objective,
        *,
        stop: bool = False,
        report: dict[str, Tensor] | None = None,
        edit_gradients: Callable[[], None] | None = None,
    ) -> dict[str, float]:
        """Move the weights by one step down an objective of a global batch.

        Parameters
        ----------
        images : this rank's shard, possibly empty; forwarded once
        objective : what to lower: this rank's parts of named scalars, `loss` among them, that add
            up over the ranks to the values of the global batch
        stop : this rank was asked to stop
        report : further scalars, this rank's parts; they come back summed over ranks
        edit_gradients : called when the gradients are those of the global batch, before clipping

        Returns
        -------
        loss and the other scalars, grad_norm, stop (above 0 when any rank was asked to stop), the
        same on every rank.

        Raises
        ------
        NonFiniteLossError on every rank, before the optimizer moves.
        """
        parts = objective(self.forward(images))
        self.optimizer.zero_grad(set_to_none=True)
        with phase("backward"):
            (parts["loss"] * self.collectives.world_size).backward()
        values = {**parts, "stop": parts["loss"].new_tensor(float(stop)), **(report or {})}
        summed = self.collectives.all_reduce_sum(torch.stack([v.detach() for v in values.values()]))
        if edit_gradients is not None:
            edit_gradients()
        with phase("update"):
            clip_norm = self.cfg.clip_norm or math.inf
            grad_norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), clip_norm))
            numbers = dict(zip(values, summed.tolist(), strict=True)) | {"grad_norm": grad_norm}
            self._require_finite(numbers)
            self.optimizer.step()
        return numbers

    def classify(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        total: int,
        stop: bool = False,
        report: dict[str, Tensor] | None = None,
    ) -> dict[str, float]:
        """Take a step on the classification loss of a global batch of `total` samples."""
        return self.step(images, classification(labels, total), stop=stop, report=report)

    def gradients(
        self, images: Tensor, objective: Objective, *, stop: bool = False
    ) -> tuple[dict[str, float], list[Tensor]]:
        """Return what `step` would, and the gradients of the global batch; no weight moves."""
        parts = objective(self.model(images))
        with phase("backward"):
            own = torch.autograd.grad(parts["loss"], list(self.model.parameters()))
        return self.add_up(parts, own, stop=stop)

    def add_up(
        self, parts: dict[str, Tensor], own: Sequence[Tensor], *, stop: bool
    ) -> tuple[dict[str, float], list[Tensor]]:
        """Return named scalars and tensors like gradients, this rank's parts summed over ranks."""
        values = {**parts, "stop": parts["loss"].new_tensor(float(stop))}
        scalars = torch.stack([v.detach() for v in values.values()])
        flat = self.collectives.all_reduce_sum(torch.cat([scalars, *(g.flatten() for g in own)]))
        summed, *tensors = flat.split([len(values), *(g.numel() for g in own)])
        numbers = dict(zip(values, summed.tolist(), strict=True))
        numbers["grad_norm"] = float(flat[len(values) :].norm())
        self._require_finite(numbers)
        return numbers, [t.view_as(o) for t, o in zip(tensors, own, strict=True)]

    def _require_finite(self, numbers: dict[str, float]) -> None:
        bad = [name for name in ("loss", "grad_norm") if not math.isfinite(numbers[name])]
        if bad:
            raise NonFiniteLossError(
                f"The {' and the '.join(bad)} became {numbers[bad[0]]}; the weights were not "
                "changed. Lower the learning rate, set clip_norm, or check the checkpoint for NaN."
            )
