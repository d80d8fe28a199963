"""jobs/acted.py: what a run tells of how far it moved the checkpoint it began with."""

from __future__ import annotations

import pytest
import torch

from dlfd_dist.jobs import run_job
from dlfd_dist.jobs.acted import weight_change
from dlfd_dist.metrics import GAP_PARTS
from dlfd_dist.run_dir import RunDir
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag
from tests.fakes.small_model import small_classifier


@pytest.fixture
def unlearned(tiny, trained, tmp_path):
    """Return a maker of runs on the models of the tests."""

    def make(name, *words):
        models = [f"checkpoint={trained(on='all')}", f"reference={trained(on='retain')}"]
        config = tiny("unlearn", *models, f"run.dir={tmp_path / name}", *words)
        return run_job(config, Collectives(), StopFlag())

    return make


def test_a_run_that_moved_nothing_says_so_and_another_does_not(unlearned):
    still = unlearned(
        "still", "method=finetune", "method.lr=1e-9", "method.select=last", "train_mode=frozen"
    )
    moved = still["against_original"]
    assert moved["left_as_is"]
    assert moved["weight_change"]["overall"] < 1e-6
    assert max(moved["divergence"].values()) < 1e-6
    assert moved["same_answers"] == {"retain": 1, "forget": 1, "val": 1}
    assert moved["synthesised_share"] is None
    assert moved["rf_js"] == pytest.approx(moved["rf_js_original"], abs=1e-6)
    assert still["guards"]["left_as_is"]["flag"]
    assert tuple(still["against_retrained"]["parts"]) == (
        "retain_accuracy", "forget_accuracy", "test_accuracy", *GAP_PARTS[3:],
    )  # fmt: skip
    assert still["without_retrained"]["verdict"] == "not shown"
    assert 0 <= still["salun_mia"] <= 1
    far = unlearned("far", "method=eu_k", "method.k=1", "method.max_steps=1", "method.select=last")
    assert not far["against_original"]["left_as_is"]
    *others, head = far["against_original"]["weight_change"]["blocks"].values()
    assert head > 0.5
    assert set(others) == {0.0}
    assert far["against_original"]["divergence"]["forget"] > 1e-4


def test_dlfd_says_in_what_share_of_its_steps_it_synthesised(unlearned):
    words = ["method=dlfd", "method.max_steps=3", "method.probe_every=1", "method.select=last"]
    always = unlearned("always", *words, "method.dynamic=false")
    assert always["against_original"]["synthesised_share"] == 1
    once = unlearned("once", *words, "method.forget_threshold=0.5")
    assert once["against_original"]["synthesised_share"] in (0, pytest.approx(1 / 3))


def test_a_training_has_no_model_before_it(trained):
    assert RunDir(trained(on="all")).read_result()["against_original"] is None


def test_the_weight_change_is_relative_and_told_per_block():
    before, after = small_classifier(), small_classifier()
    with torch.no_grad():
        for parameter in after.module.head.parameters():
            parameter.mul_(1.1)
    found = weight_change(before, after)
    *others, head = found["blocks"].values()
    assert head == pytest.approx(0.1, rel=1e-5)
    assert others
    assert set(others) == {0.0}
    norms = [
        sum(float(p.detach().double().square().sum()) for p in module.parameters()) ** 0.5
        for module in (before.module.head, before)
    ]
    assert found["overall"] == pytest.approx(0.1 * norms[0] / norms[1], rel=1e-5)
    assert len(set(found["blocks"])) == len(found["blocks"])
