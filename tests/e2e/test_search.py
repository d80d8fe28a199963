"""dlfd search on a tiny data set: choice, resume, a killed driver, and never the test set."""

from __future__ import annotations

import csv
import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dlfd_dist.config import SearchConfig
from dlfd_dist.data.loaders import Batches
from dlfd_dist.run_dir import RunDir, read_events
from launch.execute.ranks import cores
from launch.search.cluster import ray_cluster
from launch.search.plan import make_plan
from launch.search.point import Point, Shared
from launch.search.trial import reference_of, run_rank
from tests.fakes.command_line import Ended, Faces, Process, command
from tests.fakes.trackers import of_csv, of_tensorboard, of_wandb, wandb_file, wandb_records

Dlfd = Callable[..., Ended]
pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.timeout(600)]


@pytest.fixture(scope="module", autouse=True)
def ray() -> Iterator[None]:
    """One Ray for all searches of this file that run in this process."""
    with ray_cluster(SearchConfig()):
        yield


def test_all_searches_are_sent_to_one_worker(request: pytest.FixtureRequest):
    """Else each worker would start a Ray and run the shared search again."""
    assert "PYTEST_XDIST_WORKER" not in os.environ or request.node.nodeid.endswith("@ray")


@pytest.fixture(scope="module")
def settings(faces: Faces, original: Path, retrained: Path) -> list[str]:
    """Trials come one after another, in one process, but where several at a time are the point.

    With so few people synthesis would rest at once, and nothing would be better than no unlearning.
    """
    small = [one for one in faces.forget if not one.startswith("runtime.")]
    return [
        *small,
        f"checkpoint={original}",
        f"reference={retrained}",
        "method=dlfd",
        "method.epochs=8",
        "method.dynamic=false",
        "method.select=last",
        "method.clip_norm=1.0",
        "search.concurrent=1",
    ]


def rows_of(out: Path, kind: str = "trial") -> list[dict[str, str]]:
    with (out / "search.csv").open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["kind"] == kind]


def results_of(out: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in out.glob("*/*/result.json")}


@pytest.fixture(scope="module")
def asha(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A search whose driver was killed and which then went on, without a finished trial again."""
    from launch.cli import main

    folder = tmp_path_factory.mktemp("search")
    out = folder / "with asha"
    words = [
        *settings, "search=asha", "search.num_samples=4", "search.grace_steps=1",
        "search.replicate=1", "search.replicate_seeds=2", "run.mode=770", f"run.dir='{out}'",
        "trackers=[csv,tensorboard,mlflow,wandb]",
    ]  # fmt: skip
    process = Process(command("search", *words), folder / "log")
    try:
        process.wait_for(lambda: len(results_of(out)) >= 1, timeout_s=300)
    finally:
        process.signal(signal.SIGKILL)
        process.kill_all()
    before = results_of(out)
    assert 1 <= len(before) < 4
    assert main(["search", *words, "--resume"]) == 0
    assert before.items() <= results_of(out).items()
    return out, words


def runs_of(out: Path) -> list[RunDir]:
    """Return the trials and the replicates of a search."""
    return [RunDir(path.parent) for path in sorted(out.glob("*/*/run.json"))]


def test_trials_and_replicates_are_runs_in_the_group_of_the_search(asha: tuple[Path, list[str]]):
    from mlflow import MlflowClient

    out, _ = asha
    runs, group = runs_of(out), f"dlfd-{json.loads((out / 'tracking.json').read_text())['group']}"
    assert {run.path.parent.name for run in runs} == {"trials", "replicates"}
    client = MlflowClient(tracking_uri=f"sqlite:///{out / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(group)
    assert experiment is not None
    held = {
        run.data.tags["dlfd.run"]: run for run in client.search_runs([experiment.experiment_id])
    }
    known = {json.loads(run.tracking.read_text())["run"]: run for run in runs}
    assert held.keys() == known.keys()
    for name, run in known.items():
        assert held[name].info.status == ("FINISHED" if run.finished() else "KILLED")
        assert not list(run.path.glob("*.html"))
        probes = [e["step"] for e in read_events(run.metrics) if e["event"] == "probe"]
        records = list(wandb_records(wandb_file(run.path)))
        assert {r.run.run_group for r in records if r.WhichOneof("record_type") == "run"} == {group}
        history = client.get_metric_history(held[name].info.run_id, "probe/nomus")
        assert [point.step for point in history] == probes
        for read in (of_csv, of_tensorboard, of_wandb):
            scalars = read(run.path)
            assert [step for step, _ in scalars["probe/nomus"]] == probes
            assert ("result/num_steps" in scalars) is run.finished()


def test_the_group_cannot_write_what_a_resumed_search_unpickled(asha: tuple[Path, list[str]]):
    """Under run.mode=770, killed, and gone on with: also what Ray's workers wrote."""
    out, _ = asha
    assert list(out.glob("ray/search/tuner.pkl"))
    for path in (out, *out.rglob("*")):
        assert path.is_symlink() or not path.stat().st_mode & 0o022, path


def test_trials_are_run_directories_and_the_best_is_chosen_over_other_seeds(
    asha: tuple[Path, list[str]],
):
    out, _ = asha
    rows = rows_of(out)
    assert [row["trial"] for row in rows] == ["0", "1", "2", "3"]
    assert {row["state"] for row in rows} <= {"finished", "stopped"}
    assert rows[0]["method.lr"] == "0.002"
    for row in rows:
        run = RunDir(out / row["run_dir"])
        assert run.config.is_file()
        assert run.finished() == (row["state"] == "finished")
        assert float(row["forgetting_score_se"]) >= 0
        probes = [e for e in read_events(run.metrics) if e["event"] == "probe"]
        assert probes
    assert any(float(row["forgetting_score_se"]) > 0 for row in rows)
    found = json.loads((out / "results.json").read_text())
    seeds = {row["seed"] for row in rows_of(out, "replicate")}
    assert seeds == {"1", "2"}
    bounds = {one["trial"]: one["bound"] for one in found["candidates"]}
    assert bounds[found["winner"]] == min(b for b in bounds.values() if b is not None)
    assert list(out.glob("ray/search/*/events.out.tfevents.*"))
    assert (out / "report.html").stat().st_size > 10_000


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_two_trials_of_two_ranks_share_a_gpu(settings: list[str], tmp_path: Path):
    from launch.cli import main

    words = [
        *settings, "search=random", "search.num_samples=2", "search.replicate=0",
        "search.gpus_per_trial=0.25", "search.workers_per_trial=2",
        f"run.dir={tmp_path / 'shared'}",
    ]  # fmt: skip
    assert main(["search", *words]) == 0
    results = [
        json.loads(p.read_text()) for p in (tmp_path / "shared").glob("trials/*/result.json")
    ]
    assert [(one["world_size"], one["device"]) for one in results] == [(2, "cuda:0")] * 2


def test_nothing_of_the_test_set_is_in_a_trial(asha: tuple[Path, list[str]]):
    out, _ = asha
    for path in out.glob("*/*/result.json"):
        result = json.loads(path.read_text())
        assert result["test_accuracy"] is None
        assert result["nomus"] is None
        assert result["validation"]["nomus"] > 0


def test_the_chosen_settings_are_used_by_unlearn(
    dlfd: Dlfd, faces: Faces, asha: tuple[Path, list[str]], original: Path, tmp_path: Path
):
    out, _ = asha
    ended = dlfd(
        "unlearn", *faces.forget, f"checkpoint={original}", "method=dlfd", f"run.dir={tmp_path}/u",
        f"+tuned='{out}/best.yaml'", "--json",
    )  # fmt: skip
    assert ended.status == 0, ended.err
    assert ended.json["test_accuracy"] is not None
    best = next(
        row for row in rows_of(out)
        if row["trial"] == str(json.loads((out / "results.json").read_text())["winner"])
    )  # fmt: skip
    text = (tmp_path / "u" / "config.yaml").read_text()
    assert f"lr: {best['method.lr']}" in text


def test_a_finished_search_is_gone_on_with_only_when_asked_and_then_runs_nothing(
    dlfd: Dlfd, asha: tuple[Path, list[str]]
):
    out, words = asha
    before, rows = results_of(out), rows_of(out)
    ended = dlfd("search", *words)
    assert ended.status == 2
    assert "add --resume" in ended.sentence
    ended = dlfd("search", *words, "--resume", "--json")
    assert ended.status == 0, ended.err
    assert results_of(out) == before
    assert [(r["trial"], r["objective"]) for r in rows_of(out)] == [
        (r["trial"], r["objective"]) for r in rows
    ]
    assert ended.json["winner"] is not None
    ended = dlfd("search", *words, "data.split_seed=1", "method.lr=0.1", "--resume")
    assert ended.status == 2
    assert "is another search" in ended.sentence


def test_a_search_that_finds_nothing_better_than_no_unlearning_chooses_nothing(
    dlfd: Dlfd, settings: list[str], tmp_path: Path, asha: tuple[Path, list[str]]
):
    """One trial moves nothing, the other diverges: it is told as failed and ends nothing."""
    out, space = tmp_path / "search", tmp_path / "space.yaml"
    space.write_text("method.weight_decay: [1.0e+30]\n")
    ended = dlfd(
        "search", *settings, "search=random", f"search.space={space}", "search.num_samples=2",
        "search.replicate=0", "method.lr=1e-12", "method.clip_norm=null", f"run.dir={out}",
    )  # fmt: skip
    assert ended.status == 1, ended.err
    still, diverged = rows_of(out)
    assert [still["state"], diverged["state"]] == ["finished", "failed"]
    assert "NaN" in diverged["failed"]
    found = json.loads((out / "results.json").read_text())
    assert float(still["objective"]) >= found["untouched"]
    assert (still["left_as_is"], found["winner"]) == ("True", None)
    assert not (out / "best.yaml").exists()
    # It is finished all the same, and a campaign does not start it again.
    assert RunDir(out).finished()
    said = "did better than leaving the model as it is"
    for text in (ended.out, (out / "report.html").read_text()):
        assert said in text
    assert said not in (asha[0] / "report.html").read_text()


def test_two_objectives_give_a_front(
    dlfd: Dlfd, faces: Faces, settings: list[str], trained: Callable[..., Path], tmp_path: Path
):
    """A model that has learned nothing yet is trained on the retain set as Retrained was."""
    start_from = trained(on="all", settings=faces.forget)
    small = [word for word in settings if not word.startswith(("method", "checkpoint="))]
    ended = dlfd(
        "search", *small, f"checkpoint={start_from}", "method=finetune", "method.epochs=24",
        "method.lr=0.02", "method.clip_norm=null", "train_mode=sync_bn", "search=optuna",
        "search.sampler=nsga2", "search.objective=pareto", "search.num_samples=2",
        "search.replicate=0", f"run.dir={tmp_path}/s", "--json",
    )  # fmt: skip
    assert ended.status == 0, ended.err
    assert ended.json["front"]
    assert ended.json["winner"] in ended.json["front"]
    assert len(ended.json["rows"]) == 2


def test_a_population_hands_on_its_checkpoints(dlfd: Dlfd, settings: list[str], tmp_path: Path):
    ended = dlfd(
        "search", *settings, "search=pbt", "search.num_samples=3",
        "search.concurrent=null", "search.perturb_every=8", "search.replicate=0",
        f"run.dir={tmp_path}/s", "--json",
    )  # fmt: skip
    # Who goes on from whom hangs on which trial is first, and so does whether one is good enough.
    assert ended.status == (1 if ended.json["winner"] is None else 0), ended.err
    assert {row["state"] for row in ended.json["rows"]} == {"finished"}
    assert not list((tmp_path / "s").glob("ray/search/*/checkpoint_*"))
    for lineage in (tmp_path / "s" / "trials").glob("*/lineage.json"):
        before = json.loads(lineage.read_text())
        assert [one["step"] for one in before] == sorted(one["step"] for one in before)


def test_a_trial_of_two_ranks_is_the_trial_of_one(dlfd: Dlfd, settings: list[str], tmp_path: Path):
    if cores() < 2:
        pytest.skip("two ranks need two cores")
    words = [*settings, "runtime.dtype=float64", "search=optuna", "search.num_samples=1"]
    plan = make_plan([*words, f"run.dir={tmp_path}/one"])
    told: list[dict[str, Any]] = []
    shared = Shared(plan.config, replace(plan.search, pin=False), reference_of(plan))
    run_rank(Point(plan.own_settings()), shared, lambda figures, _folder=None: told.append(figures))
    two = dlfd(
        "search", *words, "search.replicate=0", "search.workers_per_trial=2",
        f"run.dir={tmp_path}/two", "--json",
    )  # fmt: skip
    assert two.status == 0, two.err
    (row,) = two.json["rows"]
    assert row["state"] == "finished"
    for name in ("objective", "accuracy", "forgetting_score", "retain_accuracy"):
        assert row[name] == pytest.approx(told[-1][name], abs=1e-9)
    assert row["device_seconds"] == pytest.approx(2 * row["seconds"])


def test_no_image_of_the_test_set_is_looked_at(
    settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plan = make_plan([*settings, "search=random", f"run.dir={tmp_path}"])
    seen: set[int] = set()
    batches: list[Batches] = []
    shard = Batches.shard

    def watched(self: Batches, ids: np.ndarray, **more: Any) -> Any:
        seen.update(ids.tolist())
        batches.append(self)
        return shard(self, ids, **more)

    monkeypatch.setattr(Batches, "shard", watched)
    told: list[dict[str, Any]] = []
    shared = Shared(plan.config, replace(plan.search, pin=False), reference_of(plan))
    run_rank(Point(plan.own_settings()), shared, lambda figures, _folder=None: told.append(figures))
    splits = batches[0].data.splits
    assert told[-1]["finished"]
    assert set(splits.val.tolist()) <= seen
    assert not set(splits.test.tolist()) & seen
    # The same settings again: the finished run is found, nothing is looked at, the same is told.
    seen.clear()
    again: list[dict[str, Any]] = []
    run_rank(Point(plan.own_settings()), shared, lambda figures, _=None: again.append(figures))
    assert not seen
    names = ("step", "num_steps", "objective", "accuracy", "nomus", "finished")
    assert [[one[n] for n in names] for one in again] == [[one[n] for n in names] for one in told]
    # ASHA ends whom it sees at the last step: that is told once, with the result.
    assert [one["finished"] for one in told if one["step"] == one["num_steps"]] == [True]


@pytest.mark.parametrize("word", ["search.cpus_per_trial=6400", "search.workers_per_trial=6400"])
def test_more_cores_than_there_are_is_refused(
    dlfd: Dlfd, settings: list[str], tmp_path: Path, word: str
):
    given = [*settings, "method.global_batch_size=6400", word, f"run.dir={tmp_path}/s"]
    ended = dlfd("search", *given)
    assert ended.status == 2
    assert "6400 cores" in ended.sentence
    assert not (tmp_path / "s").exists()
