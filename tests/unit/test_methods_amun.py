"""AMUN: its attack and what it trains on, beside wrong versions."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dlfd_dist.methods import amun as amun_module
from dlfd_dist.methods.amun import AMUN, adversarial
from dlfd_dist.models import Classifier, task_loss, task_prediction
from tests.fakes.method_lab import (
    FORGET,
    OUTPUTS,
    PLAIN,
    assert_step_is,
    equal,
    lab,
    labels_of,
    original,
    pictures,
    weights,
)

FREE = (torch.tensor(-100.0), torch.tensor(100.0))


def attacked(task: str, **settings) -> tuple[Classifier, Tensor, Tensor, Tensor, Tensor]:
    """Return a model, forget images and labels, and their adversarial examples and labels."""
    model, images = original(task).eval(), pictures()[FORGET]
    labels = task_prediction(model(images).logits, labels_of(task)[FORGET])
    values = {"steps": 50, "radius": 1e-4, "pixel_range": FREE, **settings}
    return model, images, labels, *adversarial(model, images, labels, **values)


@pytest.mark.parametrize("task", OUTPUTS)
def test_an_adversarial_example_is_misclassified_and_has_the_label_it_is_taken_for(task):
    model, images, labels, found, wrong = attacked(task)
    said = task_prediction(model(found).logits, labels)
    assert torch.equal(said, wrong)
    assert (wrong != labels).view(len(labels), -1).any(1).all()
    assert not torch.equal(found, images)


def test_an_adversarial_example_is_close_to_the_boundary():
    """A step is a tenth of the radius, which doubles: half the distance is on the right side."""
    model, images, labels, found, _ = attacked("classes")
    halfway = images + 0.5 * (found - images)
    assert torch.equal(task_prediction(model(halfway).logits, labels), labels)


def test_an_image_that_is_misclassified_already_is_its_own_adversarial_example():
    model, images = original().eval(), pictures()[FORGET]
    labels = (model(images).logits.argmax(1) + 1) % 3
    found, wrong = adversarial(model, images, labels, steps=5, radius=0.01, pixel_range=FREE)
    assert torch.equal(found, images)
    assert torch.equal(wrong, (labels - 1) % 3)


@pytest.mark.parametrize("task", OUTPUTS)
def test_an_image_that_cannot_be_misclassified_gets_the_label_next_to_its_own(task):
    """In a range of one value nothing can move."""
    model, images = original(task).eval(), pictures()[FORGET]
    logits = model(images).logits
    labels = task_prediction(logits, labels_of(task)[FORGET])
    pinned = images.new_zeros(())
    found, wrong = adversarial(
        model, images * 0, labels, steps=1, radius=0.5, pixel_range=(pinned, pinned + 1e-9)
    )
    assert float(found.abs().max()) <= 1e-9
    assert (wrong != labels).view(len(labels), -1).any(1).all()


class RandomLabels(AMUN):
    """Wrong: adversarial images under their true labels."""

    def _of(self, ids, batch):
        images, _ = super()._of(ids, batch)
        return images, batch.forget_labels


def trained_on(build: type[AMUN] = AMUN, **settings):
    found = lab("amun", build, **PLAIN, **settings)
    batch = found.until("unlearn")
    assert batch.total
    assert batch.forget_total
    return found, batch


@pytest.mark.parametrize("forget_images", [True, False])
@pytest.mark.parametrize(("build", "holds"), [(AMUN, True), (RandomLabels, False)])
def test_amun_trains_on_retain_adversarial_and_forget_images(build, holds, forget_images):
    found, batch = trained_on(build, forget_images=forget_images)
    ids, kept = batch.forget_ids.tolist(), found.method.tensors()
    rows = [kept["ids"].tolist().index(i) for i in ids]
    images, labels = [batch.images, kept["images"][rows]], [batch.labels, kept["labels"][rows]]
    if forget_images:
        images.append(batch.forget_images)
        labels.append(batch.forget_labels)

    def loss(model: Classifier) -> Tensor:
        return F.cross_entropy(model(torch.cat(images)).logits, torch.cat(labels))

    try:
        assert_step_is(found, batch, loss)
        assert holds
    except AssertionError:
        assert not holds


def test_the_pass_of_attacks_finds_one_example_for_every_forget_image_and_moves_nothing():
    found = lab("amun")
    found.until("unlearn")
    assert sorted(found.method.tensors()["ids"].tolist()) == FORGET.tolist()
    assert equal(weights(found.model), weights(original()))


def test_every_epoch_of_amun_passes_over_retain_and_forget_once():
    seen: dict[int, list[int]] = {}
    for batch, _ in lab("amun", epochs=2).walk():
        if batch.phase == "unlearn":
            ids = torch.cat([batch.ids, batch.forget_ids]).tolist()
            seen.setdefault(batch.epoch, []).extend(ids)
    assert [sorted(ids) for ids in seen.values()] == [list(range(18))] * 2


def test_amun_lowers_the_confidence_on_forget():
    found = lab("amun", epochs=10, forget_images=False)

    def loss() -> float:
        with torch.no_grad():
            logits = copy.deepcopy(found.model).eval()(pictures()[FORGET]).logits
        return float(task_loss(logits, labels_of("classes")[FORGET]))

    before = loss()
    found.run()
    assert loss() > before


def test_the_radius_doubles_until_the_image_is_misclassified(monkeypatch):
    radii, plain = [], amun_module._moved

    def recorded(current, start, gradient, radius, scale):
        radii.append((radius, len(current)))
        return plain(current, start, gradient, radius, scale)

    monkeypatch.setattr(amun_module, "_moved", recorded)
    attacked("classes", steps=3)
    sizes = [radius for radius, _ in radii]
    assert sizes[:9] == pytest.approx([1e-4] * 3 + [2e-4] * 3 + [4e-4] * 3)
    counts = [count for _, count in radii]
    assert counts == sorted(counts, reverse=True)
