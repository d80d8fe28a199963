"""`dlfd submit` against the fake SLURM, and runs that end without being run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dlfd_dist.run_dir import append_event
from launch.cli import main
from launch.execute.journal import attempts_file
from tests.fakes.slurm import FakeSlurm

GIVEN = [
    "data=synthetic", "data.image_size=32", "data.synthetic.num_identities=12",
    "forget.fraction=0.25", "cluster=slurm_lab", "cluster.pack=1",
]  # fmt: skip


@dataclass(frozen=True)
class Said:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Campaigns:
    """One campaign directory, the cluster, and the command line."""

    path: Path
    slurm: FakeSlurm
    run: Callable[..., Said]

    def submit(self, verb: str, *words: str) -> Said:
        return self.run("submit", verb, *GIVEN, f"run.dir={self.path}", *words)

    def states(self) -> dict[str, dict[str, Any]]:
        return {run["label"]: run for run in self.run("status", self.path, "--json").json["runs"]}

    def start(self, label: str) -> Path:
        """Let a run begin; return its directory."""
        status = self.states()[label]
        folder = self.path / "runs" / (Path(status["directory"] or f"{label}-00000000").name)
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        log = folder / "logs" / "console.log"
        log.touch()
        event = {
            "event": "start", "time": 0.0, "job_id": status["job_id"], "job": "01-001-train",
            "restart": 0, "directory": str(folder), "log": str(log),
        }  # fmt: skip
        append_event(attempts_file(self.path, status["key"]), event)
        return folder

    def end(self, label: str, exit_status: int, said: str = "") -> None:
        """Let a run that has begun end; with exit status 0 it has a result."""
        status = self.states()[label]
        folder = Path(status["directory"])
        (folder / "logs" / "console.log").write_text(said)
        event = {"event": "end", "time": 1.0, "status": exit_status}
        append_event(attempts_file(self.path, status["key"]), event)
        if exit_status == 0:
            (folder / "result.json").write_text(json.dumps({"device_seconds": 3600.0}))


def make_campaigns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Campaigns:
    slurm = FakeSlurm.install(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{slurm.folder}:/usr/bin:/bin")

    def run(*words: object) -> Said:
        capfd.readouterr()
        status = main([str(word) for word in words])
        said = capfd.readouterr()
        return Said(status, said.out, said.err)

    return Campaigns(tmp_path / "campaign", slurm, run)
