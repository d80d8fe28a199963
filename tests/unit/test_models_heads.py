"""Dropout by row, and the losses of one and of several labels."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, kl_divergence

from dlfd_dist.models import set_dropout_rows, task_divergence, task_loss
from dlfd_dist.models.heads import RowDropout
from dlfd_dist.runtime.collectives import Collectives


def dropout(p: float = 0.5) -> RowDropout:
    return RowDropout(p).train()


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_row_dropout_of_the_shards_is_that_of_the_whole_batch(world_size):
    whole = torch.ones(7, 50)
    head = nn.Sequential(nn.Identity(), dropout(), nn.Identity())
    set_dropout_rows(head, [7], Collectives(), 3, 4)
    expected = head(whole)
    parts = []
    for rank in range(world_size):
        group = Collectives(rank, world_size)
        set_dropout_rows(head, [7], group, 3, 4)
        parts.append(head(whole[group.shard(7)]))
    assert torch.equal(torch.cat(parts), expected)
    # 350 draws of 1/2: four standard errors are 4 * sqrt(.25 / 350) = 0.11.
    assert (expected == 0).double().mean() == pytest.approx(0.5, abs=0.11)
    assert set(expected.unique().tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("totals", [(7, 5), (0, 5), (5, 0), (3, 4, 2)])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_row_dropout_of_several_batches_in_one_pass_is_that_of_each(totals, world_size):
    """A rank forwards its shard of every batch, one after the other; each row keeps its mask."""
    head = nn.Sequential(nn.Identity(), dropout(), nn.Identity())
    set_dropout_rows(head, totals, Collectives(), 3, 4)
    whole = head(torch.ones(sum(totals), 50)).split(list(totals))
    for rank in range(world_size):
        group = Collectives(rank, world_size)
        shards = [torch.ones(total, 50)[group.shard(total)] for total in totals]
        set_dropout_rows(head, totals, group, 3, 4)
        found = head(torch.cat(shards))
        expected = [rows[group.shard(len(rows))] for rows in whole]
        assert torch.equal(found, torch.cat(expected))


def test_row_dropout_differs_between_layers_and_keys():
    head = nn.Sequential(dropout(), dropout())
    masks = {}
    for key in (1, 2):
        set_dropout_rows(head, [4], Collectives(), key)
        for number, layer in enumerate(head):
            masks[key, number] = tuple(layer(torch.ones(4, 50)).flatten().tolist())
    assert len(set(masks.values())) == 4


def test_row_dropout_without_rows_is_torchs():
    torch.manual_seed(2)
    expected = F.dropout(torch.ones(6, 20), 0.3)
    torch.manual_seed(2)
    assert torch.equal(dropout(0.3)(torch.ones(6, 20)), expected)


def test_row_dropout_with_rows_leaves_the_global_rng_alone():
    layer = dropout()
    layer.set_rows(1, 6, torch.arange(6))
    torch.manual_seed(2)
    expected = torch.rand(3)
    torch.manual_seed(2)
    layer(torch.ones(6, 20))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(("p", "training"), [(0.5, False), (0.0, True)])
def test_row_dropout_is_off_in_evaluation_and_at_zero(p, training):
    layer = RowDropout(p).train(training)
    layer.set_rows(1, 6, torch.arange(6))
    assert torch.equal(layer(torch.ones(6, 20)), torch.ones(6, 20))


REDUCTIONS = ["mean", "sum", "none"]


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_task_loss_of_one_label_is_cross_entropy(reduction):
    logits, labels = torch.randn(5, 4), torch.tensor([0, 3, 1, 1, 2])
    expected = F.cross_entropy(logits, labels, reduction=reduction)
    assert torch.equal(task_loss(logits, labels, reduction), expected)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_task_loss_of_several_labels_is_the_mean_bce_over_labels(reduction):
    logits, labels = torch.randn(5, 3), torch.tensor([[0, 1, 1]] * 4 + [[1, 0, 0]])
    entries = F.binary_cross_entropy_with_logits(logits, labels.float(), reduction="none")
    expected = {"none": entries.mean(1), "sum": entries.sum() / 3, "mean": entries.mean()}
    # Sums in another order: rounding of float32.
    torch.testing.assert_close(
        task_loss(logits, labels, reduction), expected[reduction], rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("labels", [torch.zeros(0).long(), torch.zeros(0, 3).long()])
def test_task_loss_of_no_samples_sums_to_zero(labels):
    assert task_loss(torch.zeros(0, 3), labels, "sum") == 0


def logits_of_two(n: int = 6, width: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    drawn = 3 * torch.randn(2, n, width, generator=generator).double()
    return drawn[0], drawn[1]


@pytest.mark.parametrize("temperature", [1.0, 4.0, 0.5])
@pytest.mark.parametrize(
    ("distribution", "labels"),
    [(Categorical, torch.zeros(6).long()), (Bernoulli, torch.zeros(6, 4).long())],
    ids=["classes", "labels"],
)
def test_task_divergence_is_kl_from_the_target_to_the_model(distribution, labels, temperature):
    model, target = logits_of_two()
    known, learned = (distribution(logits=x / temperature) for x in (target, model))
    expected, reverse = kl_divergence(known, learned), kl_divergence(learned, known)
    if labels.ndim == 2:
        expected, reverse = expected.mean(1), reverse.mean(1)
    found = task_divergence(model, target, labels, temperature=temperature)
    # Logarithms of sums in another form: rounding of float64.
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(found, reverse)


@pytest.mark.parametrize("labels", [torch.zeros(6).long(), torch.zeros(6, 4).long()])
def test_task_divergence_has_no_gradient_at_the_target_and_none_for_it(labels):
    model, target = (x.requires_grad_(True) for x in logits_of_two())
    assert (task_divergence(model, model, labels).abs() < 1e-15).all()
    task_divergence(model, model, labels).sum().backward()
    assert model.grad is not None
    assert model.grad.abs().max() < 1e-15
    task_divergence(model, target, labels).sum().backward()
    assert target.grad is None
    assert model.grad.abs().max() > 0.01


@pytest.mark.parametrize("labels", [torch.zeros(2).long(), torch.zeros(2, 3).long()])
def test_task_divergence_of_sure_models_is_finite(labels):
    model = torch.tensor([[500.0, -500.0, 0.0], [-500.0, 500.0, 0.0]], requires_grad=True)
    target = torch.tensor([[-500.0, 500.0, 0.0], [-500.0, 500.0, 0.0]])
    found = task_divergence(model, target, labels)
    found.sum().backward()
    assert found[0] > 100
    assert found[1] == 0
    assert torch.isfinite(found).all()
    assert model.grad is not None
    assert torch.isfinite(model.grad).all()


@pytest.mark.parametrize("labels", [torch.zeros(0).long(), torch.zeros(0, 3).long()])
def test_task_divergence_of_no_samples_sums_to_zero(labels):
    assert task_divergence(torch.zeros(0, 3), torch.zeros(0, 3), labels).sum() == 0
