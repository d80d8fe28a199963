"""The stand-in for Retrained: it learns from retain alone, and is matched on forget images."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dlfd_dist.config import DLFMConfig
from dlfd_dist.errors import ConfigError
from dlfd_dist.methods.dlfm import DLFM
from tests.fakes.method_lab import (
    PLAIN,
    Lab,
    assert_step_is,
    depends_on_forget,
    equal,
    lab,
    original,
    weights,
)
from tests.fakes.small_model import small_classifier

ALONE: dict[str, Any] = {"quantiles": False, "features": False, "dynamic": False}


def taught(build: type[DLFM] | None = None, **settings: Any) -> Lab:
    return lab("dlfm", build, **{"teacher": "reset", "teacher_epochs": 2, **ALONE, **settings})


class LearnsThem(DLFM):
    """Wrong: the stand-in sees the forget images while it learns."""

    def step(self, batch, updater, *, stop):
        if batch.phase == "teach":
            seen = batch.both, torch.cat([batch.labels, batch.forget_labels])
            from dataclasses import replace

            batch = replace(batch, images=seen[0], labels=seen[1], total=len(seen[0]))
        return super().step(batch, updater, stop=stop)


@pytest.mark.parametrize(("build", "holds"), [(DLFM, True), (LearnsThem, False)])
def test_the_stand_in_never_sees_the_forget_set_and_the_model_stands_still_meanwhile(build, holds):
    ends = []
    for wrong_images in (False, True):
        found = taught(build)
        if wrong_images:
            found.images = found.images.clone()
            found.images[11:] *= -1
        before = weights(found.model)
        found.until("match")
        assert equal(before, weights(found.model))
        ends.append(weights(found.method.stand_in.model))
    assert equal(*ends) is holds


@pytest.mark.parametrize("teacher", ["reset", "rewound"])
def test_it_starts_where_its_name_says(teacher):
    found = taught(teacher=teacher, reset_strength=1.0)
    fresh = small_classifier(3, seed={"reset": 99, "rewound": 7}[teacher])
    pairs = zip(found.method.stand_in.model.parameters(), fresh.parameters(), strict=True)
    assert all(torch.allclose(own, new) for own, new in pairs)


def test_a_step_of_matching_is_the_gradient_of_the_divergence_from_it():
    found = taught(**PLAIN, match_weight=0.7, kd_weight=0.0, reset_strength=0.9, teacher_lr=0.05)
    batch = found.until("match")
    teacher = copy.deepcopy(found.method.stand_in.model).eval()

    def loss(model) -> Tensor:
        retain, forget = model(batch.images).logits, model(batch.forget_images).logits
        with torch.no_grad():
            known = teacher(batch.forget_images).logits
        apart = F.kl_div(
            forget.log_softmax(1), known.log_softmax(1), log_target=True, reduction="batchmean"
        )
        return F.cross_entropy(retain, batch.labels) + 0.7 * apart

    assert_step_is(found, batch, loss)
    assert depends_on_forget(found, batch)


def test_a_stand_in_that_was_saved_learns_on_as_if_it_had_not_been():
    whole, cut = taught(momentum=0.9), taught(momentum=0.9)
    turns = list(whole.course.turns(0))
    for number, turn in enumerate(turns[:5]):
        whole.method.step(whole.batch(turn), whole.updater, stop=False)
        if number < 2:
            cut.method.step(cut.batch(turn), cut.updater, stop=False)
    saved = {k: v.clone() for k, v in cut.method.tensors().items()}
    again = taught(momentum=0.9)
    again.method.load_tensors(saved)
    for turn in turns[2:5]:
        again.method.step(again.batch(turn), again.updater, stop=False)
    stand_ins = (weights(found.method.stand_in.model) for found in (whole, again))
    assert equal(*stand_ins)


def test_its_epochs_are_counted_in_passes():
    passes = taught(teacher_epochs=2, epochs=3).course.passes
    assert passes == {"teach": 2.0, "match": 3.0}
    assert taught(teacher_epochs=2, epochs=3, max_steps=7).course.passes["match"] == 1 / 3


def test_the_original_teaches_the_retain_set_all_the_same():
    found = taught()
    found.until("match")
    assert equal(weights(found.method.original), weights(original()))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"teacher": "retrained"}, "must be one of none, reset, rewound"),
        ({"teacher_epochs": 0}, "method.teacher_epochs=0"),
        ({"teacher_lr": 0.0}, "method.teacher_lr=0.0 .* above 0"),
        ({"teacher": "reset", "lr_scheduler": "cosine"}, "one of constant, cosine_batch"),
        ({"quantiles": False, "features": False}, "leave nothing to match"),
    ],
)
def test_a_stand_in_that_cannot_be_is_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        DLFMConfig(**settings)
