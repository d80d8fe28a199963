"""Whose thread reads the images of a run: those of a next batch are read while one is worked on."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from dlfd_dist.data.ahead import Ahead
from dlfd_dist.jobs import evaluation, run_job
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag

UNLEARN = ["method=dlfd", "method.epochs=9", "method.max_steps=6", "method.probe_every=3"]


@pytest.mark.parametrize(
    ("verb", "words", "batches_of_a_step"),
    [("train", ["train.epochs=9", "train.max_steps=6"], 1), ("unlearn", UNLEARN, 2)],
)
def test_a_run_waits_for_the_images_of_first_batches_alone(
    tiny, trained, tmp_path, monkeypatch, verb, words, batches_of_a_step
):
    waited: list[np.ndarray] = []
    ahead: list[np.ndarray] = []
    evaluations: list[int] = []
    read, passes = Ahead._read, evaluation.passes

    def noted(self: Ahead, rows: np.ndarray):
        is_main = threading.current_thread() is threading.main_thread()
        (waited if is_main else ahead).append(rows)
        return read(self, rows)

    def counted(ids: np.ndarray, *values):
        evaluations.extend([len(ids)] if len(ids) else [])
        return passes(ids, *values)

    if verb == "unlearn":
        words = [*words, f"checkpoint={trained()}"]
    config = tiny(verb, *words, "metrics.eval_batch_size=8", f"run.dir={tmp_path}/run")
    monkeypatch.setattr(Ahead, "_read", noted)
    monkeypatch.setattr(evaluation, "passes", counted)
    run_job(config, Collectives(), StopFlag())
    assert len(waited) == batches_of_a_step + len(evaluations)
    assert len(ahead) >= 5 * batches_of_a_step
