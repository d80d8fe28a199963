"""The conditional target of DLFM: who is compared with whom, and what a step lowers."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dlfd_dist.config import DLFMConfig
from dlfd_dist.errors import ConfigError
from dlfd_dist.methods import Probe, dlfm
from dlfd_dist.methods.strangers import Memory, cells, expected_cost, levels, levels_among
from dlfd_dist.models import task_confidence
from tests.fakes.method_lab import PLAIN, Lab, assert_step_is, equal, lab, original, pictures
from tests.fakes.method_lab import labels_of as labels_of_task


def memory(difficulty: Tensor, classes: Tensor) -> Memory:
    found = Memory()
    found.add(torch.arange(len(classes)), difficulty=difficulty, classes=classes)
    return found


def draw(n: int, seed: int) -> Tensor:
    return torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_the_losses_themselves(forget: Memory, strangers: Memory, num_bins: int, one_scale=False):
    """Wrong: bins are of the losses, which Original has lowered on forget images alone."""
    edges = strangers["difficulty"].quantile(torch.linspace(0, 1, num_bins + 1).double())[1:-1]
    sides = (forget, strangers)
    return tuple(m["classes"] * num_bins + torch.bucketize(m["difficulty"], edges) for m in sides)


@pytest.mark.parametrize(("divide", "holds"), [(cells, True), (by_the_losses_themselves, False)])
def test_a_cell_holds_a_class_and_the_same_quantiles_of_either_side(divide: Callable, holds):
    classes, others = torch.arange(40) % 2, torch.arange(24) % 2
    # Original knows the forget images: every loss is a hundredth of a stranger's.
    forget, strangers = memory(draw(40, 0) / 100, classes), memory(draw(24, 1), others)
    own, theirs = divide(forget, strangers, 4)
    counts = [torch.bincount(side, minlength=8).tolist() for side in (own, theirs)]
    assert (counts == [[5] * 8, [3] * 8]) is holds
    if holds:
        assert torch.equal(own // 4, classes)
        assert torch.equal(theirs // 4, others)
        for number in range(2):
            rows = classes == number
            harder = forget["difficulty"][rows].argsort()
            assert (own[rows][harder].diff() >= 0).all()


def on_scales_of_their_own(forget: Memory, strangers: Memory, num_bins: int, one_scale=False):
    """Wrong: either side has its own quantiles, whoever judged."""
    return cells(forget, strangers, num_bins)


@pytest.mark.parametrize(("divide", "holds"), [(cells, True), (on_scales_of_their_own, False)])
def test_on_one_scale_an_image_meets_the_strangers_it_is_as_difficult_as(divide: Callable, holds):
    strangers = memory(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.zeros(4).long())
    # All but one are easier than three of the four strangers, the last is harder than all.
    forget = memory(torch.tensor([0.5, 0.6, 1.5, 9.0]), torch.zeros(4).long())
    own, theirs = divide(forget, strangers, 2, one_scale=True)
    assert theirs.tolist() == [0, 0, 1, 1]
    assert (own.tolist() == [0, 0, 0, 1]) is holds


def test_a_place_on_a_scale_is_the_share_of_its_group_below():
    places = levels_among(
        torch.tensor([2.0, 0.0, 9.0, 5.0, 7.0]), torch.tensor([0, 0, 0, 1, 2]),
        torch.tensor([3.0, 2.0, 1.0, 8.0]), torch.tensor([0, 0, 0, 1]),
    )  # fmt: skip
    torch.testing.assert_close(places, torch.tensor([0.5, 0.0, 1.0, 0.0, 0.0]).double())


@pytest.mark.parametrize("count", [1, 2, 3, 5, 9])
def test_no_bin_of_a_class_with_strangers_is_empty(count):
    forget = memory(draw(50, 0), torch.zeros(50).long())
    own, theirs = cells(forget, memory(draw(count, 1), torch.zeros(count).long()), 4)
    assert set(own.tolist()) == set(theirs.tolist())
    assert len(set(own.tolist())) == min(count, 4)


def test_a_class_without_strangers_and_labels_that_only_partly_agree_meet_nobody():
    forget = memory(draw(3, 0), torch.tensor([[0, 1], [1, 1], [1, 0]]))
    own, theirs = cells(forget, memory(draw(2, 1), torch.tensor([[1, 1], [1, 1]])), 2)
    assert [bool((theirs == cell).any()) for cell in own] == [False, True, False]
    cost = expected_cost(draw(3, 2), own, draw(2, 3), theirs)
    lone = expected_cost(draw(3, 2)[1:2], own[1:2], draw(2, 3), theirs)
    assert cost == lone


def test_levels_are_the_middles_of_ranks_within_a_group():
    values, groups = torch.tensor([3.0, 1.0, 2.0, 9.0]), torch.tensor([0, 0, 0, 7])
    expected = torch.tensor([5 / 6, 1 / 6, 0.5, 0.5]).double()
    torch.testing.assert_close(levels(values, groups), expected)


def test_a_row_that_comes_again_is_replaced_and_ids_stay_in_order():
    found = Memory()
    found.add(torch.tensor([5, 2]), value=torch.tensor([50.0, 20.0]))
    found.add(torch.tensor([3, 5]), value=torch.tensor([30.0, 51.0]))
    assert found["ids"].tolist() == [2, 3, 5]
    assert found["value"].tolist() == [20.0, 30.0, 51.0]
    assert found.holds(torch.tensor([5, 3]))
    assert not found.holds(torch.tensor([4, 5]))
    assert found["value"][found.rows(torch.tensor([5, 2]))].tolist() == [51.0, 20.0]


# --- a step


def conditional(**settings: Any) -> Lab:
    """Return a lab whose batches come with 6 of 12 strangers, in turn."""
    found = lab("dlfm", **{"conditional": True, "difficulty_bins": 2, "dynamic": False, **settings})
    plain, images, labels = found.batch, pictures(12, seed=7), labels_of_task("classes", 12)

    def batch(turn):
        ids = torch.arange(6) + 6 * (turn.index % 2)
        return dataclasses.replace(
            plain(turn), reference_images=images[ids], reference_labels=labels[ids],
            reference_total=6, reference_ids=ids,
        )  # fmt: skip

    found.batch = batch
    return found


def of_the_whole_class(forget: Memory, strangers: Memory, num_bins: int, one_scale=False):
    """Wrong: difficulty makes no difference."""
    return forget["classes"] * num_bins, strangers["classes"] * num_bins


@pytest.mark.parametrize(("divide", "holds"), [(cells, True), (of_the_whole_class, False)])
def test_a_step_pulls_an_image_to_the_mean_of_its_class_and_difficulty(divide, holds, monkeypatch):
    monkeypatch.setattr("dlfd_dist.methods.strangers.cells", divide)
    settings = {**PLAIN, "match_weight": 0.7, "kd_weight": 0.0}
    found = conditional(**settings, quantiles=False, features=False)
    batch = found.batch(next(found.course.turns(0)))
    teacher = original().eval()
    assert batch.reference_images is not None
    assert batch.reference_labels is not None

    def hard(images: Tensor, labels: Tensor) -> Tensor:
        """Return whether an image is in the harder half of its class."""
        with torch.no_grad():
            losses = F.cross_entropy(teacher(images).logits, labels, reduction="none")
        return levels(losses, labels) >= 0.5

    sides = (batch.reference_images, batch.reference_labels)
    theirs, mine = hard(*sides), hard(batch.forget_images, batch.forget_labels)

    def loss(model) -> Tensor:
        with torch.no_grad():
            met = task_confidence(model(batch.reference_images).logits, sides[1])
        own = task_confidence(model(batch.forget_images).logits, batch.forget_labels)
        cost = torch.zeros((), dtype=torch.float64)
        for value, label, is_hard in zip(own, batch.forget_labels, mine, strict=True):
            alike = (sides[1] == label) & (theirs == is_hard)
            cost = cost + F.smooth_l1_loss(value, met[alike].mean())
        task = F.cross_entropy(model(batch.images).logits, batch.labels)
        return task + 0.7 * cost / batch.forget_total

    if holds:
        assert_step_is(found, batch, loss)
    else:
        with pytest.raises(AssertionError):
            assert_step_is(found, batch, loss)


def test_the_memory_holds_all_who_were_met_and_is_what_a_resumed_run_needs():
    found = conditional()
    turns = list(found.course.turns(0))[:3]
    for turn in turns[:2]:
        found.method.step(found.batch(turn), found.updater, stop=False)
    assert found.method.memory.memories["met"]["ids"].tolist() == list(range(12))
    again = conditional()
    again.model.load_state_dict(found.model.state_dict())
    again.updater.optimizer.load_state_dict(copy.deepcopy(found.updater.optimizer.state_dict()))
    again.method.load_tensors({k: v.clone() for k, v in found.method.tensors().items()})
    steps = [
        one.method.step(one.batch(turns[2]), one.updater, stop=False) for one in (found, again)
    ]
    assert steps[0] == steps[1]
    assert equal(found.model.state_dict(), again.model.state_dict())


def test_after_a_rest_strangers_are_met_anew():
    found = conditional(dynamic=True)
    found.method.step(found.batch(next(found.course.turns(0))), found.updater, stop=False)
    for auc, score in ((0.5, 0.0), (0.9, 0.4)):
        found.method.observe(Probe(1, 0.8, 0.9, score, auc, 0.8, auc_error=0.05))
    assert found.method.matching
    assert "met.ids" not in found.method.memory.tensors()
    assert "forget.ids" in found.method.memory.tensors()


@pytest.mark.parametrize("judge", ["original", "teacher"])
def test_difficulty_is_the_loss_of_the_model_that_is_asked(judge):
    taught = conditional(difficulty=judge, teacher="reset", teacher_epochs=1, reset_strength=1.0)
    met: dict[int, float] = {}
    for turn in taught.course.turns(0):
        batch = taught.batch(turn)
        taught.method.step(batch, taught.updater, stop=False)
        if batch.phase == "match":
            asked = original().eval() if judge == "original" else taught.method.stand_in.teacher()
            with torch.no_grad():
                logits = asked(batch.forget_images).logits
            losses = F.cross_entropy(logits, batch.forget_labels, reduction="none")
            met |= dict(zip(batch.forget_ids.tolist(), losses.tolist(), strict=True))
    memory = taught.method.memory.memories["forget"]
    expected = torch.tensor([met[number] for number in memory["ids"].tolist()]).double()
    torch.testing.assert_close(memory["difficulty"].double(), expected)


def test_a_stand_in_that_is_not_there_judges_nothing():
    with pytest.raises(ConfigError, match="set method.teacher=reset or rewound"):
        DLFMConfig(conditional=True, difficulty="teacher")
    with pytest.raises(ConfigError, match="Did you mean 'teacher'"):
        DLFMConfig(conditional=True, difficulty="teachr")


def test_without_the_switch_there_is_no_memory():
    method = lab("dlfm").method
    assert isinstance(method, dlfm.DLFM)
    assert method.memory is None
    assert method.tensors() == {}


def test_a_memory_of_synthesised_images_is_refused():
    with pytest.raises(ConfigError, match="keeps a memory of strangers"):
        DLFMConfig(conditional=True, reference="synthesised")
    with pytest.raises(ConfigError, match="method.difficulty_bins=0"):
        DLFMConfig(difficulty_bins=0)
