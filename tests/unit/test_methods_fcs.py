"""FCS: its three kinds of rounds, beside wrong versions."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

from dlfd_dist.config import FCSConfig
from dlfd_dist.methods.fcs import FCS
from dlfd_dist.models import Classifier
from tests.fakes.method_lab import (
    FORGET,
    PLAIN,
    assert_step_is,
    depends_on_forget,
    depends_on_retain,
    equal,
    lab,
    labels_of,
    moves,
    pictures,
)


def test_the_rounds_of_fcs_and_their_rates():
    phases = FCS.phases(FCSConfig(epochs=2, uniform_lr=0.3, forget_lr=0.2))
    names = [(p.name, p.over, p.first_epoch, p.lr) for p in phases]
    assert names == [
        ("uniform", "forget", 0, 0.3),
        ("contrast", "forget", 0, 0.2), ("repair", "retain", 0, None),
        ("contrast", "forget", 1, pytest.approx(0.1)), ("repair", "retain", 1, None),
    ]  # fmt: skip
    assert [p.selectable for p in phases] == [False, False, True, False, True]


def test_the_first_pass_lowers_the_divergence_from_a_uniform_answer():
    found = lab("fcs", **PLAIN)
    batch = found.batch(next(found.course.turns(0)))

    def loss(model: Classifier) -> Tensor:
        log_answers = model(batch.forget_images).logits.log_softmax(1)
        return -(log_answers.mean(1) + math.log(3)).mean()

    assert batch.phase == "uniform"
    assert_step_is(found, batch, loss)


@pytest.mark.parametrize("task", ["binary", "labels"])
def test_a_pass_towards_uniform_lowers_the_confidence_on_forget(task):
    found = lab("fcs", task=task, uniform_lr=0.05)

    def confidence() -> float:
        with torch.no_grad():
            logits = copy.deepcopy(found.model).eval()(pictures()[FORGET]).logits
        return float(logits.abs().mean() if task == "labels" else logits.softmax(1).amax(1).mean())

    before = confidence()
    found.until("contrast")
    assert confidence() < before
    assert labels_of(task).ndim == (2 if task == "labels" else 1)


def contrast(model: Classifier, forget: Tensor, retain: Tensor, temperature: float) -> Tensor:
    products = model(forget).logits @ retain.T / temperature
    return -products.log_softmax(1).mean()


class TrainsRetainToo(FCS):
    """Wrong: the contrast moves the retain logits as well."""

    def _contrast(self, batch, updater, stop):
        retain = self.context.model.eval()(batch.images).logits
        return updater.step(
            batch.forget_images,
            lambda output: {
                "loss": -(output.logits @ retain.T / self.temperature).log_softmax(1).mean()
            },
            stop=stop,
        )


@pytest.mark.parametrize(("build", "holds"), [(FCS, True), (TrainsRetainToo, False)])
def test_a_forget_round_lowers_the_contrast_and_moves_the_forget_side_alone(build, holds):
    found = lab("fcs", build, temperature=0.7, **PLAIN)
    batch = found.until("contrast")
    found.updater.set_epoch(0, 0.05)
    with torch.no_grad():
        retain = copy.deepcopy(found.model).eval()(batch.images).logits
    assert (batch.total, batch.forget_total) == (4, 4)
    try:
        assert_step_is(found, batch, lambda m: contrast(m, batch.forget_images, retain, 0.7))
        assert holds
    except AssertionError:
        assert not holds


def test_a_retain_round_is_fine_tuning():
    # Nothing is left of the momentum of the contrast before it.
    found = lab("fcs", momentum=0.9)
    batch = found.until("repair")
    plain = lab("finetune", momentum=0.9)
    plain.model.load_state_dict(found.model.state_dict())
    assert equal(moves(found, batch), moves(plain, batch))


def test_the_weights_decay_in_retain_rounds_alone():
    found = lab("fcs", weight_decay=0.3)
    decays = {
        name: o.param_groups[0]["weight_decay"] for name, o in found.updater.optimizers.items()
    }
    assert decays == {"": 0.3, "uniform": 0.0, "contrast": 0.0}


def test_a_forget_round_reads_both_sets():
    found = lab("fcs")
    batch = found.until("contrast")
    assert depends_on_forget(found, batch)
    assert depends_on_retain(found, batch)
    seen = [b for b, _ in lab("fcs", epochs=2).walk() if b.phase == "contrast"]
    # Two steps an epoch, for seven forget images; the retain batches go on where they were.
    assert [b.forget_total for b in seen] == [4, 3, 4, 3]
    assert [b.total for b in seen] == [4, 4, 4, 4]
