"""A run that is asked to stop saves where it is, and goes on from there."""

from __future__ import annotations

import pytest
from safetensors.torch import load_file

from dlfd_dist.jobs import run_job
from dlfd_dist.run_dir import RunDir, read_events
from dlfd_dist.runtime.checkpoint import load_checkpoint
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag, StoppedEarly
from tests.fakes.small_model import TWO_CONVS


def steps_of(run: RunDir) -> list[int]:
    return [event["step"] for event in read_events(run.metrics) if event["event"] == "step"]


@pytest.mark.parametrize("verb", ["train", "unlearn"])
def test_a_run_that_is_asked_to_stop_saves_at_once_and_ends_as_if_left_alone(
    verb, tiny, trained, tmp_path
):
    words = [TWO_CONVS, "run.checkpoint_every=1000"]
    words += ["method=finetune", f"checkpoint={trained(TWO_CONVS)}"] if verb == "unlearn" else []
    whole, run = RunDir(tmp_path / "whole"), RunDir(tmp_path / "run")
    run_job(tiny(verb, *words, f"run.dir={whole.path}"), Collectives(), StopFlag())
    asked = StopFlag()
    asked.requested = True
    config = tiny(verb, *words, f"run.dir={run.path}")
    for step in (1, 2):
        with pytest.raises(StoppedEarly, match=f"after step {step} of"):
            run_job(config, Collectives(), asked)
        saved = load_checkpoint(run.checkpoints)
        assert saved is not None
        assert saved.step == step
        assert not run.finished()
    run_job(config, Collectives(), StopFlag())
    assert steps_of(run) == steps_of(whole)
    one, other = load_file(run.model), load_file(whole.model)
    assert all((one[name] == other[name]).all() for name in one)
