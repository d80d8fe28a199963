"""jobs/train.py: steps that are not ordinary ones, schedules, and which weights are delivered."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load_file

from dlfd_dist.errors import DataError
from dlfd_dist.jobs import prepare, run_job
from dlfd_dist.jobs import train as train_module
from dlfd_dist.models import build_model
from dlfd_dist.run_dir import RunDir, read_events
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag, StoppedEarly
from tests.fakes.small_model import TWO_CONVS


def test_a_batch_of_one_image_is_a_step_although_it_has_no_variance(tiny, tmp_path):
    """At 8 px the last feature map of model=small is a single pixel, as ResNet18's is at 32 px."""
    config = tiny(
        "train", "data.image_size=8", "train.global_batch_size=1", "train.max_steps=2",
        f"run.dir={tmp_path / 'run'}",
    )  # fmt: skip
    model = build_model(config.model, image_size=8, num_outputs=3, seed=0).eval()
    assert model.module.backbone[:-1](torch.zeros(1, 3, 8, 8)).shape[2:] == (1, 1)
    result = run_job(config, Collectives(), StopFlag())
    steps = [e for e in read_events(RunDir(tmp_path / "run").metrics) if e["event"] == "step"]
    assert result["num_steps"] == len(steps) == 2
    assert all(math.isfinite(step["loss"]) for step in steps)


def trained(tiny, path, *overrides: str) -> tuple[dict, list[dict], dict[str, torch.Tensor]]:
    """Return result, epochs and weights of a short training of a small network."""
    config = tiny("train", "train.epochs=6", f"run.dir={path}", *overrides)
    result = run_job(config, Collectives(), StopFlag())
    epochs = [e for e in read_events(RunDir(path).metrics) if e["event"] == "epoch"]
    return result, epochs, load_file(RunDir(path).model)


NOISY = ["train.lr=0.05", "train.lr_scheduler=constant", "seed=1"]
"""Training that is at its best long before its end."""


def test_the_last_weights_are_kept_by_default_and_the_best_where_asked(tiny, tmp_path):
    last, epochs, weights = trained(tiny, tmp_path / "last", *NOISY)
    best, same_epochs, best_weights = trained(tiny, tmp_path / "best", *NOISY, "train.select=best")
    accuracies = [e["val_accuracy"] for e in epochs]
    assert accuracies == [e["val_accuracy"] for e in same_epochs]
    assert max(accuracies) > accuracies[-1]
    assert (last["selected_step"], last["val_accuracy"]) == (last["num_steps"], accuracies[-1])
    assert "the last weights" in last["selection"]
    assert best["selected_step"] < best["num_steps"]
    assert best["val_accuracy"] == max(accuracies)
    assert any(not torch.equal(weights[name], best_weights[name]) for name in weights)


def test_patience_ends_a_training_that_keeps_its_best_epoch(tiny, tmp_path):
    settings = [*NOISY, "train.select=best", "train.patience=1", "train.epochs=8"]
    result, epochs, _ = trained(tiny, tmp_path / "run", *settings)
    assert len(epochs) < 8
    assert result["selected_step"] == epochs[-2]["step"]


class StopsAfter(StopFlag):
    """A flag that is set in the course of the step with this number, counted from 1."""

    def __init__(self, step: int):
        super().__init__()
        self.steps_left = step

    @property
    def requested(self) -> bool:
        self.steps_left -= 1
        return self.steps_left <= 0

    @requested.setter
    def requested(self, value: bool) -> None:
        del value


def test_last_weights_survive_a_stop_after_the_last_step(tiny, tmp_path):
    """Then the resumed start takes no step, and tells what the first one measured."""
    whole, _, weights = trained(tiny, tmp_path / "whole", "train.epochs=2")
    config = tiny("train", f"run.dir={tmp_path / 'run'}")
    with pytest.raises(StoppedEarly):
        run_job(config, Collectives(), StopsAfter(whole["num_steps"]))
    resumed = run_job(config, Collectives(), StopFlag())
    assert resumed["selection"] == whole["selection"]
    resumed_weights = load_file(RunDir(tmp_path / "run").model)
    assert all(torch.equal(resumed_weights[name], weights[name]) for name in weights)


def test_cosine_batch_lowers_the_rate_with_every_step(tiny, tmp_path):
    trained(tiny, tmp_path / "run", "train.lr_scheduler=cosine_batch", "train.lr=0.1")
    steps = [e for e in read_events(RunDir(tmp_path / "run").metrics) if e["event"] == "step"]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=len(steps))
    expected = []
    for _ in steps:
        expected.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert [step["lr"] for step in steps] == pytest.approx(expected, rel=1e-9)
    assert len({step["lr"] for step in steps}) == len(steps)


def test_result_tells_the_labels_of_the_people_forgotten_beside_those_of_test(tiny, tmp_path):
    result, _, _ = trained(tiny, tmp_path / "run", "train.max_steps=1")
    labels = result["forget_labels"]
    assert labels["forget"].keys() == labels["unseen"].keys() == set(result["label_names"])
    assert labels["alike"] == (labels["largest_difference"] <= 0.05)


def test_a_reference_trained_without_other_people_is_refused(tiny, tmp_path):
    trained(tiny, tmp_path / "o", "train.max_steps=1")
    trained(tiny, tmp_path / "r", "train.max_steps=1", "train.on=retain")
    given = [f"checkpoint={tmp_path / 'o'}", f"reference={tmp_path / 'r'}"]
    prepare(tiny("unlearn", *given), 1)
    prepare(tiny("unlearn", *given, "seed=5", "forget.seed=0"), 1)
    with pytest.raises(DataError, match=r"without other people .* give forget.seed=0"):
        prepare(tiny("unlearn", *given, "seed=5"), 1)


@pytest.mark.parametrize("on", ["all", "retain"])
def test_an_epoch_sees_the_set_it_is_named_after_and_nobody_else(on, tiny, tmp_path, monkeypatch):
    """What Retrained has seen of the forget set would be measured as forgotten."""
    seen: list[int] = []
    step, splits = train_module.train_step, {}

    def watched(job, model, updater, ids, *more):
        seen.extend(ids.tolist())
        splits.update(train=job.data.splits.train, retain=job.data.splits.retain)
        return step(job, model, updater, ids, *more)

    monkeypatch.setattr(train_module, "train_step", watched)
    config = tiny("train", TWO_CONVS, f"train.on={on}", f"run.dir={tmp_path / 'run'}")
    run_job(config, Collectives(), StopFlag())
    assert len(splits["retain"]) < len(splits["train"])
    wanted = splits["train" if on == "all" else "retain"]
    assert sorted(seen) == sorted(2 * wanted.tolist())
