"""A method on a model of three blocks and 18 images, with what the loop would give it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dlfd_dist.config import METHOD_CONFIGS, ForgetConfig, JobConfig
from dlfd_dist.data.splits import Splits
from dlfd_dist.jobs.course import Course, Turn
from dlfd_dist.methods import MethodContext, StepBatch, UnlearningMethod, Updater, methods
from dlfd_dist.models import Classifier, task_loss
from dlfd_dist.runtime.collectives import Collectives
from tests.fakes.small_model import small_classifier

NEW = [
    "neggrad", "neggrad_plus", "cf_k", "eu_k", "unsir", "bad_teacher", "scrub", "salun", "ssd",
    "l1_sparse", "reset", "weight_distortion", "weight_dist_reg", "gli", "fcs", "ct", "msg", "amun",
    "rewind",
]  # fmt: skip

OUTPUTS = {"classes": 3, "binary": 2, "labels": 3}

RETAIN, FORGET = np.arange(11), np.arange(11, 18)
"""In batches of 4: retain 4, 4, 3; forget 4, 3; both together 4, 4, 4, 4, 2."""

SPLITS = Splits(np.arange(18), RETAIN, FORGET, np.empty(0, int), np.empty(0, int))


def pictures(n: int = 18, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, 8, 8, generator=generator, dtype=torch.float64)


def labels_of(task: str, n: int = 18) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    if task == "labels":
        return torch.randint(0, 2, (n, OUTPUTS[task]), generator=generator)
    return torch.arange(n) % OUTPUTS[task]


def original(task: str = "classes", head: str = "linear") -> Classifier:
    """Return a model whose BatchNorm statistics fit the images, and which knows them a little."""
    model = small_classifier(OUTPUTS[task], head=head).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(10):
        optimizer.zero_grad()
        task_loss(model(pictures()).logits, labels_of(task)).backward()
        optimizer.step()
    return model


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two states are bit-equal."""
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def forget_loss(model: Classifier, task: str = "classes") -> float:
    with torch.no_grad():
        output = copy.deepcopy(model).eval()(pictures()[FORGET])
    return float(task_loss(output.logits, labels_of(task)[FORGET]))


@dataclass
class Lab:
    """A method on 11 retain and 7 forget images, with what the loop would give it."""

    method: Any
    """what the class under test is, a wrong one included"""
    updater: Updater
    course: Course
    images: Tensor
    labels: Tensor

    @property
    def model(self) -> Classifier:
        return self.method.context.model

    def batch(self, turn: Turn) -> StepBatch:
        def part(ids: np.ndarray) -> tuple[Tensor, Tensor, Tensor, int]:
            return torch.from_numpy(ids), self.images[ids], self.labels[ids], len(ids)

        return StepBatch(
            turn.index, turn.epoch, turn.phase.name, *part(turn.retain), *part(turn.forget)
        )

    def walk(self) -> Iterator[tuple[StepBatch, dict[str, float]]]:
        """Take the steps one by one."""
        for turn in self.course.turns(0):
            batch = self.batch(turn)
            self.updater.set_epoch(turn.epoch, turn.phase.lr, turn.phase.optimizer)
            yield batch, self.method.step(batch, self.updater, stop=False)

    def run(self) -> list[dict[str, float]]:
        return [numbers for _, numbers in self.walk()]

    def until(self, phase: str) -> StepBatch:
        """Take all steps before a phase; return its first batch."""
        for turn in self.course.turns(0):
            batch = self.batch(turn)
            self.updater.set_epoch(turn.epoch, turn.phase.lr, turn.phase.optimizer)
            if batch.phase == phase:
                return batch
            self.method.step(batch, self.updater, stop=False)
        raise AssertionError(f"there is no phase {phase}")


def lab(
    name: str,
    build: type[UnlearningMethod] | None = None,
    *,
    task: str = "classes",
    train_mode: str = "frozen",
    head: str = "linear",
    collectives: Collectives | None = None,
    **settings,
) -> Lab:
    """Return a method, or a wrong version of it, before its first step."""
    defaults: dict[str, Any] = {
        "lr": 0.05,
        "clip_norm": None,
        "global_batch_size": 4,
        "weight_decay": 5e-4,
    }
    cfg = METHOD_CONFIGS[name](name=name, **{**defaults, **settings})
    config = JobConfig(
        verb="unlearn", seed=3, checkpoint="original", train_mode=train_mode, method=cfg,
        forget=ForgetConfig(fraction=0.2),
    )  # fmt: skip
    build = methods.get(name) if build is None else build
    collectives = collectives or Collectives()
    course = Course(build.phases(cfg), SPLITS, cfg, config.seed)
    model = original(task, head)
    context = MethodContext(
        config, model, lambda: small_classifier(OUTPUTS[task], seed=99, head=head), collectives,
        course.num_steps, OUTPUTS[task], (torch.zeros(1), torch.ones(1)), lambda x: x, Path(),
        lambda: small_classifier(OUTPUTS[task], seed=7, head=head),
    )  # fmt: skip
    method = build(context)
    updater = Updater(model, cfg, collectives=collectives, optimizers=course.optimizers)
    return Lab(method, updater, course, pictures(), labels_of(task))


def moves(found: Lab, batch: StepBatch) -> dict[str, Tensor]:
    """Return the state after one step from where the lab stands, and put everything back."""
    before, optimizer = weights(found.model), copy.deepcopy(found.updater.optimizer.state_dict())
    found.method.step(batch, found.updater, stop=False)
    after = weights(found.model)
    found.model.load_state_dict(before)
    found.updater.optimizer.load_state_dict(optimizer)
    return after


def plain_gradients(model: Classifier, loss: Callable[[Classifier], Tensor]) -> list[Tensor]:
    """Return the gradients of a loss of a copy of the model in evaluation mode."""
    plain = copy.deepcopy(model).eval().requires_grad_(True)
    return list(torch.autograd.grad(loss(plain), list(plain.parameters())))


PLAIN: dict[str, Any] = {"momentum": 0.0, "weight_decay": 0.0, "lr": 0.05}
"""SGD whose step is lr times the gradient."""


def assert_step_is(found: Lab, batch: StepBatch, loss: Callable[[Classifier], Tensor]) -> float:
    """Compare one step of PLAIN settings with the gradient of a loss; return what was logged."""
    before = [p.detach().clone() for p in found.model.parameters()]
    expected = plain_gradients(found.model, loss)
    with torch.no_grad():
        value = float(loss(copy.deepcopy(found.model).eval()))
    numbers = found.method.step(batch, found.updater, stop=False)
    for old, new, gradient in zip(before, found.model.parameters(), expected, strict=True):
        # Sums in another order: rounding of float64.
        torch.testing.assert_close((old - new) / 0.05, gradient, rtol=1e-9, atol=1e-11)
    assert numbers["loss"] == pytest.approx(value, rel=1e-10)
    return numbers["loss"]


def depends_on_forget(found: Lab, batch: StepBatch | None = None) -> bool:
    """Whether other forget images give other weights."""
    batch = batch or next(
        b for turn in found.course.turns(0) if (b := found.batch(turn)).forget_total and b.total
    )
    other = replace(batch, forget_images=pictures(batch.forget_total, seed=8))
    return not equal(moves(found, batch), moves(found, other))


def depends_on_retain(found: Lab, batch: StepBatch) -> bool:
    """Whether other retain images give other weights; a forget batch is given one to look at."""
    if not batch.total:
        ids = torch.from_numpy(RETAIN[:4])
        batch = replace(batch, ids=ids, images=found.images[ids], labels=found.labels[ids], total=4)
    other = replace(batch, images=pictures(batch.total, seed=8))
    return not equal(moves(found, batch), moves(found, other))
