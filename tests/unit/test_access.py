"""Who may read and write what dlfd makes, and whose files it trusts."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from dlfd_dist.access import making, private_folder, refuse_foreign
from dlfd_dist.errors import RunDirError
from dlfd_dist.evidence import generate, issue, read_run
from launch.cli import main
from launch.execute import background as local
from launch.execute.journal import Ledger
from launch.search.pinning import pinned
from launch.search.search import _Phases
from tests.fakes.certified import RECORDED, make_run
from tests.fakes.tiny import TINY


@pytest.fixture(params=[0o000, 0o077], ids="{:03o}".format)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(folder: Path) -> dict[str, set[str]]:
    """Return the modes of the folders and of the files of a tree."""
    found: dict[str, set[str]] = {"folders": set(), "files": set()}
    for path in (folder, *folder.rglob("*")):
        kind = "folders" if path.is_dir() else "files"
        found[kind].add(f"{stat.S_IMODE(path.stat().st_mode):o}")
    return found


@pytest.mark.parametrize(
    ("words", "folders", "files"),
    [([], "700", "600"), (["run.mode=750"], "750", "640"), (["run.mode=770"], "770", "660")],
    ids=["default", "a group reads", "a group writes"],
)
def test_a_run_and_its_cache_have_one_mode_whatever_the_umask(
    umask: int, words: list[str], folders: str, files: str, tmp_path: Path
):
    given = [f"run.dir={tmp_path}/run", f"data.cache_dir={tmp_path}/cache", "synthesis.save=2"]
    assert main(["train", *TINY, *given, *words, "train.epochs=1"]) == 0
    expected = {"folders": {folders}, "files": {files}}
    assert modes(tmp_path / "run") == expected
    assert modes(tmp_path / "cache") == expected
    assert os.umask(umask) == umask


def test_another_mode_is_refused(tmp_path: Path, capsys):
    assert main(["train", *TINY, f"run.dir={tmp_path}/run", "run.mode=777"]) == 2
    assert "run.mode=777 is not allowed" in capsys.readouterr().err


def test_the_ledger_of_a_campaign_is_no_program(umask: int, tmp_path: Path):
    ledger = Ledger(tmp_path)
    with ledger.locked():
        ledger.append("planned")
    assert stat.S_IMODE(ledger.file.stat().st_mode) == 0o666 & ~umask


def test_a_public_key_may_be_read_by_all(umask: int, tmp_path: Path):
    with making():
        generate(tmp_path / "key.pem")
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "key.pub.pem").stat().st_mode) == 0o644


# --- whose files they are


def test_a_folder_in_tmp_that_somebody_else_took_is_refused(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    theirs = tmp_path / f"dlfd-cores-{os.getuid()}"
    theirs.symlink_to(tmp_path)
    with pytest.raises(RunDirError, match="is not a folder"), pinned(1):
        pass
    theirs.unlink()
    theirs.mkdir()
    theirs.chmod(0o777)
    with pytest.raises(RunDirError, match=r"may be written by others \(mode 777\)"), pinned(1):
        pass
    theirs.rmdir()
    with pinned(1):
        assert stat.S_IMODE(theirs.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o602, 0o620])
def test_a_file_that_others_may_write_is_not_trusted(mode: int, tmp_path: Path):
    folder = private_folder(tmp_path / "mine")
    refuse_foreign(folder, "reads it")
    (folder / "file").touch()
    (folder / "file").chmod(mode)
    with pytest.raises(RunDirError, match=rf"file may be written by others \(mode {mode:o}\)"):
        refuse_foreign(folder, "reads it")


def test_a_file_of_another_user_is_not_trusted(tmp_path: Path, monkeypatch):
    folder = private_folder(tmp_path / "mine")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(RunDirError, match="mine belongs to another user, and dlfd reads it"):
        refuse_foreign(folder, "reads it")


def test_a_link_is_not_trusted(tmp_path: Path):
    folder = private_folder(tmp_path / "mine")
    (folder / "tuner.pkl").symlink_to("/elsewhere")
    with pytest.raises(RunDirError, match=r"tuner\.pkl is a link"):
        refuse_foreign(folder, "reads it")


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder of this user alone, two folders below the one of the test."""
    folder = tmp_path / "way" / "run" / "mine"
    folder.mkdir(parents=True)
    for path in (folder, *folder.parents[:2]):
        path.chmod(0o700)
    refuse_foreign(folder, "reads it")
    return folder


def test_a_folder_that_everybody_can_put_another_in_place_of_is_not_trusted(mine: Path):
    mine.parents[1].chmod(0o1777)
    refuse_foreign(mine, "reads it")  # sticky: everybody moves only what is their own
    mine.parents[1].chmod(0o777)
    with pytest.raises(RunDirError, match=r"way may be written by everybody \(mode 777\), who can"):
        refuse_foreign(mine, "reads it")


def given_away(monkeypatch: pytest.MonkeyPatch, *theirs: Path) -> None:
    """Let these paths belong to another user, as only root can in earnest."""
    real = Path.lstat

    def lstat(path: Path) -> os.stat_result:
        status = real(path)
        return os.stat_result((*status[:4], 4002, *status[5:])) if path in theirs else status

    monkeypatch.setattr(Path, "lstat", lstat)


def test_a_folder_in_a_run_of_another_user_is_not_trusted(mine: Path, monkeypatch):
    given_away(monkeypatch, mine.parent)
    with pytest.raises(RunDirError, match="run belongs to another user, who can put another"):
        refuse_foreign(mine, "reads it")


def test_a_way_over_a_link_of_another_user_is_not_trusted(mine: Path, monkeypatch):
    link = mine.parents[2] / "link"
    link.symlink_to(mine.parents[1].name)
    refuse_foreign(link / "run" / "mine", "reads it")
    given_away(monkeypatch, link)
    with pytest.raises(RunDirError, match="link belongs to another user"):
        refuse_foreign(link / "run" / "mine", "reads it")


def test_a_way_that_never_ends_is_refused(mine: Path):
    for one, other in (("a", "b"), ("b", "a")):
        (mine.parent / one).symlink_to(other)
    with pytest.raises(RunDirError, match="more than 40 links"):
        refuse_foreign(mine.parent / "a" / "mine", "reads it")


@pytest.mark.parametrize("by", ["owner", "group"])
def test_who_else_could_put_another_folder_there_is_told(by: str, mine: Path, monkeypatch, caplog):
    """A project's folder belongs to its head, and its group writes into it: that is usual."""
    monkeypatch.setattr(logging.getLogger("dlfd_dist"), "propagate", True)
    if by == "owner":
        given_away(monkeypatch, mine.parents[1])
    else:
        mine.parents[1].chmod(0o2770)
    refuse_foreign(mine, "reads it")
    assert f"the {by} of {mine.parents[1]} can put another folder in the place of" in caplog.text


def test_a_search_that_others_may_write_is_not_unpickled(tmp_path: Path):
    pytest.importorskip("ray")
    pickled = tmp_path / "ray" / "search" / "tuner.pkl"
    pickled.parent.mkdir(parents=True)
    # Would be run by whoever unpickles it.
    pickled.write_bytes(b"cposix\nsystem\n(S'exit 1'\ntR.")
    pickled.chmod(0o666)
    tuning = object.__new__(_Phases)
    vars(tuning)["plan"] = SimpleNamespace(ray=tmp_path / "ray", search=None)
    with pytest.raises(RunDirError, match=r"tuner\.pkl may be written by others.*unpickles"):
        tuning.trials()


def test_jobs_that_others_may_write_are_not_unpickled(tmp_path: Path):
    folder = tmp_path / "jobs" / "submitit"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    with pytest.raises(RunDirError, match="may be written by others"):
        local.start(tmp_path, [], "launch.verbs.task")


# --- files that never end


PLACES = {
    "a certificate": ["verify", "{fifo}"],
    "a run's certificate": ["verify", "{run}"],
    "a public key": ["verify", "{good}", "--public-key", "{fifo}"],
    "a private key": ["certify", "{good}", "--key", "{fifo}"],
    "a request": ["unlearn", *TINY[:4], "checkpoint=x.pth", "forget.request={fifo}"],
    "a checkpoint": ["unlearn", *TINY, "checkpoint={fifo}"],
    "a reference": ["evaluate", *TINY, "checkpoint={model}", "reference={fifo}"],
    "a manifest": ["train", "data=manifest", "data.root={folder}", "data.manifest=fifo"],
    "tuned settings": ["unlearn", *TINY, "checkpoint=x.pth", "+tuned={fifo}"],
    "a space": ["search", *TINY, "checkpoint=x.pth", "search.space={fifo}", "run.dir=x"],
    "a run to report": ["report", "{run}"],
}  # fmt: skip


@pytest.mark.parametrize("words", PLACES.values(), ids=PLACES)
@pytest.mark.timeout(60)
def test_a_fifo_is_refused_and_not_waited_for(words, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good, run = make_run(tmp_path).path, tmp_path / "run"
    run.mkdir()
    for name in ("fifo", "run/certificate.json", "run/config.yaml"):
        os.mkfifo(tmp_path / name)
    issue(read_run(good), RECORDED, names=False, key=None)
    places = {"fifo": tmp_path / "fifo", "run": run, "good": good, "folder": tmp_path}
    model = good / "checkpoints" / "final" / "model.safetensors"
    status = main([word.format(**places, model=model) for word in words])
    assert status == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
