"""Reset, Weight Distortion, Weight Dist Reg and CT: what they do to the weights, and what then."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dlfd_dist.config import MethodConfig
from dlfd_dist.errors import ConfigError
from dlfd_dist.methods.ct import CT
from dlfd_dist.methods.reset import Reset
from dlfd_dist.methods.weight_distortion import WeightDistortion, WeightDistReg
from dlfd_dist.models import Classifier
from tests.fakes.method_lab import (
    PLAIN,
    Lab,
    assert_step_is,
    depends_on_forget,
    depends_on_retain,
    lab,
    moves,
    original,
)
from tests.fakes.small_model import small_classifier


def parameters(model: Classifier) -> list[Tensor]:
    return [p.detach() for p in model.parameters()]


class OnlyShrinks(Reset):
    """Wrong: weights become small, and nothing fresh comes in."""

    def __init__(self, context):
        fresh = copy.deepcopy(context.fresh_model())
        for parameter in fresh.parameters():
            parameter.data.zero_()
        object.__setattr__(context, "fresh_model", lambda: fresh)
        super().__init__(context)


@pytest.mark.parametrize("shrink", [0.0, 0.5, 0.9])
@pytest.mark.parametrize(("build", "holds"), [(Reset, True), (OnlyShrinks, False)])
def test_reset_begins_between_the_original_and_a_fresh_model(build, holds, shrink):
    found = lab("reset", build, shrink=shrink)
    begun = parameters(found.model)
    ends = zip(parameters(original()), parameters(small_classifier(3, seed=99)), strict=True)
    expected = [shrink * old + (1 - shrink) * new for old, new in ends]
    assert all(torch.allclose(a, b) for a, b in zip(begun, expected, strict=True)) is holds


def test_weight_distortion_adds_noise_of_its_size_to_every_weight():
    found = lab("weight_distortion", noise_std=0.02, head="mlp")
    pairs = zip(parameters(found.model), parameters(original(head="mlp")), strict=True)
    noise = [own - old for own, old in pairs]
    assert all((n != 0).all() for n in noise)
    # The head alone has some 35 000 weights: four standard errors of their deviation are 0.0003.
    assert float(torch.cat([n.flatten() for n in noise]).std()) == pytest.approx(0.02, abs=3e-4)
    models = [lab("weight_distortion", noise_std=std).model for std in (0.02, 0.04)]
    for old, one, two in zip(*map(parameters, (original(), *models)), strict=True):
        torch.testing.assert_close(two - old, 2 * (one - old))


class Returns(WeightDistReg):
    """Wrong: it is rewarded for staying near the original."""

    def __init__(self, context):
        super().__init__(context)
        self.weight = -self.weight


START = parameters(original())


def distance(model: Classifier) -> Tensor:
    """Return the root mean square of what the weights have moved."""
    pairs = zip(model.parameters(), START, strict=True)
    moved = torch.cat([(own - old).flatten() for own, old in pairs])
    return (moved.square().mean() + 1e-8).sqrt()


@pytest.mark.parametrize(("build", "holds"), [(WeightDistReg, True), (Returns, False)])
def test_weight_dist_reg_is_the_retain_loss_less_the_distance_from_the_original(build, holds):
    found = lab("weight_dist_reg", build, distance_weight=3.0, **PLAIN)
    turns = found.course.turns(0)
    found.method.step(found.batch(next(turns)), found.updater, stop=False)
    batch = found.batch(next(turns))

    def loss(model: Classifier) -> Tensor:
        return F.cross_entropy(model(batch.images).logits, batch.labels) - 3 * distance(model)

    if holds:
        assert_step_is(found, batch, loss)
    else:
        with pytest.raises(AssertionError):
            assert_step_is(found, batch, loss)


def test_a_larger_reward_ends_further_from_the_original():
    ends = {}
    for weight in (0.01, 10.0):
        found = lab("weight_dist_reg", distance_weight=weight, epochs=5, **PLAIN)
        found.run()
        ends[weight] = float(distance(found.model).detach())
    assert ends[10.0] > 1.2 * ends[0.01]


class Rotates(CT):
    """Wrong: kernels are turned upside down."""

    def __init__(self, context):
        before = copy.deepcopy(context.model)
        super().__init__(context)
        for own, old in zip(context.model.parameters(), before.parameters(), strict=True):
            own.data = old.data.flip(-1) if old.ndim == 4 else old.data


@pytest.mark.parametrize(("build", "holds"), [(CT, True), (Rotates, False)])
def test_ct_transposes_every_kernel_and_nothing_else(build, holds):
    found, same = lab("ct", build), []
    for own, old in zip(parameters(found.model), parameters(original()), strict=True):
        same.append(torch.equal(own, old.transpose(2, 3) if old.ndim == 4 else old))
    assert all(same) is holds
    kernels = [p for p in parameters(original()) if p.ndim == 4]
    assert not any(torch.equal(k, k.transpose(2, 3)) for k in kernels)


def test_ct_refuses_a_model_whose_kernels_are_their_own_transposes():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1), torch.nn.Linear(2, 2))
    with pytest.raises(ConfigError, match="this model has none of more than one pixel"):
        CT.check(MethodConfig(name="ct"), model)  # type: ignore[arg-type]


NAMES = ["reset", "weight_distortion", "weight_dist_reg", "ct"]


@pytest.mark.parametrize("name", NAMES)
def test_then_only_the_retain_set_is_read(name):
    found = lab(name)
    next(found.walk())
    batch = found.batch(list(found.course.turns(0))[1])
    assert batch.forget_total
    assert not depends_on_forget(found, batch)
    assert depends_on_retain(found, batch)


def step_of(found: Lab) -> dict[str, Tensor]:
    return moves(found, found.batch(next(found.course.turns(0))))


@pytest.mark.parametrize("build", [Reset, WeightDistortion, CT])
def test_then_they_are_fine_tuning(build):
    name = {Reset: "reset", WeightDistortion: "weight_distortion", CT: "ct"}[build]
    found, plain = lab(name), lab("finetune")
    plain.model.load_state_dict(found.model.state_dict())
    for tensor, expected in zip(step_of(found).values(), step_of(plain).values(), strict=True):
        assert torch.equal(tensor, expected)
