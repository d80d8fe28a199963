"""What the run directory of a checkpoint says of its training, held against the run that takes it.

A file of weights, and a directory of another program, do not say how they were trained.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..compose import load_config
from ..compose.typed import read_settings
from ..config import JobConfig, to_dict
from ..data.loaders import ResolvedRows
from ..errors import CheckpointError, DataError
from ..run_dir import RunDir

SOURCE = ("name", "factory", "root", "manifest")
"""Settings that name a data set; two that differ may hold other people."""
SPLITS = ("split_seed", "val_fraction", "test_fraction", "split_column")
"""Settings that say whom a data set trains on."""
PICTURES = ("image_size", "mean", "std")
"""Settings that say how an image reaches the model."""


def check_trained(config: JobConfig, rows: ResolvedRows) -> None:
    """Refuse models of other splits or images of the same data, and a reference of other people."""
    for name, path in (("checkpoint", config.checkpoint), ("reference", config.reference)):
        if path is not None and RunDir(Path(path)).finished():
            _check_data(f"{name}={path}", RunDir(Path(path)), config, rows)
    check_reference(config, rows)


def _check_data(named: str, run: RunDir, config: JobConfig, rows: ResolvedRows) -> None:
    trained, now = read_settings(run.config)["data"], to_dict(config)["data"]
    if any(trained.get(name) != now[name] for name in SOURCE):
        return
    own = _inputs(run).get("data") == rows.digests()["data"]
    if not own and (others := _others(trained, now, SPLITS)):
        raise CheckpointError(
            f"{named} was trained with {others}, so that people of val or test may be among those "
            "it was trained on: give the same splits here, or another model."
        )
    if others := _others(trained, now, PICTURES):
        raise CheckpointError(
            f"{named} was trained with {others}: show it images as it was trained on them."
        )


def _others(trained: dict[str, Any], now: dict[str, Any], names: tuple[str, ...]) -> str:
    """Return the settings that differ, such as `data.split_seed=1 (here 0)`; nothing if none do."""
    known = [name for name in names if name in trained and trained[name] != now[name]]
    return " and ".join(f"data.{name}={trained[name]} (here {now[name]})" for name in known)


def _inputs(run: RunDir) -> dict[str, str]:
    return json.loads(run.identity.read_text(encoding="utf-8"))["inputs"]


def check_reference(config: JobConfig, rows: ResolvedRows) -> None:
    """Refuse a Retrained model that was trained without other people than those to forget."""
    if config.reference is None or not RunDir(Path(config.reference)).finished():
        return
    reference = RunDir(Path(config.reference))
    trained = load_config(reference.config, plugins=config.plugins)
    request = _inputs(reference).get("request")
    retrained = trained.verb == "train" and trained.train.on == "retain"
    if not retrained or request in (None, rows.request.digest):
        return
    drawn = config.forget.fraction is not None and config.forget.seed is None
    raise DataError(
        f"reference={config.reference} was trained without other people than those to forget now: "
        + (
            f"give forget.seed={trained.drawn_forget.seed}, with which it drew them."
            if drawn and trained.forget.fraction == config.forget.fraction
            else "give its forget request, or the model retrained without these people."
        )
    )


def check_retrained(config: JobConfig, rows: ResolvedRows) -> None:
    """Refuse a reference that its run directory says is no model retrained without these people."""
    check_reference(config, rows)
    if config.reference is None or not RunDir(Path(config.reference)).finished():
        return
    trained = load_config(RunDir(Path(config.reference)).config, plugins=config.plugins)
    if trained.verb == "train" and trained.train.on == "retain":
        return
    how = "trained on everybody" if trained.verb == "train" else f"made by 'dlfd {trained.verb}'"
    raise DataError(
        f"reference={config.reference} was {how}, and is no model retrained without the people to "
        "forget: train one with 'dlfd train train.on=retain' and the same data and forget settings."
    )


def check_classes(checkpoint: Path, label_names: list[str]) -> None:
    """Refuse a run directory whose model tells other classes apart, as many as they may be."""
    if not RunDir(checkpoint).result.is_file():
        return
    trained = RunDir(checkpoint).read_result().get("label_names")
    if trained is not None and trained != label_names:
        raise CheckpointError(
            f"{checkpoint} was trained to tell {_listed(trained)}, and the labels of the data are "
            f"{_listed(label_names)}: give the data it was trained on, or another checkpoint."
        )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
