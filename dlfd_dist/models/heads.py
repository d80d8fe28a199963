"""Heads on a backbone: linear, or the 512-256-128-C head of the DLFD paper."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..runtime.collectives import Collectives
from ..runtime.seeding import derive_seed, torch_seed


class RowDropout(nn.Dropout):
    """Dropout whose mask belongs to a row's place in the global batch.

    Without a row context it is ordinary dropout. With one, the mask of the whole global batch is
    drawn from a seed and each rank takes its own rows, so that a rank's share does not matter.
    """

    _seed: int | None = None
    _total = 0
    _rows = torch.empty(0, dtype=torch.long)

    def set_rows(self, seed: int, total: int, rows: Tensor) -> None:
        self._seed, self._total, self._rows = seed, total, rows

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return input
        if self._seed is None or len(input) != len(self._rows):
            return F.dropout(input, self.p, True)
        with torch_seed(self._seed):
            keep = torch.rand(self._total, *input.shape[1:]) >= self.p
        mask = keep[self._rows].to(input.device, input.dtype)
        return input * mask / (1 - self.p)


def use_row_dropout(model: nn.Module) -> None:
    """Replace every Dropout of the model in place."""
    for module in model.modules():
        if type(module) is nn.Dropout:
            module.__class__ = RowDropout


def set_dropout_rows(
    model: nn.Module, totals: Sequence[int], collectives: Collectives, *key: int
) -> None:
    """Tell every RowDropout which rows of the global batch this rank is about to see.

    totals : rows of each global batch that is forwarded, in order, as one
    """
    own, start = [], 0
    for total in totals:
        own.append(torch.arange(start, start + total)[collectives.shard(total)])
        start += total
    rows = torch.cat(own)
    layers = [m for m in model.modules() if isinstance(m, RowDropout)]
    for number, layer in enumerate(layers):
        layer.set_rows(derive_seed(*key, number), start, rows)
    if getattr(model, "seeded", False):
        torch.manual_seed(derive_seed(*key, len(layers)))


def linear_head(width: int, num_outputs: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, num_outputs))


def mlp_head(width: int, num_outputs: int, dropout: float) -> nn.Sequential:
    """Return the paper's head; its state names are those of the authors' `features` module."""
    return nn.Sequential(
        nn.Linear(width, 256), nn.ReLU(), RowDropout(dropout),
        nn.Linear(256, 128), nn.ReLU(), RowDropout(dropout),
        nn.Linear(128, num_outputs),
    )  # fmt: skip


HEADS = {"linear": linear_head, "mlp": mlp_head}


def task_loss(logits: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
    """Return the loss of the task in nats: cross-entropy, or the mean BCE over labels.

    Parameters
    ----------
    logits : (n, C) classes, or (n, L) labels
    labels : (n,) class numbers, or (n, L) zeros and ones
    reduction : mean, sum, or none for one value per sample, shape (n,)
    """
    if labels.ndim == 1:
        return F.cross_entropy(logits, labels, reduction=reduction)
    per_sample = F.binary_cross_entropy_with_logits(
        logits, labels.to(logits.dtype), reduction="none"
    ).mean(1)
    return {"none": per_sample, "sum": per_sample.sum(), "mean": per_sample.mean()}[reduction]


def task_confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """Return log p_y - log(1 - p_y) per sample, shape (n,), with gradient; of labels their mean.

    What metrics.logit_scaled_confidence is to arrays. Source: Carlini et al. 2022 (LiRA), eq. 6.
    """
    if labels.ndim == 2:
        return torch.where(labels > 0, logits, -logits).mean(1)
    own = labels[:, None]
    others = logits.scatter(1, own, -torch.inf).logsumexp(1)
    return logits.gather(1, own).squeeze(1) - others


def task_prediction(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the labels that the logits say, in the form of `labels`, whose dimensions are read."""
    return logits.argmax(1) if labels.ndim == 1 else (logits > 0).long()


def task_divergence(
    logits: Tensor, target_logits: Tensor, labels: Tensor, *, temperature: float = 1.0
) -> Tensor:
    """Return KL(target || model) in nats, one value per sample, shape (n,).

    Of classes that is the divergence of two softmax distributions, of several labels the mean over
    labels of that of two Bernoulli distributions. No factor of temperature squared is applied.

    Parameters
    ----------
    logits, target_logits : (n, C) classes, or (n, L) labels; no gradient reaches the target
    labels : the labels of the task, of which only the number of dimensions is read
    temperature : divides both logits
    """
    model, target = logits / temperature, target_logits.detach() / temperature
    if labels.ndim == 1:
        log_model, log_target = model.log_softmax(1), target.log_softmax(1)
        return (log_target.exp() * (log_target - log_model)).sum(1)
    probability = target.sigmoid()
    positive = F.logsigmoid(target) - F.logsigmoid(model)
    negative = F.logsigmoid(-target) - F.logsigmoid(-model)
    return (probability * positive + (1 - probability) * negative).mean(1)
