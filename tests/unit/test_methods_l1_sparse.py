"""l1-sparse: the sign of the weights, faded out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dlfd_dist.methods import StepBatch
from dlfd_dist.models import Classifier, task_loss
from tests.fakes.method_lab import OUTPUTS, PLAIN, equal, lab, plain_gradients, weights


@pytest.mark.parametrize("task", OUTPUTS)
def test_l1_sparse_adds_the_sign_of_the_weights_and_fades_out(task):
    found = lab("l1_sparse", task=task, epochs=4, l1_weight=0.02, **PLAIN)
    for turn in found.course.turns(0):
        batch, share = found.batch(turn), 1 - turn.epoch / 4

        def retain(model: Classifier, batch: StepBatch = batch) -> Tensor:
            return task_loss(model(batch.images).logits, batch.labels)

        before = [p.detach().clone() for p in found.model.parameters()]
        expected = plain_gradients(found.model, retain)
        numbers = found.method.step(batch, found.updater, stop=False)
        for old, new, gradient in zip(before, found.model.parameters(), expected, strict=True):
            penalty = 0.02 * share * old.sign()
            # Sums in another order: rounding of float64.
            torch.testing.assert_close(
                (old - new) / 0.05, gradient + penalty, rtol=1e-9, atol=1e-11
            )
        norm = sum(float(p.abs().sum()) for p in before)
        assert numbers["l1_norm"] == pytest.approx(norm, rel=1e-12)
        assert numbers["loss"] - numbers["retain_loss"] == pytest.approx(0.02 * share * norm)


def test_l1_sparse_of_weight_zero_is_fine_tuning():
    sparse, plain = lab("l1_sparse", l1_weight=0.0, epochs=2), lab("finetune", epochs=2)
    sparse.run()
    plain.run()
    assert equal(weights(sparse.model), weights(plain.model))
