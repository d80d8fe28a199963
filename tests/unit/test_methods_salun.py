"""SalUn: its mask and its random labels, beside wrong versions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dlfd_dist.methods import StepBatch
from dlfd_dist.methods import salun as salun_module
from dlfd_dist.methods.salun import SalUn
from dlfd_dist.runtime.collectives import Collectives
from tests.fakes.method_lab import (
    FORGET,
    OUTPUTS,
    Lab,
    depends_on_forget,
    depends_on_retain,
    equal,
    lab,
    labels_of,
    original,
    pictures,
    plain_gradients,
    weights,
)


def salient_by_hand(sparsity: float) -> tuple[Tensor, int]:
    """Return |gradient| of the mean forget loss of the original, and how many weights stay."""
    gradients = plain_gradients(
        original(),
        lambda model: F.cross_entropy(
            model(pictures()[FORGET]).logits, labels_of("classes")[FORGET]
        ),
    )
    sizes = torch.cat([g.abs().flatten() for g in gradients])
    return sizes, int(sparsity * len(sizes))


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.9])
def test_the_mask_of_salun_holds_the_largest_gradients_and_their_share(sparsity):
    found = lab("salun", sparsity=sparsity)
    found.until("repair")
    masks = torch.cat([m.flatten() for m in found.method.masks.values()])
    sizes, num_left = salient_by_hand(sparsity)
    assert int((~masks).sum()) == num_left
    if num_left:
        assert sizes[masks].min() > sizes[~masks].max()


def test_the_saliency_pass_of_salun_moves_nothing():
    found = lab("salun")
    found.until("relabel")
    assert equal(weights(found.model), weights(original()))


class Decays(SalUn):
    """Wrong: only gradients are masked, so weight decay moves every weight (as in their code)."""

    def _put_back(self):
        pass


class NoMask(SalUn):
    """Wrong: random labels for all weights."""

    def _mask_gradients(self):
        pass

    def _put_back(self):
        pass


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize(("build", "holds"), [(SalUn, True), (Decays, False), (NoMask, False)])
def test_weights_outside_the_mask_of_salun_stay_bit_equal(build, holds, optimizer):
    found = lab("salun", build, epochs=2, weight_decay=0.1, optimizer=optimizer)
    start = dict(original().named_parameters())
    found.run()
    stayed = []
    for name, parameter in found.model.named_parameters():
        mask = found.method.masks[name]
        stayed.append(torch.equal(parameter[~mask], start[name][~mask]))
        assert not mask.any() or not torch.equal(parameter[mask], start[name][mask])
    assert all(stayed) is holds


def relabelled(monkeypatch: pytest.MonkeyPatch, task: str, **settings) -> list[dict[int, tuple]]:
    """Return the labels of every relabelling epoch by sample id."""
    given: list[Tensor] = []
    plain = salun_module.classification

    def recorded(labels, total):
        given.append(labels)
        return plain(labels, total)

    monkeypatch.setattr(salun_module, "classification", recorded)
    found, epochs = lab("salun", task=task, **settings), {}
    for batch, _ in found.walk():
        if batch.phase == "relabel":
            labels = given[-1].reshape(batch.forget_total, -1).tolist()
            pairs = zip(batch.forget_ids.tolist(), map(tuple, labels), strict=True)
            epochs.setdefault(batch.epoch, {}).update(pairs)
    return list(epochs.values())


@pytest.mark.parametrize("task", OUTPUTS)
def test_the_random_labels_of_salun_are_drawn_once_for_every_sample(task, monkeypatch):
    epochs = relabelled(monkeypatch, task, epochs=3)
    assert len(epochs) == 3
    assert set(epochs[0]) == set(FORGET.tolist())
    assert epochs[0] == epochs[1] == epochs[2]


def big_batch(found: Lab, n: int) -> StepBatch:
    first = found.batch(next(found.course.turns(0)))
    shape = (n, 3) if found.labels.ndim == 2 else (n,)
    return replace(
        first, forget_ids=torch.arange(n), forget_total=n,
        forget_labels=torch.zeros(shape, dtype=torch.int64),
    )  # fmt: skip


@pytest.mark.parametrize("task", OUTPUTS)
def test_the_random_labels_are_all_as_likely_and_never_depend_on_the_rank(task):
    n = 3000
    found = lab("salun", task=task)
    whole = found.method._random_labels(big_batch(found, n))
    assert whole.shape == big_batch(found, n).forget_labels.shape
    values = 2 if task == "labels" else OUTPUTS[task]
    shares = torch.bincount(whole.flatten(), minlength=values) / whole.numel()
    # Four standard errors of a share of 3000 draws are at most 4 * sqrt(.25 / 3000) = 0.037.
    assert shares.tolist() == pytest.approx([1 / values] * values, abs=0.037)
    parts = []
    for rank in range(3):
        part = lab("salun", task=task, collectives=Collectives(rank, 1))
        part.method.context = replace(part.method.context, collectives=Collectives(rank, 3))
        parts.append(part.method._random_labels(big_batch(part, n)))
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize(("phase", "on"), [("relabel", "forget"), ("repair", "retain")])
def test_salun_relabels_on_forget_and_repairs_on_retain(phase, on):
    found = lab("salun")
    batch = found.until(phase)
    assert (batch.total > 0) == (on == "retain")
    if on == "retain":
        assert not depends_on_forget(found, batch)
    assert depends_on_retain(found, batch) is (on == "retain")
    if on == "forget":
        assert depends_on_forget(found, batch)
