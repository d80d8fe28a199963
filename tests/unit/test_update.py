"""methods/update.py: one SGD step of a global batch, against plain torch."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlfd_dist.config import MethodConfig, TrainConfig
from dlfd_dist.errors import NonFiniteLossError
from dlfd_dist.methods import Updater, scheduled_lr
from dlfd_dist.methods.update import classification
from dlfd_dist.models import Classifier, ModelOutput
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.seeding import torch_seed
from tests.fakes.small_model import of_parts


def tiny_classifier() -> Classifier:
    """Return a float64 model of two layers on images of 3 x 4 x 4."""
    with torch_seed(0):
        backbone = nn.Sequential(nn.Flatten(), nn.Linear(48, 6), nn.Tanh())
        return of_parts(backbone, nn.Sequential(nn.Linear(6, 3))).double()


def batch(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(n, 3, 4, 4, generator=generator, dtype=torch.float64)
    return images, torch.randint(0, 3, (n,), generator=generator)


def settings(**values) -> MethodConfig:
    return MethodConfig(**{"lr": 0.1, "clip_norm": None, **values})


def updater(model: Classifier, cfg: MethodConfig | TrainConfig | None = None) -> Updater:
    return Updater(model, cfg or settings(), collectives=Collectives())


def copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("clip_norm", [None, 0.05])
def test_steps_are_plain_torch_sgd_on_the_mean_loss(clip_norm):
    cfg = settings(momentum=0.9, weight_decay=0.01, clip_norm=clip_norm)
    ours, plain = tiny_classifier(), tiny_classifier()
    update = updater(ours, cfg)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    for step in range(5):
        images, labels = batch(7, seed=step)
        numbers = update.classify(images, labels, total=7)
        optimizer.zero_grad()
        loss = F.cross_entropy(plain(images).logits, labels)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(plain.parameters(), clip_norm or math.inf)
        optimizer.step()
        # A sum divided by 7 against torch's mean: rounding of float64.
        assert numbers["loss"] == pytest.approx(loss.item(), rel=1e-12)
        assert numbers["grad_norm"] == pytest.approx(norm.item(), rel=1e-12)
    torch.testing.assert_close(ours.state_dict(), plain.state_dict(), rtol=1e-12, atol=1e-12)


def test_loss_of_several_labels_is_normalised_by_the_batch_as_well():
    model, (images, _) = tiny_classifier(), batch(5)
    labels = torch.tensor([[0, 1, 1]] * 5)
    expected = F.binary_cross_entropy_with_logits(model(images).logits, labels.double()).item()
    found = updater(model).classify(images, labels, total=5)["loss"]
    assert found == pytest.approx(expected, rel=1e-12)  # sums in another order


def test_a_shard_adds_its_share_of_the_global_mean():
    """Parts of 4 and 3 of 7 samples: losses and gradients add up to those of the whole."""
    images, labels = batch(7)
    whole, losses, gradients = tiny_classifier(), [], []
    for rows in (slice(0, 4), slice(4, 7), slice(7, 7)):
        part = tiny_classifier()
        losses.append(updater(part).classify(images[rows], labels[rows], total=7)["loss"])
        gradients.append([p.grad for p in part.parameters()])
    F.cross_entropy(whole(images).logits, labels).backward()
    expected = F.cross_entropy(tiny_classifier()(images).logits, labels).item()
    # Sums in another order: rounding of float64.
    assert sum(losses) == pytest.approx(expected, rel=1e-12)
    for parameter, *parts in zip(whole.parameters(), *gradients, strict=True):
        torch.testing.assert_close(sum(parts), parameter.grad, rtol=1e-12, atol=1e-14)


def test_an_empty_shard_takes_part_with_nothing():
    model = tiny_classifier()
    before = copied(model)
    images, labels = batch(1)
    numbers = updater(model, settings(weight_decay=0.0)).classify(images[:0], labels[:0], total=4)
    assert (numbers["loss"], numbers["grad_norm"]) == (0, 0)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_clipping_bounds_the_step_and_reports_the_norm_before_it():
    images, labels = batch(6)
    moves, norms = {}, {}
    for clip_norm in (None, 0.01, 1e6):
        model = tiny_classifier()
        before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
        cfg = settings(momentum=0.0, weight_decay=0.0, clip_norm=clip_norm)
        norms[clip_norm] = updater(model, cfg).classify(images, labels, total=6)["grad_norm"]
        after = torch.cat([p.detach().flatten() for p in model.parameters()])
        moves[clip_norm] = float((after - before).norm())
    assert norms[None] == norms[0.01] == norms[1e6] > 0.01
    # lr * clip_norm; torch divides by norm + 1e-6, so the step is short by 1e-6 / norm.
    assert moves[0.01] == pytest.approx(0.1 * 0.01, rel=1e-4)
    assert moves[1e6] == pytest.approx(0.1 * norms[None], rel=1e-9)  # rounding of w + lr * g
    assert moves[None] == moves[1e6]


def test_gradients_of_the_step_before_do_not_add_up():
    images, labels = batch(6)
    model = tiny_classifier()
    update = updater(model, settings(lr=1e-300))
    norms = [update.classify(images, labels, total=6)["grad_norm"] for _ in range(2)]
    assert norms[0] == norms[1]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_non_finite_loss_stops_before_the_weights_or_the_momentum_move(bad):
    model = tiny_classifier()
    update = updater(model)
    images, labels = batch(4)
    update.classify(images, labels, total=4)
    weights = copied(model)
    momentum = [s["momentum_buffer"].clone() for s in update.optimizer.state.values()]
    images[0, 0, 0, 0] = bad
    if bad == math.inf:
        # tanh(inf) is finite: an infinite logit needs an infinite last layer's input.
        model.module.backbone = nn.Sequential(*list(model.module.backbone)[:2])
    with pytest.raises(NonFiniteLossError, match=r"The loss .*became .*the weights were not cha"):
        update.classify(images, labels, total=4)
    torch.testing.assert_close(copied(model), weights, rtol=0, atol=0)
    after = [s["momentum_buffer"] for s in update.optimizer.state.values()]
    torch.testing.assert_close(after, momentum, rtol=0, atol=0)


def test_a_non_finite_gradient_under_a_finite_loss_stops_as_well():
    model = tiny_classifier()
    before = copied(model)
    next(model.parameters()).register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(NonFiniteLossError, match=r"The grad_norm became nan; the weights were not"):
        updater(model, settings(clip_norm=1.0)).classify(*batch(4), total=4)
    torch.testing.assert_close(copied(model), before, rtol=0, atol=0)


@pytest.mark.parametrize("stop", [True, False])
def test_the_stop_flag_is_reported(stop):
    assert (updater(tiny_classifier()).classify(*batch(4), total=4, stop=stop)["stop"] > 0) is stop


def test_reported_scalars_come_back_without_touching_the_step():
    images, labels = batch(4)
    models = [tiny_classifier(), tiny_classifier()]
    report = {"ot_cost": torch.tensor(0.25, dtype=torch.float64, requires_grad=True)}
    numbers = updater(models[0]).classify(images, labels, total=4, report=report)
    updater(models[1]).classify(images, labels, total=4)
    assert numbers["ot_cost"] == 0.25
    assert list(numbers) == ["loss", "stop", "ot_cost", "grad_norm"]
    torch.testing.assert_close(models[0].state_dict(), models[1].state_dict(), rtol=0, atol=0)


def test_a_constant_rate_stays():
    cfg = TrainConfig(lr=0.3, lr_scheduler="constant", epochs=4)
    assert [scheduled_lr(cfg, epoch) for epoch in range(4)] == [0.3] * 4


def test_the_cosine_schedule_is_torchs_once_per_epoch():
    cfg = TrainConfig(lr=0.3, lr_scheduler="cosine", epochs=7)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=7)
    for epoch in range(7):
        # torch steps recursively, ours is the closed form: rounding.
        assert scheduled_lr(cfg, epoch) == pytest.approx(scheduler.get_last_lr()[0], rel=1e-12)
        optimizer.step()
        scheduler.step()
    assert scheduled_lr(cfg, 0) == 0.3
    assert scheduled_lr(cfg, 7) == pytest.approx(0, abs=1e-15)  # cos(pi) + 1


def test_setting_the_epoch_moves_the_rate_of_the_optimizer():
    update = updater(tiny_classifier(), TrainConfig(lr=0.4, epochs=2, lr_scheduler="cosine"))
    assert update.set_epoch(1) == pytest.approx(0.2, rel=1e-12)  # cos(pi / 2)
    assert [g["lr"] for g in update.optimizer.param_groups] == [update.set_epoch(1)]
    assert update.set_epoch(0) == 0.4


@pytest.mark.parametrize("clip_norm", [None, 0.05])
def test_adam_is_torchs(clip_norm):
    cfg = settings(optimizer="adam", momentum=0.8, weight_decay=0.01, clip_norm=clip_norm)
    ours, plain = tiny_classifier(), tiny_classifier()
    update = updater(ours, cfg)
    optimizer = torch.optim.Adam(plain.parameters(), 0.1, (0.8, 0.999), weight_decay=0.01)
    for step in range(5):
        images, labels = batch(7, seed=step)
        update.classify(images, labels, total=7)
        optimizer.zero_grad()
        F.cross_entropy(plain(images).logits, labels).backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), clip_norm or math.inf)
        optimizer.step()
    # A sum divided by 7 against torch's mean; Adam divides by the size of a gradient.
    torch.testing.assert_close(ours.state_dict(), plain.state_dict(), rtol=1e-9, atol=1e-11)


def scaled(output: ModelOutput) -> dict[str, Tensor]:
    """Return an objective of two named parts, one of which is only told."""
    size = output.logits.square().sum()
    return {"loss": 2 * size, "size": size}


def test_a_step_goes_down_any_objective_and_tells_its_parts():
    images, _ = batch(5)
    ours, plain = tiny_classifier(), tiny_classifier()
    numbers = updater(ours, settings(momentum=0.0, weight_decay=0.0)).step(images, scaled)
    loss = 2 * plain(images).logits.square().sum()
    gradients = torch.autograd.grad(loss, list(plain.parameters()))
    assert list(numbers) == ["loss", "size", "stop", "grad_norm"]
    assert numbers["loss"] == pytest.approx(loss.item(), rel=1e-12)
    assert numbers["size"] == pytest.approx(loss.item() / 2, rel=1e-12)
    for old, new, gradient in zip(plain.parameters(), ours.parameters(), gradients, strict=True):
        torch.testing.assert_close(new, old - 0.1 * gradient, rtol=1e-12, atol=1e-14)


def test_the_images_are_forwarded_once():
    model, calls = tiny_classifier(), []
    model.register_forward_hook(lambda *_: calls.append(1))
    updater(model).step(batch(4)[0], scaled)
    assert len(calls) == 1


@pytest.mark.parametrize("clip_norm", [None, 0.01])
def test_gradients_are_edited_before_they_are_clipped_and_measured(clip_norm):
    """Half of a layer's gradients are set to zero: the norm is that of the rest."""
    images, labels = batch(6)
    model, plain = tiny_classifier(), tiny_classifier()
    before = copied(model)
    seen = []

    def keep_the_head() -> None:
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            seen.append(parameter.grad.clone())
            if name.startswith("module.backbone"):
                parameter.grad.zero_()

    cfg = settings(momentum=0.0, weight_decay=0.0, clip_norm=clip_norm)
    objective = classification(labels, 6)
    numbers = updater(model, cfg).step(images, objective, edit_gradients=keep_the_head)
    F.cross_entropy(plain(images).logits, labels).backward()
    for found, parameter in zip(seen, plain.parameters(), strict=True):
        torch.testing.assert_close(found, parameter.grad, rtol=1e-12, atol=1e-14)
    head = torch.cat(
        [p.grad.flatten() for p in plain.module.head.parameters() if p.grad is not None]
    )
    assert numbers["grad_norm"] == pytest.approx(float(head.norm()), rel=1e-12)
    after = copied(model)
    moved = {n for n in after if not torch.equal(before[n], after[n])}
    assert moved == {"head.0.weight", "head.0.bias"}
    step = torch.cat([(after[n] - before[n]).flatten() for n in sorted(moved)]).norm()
    # lr * the norm; torch divides by norm + 1e-6 to clip, so the step is short by 1e-6 / norm.
    assert float(step) == pytest.approx(0.1 * (clip_norm or float(head.norm())), rel=1e-4)


def test_gradients_alone_are_those_of_the_step_and_nothing_moves():
    images, labels = batch(6)
    model, plain = tiny_classifier(), tiny_classifier()
    before = copied(model)
    numbers, gradients = updater(model).gradients(images, classification(labels, 6), stop=True)
    told = updater(plain).classify(images, labels, total=6)
    assert numbers.keys() == told.keys()
    assert numbers["stop"] == 1
    assert numbers["loss"] == told["loss"]
    assert numbers["grad_norm"] == pytest.approx(told["grad_norm"], rel=1e-12)
    for found, parameter in zip(gradients, plain.parameters(), strict=True):
        torch.testing.assert_close(found, parameter.grad, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(copied(model), before, rtol=0, atol=0)
    assert all(p.grad is None for p in model.parameters())


def test_tensors_added_up_keep_their_shapes():
    own = [torch.arange(6.0).view(2, 3), torch.tensor(4.0), torch.ones(0, 2)]
    parts = {"loss": torch.tensor(2.0, requires_grad=True), "more": torch.tensor(5.0)}
    numbers, summed = updater(tiny_classifier()).add_up(parts, own, stop=False)
    norm = math.sqrt(sum(float(t.square().sum()) for t in own))
    assert numbers == pytest.approx({"loss": 2, "more": 5, "stop": 0, "grad_norm": norm})
    torch.testing.assert_close(summed, own, rtol=0, atol=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["loss", "grad_norm"])
def test_what_is_added_up_must_be_finite(where, bad):
    value = torch.tensor(bad)
    parts = {"loss": value if where == "loss" else torch.tensor(1.0)}
    own = [value if where == "grad_norm" else torch.tensor(1.0)]
    with pytest.raises(NonFiniteLossError, match=rf"The {where} became {bad}"):
        updater(tiny_classifier()).add_up(parts, own, stop=False)


def test_a_rate_in_place_of_the_settings_follows_the_same_schedule():
    cfg = TrainConfig(lr=0.4, epochs=2, lr_scheduler="cosine")
    update = updater(tiny_classifier(), cfg)
    assert update.set_epoch(0, 0.1) == pytest.approx(0.1, rel=1e-12)
    assert update.set_epoch(1, 0.1) == pytest.approx(0.05, rel=1e-12)
    assert update.set_epoch(1) == pytest.approx(0.2, rel=1e-12)
