"""What trackers are told, and that a run does not depend on them."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from dlfd_dist import plugins
from dlfd_dist.compose import compose_job
from dlfd_dist.config import JobConfig, signature
from dlfd_dist.errors import ConfigError
from dlfd_dist.jobs import run_job
from dlfd_dist.run_dir import RunDir, read_events
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag
from dlfd_dist.trackers import trackers
from dlfd_dist.trackers.tracking import describe, figures_of, scalars_of, settings_of
from launch.cli import main
from tests.fakes.tiny import TINY
from tests.fakes.trackers import Failing, of_csv


@pytest.fixture
def failing() -> Iterator[type[Failing]]:
    """Return a tracker of the name `failing`; each test says where it fails."""
    Failing.calls, Failing.at = [], "start"
    trackers.register("failing")(Failing)
    yield Failing
    trackers._entries.pop("failing")


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ("[x]", r"^trackers=x is not known\. Available: csv, mlflow, tensorboard, wandb\.$"),
        ("wandbb", r"trackers=wandbb is not known.*Did you mean 'wandb'\?"),
        ("csv,csv", r"trackers=\[csv,csv\] lists csv twice: list it once\."),
    ],
)
def test_a_tracker_that_cannot_be_is_one_sentence(given: str, match: str):
    with pytest.raises(ConfigError, match=match):
        compose_job("train", [*TINY, f"trackers={given}"])


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_library_that_is_not_there_is_said_before_anything_is_trained(
    more: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys
):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "wandb" else found(name, *a)
    )
    words = ["train", *TINY, "trackers=[csv,wandb]", f"run.dir={tmp_path / 'run'}", *more]
    assert main(words) == 2
    assert capsys.readouterr().err == (
        "dlfd: trackers=[wandb] needs a package that is not installed. Install it with: "
        "pip install wandb\n"
    )
    assert not (tmp_path / "run").exists()


def test_commas_part_trackers_and_make_no_grid():
    assert compose_job("train", [*TINY, "trackers=csv,wandb"]).trackers == ["csv", "wandb"]


def test_trackers_make_no_other_run():
    bare, tracked = (compose_job("train", [*TINY, *more]) for more in ((), ("trackers=[csv]",)))
    assert signature(bare, {}) == signature(tracked, {})


def test_hyperparameters_are_numbers_and_choices_alone(tmp_path: Path):
    words = [
        "data=manifest", "data.root=/home/Hedvig Lee", "data.label=hedvig",
        "model.factory=hedvig.nets:build",
        "model.args.who=hedvig", "forget.request=/home/hedvig.txt",
        "checkpoint=/home/hedvig", "method=dlfm",
        "method.reference=manifest", "method.reference_manifest=hedvig.csv",
        "run.name=hedvig", "plugins=[json]",
    ]  # fmt: skip
    found = settings_of(compose_job("unlearn", words))
    assert not [name for name, value in found.items() if "hedvig" in f"{name} {value}".lower()]
    assert found["method.name"] == "dlfm"
    assert "train.lr" not in found
    assert {"seed", "method.lr", "runtime.world_size"} <= found.keys()
    assert not {name for name in found if name.startswith(("forget.", "run.", "plugins"))}


def test_scalars_are_the_numbers_of_an_event():
    step = {"event": "step", "step": 3, "loss": 0.123456, "phase": "repair", "lr": 1e-6}
    assert scalars_of(step) == {"step/loss": 0.123456, "step/lr": 1e-6}
    probe = {"event": "probe", "step": 3, "forget_accuracy": 6 / 7, "nomus": None, "x": True}
    assert scalars_of(probe) == {"probe/forget_accuracy": 0.8571}


def test_figures_are_those_of_the_table():
    result = {
        "nomus": 0.61234, "test_accuracy": None, "signature": "ab", "seed": 3,
        "validation": {"nomus": 0.5}, "num_images": {"forget": 7},
    }  # fmt: skip
    assert figures_of(result) == {"result/nomus": 0.6123, "result/validation.nomus": 0.5}


def test_the_runs_of_one_folder_are_a_group(tmp_path: Path):
    config = compose_job("train", list(TINY))
    alone = RunDir(tmp_path / "runs" / "run-0badcafe")
    alone.path.mkdir(parents=True)
    assert describe(config, alone).group is None
    (tmp_path / "config.yaml").write_text("")
    other = RunDir(tmp_path / "runs" / "run-12345678")
    other.path.mkdir()
    one, two = describe(config, alone), describe(config, other)
    assert one.group == two.group != None  # noqa: E711
    assert one.id != two.id
    assert describe(config, alone) == one
    assert one.shared == tmp_path
    assert "0badcafe" not in json.dumps([one.id, one.name, one.group, dict(one.settings)])


@pytest.mark.parametrize("at", ["start", "log", "end", "close"])
def test_a_tracker_that_fails_is_one_warning_and_the_run_goes_on(
    at: str, failing: type[Failing], tiny: Callable[..., JobConfig], tmp_path: Path, caplog
):
    failing.at = at
    config = tiny("train", "trackers=[failing,csv]", f"run.dir={tmp_path / 'run'}")
    result = run_job(config, Collectives(), StopFlag())
    assert result["num_steps"] == 8
    warnings = [r.getMessage() for r in caplog.records if "tracker" in r.getMessage()]
    assert len(warnings) == 1
    assert warnings[0].endswith("failing failed (OSError): the run goes on without it")
    assert failing.calls.count(at) == 1
    assert [step for step, _ in of_csv(tmp_path / "run")["step/loss"]] == list(range(1, 9))


def test_a_run_with_trackers_is_the_run_without(tiny: Callable[..., JobConfig], tmp_path: Path):
    runs = [RunDir(tmp_path / name) for name in ("bare", "tracked")]
    for run, more in zip(runs, ((), ("trackers=[csv]",)), strict=True):
        run_job(tiny("train", f"run.dir={run.path}", *more), Collectives(), StopFlag())
    bare, tracked = runs
    assert bare.model.read_bytes() == tracked.model.read_bytes()
    times = ("seconds", "wall_seconds", "device_seconds", "peak_memory_mb")
    results = [{k: v for k, v in r.read_result().items() if k not in times} for r in runs]
    assert results[0] == results[1]
    events = [[{**e, "seconds": 0} for e in read_events(r.metrics)] for r in runs]
    assert events[0] == events[1]
    assert not bare.trackers.exists()


def test_a_tracker_of_a_plugin_is_found_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "dlfd_notes.py").write_text(
        "from dlfd_dist.trackers import trackers\n"
        "from tests.fakes.trackers import Failing\n"
        "trackers.register('notes')(Failing)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    point = EntryPoint("notes", "dlfd_notes", "dlfd_dist.trackers")
    monkeypatch.setattr(
        plugins, "offered", lambda setting: {"notes": point} if setting == "trackers" else {}
    )
    assert compose_job("train", [*TINY, "trackers=[notes]"]).trackers == ["notes"]
    with pytest.raises(ConfigError, match="Available: csv, mlflow, notes, tensorboard, wandb"):
        compose_job("train", [*TINY, "trackers=[x]"])
    trackers._entries.pop("notes")
