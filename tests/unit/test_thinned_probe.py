"""A probe of a sample decides only where it is sure; else all images are looked at."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dlfd_dist.config import DLFDConfig, JobConfig
from dlfd_dist.jobs import evaluation
from dlfd_dist.methods import Probe

IDS = {"forget": np.arange(100, 400), "val": np.arange(400, 1000)}


@pytest.mark.parametrize("size", [20, 50, 137])
def test_sample_takes_of_every_label_its_share(size: int):
    labels = np.random.default_rng(0).choice(4, 1000, p=[0.6, 0.25, 0.1, 0.05])
    drawn = evaluation.stratified(IDS["val"], labels, size, seed=3)
    assert len(np.unique(drawn)) == size
    assert set(drawn) <= set(IDS["val"])
    share = np.bincount(labels[IDS["val"]], minlength=4) / len(IDS["val"])
    assert np.abs(np.bincount(labels[drawn], minlength=4) - share * size).max() <= 1


def test_strata_of_several_labels_are_their_combinations():
    labels = np.random.default_rng(0).integers(0, 2, (1000, 2))
    drawn = evaluation.stratified(IDS["val"], labels, 60, seed=0)
    kinds = labels @ [2, 1]
    share = np.bincount(kinds[IDS["val"]], minlength=4) / len(IDS["val"])
    assert np.abs(np.bincount(kinds[drawn], minlength=4) - share * 60).max() <= 1


def test_standard_error_is_that_of_repeated_draws():
    right = np.random.default_rng(0).random(2 * 600) < 0.7
    rng = np.random.default_rng(1)
    scores = [rng.permutation(right)[: 2 * 150].mean() - 0.5 for _ in range(2000)]
    assert evaluation.sampling_error(right.mean() - 0.5, 150, 600) == pytest.approx(
        np.std(scores), rel=0.08
    )


@pytest.mark.parametrize(("sampled", "looks"), [(0.4, 1), (0.15, 2), (0.02, 2)])
def test_whole_probe_where_the_sample_is_not_clearly_above(
    monkeypatch: pytest.MonkeyPatch, sampled: float, looks: int
):
    sizes = []

    def fake(
        _model: Any, _batches: Any, _config: Any, step: int, forget: Any, val: Any, *_: Any
    ) -> Probe:
        sizes.append((len(forget), len(val)))
        return Probe(step, 0.5, 0.5, sampled if len(sizes) == 1 else 0.1, 0.5, 0.5)

    monkeypatch.setattr(evaluation, "_probe", fake)
    method = DLFDConfig(probe_images=100, forget_threshold=0.1)
    data = SimpleNamespace(
        splits=SimpleNamespace(**IDS),
        manifest=SimpleNamespace(labels=np.zeros(1000, dtype=np.int64)),
    )
    found = evaluation.thinned_probe(
        None,
        SimpleNamespace(data=data),
        JobConfig(method=method),
        step=7,  # type: ignore[arg-type]
    )
    assert sizes == [(100, 100), (300, 600)][:looks]
    assert (found.standard_error is None) == (looks == 2)
