"""`dlfd compare`: killed and started again, with runs that fail, tuned, and asked wrongly."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from safetensors.numpy import load_file

from dlfd_dist.compose import load_config
from dlfd_dist.metrics import linear_cka, tug_of_war
from dlfd_dist.objectives import gap_on_val, on_val
from dlfd_dist.run_dir import RunDir, read_events
from tests.fakes.command_line import Child, Ended, Faces, steps_done, tree
from tests.fakes.tiny import LEARNED

Dlfd = Callable[..., Ended]

TIMES = ("wall_seconds", "device_seconds", "peak_memory_mb")
NUM_RUNS = 8
"""Original and Retrained, two trials of two methods, and both methods."""


def words_of(faces: Faces, out: Path) -> list[str]:
    return [
        "compare", *faces.forget, "method=finetune,dlfd", "seed=3", "compare.train_seeds=0",
        "compare.tune=2", "compare.workers=2", "train.epochs=4", "run.checkpoint_every=3",
        f"run.dir={out}",
    ]  # fmt: skip


def results(out: Path) -> list[Path]:
    return sorted(out.glob("*/*/result.json"))


def assert_none_left(processes: list[psutil.Process]) -> None:
    """No process may outlive the comparison by more than the moment its end takes."""
    _, alive = psutil.wait_procs(processes, timeout=5)
    for process in alive:
        process.kill()
    assert not alive


def times_of(files: list[Path]) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in files}


def untimed(row: dict) -> dict:
    return {key: value for key, value in row.items() if not key.startswith(TIMES)}


@pytest.fixture(scope="module")
def whole(faces: Faces, forked_dlfd: Dlfd, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tuned comparison that nobody disturbed."""
    out = tmp_path_factory.mktemp("whole") / "compare"
    ended = forked_dlfd(*words_of(faces, out))
    assert ended.status == 0, ended.err
    return out


@pytest.mark.xdist_group("compare")
def test_a_result_says_how_near_its_model_is_to_retrained(whole: Path):
    runs = json.loads((whole / "comparison.json").read_text())["runs"]
    retrained = {r["train_seed"]: whole / r["run_dir"] for r in runs if r["role"] == "retrained"}
    for run in (r for r in runs if r["role"] == "method"):
        path, other = RunDir(whole / run["run_dir"]), RunDir(retrained[run["train_seed"]])
        result, reference = path.read_result(), other.read_result()
        mine, theirs = load_file(path.samples), load_file(other.samples)
        near = result["against_retrained"]
        for part in ("forget", "test"):
            name = f"{part}.features"
            wanted = linear_cka(mine[name].astype(float), theirs[name].astype(float))
            assert near[f"{part}_cka"] == pytest.approx(wanted, rel=1e-4)
        assert near["tug_of_war"] == pytest.approx(tug_of_war(result, reference))
        assert 0 <= near["js_divergence"] <= 1
        assert near["membership_probes"] == reference["membership_probes"]
        assert reference["against_retrained"] is None


# --- tuning and train seeds


@pytest.mark.xdist_group("compare")
def test_tuning_takes_the_best_trial_by_validation_and_says_so(whole: Path):
    found = json.loads((whole / "comparison.json").read_text())
    tuning = found["tuning"]
    assert (tuning["trials"], tuning["pairs"]) == (2, [[0, 3]])
    assert set(tuning["methods"]) == {"finetune", "dlfd"}
    original, retrained = (
        RunDir(next((whole / "runs").glob(f"{role}-seed0-*"))).read_result()
        for role in ("original", "retrained")
    )
    untouched = gap_on_val(on_val(original), on_val(retrained))
    for method, record in tuning["methods"].items():
        ran = [RunDir(next((whole / "tuning").glob(f"{method}-trial{n}-*"))) for n in (0, 1)]
        results_of = [run.read_result() for run in ran]
        values = [gap_on_val(on_val(result), on_val(retrained)) for result in results_of]
        assert [trial["value"] for trial in record["trials"]] == values
        assert (record["default_value"], record["untouched_value"]) == (values[0], untouched)
        still = [result["against_original"]["left_as_is"] for result in results_of]
        assert record["left_as_is"] == sum(still)
        better = [n for n in (0, 1) if not still[n] and values[n] < untouched]
        best = min(better, key=lambda n: values[n], default=None)
        assert record["no_gain"] == (best is None)
        # Where doing nothing is as good the method keeps its own settings, which trial 0 has.
        chosen = load_config(ran[best or 0].config)
        assert record["settings"] == (None if best is None else record["trials"][best]["settings"])
        for run in found["runs"]:
            if run["method"] == method:
                config = load_config(whole / run["run_dir"] / "config.yaml")
                assert (config.method, config.synthesis) == (chosen.method, chosen.synthesis)
    table = (whole / "table.md").read_text()
    assert "gap to Retrained on validation" in table
    said = "did better than leaving the model as it is"
    assert (said in table) == any(record["no_gain"] for record in tuning["methods"].values())


@pytest.fixture(scope="module")
def with_seeds(
    faces: Faces, forked_dlfd: Dlfd, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str]]:
    """A method on the models of two train seeds, each model measured with two seeds; its words."""
    out = tmp_path_factory.mktemp("seeds") / "compare"
    words = [
        "compare", *faces.forget, "method=finetune", "seed=3", "compare.train_seeds=0,1",
        "metrics.seed=0,7", *LEARNED, "method.max_steps=2", "compare.workers=1", f"run.dir={out}",
    ]  # fmt: skip
    ended = forked_dlfd(*words)
    assert ended.status == 0, ended.err
    return out, words


@pytest.mark.xdist_group("compare-seeds")
def test_a_comparison_holds_every_method_on_every_model(with_seeds: tuple[Path, list[str]]):
    out, _ = with_seeds
    found = json.loads((out / "comparison.json").read_text())
    assert found["missing"] == []
    runs = [run for run in found["runs"] if "-metrics7-" not in run["run_dir"]]
    assert {(r["role"], r["method"], r["seed"], r["train_seed"]) for r in runs} == {
        ("original", None, 0, 0), ("original", None, 1, 1),
        ("retrained", None, 0, 0), ("retrained", None, 1, 1),
        ("method", "finetune", 3, 0), ("method", "finetune", 3, 1),
    }  # fmt: skip
    models = {(r["role"], r["seed"]): (out / r["run_dir"]).name for r in runs}
    for run in runs:
        config = load_config(out / run["run_dir"] / "config.yaml")
        assert config.seed == run["seed"]
        if run["role"] == "method":
            assert Path(config.checkpoint or "").name == models["original", run["train_seed"]]
            assert Path(config.reference or "").name == models["retrained", run["train_seed"]]
    for name in ("summary.json", "table.md", "table.csv", "table.tex", "report.html"):
        assert (out / name).stat().st_size > 0


@pytest.mark.xdist_group("compare-seeds")
def test_every_model_is_measured_with_every_evaluation_seed(with_seeds: tuple[Path, list[str]]):
    out, _ = with_seeds
    rows = {row["method"]: row for row in json.loads((out / "summary.json").read_text())["rows"]}
    for row in rows.values():
        assert row["axes"] == ["train_seeds", "metrics_seeds"]
        assert not row["mixed_settings"]
    for role, row in [("original", rows["Original"]), ("retrained", rows["Retrained"])]:
        results_of = {p: RunDir(p).read_result() for p in out.glob(f"runs/{role}-seed*")}
        trained = [r["wall_seconds"] for p, r in results_of.items() if "-metrics7-" not in p.name]
        assert (len(trained), len(results_of)) == (2, 4)
        assert row["wall_seconds"] == pytest.approx(sum(trained) / 2)
        assert row["test_accuracy"] == pytest.approx(
            sum(r["test_accuracy"] for r in results_of.values()) / 4
        )
        # More attacks than models: the evaluation seed shuffles their folds and permutations.
        attacks = {json.dumps(r["mia"], sort_keys=True) for r in results_of.values()}
        assert len(attacks) > 2 or role == "retrained"
    measured = RunDir(next(out.glob("runs/original-seed0-metrics7-*"))).read_result()
    reference = RunDir(next(out.glob("runs/retrained-seed0-metrics7-*"))).read_result()
    assert measured["against_retrained"]["tug_of_war"] == tug_of_war(measured, reference)


@pytest.mark.xdist_group("compare-seeds")
def test_a_comparison_has_rows_with_intervals_and_runs_nothing_twice(
    with_seeds: tuple[Path, list[str]], dlfd: Dlfd
):
    out, words = with_seeds
    rows = json.loads((out / "summary.json").read_text(encoding="utf-8"))["rows"]
    assert [row["method"] for row in rows] == ["Original", "Retrained", "Fine-tune"]
    for row in rows:
        assert len(row["test_accuracy_interval"]) == 2
    assert "erson-0" not in (out / "report.html").read_text(encoding="utf-8")
    runs = sorted((out / "runs").iterdir())
    assert len(runs) == 12
    before = tree(*runs)
    again = dlfd(*words, "--json")
    assert again.status == 0
    assert not again.json["missing"]
    assert again.json["summary"] == rows
    assert tree(*runs) == before
    more = dlfd(*words, "compare.train_seeds=0", "metrics.seed=0", "--json")
    assert more.status == 0
    assert tree(*runs) == before


# --- stopped and killed


@pytest.mark.xdist_group("compare")
def test_a_comparison_killed_twice_redoes_only_what_was_not_finished(
    faces: Faces, whole: Path, tmp_path: Path, forked_dlfd: Dlfd
):
    """SIGKILL of everything, then of the comparison alone; against one left in peace."""
    out = tmp_path / "compare"
    first = Child([*words_of(faces, out), "compare.workers=1"], tmp_path / "log")
    first.wait_for(lambda: len(results(out)) >= 2, timeout_s=200)
    first.signal_group(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    finished = times_of(results(out))
    assert 2 <= len(finished) < NUM_RUNS

    second = Child(words_of(faces, out), tmp_path / "log")
    # The trials of both methods are two stages of two runs: the workers are in the midst of them.
    second.wait_for(lambda: len(results(out)) >= 4, timeout_s=200)
    workers = second.descendants
    assert len(workers) == 2
    second.signal(signal.SIGKILL)
    assert second.exit_status(60) == -signal.SIGKILL
    assert_none_left(workers)
    reused = re.findall(r"(\d+) finished before", second.text)
    assert sum(map(int, reused)) == len(finished)
    assert finished.items() <= times_of(results(out)).items()
    finished = times_of(results(out))
    assert 4 <= len(finished) < NUM_RUNS

    assert forked_dlfd(*words_of(faces, out), "compare.workers=1").status == 0
    after = times_of(results(out))
    assert finished.items() <= after.items()
    assert len(after) == NUM_RUNS
    assert (out / "comparison.json").read_bytes() == (whole / "comparison.json").read_bytes()
    ours, theirs = (json.loads((p / "summary.json").read_text())["rows"] for p in (out, whole))
    assert list(map(untimed, ours)) == list(map(untimed, theirs))
    for path in results(whole):
        theirs, ours = (RunDir(root / path.parent.relative_to(whole)) for root in (whole, out))
        assert ours.model.read_bytes() == theirs.model.read_bytes()


def test_a_comparison_asked_to_stop_saves_and_may_not_be_joined(
    faces: Faces, tmp_path: Path, dlfd: Dlfd
):
    out = tmp_path / "compare"
    words = [
        "compare", *faces.forget, "method=finetune", "train.epochs=300", "compare.workers=1",
        "run.checkpoint_every=1000", f"run.dir={out}",
    ]  # fmt: skip

    def running() -> bool:
        return any(read_events(path) for path in (out / "runs").glob("*/metrics.jsonl"))

    steps = []
    for number in (signal.SIGTERM, signal.SIGINT):
        process = Child(words, tmp_path / "log")
        process.wait_for(running)
        workers = process.descendants
        if number is signal.SIGTERM:
            before = tree(out / "compare.lock", out / "config.yaml")
            ended = dlfd(*words)
            assert ended.status == 2
            assert "another 'dlfd compare'" in ended.sentence
            assert tree(out / "compare.lock", out / "config.yaml") == before
            process.signal(number)
        else:
            process.signal_group(number)
        assert process.wait() == 75, process.text
        assert_none_left(workers)
        assert "the same command goes on from there" in process.text
        assert "Traceback" not in process.text
        # No checkpoint is due so early: the one that is there is from stopping.
        (latest,) = (out / "runs").glob("*/checkpoints/latest")
        steps.append(steps_done(latest.parents[1]))
        RunDir(latest.parents[1]).metrics.unlink()
    assert 0 < steps[0] < steps[1]
    assert not results(out)


@pytest.mark.parametrize("setting", ["compare.workers=1", "runtime.world_size=2"])
def test_a_run_does_not_outlive_a_comparison_that_is_killed(
    setting: str, faces: Faces, tmp_path: Path
):
    """It would go on writing where the next start writes too."""
    out = tmp_path / "compare"
    words = ["compare", *faces.forget, "train.epochs=1000", setting]
    process = Child([*words, f"run.dir={out}"], tmp_path / "log")
    process.wait_for(lambda: any(map(read_events, out.glob("runs/*/metrics.jsonl"))))
    started = process.descendants
    assert started
    process.signal(signal.SIGKILL)
    assert process.exit_status(60) == -signal.SIGKILL
    assert_none_left(started)


# --- runs that fail


def test_a_run_that_fails_is_named_and_stops_no_other(faces: Faces, tmp_path: Path, dlfd: Dlfd):
    """Fine-tune blows up; SSD takes no gradient step, so that the same rate does it no harm.

    The worker is a program of its own here, as users have it.
    """
    out = tmp_path / "compare"
    words = [
        "compare", *faces.forget, "method=finetune,ssd", "method.lr=1e30", "compare.workers=1",
        f"run.dir={out}",
    ]  # fmt: skip
    ended = dlfd(*words)
    assert ended.status == 1
    assert "finetune seed 0 failed: The loss" in ended.err
    assert "not finished: finetune seed 0: The loss" in ended.out
    log = next((out / "runs").glob("finetune-seed0-*")) / "logs" / "console.log"
    assert f"Its log: {log}" in ended.out
    assert "dlfd: The loss" in log.read_text()
    found = json.loads((out / "comparison.json").read_text())
    assert found["missing"] == ["finetune seed 0"]
    assert {r["method"] or r["role"] for r in found["runs"]} == {"original", "retrained", "ssd"}
    assert "finetune seed 0" in (out / "report.html").read_text()


def test_a_run_whose_process_is_killed_is_named_and_done_by_the_next_start(
    faces: Faces, tmp_path: Path, forked_dlfd: Dlfd
):
    out = tmp_path / "compare"
    words = [
        "compare", *faces.forget, "method=finetune", "compare.workers=1", "train.epochs=10",
        f"run.dir={out}",
    ]  # fmt: skip
    process = Child(words, tmp_path / "log")
    process.wait_for(lambda: any(out.glob("runs/retrained-*/metrics.jsonl")))
    (worker,) = process.descendants
    worker.kill()
    assert process.wait() == 1
    assert "retrained seed 0 failed: its process was killed" in process.text
    assert "Traceback" not in process.text
    found = json.loads((out / "comparison.json").read_text())
    assert found["missing"] == ["retrained seed 0", "finetune seed 0"]
    assert [run["role"] for run in found["runs"]] == ["original"]
    ended = forked_dlfd(*words, "--json")
    assert ended.status == 0, ended
    assert ended.json["missing"] == []


# --- wrong and merely asked


@pytest.mark.parametrize(
    ("words", "phrases"),
    [
        (["compare.worker=2"], ["'compare.worker' is not known", "Did you mean 'compare.workers'"]),
        (["compare.tune=-1"], ["compare.tune=-1 is not allowed", ">= 0"]),
        (["compare.workers=0"], ["compare.workers=0 is not allowed", ">= 1"]),
        (["compare.train_seeds=0,-1"], ["compare.train_seeds=[0, -1]", "seeds >= 0"]),
        (["train.lr=0.1,0.2"], ["train.lr lists several values", "Original and Retrained"]),
    ],
    ids=lambda value: value[0] if value[0].count("=") else "",
)
def test_a_wrong_setting_is_one_sentence_and_leaves_no_trace(
    words: list[str], phrases: list[str], faces: Faces, tmp_path: Path, dlfd: Dlfd
):
    ended = dlfd("compare", *faces.forget, *words, f"run.dir={tmp_path / 'compare'}")
    assert ended.status == 2
    for phrase in phrases:
        assert phrase in ended.sentence
    assert not list(tmp_path.iterdir())


def test_a_comparison_inside_a_job_step_of_ranks_is_refused(
    faces: Faces, tmp_path: Path, dlfd: Dlfd, monkeypatch: pytest.MonkeyPatch
):
    ranks = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    for name, value in ranks.items():
        monkeypatch.setenv(name, value)
    ended = dlfd("compare", *faces.forget, f"run.dir={tmp_path / 'compare'}")
    assert ended.status == 2
    assert "start it once, without torchrun or srun" in ended.sentence
    assert not list(tmp_path.iterdir())


def test_a_dry_run_tells_trials_train_seeds_and_workers(faces: Faces, tmp_path: Path, dlfd: Dlfd):
    more = ["compare.train_seeds=0,1", "method.lr=0.1", "--dry-run"]
    words = [*words_of(faces, tmp_path / "compare"), *more]
    told = dlfd(*words).out
    assert "finetune seed 3 on train seed 1" in told
    assert "2 at a time" in told
    assert "4 trials" in told
    drawn = "method.epochs: 1, 2, 3, 4; method.lr_scheduler: constant, cosine_batch"
    assert f"finetune: 2 trials ({drawn})" in told
    assert str(tmp_path / "compare" / "table.tex") in told
    found = dlfd(*words, "--json").json
    assert (found["train_seeds"], found["workers"], len(found["trials"])) == ([0, 1], 2, 4)
    assert found["compare"]["tune"] == 2
    assert not list(tmp_path.iterdir())


def test_help_shows_the_settings_of_compare(dlfd: Dlfd):
    assert "compare.train_seeds=null" in dlfd("compare", "--help").out
    assert "train_seeds" not in dlfd("train", "--help").out
