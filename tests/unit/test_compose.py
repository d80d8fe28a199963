"""compose: key=value and YAML to a JobConfig, and every way a user can get it wrong."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlfd_dist.compose import (
    compose_job,
    config_text,
    expand_grid,
    job_from_dict,
    known_settings,
    load_config,
)
from dlfd_dist.compose.typed import build
from dlfd_dist.config import DLFDConfig, JobConfig, MethodConfig, RunConfig, to_dict
from dlfd_dist.errors import ConfigError
from dlfd_dist.registry import Registry, near_match
from dlfd_dist.resources import resource_dir


def round_trip(config: JobConfig, folder: Path) -> JobConfig:
    path = folder / "config.yaml"
    path.write_text(config_text(config), encoding="utf-8")
    return load_config(path)


def test_defaults_are_composed_from_the_groups():
    config = compose_job("train", [])
    assert (config.verb, config.data.name, config.model.name) == ("train", "manifest", "resnet18")
    assert isinstance(config.method, DLFDConfig)
    assert (config.method.probe_every, config.method.select) == (1, "nomus")


@pytest.mark.parametrize(
    ("overrides", "section", "name", "value"),
    [
        (["train.lr=1"], "train", "lr", 1.0),
        (["train.lr=1e-3"], "train", "lr", 1e-3),
        (["train.epochs=3"], "train", "epochs", 3),
        (["train.epochs=3", "train.epochs=4"], "train", "epochs", 4),
        (["method.clip_norm=null"], "method", "clip_norm", None),
        (["method.dynamic=false"], "method", "dynamic", False),
        (["data.mean=[0.5,0.5,0.5]"], "data", "mean", [0.5, 0.5, 0.5]),
        (["data.label=young"], "data", "label", ["young"]),
        (["data.label=young,male"], "data", "label", ["young", "male"]),
        (["data.label=[young,male]"], "data", "label", ["young", "male"]),
        (["run.name=007"], "run", "name", "007"),
        (["experiment=demo"], "data", "augment", "face"),
        (["experiment=demo", "data.augment=flip"], "data", "augment", "flip"),
        (["method=dlfd_official"], "synthesis", "layer", "logits"),
    ],
)
def test_override_arrives_with_its_type(overrides, section, name, value):
    found = getattr(getattr(compose_job("train", overrides), section), name)
    assert found == value
    assert type(found) is type(value)


def test_settings_of_a_plain_method_are_those_every_method_has():
    config = compose_job("train", ["method=finetune"])
    assert type(config.method) is MethodConfig
    assert config.method.augment is True


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.epoch=3"], r"'train.epoch' is not known. Did you mean 'train.epochs'"),
        (["ot.sinkhorn_rex=3"], r"'ot.sinkhorn_rex' is not known"),
        (["zzzz=3"], r"'zzzz' is not known. 'dlfd train --dry-run' prints every setting"),
        (["metod=dlfd"], r"'metod' is not known. Did you mean 'method'"),
        (["train={epochs: 3}"], r"The setting 'train' is not known"),
        (["hydra.run.dir=x"], r"The setting 'hydra.run.dir' is not known"),
        (
            ["method=scrubb"],
            r"method=scrubb is not known. Available: amun, bad_.* Did you mean 'scrub'",
        ),
        (["method=dlfdd"], r"method=dlfdd is not known.* Did you mean 'dlfd'"),
        (["model=resnet"], r"model=resnet is not known.* Did you mean 'resnet18'"),
        (["data=mufacc"], r"data=mufacc is not known.* Did you mean 'mufac'"),
        (["experiment=nope"], r"experiment=nope is not known. Available: demo"),
        (["data=null"], r"data=None is not known"),
        (["method=null"], r"method=None is not known"),
        (["experiment=null"], r"experiment=None is not known. Available: demo"),
        (["method={name: dlfd}"], r"method=.* is not known"),
        (
            ["method=finetune", "method.distancing=true"],
            r"method=finetune has no setting 'method.distancing', which belongs to method=dlfd,dlf",
        ),
        (["train.lr=fast"], r"train.lr: Value 'fast' of type 'str' could not be converted to Flo"),
        (["train.epochs=1.5"], r"train.epochs: Value '1.5'"),
        (["seed=true"], r"seed: Value 'True' of type 'bool'"),
        (["run.name=null"], r"run.name: Incompatible value 'None'"),
        (["data.synthetic.seed=x"], r"data.synthetic.seed: Value 'x'"),
        (["train.lr=-1"], r"train.lr=-1.0 is not allowed"),
        (["train.lr"], r"'train.lr' is not understood: settings are written key=value"),
        (["~train.lr"], r"'~train.lr' is not understood"),
        (["run.name=/tmp/a=b"], r"quote values with special characters"),
        (["run.name=/ä/ü"], r"quote values with special characters"),
        (["seed=1,2"], r"seed=1,2 lists several values, but 'dlfd train' is one run"),
        (["train.lr=range(1,3)"], r"lists several values"),
        (["run.name=/a/${nothing}"], r"could not be composed: Interpolation key 'nothing'"),
        (["data.root=/a/${nothing}"], r"names the environment variable nothing, which is not set"),
    ],
)
def test_wrong_override_is_refused_with_the_name_the_user_wrote(overrides, message):
    with pytest.raises(ConfigError, match=message):
        compose_job("train", overrides)


def test_unknown_verb_has_a_near_match():
    with pytest.raises(ConfigError, match=r"verb=unlern .* Did you mean 'unlearn'"):
        compose_job("unlern", [])


def test_known_settings_are_those_of_the_chosen_method():
    common, dlfd = set(known_settings(MethodConfig)), set(known_settings(DLFDConfig))
    assert {"method.forget_weight", "method.dynamic"} <= dlfd - common
    assert {"seed", "data.synthetic.seed", "ot.reg"} <= common <= dlfd


@pytest.mark.parametrize(
    ("overrides", "points"),
    [
        ([], [[]]),
        (["seed=0"], [["seed=0"]]),
        (
            ["method=dlfd,finetune", "train.lr=1", "seed=0,1"],
            [
                ["method=dlfd", "train.lr=1", "seed=0"],
                ["method=dlfd", "train.lr=1", "seed=1"],
                ["method=finetune", "train.lr=1", "seed=0"],
                ["method=finetune", "train.lr=1", "seed=1"],
            ],
        ),
        (["seed=range(0,3)"], [["seed=0"], ["seed=1"], ["seed=2"]]),
        (["data.label=a,b"], [["data.label=a,b"]]),
        (["data.mean=[1,2,3]"], [["data.mean=[1,2,3]"]]),
        (["run.name='a,b'"], [["run.name='a,b'"]]),
        (['run.name="a b","c d"'], [['run.name="a b"'], ['run.name="c d"']]),
    ],
)
def test_grid_expands_comma_lists_in_order(overrides, points):
    assert expand_grid(overrides) == points


@pytest.mark.parametrize("override", ["train.lr=interval(0,1)", "model=glob(*)"])
def test_grid_refuses_what_has_no_list_of_values(override):
    with pytest.raises(ConfigError, match="cannot be listed: write the values with commas"):
        expand_grid([override])


def test_points_of_a_grid_of_quoted_values_compose():
    names = [
        compose_job("train", point).run.name for point in expand_grid(['run.name="a b","c\'d"'])
    ]
    assert names == ["a b", "c'd"]


HOSTILE = [
    "a folder",
    "it's",
    'say "hi"',
    "/tmp/größe/写真/ü.csv",
    "$HOME/$x",
    "/a/{b}/{c}",
    "a=b",
    "a, b",
    "- a: b # c",
    "1e5",
    "007",
    "null",
    "true",
    "~",
    "2020-01-01",
    "[x]",
    "a\nb",
    "emoji 😀",
    " padded ",
    "",
]


def quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_value_survives_command_line_and_file(value, tmp_path):
    config = compose_job("train", [f"run.name={quoted(value)}", f"data.root={quoted(value)}"])
    assert (config.run.name, config.data.root) == (value, value)
    assert round_trip(config, tmp_path) == config


@given(
    value=st.text(
        st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufeff\u2028\u2029"),
        max_size=20,
    ).filter(lambda s: "${" not in s)
)
@settings(max_examples=50, deadline=None)
def test_any_text_survives_the_file(value, tmp_path_factory):
    config = JobConfig(run=RunConfig(name=value))
    assert round_trip(config, tmp_path_factory.mktemp("any")).run.name == value


@pytest.mark.parametrize("verb", ["train", "unlearn", "evaluate"])
@pytest.mark.parametrize("method", ["dlfd", "dlfd_official", "finetune"])
def test_round_trip_through_the_file_keeps_every_value_and_type(verb, method, tiny, tmp_path):
    config = tiny(verb, f"method={method}", "checkpoint=m.pth", "method.lr=3e-7", "train.lr=1")
    again = round_trip(config, tmp_path)
    assert again == config
    assert type(again.method) is type(config.method)
    assert repr(to_dict(again)) == repr(to_dict(config))


def test_empty_section_of_a_file_means_its_defaults():
    assert job_from_dict({"verb": "train", "train": None}).train == JobConfig().train


def test_a_label_written_alone_is_a_list_of_one():
    assert job_from_dict({"data": {"label": "young"}}).data.label == ["young"]


def test_the_settings_of_a_class_inside_of_a_function_are_read():
    @dataclasses.dataclass(frozen=True)
    class Mine:
        width: float = 1.0

    assert build(Mine, {"width": 3}, "mine.") == Mine(3.0)
    with pytest.raises(ConfigError, match=r"'mine.widht' is not known. Did you mean 'mine.width'"):
        build(Mine, {"widht": 3}, "mine.")


@pytest.mark.parametrize(
    "word", ["data.label=[a],[b]", "data.groups=[a],[b]", "plugins=[a],[b]", "trackers=[a],[b]"]
)
def test_lists_of_a_list_are_one_sentence(word):
    with pytest.raises(ConfigError, match=r"\[a\],\[b\] is not understood: write \S+=\[a,b\]"):
        compose_job("train", [word])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trian": {}}, r"'trian' is not known. Did you mean 'train'"),
        ({"train": {"epoch": 3}}, r"'train.epoch' is not known. Did you mean 'train.epochs'"),
        ({"data": {"synthetic": {"sed": 3}}}, r"'data.synthetic.sed' is not known"),
        # An attribute that is no setting, with the value that it has.
        ({"names_people": False}, r"'names_people' is not known"),
        ({"model": {"is_ours": True}}, r"'model.is_ours' is not known"),
        ({"method": "dlfd"}, r"method=dlfd is not allowed: 'method' is a section"),
        ({"train": [1]}, r"train=\[1\] is not allowed: 'train' is a section"),
        ({"data": {"synthetic": 3}}, r"data.synthetic=3 is not allowed"),
        ({"method": {"name": ["dlfd"]}}, r"method=\['dlfd'\] is not known"),
        ({"method": {"name": None}}, r"method=None is not known. Available: amun"),
        ({"method": {"name": "dlfdd"}}, r"method=dlfdd is not known.* Did you mean 'dlfd'"),
        ({"seed": None}, r"seed: Incompatible value 'None'"),
        ({"data": {"mean": ["x", 0, 0]}}, r"data.mean\[0\]: Value 'x'"),
        ({"run": {"name": "${seed}"}}, r"run.name=\$\{seed\} is not allowed"),
    ],
)
def test_wrong_value_of_a_file_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        job_from_dict(values)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1", r"is not a configuration: while parsing"),
        (b"a:\n\t- b", r"is not a configuration: while scanning"),
        (b"seed: 1\nseed: 2\n", r"is not a configuration"),
        (b"\x80\xff\x00", r"is not a configuration: 'utf-8' codec"),
        (b"[1, 2]", r"is not a configuration: it holds no settings"),
        (b"only text", r"is not a configuration: it holds no settings"),
    ],
)
def test_unreadable_yaml_is_refused_naming_the_file(content, message, tmp_path):
    path = tmp_path / "con fig.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_a_yaml_tag_is_refused_and_runs_nothing(tmp_path):
    trap, path = tmp_path / "trap", tmp_path / "config.yaml"
    path.write_text(f"seed: !!python/object/apply:os.system ['touch {trap}']\n")
    with pytest.raises(ConfigError, match="could not determine a constructor for the tag"):
        load_config(path)
    assert not trap.exists()


def test_missing_file_and_folder_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"There is no configuration at .*nothing.yaml"):
        load_config(tmp_path / "nothing.yaml")
    with pytest.raises(ConfigError, match="is not a configuration"):
        load_config(tmp_path)


NEEDED = {
    "factory": ["data.factory=mypkg.mine:make", "model.factory=mypkg.mine:make"],
    "timm": ["model.name=resnet18"], "torchvision": ["model.name=resnet50"],
    "huggingface": ["model.folder=."],
}  # fmt: skip
"""What a file of a group cannot do without."""


@pytest.mark.parametrize("group", ["data", "model", "method"])
def test_each_group_file_is_named_as_the_key_it_sets(group):
    for path in (resource_dir("configs") / group).glob("*.yaml"):
        named = [word for word in NEEDED.get(path.stem, []) if word.startswith(f"{group}.")]
        config = compose_job("train", [f"{group}={path.stem}", *named])
        section = getattr(config, group)
        assert path.stem in (section.name, getattr(section, "library", None))


def test_a_resource_that_is_not_installed_is_named():
    with pytest.raises(FileNotFoundError, match="lacks its 'nothing' folder"):
        resource_dir("nothing")


@pytest.mark.parametrize(
    ("name", "hint"), [("scrubb", " Did you mean 'scrub'?"), ("xyz", ""), ("scrub", "'scrub'")]
)
def test_near_match_speaks_only_when_close(name, hint):
    found = near_match(name, ["scrub", "dlfd"])
    assert (hint in found) if hint else (found == "")


def test_registry_lists_its_names_sorted_and_refuses_another():
    table: Registry[int] = Registry("method")
    table.register("scrub")(1)
    table.register("dlfd")(2)
    assert (table.names(), table.get("dlfd")) == (["dlfd", "scrub"], 2)
    with pytest.raises(
        ConfigError, match=r"method=scrap is not known. Available: dlfd, scrub. Did"
    ):
        table.get("scrap")
    with pytest.raises(ConfigError, match="method=dlfd is registered twice"):
        table.register("dlfd")(3)


def test_config_text_holds_every_setting():
    text = config_text(JobConfig())
    for field in dataclasses.fields(JobConfig):
        assert f"{field.name}:" in text
