"""dlfd logs: the output of a run or of one of its ranks; -f follows it to its end."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from dlfd_dist.errors import INTERRUPTED, ConfigError
from dlfd_dist.run_dir import RunDir

from ..execute.states import UNDER_WAY, RunStatus, run_states
from .status import find_run

POLL_S = 0.5
ASK_S = 5.0
"""Seconds between two questions whether a run that is followed has ended."""


def run_logs(words: Sequence[str], *, follow: bool, rank: int | None) -> int:
    """Print a run's log; with `follow` as it grows, until the run has ended."""
    if len(words) != 1:
        raise ConfigError("Give one run: dlfd logs RUN [-f] [--rank N].")
    campaign, key = _run(words[0])
    file = _file(Path(words[0]), campaign, key, rank)
    try:
        for line in _lines(file, campaign if follow else None, key):
            print(_readable(line) if rank is not None else line, end="", flush=True)
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _run(word: str) -> tuple[Path | None, str | None]:
    """Return campaign and key of a run; a run directory may belong to no campaign."""
    if RunDir(Path(word)).identity.is_file():
        try:
            return find_run(word)
        except ConfigError:
            return None, None
    campaign, key = find_run(word)
    if key is None:
        labels = ", ".join(status.label for status in run_states(campaign))
        raise ConfigError(f"{word} is a campaign: name a run of it, {word}/LABEL. Runs: {labels}.")
    return campaign, key


def _status(campaign: Path | None, key: str | None) -> RunStatus | None:
    if campaign is None:
        return None
    return next((status for status in run_states(campaign) if status.key == key), None)


def _file(path: Path, campaign: Path | None, key: str | None, rank: int | None) -> Path:
    status = _status(campaign, key)
    directory = Path(status.directory) if status and status.directory else path
    if rank is None and status is not None and status.log:
        return Path(status.log)
    console = directory / "logs" / "console.log"
    if rank is None and console.is_file():
        return console
    file = RunDir(directory).rank_log(rank or 0)
    if not file.is_file():
        have = sorted(file.parent.glob("rank_*.jsonl"))
        what = f"ranks 0 to {len(have) - 1}" if have else "none, for it has not begun"
        raise ConfigError(f"There is no log at {file}. Logs of this run: {what}.")
    return file


def _lines(file: Path, campaign: Path | None, key: str | None) -> Iterator[str]:
    """Yield the lines of a log and, for a run of a campaign, those that are still to come."""
    with file.open(encoding="utf-8", errors="replace") as content:
        last_look, under_way, rest = 0.0, campaign is not None, ""
        while True:
            new = content.readline()
            rest += new
            if rest.endswith("\n"):
                yield rest
                rest = ""
            elif not new:
                if not under_way:
                    yield from [rest + "\n"] if rest else []
                    return
                if time.monotonic() - last_look > ASK_S:
                    last_look = time.monotonic()
                    status = _status(campaign, key)
                    under_way = status is not None and status.state in UNDER_WAY
                time.sleep(POLL_S)


def _readable(line: str) -> str:
    """Return an event of a rank's log as a line."""
    try:
        event = json.loads(line)
    except ValueError:
        return line
    clock = time.strftime("%H:%M:%S", time.localtime(event.get("time", 0)))
    message = event.get("message") or json.dumps(event, sort_keys=True)
    return f"{clock} {message}{os.linesep}"
