"""BatchNorm over the global batch, on any backend.

torch's SyncBatchNorm refuses CPU tensors; this one runs wherever all_reduce does, with one small
collective forward and one backward, and with one rank it is plain BatchNorm, so results do not
depend on the world size.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .collectives import finish


def _global_statistics(input: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return count (1,), mean (C,) and biased variance (C,) of the rows of all ranks.

    The ranks' means and sums of squared deviations are merged (Chan et al. 1979), which does not
    lose digits as sums of squares would.
    """
    count = input.new_tensor([input.numel() // input.shape[1]])
    if input.numel():
        dims = (0, *range(2, input.ndim))
        variance, mean = torch.var_mean(input, dims, correction=0)
    else:
        variance = mean = input.new_zeros(input.shape[1])
    own = torch.stack([count.expand_as(mean), mean, variance * count])
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    finish(dist.all_gather, parts, own)
    counts, means, deviations = torch.stack(parts).unbind(1)
    total = counts.sum(0)
    mean = (counts * means).sum(0) / total
    squares = deviations.sum(0) + (counts * (means - mean) ** 2).sum(0)
    return total[:1], mean, squares / total


class _GlobalNorm(torch.autograd.Function):
    """Normalise by the statistics of all ranks; the gradient is that of the global batch."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor, eps: float):  # type: ignore[override]
        count, mean, variance = _global_statistics(input)
        ctx.save_for_backward(input, weight, count, mean, variance)
        ctx.eps = eps
        output = F.batch_norm(input, mean, variance, weight, bias, training=False, eps=eps)
        ctx.mark_non_differentiable(count, mean, variance)
        return output, count, mean, variance

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *unused: Tensor):  # type: ignore[override]
        input, weight, count, mean, variance = ctx.saved_tensors
        if input.numel():
            none_saved = mean.new_empty(0)  # what evaluation saves; CUDA asserts that it is there
            grad_input, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(
                grad, input, weight, mean, variance, none_saved, none_saved, False, ctx.eps,
                [True, True, True],
            )  # fmt: skip
        else:  # the kernel divides by the number of rows
            grad_input, grad_weight, grad_bias = grad, weight * 0, weight * 0
        sums = torch.stack([grad_weight, grad_bias])
        finish(dist.all_reduce, sums)
        # What the statistics add to the gradient is, per channel, a line in the input.
        scale = torch.rsqrt(variance + ctx.eps)
        slope = weight * scale * scale * sums[0] / count
        offset = weight * scale * sums[1] / count - slope * mean
        shape = (1, -1, *(1 for _ in range(2, input.ndim)))
        grad_input = grad_input - torch.addcmul(offset.view(shape), input, slope.view(shape))
        return grad_input, grad_weight, grad_bias, None


class _GlobalBatchNorm(_BatchNorm):
    """Normalises by the statistics of all ranks together while it is trained."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(input)
        output, count, mean, variance = _GlobalNorm.apply(input, self.weight, self.bias, self.eps)
        self._update_running(mean, variance * count / (count - 1))
        return self._after(output)

    def _after(self, output: Tensor) -> Tensor:
        """Return what the layer makes of normalised values."""
        return output

    @torch.no_grad()
    def _update_running(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), self.momentum)


class GlobalBatchNorm1d(_GlobalBatchNorm, nn.BatchNorm1d):
    """BatchNorm1d of all ranks."""


class GlobalBatchNorm2d(_GlobalBatchNorm, nn.BatchNorm2d):
    """BatchNorm2d of all ranks."""


class GlobalBatchNorm3d(_GlobalBatchNorm, nn.BatchNorm3d):
    """BatchNorm3d of all ranks."""


GLOBAL = {
    nn.BatchNorm1d: GlobalBatchNorm1d,
    nn.BatchNorm2d: GlobalBatchNorm2d,
    nn.BatchNorm3d: GlobalBatchNorm3d,
}


@functools.cache
def _global_class(kind: type) -> type | None:
    """Return the class that takes the place of a BatchNorm; None where it must stay.

    timm's BatchNormAct2d normalises, drops and applies its activation in one layer.
    """
    if kind in GLOBAL:
        return GLOBAL[kind]
    if kind.__name__ == "BatchNormAct2d" and kind.__module__.startswith("timm."):
        after = {"_after": lambda self, output: self.act(self.drop(output))}
        return type("GlobalBatchNormAct2d", (_GlobalBatchNorm, kind), after)
    return None


def use_global_batch_norm(model: nn.Module) -> None:
    """Replace every BatchNorm of the model in place; parameters and buffers keep their names.

    One without weights, or without a fixed momentum, stays as it is: see `local_batch_norms`.
    """
    for module in model.modules():
        if isinstance(module, _BatchNorm) and (kind := _global_class(type(module))):
            module.__class__ = kind if _is_plain(module) else type(module)


def _is_plain(module: _BatchNorm) -> bool:
    return module.affine and module.track_running_stats and module.momentum is not None


def local_batch_norms(model: nn.Module) -> list[str]:
    """Return the names of the layers whose statistics are those of one rank's images alone."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and not isinstance(module, _GlobalBatchNorm)
    ]


def freeze_batch_norm(model: nn.Module, *, trained_too: bool = True) -> None:
    """Put only the BatchNorm layers into evaluation mode: statistics are used, not updated.

    trained_too : off, only layers whose weights are not trained
    """
    for module in model.modules():
        if isinstance(module, _BatchNorm) and (trained_too or not module.weight.requires_grad):
            module.eval()


@torch.no_grad()
def measure_statistics(model: nn.Module, batches: Iterable[tuple[Tensor, int]]) -> int:
    """Measure the running statistics of every BatchNorm anew; return how many images were passed.

    They become the mean of those of the batches, weighed by images, whatever a momentum says. The
    rest of the model is in evaluation mode. A model without BatchNorm is not forwarded.

    Parameters
    ----------
    batches : this rank's shards of global batches of two images and more, with the images of all
        ranks
    """
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not layers:
        return 0
    momenta, modes = [m.momentum for m in layers], [(m, m.training) for m in model.modules()]
    model.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.train()
    seen = 0
    for images, total in batches:
        seen += total
        for layer in layers:
            layer.momentum = total / seen
        model(images)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    for module, mode in modes:
        module.training = mode
    return seen
