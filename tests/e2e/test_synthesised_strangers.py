"""Synthesised images are called strangers only where no probe tells them from val people."""

from __future__ import annotations

import logging

import pytest

from dlfd_dist.jobs import run_job
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag, StoppedEarly
from tests.fakes.small_model import TWO_CONVS
from tests.fakes.stops import StopAfter

FAR = ("synthesis.pgd_radius=null", "synthesis.step_size=1", "synthesis.steps=5")
NEAR = ("synthesis.step_size=1e-6", "synthesis.steps=1")


@pytest.fixture
def job(tiny, trained, tmp_path):
    def make(name: str, *words: str):
        splits = [word for word in words if word == MORE_PEOPLE]
        return tiny(
            "unlearn", TWO_CONVS, "method=dlfm", "method.reference=synthesised",
            "method.dynamic=false", "method.epochs=1",
            f"checkpoint={trained(TWO_CONVS, *splits)}",
            f"run.dir={tmp_path / name}", *words,
        )  # fmt: skip

    return make


MORE_PEOPLE = "data.val_fraction=0.34"


@pytest.mark.parametrize(
    ("words", "strangers"),
    [((MORE_PEOPLE, *FAR), False), ((MORE_PEOPLE, *NEAR), True), (FAR, None)],
)
def test_images_that_a_probe_tells_from_people_are_not_called_strangers(
    words, strangers, job, caplog
):
    with caplog.at_level(logging.WARNING):
        found = run_job(job("run", *words), Collectives(), StopFlag())["reference_people"]
    assert found["kind"] == "synthesised"
    assert found["strangers"] is strangers
    assert (found["probes"] is None) is (strangers is None)  # 8 val images are too few to try
    said = {False: "so that they are no strangers", True: "", None: "they are not called so"}
    warned = [line for line in caplog.messages if "method.reference=synthesised" in line]
    assert len(warned) == (strangers is not True)
    assert said[strangers] in "".join(warned)


def test_a_run_that_goes_on_still_says_what_the_probe_saw(job):
    words = (MORE_PEOPLE, *FAR)
    whole = run_job(job("whole", *words), Collectives(), StopFlag())
    with pytest.raises(StoppedEarly):
        run_job(job("cut", *words), Collectives(), StopAfter(1))
    cut = run_job(job("cut", *words), Collectives(), StopFlag())
    assert cut["reference_people"] == whole["reference_people"]
    assert cut["model_sha256"] == whole["model_sha256"]
