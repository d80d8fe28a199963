"""One SGD step of a global batch, the same for every number of ranks."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..config import MethodConfig, TrainConfig
from ..errors import NonFiniteLossError
from ..models import Classifier, task_loss
from ..runtime.collectives import Collectives


def scheduled_lr(cfg: TrainConfig | MethodConfig, epoch: int) -> float:
    """Return the learning rate of an epoch (from 0): constant, or cosine to zero."""
    if cfg.lr_scheduler == "constant":
        return cfg.lr
    return cfg.lr * 0.5 * (1 + math.cos(math.pi * epoch / cfg.epochs))


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
    """The model with its optimizer, under DDP when there are several ranks.

    A rank's loss is the sum over its samples * world_size / batch, so that DDP's mean over ranks
    is the mean over the global batch, whatever the shards.
    """

    def __init__(
        self,
        model: Classifier,
        cfg: TrainConfig | MethodConfig,
        *,
        collectives: Collectives,
    ):
        self.model = model
        self.cfg = cfg
        self.collectives = collectives
        self.optimizer = torch.optim.SGD(
            model.parameters(), lr=cfg.lr, momentum=cfg.momentum, weight_decay=cfg.weight_decay
        )
        self.replica: nn.Module = model
        if collectives.world_size > 1:
            self.replica = _replica(model, collectives.device)

    def set_epoch(self, epoch: int) -> float:
        lr = scheduled_lr(self.cfg, epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        return lr

    def step(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        total: int,
        stop: bool = False,
        report: dict[str, Tensor] | None = None,
    ) -> dict[str, float]:
        """Move the weights by one step on the classification loss of a global batch.

        Parameters
        ----------
        images, labels : this rank's shard, possibly empty
        total : samples of the global batch
        stop : this rank was asked to stop
        report : further scalars, this rank's parts; they come back summed over ranks

        Returns
        -------
        loss, grad_norm, stop (above 0 when any rank was asked to stop) and the reported scalars,
        the same on every rank.

        Raises
        ------
        NonFiniteLossError on every rank, before the optimizer moves.
        """
        loss = task_loss(self.replica(images).logits, labels, "sum") / total
        self.optimizer.zero_grad(set_to_none=True)
        (loss * self.collectives.world_size).backward()
        values = {"loss": loss, "stop": loss.new_tensor(float(stop)), **(report or {})}
        summed = self.collectives.all_reduce_sum(torch.stack([v.detach() for v in values.values()]))
        grad_norm = torch.nn.utils.clip_grad_norm_(
            self.model.parameters(), self.cfg.clip_norm or math.inf
        )
        numbers = dict(zip(values, summed.tolist(), strict=True)) | {"grad_norm": float(grad_norm)}
        self._require_finite(numbers)
        self.optimizer.step()
        return numbers

    def _require_finite(self, numbers: dict[str, float]) -> None:
        bad = [name for name in ("loss", "grad_norm") if not math.isfinite(numbers[name])]
        if bad:
            raise NonFiniteLossError(
                f"The {' and the '.join(bad)} became {numbers[bad[0]]}; the weights were not "
                "changed. Lower the learning rate, set clip_norm, or check the checkpoint for NaN."
            )
