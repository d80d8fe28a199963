"""Trackers with their real libraries, read back: one run is one run there, each step once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dlfd_dist.config import JobConfig
from dlfd_dist.jobs import run_job
from dlfd_dist.run_dir import RunDir, read_events
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag, StoppedEarly
from dlfd_dist.trackers.tracking import scalars_of, settings_of
from tests.fakes.command_line import Ended, environment
from tests.fakes.stops import StopAfter
from tests.fakes.tiny import TINY
from tests.fakes.trackers import (
    READERS,
    Scalars,
    add,
    mlflow_run,
    tensorboard_tags,
    wandb_file,
    wandb_records,
)

Dlfd = Callable[..., Ended]
ALL = f"trackers=[{','.join(READERS)}]"


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of whoever tests decides where trackers write."""
    for name in list(os.environ):
        if name.startswith(("WANDB_", "MLFLOW_")):
            monkeypatch.delenv(name)


def told(run: RunDir) -> Scalars:
    """Return the scalars of the events that the run itself has kept."""
    found: Scalars = {}
    for event in read_events(run.metrics):
        for name, value in scalars_of(event).items():
            add(found, name, event["step"], value)
    return found


def assert_once(held: Scalars, run: RunDir) -> None:
    """Compare what a tracker holds with what the run has kept, but for the times."""
    wanted = told(run)
    assert {name for name in held if not name.startswith(("result/", "page/"))} == wanted.keys()
    for name, values in wanted.items():
        assert [step for step, _ in held[name]] == [step for step, _ in values], name
        if not name.endswith("seconds"):
            assert [v for _, v in held[name]] == pytest.approx([v for _, v in values], rel=1e-6)
    result = run.read_result()
    ((step, nomus),) = held["result/nomus"]
    assert (step, nomus) == (result["num_steps"], pytest.approx(result["nomus"], abs=1e-4))


@pytest.fixture(scope="module")
def resumed(trained: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run with every tracker that was stopped after steps 2 and 5, and lost the later checkpoint.

    Its trackers had been told of three steps that it then took again, as after a kill.
    """
    from dlfd_dist.compose import compose_job

    path = tmp_path_factory.mktemp("tracked") / "run"
    words = [
        *TINY, f"checkpoint={trained()}", "method=finetune", "method.probe_every=2",
        "method.epochs=2", ALL, "run.checkpoint_every=1000", f"run.dir={path}",
    ]  # fmt: skip
    config: JobConfig = compose_job("unlearn", words)
    run, kept = RunDir(path), path.with_name("checkpoints after step 2")
    with pytest.raises(StoppedEarly):
        run_job(config, Collectives(), StopAfter(2))
    shutil.copytree(run.checkpoints, kept)
    with pytest.raises(StoppedEarly):
        run_job(config, Collectives(), StopAfter(3))
    shutil.rmtree(run.checkpoints)
    kept.rename(run.checkpoints)
    run_job(config, Collectives(), StopFlag())
    return run


@pytest.mark.parametrize("name", READERS)
def test_a_resumed_run_is_one_run_with_each_step_once(name: str, resumed: RunDir):
    assert_once(READERS[name](resumed.path), resumed)


def test_tensorboard_shows_curves_hyperparameters_and_pictures(resumed: RunDir):
    tags = tensorboard_tags(resumed.path)
    assert {"step/loss", "probe/nomus", "result/nomus"} <= set(tags["scalars"])
    assert tags["images"]
    assert all(tag.startswith("page/") for tag in tags["images"])
    (file,) = (resumed.path / "trackers" / "tensorboard").iterdir()
    assert b"method.lr" in file.read_bytes()


def test_mlflow_has_hyperparameters_and_the_page(resumed: RunDir):
    client, held = mlflow_run(resumed.path)
    assert held.info.status == "FINISHED"
    config = settings_of_run(resumed)
    assert held.data.params == {name: str(value) for name, value in config.items()}
    files = {file.path for file in client.list_artifacts(held.info.run_id)}
    assert "report.html" in files
    assert any(name.endswith(".png") for name in files)
    assert not {tag for tag in held.data.tags if tag.startswith(("mlflow.user", "mlflow.source"))}


def test_wandb_has_hyperparameters_and_the_page(resumed: RunDir):
    records = list(wandb_records(wandb_file(resumed.path)))
    kinds = [record.WhichOneof("record_type") for record in records]
    (run,) = (record.run for record in records if record.WhichOneof("record_type") == "run")
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config.items() >= settings_of_run(resumed).items()
    assert run.run_id == json.loads(resumed.tracking.read_text())["run"]
    assert (run.host, run.project) == ("", "dlfd")
    media = wandb_file(resumed.path).parent / "files" / "media"
    (page,) = media.glob("html/page/*.html")
    assert page.read_text() == (resumed.path / "report.html").read_text()
    assert list(media.glob("images/page/*.png"))
    assert "exit" in kinds


def settings_of_run(run: RunDir) -> dict[str, bool | int | float | str]:
    from dlfd_dist.compose import load_config

    return settings_of(load_config(run.config))


@pytest.fixture
def killed(trained: Callable[..., Path], tmp_path: Path, monkeypatch) -> tuple[RunDir, list[str]]:
    """A run that a kill ended after its result was written, and before trackers were told of it."""
    run = RunDir(tmp_path / "run")
    words = [
        "unlearn", *TINY, f"checkpoint={trained()}", "method=finetune", "method.epochs=1",
        f"run.dir={run.path}", ALL,
    ]  # fmt: skip
    code = (
        "import os, signal\n"
        "from dlfd_dist.trackers import Tracking\n"
        "from launch.cli import main\n"
        "Tracking.end = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"main({words!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert run.finished()
    return run, words


def test_a_run_that_was_killed_before_its_trackers_knew_its_end_is_ended(
    killed: tuple[RunDir, list[str]], dlfd: Dlfd
):
    run, words = killed
    assert mlflow_run(run.path)[1].info.status == "RUNNING"
    before = run.result.stat().st_mtime_ns
    for _ in range(2):
        assert dlfd(*words).status == 0
        assert run.result.stat().st_mtime_ns == before
        for read in READERS.values():
            assert_once(read(run.path), run)
        assert mlflow_run(run.path)[1].info.status == "FINISHED"
    assert json.loads(run.tracking.read_text())["ended"]
    client, held = mlflow_run(run.path)
    assert "report.html" in {file.path for file in client.list_artifacts(held.info.run_id)}


def test_no_tracker_is_told_who_or_where(resumed: RunDir):
    """What wandb would send and TensorBoard would show names no machine, no user and no folder.

    The logs of wandb and the store of MLflow stay here; they hold their own paths.
    """
    sent = [
        *(resumed.trackers / "tensorboard").iterdir(), *(resumed.trackers / "csv").iterdir(),
        wandb_file(resumed.path),
    ]  # fmt: skip
    signature = json.loads(resumed.identity.read_text())["signature"]
    host = socket.gethostname()
    # A short name may come up by chance in the bytes of a picture.
    secrets = [str(resumed.path.parent), str(Path.home()) + "/", signature]
    secrets += [host] * (len(host) > 5)
    for file in sent:
        held = file.read_bytes()
        assert not [one for one in secrets if one.encode() in held], file.name
        assert host not in file.name.split(".")


def test_the_main_rank_alone_tells_trackers(
    trained: Callable[..., Path], forked_dlfd: Dlfd, tmp_path: Path
):
    run = RunDir(tmp_path / "run")
    words = [*TINY, "method=finetune", "method.epochs=1", "runtime.world_size=2", ALL]
    ended = forked_dlfd("unlearn", *words, f"checkpoint={trained()}", f"run.dir={run.path}")
    assert ended.status == 0, ended.err
    for read in READERS.values():
        # Each reader takes one file or one run, and fails where there are several.
        assert_once(read(run.path), run)
    assert "goes on without" not in ended.err


def test_a_comparison_is_a_group(forked_dlfd: Dlfd, tmp_path: Path):
    out = tmp_path / "compared"
    words = [*TINY, "method=finetune", "method.epochs=1", "trackers=[csv,mlflow]"]
    ended = forked_dlfd("compare", *words, f"run.dir={out}")
    assert ended.status == 0, ended.err
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{out / 'mlflow.db'}")
    group = "dlfd-" + json.loads((out / "tracking.json").read_text())["group"]
    experiment = client.get_experiment_by_name(group)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == len(list((out / "runs").glob("*/result.json"))) == 3
    assert {run.info.status for run in runs} == {"FINISHED"}
    tables = (out / "runs").glob("*/trackers/csv/hyperparameters.csv")
    assert all(f"group,{group}" in table.read_text() for table in tables)
