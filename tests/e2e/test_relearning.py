"""jobs/relearning.py: what a run tells of the relearn time, and what it leaves as it was."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from dlfd_dist.config import ForgetConfig, JobConfig, TrainConfig, signature
from dlfd_dist.jobs import run_job
from dlfd_dist.run_dir import RunDir
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag
from tests.fakes.tiny import LEARNED

STEPS = 30


@pytest.fixture
def unlearned(tiny, trained, tmp_path):
    """Return a maker of runs of a model that learned its training people by heart."""
    original, retrained = (trained(*LEARNED, on=on) for on in ("all", "retain"))

    def make(name, *words):
        config = tiny(
            "unlearn", "method=finetune", "train.lr=0.002", f"checkpoint={original}",
            f"reference={retrained}", f"run.dir={tmp_path / name}", *words,
        )  # fmt: skip
        return run_job(config, Collectives(), StopFlag())

    return make


def test_a_model_that_forgot_nothing_is_back_at_once_and_retrained_is_not(unlearned, tmp_path):
    words = ["method.max_steps=1", "method.lr=1e-9", "method.select=last", "train_mode=frozen"]
    plain = unlearned("plain", *words)
    found = unlearned("relearned", *words, f"metrics.relearn_steps={STEPS}")
    told = found["relearn"]
    assert found["relearn_steps"] == 0
    assert told["losses"] == pytest.approx([told["original_loss"]], rel=1e-4)
    assert told["max_steps"] == STEPS
    assert len(told["losses_retrained"]) > 1
    steps = found["relearn_steps_retrained"]
    assert (STEPS if steps is None else steps) == len(told["losses_retrained"]) - 1
    assert found["anamnesis_index"] == (None if steps is None else 0)
    # Relearning leaves the delivered weights and every other figure as they were.
    one, other = (load_file(RunDir(tmp_path / n).model) for n in ("plain", "relearned"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert "relearn" not in plain
    assert plain["signature"] != found["signature"]
    for figure in ("nomus", "forgetting_score", "gap_to_retrained", "model_sha256"):
        assert plain[figure] == found[figure]


def test_the_settings_of_training_count_for_a_run_that_relearns_alone():
    config = JobConfig(verb="unlearn", checkpoint="x", forget=ForgetConfig(fraction=0.5))
    other = replace(config, train=TrainConfig(lr=0.5))
    on = [replace(c, metrics=replace(c.metrics, relearn_steps=5)) for c in (config, other)]
    assert signature(config, {}) == signature(other, {})
    assert len({signature(c, {}) for c in (config, *on)}) == 3
    training = replace(config, verb="train")
    assert signature(training, {}) == signature(replace(training, metrics=on[0].metrics), {})
