"""configs/experiment, task and scale: published settings, other data, and a smoke run of each."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from dlfd_dist.compose import compose_job
from dlfd_dist.config import (
    METHOD_CONFIGS,
    DataConfig,
    DLFDConfig,
    ForgetConfig,
    JobConfig,
    MethodConfig,
)
from dlfd_dist.data import datasets, mufac
from dlfd_dist.data.forget_request import forget_rows
from dlfd_dist.data.splits import assign_splits
from dlfd_dist.errors import ConfigError, DataError
from dlfd_dist.jobs.run import run_job
from dlfd_dist.resources import resource_dir
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag
from launch.comparison.planning import make_plan
from tests.fakes.layouts import write_manifest, write_mucac, write_mufac, write_raf_db

EXPERIMENTS = sorted(p.stem for p in (resource_dir("configs") / "experiment").glob("*.yaml"))
TABLES = [name for name in EXPERIMENTS if name != "demo"]
"""Also those that are no paper's."""
OWN = {"gap_against_cost", "dlfm_ablation"}


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


def test_an_ablation_of_dlfm_has_a_variant_for_every_term_and_reference():
    words = ["method.quantiles=true,false", "method.features=true,false"]
    words += ["method.kd_weight=1.0,0.0", "method.reference=val_split,synthesised"]
    words = ["experiment=dlfm_ablation", "data=synthetic", "method=finetune,dlfm", *words]
    plan = make_plan(words)
    # Without either of the two terms there is nothing to match.
    assert len(plan.configs) == 1 + 12
    gap = train("experiment=gap_against_cost", "method=dlfm").method
    assert (gap.select, gap.probe_every) == ("last", 10)


def test_figure2_records_the_separation_of_the_features():
    assert [n for n in EXPERIMENTS if train(f"experiment={n}").metrics.separation] == ["figure2"]


@pytest.mark.parametrize("method", sorted(METHOD_CONFIGS))
@pytest.mark.parametrize("name", ["table1_mufac_age", "table1_rafdb_emotion", "figure2"])
def test_every_method_keeps_its_own_settings_in_an_experiment(name, method):
    """An experiment sets the batch size and the probes; only DLFD's settings are published."""
    config, alone = (
        train(*given, f"method={method}").method for given in ((f"experiment={name}",), ())
    )
    if not isinstance(config, DLFDConfig):
        for field in ("lr", "epochs", "momentum", "weight_decay", "clip_norm", "select"):
            assert getattr(config, field) == getattr(alone, field)


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


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("data", ["synthetic", "orl", "manifest", "image_folder"])
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
    found = forget_rows(config.forget, manifest, assign_splits(manifest, config.data))
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
    assert len(published("raf_db", root, fraction=0.5)) == 12
    with pytest.raises(DataError, match=r"no forget set was published with RAF-DB. Give forget.fr"):
        published("raf_db", root)


def test_a_request_and_the_published_set_exclude_each_other():
    with pytest.raises(ConfigError, match=r"forget.request and forget.published are both set"):
        ForgetConfig(request="mine.txt", published=True)


# --- scale=smoke


SMOKE = {
    "demo": ["method=l1_sparse"],
    "dlfm_ablation": ["method=dlfm", "method.reference=synthesised"],
    "figure2": ["method=neggrad"],
    "figure4": ["method=salun"],
    "figure5": ["method=unsir"],
    "figure6": ["method=bad_teacher"],
    "gap_against_cost": ["method=dlfm"],
    "table1_mucac_gender": ["method=scrub"],
    "table1_mucac_multilabel": ["method=ssd"],
    "table1_mufac_age": ["method=dlfd"],
    "table1_rafdb_emotion": ["method=dlfd_official"],
    "table2_architectures": ["method=dlfd", "model=efficientnet_b0"],
    "table3_ablation": ["method=dlfd", "method.dynamic=false"],
}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_smoke_runs_an_experiment_end_to_end(name, tmp_path):
    def run(verb: str, directory: str, *overrides: str) -> dict:
        own = SMOKE[name] if verb == "unlearn" else [o for o in SMOKE[name] if "model=" in o]
        config = compose_job(verb, [
            f"experiment={name}", "scale=smoke", "runtime.threads_per_rank=1",
            f"run.dir={tmp_path / directory}", *own, *overrides,
        ])  # fmt: skip
        run_job(config, Collectives(), StopFlag())
        return json.loads((tmp_path / directory / "result.json").read_text())

    run("train", "original", "train.on=all")
    run("train", "retrained", "train.on=retain")
    result = run(
        "unlearn", "unlearned", f"checkpoint={tmp_path / 'original'}",
        f"reference={tmp_path / 'retrained'}",
    )  # fmt: skip
    assert 0 <= result["nomus"] <= 1
    assert np.isfinite(result["test_accuracy"])


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_smoke_is_small_whatever_the_experiment(name):
    config = train(f"experiment={name}", "scale=smoke")
    assert (config.data.name, config.data.image_size) == ("synthetic", 32)
    assert config.train.max_steps == config.method.max_steps == 4
    # And the command line still has the last word.
    config = train(f"experiment={name}", "scale=smoke", "data=orl", "train.max_steps=3")
    assert (config.data.name, config.train.max_steps) == ("orl", 3)


def test_unknown_scale_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"scale=tiny is not known. Available: full, smoke"):
        train("scale=tiny")
