"""SLURM at its boundary: its commands as programs in a folder of PATH.

They record their arguments, sbatch the options of its script too, and keep one table of jobs, whose
states a test sets. Tests call them hundreds of times: they import no more than they need.
"""

from __future__ import annotations

import json
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = """#!{python} -S
import json, os, sys
os.chdir({folder!r})
name, words = os.path.basename(sys.argv[0]), sys.argv[1:]
with open("state.json") as file:
    state = json.load(file)
def keep():
    # Another client may be reading it.
    with open(f"state.{{os.getpid()}}", "w") as file:
        json.dump(state, file)
    os.replace(file.name, "state.json")
if name == "sbatch":
    import re, shlex
    text = sys.stdin.read()
    options = re.findall("^#SBATCH (.*)", text, re.MULTILINE)
    words += [word for option in options for word in shlex.split(option)]
with open("calls.jsonl", "a") as file:
    inside = [k for k in os.environ if k.startswith("SLURM_JOB")]
    file.write(json.dumps([name, words, inside]) + "\\n")
if name in state["refuse"]:
    sys.exit(f"{{name}}: error: {{state['refuse'][name]}}")
if name == "sbatch":
    if "--test-only" in words:
        print("sbatch: Job 1 to start at 2030-01-01T00:00:00 using 2 processors", file=sys.stderr)
        sys.exit()
    state["last"] += 1
    job, array = str(state["last"]), re.search(r"--array=([\\d,-]+)", text)
    ends = [part.split("-") for part in array[1].split(",")] if array else []
    ids = [f"{{job}}_{{n}}" for e in ends for n in range(int(e[0]), int(e[-1]) + 1)] or [job]
    title = re.search(r"--job-name=(\\S+)", text)[1]
    for one in ids:
        state["jobs"][one] = {{"state": "PENDING", "name": title, "queued": True, "code": "0:0"}}
    keep()
    print(job)
elif name == "squeue":
    want = words[words.index("-n") + 1] if "-n" in words else None
    for one, job in state["jobs"].items():
        if job["queued"] and want in (None, job["name"]):
            facts = (one, job["state"], job.get("reason", "None"), "n1")
            print(one.split("_")[0] if want else "|".join(facts))
elif name == "sacct":
    ids = words[words.index("-j") + 1].split(",")
    for one, job in state["jobs"].items():
        if one.split("_")[0] in ids and "--duplicates" in words:
            print(f"{{one}}|{{job['state'].split()[0]}}|{{job.get('energy', 0)}}||")
        elif one.split("_")[0] in ids:
            print(f"{{one}}|{{job['state']}}|{{job['code']}}|n1|{{job.get('end', 'Unknown')}}")
elif name == "scancel":
    for one, job in state["jobs"].items():
        if one in words or one.split("_")[0] in words:
            job.update(queued=False, state="CANCELLED by 0")
    keep()
elif name == "scontrol":
    for one, job in state["jobs"].items():
        if job.get("controller", "PURGED") != "PURGED":
            user = job.get("user", f"me({{os.getuid()}})")
            print(f"JobId={{one}} UserId={{user}} JobState={{job['controller']}} ExitCode=1:0")
elif name == "sinfo":
    print("batch|1:00:00|4\\nlong|infinite|2")
"""


@dataclass(frozen=True)
class FakeSlurm:
    """The programs, their table of jobs, and what they were called with."""

    folder: Path

    @classmethod
    def install(cls, folder: Path, *names: str, python: str = sys.executable) -> FakeSlurm:
        """Write the programs; all of them unless some are named."""
        folder.mkdir(parents=True)
        (folder / "state.json").write_text(json.dumps({"last": 100, "jobs": {}, "refuse": {}}))
        (folder / "calls.jsonl").touch()
        for name in names or ("sbatch", "squeue", "sacct", "scancel", "scontrol", "sinfo"):
            program = folder / name
            program.write_text(PROGRAM.format(python=python, folder=str(folder)))
            program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return cls(folder)

    @property
    def state(self) -> dict[str, Any]:
        return json.loads((self.folder / "state.json").read_text())

    def calls(self, name: str) -> list[list[str]]:
        """Return the arguments of every call of a program."""
        lines = (self.folder / "calls.jsonl").read_text().splitlines()
        return [words for called, words, _ in map(json.loads, lines) if called == name]

    def job_variables(self) -> set[str]:
        """Return the variables of an outer job that any program saw."""
        lines = (self.folder / "calls.jsonl").read_text().splitlines()
        return {name for _, _, names in map(json.loads, lines) for name in names}

    def refuse(self, name: str, why: str) -> None:
        state = self.state
        state["refuse"][name] = why
        (self.folder / "state.json").write_text(json.dumps(state))

    def set(self, job: str, state: str, *, queued: bool = False, **more: str) -> None:
        """Let a job, or every task of an array, be in a state."""
        table = self.state
        for one, facts in table["jobs"].items():
            if job in (one, one.split("_")[0]):
                facts.update(state=state, queued=queued, **more)
        (self.folder / "state.json").write_text(json.dumps(table))
