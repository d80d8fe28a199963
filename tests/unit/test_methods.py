"""methods: what each must do to be the method it is named after, on a model of three blocks.

Where a method is known to be got wrong, the test also runs the wrong one and expects it to fail.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlfd_dist.compose import compose_job
from dlfd_dist.config import METHOD_CONFIGS, ForgetConfig, JobConfig, LastBlocksConfig, SCRUBConfig
from dlfd_dist.data.splits import Splits
from dlfd_dist.errors import ConfigError
from dlfd_dist.jobs import run_job
from dlfd_dist.jobs.course import Course, Turn
from dlfd_dist.jobs.unlearn import _selection_value
from dlfd_dist.methods import (
    MethodContext,
    Probe,
    StepBatch,
    UnlearningMethod,
    Updater,
    methods,
    scheduled_lr,
)
from dlfd_dist.methods import salun as salun_module
from dlfd_dist.methods import unsir as unsir_module
from dlfd_dist.methods.bad_teacher import BadTeacher
from dlfd_dist.methods.last_blocks import CFk, EUk
from dlfd_dist.methods.neggrad import NegGrad
from dlfd_dist.methods.neggrad_plus import NegGradPlus
from dlfd_dist.methods.salun import SalUn
from dlfd_dist.methods.scrub import SCRUB
from dlfd_dist.methods.ssd import SSD
from dlfd_dist.methods.unsir import UNSIR
from dlfd_dist.models import Classifier, task_loss
from dlfd_dist.run_dir import RunDir, read_events
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag
from tests.fakes.command_line import write_faces
from tests.fakes.small_model import TWO_CONVS, small_classifier

NEW = [
    "neggrad", "neggrad_plus", "cf_k", "eu_k", "unsir", "bad_teacher", "scrub", "salun", "ssd",
    "l1_sparse",
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
            self.updater.set_epoch(turn.epoch, turn.phase.lr)
            yield batch, self.method.step(batch, self.updater, stop=False)

    def run(self) -> list[dict[str, float]]:
        return [numbers for _, numbers in self.walk()]

    def until(self, phase: str) -> StepBatch:
        """Take all steps before a phase; return its first batch."""
        for turn in self.course.turns(0):
            batch = self.batch(turn)
            if batch.phase == phase:
                return batch
            self.updater.set_epoch(turn.epoch, turn.phase.lr)
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
    )  # fmt: skip
    method = build(context)
    updater = Updater(model, cfg, collectives=collectives)
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


# --- every method


@pytest.mark.parametrize("task", OUTPUTS)
@pytest.mark.parametrize("name", NEW)
def test_every_method_moves_the_weights_with_a_finite_loss_on_every_task(name, task):
    found = lab(name, task=task, head="mlp", clip_norm=1.0)
    if name == "ssd":
        found = lab(name, task=task, head="mlp", selection=1.0)
    start = weights(found.model)
    for numbers in found.run():
        assert {"loss", "grad_norm", "stop"} <= numbers.keys()
        assert all(map(math.isfinite, numbers.values()))
    after = weights(found.model)
    assert not equal(start, after)
    assert all(torch.isfinite(tensor).all() for tensor in after.values())


@pytest.mark.parametrize("train_mode", ["frozen", "sync_bn"])
@pytest.mark.parametrize("name", [name for name in NEW if name != "eu_k"])
def test_frozen_statistics_stay_and_those_of_sync_bn_follow(name, train_mode):
    found = lab(name, train_mode=train_mode, clip_norm=1.0)
    start = weights(found.model)
    found.run()
    held = [k for k in start if "running" in k]
    moved = {k for k in held if not torch.equal(start[k], found.model.state_dict()[k])}
    follows = train_mode == "sync_bn" and name != "ssd"  # one pass in evaluation mode
    assert moved == (set(held) if follows and name != "cf_k" else moved if follows else set())
    assert bool(moved) is follows


EPOCHS = {
    # Steps of each of three epochs; max_epochs=2 of SCRUB, saliency before SalUn's first.
    "neggrad": [2, 2, 2], "neggrad_plus": [3, 3, 3], "cf_k": [3, 3, 3], "eu_k": [3, 3, 3],
    "bad_teacher": [3, 3, 3], "scrub": [5, 5, 3], "salun": [7, 5, 5], "l1_sparse": [3, 3, 3],
}  # fmt: skip


@pytest.mark.parametrize(("counter", "holds"), [("epoch", True), ("index", False)])
@pytest.mark.parametrize("name", EPOCHS)
def test_the_cosine_schedule_steps_per_epoch_not_per_batch(name, counter, holds):
    found = lab(name, epochs=3, lr_scheduler="cosine", lr=0.4)
    expected = [0.4 * (1 + math.cos(math.pi * epoch / 3)) / 2 for epoch in range(3)]
    expected = [lr for lr, steps in zip(expected, EPOCHS[name], strict=True) for _ in range(steps)]
    cfg = found.method.context.config.method
    rates = [scheduled_lr(cfg, getattr(turn, counter)) for turn in found.course.turns(0)]
    # A product in another order: rounding of float64.
    assert (rates == pytest.approx(expected, rel=1e-12)) is holds


@pytest.mark.parametrize("name", ["finetune", "scrub"])
def test_the_rates_of_a_run_are_constant_within_an_epoch(name, tiny, tmp_path):
    checkpoint = tmp_path / "original"
    run_job(tiny("train", TWO_CONVS, f"run.dir={checkpoint}"), Collectives(), StopFlag())
    config = tiny(
        "unlearn", TWO_CONVS, f"method={name}", "method.epochs=3", "method.lr_scheduler=cosine",
        "method.lr=0.01", f"checkpoint={checkpoint}", f"run.dir={tmp_path / 'run'}",
    )  # fmt: skip
    run_job(config, Collectives(), StopFlag())
    events = [e for e in read_events(RunDir(tmp_path / "run").metrics) if e["event"] == "step"]
    steps = {"finetune": [3, 3, 3], "scrub": [4, 4, 3]}[name]  # 24 retain and 8 forget images
    expected = [0.01] * steps[0] + [0.0075] * steps[1] + [0.0025] * steps[2]
    assert [e["lr"] for e in events] == pytest.approx(expected, rel=1e-12)
    if name == "scrub":
        passes = ["max", *["min"] * 3] * 2 + ["min"] * 3
        assert [e["phase"] for e in events] == passes


def test_a_run_of_unsir_repairs_at_a_rate_of_its_own(tiny, tmp_path):
    checkpoint = tmp_path / "original"
    run_job(tiny("train", TWO_CONVS, f"run.dir={checkpoint}"), Collectives(), StopFlag())
    config = tiny(
        "unlearn", TWO_CONVS, "method=unsir", "method.epochs=1", "method.lr=0.02",
        "method.repair_lr=0.005", f"checkpoint={checkpoint}", f"run.dir={tmp_path / 'run'}",
    )  # fmt: skip
    run_job(config, Collectives(), StopFlag())
    events = [e for e in read_events(RunDir(tmp_path / "run").metrics) if e["event"] == "step"]
    rates = [(e["phase"], e["lr"]) for e in events]
    assert rates == [("impair", 0.02)] * 3 + [("repair", 0.005)] * 3


@pytest.mark.parametrize("name", NEW)
def test_every_method_runs_on_a_manifest_of_several_labels(name, tmp_path):
    root = write_faces(tmp_path / "faces")
    small = [
        TWO_CONVS, f"data.root={root}", "data.label=[smile,glasses]", "data.image_size=32",
        "metrics.num_bootstrap=20", "runtime.threads_per_rank=1", "train.epochs=1",
    ]  # fmt: skip
    train = compose_job("train", [*small, f"run.dir={tmp_path / 'original'}"])
    run_job(train, Collectives(), StopFlag())
    settings = ["method.global_batch_size=8", "method.max_steps=5", "method.clip_norm=1"]
    settings += ["method.selection=1", "method.max_steps=null"] if name == "ssd" else []
    words = [
        *small, f"method={name}", *settings, "forget.fraction=0.25",
        f"checkpoint={tmp_path / 'original'}", f"run.dir={tmp_path / 'run'}",
    ]  # fmt: skip
    result = run_job(compose_job("unlearn", words), Collectives(), StopFlag())
    assert 0 <= result["test_accuracy"] <= 1
    assert 0 <= result["forgetting_score"] <= 0.5
    run = RunDir(tmp_path / "run")
    assert run.model.read_bytes() != RunDir(tmp_path / "original").model.read_bytes()
    losses = [e["loss"] for e in read_events(run.metrics) if e["event"] == "step"]
    assert all(map(math.isfinite, losses))


# --- NegGrad, NegGrad+


class Descends(NegGrad):
    """Wrong: it learns the forget set."""

    def step(self, batch, updater, *, stop):
        return updater.classify(
            batch.forget_images, batch.forget_labels, total=batch.forget_total, stop=stop
        )


@pytest.mark.parametrize(("build", "holds"), [(NegGrad, True), (Descends, False)])
@pytest.mark.parametrize("task", OUTPUTS)
def test_neggrad_raises_the_forget_loss(task, build, holds):
    found = lab("neggrad", build, task=task, epochs=3)
    before = forget_loss(found.model, task)
    found.run()
    assert (forget_loss(found.model, task) > before) is holds


def test_neggrad_never_sees_the_retain_set():
    found = lab("neggrad", epochs=2)
    seen = [batch for batch, _ in found.walk()]
    assert all(len(batch.images) == 0 for batch in seen)
    assert sorted(torch.cat([b.forget_ids for b in seen]).tolist()) == sorted([*FORGET, *FORGET])


def test_neggrad_is_ascent_on_the_mean_loss():
    found = lab("neggrad", **PLAIN)
    batch = found.batch(next(found.course.turns(0)))
    loss = assert_step_is(
        found,
        batch,
        lambda model: -F.cross_entropy(model(batch.forget_images).logits, batch.forget_labels),
    )
    assert loss < 0


class ForgetsNobody(NegGradPlus):
    """Wrong: the forget term is lost."""

    def step(self, batch, updater, *, stop):
        self.alpha = 1.0
        return super().step(batch, updater, stop=stop)


@pytest.mark.parametrize("task", OUTPUTS)
def test_neggrad_plus_is_the_weighted_difference_of_two_means(task):
    found = lab("neggrad_plus", task=task, alpha=0.7, **PLAIN)
    for turn in found.course.turns(0):
        batch = found.batch(turn)

        def loss(model: Classifier, batch: StepBatch = batch) -> Tensor:
            retain = task_loss(model(batch.images).logits, batch.labels)
            forget = task_loss(model(batch.forget_images).logits, batch.forget_labels)
            return 0.7 * retain - 0.3 * forget

        assert_step_is(found, batch, loss)


@pytest.mark.parametrize(("build", "holds"), [(NegGradPlus, True), (ForgetsNobody, False)])
def test_neggrad_plus_depends_on_the_forget_images(build, holds):
    assert depends_on_forget(lab("neggrad_plus", build)) is holds


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


# --- CF-k, EU-k


class NothingFrozen(CFk):
    """Wrong: the first blocks are trained as well."""

    def __init__(self, context):
        super().__init__(context)
        context.model.requires_grad_(True)


class StatisticsFollow(CFk):
    """Wrong: the statistics of the frozen blocks follow the batches."""

    def step(self, batch, updater, *, stop):
        self.context.model.train()
        return updater.classify(batch.images, batch.labels, total=batch.total, stop=stop)


class EUkStatisticsFollow(EUk):
    """Wrong: as above, under new blocks."""

    def step(self, batch, updater, *, stop):
        self.context.model.train()
        return updater.classify(batch.images, batch.labels, total=batch.total, stop=stop)


class EUkNothingFrozen(EUk, NothingFrozen):
    pass


FREEZING = [
    ("cf_k", CFk, True), ("cf_k", NothingFrozen, False), ("cf_k", StatisticsFollow, False),
    ("eu_k", EUk, True), ("eu_k", EUkNothingFrozen, False), ("eu_k", EUkStatisticsFollow, False),
]  # fmt: skip


def last_blocks(model: Classifier, k: int) -> set[str]:
    """Return the names of parameters and buffers of the last k blocks of the small model."""
    prefixes = [("backbone.0.", "backbone.1."), ("backbone.3.", "backbone.4."), ("head.",)]
    kept = tuple(p for block in prefixes[-k:] for p in block)
    return {name for name in model.state_dict() if name.startswith(kept)}


@pytest.mark.parametrize("train_mode", ["frozen", "sync_bn"])
@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize(("name", "build", "holds"), FREEZING)
def test_the_first_blocks_stay_bit_equal_with_their_statistics(name, build, holds, k, train_mode):
    found = lab(name, build, k=k, epochs=2, train_mode=train_mode)
    start = weights(found.model)
    trained = last_blocks(found.model, k)
    found.run()
    after = weights(found.model)
    assert all(torch.equal(start[n], after[n]) for n in start.keys() - trained) is holds
    assert all(not torch.equal(start[n], after[n]) for n in trained if n.endswith("weight"))


@pytest.mark.parametrize(
    ("name", "build", "holds"), [("eu_k", EUk, True), ("cf_k", CFk, False), ("eu_k", CFk, False)]
)
def test_the_last_blocks_of_eu_k_are_new_before_training(name, build, holds):
    found = lab(name, build, k=2)
    start, now, fresh = (weights(m) for m in (original(), found.model, small_classifier(seed=99)))
    trained = last_blocks(found.model, 2)
    drawn = {n for n in trained if "3.weight" in n or "head" in n}  # BatchNorm begins as 1 and 0
    assert all(not torch.equal(start[n], now[n]) for n in drawn) is holds
    assert all(torch.equal(fresh[n], now[n]) for n in trained) is holds
    assert all(torch.equal(start[n], now[n]) for n in start.keys() - trained)


@pytest.mark.parametrize("train_mode", ["frozen", "sync_bn"])
def test_the_new_blocks_of_eu_k_learn_their_statistics_in_either_mode(train_mode):
    found = lab("eu_k", k=2, train_mode=train_mode)
    start = weights(found.model)
    found.run()
    moved = {n for n, t in found.model.state_dict().items() if not torch.equal(start[n], t)}
    assert {n for n in moved if "running" in n} == {
        "backbone.4.running_mean", "backbone.4.running_var",
    }  # fmt: skip


@pytest.mark.parametrize(("name", "train_mode"), [("eu_k", "frozen"), ("finetune", "sync_bn")])
def test_a_batch_of_one_image_has_no_statistics_and_is_a_step_all_the_same(name, train_mode):
    """The last block sees one value per channel, of which BatchNorm has no variance."""
    own: dict[str, Any] = {"k": 2} if name == "eu_k" else {}
    found = lab(name, train_mode=train_mode, **own)
    last = found.model.get_submodule("backbone.3")
    assert isinstance(last, nn.Conv2d)
    last.stride = (4, 4)  # its 4 x 4 pixels become 1 x 1
    batch = found.batch(next(found.course.turns(0)))
    one = replace(
        batch, ids=batch.ids[:1], images=batch.images[:1], labels=batch.labels[:1], total=1
    )
    start = weights(found.model)
    numbers = found.method.step(one, found.updater, stop=False)
    assert math.isfinite(numbers["loss"])
    after = weights(found.model)
    assert all(torch.equal(start[n], after[n]) for n in start if "running" in n)
    assert not torch.equal(start["head.0.weight"], after["head.0.weight"])


def test_eu_k_of_all_blocks_is_the_new_model():
    found = lab("eu_k", k=3)
    assert equal(weights(found.model), weights(small_classifier(seed=99)))


@pytest.mark.parametrize("build", [CFk, EUk])
def test_more_blocks_than_the_model_has_are_refused(build):
    cfg = LastBlocksConfig(k=4)
    with pytest.raises(ConfigError, match=r"method.k=4 is larger .* 3 blocks .* method.k=3 or le"):
        build.check(cfg, original())
    build.check(LastBlocksConfig(k=3), original())


# --- UNSIR


class LowersTheError(UNSIR):
    """Wrong: the noise is what the model is most right about."""

    def _learn_noise(self, batch):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(unsir_module, "task_loss", lambda *args: -task_loss(*args))
            return super()._learn_noise(batch)


def error_of(found: Lab, noise: dict[str, Tensor]) -> float:
    model = copy.deepcopy(found.model).eval()
    with torch.no_grad():
        return float(task_loss(model(noise["images"]).logits, noise["labels"]))


@pytest.mark.parametrize(("build", "holds"), [(UNSIR, True), (LowersTheError, False)])
@pytest.mark.parametrize("task", OUTPUTS)
def test_the_noise_of_unsir_is_what_the_model_is_most_wrong_about(task, build, holds):
    losses = {}
    for steps in (1, 40):
        found = lab("unsir", build, task=task, noise_steps=steps, noise_penalty=0.0)
        batch = found.batch(next(found.course.turns(0)))
        model = copy.deepcopy(found.model)
        found.method.step(batch, found.updater, stop=False)
        found.model.load_state_dict(model.state_dict())
        noise = found.method.tensors()
        assert torch.equal(noise["labels"], batch.forget_labels)
        losses[steps] = error_of(found, noise)
    assert (losses[40] > losses[1] + 0.1) is holds


def test_the_penalty_keeps_the_noise_small():
    sizes = {}
    for penalty in (0.0, 1.0):
        found = lab("unsir", noise_penalty=penalty)
        next(found.walk())
        sizes[penalty] = float(found.method.tensors()["images"].norm())
    assert sizes[1.0] < 0.5 * sizes[0.0]


class LearnsEveryStep(UNSIR):
    """Wrong: new noise for every step, which is ascent on images, not UNSIR's one batch."""

    def step(self, batch, updater, *, stop):
        self.noise = {}
        return super().step(batch, updater, stop=stop)


@pytest.mark.parametrize(("build", "holds"), [(UNSIR, True), (LearnsEveryStep, False)])
def test_unsir_learns_its_noise_once(build, holds):
    found = lab("unsir", build, epochs=2)
    noises = [found.method.tensors() for batch, _ in found.walk() if batch.phase == "impair"]
    assert len(noises) == 6
    assert all(equal(noise, noises[0]) for noise in noises) is holds


@pytest.mark.parametrize("task", OUTPUTS)
def test_impairing_lowers_the_mean_loss_of_retain_images_and_noise(task):
    found = lab("unsir", task=task, **PLAIN)
    turns = found.course.turns(0)
    batch = found.batch(next(turns))
    found.method.step(batch, found.updater, stop=False)
    noise, batch = found.method.tensors(), found.batch(next(turns))

    def loss(model: Classifier) -> Tensor:
        images = torch.cat([batch.images, noise["images"]])
        return task_loss(model(images).logits, torch.cat([batch.labels, noise["labels"]]))

    assert_step_is(found, batch, loss)


class KeepsTheNoise(UNSIR):
    """Wrong: it goes on impairing when it should repair."""

    def step(self, batch, updater, *, stop):
        return super().step(replace(batch, phase="impair"), updater, stop=stop)


@pytest.mark.parametrize(("build", "holds"), [(UNSIR, True), (KeepsTheNoise, False)])
def test_repairing_is_fine_tuning_on_the_retain_set(build, holds):
    found = lab("unsir", build, repair_lr=0.02)
    batch = found.until("repair")
    plain = lab("finetune", lr=0.02)
    plain.model.load_state_dict(found.model.state_dict())
    momentum = copy.deepcopy(found.updater.optimizer.state_dict())
    plain.updater.optimizer.load_state_dict(momentum)
    for lab_ in (found, plain):
        lab_.updater.set_epoch(0, 0.02)
    assert equal(moves(found, batch), moves(plain, batch)) is holds
    assert depends_on_retain(found, batch)


def test_unsir_impairs_and_repairs_at_rates_of_their_own():
    found = lab("unsir", epochs=2, repair_epochs=1, lr=0.02, repair_lr=0.01)
    rates = [found.updater.set_epoch(t.epoch, t.phase.lr) for t in found.course.turns(0)]
    assert rates == [0.02] * 6 + [0.01] * 3


# --- Bad Teacher


class IgnoresForget(BadTeacher):
    """Wrong: only the competent teacher is heard."""

    def step(self, batch, updater, *, stop):
        none = {
            "forget_images": batch.forget_images[:0], "forget_labels": batch.forget_labels[:0],
            "forget_total": 0,
        }  # fmt: skip
        return super().step(replace(batch, **none), updater, stop=stop)


@pytest.mark.parametrize(("build", "holds"), [(BadTeacher, True), (IgnoresForget, False)])
@pytest.mark.parametrize("task", OUTPUTS)
def test_the_update_of_bad_teacher_depends_on_the_forget_images(task, build, holds):
    assert depends_on_forget(lab("bad_teacher", build, task=task)) is holds


class OneTeacher(BadTeacher):
    """Wrong: the original teaches the forget samples too, so nothing is forgotten."""

    def __init__(self, context):
        super().__init__(context)
        self.incompetent = self.competent


def bad_teacher_loss(start: Classifier, batch: StepBatch, temperature: float):
    """Return KL(teacher || model) by torch.distributions, averaged over the images of both sets."""
    teachers = start.eval(), small_classifier(seed=99).eval()
    parts = [(teachers[0], batch.images), (teachers[1], batch.forget_images)]
    parts = [(teacher, images) for teacher, images in parts if len(images)]

    def loss(model: Classifier) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for teacher, images in parts:
            known, learned = (
                torch.distributions.Categorical(logits=m(images).logits / temperature)
                for m in (teacher, model)
            )
            total = total + torch.distributions.kl_divergence(known, learned).sum()
        return total / (batch.total + batch.forget_total)

    return loss


@pytest.mark.parametrize(("build", "holds"), [(BadTeacher, True), (OneTeacher, False)])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_bad_teacher_lowers_the_divergence_from_two_teachers(temperature, build, holds):
    found = lab("bad_teacher", build, temperature=temperature, **PLAIN)
    steps = 0
    for turn in found.course.turns(0):
        batch = found.batch(turn)
        loss = bad_teacher_loss(original(), batch, temperature)
        if holds:
            assert_step_is(found, batch, loss)
        elif batch.forget_total:
            with pytest.raises(AssertionError):
                assert_step_is(found, batch, loss)
        steps += 1
    assert steps == 3


def test_without_forget_images_bad_teacher_stays_with_the_original():
    found = lab("bad_teacher", **PLAIN)
    batch = found.batch(next(found.course.turns(0)))
    batch = replace(
        batch, forget_ids=batch.forget_ids[:0], forget_images=batch.forget_images[:0],
        forget_labels=batch.forget_labels[:0], forget_total=0,
    )  # fmt: skip
    assert batch.total
    # The original is the model itself: nothing to lower.
    numbers = found.method.step(batch, found.updater, stop=False)
    assert (numbers["loss"], numbers["grad_norm"]) == pytest.approx((0, 0), abs=1e-12)
    with torch.no_grad():
        found.model.get_parameter("head.0.bias").add_(torch.arange(3.0))
    assert_step_is(found, batch, bad_teacher_loss(original(), batch, 1.0))


@pytest.mark.parametrize("train_mode", ["frozen", "sync_bn"])
def test_the_teachers_never_move(train_mode):
    found = lab("bad_teacher", train_mode=train_mode, epochs=2, optimizer="adam")
    teachers = [found.method.competent, found.method.incompetent]
    assert equal(weights(teachers[0]), weights(original()))
    assert equal(weights(teachers[1]), weights(small_classifier(seed=99)))
    before = [weights(t) for t in teachers]
    found.run()
    assert all(equal(one, weights(t)) for one, t in zip(before, teachers, strict=True))
    assert not equal(weights(found.model), before[0])


def test_bad_teacher_mixes_its_share_of_the_retain_set_with_all_forget_images():
    found = lab("bad_teacher", retain_fraction=0.3, epochs=2)
    for epoch in range(2):
        seen = [found.batch(t) for t in found.course.turns(0) if t.epoch == epoch]
        assert sorted(torch.cat([b.forget_ids for b in seen]).tolist()) == FORGET.tolist()
        assert len(torch.cat([b.ids for b in seen]).unique()) == 3  # 0.3 of 11


# --- SCRUB


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


# --- SalUn


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


# --- SSD


def importances(task: str) -> tuple[list[Tensor], list[Tensor]]:
    """Return the mean squared gradient of every sample of train and of forget, one at a time."""
    model = original(task).eval()
    squares: dict[int, list[Tensor]] = {}
    for i in range(18):
        model.zero_grad()
        task_loss(model(pictures()[i : i + 1]).logits, labels_of(task)[i : i + 1]).backward()
        squares[i] = [p.grad.clone() ** 2 for p in model.parameters() if p.grad is not None]
    means = []
    for ids in (range(18), FORGET.tolist()):
        groups = zip(*(squares[i] for i in ids), strict=True)
        means.append([torch.stack(group).mean(0) for group in groups])
    return means[0], means[1]


class DampensAll(SSD):
    """Wrong: every weight is dampened."""

    def __init__(self, context):
        super().__init__(context)
        self.cfg = replace(self.cfg, selection=1e-300)


class SquaresTheBatch(SSD):
    """Wrong here: the gradient of a batch is squared, as in the authors' code."""

    def _squared_gradients(self, images, labels):
        if not len(images):
            return super()._squared_gradients(images, labels)
        loss = task_loss(self.context.model(images).logits, labels, "sum")
        gradients = torch.autograd.grad(loss, self.parameters)
        return loss.detach(), [g * g for g in gradients]


def ssd_by_hand(task: str, selection: float, dampening: float) -> tuple[list[Tensor], list[Tensor]]:
    """Return the masks of the selected weights and all weights as they should be."""
    selected, expected = [], []
    for parameter, to_all, to_forget in zip(
        original(task).parameters(), *importances(task), strict=True
    ):
        chosen = to_forget > selection * to_all
        factor = torch.minimum(dampening * to_all / to_forget, torch.ones(()).double())
        selected.append(chosen)
        expected.append(torch.where(chosen, factor * parameter.detach(), parameter.detach()))
    return selected, expected


@pytest.mark.parametrize("selection", [1.2, 2.0])
@pytest.mark.parametrize("dampening", [0.5, 1.5])
@pytest.mark.parametrize("task", OUTPUTS)
def test_ssd_dampens_by_the_ratio_of_importances(task, dampening, selection):
    found = lab("ssd", task=task, selection=selection, dampening=dampening)
    numbers = found.run()
    selected, expected = ssd_by_hand(task, selection, dampening)
    share = sum(int(s.sum()) for s in selected) / sum(s.numel() for s in selected)
    assert 0 < share < 1
    assert numbers[-1]["dampened"] == share
    assert not any("dampened" in n for n in numbers[:-1])
    # Sums over samples in another order: rounding of float64.
    torch.testing.assert_close(
        [p.detach() for p in found.model.parameters()], expected, rtol=1e-10, atol=1e-14
    )


@pytest.mark.parametrize(
    ("build", "holds"), [(SSD, True), (DampensAll, False), (SquaresTheBatch, False)]
)
def test_ssd_changes_only_the_selected_weights(build, holds):
    found = lab("ssd", build, selection=1.2)
    selected, _ = ssd_by_hand("classes", 1.2, 1.0)
    found.run()
    pairs = zip(original().parameters(), found.model.parameters(), selected, strict=True)
    assert all(torch.equal(old[~s], new[~s]) for old, new, s in pairs) is holds
    pairs = zip(original().parameters(), found.model.parameters(), selected, strict=True)
    # Only above the ratio does a weight shrink; one of importance ratio 1 would keep its value.
    assert all((old[s] != new[s]).all() for old, new, s in pairs if holds)


def test_ssd_moves_nothing_before_its_last_step():
    found = lab("ssd", selection=1.0)
    states = [weights(found.model) for _ in found.walk()]
    assert all(equal(state, weights(original())) for state in states[:-1])
    assert not equal(states[-1], weights(original()))


def test_ssd_sees_every_sample_once():
    found = lab("ssd")
    batches = [batch for batch, _ in found.walk()]
    ids = torch.cat([torch.cat([b.ids, b.forget_ids]) for b in batches])
    assert sorted(ids.tolist()) == list(range(18))
    assert (found.method.num_retain, found.method.num_forget) == (11, 7)


# --- l1-sparse


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


# --- which probe is delivered


@pytest.mark.parametrize(
    ("name", "step", "wrong"), [("salun", 2, 1), ("scrub", 4, 1), ("ssd", 4, 1)]
)
def test_a_probe_of_a_model_that_may_not_be_delivered_is_not_selected(
    name, step, wrong, tiny, tmp_path, monkeypatch
):
    """At a tiny rate all probes are equal, and the first wins that may be taken."""
    checkpoint = tmp_path / "original"
    run_job(tiny("train", TWO_CONVS, f"run.dir={checkpoint}"), Collectives(), StopFlag())
    base = [
        TWO_CONVS, f"method={name}", "method.select=rewind", "method.epochs=2", "method.lr=1e-30",
        "method.weight_decay=0", f"checkpoint={checkpoint}", "method.augment=false",
    ]  # fmt: skip
    base += ["method.probe_every=1", "method.selection=1e9"] if name == "ssd" else []
    found = {}
    for path in ("right", "wrong"):
        config = tiny("unlearn", *base, f"run.dir={tmp_path / path}")
        found[path] = run_job(config, Collectives(), StopFlag())["selected_step"]
        phases = methods.get(name).phases

        def all_selectable(cfg, phases=phases):
            return [replace(phase, selectable=True) for phase in phases(cfg)]

        monkeypatch.setattr(methods.get(name), "phases", all_selectable)
    assert found == {"right": step, "wrong": wrong}
