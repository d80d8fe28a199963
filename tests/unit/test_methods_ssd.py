"""SSD: importances sample by sample and the dampening, beside wrong versions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dlfd_dist.methods.ssd import SSD
from dlfd_dist.models import task_loss
from tests.fakes.method_lab import (
    FORGET,
    OUTPUTS,
    equal,
    lab,
    labels_of,
    original,
    pictures,
    weights,
)


def importances(task: str) -> tuple[list[Tensor], list[Tensor]]:
    """Return the mean squared gradient of every sample of train and of forget, one at a time."""
    model = original(task).eval()
    squares: dict[int, list[Tensor]] = {}
    for i in range(18):
        model.zero_grad()
        task_loss(model(pictures()[i : i + 1]).logits, labels_of(task)[i : i + 1]).backward()
        squares[i] = [p.grad.clone() ** 2 for p in model.parameters() if p.grad is not None]
    means = []
    for ids in (range(18), FORGET.tolist()):
        groups = zip(*(squares[i] for i in ids), strict=True)
        means.append([torch.stack(group).mean(0) for group in groups])
    return means[0], means[1]


class DampensAll(SSD):
    """Wrong: every weight is dampened."""

    def __init__(self, context):
        super().__init__(context)
        self.cfg = replace(self.cfg, selection=1e-300)


class SquaresTheBatch(SSD):
    """Wrong here: the gradient of a batch is squared, as in the authors' code."""

    def _squared_gradients(self, images, labels):
        if not len(images):
            return super()._squared_gradients(images, labels)
        loss = task_loss(self.context.model(images).logits, labels, "sum")
        gradients = torch.autograd.grad(loss, self.parameters)
        return loss.detach(), [g * g for g in gradients]


def ssd_by_hand(task: str, selection: float, dampening: float) -> tuple[list[Tensor], list[Tensor]]:
    """Return the masks of the selected weights and all weights as they should be."""
    selected, expected = [], []
    for parameter, to_all, to_forget in zip(
        original(task).parameters(), *importances(task), strict=True
    ):
        chosen = to_forget > selection * to_all
        factor = torch.minimum(dampening * to_all / to_forget, torch.ones(()).double())
        selected.append(chosen)
        expected.append(torch.where(chosen, factor * parameter.detach(), parameter.detach()))
    return selected, expected


@pytest.mark.parametrize("selection", [1.2, 2.0])
@pytest.mark.parametrize("dampening", [0.5, 1.5])
@pytest.mark.parametrize("task", OUTPUTS)
def test_ssd_dampens_by_the_ratio_of_importances(task, dampening, selection):
    found = lab("ssd", task=task, selection=selection, dampening=dampening)
    numbers = found.run()
    selected, expected = ssd_by_hand(task, selection, dampening)
    share = sum(int(s.sum()) for s in selected) / sum(s.numel() for s in selected)
    assert 0 < share < 1
    assert numbers[-1]["dampened"] == share
    assert not any("dampened" in n for n in numbers[:-1])
    # Sums over samples in another order: rounding of float64.
    torch.testing.assert_close(
        [p.detach() for p in found.model.parameters()], expected, rtol=1e-10, atol=1e-14
    )


@pytest.mark.parametrize(
    ("build", "holds"), [(SSD, True), (DampensAll, False), (SquaresTheBatch, False)]
)
def test_ssd_changes_only_the_selected_weights(build, holds):
    found = lab("ssd", build, selection=1.2)
    selected, _ = ssd_by_hand("classes", 1.2, 1.0)
    found.run()
    pairs = zip(original().parameters(), found.model.parameters(), selected, strict=True)
    assert all(torch.equal(old[~s], new[~s]) for old, new, s in pairs) is holds
    pairs = zip(original().parameters(), found.model.parameters(), selected, strict=True)
    # Only above the ratio does a weight shrink; one of importance ratio 1 would keep its value.
    assert all((old[s] != new[s]).all() for old, new, s in pairs if holds)


def test_ssd_moves_nothing_before_its_last_step():
    found = lab("ssd", selection=1.0)
    states = [weights(found.model) for _ in found.walk()]
    assert all(equal(state, weights(original())) for state in states[:-1])
    assert not equal(states[-1], weights(original()))


def test_ssd_sees_every_sample_once():
    found = lab("ssd")
    batches = [batch for batch, _ in found.walk()]
    ids = torch.cat([torch.cat([b.ids, b.forget_ids]) for b in batches])
    assert sorted(ids.tolist()) == list(range(18))
    assert (found.method.num_retain, found.method.num_forget) == (11, 7)
