"""launch/tuning.py: which trials there are, which one is chosen, and by which figure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dlfd_dist.config import JobConfig
from dlfd_dist.errors import ConfigError
from dlfd_dist.objectives import OBJECTIVES
from launch.plan.compare import comparison_of
from launch.plan.comparison import (
    Comparison,
    measurement_runs,
    training_runs,
    unlearning_runs,
    with_models,
)
from launch.plan.linked import comparison_plan
from launch.plan.race import Race, Trial, best_trial, chosen_trial
from launch.plan.runs import Run
from launch.plan.trial_people import original_of, trial_draws, tuning_measurements, tuning_models
from launch.plan.tuning import races_of, searched, tuning_record
from launch.results.tuning import Choices
from launch.search.plan import make_plan as search_plan

NOMUS = OBJECTIVES["nomus"]
GIVEN = ["data=synthetic", "forget.fraction=0.25", "run.dir=out", "seed=4,5"]


def plan_of(*overrides: str):
    words = ["method=finetune,dlfd_official,dlfd", "compare.tune=3", "compare.objective=nomus"]
    return comparison_of([*GIVEN, *words, *overrides])


def plan_trials(plan: Comparison) -> list[Trial]:
    return [trial for race in races_of(plan).values() for trial in race.trials]


def trial_runs(trials: list[Trial]) -> list[Run]:
    return [run for trial in trials for run in trial.runs]


def judged(plan: Comparison, trials: list[Trial], done: dict[str, Path]) -> list[Trial]:
    return [trial.judged(plan.objective, done) for trial in trials]


def raced(plan: Comparison, trials: list[Trial]) -> dict[str, Race]:
    """The races of a comparison with these trials."""
    names = {trial.name for trial in trials}
    races = {name: race for name, race in races_of(plan).items() if name in names}
    return {name: replace(race, trials=of_method(trials, name)) for name, race in races.items()}


def record_of(plan: Comparison, trials: list[Trial]) -> dict[str, Any]:
    record = tuning_record(plan, raced(plan, trials))
    assert record is not None
    return record


def begun(comparison: Comparison, trials: list[Trial]) -> list[JobConfig]:
    """The runs of the methods as they begin when the trials have these values."""
    races = raced(comparison, trials)
    plan = comparison_plan(comparison, races)
    choices = Choices(plan, {name: race.record() for name, race in races.items()})
    models = {run.label: Path(run.label) for run in plan.runs if run.trains}
    methods = [run for run in plan.runs if run.role == "method"]
    return [run.config for one in methods if (run := choices.ready(one, models))]


def settings_of(configs: Sequence[JobConfig]) -> list[Any]:
    return [(c.method, c.synthesis, c.ot) for c in configs]


def of_method(trials: list[Trial], name: str) -> list[Trial]:
    return [trial for trial in trials if trial.name == name]


def results(folder: Path, values: dict[str, float]) -> dict[str, Path]:
    """Finished runs by label; on the test set they did as well as they did badly on val."""
    done = {}
    for label, on_val in values.items():
        done[label] = folder / label
        done[label].mkdir()
        on_test = 1 - on_val
        result = {
            "nomus": on_test, "test_accuracy": on_test, "validation": {"nomus": on_val},
            "against_original": {"left_as_is": False},
        }  # fmt: skip
        (done[label] / "result.json").write_text(json.dumps(result))
    return done


def valued(trials: list[Trial], *values: float | None) -> list[Trial]:
    """Trials with their values; the untouched model is worth 0.05."""
    pairs = zip(trials, values, strict=True)
    return [replace(trial, value=value, untouched=0.05) for trial, value in pairs]


def test_every_method_with_a_space_gets_the_same_number_of_trials_on_the_first_seeds():
    trials = plan_trials(plan_of("compare.train_seeds=7,8"))
    assert [run.label for run in trial_runs(trials)] == [
        f"{method} trial {number} seed 4 on train seed 7"
        for method in ("finetune", "dlfd")
        for number in range(3)
    ]
    assert {(run.config.seed, run.train_seed) for run in trial_runs(trials)} == {(4, 7)}


def test_a_trial_runs_on_as_many_seeds_as_asked_and_on_no_more_than_there_are():
    for asked, seeds in ((1, [4]), (2, [4, 5]), (9, [4, 5])):
        plan = plan_of(f"compare.tune_seeds={asked}")
        (trial, *_) = plan_trials(plan)
        assert [run.config.seed for run in trial.runs] == seeds
        assert {run.config.method.lr for run in trial.runs} == {trial.settings["method.lr"]}
        assert record_of(plan, [trial])["pairs"] == [(seed, seed) for seed in seeds]


def test_a_trial_is_worth_the_mean_over_its_seeds_and_nothing_where_one_failed(tmp_path: Path):
    plan = plan_of("compare.tune_seeds=2")
    trials = of_method(plan_trials(plan), "finetune")
    # The first trial has the best seed, the second the best mean, the third lost a seed.
    done = results(
        tmp_path,
        {
            "finetune trial 0 seed 4": 0.9,
            "finetune trial 0 seed 5": 0.1,
            "finetune trial 1 seed 4": 0.6,
            "finetune trial 1 seed 5": 0.7,
            "finetune trial 2 seed 4": 0.95,
            "original seed 4": 0.2,
            "original seed 5": 0.4,
        },
    )
    found = judged(plan, trials, done)
    assert [trial.untouched for trial in found] == pytest.approx([0.3] * 3)
    assert [trial.value for trial in found] == [pytest.approx(0.5), pytest.approx(0.65), None]
    assert best_trial(found, NOMUS) is found[1]


def test_without_tuning_there_are_no_trials_and_the_settings_stay():
    plan = plan_of("compare.tune=0")
    assert plan_trials(plan) == []
    own = [config for config in plan.configs for _ in plan.pairs]
    assert settings_of(begun(plan, [])) == settings_of(own)


def test_the_first_trial_has_the_methods_own_settings_and_the_others_drawn_ones():
    plan = plan_of("compare.tune_seed=9")
    dlfd = next(c for c in plan.configs if c.method.name == "dlfd")
    first, *others = of_method(plan_trials(plan), "dlfd")
    words = ["data=synthetic", "forget.fraction=0.25", "checkpoint=original", "method=dlfd"]
    words += ["search=random", "search.seed=9", "search.objective=nomus"]
    as_searched = search_plan(words).points()
    assert "method.max_forgetting_score" not in first.settings
    own = first.runs[0].config
    assert (own.method, own.synthesis) == (dlfd.method, dlfd.synthesis)
    assert first.settings["method.lr"] == dlfd.method.lr
    for number, trial in enumerate(others, start=1):
        assert trial.settings == as_searched[number]
        config = trial.runs[0].config
        assert config.method.lr == trial.settings["method.lr"]
        assert config.synthesis.step_size == trial.settings["synthesis.step_size"]
    assert others[0].settings != others[1].settings


def test_settings_that_the_user_gave_are_not_drawn():
    plan = plan_of("method.lr=0.5")
    assert set(searched(plan.configs[0], plan.given)) == {"method.epochs", "method.lr_scheduler"}
    trials = plan_trials(plan)
    assert {trial.runs[0].config.method.lr for trial in trials} == {0.5}
    assert not any("method.lr" in trial.settings for trial in trials)
    record = record_of(plan, trials)["methods"]
    assert record["finetune"]["given"] == {"method.lr": 0.5}
    assert "method.lr" not in record["dlfd"]["searched"]


def test_a_method_whose_settings_were_all_given_is_not_tuned():
    words = ["method.lr=0.5", "method.epochs=1", "method.lr_scheduler=cosine"]
    trials = plan_trials(plan_of(*words))
    assert {trial.name for trial in trials} == {"dlfd"}


@pytest.mark.parametrize(
    ("values", "chosen"),
    [
        ((0.1, 0.3, 0.2), 1),
        ((0.3, 0.3, 0.3), 0),
        ((0.1, 0.3, 0.3), 1),
        ((None, 0.1, 0.0), 1),
        ((None, None, 0.0), 2),
    ],
)
def test_the_best_trial_is_chosen_and_the_first_of_equals(values, chosen):
    trials = valued(of_method(plan_trials(plan_of()), "finetune"), *values)
    assert best_trial(trials, NOMUS) is trials[chosen]


def test_the_chosen_settings_reach_their_method_alone_and_all_its_seeds():
    plan = plan_of()
    trials = valued(plan_trials(plan), 0.2, 0.3, 0.1, 0.2, 0.1, 0.3)
    configs = begun(plan, trials)
    finetune, official, dlfd = configs[::2]
    assert finetune.method.lr == trials[1].settings["method.lr"]
    assert finetune.synthesis == plan.configs[0].synthesis
    assert settings_of([official]) == settings_of([plan.configs[1]])
    assert dlfd.method.lr == trials[5].settings["method.lr"]
    assert dlfd.synthesis.step_size == trials[5].settings["synthesis.step_size"]
    of_dlfd = [config for config in configs if config.method.name == "dlfd"]
    assert [config.seed for config in of_dlfd] == [4, 5]
    assert {config.method.lr for config in of_dlfd} == {dlfd.method.lr}


def test_a_method_whose_trials_all_failed_is_left_out():
    plan = plan_of()
    trials = valued(plan_trials(plan), None, None, None, 0.2, None, 0.1)
    names = [config.method.name for config in begun(plan, trials)]
    assert names == ["dlfd_official", "dlfd_official", "dlfd", "dlfd"]
    record = record_of(plan, trials)["methods"]
    assert (record["finetune"]["settings"], record["finetune"]["failed"]) == (None, 3)
    assert (record["dlfd"]["value"], record["dlfd"]["failed"]) == (0.2, 1)


def test_a_trial_is_judged_on_val_and_has_nothing_to_measure_the_test_set_against(tmp_path: Path):
    plan = plan_of()
    trials = of_method(plan_trials(plan), "finetune")
    values = {"finetune trial 0 seed 4": 0.5, "finetune trial 1 seed 4": 0.9}
    found = judged(plan, trials, results(tmp_path, {**values, "original seed 4": 0.3}))
    assert [trial.value for trial in found] == [0.5, 0.9, None]
    assert best_trial(found, NOMUS) is found[1]
    models = {"original seed 4": Path("o"), "retrained seed 4": Path("r")}
    ready = with_models(trial_runs(trials), models)
    assert {(one.config.checkpoint, one.config.reference) for one in ready} == {("o", None)}


def written(folder: Path, accuracy: float, *, auc: float = 0.5, still: bool = False) -> Path:
    """A finished run with one accuracy on retain, forget and val."""
    folder.mkdir()
    names = ("forget_accuracy", "val_accuracy", "retain_accuracy")
    result = {
        **dict.fromkeys(names, accuracy), "validation": {"nomus": accuracy, "mia_auc": auc},
        "against_original": {"left_as_is": still},
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def test_a_trial_may_be_judged_by_its_gap_to_retrained_of_its_own_train_seed(tmp_path: Path):
    plan = plan_of("compare.objective=gap", "compare.train_seeds=7", "forget.seed=4")
    trials = of_method(plan_trials(plan), "finetune")
    accuracies = {one.runs[0].label: a for one, a in zip(trials, (1.0, 0.7, 0.4), strict=True)}
    accuracies |= {"retrained seed 7": 0.8, "original seed 7": 1.0, "retrained seed 4": 0.4}
    done = {label: written(tmp_path / label, value) for label, value in accuracies.items()}
    found = judged(plan, trials, done)
    assert [trial.value for trial in found] == pytest.approx([0.15, 0.075, 0.3])
    assert found[0].untouched == pytest.approx(0.15)
    assert best_trial(found, OBJECTIVES["gap"]) is found[1]
    assert record_of(plan, found)["objective"] == "gap to Retrained on validation"
    assert begun(plan, found)[0].method.lr == trials[1].settings["method.lr"]


def test_trials_forget_people_of_their_own_against_a_retrained_and_original_of_their_own(
    tmp_path: Path,
):
    plan = plan_of("compare.objective=gap", "compare.train_seeds=7", "compare.tune_seeds=2")
    (first, second), *_ = (trial.runs for trial in plan_trials(plan))
    draws = [run.config.drawn_forget.seed for run in (first, second)]
    assert draws == [1_000_000, 1_000_001]
    assert [run.config.seed for run in (first, second)] == [4, 5]
    (retrained, _), (original, _) = tuning_models(plan), tuning_measurements(plan)
    assert retrained.label == "retrained seed 7 without draw 1000000"
    assert (retrained.config.train.on, retrained.config.drawn_forget.seed) == ("retain", draws[0])
    assert original.label == original_of(plan, first) == "original seed 7 on draw 1000000"
    assert (original.config.verb, original.config.drawn_forget.seed) == ("evaluate", draws[0])
    # The table is made of the other runs, and none of those forgets people of a trial.
    planned = comparison_plan(plan, races_of(plan)).runs
    rows = [*training_runs(plan), *measurement_runs(plan), *unlearning_runs(plan)]
    assert [run.label for run in planned if run.in_table] == [run.label for run in rows]
    assert {retrained.label, original.label} <= {run.label for run in planned if run.tuning}
    assert not any(run.tuning for run in rows)
    assert {one.config.drawn_forget.seed for one in rows} == {4, 5}
    labels = ["original seed 7", retrained.label]
    (ready,) = with_models([first], {label: Path(label) for label in labels})
    assert (ready.config.checkpoint, ready.config.reference) == ("original seed 7", None)
    # Who did as its own Retrained is best, whatever the one of the comparison does.
    done = {
        label: written(tmp_path / label, value)
        for label, value in {
            first.label: 0.6, second.label: 0.6, "retrained seed 7": 0.0,
            "retrained seed 7 without draw 1000000": 0.6,
            "retrained seed 7 without draw 1000001": 0.6,
            "original seed 7 on draw 1000000": 0.8, "original seed 7 on draw 1000001": 1.0,
        }.items()
    }  # fmt: skip
    (found, *_) = judged(plan, plan_trials(plan)[:1], done)
    assert (found.value, found.untouched) == (0.0, pytest.approx(0.3 * 3 / 4))
    assert record_of(plan, [found])["draws"] == draws


@pytest.mark.parametrize(
    "words",
    [
        ["compare.objective=nomus"], ["forget.seed=3"], ["compare.tune=0"],
        ["forget.fraction=null", "forget.request=people.txt"],
    ],
)  # fmt: skip
def test_people_who_are_named_serve_the_trials_as_well(words: list[str]):
    plan = plan_of("compare.objective=gap", *words)
    assert tuning_models(plan) == tuning_measurements(plan) == []
    assert trial_draws(plan) == {}
    for trial in plan_trials(plan):
        assert original_of(plan, trial.runs[0]) == "original seed 4"


@pytest.mark.parametrize("objective", ["gap", "resurface"])
def test_trials_are_fine_tuned_on_where_they_are_judged_by_what_comes_back(objective: str):
    plan = plan_of(f"compare.objective={objective}", "compare.train_seeds=7")
    judged_by = objective == "resurface"
    steps = {run.config.metrics.resurface_steps for run in trial_runs(plan_trials(plan))}
    assert steps == {None if judged_by else 0}
    held = [*tuning_models(plan), *tuning_measurements(plan)]
    assert {one.config.metrics.resurface_always for one in held} == {judged_by}
    if judged_by:
        with pytest.raises(ConfigError, match="are 0: leave metrics.resurface_steps out"):
            plan_of("compare.objective=resurface", "metrics.resurface_steps=0")


def test_the_draw_of_the_trials_is_that_of_no_seed_of_the_comparison():
    words = ["compare.objective=gap", "compare.tune_seed=2", "seed=1000002,0"]
    (draw,) = {run.config.drawn_forget.seed for run in trial_runs(plan_trials(plan_of(*words)))}
    assert draw == 1_000_003


def test_a_trial_that_left_the_model_as_it_is_is_never_chosen(tmp_path: Path):
    plan = plan_of("forget.seed=4")
    trials = of_method(plan_trials(plan), "finetune")
    done = {
        run.label: written(tmp_path / run.label, accuracy, still=still)
        for run, accuracy, still in zip(
            trial_runs(trials), (0.9, 0.7, 0.8), (True, False, False), strict=True
        )
    }
    done["original seed 4"] = written(tmp_path / "original", 0.6)
    found = judged(plan, trials, done)
    assert [trial.left_as_is for trial in found] == [True, False, False]
    assert chosen_trial(found, NOMUS) is found[2]
    record = record_of(plan, found)["methods"]["finetune"]
    assert (record["left_as_is"], record["value"], record["untouched_value"]) == (1, 0.8, 0.6)


@pytest.mark.parametrize(("objective", "values"), [("nomus", (0.6, 0.5)), ("gap", (0.2, 0.3))])
def test_a_choice_no_better_than_doing_nothing_is_refused_and_own_settings_run(objective, values):
    plan = plan_of(f"compare.objective={objective}", "compare.tune=2", "method=finetune,dlfd")
    untouched = values[0]
    trials = [
        replace(trial, value=values[number % 2], untouched=untouched)
        for number, trial in enumerate(plan_trials(plan))
    ]
    assert chosen_trial(of_method(trials, "finetune"), OBJECTIVES[objective]) is None
    own = [config for config in plan.configs for _ in plan.pairs]
    assert settings_of(begun(plan, trials)) == settings_of(own)
    record = record_of(plan, trials)["methods"]["finetune"]
    assert (record["settings"], record["no_gain"], record["value"]) == (None, True, untouched)


def test_the_record_tells_what_was_tried_and_what_that_gained():
    plan = plan_of("compare.tune_seed=2", "compare.train_seeds=7")
    trials = valued(plan_trials(plan), 0.2, 0.3, None, 0.2, 0.1, 0.1)
    record = record_of(plan, trials)
    assert {key: record[key] for key in ("trials", "seed", "pairs", "objective")} == {
        "trials": 3, "seed": 2, "pairs": [(7, 4)], "objective": "validation NoMUS",
    }  # fmt: skip
    assert set(record["methods"]) == {"finetune", "dlfd"}
    finetune = record["methods"]["finetune"]
    assert (finetune["value"], finetune["default_value"], finetune["failed"]) == (0.3, 0.2, 1)
    assert finetune["settings"] == trials[1].settings
    assert finetune["searched"]["method.lr"] == "0.0001 to 0.1 (log)"
    assert [trial["value"] for trial in finetune["trials"]] == [0.2, 0.3, None]
    json.dumps(record, allow_nan=False)


# --- equal steps


def test_equal_steps_replace_the_epochs_of_every_method_that_takes_steps():
    plan = comparison_of([*GIVEN, "method=scrub,ssd", "compare.steps=40", "compare.tune=2"])
    scrub, ssd = plan.configs
    assert (scrub.method.steps, ssd.method.steps) == (40, None)
    assert "method.epochs" not in searched(scrub, plan.given)
    assert "method.max_epochs" in searched(scrub, plan.given)
    steps = {run.config.method.steps for run in trial_runs(of_method(plan_trials(plan), "scrub"))}
    assert steps == {40}


def test_the_authors_loop_keeps_its_own_beside_methods_of_equal_steps():
    words = ["method.probe_every=20", "method.select=last", "compare.steps=40"]
    official, dlfd = comparison_of([*GIVEN, "method=dlfd_official,dlfd", *words]).configs
    assert (dlfd.method.steps, dlfd.method.probe_every, dlfd.method.select) == (40, 20, "last")
    own = (official.method.steps, official.method.probe_every, official.method.select)
    assert own == (None, 1, "accuracy")
    official.validate(1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["method.epochs=3"], "compare.steps=40 and method.epochs are both set"),
        (["method.max_steps=3"], "method.max_steps.* both"),
        (["method=dlfd_official"], "not possible with method=dlfd_official alone"),
        (["compare.steps=0"], "compare.steps=0 is not allowed: it must be >= 1"),
    ],
)
def test_equal_steps_beside_what_they_replace_are_refused(words: list[str], said: str):
    with pytest.raises(ConfigError, match=said):
        comparison_of([*GIVEN, "compare.steps=40", *words])
