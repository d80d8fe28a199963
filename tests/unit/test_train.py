"""jobs/train.py: training steps that are not ordinary ones."""

from __future__ import annotations

import math

import pytest

from dlfd_dist.jobs import run_job
from dlfd_dist.jobs import train as train_module
from dlfd_dist.run_dir import RunDir, read_events
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag
from tests.fakes.small_model import TWO_CONVS


def test_a_batch_of_one_image_is_a_step_although_it_has_no_variance(tiny, tmp_path):
    """At 32 px the last feature map of ResNet18 is a single pixel."""
    config = tiny(
        "train", "model=resnet18", "train.global_batch_size=1", "train.max_steps=2",
        f"run.dir={tmp_path / 'run'}",
    )  # fmt: skip
    result = run_job(config, Collectives(), StopFlag())
    steps = [e for e in read_events(RunDir(tmp_path / "run").metrics) if e["event"] == "step"]
    assert result["num_steps"] == len(steps) == 2
    assert all(math.isfinite(step["loss"]) for step in steps)


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
