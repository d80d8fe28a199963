"""benchmarks/comparison.py: the named comparisons can be planned as they stand."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.comparison import FAIR, SETS, SETTINGS
from dlfd_dist.data.label_shares import forget_labels
from dlfd_dist.data.loaders import resolve_rows
from launch.plan.compare import comparison_of
from launch.plan.comparison import unlearning_runs
from launch.plan.contrasts import named_contrasts
from launch.plan.trial_people import trial_draws


@pytest.mark.parametrize(
    ("name", "column", "classes", "images_a_person", "groups"),
    [("utk_age", "age_group", 8, 1, ["gender", "race"]), ("lfw_smile", "smile", 2, 4, [])],
)
def test_a_large_set_is_read_by_its_own_columns(
    tmp_path: Path, name: str, column: str, classes: int, images_a_person: int, groups: list[str]
):
    rng = np.random.default_rng(0)
    Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(tmp_path / "0.jpg")
    with (tmp_path / "metadata.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image_path", "identity", column, *groups, "split"])
        for number in range(800 * images_a_person):
            person = number // images_a_person
            split = "train" if person < 560 else "val" if person < 680 else "test"
            values = [rng.integers(0, 2) for _ in groups]
            label = rng.integers(0, classes)
            rows.writerow(["0.jpg", f"p{person}", label, *values, split])
    chosen = {s.split("=", 1)[0]: s for s in [*FAIR, *SETTINGS[name]]}
    plan = comparison_of([*chosen.values(), f"data.root={tmp_path}"])
    config = plan.configs[0]
    found = resolve_rows(config.data, config.drawn_forget)
    assert found.manifest.num_outputs == classes
    assert list(found.manifest.groups) == groups
    share = {"utk_age": 0.2143, "lfw_smile": 0.2}[name]
    assert len(found.request.lines) == round(share * 560)
    labels = forget_labels(found.manifest, found.splits)
    assert labels is not None
    assert labels.alike


COMPARING = [name for name in sorted(SETTINGS) if not name.endswith("_gate")]
"""A gate holds Original against Retrained alone."""


@pytest.mark.parametrize("name", COMPARING)
def test_all_methods_of_a_comparison_have_equal_steps_and_enough_trials(name: str):
    chosen = {s.split("=", 1)[0]: s for s in [*FAIR, *SETTINGS[name]]}
    plan = comparison_of([*chosen.values(), "data.root=somewhere"])
    assert plan.compare.steps is not None
    assert plan.compare.objective == "gap"
    assert plan.compare.tune == 0 or plan.compare.tune >= 20
    steps = {c.method.steps for c in plan.configs if c.method.name not in ("ssd", "dlfd_official")}
    assert steps == {plan.compare.steps}


@pytest.mark.parametrize("name", SETS)
def test_the_whole_table_names_its_contrasts_and_forgets_other_people_in_each_seed(name: str):
    chosen = {s.split("=", 1)[0]: s for s in [*FAIR, *SETTINGS[f"table_{name}"]]}
    plan = comparison_of([*chosen.values(), "data.root=somewhere"])
    first = [run for run in unlearning_runs(plan) if run.title == plan.configs[0].run.name]
    drawn = [run.config.drawn_forget.seed for run in first]
    assert drawn == [0, 1, 2, 3, 4]
    assert set(trial_draws(plan).values()).isdisjoint(drawn)
    pairs = named_contrasts(plan)["pairs"]
    assert [other for _, other in pairs][:4] == ["Original", "Fine-tune", "GLI", "Reset"]
    assert {subject for subject, _ in pairs} == {"DLFD"}
    official = next(c for c in plan.configs if c.method.name == "dlfd_official")
    official.validate(1)
    # No straw man, and no DLFD at rates that only hide people: both begin with the same schedule.
    starts = {
        c.method.name: (c.train_mode, c.method.lr, c.method.lr_scheduler) for c in plan.configs
    }
    assert starts["dlfd"] == starts["finetune"] == ("sync_bn", 0.05, "cosine_batch")
    assert starts["dlfd_official"][1:] == (0.008, "constant")


@pytest.mark.parametrize("name", sorted(set(SETTINGS) - set(COMPARING)))
def test_a_gate_has_three_seeds_and_nothing_that_is_compared(name: str):
    chosen = {s.split("=", 1)[0]: s for s in [*FAIR, *SETTINGS[name]]}
    plan = comparison_of([*chosen.values(), "data.root=somewhere"])
    assert [config.method.name for config in plan.configs] == ["finetune"]
    assert (len(plan.train_seeds), plan.compare.tune, plan.compare.steps) == (3, 0, None)
