"""SLURM at its boundary: commands on the PATH that answer as they are told to.

A job that is submitted ends at once; its nodes' findings are laid into the folder that its script
changes to, as real nodes would have written them.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from dlfd_dist import __version__
from launch.doctor.probe import NodeFinding

HEALTHY = NodeFinding(
    rank=0, node="node1", python="/env/bin/python", python_version="3.11.7",
    package="/env/dlfd_dist", version=__version__, torch="2.5.0", cuda_devices=4,
    visible_devices="0,1,2,3", address="10.0.0.1", rendezvous="", nccl=True,
    clock_offset_s=0.0, visible_after_s=0.0, lock="exclusive",
)  # fmt: skip
JOB_ENDED = "JobId=7 JobState=COMPLETED Reason=None ExitCode=0:0"


class FakeSlurm:
    """A folder with sinfo, sbatch and so on, the only one on the PATH beside the system's."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self.bin = folder / "bin"
        self.findings = folder / "findings"
        for made in (self.bin, self.findings):
            made.mkdir(parents=True)
        monkeypatch.setenv("PATH", str(self.bin))
        for name in ("squeue", "srun", "scancel"):
            self.answers(name)
        self.sinfo("node1|idle|gpu:4", "node2|mixed|gpu:4")
        self.answers("sacct")
        self.answers("scontrol", JOB_ENDED)
        self.command("sbatch", self._submitting(folder))
        self.nodes(HEALTHY, replace(HEALTHY, rank=1, node="node2"))

    def command(self, name: str, script: str) -> None:
        """Put a command on the PATH: the lines of a bash script."""
        path = self.bin / name
        path.write_text(f"#!/bin/bash\nPATH=/usr/bin:/bin\n{script}\n")
        path.chmod(0o755)

    def answers(self, name: str, out: str = "", *, error: str = "", status: int = 0) -> None:
        """Let a command always say this."""
        said = f"printf '%s\\n' {shlex.quote(out)}" if out else ":"
        self.command(name, f"{said}\nprintf '%s' {shlex.quote(error)} >&2\nexit {status}")

    def sinfo(self, *nodes: str) -> None:
        """Let sinfo list these nodes, as node|state|gres, and the partitions cpu and gpu."""
        listed = shlex.quote("\n".join(nodes))
        self.command(
            "sinfo",
            'case "$*" in *--version) echo "slurm 23.11.4" ;; *%R) printf "gpu\\ncpu\\n" ;; '
            f"*) printf '%s\\n' {listed} ;; esac",
        )

    def without(self, name: str) -> None:
        (self.bin / name).unlink()

    def nodes(self, *findings: NodeFinding) -> None:
        """Say what the nodes of the next job find."""
        for old in self.findings.iterdir():
            old.unlink()
        for finding in findings:
            text = json.dumps(asdict(finding))
            (self.findings / f"node_{finding.rank}.json").write_text(text)

    def pair(self, **second: Any) -> None:
        """Two healthy nodes, but for what is said of the second."""
        self.nodes(HEALTHY, replace(HEALTHY, rank=1, node="node2", **second))

    def _submitting(self, folder: Path) -> str:
        quoted = shlex.quote(str(self.findings))
        return (
            f"cat > {shlex.quote(str(folder / 'script'))}\n"
            f"env > {shlex.quote(str(folder / 'environment'))}\n"
            f". <(grep '^cd ' {shlex.quote(str(folder / 'script'))})\n"
            f"cp {quoted}/node_*.json .\n"
            "echo '7;cluster'"
        )


def fake_environment(folder: Path) -> dict[str, str]:
    """Return the environment in which the job was submitted."""
    lines = (folder / "environment").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)
