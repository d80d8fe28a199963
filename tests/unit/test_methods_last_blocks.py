"""CF-k and EU-k, beside versions that freeze nothing or let statistics follow."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from dlfd_dist.config import LastBlocksConfig
from dlfd_dist.errors import ConfigError
from dlfd_dist.methods.last_blocks import CFk, EUk
from dlfd_dist.models import Classifier
from tests.fakes.method_lab import equal, lab, original, weights
from tests.fakes.small_model import small_classifier


class NothingFrozen(CFk):
    """Wrong: the first blocks are trained as well."""

    def __init__(self, context):
        super().__init__(context)
        context.model.requires_grad_(True)


class StatisticsFollow(CFk):
    """Wrong: the statistics of the frozen blocks follow the batches."""

    def step(self, batch, updater, *, stop):
        self.context.model.train()
        return updater.classify(batch.images, batch.labels, total=batch.total, stop=stop)


class EUkStatisticsFollow(EUk):
    """Wrong: as above, under new blocks."""

    def step(self, batch, updater, *, stop):
        self.context.model.train()
        return updater.classify(batch.images, batch.labels, total=batch.total, stop=stop)


class EUkNothingFrozen(EUk, NothingFrozen):
    pass


FREEZING = [
    ("cf_k", CFk, True), ("cf_k", NothingFrozen, False), ("cf_k", StatisticsFollow, False),
    ("eu_k", EUk, True), ("eu_k", EUkNothingFrozen, False), ("eu_k", EUkStatisticsFollow, False),
]  # fmt: skip


def last_blocks(model: Classifier, k: int) -> set[str]:
    """Return the names of parameters and buffers of the last k blocks of the small model."""
    prefixes = [("backbone.0.", "backbone.1."), ("backbone.3.", "backbone.4."), ("head.",)]
    kept = tuple(p for block in prefixes[-k:] for p in block)
    return {name for name in model.state_dict() if name.startswith(kept)}


@pytest.mark.parametrize("train_mode", ["frozen", "sync_bn"])
@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize(("name", "build", "holds"), FREEZING)
def test_the_first_blocks_stay_bit_equal_with_their_statistics(name, build, holds, k, train_mode):
    found = lab(name, build, k=k, epochs=2, train_mode=train_mode)
    start = weights(found.model)
    trained = last_blocks(found.model, k)
    found.run()
    after = weights(found.model)
    assert all(torch.equal(start[n], after[n]) for n in start.keys() - trained) is holds
    assert all(not torch.equal(start[n], after[n]) for n in trained if n.endswith("weight"))


@pytest.mark.parametrize(
    ("name", "build", "holds"), [("eu_k", EUk, True), ("cf_k", CFk, False), ("eu_k", CFk, False)]
)
def test_the_last_blocks_of_eu_k_are_new_before_training(name, build, holds):
    found = lab(name, build, k=2)
    start, now, fresh = (weights(m) for m in (original(), found.model, small_classifier(seed=99)))
    trained = last_blocks(found.model, 2)
    drawn = {n for n in trained if "3.weight" in n or "head" in n}  # BatchNorm begins as 1 and 0
    assert all(not torch.equal(start[n], now[n]) for n in drawn) is holds
    assert all(torch.equal(fresh[n], now[n]) for n in trained) is holds
    assert all(torch.equal(start[n], now[n]) for n in start.keys() - trained)


@pytest.mark.parametrize("train_mode", ["frozen", "sync_bn"])
def test_the_new_blocks_of_eu_k_learn_their_statistics_in_either_mode(train_mode):
    found = lab("eu_k", k=2, train_mode=train_mode)
    start = weights(found.model)
    found.run()
    moved = {n for n, t in found.model.state_dict().items() if not torch.equal(start[n], t)}
    assert {n for n in moved if "running" in n} == {
        "backbone.4.running_mean", "backbone.4.running_var",
    }  # fmt: skip


@pytest.mark.parametrize(("name", "train_mode"), [("eu_k", "frozen"), ("finetune", "sync_bn")])
def test_a_batch_of_one_image_has_no_statistics_and_is_a_step_all_the_same(name, train_mode):
    """The last block sees one value per channel, of which BatchNorm has no variance."""
    own: dict[str, Any] = {"k": 2} if name == "eu_k" else {}
    found = lab(name, train_mode=train_mode, **own)
    last = found.model.module.get_submodule("backbone.3")
    assert isinstance(last, nn.Conv2d)
    last.stride = (4, 4)  # its 4 x 4 pixels become 1 x 1
    batch = found.batch(next(found.course.turns(0)))
    one = replace(
        batch, ids=batch.ids[:1], images=batch.images[:1], labels=batch.labels[:1], total=1
    )
    start = weights(found.model)
    numbers = found.method.step(one, found.updater, stop=False)
    assert math.isfinite(numbers["loss"])
    after = weights(found.model)
    assert all(torch.equal(start[n], after[n]) for n in start if "running" in n)
    assert not torch.equal(start["head.0.weight"], after["head.0.weight"])


def test_eu_k_of_all_blocks_is_the_new_model():
    found = lab("eu_k", k=3)
    assert equal(weights(found.model), weights(small_classifier(seed=99)))


@pytest.mark.parametrize("build", [CFk, EUk])
def test_more_blocks_than_the_model_has_are_refused(build):
    cfg = LastBlocksConfig(k=4)
    with pytest.raises(ConfigError, match=r"method.k=4 is larger .* 3 blocks .* method.k=3 or le"):
        build.check(cfg, original())
    build.check(LastBlocksConfig(k=3), original())
