"""BatchNorm over ranks equals BatchNorm over the whole batch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.sync_bn import GlobalBatchNorm2d, freeze_batch_norm, use_global_batch_norm


def _norm(group: Collectives, total: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(total, 3, 4, 5, generator=generator, dtype=torch.float64) * 2 + 1
    target = torch.randn(total, 3, 4, 5, generator=generator, dtype=torch.float64)
    rows = group.shard(total)
    own = images[rows].clone().requires_grad_(True)
    norm = GlobalBatchNorm2d(3).double()
    output = norm(own)
    loss = ((output - target[rows]) ** 2).sum()
    loss.backward()
    assert norm.weight.grad is not None
    assert norm.bias.grad is not None
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return [
        group.gather_rows(output, total), group.gather_rows(own.grad, total),
        group.all_reduce_sum(norm.weight.grad), group.all_reduce_sum(norm.bias.grad),
        norm.running_mean, norm.running_var,
    ]  # fmt: skip


@pytest.mark.parametrize("total", [2, 3, 9])
@pytest.mark.parametrize("world_size", [2, 4])
def test_output_gradients_and_statistics_are_those_of_the_whole_batch(total, world_size, ranks):
    whole = _norm(Collectives(), total)
    for found in ranks(_norm, world_size, total):
        for one, other in zip(whole, found, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_one_rank_is_plain_batch_norm():
    images = torch.randn(4, 3, 5, 5)
    ours, plain = GlobalBatchNorm2d(3), nn.BatchNorm2d(3)
    assert torch.equal(ours(images), plain(images))
    assert torch.equal(ours.running_var, plain.running_var)


def test_replacing_keeps_names_and_freezing_keeps_statistics():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout())
    names = list(model.state_dict())
    use_global_batch_norm(model)
    assert list(model.state_dict()) == names
    assert isinstance(model[1], GlobalBatchNorm2d)
    model.train()
    freeze_batch_norm(model)
    assert (model[1].training, model[2].training) == (False, True)
    before = model[1].running_mean.clone()
    model(torch.randn(2, 3, 4, 4))
    assert torch.equal(model[1].running_mean, before)
