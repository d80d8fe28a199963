"""Who may read and write what dlfd makes, and whose files it trusts."""

from __future__ import annotations

import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace

import pytest

from dlfd_dist.access import for_others_to_read_only, making, private_folder, refuse_foreign
from dlfd_dist.errors import RunDirError
from dlfd_dist.evidence import generate, issue, read_run
from dlfd_dist.provenance import PARTS, current
from launch.cli import main
from launch.execute import background as local
from launch.execute.code import snapshot
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
    vars(tuning)["plan"] = SimpleNamespace(out=tmp_path, ray=tmp_path / "ray", search=None)
    with pytest.raises(RunDirError, match=r"tuner\.pkl may be written by others.*unpickles"):
        tuning.trials()


def test_jobs_that_others_may_write_are_not_unpickled(tmp_path: Path):
    folder = tmp_path / "jobs" / "submitit"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    with pytest.raises(RunDirError, match="may be written by others"):
        local.start(tmp_path, [], "launch.verbs.task")


# --- a group that may write


def swap(run: Path, enough: Path, told: Connection) -> None:
    """Be another user of the group: put what is theirs in the place of all that leads to a pickle.

    Tells how often it tried, and how often it could.
    """
    os.setgroups([])
    os.setuid(4002)
    told.send("ready")
    pickled = run / "ray" / "search" / "tuner.pkl"
    paths = [*reversed(pickled.parents[:3]), pickled]
    tried = done = 0
    while not enough.exists():
        for path in paths:
            tried += 1
            try:
                os.rename(path, f"{path}.away")
                if path is pickled:
                    path.write_bytes(b"theirs")
                else:
                    path.symlink_to(f"{path.name}.away")
            except OSError:
                continue
            done += 1
    told.send((tried, done))


def raced(run: Path, use: Callable[[], None], times: int) -> tuple[int, int]:
    """Use a run directory while another user of its group attacks it; return what `swap` tells."""
    enough = run.parent / "enough"
    here, there = Pipe()
    other = get_context("fork").Process(target=swap, args=(run, enough, there))
    other.start()
    try:
        assert here.recv() == "ready"
        for _ in range(times):
            use()
    finally:
        enough.touch()
        other.join()
    return here.recv()


@pytest.fixture
def seen_by_all(tmp_path: Path) -> Iterator[Path]:
    """A folder that other users can enter, which those of pytest are not."""
    folder = Path(tempfile.mkdtemp(prefix="dlfd-race-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user too")


@needs_root
def test_a_group_cannot_swap_a_search_between_look_and_use(seen_by_all: Path):
    run = seen_by_all / "run"
    with making("770"), for_others_to_read_only():
        pickled = run / "ray" / "search" / "tuner.pkl"
        pickled.parent.mkdir(parents=True)
        pickled.write_bytes(b"ours")

    def use() -> None:
        refuse_foreign(run, "unpickles it", files=("ray/**/*",))
        assert pickled.read_bytes() == b"ours"

    tried, done = raced(run, use, times=500)
    assert tried > 100
    assert done == 0


@needs_root
def test_a_run_that_a_group_may_swap_is_refused(seen_by_all: Path):
    """The attack above is one: without the modes of a search it puts its own pickle there."""
    run = seen_by_all / "run"
    with making("770"):
        pickled = run / "ray" / "search" / "tuner.pkl"
        pickled.parent.mkdir(parents=True)
        pickled.write_bytes(b"ours")

    def use() -> None:
        with pytest.raises(RunDirError, match="may be written by others"):
            refuse_foreign(run, "unpickles it", files=("ray/**/*",))

    _, done = raced(run, use, times=500)
    assert done > 0
    assert pickled.read_bytes() == b"theirs"


def test_a_folder_on_the_way_to_a_file_is_looked_at(tmp_path: Path):
    run = private_folder(tmp_path / "run")
    (run / "ray" / "search").mkdir(parents=True, mode=0o700)
    with making():
        (run / "ray" / "search" / "tuner.pkl").touch()
    (run / "ray").chmod(0o770)
    with pytest.raises(RunDirError, match=r"ray may be written by others \(mode 770\)"):
        refuse_foreign(run, "unpickles it", files=("ray/search/*.pkl",))


def test_a_copy_of_the_code_is_not_written_by_the_group(tmp_path: Path, monkeypatch):
    """A checkout under umask 002 may be, and a copy keeps its modes."""
    checkout = tmp_path / "checkout"
    with making("770"):
        for part in PARTS:
            (checkout / part).mkdir(parents=True)
            (checkout / part / "file").touch()
    monkeypatch.setattr("launch.execute.code.root", lambda: checkout)
    with for_others_to_read_only():
        copy = snapshot(tmp_path / "campaign", current()[0])
    for path in (copy, *copy.rglob("*")):
        assert not path.stat().st_mode & 0o022, path


def test_a_campaign_that_others_may_write_is_not_carried_out(tmp_path: Path, capsys):
    campaign = tmp_path / "campaign"
    (campaign / "runs").mkdir(parents=True)
    campaign.chmod(0o770)
    words = [*TINY, "cluster=local", f"run.dir={campaign}", "run.mode=770"]
    assert main(["submit", "train", *words]) == 2
    told = capsys.readouterr().err
    assert f"{campaign} may be written by others (mode 770), and dlfd runs the code and" in told
    assert not list(campaign.glob("*/*"))


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


def test_a_file_that_is_renamed_meanwhile_is_no_foreign_file(tmp_path: Path, monkeypatch):
    folder = tmp_path / "campaign"
    folder.mkdir(mode=0o700)
    partial = folder / ".plan.yaml.17.tmp"
    monkeypatch.setattr("dlfd_dist.access._named", lambda *_: [partial])
    refuse_foreign(folder, "reads it")
    with pytest.raises(FileNotFoundError):
        refuse_foreign(tmp_path / "nowhere", "reads it")


@pytest.mark.parametrize(("vanishing", "is_refused"), [(0, False), (3, False), (10**6, True)])
def test_a_folder_that_changes_is_looked_through_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vanishing: int, is_refused: bool
):
    folder = tmp_path / "run"
    folder.mkdir(mode=0o755)
    file = folder / "tuner.pkl"
    file.write_bytes(b"theirs")
    file.chmod(0o666)
    looks, glob = iter(range(10**7)), Path.glob

    def vanish(self: Path, pattern: str) -> list[Path]:
        if next(looks) < vanishing:
            raise FileNotFoundError(str(self))
        return list(glob(self, pattern))

    monkeypatch.setattr(Path, "glob", vanish)
    match = "run changes while dlfd looks" if is_refused else "tuner.pkl may be written by others"
    with pytest.raises(RunDirError, match=match):
        refuse_foreign(folder, "unpickles it", files=("*.pkl",))
