"""Why a run ended without a result, in one sentence, with the log lines that matter."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from pathlib import Path

TAIL_BYTES = 64_000
NUM_LINES = 5
NO_OUTPUT = "0:53"
"""ExitCode of a job whose output file slurmd could not open."""

BY_STATE = {
    "OUT_OF_MEMORY": "it ran out of memory: give a larger cluster.mem_gb, or a smaller batch",
    "TIMEOUT": "it reached its time limit before it had saved: give a larger cluster.time_min",
    "DEADLINE": "its deadline passed before it could end",
    "NODE_FAIL": "a node of it failed, and SLURM did not start it again",
    "PREEMPTED": "another job took its nodes, and SLURM did not start it again",
    "BOOT_FAIL": "a node of it did not start",
    "CANCELLED": "it was cancelled",
}
TELLING = [
    (r"OutOfMemoryError|CUDA out of memory", "the GPU ran out of memory: use a smaller batch"),
    (r"oom[-_ ]kill|Killed process|Out Of Memory", BY_STATE["OUT_OF_MEMORY"]),
    (r"MemoryError", BY_STATE["OUT_OF_MEMORY"]),
    (r"No space left on device", "the disk is full"),
    (r"ModuleNotFoundError: (.*)", "a package is missing on the node: {0}"),
    (r"NCCL error|ncclSystemError|ncclRemoteError", "the ranks lost each other (NCCL)"),
]
NOISE = re.compile(
    r"^\s*$|^srun: |^submitit |^dlfd: note: |^slurmstepd: error: \*\*\*|^\s+File |^\s+\^+|^\["
)
OWN = re.compile(r"^dlfd: (.*)")
ERROR = re.compile(r"^\w*(Error|Exception|Interrupt)\b.*")


def tail(log: Path) -> list[str]:
    """Return the last lines of a log that are not noise."""
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return [line.rstrip() for line in text.splitlines() if not NOISE.search(line)]


def cause(
    state: str, exit_code: str, exit_status: int | None, logs: Sequence[Path]
) -> tuple[str, list[str]]:
    """Return one sentence and the log lines that matter.

    Parameters
    ----------
    state, exit_code : SLURM's word, and its CODE:SIGNAL; empty where nobody can ask
    exit_status : what the run itself ended with; None: it could not say
    logs : of its ranks, rank 0 first
    """
    lines = [line for log in reversed(logs) for line in tail(log)]
    sentences = [match[1] for line in lines if (match := OWN.match(line))]
    errors = [line for line in lines if ERROR.match(line)]
    shown = ([line for line in lines if OWN.match(line) or ERROR.match(line)] or lines)[-NUM_LINES:]
    if state in BY_STATE and state != "CANCELLED":
        return _sentence(BY_STATE[state]), shown
    # The run's own sentence says more than a pattern of words in it.
    if exit_status is not None and exit_status != 0 and sentences:
        return _sentence(sentences[-1]), shown
    text = "\n".join(lines)
    for pattern, meaning in TELLING:
        if match := re.search(pattern, text):
            return _sentence(meaning.format(*match.groups())), shown
    if state == "CANCELLED":
        return _sentence(BY_STATE[state]), shown
    last_words = (sentences or errors)[-1:]
    return _sentence(last_words[0] if last_words else _by_code(exit_code, exit_status)), shown


def _by_code(exit_code: str, exit_status: int | None) -> str:
    code, _, number = exit_code.partition(":")
    code = code or str(exit_status or "")
    killed = int(number or 0) or (int(code) - 128 if code.isdecimal() and int(code) > 128 else 0)
    if killed == signal.SIGKILL:
        return "it was killed: most often memory ran out (cluster.mem_gb)"
    if killed in set(signal.Signals):
        return f"it was ended by {signal.Signals(killed).name}"
    if exit_code == NO_OUTPUT:
        return (
            "SLURM could not write the job's output: its node does not see the directory of the "
            "campaign. Give run.dir= on a file system that all nodes share ('dlfd doctor slurm "
            "shared=DIR' checks one)"
        )
    if killed > 0:
        return f"it was ended by signal {killed}"
    if code and code != "0":
        return f"it ended with exit status {code}"
    return "it ended without a result, and nobody wrote down why"


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "?", "!")) else f"{text}."
