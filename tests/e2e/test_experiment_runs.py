"""configs/experiment: a small run of each, from its models to the result."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dlfd_dist.compose import compose_job, group_options
from dlfd_dist.jobs.run import run_job
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag

EXPERIMENTS = group_options("experiment")
SMOKE = {
    "demo": ["method=l1_sparse"],
    "dlfm_ablation": ["method=dlfm", "method.reference=synthesised"],
    "figure2": ["method=neggrad"],
    "figure4": ["method=salun"],
    "figure5": ["method=unsir"],
    "figure6": ["method=bad_teacher"],
    "gap_against_cost": ["method=dlfm"],
    "table1_mucac_gender": ["method=scrub"],
    "table1_mucac_multilabel": ["method=ssd"],
    "table1_mufac_age": ["method=dlfd"],
    "table1_rafdb_emotion": ["method=dlfd_official"],
    "table2_architectures": ["method=dlfd", "model=efficientnet_b0"],
    "table3_ablation": ["method=dlfd", "method.dynamic=false"],
}


FEW_STEPS = ["train.max_steps=2", "method.max_steps=2", "metrics.resurface_steps=0"]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_smoke_runs_an_experiment_end_to_end(name, trained, tmp_path):
    """Experiments of the same task share its models; the architecture is a matter of table 2."""
    model = next((word for word in SMOKE[name] if word.startswith("model=")), "model=small")
    words = [f"experiment={name}", "scale=smoke", "runtime.threads_per_rank=1", model, *FEW_STEPS]
    original, retrained = (trained(settings=words, on=on) for on in ("all", "retain"))
    config = compose_job("unlearn", [
        *words, *SMOKE[name], f"checkpoint={original}", f"reference={retrained}",
        f"run.dir={tmp_path / 'unlearned'}",
    ])  # fmt: skip
    run_job(config, Collectives(), StopFlag())
    result = json.loads((tmp_path / "unlearned" / "result.json").read_text())
    assert 0 <= result["nomus"] <= 1
    assert np.isfinite(result["test_accuracy"])
