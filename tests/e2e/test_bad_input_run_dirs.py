"""Run directories that cannot be taken, and disks that are full or read-only."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dlfd_dist.run_dir import RunDir
from tests.fakes.bad_input import Cases, Dlfd, Lab
from tests.fakes.command_line import Faces
from tests.fakes.tiny import LEARNED

CASES = Cases()


@CASES.add
def run_dir_is_a_file(lab: Lab):
    lab.file("run", "precious")
    return lab.train(), ["run.dir=", "choose another"]


@CASES.add
def run_dir_under_a_file(lab: Lab):
    lab.file("file", "precious")
    return lab.train(f"run.dir={lab.folder / 'file' / 'run'}"), ["run.dir=", "choose another"]


@CASES.add
def run_dir_with_foreign_files(lab: Lab):
    lab.target.mkdir()
    (lab.target / "thesis.tex").write_text("precious")
    return lab.train(), ["run.dir=", "is not a run directory", "choose another"]


@CASES.add
def run_dir_of_another_finished_run(lab: Lab):
    return lab.train(f"run.dir={lab.original}"), ["holds another run", "choose another directory"]


@CASES.add
def run_dir_of_another_unfinished_run(lab: Lab):
    shutil.copytree(lab.original, lab.target)
    RunDir(lab.target).result.unlink()
    return lab.unlearn(), ["holds another run", "choose another directory"]


@CASES.add
def run_dir_damaged(lab: Lab):
    lab.target.mkdir()
    RunDir(lab.target).identity.write_text('{"signature":')
    return lab.train(), ["run.json is damaged", "choose another"]


@CASES.add
def run_dir_name_too_long(lab: Lab):
    return lab.train(f"run.dir={lab.folder / ('x' * 300)}"), ["run.dir=", "File name too long"]


@CASES.add
def compare_into_a_file(lab: Lab):
    lab.file("run", "precious")
    return ["compare", *lab.faces.forget, *lab.into], ["run.dir=", "choose another"]


@CASES.add
def compare_into_foreign_files(lab: Lab):
    lab.target.mkdir()
    (lab.target / "thesis.tex").write_text("precious")
    words = ["compare", *lab.faces.forget, *lab.into]
    return words, ["run.dir=", "is not a comparison", "choose another"]


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_sentence_and_leaves_no_trace(name: str, lab: Lab, dlfd: Dlfd):
    lab.check(name, CASES, dlfd)


# --- disks


@contextlib.contextmanager
def _mounted(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no tmpfs may be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_too_small_is_refused_at_the_start(lab: Lab, dlfd: Dlfd):
    with _mounted(lab.folder / "disk", "size=1m") as disk:
        ended = dlfd(*lab.train(f"run.dir={disk / 'run'}"))
        assert ended.status == 2
        assert "has 1 MB free" in ended.sentence
        assert "choose another disk" in ended.sentence
        assert not list(disk.iterdir())


def test_a_disk_without_any_room_is_refused_at_the_start(lab: Lab, dlfd: Dlfd):
    with _mounted(lab.folder / "disk", "size=1m") as disk:
        with contextlib.suppress(OSError):
            (disk / "ballast").write_bytes(b"x" * (1 << 21))
        ended = dlfd(*lab.train(f"run.dir={disk / 'run'}"))
        assert ended.status == 2
        assert "free some space" in ended.sentence
        assert [p.name for p in disk.iterdir()] == ["ballast"]


def test_a_disk_that_fills_up_stops_the_run_and_the_same_command_goes_on(
    lab: Lab, dlfd: Dlfd, monkeypatch: pytest.MonkeyPatch
):
    """Another user's file takes the room when the first checkpoint is there."""
    from dlfd_dist.jobs import session

    save = session.save_checkpoint

    def save_and_fill(folder: Path, *args, **more):
        save(folder, *args, **more)
        with contextlib.suppress(OSError):
            (disk / "ballast").write_bytes(b"x" * (16 << 20))

    words = lab.unlearn("method=finetune", "run.checkpoint_every=1")
    whole = dlfd(*words, "--json")
    with _mounted(lab.folder / "disk", "size=16m") as disk:
        words += [f"run.dir={disk / 'run'}", "--json"]
        monkeypatch.setattr(session, "save_checkpoint", save_and_fill)
        ended = dlfd(*words)
        assert ended.status == 2
        assert "No space left on device" in ended.sentence
        held = RunDir(disk / "run")
        assert not held.finished()
        assert not [p for p in held.path.rglob("*") if p.name.endswith(".tmp")]
        monkeypatch.setattr(session, "save_checkpoint", save)
        (disk / "ballast").unlink()
        again = dlfd(*words)
        assert again.status == 0, again
        assert again.json["model_sha256"] == whole.json["model_sha256"]


def test_a_disk_that_is_read_only_is_refused(lab: Lab, dlfd: Dlfd):
    with _mounted(lab.folder / "disk", "size=64m,ro") as disk:
        ended = dlfd(*lab.train(f"run.dir={disk / 'run'}"))
        assert ended.status == 2
        assert "Read-only file system" in ended.sentence
        assert "choose another directory" in ended.sentence
        ended = dlfd("compare", *lab.faces.forget, f"run.dir={disk / 'compare'}")
        assert ended.status == 2
        assert "Read-only file system" in ended.sentence


def test_a_finished_run_is_returned_from_a_disk_that_is_read_only(
    lab: Lab, faces: Faces, dlfd: Dlfd
):
    with _mounted(lab.folder / "disk", "size=64m") as disk:
        shutil.copytree(lab.original, disk / "run")
        remount = ["mount", "-o", "remount,ro", str(disk)]
        subprocess.run(remount, check=True)
        ended = dlfd("train", *faces.forget, *LEARNED, f"run.dir={disk / 'run'}", "--json")
        assert ended.status == 0, ended
        assert ended.json["run_dir"] == str(disk / "run")
