"""BatchNorm over the global batch, on any backend.

torch's SyncBatchNorm refuses CPU tensors; this one runs wherever all_reduce does, and with one
rank it is plain BatchNorm, so results do not depend on the world size.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class _SumOverRanks(torch.autograd.Function):
    """Sum over ranks whose gradient is the sum of the ranks' gradients."""

    @staticmethod
    def forward(ctx, tensor: Tensor) -> Tensor:  # type: ignore[override]
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # type: ignore[override]
        total = grad.clone()
        dist.all_reduce(total)
        return total


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose training statistics are those of all ranks together."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(input)
        dims = (0, 2, 3)
        count = input.new_tensor([input.numel() / self.num_features])
        sums = torch.cat([count, input.sum(dims)])
        sums = _SumOverRanks.apply(sums)
        count, mean = sums[0].detach(), sums[1:] / sums[0].detach()
        centred = input - mean.view(1, -1, 1, 1)
        variance = _SumOverRanks.apply((centred * centred).sum(dims)) / count
        self._update_running(mean.detach(), variance.detach() * count / (count - 1))
        scale = torch.rsqrt(variance + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        output = centred * scale.view(1, -1, 1, 1)
        return output if self.bias is None else output + self.bias.view(1, -1, 1, 1)

    @torch.no_grad()
    def _update_running(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), self.momentum)


def use_global_batch_norm(model: nn.Module) -> None:
    """Replace every BatchNorm2d of the model in place; parameters and buffers keep their names."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = GlobalBatchNorm2d


def freeze_batch_norm(model: nn.Module) -> None:
    """Put only the BatchNorm layers into evaluation mode: statistics are used, not updated."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
