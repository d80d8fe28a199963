"""Methods, models and data sets of other packages."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from dlfd_dist import plugins
from dlfd_dist.compose import compose_job, config_text, job_from_dict, load_config
from dlfd_dist.config import METHOD_CONFIGS, signature, to_dict
from dlfd_dist.data import datasets
from dlfd_dist.errors import ConfigError
from dlfd_dist.jobs import run_job
from dlfd_dist.jobs.plan import plan
from dlfd_dist.methods import methods
from dlfd_dist.models import backbones
from dlfd_dist.registry import Registry
from dlfd_dist.run_dir import RunDir
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag
from tests.fakes.strangers import WORDS

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "plugin"
FACTORIES = (
    "model.factory=tests.fakes.strangers:build",
    "data.factory=tests.fakes.strangers:splits",
)


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example lies on the path, and is gone from every table afterwards."""
    monkeypatch.syspath_prepend(str(EXAMPLE / "src"))
    yield
    methods._entries.pop("random_label", None)
    METHOD_CONFIGS.pop("random_label", None)
    sys.modules.pop("dlfd_random_label", None)


@pytest.fixture
def installed(example: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example's entry point is there, as after an installation."""
    point = EntryPoint("random_label", "dlfd_random_label", "dlfd_dist.methods")
    found = {"method": {"random_label": point}, "model": {}, "data": {}}
    monkeypatch.setattr(plugins, "offered", found.__getitem__)


def test_a_method_by_entry_point_is_like_any_other(installed: None, tmp_path: Path):
    words = ["method=random_label", "method.forget_weight=2", "method.lr=0.01"]
    config = compose_job("train", [*FACTORIES, *words])
    assert to_dict(config.method)["forget_weight"] == 2.0
    assert config.method.lr == 0.01
    assert "random_label" in methods.names()
    file = tmp_path / "config.yaml"
    file.write_text(config_text(config))
    assert load_config(file) == config
    with pytest.raises(ConfigError, match=r"method=random_lable is not known\. .*'random_label'"):
        compose_job("train", ["method=random_lable"])
    with pytest.raises(ConfigError, match=r"'method\.forget_wait' is not known.*forget_weight"):
        compose_job("train", ["method=random_label", "method.forget_wait=1"])


def test_a_method_by_its_module_runs_on_a_node_that_has_the_configuration_alone(
    example: None, tmp_path: Path
):
    words = [*FACTORIES, *WORDS, "method=random_label", f"run.dir={tmp_path / 'run'}"]
    with pytest.raises(ConfigError, match="method=random_label is not known"):
        compose_job("unlearn", [*words, "checkpoint=x"])
    train = compose_job(
        "train", [*FACTORIES, *WORDS, "train.epochs=1", f"run.dir={tmp_path / 'o'}"]
    )
    run_job(train, Collectives(), StopFlag())
    config = compose_job(
        "unlearn", [*words, "plugins=[dlfd_random_label]", f"checkpoint={tmp_path / 'o'}"]
    )
    values = to_dict(config)
    for table, name in ((methods._entries, "random_label"), (METHOD_CONFIGS, "random_label")):
        del table[name]
    del sys.modules["dlfd_random_label"]
    result = run_job(job_from_dict(values), Collectives(), StopFlag())
    assert result["num_steps"] == 3
    inputs = RunDir(tmp_path / "run").identity.read_text()
    assert '"method_code"' in inputs


def test_other_code_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from dlfd_dist.factories import code_digest

    package = tmp_path / "changing"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "nets.py").write_text("from tests.fakes.strangers import build\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    words = ["model.factory=changing.nets:build", FACTORIES[1], *WORDS]
    config = compose_job("train", [*words, f"run.dir={tmp_path / 'run'}"])
    first = plan(config)["signature"]
    assert plan(config)["signature"] == first
    (package / "helpers.py").write_text("x = 1\n")
    code_digest.cache_clear()
    assert plan(config)["signature"] != first
    del sys.modules["changing"], sys.modules["changing.nets"]


def test_where_a_plugin_is_named_makes_no_other_run(example: None):
    words = [*FACTORIES, "method=finetune"]
    bare, named = (compose_job("train", [*words, *more]) for more in ((), ("plugins=[json]",)))
    assert named.plugins == ["json"]
    assert signature(bare, {}) == signature(named, {})


def test_a_run_that_is_only_read_does_not_choose_what_is_imported(tmp_path: Path):
    config = compose_job("train", [*FACTORIES, "plugins=[json]"])
    file = tmp_path / "config.yaml"
    file.write_text(config_text(config).replace("json", "surely_not_there"))
    with pytest.raises(ConfigError, match=r"plugins=\[surely_not_there\], which this command does"):
        load_config(file, plugins=[])
    with pytest.raises(ConfigError, match="cannot be imported"):
        load_config(file, plugins=["surely_not_there"])


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ("[surely_not_there]", "cannot be imported .ModuleNotFoundError.*: install what it needs"),
        ("'os;rm'", r"plugins=\[os;rm\] is no module"),
    ],
)
def test_a_module_that_is_not_there_is_one_sentence(given: str, match: str):
    with pytest.raises(ConfigError, match=match):
        compose_job("train", [f"plugins={given}"])


def test_a_broken_package_is_met_by_its_users_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "brokenplugin.py").write_text("raise RuntimeError('no licence')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    point = EntryPoint("broken", "brokenplugin", "dlfd_dist.methods")
    monkeypatch.setattr(plugins, "offered", lambda kind: {"broken": point})
    assert "broken" in methods.names()
    assert compose_job("train", ["method=scrub"]).method.name == "scrub"
    with pytest.raises(ConfigError, match=r"broken is of the package .*RuntimeError: no licence"):
        compose_job("train", ["method=broken"])


@pytest.mark.parametrize("table", [methods, backbones, datasets])
def test_a_name_is_taken_once(table: Registry):
    with pytest.raises(ConfigError, match="is registered twice: give the plugin another name"):
        table.register(table.names()[0])(object)
