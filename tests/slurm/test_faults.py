"""A fault of each kind while a campaign runs: it ends as if it had been left alone.

benchmarks/faults.py does the same with a hundred faults.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.faults import (
    SHORT,
    Outcome,
    bookkeeping,
    compare,
    different,
    overlaps,
    run_campaigns,
)
from dlfd_dist.run_dir import RunDir, append_event, read_events, truncate_events
from launch.execute.journal import attempts_file
from tests.fakes.faults import KINDS
from tests.slurm.cluster import Lab

NUM_FAULTS = len(KINDS)
pytestmark = [pytest.mark.timeout(1800), pytest.mark.xdist_group("faults")]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def outcome(lab: Lab, out: Path) -> Outcome:
    if not lab.has_namespaces():
        pytest.skip("without namespaces a node of the lab cannot crash alone")
    return run_campaigns(lab, out, SHORT, NUM_FAULTS, seed=0)


def test_a_campaign_under_faults_ends_as_if_it_had_been_left_alone(outcome: Outcome):
    assert outcome.violations == []
    assert {run.state for run in outcome.runs} == {"finished"}


def test_a_fault_of_each_kind_hit_a_job_that_ran(outcome: Outcome):
    assert len(outcome.records) == NUM_FAULTS
    assert {record.kind for record in outcome.records} == set(KINDS)
    # Runs of the small backbone end in seconds: many faults find their job over.
    assert sum(record.restart_s is not None for record in outcome.records) >= 2


def test_no_run_had_to_be_tried_again_by_hand(outcome: Outcome):
    again = [what for what in outcome.by_hand if what.startswith("dlfd retry")]
    assert again == [], "\n".join(str(record) for record in outcome.records)


# --- what is compared can be told apart


@pytest.fixture
def pair(outcome: Outcome, out: Path, tmp_path: Path) -> tuple[RunDir, RunDir]:
    """A run that was left alone, and a copy of it under faults."""
    name = Path(outcome.runs[0].directory or "").name
    copy = shutil.copytree(out / "rough" / "runs" / name, tmp_path / name)
    return RunDir(out / "calm" / "runs" / name), RunDir(copy)


def test_the_smallest_change_of_a_weight_is_seen(pair: tuple[RunDir, RunDir]):
    calm, rough = pair
    assert list(different(calm, rough)) == []
    weights = load_file(rough.model)
    name = next(name for name, tensor in weights.items() if tensor.is_floating_point())
    weights[name].view(-1)[0] = torch.nextafter(weights[name].view(-1)[0], torch.tensor(9.0))
    save_file(weights, rough.model)
    assert list(different(calm, rough)) == ["other weights"]


def test_a_step_recorded_twice_and_one_missing_are_seen(pair: tuple[RunDir, RunDir]):
    calm, rough = pair
    last = [event for event in read_events(rough.metrics) if event["event"] == "step"][-1]
    append_event(rough.metrics, last)
    assert any(what.startswith("steps [") for what in different(calm, rough))
    truncate_events(rough.metrics, last["step"] - 1)
    assert any(what.startswith("metrics.jsonl: ") for what in different(calm, rough))


def test_a_run_that_is_lost_or_one_too_many_is_seen(outcome: Outcome, out: Path, tmp_path: Path):
    assert outcome.violations == []
    rough = tmp_path / "rough"
    shutil.copytree(out / "rough", rough, copy_function=os.link)
    names = sorted(path.name for path in (rough / "runs").glob("[!.]*"))
    (rough / "runs" / names[0] / "result.json").unlink()
    (rough / "runs" / "one-00000000").mkdir()
    wrong = compare(out / "calm", rough)
    assert f"{names[0]} is missing" in wrong
    assert "one-00000000 is one too many" in wrong


def test_two_starts_at_once_are_seen(tmp_path: Path):
    (tmp_path / "attempts").mkdir()
    file = attempts_file(tmp_path, "0123abcd")
    for time, job_id in ((1.0, "7_0"), (2.0, "8")):
        append_event(file, {"event": "start", "time": time, "job_id": job_id})
    append_event(file, {"event": "end", "time": 3.0, "status": 75})
    assert list(overlaps(tmp_path, "0123abcd")) == []
    append_event(file, {"event": "end", "time": 3.5, "status": 0})
    append_event(file, {"event": "start", "time": 4.0, "job_id": "7_0"})
    assert list(overlaps(tmp_path, "0123abcd")) == [
        "an end without a start: two jobs did it at once",
        "done by turns by 7_0, 8, 7_0",
    ]


def test_the_books_of_the_campaign_are_in_order(outcome: Outcome, out: Path):
    assert outcome.violations == []
    assert bookkeeping(out / "rough") == []
