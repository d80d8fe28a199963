"""Every path inside a run directory, and writing that never leaves half a file."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .access import level
from .errors import RunDirError
from .locks import Held, locked
from .plain import dotted

PARTIAL = ".tmp"
"""How the name of a file that is being written ends."""
MOST_NAMED = 3
"""How many of the settings that differ a refusal names."""


@contextlib.contextmanager
def replacing(path: Path, *, secret: bool = False) -> Iterator[Path]:
    """Yield a temporary name beside `path`; rename it to `path` when the block succeeds.

    secret : leave the mode that the block gave
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        yield partial
        if not secret:
            level(partial)
        os.replace(partial, path)
    except Exception as err:
        # safetensors writes in Rust, and tells of a full disk only in words.
        number = re.search(r"\(os error (\d+)\)", str(err))
        if number is None or isinstance(err, OSError):
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from err
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


@contextlib.contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Say in a RunDirError that a directory cannot be written, where the block finds that out."""
    try:
        yield
    except OSError as err:
        raise RunDirError(
            f"run.dir={path} cannot be written ({err.strerror}): free some space or choose another "
            "directory."
        ) from err


def take_directory(path: Path, what: str, *marks: str) -> None:
    """Make a directory; RunDirError where it is in use for something else.

    Parameters
    ----------
    what : what the directory is to hold, such as "a campaign"
    marks : names in the directory, each of which shows that it holds that
    """
    with writing_to(path):
        in_use = path.exists() and (not path.is_dir() or any(path.iterdir()))
        if in_use and not any((path / mark).exists() for mark in marks):
            raise RunDirError(f"run.dir={path} exists and is not {what}: choose another directory.")
        path.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def holding(lock: Path, message: str, *, wait_s: float) -> Iterator[None]:
    """Hold a lock; RunDirError with the message, where {holder} is filled in, if another does."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(lock, wait_s=wait_s))
        except Held as err:
            raise RunDirError(message.replace("{holder}", str(err))) from err
        yield


@contextlib.contextmanager
def exclusively(lock: Path, command: str, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the directory of a lock file; RunDirError while another process does."""
    with holding(lock, _in_use_by(lock.parent, f"another '{command}'"), wait_s=wait_s):
        yield


def _in_use_by(folder: Path, other: str) -> str:
    return (
        f"run.dir={folder} is being written by {other} ({{holder}}): wait until it has ended, or "
        "choose another directory."
    )


@dataclass(frozen=True)
class RunDir:
    """The directory of one run."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def identity(self) -> Path:
        """run.json: the signature of the run and the digests of its inputs."""
        return self.path / "run.json"

    @property
    def prepared(self) -> Path:
        """prepared.json: digests of the checkpoints that go in, each with the state of its file."""
        return self.path / "prepared.json"

    @property
    def environment(self) -> Path:
        """environment.json: when, by which code and on what the run was started."""
        return self.path / "environment.json"

    @property
    def request(self) -> Path:
        return self.path / "request.csv"

    @property
    def removed(self) -> Path:
        """The images that data.clean left out."""
        return self.path / "removed.csv"

    @property
    def leaks(self) -> Path:
        """The pairs of equal and nearly equal images that the leak audit found."""
        return self.path / "leaks.csv"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def tracking(self) -> Path:
        """tracking.json: the random name that trackers know the run by."""
        return self.path / "tracking.json"

    @property
    def trackers(self) -> Path:
        """What trackers write, a folder each (trackers=[csv,...])."""
        return self.path / "trackers"

    @property
    def samples(self) -> Path:
        """Per-sample losses, confidences and features of the evaluation."""
        return self.path / "samples.safetensors"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        """The delivered weights."""
        return self.checkpoints / "final" / "model.safetensors"

    def epoch_model(self, epoch: int) -> Path:
        """The weights that a training had after so many epochs (train.keep_every)."""
        return self.checkpoints / f"epoch_{epoch}" / "model.safetensors"

    def kept_epochs(self) -> list[int]:
        """Return the epochs after which a training kept its weights, in order."""
        folders = (p.parent.name for p in self.checkpoints.glob("epoch_*/model.safetensors"))
        numbers = (name.removeprefix("epoch_") for name in folders)
        return sorted(int(number) for number in numbers if number.isdigit())

    @property
    def synthesis(self) -> Path:
        """Kept synthesised images and their contact sheet (synthesis.save=N)."""
        return self.path / "synthesis"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def rank_log(self, rank: int) -> Path:
        return self.logs / f"rank_{rank:04d}.jsonl"

    def finished(self) -> bool:
        return self.result.is_file()

    def _in_use(self) -> bool:
        """Whether something is at `path` that is not the beginning of a run cut off at its start"""
        if not self.path.exists():
            return False
        return not self.path.is_dir() or any(p.suffix != PARTIAL for p in self.path.iterdir())

    def read_result(self) -> dict[str, Any]:
        return json.loads(self.result.read_text(encoding="utf-8"))

    def _held_identity(self) -> tuple[str, dict[str, str]]:
        """Return signature and inputs of the run that is there."""
        try:
            stored = json.loads(self.identity.read_text(encoding="utf-8"))
            return stored["signature"], stored.get("inputs", {})
        except (ValueError, KeyError, TypeError) as err:
            raise RunDirError(
                f"{self.identity} is damaged, so nobody can tell which run this is: choose another "
                "run.dir, or remove that one."
            ) from err

    @contextlib.contextmanager
    def running(self, *, wait_s: float = 0.0) -> Iterator[None]:
        """Hold the run; RunDirError while another start of it does, or if that cannot be.

        Parameters
        ----------
        wait_s : how long the lock of an earlier start is waited for
        """
        path = self.path.absolute()
        lock = path.with_name(f".{path.name}.run.lock")
        with contextlib.ExitStack() as stack:
            with writing_to(self.path):
                path.parent.mkdir(parents=True, exist_ok=True)
                message = _in_use_by(self.path, "another start of this run")
                stack.enter_context(holding(lock, message, wait_s=wait_s))
            yield

    def remove_partials(self) -> None:
        """Remove what a start that was killed left half-written; only while the run is held."""
        for partial in list(self.path.rglob(f".*{PARTIAL}")):
            if partial.is_dir():
                shutil.rmtree(partial)
            else:
                partial.unlink(missing_ok=True)

    def check(
        self,
        signature: str,
        inputs: Mapping[str, str] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Raise RunDirError when it holds another run or other files, or cannot be read.

        Parameters
        ----------
        inputs : digests of what this run reads, so that the error can name what differs
        settings : settings that change its result, by section, for the same
        """
        try:
            is_run = self.identity.is_file()
            in_use = self._in_use()
        except OSError as err:
            raise RunDirError(
                f"run.dir={self.path} cannot be read ({err.strerror}): choose another directory."
            ) from err
        if is_run:
            stored, held_inputs = self._held_identity()
            if stored != signature:
                changed = [n for n, d in (inputs or {}).items() if held_inputs.get(n, d) != d]
                what = f"; its {' and '.join(changed)} differ" if changed else ""
                what += "".join(f"; {line}" for line in self._other_settings(settings or {}))
                raise RunDirError(
                    f"run.dir={self.path} holds another run (signature {stored}, this one is "
                    f"{signature}{what}): choose another directory."
                )
        elif in_use:
            raise RunDirError(
                f"run.dir={self.path} exists and is not a run directory: choose another one."
            )

    def _other_settings(self, settings: Mapping[str, Any]) -> list[str]:
        """Return what the run that is there has set otherwise, of three settings at most."""
        try:
            there = dotted(yaml.safe_load(self.config.read_text(encoding="utf-8")))
        except (OSError, ValueError, yaml.YAMLError, AttributeError):
            return []
        shown = {name: json.dumps(value) for name, value in there.items()}
        others = [
            f"{name} is {shown[name]} there and {json.dumps(value)} here"
            for name, value in dotted(settings).items()
            # Of a path it is signed only whether there is one.
            if name in there
            and isinstance(value, bool) == isinstance(there[name], bool)
            and shown[name] != json.dumps(value)
        ]
        return others[:MOST_NAMED]

    def record_start(self, started: dict[str, Any]) -> None:
        """Write down a start: the first, and each by other code or in another environment.

        Parameters
        ----------
        started : started (a time), code and environment
        """
        starts = self.read_starts()
        if starts and all(starts[-1][k] == started[k] for k in ("code", "environment")):
            return
        write_json(self.environment, {"starts": [*starts, started]})

    def read_starts(self) -> list[dict[str, Any]]:
        """Return what record_start wrote; nothing of a run from before it was there."""
        if not self.environment.is_file():
            return []
        return json.loads(self.environment.read_text(encoding="utf-8"))["starts"]

    def claim(self, signature: str, inputs: dict[str, str], config_text: str) -> None:
        """Create the directory for this run, or join it when the same run is there already.

        Raises RunDirError as `check` does, and when it cannot be written; then nothing is left.
        """
        self.check(signature, inputs)
        new = not self.path.exists()
        with writing_to(self.path):
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                # First of all: a start that is cut off here must know its directory again.
                write_json(self.identity, {"signature": signature, "inputs": inputs})
                for folder in (self.logs, self.checkpoints):
                    folder.mkdir(exist_ok=True)
                write_text(self.config, config_text)
            except OSError:
                if new:
                    shutil.rmtree(self.path, ignore_errors=True)
                raise


def append_event(path: Path, event: dict[str, Any], *, synced: bool = False) -> None:
    """Append one line to a JSONL file; a last line that a crash cut off is ended first.

    synced : whether the line is on the disk when this returns
    """
    text = json.dumps(event, sort_keys=True) + "\n"
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            text = text if file.read(1) == b"\n" else "\n" + text
        file.write(text.encode())
        if synced:
            file.flush()
            os.fsync(file.fileno())


def read_events(path: Path) -> list[dict[str, Any]]:
    """Return the events of a JSONL file; a line that a crash cut off does not count."""
    try:
        # Not splitlines, which parts a line at other characters too.
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        return []
    events = []
    for line in lines:
        with contextlib.suppress(json.JSONDecodeError):
            events.append(json.loads(line))
    return events


def truncate_events(path: Path, last_step: int) -> None:
    """Drop the events after a step, so that a resumed run does not record them twice."""
    kept = [e for e in read_events(path) if e.get("step", 0) <= last_step]
    write_text(path, "".join(json.dumps(e, sort_keys=True) + "\n" for e in kept))
