"""A run that several ranks began is finished by another number of ranks."""

from __future__ import annotations

from typing import Any

import pytest
from safetensors.torch import load_file

from dlfd_dist.compose import job_from_dict
from dlfd_dist.config import to_dict
from dlfd_dist.jobs import run_job
from dlfd_dist.run_dir import RunDir, read_events
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag, StoppedEarly
from tests.distributed.methods import relative_difference
from tests.fakes.stops import StopAfter


def _stop_after(group: Collectives, values: dict[str, Any], step: int) -> None:
    """One rank alone is told to stop, and all of them do."""
    flag = StopAfter(step) if group.rank == 1 else StopFlag()
    with pytest.raises(StoppedEarly, match=f"after step {step} of "):
        run_job(job_from_dict(values), group, flag)


@pytest.mark.parametrize(
    ("name", "step", "num_steps"),
    [
        ("dlfd_dropout", 1, 3),
        ("dlfd_lagged", 1, 3),
        ("dlfm", 1, 3),
        ("finetune_reset", 1, 3),
        ("dlfm_conditional", 2, 3),
        ("dlfm_teacher", 2, 5),
        ("dlfm_teacher", 4, 5),
        ("unsir", 1, 3),
        ("salun", 3, 4),
        ("ssd", 2, 4),
        ("msg", 1, 4),
        ("amun", 2, 3),
    ],  # fmt: skip
)
def test_a_run_goes_on_with_another_number_of_ranks(
    name, step, num_steps, unlearning, finished, ranks, tmp_path
):
    config = unlearning(name, tmp_path / "cut")
    ranks(_stop_after, 2, to_dict(config), step)
    cut = RunDir(tmp_path / "cut")
    assert not cut.finished()
    assert (cut.checkpoints / "latest").read_text().strip() == f"step_{step}"
    run_job(config, Collectives(), StopFlag())
    states = [load_file(run.model) for run in (finished(name, 1), cut)]
    assert relative_difference(*states) < 1e-9
    steps = [e["step"] for e in read_events(cut.metrics) if e["event"] == "step"]
    assert steps == list(range(1, num_steps + 1))
