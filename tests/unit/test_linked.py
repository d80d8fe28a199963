"""launch/plan/linked.py: which runs a run waits for, here and submitted alike."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launch.plan.audit import audit_of
from launch.plan.campaign import plan_campaign
from launch.plan.compare import comparison_of
from launch.plan.linked import audit_plan, comparison_plan
from launch.plan.runs import Plan
from launch.plan.tuning import races_of

GIVEN = ["data=synthetic", "data.image_size=16", "model=small", "forget.fraction=0.25"]
TUNED = ["method=finetune,dlfd_official", "seed=0,1", "compare.tune=2"]


def edges(plan: Plan) -> dict[str, tuple[set[str], set[str]]]:
    """The labels of the runs that each run starts from and of those that it waits for."""
    labels = {run.key: run.label for run in plan.runs}

    def named(keys: tuple[str, ...]) -> set[str]:
        return {labels[key] for key in keys}

    return {run.label: (named(run.parents), named(run.after)) for run in plan.runs}


def test_every_run_of_a_comparison_names_its_models_and_the_trials_that_choose_its_settings():
    comparison = comparison_of([*GIVEN, *TUNED])
    plan = comparison_plan(comparison, races_of(comparison))
    graph = edges(plan)
    models = {"original seed 1", "retrained seed 1"}
    trials = {f"finetune trial {number} seed {seed}" for number in (0, 1) for seed in (0, 1)}
    assert graph["original seed 1"] == (set(), set())
    assert graph["dlfd_official seed 1"] == (models, set())
    parents, waits = graph["finetune seed 1"]
    assert parents == models
    originals = {f"original seed {seed} on draw {1_000_000 + seed}" for seed in (0, 1)}
    assert waits <= trials | originals
    assert {label for label in waits if "trial" in label} == {t for t in trials if t in graph}
    assert waits & originals


@pytest.mark.parametrize("verb", ["compare", "audit"])
def test_a_submitted_plan_has_the_edges_of_the_plan_that_runs_here(verb: str, tmp_path: Path):
    words = [*GIVEN, f"run.dir={tmp_path}/out"]
    if verb == "compare":
        words += TUNED
        comparison = comparison_of(words)
        here = comparison_plan(comparison, races_of(comparison))
    else:
        words = ["ulira", *words, "method=finetune", "audit.models=3"]
        here = audit_plan(audit_of(words))
    submitted = plan_campaign(verb, words)
    assert edges(submitted) == edges(here)
    assert submitted.for_finisher == here.for_finisher
    assert all(len(run.key) == 8 for run in submitted.runs)
    assert not any(run.directory for run in submitted.runs if run.after or run.parents)


def test_no_run_comes_before_a_run_that_it_waits_for(tmp_path: Path):
    plan = plan_campaign("compare", [*GIVEN, *TUNED, f"run.dir={tmp_path}/out"])
    before: set[str] = set()
    for run in plan.runs:
        assert {*run.parents, *run.after} <= before
        before.add(run.key)
    assert len(before) == len(plan.runs)


def test_a_trial_equal_to_another_is_run_once_and_counts_for_both(tmp_path: Path):
    words = [*GIVEN, f"run.dir={tmp_path}/out", "method=finetune", "method.lr=0.01"]
    # Few settings are left to draw, so that trials are drawn twice.
    plan = plan_campaign("compare", [*words, "compare.tune=12"])
    trials = plan.for_finisher["races"]["finetune"]["trials"]
    assert len(trials) == 12
    equal = {json.dumps(trial["settings"]): trial["against"][0][0] for trial in trials}
    runs = [run.label for run in plan.runs if run.role == "trial"]
    assert sorted(equal.values()) == sorted(runs)
    assert len(runs) < 12
    (method,) = (run for run in plan.runs if run.role == "method")
    assert {plan.by_key[key].label for key in method.after} >= set(runs)


def test_what_is_tuned_and_what_is_not_run_in_one_stage_after_the_trials():
    comparison = comparison_of([*GIVEN, *TUNED])
    trainings, measured, methods = comparison_plan(comparison, races_of(comparison)).stages
    assert {run.verb for run in trainings} == {"train"}
    assert {run.role for run in methods} == {"method"}
    assert {run.method for run in methods} == {"finetune", "dlfd_official"}
    # A trial that fails on several ranks ends the stage: what is measured comes first.
    is_trial = [run.role == "trial" for run in measured]
    assert is_trial == sorted(is_trial)
    assert any(is_trial)
