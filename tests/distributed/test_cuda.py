"""A CUDA device gives what the CPU gives, to one rank and to two that share it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dlfd_dist.compose import job_from_dict
from dlfd_dist.config import to_dict
from dlfd_dist.jobs import run_job
from dlfd_dist.run_dir import RunDir
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag, StoppedEarly
from tests.distributed.methods import METHODS, UNEVEN, relative_difference, training_words
from tests.fakes.ranks import StandingRanks
from tests.fakes.stops import StopAfter

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")

CUDA = torch.device("cuda", 0)


@pytest.fixture(scope="module")
def sharing() -> Iterator[StandingRanks]:
    group = StandingRanks(2, "cuda")
    yield group
    group.kill()


def _run(group: Collectives, values: dict[str, Any], stop_after: int | None = None) -> str:
    flag = StopFlag() if stop_after is None else StopAfter(stop_after)
    try:
        run_job(job_from_dict(values), group, flag)
    except StoppedEarly:
        assert stop_after is not None
    return str(group.device)


@pytest.mark.parametrize("name", METHODS)
def test_weights_are_equal_on_the_cpu_and_on_one_device(name, tiny, trained, sharing, tmp_path):
    original = trained(*training_words(name, "model=resnet18"))
    common = [*UNEVEN, *METHODS[name], "model=resnet18", f"checkpoint={original}"]
    configs = {
        place: tiny("unlearn", *common, f"run.dir={tmp_path / place}")
        for place in ("cpu", "cuda", "shared", "cut")
    }
    run_job(configs["cpu"], Collectives(), StopFlag())
    run_job(configs["cuda"], Collectives(device=CUDA), StopFlag())
    assert sharing.run(_run, to_dict(configs["shared"])) == ["cuda:0", "cuda:0"]
    sharing.run(_run, to_dict(configs["cut"]), 1)
    assert not RunDir(tmp_path / "cut").finished()
    run_job(configs["cut"], Collectives(device=CUDA), StopFlag())
    states = {place: load_file(RunDir(tmp_path / place).model) for place in configs}
    results = {place: RunDir(tmp_path / place).read_result() for place in configs}
    # Devices and ranks sum in another order: rounding of float64, amplified by 3 steps.
    apart = {
        place: relative_difference(states["cpu"], states[place])
        for place in ("cuda", "shared", "cut")
    }
    assert max(apart.values()) < 1e-8, apart
    for place in apart:
        for figure in ("retain_accuracy", "test_accuracy", "forgetting_score"):
            assert results[place][figure] == results["cpu"][figure]
