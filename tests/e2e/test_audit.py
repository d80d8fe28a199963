"""`dlfd audit`: killed and started again, refined by more models, and what it writes."""

from __future__ import annotations

import csv
import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from dlfd_dist.run_dir import RunDir
from tests.fakes.command_line import Child, Ended, Faces

Dlfd = Callable[..., Ended]
MODELS = 3
NUM_RUNS = 4 * MODELS
"""Original, Retrained, control and Fine-tune of each."""


def words_of(faces: Faces, out: Path, models: int = MODELS) -> list[str]:
    """All shadows forget the same two people, so that three models are enough to fit."""
    return [
        *faces.forget, "method=finetune", "method.epochs=1", "train.epochs=1",
        "audit.num_bootstrap=50", "audit.workers=2", f"audit.models={models}", f"run.dir={out}",
    ]  # fmt: skip


def results(out: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in out.glob("runs/*/result.json")}


def figures(out: Path) -> dict:
    """Return what does not depend on the clock or on the salt."""
    found = json.loads((out / "audit.json").read_text())
    worlds = found["worlds"]
    for world in worlds.values():
        for person in world["most_exposed"]:
            del person["pseudonym"]
    return worlds


@pytest.fixture(scope="module")
def resumed(faces: Faces, forked_dlfd: Dlfd, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An audit that was killed and then went on, without doing any run again."""
    folder = tmp_path_factory.mktemp("audit")
    out = folder / "audit"
    process = Child(["audit", "ulira", *words_of(faces, out)], folder / "log")
    process.wait_for(lambda: len(results(out)) >= 2, timeout_s=200)
    process.signal_group(signal.SIGKILL)
    process.wait()
    before = results(out)
    assert 2 <= len(before) < NUM_RUNS
    assert forked_dlfd("audit", "ulira", *words_of(faces, out), "audit.workers=1").status == 0
    assert before.items() <= results(out).items()
    assert len(results(out)) == NUM_RUNS
    return out


@pytest.mark.xdist_group("audit")
def test_an_audit_that_went_on_has_every_figure(resumed: Path):
    found = json.loads((resumed / "audit.json").read_text())
    assert found["missing"] == []
    assert set(found["worlds"]) == {"original", "finetune", "control"}
    for world in found["worlds"].values():
        assert world["num_models"] == MODELS
        assert world["ulira"]["num_scores"] == MODELS * 8
        assert world["rmia"]["num_scores"] == MODELS * 8
        low, high = world["ulira"]["auc"]["interval"]
        assert 0 <= low <= high <= 1
        assert {part: one["num_images"] for part, one in world["klom"].items()} == {
            "forget": 8, "retain": 24, "val": 8,
        }  # fmt: skip
        assert len(world["person_aucs"]) == len(world["most_exposed"]) == 2
    for title, cost in found["cost"].items():
        runs = [RunDir(p).read_result() for p in resumed.glob(f"runs/{title}-*")]
        assert cost["wall_seconds"] == pytest.approx(sum(run["wall_seconds"] for run in runs))


@pytest.mark.xdist_group("audit")
def test_what_is_written_names_nobody_but_in_the_salt_file(resumed: Path):
    rows = list(csv.DictReader((resumed / "audit.csv").open()))
    assert [row["unit"] for row in rows].count("person") == 3 * 2
    assert [row["unit"] for row in rows].count("image") == 3 * 8
    names = json.loads((resumed / "audit.salt.json").read_text())["names"]
    assert {names[row["pseudonym"]] for row in rows if row["unit"] == "person"} == {
        "Person-01", "Person-05",
    }  # fmt: skip
    assert (resumed / "audit.salt.json").stat().st_mode & 0o077 == 0
    for name in ("audit.json", "audit.csv", "report.html"):
        assert "person-0" not in (resumed / name).read_text().casefold()
    page = (resumed / "report.html").read_text()
    assert "Retrained again" in page
    assert "<h2>RMIA</h2>" in page
    assert page.count("data:image/png;base64,") == 4


@pytest.mark.xdist_group("audit")
def test_more_models_use_the_runs_that_are_there_and_the_other_kind_adds_none(
    faces: Faces, resumed: Path, dlfd: Dlfd, forked_dlfd: Dlfd
):
    before, worlds = results(resumed), figures(resumed)
    salt = json.loads((resumed / "audit.salt.json").read_text())
    ended = dlfd("audit", "klom", *words_of(faces, resumed), "--json")
    assert ended.status == 0
    assert ended.json["kind"] == "klom"
    assert results(resumed) == before
    assert figures(resumed) == worlds
    ended = forked_dlfd("audit", "ulira", *words_of(faces, resumed, MODELS + 1), "audit.workers=1")
    assert ended.status == 0
    assert "Retrained against Retrained" in ended.out
    assert before.items() <= results(resumed).items()
    assert len(results(resumed)) == NUM_RUNS + 4
    assert figures(resumed)["finetune"]["num_models"] == MODELS + 1
    assert json.loads((resumed / "audit.salt.json").read_text()) == salt


def test_a_dry_run_shows_the_runs_and_writes_nothing(faces: Faces, tmp_path: Path, dlfd: Dlfd):
    out = tmp_path / "audit"
    ended = dlfd("audit", "ulira", *words_of(faces, out), "--dry-run", "--json")
    assert ended.status == 0
    assert len(ended.json["runs"]) == NUM_RUNS
    assert not out.exists()


def test_a_directory_of_something_else_is_refused(faces: Faces, tmp_path: Path, dlfd: Dlfd):
    (tmp_path / "notes.txt").write_text("mine")
    ended = dlfd("audit", "ulira", *words_of(faces, tmp_path))
    assert ended.status == 2
    assert "exists and is not an audit: choose another directory" in ended.sentence
