"""One run as its trackers see it: the events of metrics.jsonl, and its figures at the end."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config import JobConfig, read_by, to_dict
from ..config.paths import PATH_SETTINGS
from ..errors import RunDirError
from ..run_dir import RunDir, read_events, write_json
from .base import Tracked, Tracker, trackers

logger = logging.getLogger(__name__)

SECTIONS = ("train", "method", "synthesis", "ot", "metrics", "runtime", "model")
"""Whose settings are hyperparameters."""
SINGLE = (
    "verb", "seed", "train_mode", "data.name", "data.image_size", "data.augment",
    "forget.fraction",
)  # fmt: skip
WORD = re.compile(r"[a-z0-9_.]{1,64}")
"""A text that is a choice; names, paths and import paths are none, and are left out."""
UNSCALED = ("event", "step")
AS_THEY_ARE = ("lr", "seconds")
"""Numbers of a probe or an epoch that are no shares of images."""
DECIMALS = 4
"""Of shares, as on a page."""
FIGURES = (
    "test_accuracy", "val_accuracy", "retain_accuracy", "forget_accuracy", "forgetting_score",
    "nomus", "gap_to_retrained", "validation", "custom_metrics", "selected_step",
    "num_steps", "world_size", "wall_seconds", "device_seconds", "energy_joules", "peak_memory_mb",
)  # fmt: skip
"""What trackers are told of a result."""
RUN = ("run", 16)
"""How tracking.json names a run, and by how many digits."""
STAGES = ("runs", "trials", "replicates", "tuning")
"""How the folders are called in which comparisons, audits and searches have their runs."""


def settings_of(config: JobConfig) -> dict[str, bool | int | float | str]:
    """Return the hyperparameters of a run: numbers and choices, no path and no name."""
    values = read_by(config.verb, to_dict(config))
    flat = {
        f"{section}.{name}": value
        for section in {*SECTIONS, "data", "forget"} & values.keys()
        for name, value in values[section].items()
    }
    flat |= {name: values[name] for name in ("verb", "seed", "train_mode") if name in values}
    return {
        name: value
        for name, value in sorted(flat.items())
        if (name in SINGLE or name.partition(".")[0] in SECTIONS)
        and name not in PATH_SETTINGS
        and _is_plain(value)
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return WORD.fullmatch(value) is not None
    return isinstance(value, bool | int | float)


def scalars_of(event: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of an event as `event/name`; shares as coarse as a page has them."""
    is_step = event["event"] == "step"
    return {
        f"{event['event']}/{name}": value if is_step or name in AS_THEY_ARE else _rounded(value)
        for name, value in event.items()
        if name not in UNSCALED and _is_number(value)
    }


def figures_of(result: Mapping[str, Any]) -> dict[str, float]:
    """Return what trackers are told of a result, as `result/name`."""
    figures: dict[str, float] = {}
    for name in FIGURES:
        value = result.get(name)
        inner = {f"{name}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {}
        for key, number in (inner or {name: value}).items():
            if _is_number(number):
                figures[f"result/{key}"] = _rounded(number)
    return figures


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _rounded(value: float) -> float:
    return round(value, DECIMALS)


def group_folder(run_dir: RunDir) -> Path | None:
    """Return the directory of the comparison, audit, search or campaign that a run is of."""
    folder = run_dir.path.absolute().parent
    is_stage = folder.name in STAGES and (folder.parent / "config.yaml").is_file()
    return folder.parent if is_stage else None


def kept(path: Path, key: str, length: int) -> str:
    """Return random hex digits that a file keeps; of several who make it at once, one does."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads(path.read_text(encoding="utf-8"))[key])
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    write_json(partial, {key: uuid.uuid4().hex[:length]})
    try:
        with contextlib.suppress(FileExistsError):
            os.link(partial, path)
    except OSError:
        # A file system without hard links: the last of several who make it at once wins.
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return str(json.loads(path.read_text(encoding="utf-8"))[key])


def describe(config: JobConfig, run_dir: RunDir) -> Tracked:
    """Return what trackers are told of a run; the folder is for all of them."""
    group = group_folder(run_dir)
    what = config.method.name if config.verb == "unlearn" else config.verb
    if config.verb == "train":
        what = f"train on {config.train.on}"
    return Tracked(
        id=kept(run_dir.tracking, *RUN),
        name=f"{what}, seed {config.seed}",
        group=None if group is None else f"dlfd-{kept(group / 'tracking.json', 'group', 8)}",
        settings=settings_of(config),
        folder=run_dir.trackers,
        shared=group or run_dir.path.absolute().parent,
    )


class Tracking:
    """The trackers of one start; one that fails is named in a warning, and left."""

    def __init__(self, config: JobConfig, run_dir: RunDir):
        self._config, self._run_dir = config, run_dir
        self._open: dict[str, Tracker] = {}
        self._held: dict[str, Mapping[str, int]] = {}
        self._begun = self._ended = self._failed = False
        with self._surviving("trackers"):
            kept(run_dir.tracking, *RUN)

    def begin(self, events: Sequence[Mapping[str, Any]] = ()) -> None:
        """Open the run in every tracker; tell them the events of earlier starts that they lack."""
        self._begun = True
        self._note(closed=False)
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._surviving("trackers"))
            run = describe(self._config, self._run_dir)
            for name in self._config.trackers:
                with self._surviving(name):
                    self._open[name] = tracker = trackers.get(name)()
                    self._held[name] = tracker.start(_for(run, name))
        for event in events:
            self.event(event)

    def event(self, event: Mapping[str, Any]) -> None:
        """Tell an event of metrics.jsonl."""
        scalars, step = scalars_of(event), int(event.get("step", 0))
        self._each(lambda name, tracker: _log(tracker, step, scalars, self._held[name]))

    def end(self, result: Mapping[str, Any], page: Callable[[], Sequence[Path]]) -> None:
        """Tell the figures of the finished run.

        Parameters
        ----------
        page : writes the page and its pictures and returns their paths
        """
        if not self._begun:
            self.begin()
        files: Sequence[Path] = ()
        if self._open:
            with self._surviving("the page for trackers"):
                files = page()
        figures, step = figures_of(result), int(result.get("num_steps") or 0)
        self._each(lambda name, tracker: _end(tracker, step, figures, files, self._held[name]))
        self._ended = True

    def close(self) -> None:
        self._each(lambda _, tracker: tracker.close())
        self._open.clear()
        if self._begun:
            # What failed, as where the process of a stopped trial ends, is made up for later.
            self._note(closed=not self._failed, ended=self._ended and not self._failed)

    def _note(self, **known: bool) -> None:
        """Keep in tracking.json how far trackers were told; a later start makes up for the rest."""
        with self._surviving("trackers"):
            write_json(self._run_dir.tracking, {**_known(self._run_dir), **known})

    def _each(self, call: Callable[[str, Tracker], None]) -> None:
        for name, tracker in list(self._open.items()):
            with self._surviving(name):
                call(name, tracker)

    @contextlib.contextmanager
    def _surviving(self, name: str) -> Any:
        try:
            yield
        # A stranger's library may raise anything, and no run ends by it.
        except Exception as err:
            left, self._failed = self._open.pop(name, None), True
            logger.warning(
                "%s failed (%s): the run goes on without it",
                f"the tracker {name}" if left is not None else name, type(err).__name__,
            )  # fmt: skip
            logger.debug("%s", name, exc_info=err)


def _for(run: Tracked, name: str) -> Tracked:
    return Tracked(run.id, run.name, run.group, run.settings, run.folder / name, run.shared)


def _known(run_dir: RunDir) -> dict[str, Any]:
    return json.loads(run_dir.tracking.read_text(encoding="utf-8"))


def catch_up(config: JobConfig, run_dir: RunDir, page: Callable[[], Sequence[Path]]) -> None:
    """Tell trackers what a run that was killed did not tell them: its last steps, and its end.

    Of a run that began without trackers, or that another process holds, nothing is told.
    """
    if not config.trackers or _is_told(run_dir):
        return
    with contextlib.suppress(RunDirError), run_dir.running():
        if _is_told(run_dir):
            return
        tracking = Tracking(config, run_dir)
        try:
            tracking.begin(read_events(run_dir.metrics))
            if run_dir.finished():
                tracking.end(run_dir.read_result(), page)
        finally:
            tracking.close()


def _is_told(run_dir: RunDir) -> bool:
    if not run_dir.tracking.is_file():
        return True
    return bool(_known(run_dir).get("ended" if run_dir.finished() else "closed", False))


def _end(
    tracker: Tracker, step: int, figures: Mapping[str, float], files: Sequence[Path],
    last: Mapping[str, int],
) -> None:  # fmt: skip
    new = {name: value for name, value in figures.items() if step > last.get(name, -1)}
    tracker.end(step, new, files)


def _log(
    tracker: Tracker, step: int, scalars: Mapping[str, float], last: Mapping[str, int]
) -> None:
    new = {name: value for name, value in scalars.items() if step > last.get(name, -1)}
    if new:
        tracker.log(step, new)
