"""launch/results/tuning.py: the trials of a campaign choose once; no run is run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dlfd_dist.errors import DlfdError
from dlfd_dist.run_dir import append_event
from launch.execute.journal import Ledger, attempts_file
from launch.plan.runs import Plan, Run, choice_file
from launch.results.tuning import choices_of, tuned
from tests.unit.test_campaign import plan

NOMUS = ("compare.objective=nomus",)


@pytest.fixture
def campaign(tmp_path: Path) -> Plan:
    made = plan("compare", tmp_path, "method=scrub", "seed=0,1", "compare.tune=2", *NOMUS)
    for folder in ("plans", "attempts"):
        (made.path / folder).mkdir(parents=True)
    (made.path / "plans" / made.plan_name).write_text(made.text())
    ledger = Ledger(made.path)
    with ledger.locked():
        ledger.append("planned", plan=made.plan_name, reused={}, joined=[])
    end(made, "original seed 0", 0.05)
    return made


def end(campaign: Plan, label: str, nomus: float | None) -> None:
    """Let a run end with a figure on val, or without a result."""
    (run,) = [run for run in campaign.runs if run.label == label]
    folder = campaign.path / "tuning" / label.replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    start = {"event": "start", "time": 0.0, "job_id": "7", "job": "j", "directory": str(folder)}
    append_event(attempts_file(campaign.path, run.key), start)
    if nomus is not None:
        (folder / "result.json").write_text(json.dumps({"validation": {"nomus": nomus}}))


def runs_of(campaign: Plan) -> list[Run]:
    return [run for run in campaign.runs if run.role == "method"]


def lr_of(campaign: Plan, run: Run) -> float:
    config = run.config
    return tuned(campaign.path, campaign.plan_name, run, config).method.lr


def lr_of_trial(campaign: Plan, number: int) -> float:
    (run,) = [run for run in campaign.runs if run.label == f"scrub trial {number} seed 0"]
    return run.config.method.lr


@pytest.mark.parametrize("best", [0, 1])
def test_the_best_trial_chooses_for_every_seed_once(campaign: Plan, best: int):
    for number in (0, 1):
        end(campaign, f"scrub trial {number} seed 0", 0.8 if number == best else 0.7)
    first, second = runs_of(campaign)
    assert lr_of_trial(campaign, 0) != lr_of_trial(campaign, 1)
    assert lr_of(campaign, first) == lr_of_trial(campaign, best)
    # Repeated, the other would win now; the second seed runs with what the first has.
    end(campaign, f"scrub trial {1 - best} seed 0", 0.9)
    assert lr_of(campaign, second) == lr_of_trial(campaign, best)
    record = choices_of(campaign.path, campaign.runs)["scrub"]
    assert record["value"] == 0.8
    assert [trial["value"] for trial in record["trials"]].count(0.7) == 1


def test_where_no_trial_beats_the_untouched_model_every_seed_keeps_its_own_settings(
    campaign: Plan,
):
    end(campaign, "original seed 0", 0.9)
    for number, nomus in ((0, 0.8), (1, 0.9)):
        end(campaign, f"scrub trial {number} seed 0", nomus)
    for run in runs_of(campaign):
        assert lr_of(campaign, run) == run.config.method.lr
    record = choices_of(campaign.path, campaign.runs)["scrub"]
    assert (record["settings"], record["no_gain"], record["value"]) == (None, True, 0.9)


def test_a_trial_that_failed_does_not_choose(campaign: Plan):
    end(campaign, "scrub trial 0 seed 0", None)
    end(campaign, "scrub trial 1 seed 0", 0.1)
    assert lr_of(campaign, runs_of(campaign)[0]) == lr_of_trial(campaign, 1)


def test_without_any_trial_the_run_says_so_and_what_to_do(campaign: Plan):
    run = runs_of(campaign)[0]
    with pytest.raises(DlfdError, match="none of the 2 trials of scrub finished.*retry"):
        lr_of(campaign, run)
    assert not choice_file(campaign.path, run).exists()
    end(campaign, "scrub trial 0 seed 0", 0.5)
    assert lr_of(campaign, run) == lr_of_trial(campaign, 0)
