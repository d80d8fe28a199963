"""launch/planning.py: which runs a comparison consists of, and which settings reach which."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlfd_dist.compose import split_compare
from dlfd_dist.config import CompareConfig, JobConfig
from dlfd_dist.errors import ConfigError
from launch.plan.compare import SYNTHESISE, comparison_of
from launch.plan.comparison import (
    measurement_runs,
    training_runs,
    unlearning_runs,
    with_models,
    with_settings,
)
from launch.plan.contrasts import named_contrasts

GIVEN = ["data=synthetic", "forget.fraction=0.25", "run.dir=out"]


def labels(*overrides: str) -> list[str]:
    plan = comparison_of([*GIVEN, *overrides])
    return [one.label for one in unlearning_runs(plan)]


# --- the settings of the comparison itself


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], CompareConfig()),
        (["compare.tune=3", "compare.tune_seed=7"], CompareConfig(tune=3, tune_seed=7)),
        (["compare.tune=3", "compare.tune=4"], CompareConfig(tune=4)),
        (["+compare.workers=2"], CompareConfig(workers=2)),
        (["compare.workers=null"], CompareConfig()),
        (["compare.train_seeds=0,1"], CompareConfig(train_seeds=[0, 1])),
        (["compare.train_seeds=[0,1]"], CompareConfig(train_seeds=[0, 1])),
        (["compare.train_seeds=range(0,3)"], CompareConfig(train_seeds=[0, 1, 2])),
        (["compare.train_seeds=5"], CompareConfig(train_seeds=[5])),
        (["compare.train_seeds=null"], CompareConfig()),
        (["compare.contrasts=dlfd/best"], CompareConfig(contrasts=["dlfd/best"])),
        (
            ["compare.contrasts=dlfd/best,ssd/original", "compare.margin=0.05"],
            CompareConfig(contrasts=["dlfd/best", "ssd/original"], margin=0.05),
        ),
    ],
)
def test_settings_of_compare_are_split_from_those_of_its_runs(overrides, expected):
    compare, rest = split_compare(["seed=0,1", *overrides, "run.name='a,b'"])
    assert compare == expected
    assert rest == ["seed=0,1", "run.name='a,b'"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("compare.worker=2", r"'compare.worker' is not known. Did you mean 'compare.workers'"),
        ("compare.contrasts=dlfd", r"compare.contrasts='?dlfd'? is not allowed: it must be pairs"),
        ("compare.margin=0", r"compare.margin=0.0 is not allowed"),
        ("compare.tune=-1", r"compare.tune=-1 is not allowed: it must be >= 0"),
        ("compare.tune=some", r"compare.tune: Value 'some'"),
        ("compare.tune=1,2", r"compare.tune: Value"),
        ("compare.tune_seed=-1", r"compare.tune_seed=-1 is not allowed"),
        ("compare.workers=0", r"compare.workers=0 is not allowed: it must be >= 1"),
        ("compare.train_seeds=[]", r"compare.train_seeds=\[\] is not allowed"),
        ("compare.train_seeds=0,-1", r"compare.train_seeds=\[0, -1\] is not allowed"),
        ("compare.train_seeds=a", r"compare.train_seeds: "),
        ("compare.tune", r"'compare.tune' is not understood"),
    ],
)
def test_wrong_setting_of_compare_is_refused(override, message):
    with pytest.raises(ConfigError, match=message):
        split_compare([override])


@pytest.mark.parametrize("override", ["compare=3", "~compare.tune", "compare={tune: 3}"])
def test_what_is_not_a_setting_of_compare_is_refused_with_the_runs(override):
    with pytest.raises(ConfigError, match="compare"):
        comparison_of([*GIVEN, override])


# --- methods and seeds


def test_without_methods_and_seeds_dlfd_is_compared_with_finetune_on_one_seed():
    assert labels() == ["dlfd seed 0", "finetune seed 0"]


def test_each_seed_unlearns_the_model_trained_with_it():
    plan = comparison_of([*GIVEN, "method=dlfd,finetune", "seed=3,1"])
    assert plan.pairs == [(3, 3), (1, 1)]
    assert [one.label for one in training_runs(plan)] == [
        "retrained seed 3", "original seed 3", "retrained seed 1", "original seed 1",
    ]  # fmt: skip
    runs = unlearning_runs(plan)
    assert [(one.method, one.config.seed, one.train_seed) for one in runs] == [
        ("dlfd", 3, 3), ("dlfd", 1, 1), ("finetune", 3, 3), ("finetune", 1, 1),
    ]  # fmt: skip


def test_original_is_trained_on_everybody_and_retrained_without_the_forgotten():
    trainings = training_runs(comparison_of([*GIVEN, "seed=0,1"]))
    assert {(one.role, one.config.train.on) for one in trainings} == {
        ("original", "all"), ("retrained", "retain"),
    }  # fmt: skip


def test_given_train_seeds_every_seed_unlearns_every_model():
    assert labels("method=finetune", "seed=0,1", "compare.train_seeds=0,2") == [
        "finetune seed 0", "finetune seed 1 on train seed 0",
        "finetune seed 0 on train seed 2", "finetune seed 1 on train seed 2",
    ]  # fmt: skip


def test_a_run_has_one_directory_name_however_its_seeds_were_asked_for():
    """Then finished runs are found again when train seeds are added."""
    plans = (
        comparison_of([*GIVEN, "method=finetune", *more])
        for more in (["seed=0,1"], ["seed=0,1", "compare.train_seeds=0,1"])
    )
    few, many = (
        {one.label: one.config.run.name for one in unlearning_runs(plan)} for plan in plans
    )
    assert few.items() <= many.items()
    assert len(set(many.values())) == len(many) == 4


def test_repeated_methods_and_seeds_count_once():
    found = labels("method=dlfd,finetune,dlfd", "seed=1,1", "compare.train_seeds=1,1")
    assert found == ["dlfd seed 1", "finetune seed 1"]


def test_the_last_value_of_a_setting_counts():
    assert labels("method=dlfd", "seed=0,1", "seed=2", "method=finetune") == ["finetune seed 2"]


@pytest.mark.parametrize(
    "override", ["forget.seed=0,1", "train.lr=0.1,0.01", "model=resnet18,vit_b_16"]
)
def test_lists_that_would_change_the_trained_models_are_refused(override):
    key = override.split("=")[0]
    with pytest.raises(
        ConfigError, match=f"{key} lists several values, but Original and Retrained"
    ):
        comparison_of([*GIVEN, override])


# --- variants of a method


def test_several_values_of_a_setting_are_variants_and_the_methods_own_value_bears_its_name():
    plan = comparison_of([*GIVEN, "method=finetune,dlfd", "method.dynamic=true,false", "seed=0,1"])
    runs = unlearning_runs(plan)
    assert [(one.label, one.variant) for one in runs] == [
        ("finetune seed 0", ""), ("finetune seed 1", ""),
        ("dlfd seed 0", ""), ("dlfd seed 1", ""),
        ("dlfd dynamic=false seed 0", "dynamic=false"),
        ("dlfd dynamic=false seed 1", "dynamic=false"),
    ]  # fmt: skip
    assert [one.config.method.dynamic for one in runs[2:]] == [True, True, False, False]
    assert len({one.config.run.name for one in runs}) == len(runs)


def test_settings_of_synthesis_and_transport_make_variants_too():
    assert labels("method=dlfd", "synthesis.steps=3,7", "ot.reg=0.5") == [
        "dlfd synthesis.steps=3 seed 0", "dlfd synthesis.steps=7 seed 0",
    ]  # fmt: skip


def test_a_variant_that_cannot_be_is_left_out_and_named():
    switches = ["method.distancing=true,false", "method.classification=true,false"]
    plan = comparison_of([*GIVEN, "method=dlfd", *switches])
    assert [config.run.name for config in plan.configs] == [
        "dlfd", "dlfd classification=false", "dlfd distancing=false",
    ]  # fmt: skip
    assert len(plan.left_out) == 1
    assert "distancing=false" in plan.left_out[0]
    assert "method=finetune" in plan.left_out[0]


def test_variants_none_of_which_can_be_are_refused_like_a_single_one():
    with pytest.raises(ConfigError, match="method.lr=-1.* is not allowed"):
        comparison_of([*GIVEN, "method=dlfd", "method.lr=-1,-2"])


# --- what reaches which run


def test_data_are_the_same_in_all_runs():
    plan = comparison_of([*GIVEN, "seed=0,1", "compare.train_seeds=0,5"])
    runs = [*training_runs(plan), *unlearning_runs(plan)]
    assert len({repr(one.config.data) for one in runs}) == 1


def test_a_setting_of_one_method_does_not_reach_the_others():
    given = ["method=finetune,dlfd", "method.forget_weight=7", "method.epochs=2"]
    finetune, dlfd = comparison_of([*GIVEN, *given, "synthesis.steps=3", "ot.reg=0.5"]).configs
    assert (dlfd.method.forget_weight, dlfd.synthesis.steps, dlfd.ot.reg) == (7, 3, 0.5)

    assert (finetune.method.epochs, dlfd.method.epochs) == (2, 2)
    plain = comparison_of([*GIVEN, "method=finetune", "method.epochs=2"]).configs[0]
    assert finetune == plain


@pytest.mark.parametrize("method", SYNTHESISE)
def test_settings_of_synthesis_reach_every_method_that_reads_them(method: str):
    words = [*GIVEN, f"method=finetune,{method}", "synthesis.steps=3", "ot.reg=0.5"]
    finetune, config = comparison_of(words).configs
    assert (config.synthesis.steps, config.ot.reg) == (3, 0.5)
    assert finetune.synthesis.steps != 3


def test_a_setting_of_no_compared_method_is_refused():
    with pytest.raises(ConfigError, match="method=finetune has no setting 'method.forget_weight'"):
        comparison_of([*GIVEN, "method=finetune", "method.forget_weight=7"])


def test_settings_of_compare_reach_no_run():
    words = ([], ["compare.tune=3", "compare.workers=1"])
    asked = [comparison_of([*GIVEN, *more]) for more in words]
    without, given = ([*training_runs(c), *unlearning_runs(c)] for c in asked)
    assert without == given


def test_settings_are_replaced_in_their_sections_alone():
    config = with_settings(JobConfig(), {"method.lr": 0.5, "synthesis.step_size": 0.2})
    assert (config.method.lr, config.synthesis.step_size) == (0.5, 0.2)
    assert with_settings(config, {"method.lr": 1e-3, "synthesis.step_size": 0.05}) == JobConfig()


def test_a_run_waits_for_both_models_of_its_train_seed():
    plan = comparison_of([*GIVEN, "method=finetune", "compare.train_seeds=0,1", "forget.seed=0"])
    names = {"original seed 0": "o0", "original seed 1": "o1", "retrained seed 1": "r1"}
    models = {label: Path(name) for label, name in names.items()}
    ready = with_models(unlearning_runs(plan), models)
    assert [(one.train_seed, one.config.checkpoint, one.config.reference) for one in ready] == [
        (1, "o1", "r1")
    ]


# --- who is forgotten


def draws(*overrides: str) -> dict[str, tuple[int, int | None]]:
    """Return train seed and seed of the draw of the trained models, by label."""
    plan = comparison_of([*GIVEN, "method=finetune", *overrides])
    runs = [*training_runs(plan), *measurement_runs(plan)]
    return {one.label: (one.config.seed, one.config.drawn_forget.seed) for one in runs}


def test_each_seed_forgets_people_of_its_own_and_has_its_own_retrained():
    assert draws("seed=3,4") == {
        "retrained seed 3": (3, 3), "original seed 3": (3, 3),
        "retrained seed 4": (4, 4), "original seed 4": (4, 4),
    }  # fmt: skip


def test_crossed_seeds_retrain_without_every_draw_and_train_original_once():
    found = draws("seed=0,1", "compare.train_seeds=0,7")
    assert found == {
        "retrained seed 0": (0, 0), "retrained seed 0 without draw 1": (0, 1),
        "original seed 0": (0, 0), "original seed 0 on draw 1": (0, 1),
        "retrained seed 7 without draw 0": (7, 0), "retrained seed 7 without draw 1": (7, 1),
        "original seed 7": (7, 0), "original seed 7 on draw 1": (7, 1),
    }  # fmt: skip


@pytest.mark.parametrize(
    "same", [["forget.seed=5"], ["forget.fraction=null", "forget.request=people.txt"]]
)
def test_people_who_are_not_drawn_by_seed_share_a_retrained(same):
    found = draws("seed=0,1", "compare.train_seeds=0,7", *same)
    assert list(found) == [
        "retrained seed 0", "original seed 0", "retrained seed 7", "original seed 7",
    ]  # fmt: skip


def test_a_run_starts_from_the_retrained_that_never_saw_its_people():
    plan = comparison_of([*GIVEN, "method=finetune", "seed=0,1", "compare.train_seeds=0"])
    models = {one.label: Path(one.label) for one in training_runs(plan)}
    runs = [*unlearning_runs(plan), *measurement_runs(plan)]
    starts = {
        one.label: (one.config.checkpoint, one.config.reference)
        for one in with_models(runs, models)
    }
    original, other = "original seed 0", "retrained seed 0 without draw 1"
    assert starts == {
        "finetune seed 0": (original, "retrained seed 0"),
        "finetune seed 1 on train seed 0": (original, other),
        "original seed 0 on draw 1": (original, other),
    }
    assert [one.seed for one in training_runs(plan)] == [0, 1, 0]
    assert len({one.config.run.name for one in [*training_runs(plan), *runs]}) == 6


def test_evaluation_seeds_measure_original_on_every_draw():
    found = draws("seed=0,1", "compare.train_seeds=0", "metrics.seed=0,7")
    assert list(found)[3:] == [
        "retrained seed 0 measured with seed 7",
        "retrained seed 0 without draw 1 measured with seed 7",
        "original seed 0 measured with seed 7",
        "original seed 0 on draw 1",
        "original seed 0 on draw 1 measured with seed 7",
    ]


# --- evaluation seeds


def test_evaluation_seeds_are_an_axis_of_the_methods_and_measure_the_trainings_again():
    words = [
        "method=finetune", "compare.train_seeds=0,1", "seed=4,5", "metrics.seed=0,7",
        "forget.seed=0",
    ]  # fmt: skip
    plan = comparison_of([*GIVEN, *words])
    runs = unlearning_runs(plan)
    axes = [(one.train_seed, one.config.seed, one.config.metrics.seed) for one in runs]
    assert axes == [(t, s, m) for t in (0, 1) for s in (4, 5) for m in (0, 7)]
    assert len({one.label for one in runs}) == len({one.config.run.name for one in runs}) == 8
    assert runs[1].label == "finetune seed 4 on train seed 0 measured with seed 7"
    assert {one.config.metrics.seed for one in training_runs(plan)} == {0}
    assert len(training_runs(plan)) == 4
    again = measurement_runs(plan)
    assert [(one.role, one.train_seed, one.config.metrics.seed) for one in again] == [
        ("retrained", 0, 7), ("original", 0, 7), ("retrained", 1, 7), ("original", 1, 7),
    ]  # fmt: skip
    labels = [one.label for one in training_runs(plan)]
    models = {label: Path(label.replace(" ", "-")) for label in labels}
    ready = [(one.config.checkpoint, one.config.reference) for one in with_models(again, models)]
    assert ready[:2] == [
        ("retrained-seed-0", None), ("original-seed-0", "retrained-seed-0")
    ]  # fmt: skip
    assert again[0].label == "retrained seed 0 measured with seed 7"
    alone = comparison_of([*GIVEN, "method=finetune", "metrics.seed=7"])
    assert [one.config.metrics.seed for one in unlearning_runs(alone)] == [7]
    assert unlearning_runs(alone)[0].label == "finetune seed 0"
    assert measurement_runs(alone) == []
    with pytest.raises(ConfigError, match=r"metrics.seed=-1 is not allowed: it must be >= 0"):
        comparison_of([*GIVEN, "metrics.seed=0,-1"])


# --- contrasts


@pytest.mark.parametrize(
    ("overrides", "pairs"),
    [
        (
            ["method=finetune,scrub,dlfd"],
            [["DLFD", o] for o in ("Original", "Retrained", "Fine-tune", "best other")],
        ),
        (["method=scrub,ssd"], [["SSD", o] for o in ("Original", "Retrained", "best other")]),
        (["method=finetune"], []),
        (
            ["method=scrub,ssd", "compare.contrasts=scrub/original,ssd/scrub"],
            [["SCRUB", "Original"], ["SSD", "SCRUB"]],
        ),
        (
            [
                "method=dlfd", "method.dynamic=true,false",
                "compare.contrasts=['dlfd dynamic=false/dlfd','dlfd/best']",
            ],
            [["DLFD (dynamic=false)", "DLFD"], ["DLFD", "best other"]],
        ),
    ],
)  # fmt: skip
def test_contrasts_are_named_before_the_runs(overrides, pairs):
    plan = comparison_of([*GIVEN, *overrides])
    assert named_contrasts(plan) == {"pairs": pairs, "margin": 0.03}


@pytest.mark.parametrize("pair", ["ssd/dlfd", "dlfd/ssd", "original/dlfd", "best/dlfd"])
def test_a_contrast_of_a_row_that_is_not_there_is_refused(pair):
    with pytest.raises(ConfigError, match=f"compare.contrasts={pair} names '(ssd|original|best)'"):
        comparison_of([*GIVEN, "method=dlfd", f"compare.contrasts={pair}"])
