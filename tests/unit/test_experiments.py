"""configs/experiment, task and scale: published settings, what is compared, and other data."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

import pytest

from dlfd_dist.compose import compose_job, config_text, with_sweep
from dlfd_dist.config import (
    METHOD_CONFIGS,
    DataConfig,
    DLFDConfig,
    ForgetConfig,
    JobConfig,
    MethodConfig,
    signature,
)
from dlfd_dist.data import datasets, mufac
from dlfd_dist.data.forget_request import forget_rows
from dlfd_dist.data.splits import assign_splits
from dlfd_dist.errors import ConfigError, DataError
from dlfd_dist.resources import resource_dir
from launch.plan.campaign import plan_campaign
from launch.plan.compare import comparison_of
from launch.plan.comparison import unlearning_runs
from launch.verbs.compare import run_compare
from tests.fakes.layouts import write_manifest, write_mucac, write_mufac, write_raf_db

EXPERIMENTS = sorted(p.stem for p in (resource_dir("configs") / "experiment").glob("*.yaml"))
TABLES = [name for name in EXPERIMENTS if name != "demo"]
"""Also those that are no paper's."""
OWN = {"gap_against_cost", "dlfm_ablation"}


@functools.cache
def train(*overrides: str) -> JobConfig:
    return compose_job("train", list(overrides))


def dlfd(config: JobConfig) -> DLFDConfig:
    assert isinstance(config.method, DLFDConfig)
    return config.method


def test_there_is_an_experiment_for_every_published_table_and_figure():
    assert set(TABLES) - OWN == {
        "table1_mufac_age", "table1_rafdb_emotion", "table1_mucac_gender",
        "table1_mucac_multilabel", "table2_architectures", "table3_ablation",
        "figure2", "figure4", "figure5", "figure6",
    }  # fmt: skip


# --- published settings


@pytest.mark.parametrize("method", ["dlfd", "dlfd_official"])
def test_mufac_age_has_the_published_settings(method):
    config = train("experiment=table1_mufac_age", f"method={method}")
    data, cfg = config.data, dlfd(config)
    assert (data.name, data.image_size, data.augment) == ("mufac", 128, "mufac")
    assert (data.mean, data.std) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert config.forget.published
    assert (config.model.name, config.model.head, config.model.dropout) == ("resnet18", "mlp", 0.5)
    t = config.train
    assert (t.epochs, t.lr, t.momentum, t.weight_decay) == (100, 0.01, 0.9, 5e-4)
    assert (t.global_batch_size, cfg.global_batch_size) == (32, 32)
    assert (cfg.epochs, cfg.lr, cfg.momentum, cfg.weight_decay) == (1, 0.008, 0.9, 5e-4)
    assert (cfg.clip_norm, cfg.augment) == (None, False)
    assert (cfg.forget_weight, cfg.initial_retain_weight, cfg.final_retain_weight) == (3, 0, 1)
    assert (cfg.forget_threshold, cfg.max_forgetting_score) == (0.15, 0.09)
    assert (cfg.probe_every, cfg.probe_attack, cfg.select) == (1, "mia_paper", "accuracy")
    synthesis = config.synthesis
    assert (synthesis.steps, synthesis.step_size, synthesis.pgd_radius) == (15, 0.4, None)


@pytest.mark.parametrize("method", ["dlfd", "dlfd_official"])
def test_rafdb_emotion_has_the_published_settings(method):
    config = train("experiment=table1_rafdb_emotion", f"method={method}")
    data, cfg = config.data, dlfd(config)
    assert (data.name, data.image_size, data.augment) == ("raf_db", 128, "none")
    assert (data.mean, data.std, data.val_fraction) == ([0.5] * 3, [0.5] * 3, 0.1)
    assert (config.forget.published, config.forget.fraction) == (False, 0.3)
    assert (config.train.epochs, config.train.lr) == (100, 0.01)
    assert (config.train.global_batch_size, cfg.global_batch_size) == (64, 64)
    assert (cfg.epochs, cfg.lr, cfg.momentum, cfg.weight_decay) == (1, 0.006, 0.9, 5e-4)
    assert (cfg.forget_weight, cfg.initial_retain_weight, cfg.final_retain_weight) == (7, 0.5, 1)
    assert (cfg.forget_threshold, cfg.max_forgetting_score) == (0.23, 0.23)
    assert (config.synthesis.steps, config.synthesis.step_size) == (20, 2.0)


@pytest.mark.parametrize(
    ("name", "label", "epochs", "momentum"),
    [
        ("table1_mucac_gender", ["Male"], 10, 0.9),
        ("table1_mucac_multilabel", ["Male", "Smiling", "Young"], 8, 0.0),
    ],
)
def test_mucac_has_the_settings_of_the_benchmark(name, label, epochs, momentum):
    config = train(f"experiment={name}")
    assert (config.data.name, config.data.image_size, config.data.label) == ("mucac", 128, label)
    assert config.forget.published
    t = config.train
    assert (t.epochs, t.lr, t.momentum, t.weight_decay) == (epochs, 0.01, momentum, 0.0)
    assert (t.global_batch_size, config.method.global_batch_size) == (64, 64)


@pytest.mark.parametrize("name", [n for n in TABLES if not n.startswith("table1")])
def test_the_other_tables_and_figures_are_mufac_age(name):
    table1, other = train("experiment=table1_mufac_age"), train(f"experiment={name}")
    for section in ("data", "forget", "model", "train", "method", "synthesis", "ot"):
        assert getattr(other, section) == getattr(table1, section)


@pytest.mark.parametrize("model", ["resnet18", "densenet121", "efficientnet_b0"])
def test_table2_takes_each_architecture(model):
    config = train("experiment=table2_architectures", f"model={model}")
    assert (config.model.name, config.model.head, config.train.epochs) == (model, "mlp", 100)


@pytest.mark.parametrize("part", ["distancing", "classification", "dynamic"])
def test_table3_switches_each_component_off(part):
    whole, without = (train("experiment=table3_ablation", f"method.{part}={v}") for v in (1, 0))
    assert (getattr(whole.method, part), getattr(without.method, part)) == (True, False)


@pytest.mark.parametrize("name", ["figure2", "figure4"])
def test_curves_are_probed_on_the_way(name):
    assert train(f"experiment={name}", "method=neggrad").method.probe_every == 10
    assert train(f"experiment={name}", "method=dlfd").method.probe_every == 1


def test_the_gap_is_that_of_the_last_weights():
    gap = train("experiment=gap_against_cost", "method=dlfm").method
    assert (gap.select, gap.probe_every) == ("last", 10)


def test_figure2_records_the_separation_of_the_features():
    assert [n for n in EXPERIMENTS if train(f"experiment={n}").metrics.separation] == ["figure2"]


@pytest.mark.parametrize(
    ("name", "method"),
    [("table1_mufac_age", method) for method in sorted(METHOD_CONFIGS)]
    + [(name, "scrub") for name in TABLES if name not in ("table1_mufac_age", *OWN)],
)
def test_every_method_keeps_its_own_settings_in_an_experiment(name, method):
    """An experiment sets the batch size and the probes; only DLFD's settings are published."""
    config, alone = (
        train(*given, f"method={method}").method for given in ((f"experiment={name}",), ())
    )
    if not isinstance(config, DLFDConfig):
        for field in ("lr", "epochs", "momentum", "weight_decay", "clip_norm", "select"):
            assert getattr(config, field) == getattr(alone, field)


# --- what an experiment compares


TABLE1 = [
    "finetune", "neggrad", "neggrad_plus", "cf_k", "eu_k", "unsir", "bad_teacher", "scrub",
    "salun", "ssd", "l1_sparse", "dlfd",
]  # fmt: skip
PLANNED = {
    "demo": (["finetune", "dlfd"], 3),
    "table1_mufac_age": ([*TABLE1[:-1], "gli", "dlfd", "dlfd_official"], 3),
    "table1_rafdb_emotion": (TABLE1, 3),
    "table1_mucac_gender": (TABLE1, 3),
    "table1_mucac_multilabel": (TABLE1, 3),
    "table2_architectures": (["finetune", "neggrad", "unsir", "scrub", "dlfd"], 3),
    # With neither distancing nor classification there is nothing to synthesise.
    "table3_ablation": (
        [
            "finetune",
            "dlfd", "dlfd dynamic=false",
            "dlfd classification=false", "dlfd classification=false dynamic=false",
            "dlfd distancing=false", "dlfd distancing=false dynamic=false",
        ],
        3,
    ),
    # With neither quantiles nor features there is nothing to match.
    "dlfm_ablation": (
        ["finetune"]
        + [
            " ".join(["dlfm", *terms, *weight, *reference])
            for terms in ([], ["features=false"], ["quantiles=false"])
            for weight in ([], ["kd_weight=0.0"])
            for reference in ([], ["reference=synthesised"])
        ],
        3,
    ),
    "figure2": (["finetune", "neggrad", "dlfd"], 3),
    "figure4": (["finetune", "neggrad", "scrub", "dlfd"], 3),
    "figure5": (["finetune", "neggrad", "unsir", "scrub", "dlfd"], 1),
    "figure6": (["neggrad", "unsir", "bad_teacher", "dlfd"], 1),
    "gap_against_cost": (
        ["finetune", "eu_k", "unsir", "bad_teacher", "scrub", "salun", "dlfd", "dlfm"], 5,
    ),
}  # fmt: skip
"""Methods and variants, and the number of seeds, of every experiment."""


def dry_run(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    """Return what `dlfd compare ... --dry-run --json` shows."""
    capsys.readouterr()
    assert run_compare([*words, "data=synthetic", "run.dir=out"], dry_run=True, as_json=True) == 0
    return json.loads(capsys.readouterr().out)


def compared(*words: str) -> list[str]:
    plan = comparison_of(with_sweep([*words, "data=synthetic"]))
    return [one.label for one in unlearning_runs(plan)]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_is_one_command(name, capsys):
    names, num_seeds = PLANNED[name]
    # The authors' loop needs as many forgotten images as a batch has.
    shown = dry_run(capsys, f"experiment={name}", "data.synthetic.images_per_identity=20")
    seeds = range(num_seeds)
    models = [f"{role} seed {seed}" for seed in seeds for role in ("retrained", "original")]
    assert shown["runs"] == models + [f"{n} seed {seed}" for n in names for seed in seeds]
    tune, objective = (6, "gap") if name == "gap_against_cost" else (0, "gap")
    assert (shown["compare"]["tune"], shown["compare"]["objective"]) == (tune, objective)


@pytest.mark.parametrize(
    ("words", "labels"),
    [
        (["experiment=figure5", "method=ssd,dlfd"], ["ssd seed 0", "dlfd seed 0"]),
        (["experiment=figure2", "method=dlfd", "seed=7"], ["dlfd seed 7"]),
        (["experiment=figure6", "method=dlfd", "seed=1,2"], ["dlfd seed 1", "dlfd seed 2"]),
        (
            ["experiment=table3_ablation", "method=dlfd", "seed=0", "method.distancing=true",
             "method.classification=true"],
            ["dlfd seed 0", "dlfd dynamic=false seed 0"],
        ),
        (
            # One value takes the place of the two, also where it is not the method's own.
            ["seed=0", "method.dynamic=false", "method.distancing=false",
             "experiment=table3_ablation", "++method.classification=true"],
            ["finetune seed 0", "dlfd seed 0"],
        ),
        (
            ["experiment=figure5", "method=dlfd", "synthesis.steps=3,7"],
            ["dlfd synthesis.steps=3 seed 0", "dlfd synthesis.steps=7 seed 0"],
        ),
    ],
)  # fmt: skip
def test_the_command_line_replaces_what_an_experiment_sweeps_over(words, labels):
    assert compared(*words) == labels


def test_a_setting_given_once_reaches_the_runs():
    words = ["experiment=table3_ablation", "data=synthetic", "method.dynamic=false"]
    finetune, *variants = comparison_of(with_sweep(words)).configs
    assert finetune.method.name == "finetune"
    assert [(dlfd(c).distancing, dlfd(c).classification, dlfd(c).dynamic) for c in variants] == [
        (True, True, False), (True, False, False), (False, True, False),
    ]  # fmt: skip


def test_the_command_line_tunes_otherwise_than_the_experiment(capsys):
    given = ["experiment=gap_against_cost", "method=dlfm", "seed=0,1", "compare.tune=2"]
    shown = dry_run(capsys, *given)
    assert shown["trials"] == ["dlfm trial 0 seed 0", "dlfm trial 1 seed 0"]
    assert (shown["compare"]["tune"], shown["compare"]["objective"]) == (2, "gap")


def test_a_swept_setting_of_none_of_the_given_methods_is_refused_as_on_the_command_line():
    with pytest.raises(ConfigError, match=r"method=\w+ has no setting 'method.distancing'"):
        compared("experiment=table3_ablation", "method=finetune,scrub")


@pytest.mark.parametrize("word", ["experiment=figure2,figure4", "scale=full,smoke"])
def test_several_experiments_are_no_comparison(word):
    with pytest.raises(ConfigError, match=rf"{word.split('=')[0]} lists several values"):
        compared(word)


def test_without_an_experiment_nothing_is_swept():
    assert with_sweep(["method=dlfd", "seed=3"]) == ["method=dlfd", "seed=3"]


# These have the task of table 1 and nothing else of their own but the sweep.
@pytest.mark.parametrize("verb", ["train", "unlearn"])
@pytest.mark.parametrize("name", ["table2_architectures", "table3_ablation", "figure5", "figure6"])
def test_a_single_run_does_not_know_of_the_sweep(verb, name):
    given = ["data=synthetic", "checkpoint=original"] if verb == "unlearn" else ["data=synthetic"]
    config, other = (
        compose_job(verb, [f"experiment={one}", *given]) for one in (name, "table1_mufac_age")
    )
    assert (config.seed, dlfd(config).distancing, dlfd(config).dynamic) == (0, True, True)
    assert config_text(config) == config_text(other)
    assert signature(config, {}) == signature(other, {})
    assert "hydra" not in config_text(config)


SMALL = ["scale=smoke", "cluster=slurm_lab"]


def test_a_submitted_comparison_has_the_runs_of_the_experiment(tmp_path):
    words = [*SMALL, "experiment=figure5", "seed=4", f"run.dir={tmp_path}"]
    campaign = plan_campaign("compare", words)
    names, _ = PLANNED["figure5"]
    assert {run.label for run in campaign.runs} == {
        f"{name} seed 4" for name in ["original", "retrained", *names]
    }
    # Its jobs plan from these words: they hold the sweep, whatever becomes of the file.
    again = comparison_of(campaign.words)
    assert [config.run.name for config in again.configs] == names


def test_a_submitted_unlearning_is_one_method(tmp_path):
    words = [*SMALL, "experiment=table3_ablation", f"run.dir={tmp_path}"]
    campaign = plan_campaign("unlearn", words)
    assert {run.label for run in campaign.runs} == {
        "original seed 0", "retrained seed 0", "dlfd seed 0",
    }  # fmt: skip


# --- the settings of the methods


@pytest.mark.parametrize("method", sorted(set(METHOD_CONFIGS) - {"dlfd", "dlfd_official"}))
def test_defaults_of_a_methods_own_settings_are_those_of_its_yaml(method):
    cls = METHOD_CONFIGS[method]
    config, defaults = train(f"method={method}").method, cls()
    for field in set(cls.__dataclass_fields__) - set(MethodConfig.__dataclass_fields__):
        assert getattr(config, field) == getattr(defaults, field), field


@pytest.mark.parametrize("method", sorted(METHOD_CONFIGS))
def test_a_method_names_the_source_of_its_settings(method):
    text = (resource_dir("configs") / "method" / f"{method}.yaml").read_text()
    assert re.search(r"^# .*(20\d\d|at [0-9a-f]{7})", text, re.MULTILINE)


# --- other data


@pytest.mark.parametrize(
    ("name", "data"),
    [(name, "manifest") for name in TABLES]
    + [
        (name, data)
        for name in TABLES
        if name.startswith("table1")
        for data in ("synthetic", "orl", "image_folder")
    ],
)
def test_other_data_keeps_the_settings_of_the_experiment(name, data):
    config, own = train(f"experiment={name}", f"data={data}"), train(f"experiment={name}")
    assert (config.data.name, config.data.label) == (data, ["label"])
    assert config.forget.fraction
    assert (config.train, config.method) == (own.train, own.method)


@pytest.mark.parametrize("name", TABLES)
def test_any_manifest_resolves_to_a_forget_set(name, tmp_path):
    root = write_manifest(tmp_path)
    config = train(f"experiment={name}", "data=manifest", f"data.root={root}")
    manifest = datasets.get("manifest")(config.data)
    found = forget_rows(config.drawn_forget, manifest, assign_splits(manifest, config.data))
    assert len(found.rows) > 0


@pytest.mark.parametrize("name", TABLES)
def test_a_request_of_ones_own_replaces_the_published_one(name):
    config = train(
        f"experiment={name}", "forget.request=mine.txt", "forget.published=false",
        "forget.fraction=null",
    )  # fmt: skip
    assert config.forget == ForgetConfig(request="mine.txt")


# --- published forget sets


def published(name: str, root: Path, **settings: float) -> list[str]:
    cfg = DataConfig(name=name, root=str(root))
    manifest = datasets.get(name)(cfg)
    forget = ForgetConfig(published=True, **settings)  # type: ignore[arg-type]
    rows = forget_rows(forget, manifest, assign_splits(manifest, cfg)).rows
    return [manifest.image_paths[i] for i in rows]


def test_mufac_forgets_its_first_training_rows(tmp_path, monkeypatch):
    assert mufac.NUM_FORGET == 1500
    monkeypatch.setattr(mufac, "NUM_FORGET", 2)
    assert published("mufac", write_mufac(tmp_path)) == [
        "train_images/F0001_AGE_D_18_a1.jpg",
        "train_images/F0001_AGE_D_18_c2.jpg",
    ]


def test_a_small_mufac_forgets_no_more_than_its_training_rows(tmp_path):
    assert all(p.startswith("train_") for p in published("mufac", write_mufac(tmp_path)))


def test_mucac_forgets_the_identities_190_to_1249(tmp_path):
    root = write_mucac(tmp_path)
    lines = ["0.jpg 189", "1.jpg 190", "2.jpg 1249", "3.jpg 1250", "4.jpg 4855"]
    (root / "CelebA-HQ-identity.txt").write_text("\n".join(lines) + "\n")
    folder = "CelebAMask-HQ/CelebA-HQ-img"
    assert published("mucac", root) == [f"{folder}/1.jpg", f"{folder}/2.jpg"]


def test_without_a_published_set_the_fraction_counts_or_is_asked_for(tmp_path):
    root = write_raf_db(tmp_path)
    assert len(published("raf_db", root, fraction=0.5, seed=0)) == 12
    with pytest.raises(DataError, match=r"no forget set was published with RAF-DB. Give forget.fr"):
        published("raf_db", root)


def test_a_request_and_the_published_set_exclude_each_other():
    with pytest.raises(ConfigError, match=r"forget.request and forget.published are both set"):
        ForgetConfig(request="mine.txt", published=True)


# --- scale=smoke


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_smoke_is_small_whatever_the_experiment(name):
    config = train(f"experiment={name}", "scale=smoke")
    assert (config.data.name, config.data.image_size) == ("synthetic", 32)
    assert config.train.max_steps == config.method.max_steps == 4
    # And the command line still has the last word.
    config = train(f"experiment={name}", "scale=smoke", "data=orl", "train.max_steps=3")
    assert (config.data.name, config.train.max_steps) == ("orl", 3)


def test_smoke_compares_every_method_on_one_seed_without_trials(capsys):
    words = ["experiment=gap_against_cost", "scale=smoke"]
    names, _ = PLANNED["gap_against_cost"]
    shown = dry_run(capsys, *words)
    assert shown["runs"][2:] == [f"{name} seed 0" for name in names]
    assert shown["trials"] == []
    # And the command line still has the last word.
    shown = dry_run(capsys, *words, "method=ssd", "seed=0,1", "compare.tune=2")
    assert shown["runs"][4:] == ["ssd seed 0", "ssd seed 1"]
    assert len(shown["trials"]) == 2


def test_unknown_scale_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"scale=tiny is not known. Available: full, smoke"):
        train("scale=tiny")
