"""`dlfd VERB key=value ...` as people type it, from training to the report."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from dlfd_dist import __version__
from dlfd_dist.run_dir import RunDir
from tests.fakes.command_line import REPOSITORY, Child, Ended, Faces, environment, tree

Dlfd = Callable[..., Ended]

FIGURES = (
    "retain_accuracy", "forget_accuracy", "val_accuracy", "test_accuracy", "mia_paper",
    "forgetting_score", "nomus",
)  # fmt: skip
KEYS = {
    *FIGURES, "mia", "gap_to_retrained", "wall_seconds", "device_seconds", "peak_memory_mb",
    "seed", "world_size",
}  # fmt: skip
MIA_KEYS = {"accuracy", "auc", "tpr_at_1pct", "interval", "floor"}
METHODS = ("dlfd", "dlfd_official", "finetune")


def result_of(run: Path) -> dict:
    return json.loads((run / "result.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def unlearned(faces: Faces, original: Path, retrained: Path, tmp_path_factory):
    """Return a maker of finished unlearning runs, one per method."""
    from launch.cli import main

    made: dict[str, Path] = {}

    def make(method: str) -> Path:
        if method not in made:
            path = tmp_path_factory.mktemp("unlearned") / method
            words = [f"checkpoint={original}", f"reference={retrained}", f"run.dir={path}"]
            assert main(["unlearn", f"method={method}", *faces.forget, *words]) == 0
            made[method] = path
        return made[method]

    return make


# --- one run


@pytest.mark.parametrize("on", ["all", "retain"])
def test_training_writes_the_model_and_every_figure(on: str, request: pytest.FixtureRequest):
    run = request.getfixturevalue({"all": "original", "retain": "retrained"}[on])
    result = result_of(run)
    assert result.keys() >= KEYS
    assert result["mia"].keys() >= MIA_KEYS
    assert result["gap_to_retrained"] is None
    assert result["num_images"] == {"retain": 24, "forget": 8, "val": 8, "test": 8}
    assert load_file(run / "checkpoints" / "final" / "model.safetensors")
    left = {p.name for p in (run / "checkpoints").iterdir()}
    assert left == {"final"}


@pytest.mark.xdist_group("unlearned")
@pytest.mark.parametrize("method", METHODS)
def test_unlearning_writes_the_model_and_every_figure(method: str, unlearned, original: Path):
    result = result_of(unlearned(method))
    assert result.keys() >= KEYS
    assert result["mia"].keys() >= MIA_KEYS
    assert 0 <= result["gap_to_retrained"] <= 1
    assert result["world_size"] == 1
    assert result["seed"] == 0
    before, after = (load_file(RunDir(run).model) for run in (original, unlearned(method)))
    assert any(not before[name].equal(after[name]) for name in before)


@pytest.mark.xdist_group("unlearned")
def test_an_evaluation_measures_what_the_run_measured(
    unlearned, faces: Faces, retrained: Path, tmp_path: Path, dlfd: Dlfd
):
    run = unlearned("dlfd")
    ended = dlfd(
        "evaluate", *faces.forget, f"checkpoint={run}", f"reference={retrained}",
        f"run.dir={tmp_path / 'run'}", "--json",
    )  # fmt: skip
    assert ended.status == 0, ended
    told = result_of(run)
    for name in (*FIGURES, "mia", "gap_to_retrained"):
        assert ended.json[name] == told[name]
    assert not RunDir(tmp_path / "run").model.exists()


@pytest.mark.xdist_group("unlearned")
def test_asking_twice_returns_the_finished_run(unlearned, faces: Faces, original, retrained, dlfd):
    run = unlearned("finetune")
    words = [
        "unlearn", "method=finetune", *faces.forget, f"checkpoint={original}",
        f"reference={retrained}", f"run.dir={run}",
    ]  # fmt: skip
    before = tree(run)
    ended = dlfd(*words, "--json")
    assert ended.status == 0
    assert ended.json == {**result_of(run), "run_dir": str(run)}
    ended = dlfd(*words)
    assert ended.status == 0
    assert str(run / "result.json") in ended.out
    assert "gap_to_retrained" in ended.out
    assert tree(run) == before


def test_training_needs_no_forget_request(faces: Faces, tmp_path: Path, dlfd: Dlfd):
    words = ["train", *faces.small, "train.max_steps=2", f"run.dir={tmp_path / 'run'}", "--json"]
    ended = dlfd(*words)
    assert ended.status == 0, ended
    for name in ("forget_accuracy", "mia", "mia_paper", "forgetting_score", "nomus"):
        assert ended.json[name] is None
    assert 0 <= ended.json["test_accuracy"] <= 1
    ended = dlfd("report", tmp_path / "run")
    assert ended.status == 0, ended


def test_multi_label_data_is_trained_and_unlearned(faces: Faces, tmp_path: Path, dlfd: Dlfd):
    words = [*faces.forget, "data.label=[smile,glasses]", "train.max_steps=4"]
    assert dlfd("train", *words, f"run.dir={tmp_path / 'original'}").status == 0
    ended = dlfd(
        "unlearn", "method=dlfd", *words, f"checkpoint={tmp_path / 'original'}",
        f"run.dir={tmp_path / 'run'}", "--json",
    )  # fmt: skip
    assert ended.status == 0, ended
    assert ended.json["label_names"] == ["smile", "glasses"]
    assert len(ended.json["accuracy_per_label"]["test"]) == 2
    assert ended.json["mia"].keys() >= MIA_KEYS


def test_single_images_can_be_forgotten(faces: Faces, original: Path, tmp_path: Path, dlfd: Dlfd):
    request = tmp_path / "request.csv"
    request.write_text("image_path\nperson-01/face 0.png\nperson-09/face 1.png\n", encoding="utf-8")
    ended = dlfd(
        "unlearn", "method=finetune", *faces.small, f"forget.request={request}",
        f"checkpoint={original}", f"run.dir={tmp_path / 'run'}", "--json",
    )  # fmt: skip
    assert ended.status == 0, ended
    assert ended.json["num_images"]["forget"] == 1
    assert ended.json["num_images"]["retain"] == 31
    assert "1 to 2 lines of the forget request are in val or test" in ended.err
    resolved = (tmp_path / "run" / "request.csv").read_text(encoding="utf-8").splitlines()
    assert resolved[1:] == [
        "2,person-01/face 0.png,image,matched,1",
        "3,person-09/face 1.png,image,outside_train,0",
    ]


# --- the report


@pytest.mark.xdist_group("unlearned")
def test_a_report_on_one_run_names_nobody(unlearned, dlfd: Dlfd):
    run = unlearned("dlfd")
    ended = dlfd("report", run)
    assert ended.status == 0, ended
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Person-01" not in page
    assert "Person-05" not in page
    assert "person-01" not in page
    assert "DLFD" in page


@pytest.mark.xdist_group("unlearned")
def test_a_report_on_several_runs_names_nobody(unlearned, tmp_path: Path, dlfd: Dlfd):
    out = tmp_path / "page.html"
    ended = dlfd("report", unlearned("dlfd"), unlearned("finetune"), "--out", out, "--json")
    assert ended.status == 0, ended
    assert ended.json["report"] == str(out)
    shown = {row["method"] for row in ended.json["summary"]}
    assert shown >= {"DLFD", "Original", "Retrained"}
    assert len(shown) == 4
    for file in [out, *tmp_path.rglob("*")]:
        if file.is_file():
            assert b"erson-0" not in file.read_bytes(), file


# --- ranks


@pytest.fixture(scope="module")
def of_one_rank(words_of_ranks: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    from launch.cli import main

    path = tmp_path_factory.mktemp("ranks") / "one"
    assert main([*words_of_ranks, f"run.dir={path}"]) == 0
    return path


def _two_ranks_agree(run: Path, of_one_rank: Path) -> None:
    one, two = result_of(of_one_rank), result_of(run)
    assert (one["world_size"], two["world_size"]) == (1, 2)
    for name in (*FIGURES, "gap_to_retrained"):
        assert two[name] == pytest.approx(one[name], abs=1e-9), name
    assert two["mia"]["interval"] == pytest.approx(one["mia"]["interval"], abs=1e-9)
    assert two["signature"] == one["signature"]
    assert (run / "logs" / "rank_0001.jsonl").stat().st_size > 0


@pytest.mark.xdist_group("ranks")
def test_two_ranks_of_dlfd_itself_give_the_figures_of_one(two_ranks: Path, of_one_rank: Path):
    _two_ranks_agree(two_ranks, of_one_rank)


@pytest.mark.xdist_group("ranks")
def test_two_ranks_of_torchrun_give_the_figures_of_one(
    words_of_ranks: list[str], of_one_rank: Path, tmp_path: Path
):
    run = tmp_path / "run"
    words = ["--standalone", "--nproc-per-node", "2", "-m", "dlfd_dist", *words_of_ranks]
    torchrun = "torch.distributed.run"
    ended = Child([*words, f"run.dir={run}"], tmp_path / "log", program=torchrun)
    assert ended.wait(timeout_s=300) == 0, ended.text
    _two_ranks_agree(run, of_one_rank)


def test_doctor_finds_two_ranks(forked_dlfd: Dlfd):
    ended = forked_dlfd("doctor", "--json")
    checks = {check["name"]: check for check in ended.json}
    assert ended.status == 0, ended
    assert checks["two ranks over gloo"]["ok"]
    assert checks["image cache"]["ok"]
    assert checks["package 'launch'"]["found"].startswith(str(REPOSITORY))


# --- dry runs


def _dry_runs(faces: Faces, original: Path, retrained: Path, run: Path) -> dict[str, list[str]]:
    into = f"run.dir={run}"
    given = [*faces.forget, into]
    return {
        "train": ["train", *given],
        "retrain": ["train", "train.on=retain", *given],
        "unlearn": ["unlearn", "method=dlfd", *given, f"checkpoint={original}"],
        "evaluate": ["evaluate", *given, f"checkpoint={original}", f"reference={retrained}"],
        "compare": ["compare", "method=dlfd,finetune", "seed=0,1", *given],
        "demo": ["demo", "data=synthetic", into],
        "report": ["report", str(original)],
        "doctor": ["doctor"],
    }


@pytest.mark.parametrize("flags", [["--dry-run"], ["--dry-run", "--json"]], ids=" ".join)
@pytest.mark.parametrize("verb", _dry_runs(Faces(Path(), Path()), Path(), Path(), Path()))
def test_a_dry_run_tells_its_plan_and_writes_nothing(
    verb: str, flags: list[str], faces: Faces, original: Path, retrained: Path,
    tmp_path: Path, dlfd: Dlfd, monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    monkeypatch.setenv("DLFD_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    words = _dry_runs(faces, original, retrained, tmp_path / "run")[verb]
    watched = (tmp_path, original, retrained, faces.root)
    before = tree(*watched)
    ended = dlfd(*words, *flags)
    assert ended.status == 0, ended
    assert tree(*watched) == before
    if "--json" in flags:
        told = ended.json
        assert told["dry_run"] is True
        assert told.keys() & {"runs", "plan"}
    elif verb != "doctor":
        assert "# files that would be written" in ended.out
    if verb not in ("report", "doctor"):
        assert "train" in ended.out
        assert "global_batch_size" in ended.out
        assert str(tmp_path / "run") in ended.out


def test_a_dry_run_tells_bad_input_as_the_run_would(faces: Faces, original, tmp_path, dlfd: Dlfd):
    words = ["train", *faces.forget, f"run.dir={tmp_path / 'run'}", "--dry-run"]
    assert dlfd(*words).status == 0
    shutil.copytree(original, tmp_path / "run")
    ended = dlfd(*words, "seed=1")
    assert ended.status == 2
    assert "holds another run" in ended.sentence


# --- help


def _loaded_by(status: int, *lines: list[str]) -> tuple[set[str], str]:
    """Return the packages that commands load which end with a status, and what they print."""
    code = (
        "import sys; from launch.cli import main\n"
        f"for words in {lines}:\n"
        f"    assert main(words) == {status}\n"
        "print(*(name for name in sys.modules if '.' not in name), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split()), done.stdout


def test_help_and_version_import_neither_torch_nor_ray():
    loaded, said = _loaded_by(0, ["--help"], ["--version"], [], ["help"])
    assert not {"torch", "ray", "matplotlib", "sklearn", "hydra"} & loaded
    assert f"dlfd-dist {__version__}" in said


def test_a_wrong_setting_is_refused_before_torch_is_loaded():
    loaded, _ = _loaded_by(2, ["train", "trian.lr=1"], ["unlearn", "method.epochs=-1"])
    assert not {"torch", "ray", "matplotlib", "sklearn"} & loaded
    assert "hydra" in loaded
