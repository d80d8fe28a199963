"""A run of Weights & Biases: a file for `wandb sync`, unless WANDB_MODE=online.

What wandb gathers by itself (machine, user, command line, git, packages, output) is switched off.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .base import Tracked, Tracker, trackers

GATHERS_NOTHING: dict[str, Any] = {
    "x_disable_meta": True, "x_disable_stats": True, "x_disable_machine_info": True,
    "x_save_requirements": False, "disable_git": True, "disable_code": True,
    "disable_job_creation": True, "save_code": False, "console": "off", "silent": True,
    "host": "", "username": "", "email": "", "program": "", "program_relpath": "",
    "program_abspath": "",
}  # fmt: skip


@trackers.register("wandb")
class WandbTracker(Tracker):
    """Offline it writes its file anew at every start; online it goes on with the run of this id."""

    packages = {"wandb": "wandb"}

    def start(self, run: Tracked) -> Mapping[str, int]:
        # Neither are errors of its own reported to its makers.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        mode: Any = os.environ.get("WANDB_MODE", "offline")
        run.folder.mkdir(parents=True, exist_ok=True)
        if mode != "online":
            shutil.rmtree(run.folder / "wandb", ignore_errors=True)
        self._html, self._image = wandb.Html, wandb.Image
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "dlfd"), dir=str(run.folder), id=run.id,
            name=run.name, group=run.group, config=dict(run.settings), mode=mode,
            resume="allow" if mode == "online" else None, reinit="create_new",
            settings=wandb.Settings(**GATHERS_NOTHING),
        )  # fmt: skip
        last = self._run.step - 1
        return dict.fromkeys(self._run.summary.keys(), last) if last >= 0 else {}

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        self._run.log(dict(scalars), step=step)

    def end(self, step: int, figures: Mapping[str, float], files: Sequence[Path]) -> None:
        # An artifact would keep a copy in the home of the user, and its path in the file.
        shown = {f"page/{path.stem}": self._shown(path) for path in files}
        self._run.log({**figures, **shown}, step=step)

    def _shown(self, path: Path) -> Any:
        if path.suffix == ".html":
            return self._html(path.read_text(encoding="utf-8"), inject=False)
        return self._image(str(path))

    def close(self) -> None:
        self._run.finish()
