"""SCRUB: max and min passes, its teacher, and the rewinding choice of a probe."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dlfd_dist.config import ForgetConfig, JobConfig, SCRUBConfig
from dlfd_dist.errors import ConfigError
from dlfd_dist.jobs.unlearn import _selection_value
from dlfd_dist.methods import Probe, StepBatch
from dlfd_dist.methods.scrub import SCRUB
from dlfd_dist.models import Classifier
from tests.fakes.method_lab import (
    PLAIN,
    RETAIN,
    Lab,
    assert_step_is,
    depends_on_forget,
    depends_on_retain,
    equal,
    lab,
    original,
    weights,
)


class MaxSeesRetain(SCRUB):
    """Wrong: the max steps learn the retain set."""

    def _leave(self, batch, updater, stop):
        return updater.classify(batch.images, batch.labels, total=batch.total, stop=stop)


def after_one_epoch(build: type[SCRUB] = SCRUB, **settings) -> tuple[Lab, StepBatch]:
    """Return SCRUB when the student has left the teacher, and its second max batch."""
    found = lab("scrub", build, epochs=2, **settings)
    for turn in found.course.turns(0):
        batch = found.batch(turn)
        if (turn.epoch, turn.phase.name) == (1, "max"):
            return found, batch
        if turn.phase.name == "min":
            found.method.step(batch, found.updater, stop=False)
    raise AssertionError("no second max pass")


@pytest.mark.parametrize(("build", "holds"), [(SCRUB, True), (MaxSeesRetain, False)])
def test_the_max_phase_of_scrub_never_touches_the_retain_batch(build, holds):
    found, batch = after_one_epoch(build)
    assert batch.total == 0
    ids = torch.from_numpy(RETAIN[:4])
    batch = replace(batch, ids=ids, images=found.images[ids], labels=found.labels[ids], total=4)
    assert depends_on_retain(found, batch) is not holds


def test_the_min_phase_of_scrub_never_touches_the_forget_batch():
    found = lab("scrub")
    batch = found.until("min")
    assert batch.forget_total
    assert not depends_on_forget(found, batch)


def divergence(model: Classifier, teacher: Classifier, images: Tensor, temperature: float):
    """Return T^2 KL(teacher || student), the mean over images, by torch alone."""
    student, known = (m(images).logits / temperature for m in (model, teacher))
    kl = F.kl_div(student.log_softmax(1), known.softmax(1).detach(), reduction="batchmean")
    return temperature**2 * kl


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_min_step_of_scrub_is_task_and_divergence_times_temperature_squared(temperature):
    cfg: dict[str, Any] = {"temperature": temperature, "distill_weight": 0.4, "task_weight": 0.9}
    found, teacher = lab("scrub", **cfg, **PLAIN), original().eval()
    checked = 0
    for turn in found.course.turns(0):
        batch = found.batch(turn)
        if batch.phase == "min":

            def loss(model: Classifier, batch: StepBatch = batch) -> Tensor:
                task = F.cross_entropy(model(batch.images).logits, batch.labels)
                return 0.4 * divergence(model, teacher, batch.images, temperature) + 0.9 * task

            assert_step_is(found, batch, loss)
            checked += 1
    assert checked == 3


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_max_step_of_scrub_raises_the_divergence_on_forget(temperature):
    found, batch = after_one_epoch(temperature=temperature, **PLAIN)
    teacher = original().eval()

    def raised(model: Classifier) -> float:
        with torch.no_grad():
            copied = copy.deepcopy(model).eval()
            return float(divergence(copied, teacher, batch.forget_images, temperature))

    before = raised(found.model)
    assert_step_is(
        found, batch, lambda m: -divergence(m, teacher, batch.forget_images, temperature)
    )
    assert raised(found.model) > before


@pytest.mark.parametrize(("train_mode", "moved"), [("authors", True), ("frozen", False)])
def test_the_first_max_step_moves_the_student_where_its_batch_norm_is_trained(train_mode, moved):
    found = lab("scrub", train_mode=train_mode, **PLAIN)
    batch = found.batch(next(found.course.turns(0)))
    assert batch.phase == "max"
    numbers = found.method.step(batch, found.updater, stop=False)
    # Rounding alone is left where student and teacher are one model.
    assert (numbers["grad_norm"] > 1e-6) is moved


def test_frozen_batch_norm_is_refused_for_scrub():
    values: dict[str, Any] = {
        "verb": "unlearn",
        "checkpoint": "m",
        "forget": ForgetConfig(fraction=0.2),
    }
    JobConfig(**values, method=SCRUBConfig()).validate(1)
    with pytest.raises(ConfigError, match="train_mode=frozen is not allowed with method=scrub"):
        JobConfig(**values, method=SCRUBConfig(), train_mode="frozen").validate(1)


@pytest.mark.parametrize(("size", "steps"), [(2, 4), (3, 3), (16, 1)])
def test_the_size_of_a_forget_batch_says_how_many_max_steps_there_are(size, steps):
    phases = [t.phase.name for t in lab("scrub", epochs=1, forget_batch_size=size).course.turns(0)]
    assert phases == ["max"] * steps + ["min"] * 3


def test_scrub_has_its_max_passes_before_the_min_passes_of_the_first_epochs():
    names = [p.name for p in SCRUB.phases(SCRUBConfig(epochs=4, max_epochs=2))]
    assert names == ["max", "min", "max", "min", "min", "min"]


def test_the_teacher_of_scrub_is_the_original_and_never_moves():
    found = lab("scrub", epochs=2, train_mode="sync_bn")
    assert equal(weights(found.method.teacher), weights(original()))
    found.run()
    assert equal(weights(found.method.teacher), weights(original()))


@pytest.mark.parametrize(
    ("forget_accuracy", "val_accuracy", "value"), [(0.9, 0.7, -0.2), (0.6, 0.7, -0.1), (1, 1, 0)]
)
def test_rewinding_prefers_the_probe_whose_forget_accuracy_is_nearest_to_val(
    forget_accuracy, val_accuracy, value
):
    cfg = SCRUBConfig(select="rewind")
    probe = Probe(1, val_accuracy, forget_accuracy, 0.5, 0.5, 0.5)
    assert _selection_value(cfg, probe) == pytest.approx(value)
