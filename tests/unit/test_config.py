"""config.py: the rules of every section, rules across sections, and what makes a run another."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from dlfd_dist.config import (
    METHOD_CONFIGS,
    DataConfig,
    DLFDConfig,
    ForgetConfig,
    JobConfig,
    MethodConfig,
    MetricsConfig,
    ModelConfig,
    RunConfig,
    RuntimeConfig,
    SynthesisConfig,
    SyntheticFacesConfig,
    TrainConfig,
    TransportConfig,
    given_settings,
    signature,
    to_dict,
)
from dlfd_dist.config.job import NOT_IN_SIGNATURE
from dlfd_dist.errors import ConfigError

NAN = float("nan")
SGD = [
    ({"lr": 0.0}, r"lr=0.0 is not allowed: it must be above 0"),
    ({"lr": NAN}, r"lr=nan is not allowed"),
    ({"momentum": 1.0}, r"momentum=1.0 is not allowed: it must be at least 0 and below 1"),
    ({"momentum": -0.1}, r"momentum=-0.1"),
    ({"weight_decay": -1e-4}, r"weight_decay=-0.0001"),
    ({"epochs": 0}, r"epochs=0"),
    ({"global_batch_size": 0}, r"global_batch_size=0"),
    ({"clip_norm": 0.0}, r"clip_norm=0.0 .* above 0, or null for none"),
    ({"max_steps": 0}, r"max_steps=0 .* >= 1, or null for all"),
    ({"lr_scheduler": "cosin"}, r"lr_scheduler=cosin .* constant, cosine.* Did you mean 'cosine'"),
]
REFUSED: list[tuple[type, dict[str, Any], str]] = [
    (SyntheticFacesConfig, {"num_identities": 4}, r"data.synthetic.num_identities=4 .* >= 5"),
    (SyntheticFacesConfig, {"images_per_identity": 0}, r"data.synthetic.images_per_identity=0"),
    (SyntheticFacesConfig, {"num_expressions": 1}, r"data.synthetic.num_expressions=1 .* 2 and 8"),
    (SyntheticFacesConfig, {"num_expressions": 9}, r"data.synthetic.num_expressions=9"),
    (SyntheticFacesConfig, {"seed": -1}, r"data.synthetic.seed=-1"),
    (DataConfig, {"label": []}, r"data.label=\[\] .* at least one column"),
    (DataConfig, {"image_size": 7}, r"data.image_size=7 .* between 8 and 1024"),
    (DataConfig, {"image_size": 1025}, r"data.image_size=1025"),
    (DataConfig, {"mean": [0.5]}, r"data.mean=\[0.5\] .* three numbers"),
    (DataConfig, {"std": [0.5, 0.5]}, r"data.mean=.* three numbers, as data.std"),
    (DataConfig, {"std": [0.2, 0.0, 0.2]}, r"data.std=.* positive"),
    (DataConfig, {"augment": "flipp"}, r"data.augment=flipp .* Did you mean 'flip'"),
    (DataConfig, {"augment_groups": 0}, r"data.augment_groups=0"),
    (DataConfig, {"val_fraction": 0.0}, r"data.val_fraction=0.0 .* above 0 and below 0.5"),
    (DataConfig, {"test_fraction": 0.5}, r"data.test_fraction=0.5"),
    (DataConfig, {"split_seed": -1}, r"data.split_seed=-1"),
    (ModelConfig, {"head": "mpl"}, r"model.head=mpl .* linear, mlp.* Did you mean 'mlp'"),
    (ModelConfig, {"dropout": 1.0}, r"model.dropout=1.0"),
    (ModelConfig, {"dropout": -0.1}, r"model.dropout=-0.1"),
    (ForgetConfig, {"request": "a.csv", "fraction": 0.2}, r"both set: give the request file or"),
    (ForgetConfig, {"fraction": 0.0}, r"forget.fraction=0.0"),
    (ForgetConfig, {"fraction": 1.0}, r"forget.fraction=1.0"),
    (ForgetConfig, {"seed": -1}, r"forget.seed=-1"),
    *[(TrainConfig, bad, rf"train\.{message}") for bad, message in SGD],
    (TrainConfig, {"on": "retained"}, r"train.on=retained .* all, retain.* Did you mean 'retain'"),
    (TrainConfig, {"patience": 0}, r"train.patience=0 .* or null for never"),
    (TrainConfig, {"patience": 3}, r"train.patience=3 .* train.select=last.*train.select=best"),
    (TrainConfig, {"select": "bets"}, r"train.select=bets .* last, best.* Did you mean 'best'"),
    (MethodConfig, {"lr_scheduler": "linear"}, r"linear .* one of constant, cosine, cosine_batch"),
    *[(MethodConfig, bad, rf"method\.{message}") for bad, message in SGD],
    (MethodConfig, {"select": "best"}, r"method.select=best .* last, accuracy, nomus"),
    (
        MethodConfig,
        {"probe_attack": "mia_papr"},
        r"method.probe_attack=.* Did you mean 'mia_paper'",
    ),
    (MethodConfig, {"probe_every": 0}, r"method.probe_every=0 .* or null"),
    (MethodConfig, {"max_forgetting_score": 0.6}, r"method.max_forgetting_score=0.6 .* 0 and 0.5"),
    *[(DLFDConfig, bad, rf"method\.{message}") for bad, message in SGD],
    (DLFDConfig, {"forget_threshold": 0.51}, r"method.forget_threshold=0.51"),
    (DLFDConfig, {"forget_threshold": -0.1}, r"method.forget_threshold=-0.1"),
    (DLFDConfig, {"forget_weight": -1.0}, r"method.forget_weight=-1.0"),
    (DLFDConfig, {"initial_retain_weight": -1.0}, r"method.initial_retain_weight=-1.0"),
    (DLFDConfig, {"final_retain_weight": NAN}, r"method.final_retain_weight=nan"),
    (SynthesisConfig, {"steps": 0}, r"synthesis.steps=0"),
    (SynthesisConfig, {"step_size": 0.0}, r"synthesis.step_size=0.0"),
    (SynthesisConfig, {"pgd_radius": 0.0}, r"synthesis.pgd_radius=0.0 .* above 0, or null"),
    (SynthesisConfig, {"layer": "feature"}, r"synthesis.layer=.* Did you mean 'features'"),
    (SynthesisConfig, {"save": -1}, r"synthesis.save=-1"),
    (TransportConfig, {"cost": "cosinus"}, r"ot.cost=cosinus .* Did you mean 'cosine'"),
    (TransportConfig, {"solver": "emd"}, r"ot.solver=emd .* auto, exact, entropic"),
    (TransportConfig, {"scope": "local"}, r"ot.scope=local .* global, rank"),
    (TransportConfig, {"reg": 0.0}, r"ot.reg=0.0"),
    (TransportConfig, {"max_iter": 0}, r"ot.max_iter=0"),
    (TransportConfig, {"lag": 2}, r"ot.lag=2 is not allowed: it must be 0 or 1"),
    (TransportConfig, {"lag": -1}, r"ot.lag=-1"),
    (TransportConfig, {"lag": 1, "solver": "entropic"}, r"ot.lag=1 .* ot.solver=exact"),
    (MetricsConfig, {"eval_batch_size": 0}, r"metrics.eval_batch_size=0 .* or null"),
    (MetricsConfig, {"num_bootstrap": 0}, r"metrics.num_bootstrap=0"),
    (MetricsConfig, {"seed": -1}, r"metrics.seed=-1"),
    (RuntimeConfig, {"world_size": 0}, r"runtime.world_size=0"),
    (RuntimeConfig, {"device": "gpu"}, r"runtime.device=gpu .* auto, cpu, cuda"),
    (RuntimeConfig, {"dtype": "float16"}, r"runtime.dtype=float16 .* Did you mean 'float"),
    (RuntimeConfig, {"autocast": "bf16"}, r"runtime.autocast=bf16"),
    (RuntimeConfig, {"dtype": "float64", "autocast": "bfloat16"}, r"needs runtime.dtype=float32"),
    (RuntimeConfig, {"threads_per_rank": 0}, r"runtime.threads_per_rank=0 .* or null"),
    (RuntimeConfig, {"init_timeout_s": 0}, r"runtime.init_timeout_s=0"),
    (RuntimeConfig, {"collective_timeout_s": -1}, r"runtime.collective_timeout_s=-1"),
    (RunConfig, {"checkpoint_every": 0}, r"run.checkpoint_every=0"),
    (RunConfig, {"keep_checkpoints": 0}, r"run.keep_checkpoints=0"),
    (RunConfig, {"log_every_s": 0.0}, r"run.log_every_s=0.0"),
]
BORDERS: list[tuple[type, dict[str, Any]]] = [
    (SyntheticFacesConfig, {"num_identities": 5, "num_expressions": 8}),
    (DataConfig, {"image_size": 8, "val_fraction": 0.49}),
    (ModelConfig, {"dropout": 0.0}),
    (ForgetConfig, {"fraction": 0.99}),
    (
        TrainConfig,
        {"momentum": 0.0, "weight_decay": 0.0, "clip_norm": None, "patience": 1, "select": "best"},
    ),
    (MethodConfig, {"max_forgetting_score": 0.0, "probe_every": 1, "max_steps": 1}),
    (DLFDConfig, {"forget_threshold": 0.5, "forget_weight": 0.0, "final_retain_weight": 0.0}),
    (SynthesisConfig, {"steps": 1, "pgd_radius": None, "save": 0}),
    (TransportConfig, {"lag": 1, "solver": "exact"}),
    (RuntimeConfig, {"dtype": "float64", "autocast": "none", "threads_per_rank": None}),
]


def _id(value: object) -> str:
    if isinstance(value, type):
        return value.__name__
    return ",".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "-"


@pytest.mark.parametrize(("section", "values", "message"), REFUSED, ids=_id)
def test_section_refuses_value_and_names_the_setting_as_the_user_writes_it(
    section, values, message
):
    with pytest.raises(ConfigError, match=message):
        section(**values)


@pytest.mark.parametrize(("section", "values"), BORDERS, ids=_id)
def test_section_takes_the_border_of_its_range(section, values):
    held = to_dict(section(**values))
    assert {name: held[name] for name in values} == values


@pytest.mark.parametrize("section", [JobConfig, DataConfig, DLFDConfig, RunConfig])
def test_sections_are_frozen(section):
    name = dataclasses.fields(section)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError, match=name):
        setattr(section(), name, "other")


@pytest.mark.parametrize("name", METHOD_CONFIGS)
def test_every_method_has_the_common_settings(name):
    assert issubclass(METHOD_CONFIGS[name], MethodConfig)


@pytest.mark.parametrize(
    ("forget", "given"),
    [
        (ForgetConfig(), False),
        (ForgetConfig(fraction=0.1), True),
        (ForgetConfig(request="r.csv"), True),
    ],
)
def test_forget_is_given_by_a_request_or_a_fraction(forget, given):
    assert forget.given is given


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"verb": "trian"}, r"verb=trian .* Did you mean 'train'"),
        ({"seed": -1}, r"seed=-1"),
        ({"train_mode": "sync"}, r"train_mode=sync .* frozen, sync_bn"),
        ({"verb": "unlearn"}, r"'dlfd unlearn' needs checkpoint=PATH"),
        ({"verb": "evaluate"}, r"'dlfd evaluate' needs checkpoint=PATH"),
        ({"verb": "unlearn", "checkpoint": "m.pth"}, r"Nobody to forget: give forget.request"),
        ({"train": TrainConfig(on="retain")}, r"Nobody to forget"),
    ],
)
def test_job_refuses_contradicting_sections(values, message):
    with pytest.raises(ConfigError, match=message):
        JobConfig(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"verb": "train"},
        {"verb": "train", "train": TrainConfig(on="retain"), "forget": ForgetConfig(fraction=0.2)},
        {"verb": "evaluate", "checkpoint": "m.pth"},
        {"verb": "unlearn", "checkpoint": "m.pth", "forget": ForgetConfig(request="r.csv")},
    ],
)
def test_job_takes_what_each_verb_needs(values):
    assert JobConfig(**values).verb == values["verb"]


def _unlearn(**values: Any) -> JobConfig:
    base: dict[str, Any] = {
        "verb": "unlearn",
        "checkpoint": "m.pth",
        "forget": ForgetConfig(fraction=0.2),
        "method": DLFDConfig(),
    }
    return JobConfig(**{**base, **values})


@pytest.mark.parametrize(
    ("config", "world_size", "message"),
    [
        (
            JobConfig(train=TrainConfig(global_batch_size=2)),
            3,
            r"world_size=3 is larger than train.global_batch_size=2",
        ),
        (
            _unlearn(method=DLFDConfig(global_batch_size=2)),
            3,
            r"world_size=3 is larger than method.global_batch_size=2",
        ),
        (
            _unlearn(
                method=DLFDConfig(name="dlfd_official", probe_every=1),
                synthesis=SynthesisConfig(layer="logits"),
            ),
            2,
            r"runs on one rank only, not 2",
        ),
    ],
)
def test_validate_refuses_a_world_size_that_does_not_fit(config, world_size, message):
    config.validate(world_size - 1)
    with pytest.raises(ConfigError, match=message):
        config.validate(world_size)


def test_validate_lets_many_ranks_evaluate_whatever_the_batch_size():
    config = JobConfig(verb="evaluate", checkpoint="m.pth", train=TrainConfig(global_batch_size=1))
    config.validate(64)


INPUTS = {"data": "aa", "request": "bb"}
JOBS = {
    "train": JobConfig(),
    "unlearn": _unlearn(),
    "evaluate": JobConfig(verb="evaluate", checkpoint="m.pth"),
}


def changed(config: JobConfig, setting: str, value: Any) -> JobConfig:
    """Return the configuration with one setting, written as section.name, replaced."""
    *sections, name = setting.split(".")
    if not sections:
        return dataclasses.replace(config, **{name: value})
    section = getattr(config, sections[0])
    inner = (
        changed(section, ".".join([*sections[1:], name]), value)
        if sections[1:]
        else dataclasses.replace(section, **{name: value})
    )
    return dataclasses.replace(config, **{sections[0]: inner})


def test_signature_is_8_hex_digits_and_the_same_for_equal_configurations():
    one = signature(_unlearn(), INPUTS)
    assert len(one) == 8
    assert int(one, 16) >= 0
    assert one == signature(_unlearn(), dict(reversed(INPUTS.items())))


@pytest.mark.parametrize("verb", JOBS)
@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("runtime.world_size", 4),
        ("runtime.device", "cpu"),
        ("runtime.cuda_graphs", True),
        ("runtime.threads_per_rank", 3),
        ("runtime.init_timeout_s", 7),
        ("runtime.collective_timeout_s", 7),
        ("run.name", "other"),
        ("run.root", "/elsewhere"),
        ("run.dir", "/elsewhere/run"),
        ("run.checkpoint_every", 3),
        ("run.keep_checkpoints", 5),
        ("run.log_every_s", 1.0),
        ("metrics.eval_batch_size", 3),
        ("data.root", "/moved"),
        ("data.cache_dir", "/scratch"),
        # The digest of the request says who was drawn.
        ("forget.seed", 1),
    ],
)
def test_signature_leaves_out_what_must_not_change_results(verb, setting, value):
    config = JOBS[verb]
    other = changed(config, setting, value)
    assert other != config
    assert signature(other, INPUTS) == signature(config, INPUTS)


@pytest.mark.parametrize("verb", JOBS)
@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("seed", 1),
        ("data.image_size", 32),
        ("data.label", ["age"]),
        ("data.split_seed", 1),
        ("data.synthetic.seed", 1),
        ("model.name", "vit_b_16"),
        ("model.dropout", 0.1),
        ("metrics.seed", 1),
        ("metrics.num_bootstrap", 7),
        ("runtime.dtype", "float64"),
        ("runtime.autocast", "bfloat16"),
        ("runtime.channels_last", True),
    ],
)
def test_signature_changes_with_what_changes_results(verb, setting, value):
    config = JOBS[verb]
    assert signature(changed(config, setting, value), INPUTS) != signature(config, INPUTS)


@pytest.mark.parametrize("verb", JOBS)
@pytest.mark.parametrize(
    ("setting", "value", "read_by"),
    [
        ("train.lr", 0.5, "train"),
        ("train.epochs", 3, "train"),
        ("method.lr", 0.5, "unlearn"),
        ("method.forget_weight", 9.0, "unlearn"),
        ("method.dynamic", False, "unlearn"),
        ("synthesis.steps", 3, "unlearn"),
        ("ot.reg", 0.5, "unlearn"),
        ("train_mode", "sync_bn", "unlearn"),
    ],
)
def test_signature_reads_only_the_sections_of_its_verb(verb, setting, value, read_by):
    config = dataclasses.replace(JOBS[verb], method=DLFDConfig())
    differs = signature(changed(config, setting, value), INPUTS) != signature(config, INPUTS)
    assert differs == (verb == read_by)


@pytest.mark.parametrize(
    "inputs", [{**INPUTS, "data": "cc"}, {**INPUTS, "checkpoint": "dd"}, {"data": "aa"}]
)
def test_signature_changes_with_the_digests_of_the_inputs(inputs):
    assert signature(_unlearn(), inputs) != signature(_unlearn(), INPUTS)


def test_signature_reads_files_by_digest_and_not_by_path():
    """A moved checkpoint or request is the same run; giving none or one is not."""
    moved = _unlearn(checkpoint="/elsewhere/m.pth")
    assert signature(moved, INPUTS) == signature(_unlearn(), INPUTS)
    requests = [_unlearn(forget=ForgetConfig(request=name)) for name in ("a.csv", "b.csv")]
    assert signature(requests[0], INPUTS) == signature(requests[1], INPUTS)
    assert signature(_unlearn(reference="r.pth"), INPUTS) != signature(_unlearn(), INPUTS)


def test_runs_from_before_plans_could_lag_keep_their_signature():
    configs = [changed(_unlearn(), "ot.lag", lag) for lag in (0, 1)]
    before, lagged = (given_settings(to_dict(config))["ot"] for config in configs)
    assert lagged == before | {"lag": 1}
    assert "lag" not in before
    assert signature(configs[0], INPUTS) != signature(configs[1], INPUTS)


def test_signature_does_not_change_the_configuration():
    config = _unlearn()
    before = to_dict(config)
    signature(config, INPUTS)
    assert to_dict(config) == before


@pytest.mark.parametrize("section", NOT_IN_SIGNATURE)
def test_left_out_settings_exist(section):
    """A renamed setting must not fall back into the signature unnoticed."""
    held = to_dict(JobConfig())[section]
    assert (NOT_IN_SIGNATURE[section] or set()) <= held.keys()
