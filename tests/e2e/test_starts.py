"""Runs that start with a reset: what they tell before a step, and that they resume."""

from __future__ import annotations

import pytest
from safetensors.torch import load_file

from dlfd_dist.config import JobConfig
from dlfd_dist.jobs import run_job
from dlfd_dist.run_dir import RunDir, read_events
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag, StoppedEarly
from tests.fakes.method_lab import equal
from tests.fakes.small_model import TWO_CONVS
from tests.fakes.stops import StopAfter


@pytest.fixture
def job(tiny, trained, tmp_path):
    def make(name: str, *words: str) -> JobConfig:
        return tiny(
            "unlearn", TWO_CONVS, f"checkpoint={trained(TWO_CONVS)}", "method.epochs=1",
            "runtime.dtype=float64", f"run.dir={tmp_path / name}", *words,
        )  # fmt: skip

    return make


def test_a_run_says_what_its_start_cost_and_left_before_a_step(job, tmp_path):
    words = ("method=finetune", "method.reset=shrink", "method.reset_images=9")
    found = run_job(job("whole", *words), Collectives(), StopFlag())
    events = read_events(RunDir(tmp_path / "whole").metrics)
    assert [event["event"] for event in events][:2] == ["start", "probe"]
    assert found["start"]["batch_norm_images"] == 9
    assert found["start"]["retain_forward_passes"] == 9 / found["num_images"]["retain"]
    assert found["start"]["blocks"] is None
    for name in ("val_accuracy", "forget_accuracy", "forgetting_score", "mia_auc"):
        assert found["start"][name] == events[1][name]
    assert "start" not in run_job(job("plain", "method=finetune"), Collectives(), StopFlag())


def test_a_stopped_run_with_a_reset_goes_on_to_the_same_result(job, tmp_path):
    words = ("method=finetune", "method.reset=layers")
    whole = run_job(job("whole", *words), Collectives(), StopFlag())
    with pytest.raises(StoppedEarly):
        run_job(job("cut", *words), Collectives(), StopAfter(2))
    cut = run_job(job("cut", *words), Collectives(), StopFlag())
    assert cut["start"] == whole["start"]
    models = (load_file(RunDir(tmp_path / name).model) for name in ("whole", "cut"))
    assert equal(*models)


def test_the_teacher_of_a_method_is_original_and_not_what_a_reset_left(job, tmp_path):
    apart = {}
    for reset in ("none", "shrink"):
        words = (
            "method=dlfm",
            "method.dynamic=false",
            f"method.reset={reset}",
            "method.reset_strength=1",
        )
        run_job(job(reset, *words, "method.reset_strength=1"), Collectives(), StopFlag())
        steps = [e for e in read_events(RunDir(tmp_path / reset).metrics) if e["event"] == "step"]
        apart[reset] = steps[0]["retain_divergence"]
    assert apart["none"] == pytest.approx(0, abs=1e-12)
    assert apart["shrink"] > 1e-3
