"""What is chosen is chosen on val: no test figure can be named, and no test image is looked at."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dlfd_dist.compose import split_compare
from dlfd_dist.config import DLFDConfig
from dlfd_dist.data.loaders import Batches
from dlfd_dist.errors import ConfigError
from dlfd_dist.jobs import run_job
from dlfd_dist.jobs.session import Session
from dlfd_dist.jobs.unlearn import _selection_value
from dlfd_dist.methods import Probe
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag
from tests.fakes.small_model import TWO_CONVS


@pytest.mark.parametrize("select", ["test_accuracy", "test", "nomus on test", "unseen"])
def test_weights_cannot_be_selected_by_a_figure_of_test(tiny, select):
    with pytest.raises(ConfigError, match="would choose by the test set"):
        tiny("unlearn", "checkpoint=x", f"method.select='{select}'")


@pytest.mark.parametrize(("score", "value"), [(0.05, 0.7), (0.1, 0.7), (0.11, None), (0.4, None)])
def test_a_probe_above_the_allowed_forgetting_score_is_not_taken(score, value):
    cfg = DLFDConfig(name="dlfd", select="accuracy", max_forgetting_score=0.1)
    found = Probe(1, 0.7, 0.9, score, 0.5, 0.6)
    assert _selection_value(cfg, found) == value
    assert _selection_value(replace(cfg, select="nomus"), found) == 0.6
    assert _selection_value(replace(cfg, select="last"), found) is None


def test_a_comparison_is_not_tuned_by_a_figure_of_test():
    with pytest.raises(ConfigError, match="would choose by the test set"):
        split_compare(["compare.tune=2", "compare.objective=test_nomus"])
    with pytest.raises(ConfigError, match="gap, attack_at_most, resurface, nomus"):
        split_compare(["compare.tune=2", "compare.objective=accuracy"])


def test_no_image_of_test_is_read_before_the_weights_are_chosen(tiny, tmp_path, monkeypatch):
    seen: list[str] = []
    shard, deliver = Batches.shard, Session.deliver_best

    def watched(self, ids, **more):
        if np.isin(ids, self.data.splits.test).any():
            seen.append("test")
        return shard(self, ids, **more)

    def chosen(self):
        seen.append("chosen")
        deliver(self)

    monkeypatch.setattr(Batches, "shard", watched)
    monkeypatch.setattr(Session, "deliver_best", chosen)
    original = tmp_path / "original"
    words = {
        "train": ["train.select=best", f"run.dir={original}"],
        "unlearn": [
            f"checkpoint={original}", f"run.dir={tmp_path / 'run'}", "method=dlfd",
            "method.select=nomus", "method.probe_every=1", "method.max_steps=3",
        ],
    }  # fmt: skip
    for verb, more in words.items():
        seen.clear()
        result = run_job(tiny(verb, TWO_CONVS, *more), Collectives(), StopFlag())
        assert seen[0] == "chosen"
        assert "test" in seen
        assert result["test_read"] == "after selection"
        assert "best validation" in result["selection"]
