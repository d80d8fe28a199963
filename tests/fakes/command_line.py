"""A small data set on disk, and `dlfd` as a process that can be signalled."""

from __future__ import annotations

import contextlib
import csv
import importlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

from dlfd_dist.data.synthetic import draw_face
from dlfd_dist.run_dir import RunDir
from tests.fakes.forks import fork_instead_of_starting
from tests.fakes.preloaded import PRELOADED
from tests.fakes.tiny import TINY_RUN

REPOSITORY = Path(__file__).parents[2]
SPLITS = ["train"] * 8 + ["val"] * 2 + ["test"] * 2
IMAGES = 4
COLUMNS = ("image_path", "identity", "label", "label_name", "split", "smile", "glasses")


def write_faces(root: Path) -> Path:
    """Write 12 people with 4 drawn faces of 32 px and metadata.csv; 8 people are for training."""
    root.mkdir(parents=True)
    rows = []
    for person, split in enumerate(SPLITS):
        for number in range(IMAGES):
            label = number % 2
            name = f"person-{person:02d}/face {number}.png"
            (root / name).parent.mkdir(exist_ok=True)
            pixels = draw_face(
                person, label, 0.4, seed=0, nuisance_seed=IMAGES * person + number, image_size=32
            )
            Image.fromarray(pixels.transpose(1, 2, 0)).save(root / name)
            named = ("neutral", "smile")[label]
            rows.append((name, f"Person-{person:02d}", label, named, split, label, person % 2))
    write_csv(root / "metadata.csv", [COLUMNS, *rows])
    return root


def write_csv(path: Path, rows: list[Any]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def read_csv(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def tree(*folders: Path) -> dict[str, tuple[int, int]]:
    """Return every folder, and every file with its size and time, under the folders."""
    found = {}
    for folder in folders:
        for path in [folder, *sorted(folder.rglob("*"))] if folder.exists() else []:
            status = path.lstat()
            found[str(path)] = (0, 0) if path.is_dir() else (status.st_size, status.st_mtime_ns)
    return found


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def sentence(self) -> str:
        """The one line that a refused command may write; anything else is a failure."""
        said = [line for line in self.err.splitlines() if line.startswith("dlfd: ")]
        others = [line for line in self.err.splitlines() if line and not line.startswith("[")]
        assert "Traceback" not in self.err, self.err
        assert said == others, self.err
        assert len(said) == 1, self.err
        assert said[0].endswith((".", "?")), self.err
        return said[0].removeprefix("dlfd: ")


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "launch.cli", *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", **more}


class Running:
    """A process that leads a group of its own, to be signalled in mid-run."""

    pid: int
    log: Path

    def exit_status(self, timeout_s: float = 0) -> int | None:
        """Return the exit status, below zero for a signal, or None while it runs."""
        raise NotImplementedError

    @property
    def text(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def reaches(self, goal: Callable[[], bool], *, timeout_s: float = 120) -> bool:
        """Wait until something is seen; return False if the process ended before."""
        end = time.monotonic() + timeout_s
        while not goal():
            if self.exit_status() is not None:
                return False
            assert time.monotonic() < end, f"not reached in {timeout_s} s:\n{self.text}"
            time.sleep(0.002)
        return True

    def wait_for(self, goal: Callable[[], bool], *, timeout_s: float = 120) -> None:
        """Wait until something is seen; a process that ends before is a failure."""
        assert self.reaches(goal, timeout_s=timeout_s), f"ended too early:\n{self.text}"

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def signal_group(self, number: signal.Signals) -> None:
        os.killpg(self.pid, number)

    @property
    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.pid).children(recursive=True)

    def kill_all(self) -> None:
        """Kill the process and its ranks at once, as a power cut would."""
        processes: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            processes = [psutil.Process(self.pid), *self.descendants]
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.exit_status(60)
        # What was in the midst of a write ends after it.
        psutil.wait_procs(processes[1:], timeout=5)

    def wait(self, *, timeout_s: float = 120) -> int:
        """Return the exit status; what is still running then is killed."""
        try:
            status = self.exit_status(timeout_s)
            assert status is not None, f"still running after {timeout_s} s:\n{self.text}"
            return status
        finally:
            self.kill_all()


class Process(Running):
    """A command as a person starts it: with its imports to do."""

    def __init__(self, arguments: list[str], log: Path):
        self.log = log
        with log.open("wb") as file:
            self.popen = subprocess.Popen(
                arguments, stdout=file, stderr=subprocess.STDOUT, env=environment(),
                start_new_session=True,
            )  # fmt: skip
        self.pid = self.popen.pid

    def exit_status(self, timeout_s: float = 0) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.popen.wait(timeout_s)
        return None


class Child(Running):
    """`dlfd ...` in a process forked from one that has the imports done, so that it starts at once.

    The workers and ranks that it starts are forks of it for the same reason. CUDA and autograd
    threads do not survive a fork; the fork server has neither.

    Parameters
    ----------
    program : the module whose `main` takes the arguments
    out : takes the standard output; None: the log takes both
    """

    def __init__(
        self, arguments: Sequence[object], log: Path, *, program: str = "launch.cli",
        out: Path | None = None,
        before: Callable[[], None] | None = None, environ: Mapping[str, str] | None = None,
    ):  # fmt: skip
        self.log = log
        log.touch()
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        words = [str(word) for word in arguments]
        child = (program, words, str(out or log), str(log), before, dict(environ or {}))
        self.process = context.Process(target=_child, args=child)
        self.process.start()
        assert self.process.pid is not None
        self.pid = self.process.pid

    def exit_status(self, timeout_s: float = 0) -> int | None:
        self.process.join(timeout_s)
        return self.process.exitcode


def _child(
    program: str, arguments: list[str], out: str, log: str, before: Callable[[], None] | None,
    environ: dict[str, str],
) -> None:  # fmt: skip
    os.environ.update(environ)
    if before is not None:
        before()
    os.setsid()
    for stream, path in ((1, out), (2, log)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    fork_instead_of_starting()
    sys.exit(importlib.import_module(program).main(arguments))


def ended(arguments: Sequence[object], folder: Path) -> Ended:
    """Run `dlfd ...` in a Child to its end; its output goes through files of the folder."""
    out, log = folder / "child.out", folder / "child.err"
    for file in (out, log):
        file.unlink(missing_ok=True)
    status = Child(arguments, log, out=out).wait(timeout_s=300)
    said = Ended(status, *(file.read_text(encoding="utf-8") for file in (out, log)))
    for file in (out, log):
        file.unlink()
    return said


def steps_done(run: Path) -> int:
    """Return the step of the newest whole checkpoint, 0 when there is none."""
    latest = RunDir(run).checkpoints / "latest"
    try:
        return int(latest.read_text(encoding="utf-8").strip().removeprefix("step_"))
    except (OSError, ValueError):
        return 0


@dataclass(frozen=True)
class Faces:
    """The data set, a request for two people, and the settings that every command shares."""

    root: Path
    request: Path

    @property
    def small(self) -> list[str]:
        """Settings that make any run take a second or two."""
        return [*TINY_RUN, f"data.root={_quoted(self.root)}", "data.image_size=32"]

    @property
    def forget(self) -> list[str]:
        return [*self.small, f"forget.request={_quoted(self.request)}"]


def _quoted(path: Path) -> str:
    return f'"{path}"'
