"""What every method must do: move the weights with a finite loss, and keep its schedule."""

from __future__ import annotations

import math

import pytest
import torch

from dlfd_dist.methods import scheduled_lr
from tests.fakes.method_lab import NEW, OUTPUTS, equal, lab, weights


@pytest.mark.parametrize("task", OUTPUTS)
@pytest.mark.parametrize("name", NEW)
def test_every_method_moves_the_weights_with_a_finite_loss_on_every_task(name, task):
    found = lab(name, task=task, head="mlp", clip_norm=1.0)
    if name == "ssd":
        found = lab(name, task=task, head="mlp", selection=1.0)
    start = weights(found.model)
    for numbers in found.run():
        assert {"loss", "grad_norm", "stop"} <= numbers.keys()
        assert all(map(math.isfinite, numbers.values()))
    after = weights(found.model)
    assert not equal(start, after)
    assert all(torch.isfinite(tensor).all() for tensor in after.values())


@pytest.mark.parametrize("train_mode", ["frozen", "sync_bn", "authors"])
@pytest.mark.parametrize("name", [name for name in NEW if name != "eu_k"])
def test_frozen_statistics_stay_and_those_of_sync_bn_follow(name, train_mode):
    found = lab(name, train_mode=train_mode, clip_norm=1.0)
    start = weights(found.model)
    found.run()
    held = [k for k in start if "running" in k]
    moved = {k for k in held if not torch.equal(start[k], found.model.state_dict()[k])}
    mode = train_mode if train_mode != "authors" else "frozen" if name == "gli" else "sync_bn"
    follows = mode == "sync_bn" and name != "ssd"  # one pass in evaluation mode
    assert moved == (set(held) if follows and name != "cf_k" else moved if follows else set())
    assert bool(moved) is follows


EPOCHS = {
    # Steps of each of three epochs; max_epochs=3 of SCRUB, saliency before SalUn's first.
    "neggrad": [2, 2, 2], "neggrad_plus": [3, 3, 3], "cf_k": [3, 3, 3], "eu_k": [3, 3, 3],
    "bad_teacher": [3, 3, 3], "scrub": [4, 4, 4], "salun": [7, 5, 5], "l1_sparse": [3, 3, 3],
    "reset": [3, 3, 3], "weight_distortion": [3, 3, 3], "weight_dist_reg": [3, 3, 3],
    "gli": [3, 3, 3], "ct": [3, 3, 3], "rewind": [3, 3, 3],
    # Four steps for the gradients of MSG, two of attacks of AMUN.
    "msg": [7, 3, 3], "amun": [7, 5, 5],
}  # fmt: skip


@pytest.mark.parametrize(("counter", "holds"), [("epoch", True), ("index", False)])
@pytest.mark.parametrize("name", EPOCHS)
def test_the_cosine_schedule_steps_per_epoch_not_per_batch(name, counter, holds):
    found = lab(name, epochs=3, lr_scheduler="cosine", lr=0.4)
    expected = [0.4 * (1 + math.cos(math.pi * epoch / 3)) / 2 for epoch in range(3)]
    expected = [lr for lr, steps in zip(expected, EPOCHS[name], strict=True) for _ in range(steps)]
    cfg = found.method.context.config.method
    rates = [scheduled_lr(cfg, getattr(turn, counter)) for turn in found.course.turns(0)]
    # A product in another order: rounding of float64.
    assert (rates == pytest.approx(expected, rel=1e-12)) is holds
