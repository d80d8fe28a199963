"""jobs/train.py: training steps that are not ordinary ones."""

from __future__ import annotations

import math

from dlfd_dist.jobs import run_job
from dlfd_dist.run_dir import RunDir, read_events
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag


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
