"""Checkpoints for resuming: `step_N/` folders and a `latest` pointer that moves when one is whole.

A checkpoint knows nothing of ranks: every rank holds the same state, so any number may resume it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import CheckpointError
from ..run_dir import replacing, write_json, write_text

State = dict[str, Tensor]
PARTS = ("model", "optimizer", "best", "loop")


@dataclass
class Checkpoint:
    """What a run needs to go on: step, tensors of model, optimizer, best model and of the loop
    itself, plain values."""

    step: int
    model: State
    optimizer: State
    best: State = field(default_factory=dict)
    loop: State = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)


def copy_state(state: State) -> State:
    """Return a copy on the CPU that later updates do not reach."""
    return {k: v.detach().to("cpu", copy=True).contiguous() for k, v in state.items()}


def optimizer_tensors(optimizers: Mapping[str, torch.optim.Optimizer]) -> State:
    """Return the buffers of optimizers, as "<parameter number>.<buffer>" behind "<name>."."""
    return copy_state(
        {
            f"{name}.{number}.{buffer}".removeprefix("."): value
            for name, optimizer in optimizers.items()
            for number, buffers in optimizer.state_dict()["state"].items()
            for buffer, value in buffers.items()
            if isinstance(value, Tensor)
        }
    )


def restore_optimizers(optimizers: Mapping[str, torch.optim.Optimizer], tensors: State) -> None:
    states: dict[str, dict[int, dict[str, Tensor]]] = {name: {} for name in optimizers}
    for key, tensor in tensors.items():
        *name, number, buffer = key.rsplit(".", 2)
        states["".join(name)].setdefault(int(number), {})[buffer] = tensor
    for name, optimizer in optimizers.items():
        optimizer.load_state_dict({**optimizer.state_dict(), "state": states[name]})


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, keep: int) -> None:
    """Write `folder/step_N`, then move `folder/latest` to it and drop all but the `keep` newest.

    Steps above N are left over from a start that was cut off before it moved `latest`; they go too.
    """
    name = f"step_{checkpoint.step}"
    if (folder / name).exists():
        shutil.rmtree(folder / name)
    with replacing(folder / name) as partial:
        partial.mkdir()
        for part in PARTS:
            save_file(getattr(checkpoint, part), partial / f"{part}.safetensors")
        write_json(partial / "values.json", {"step": checkpoint.step, **checkpoint.values})
    write_text(folder / "latest", name + "\n")
    reached = [step for step in _steps(folder) if step <= checkpoint.step]
    for step in set(_steps(folder)) - set(reached[-keep:]):
        shutil.rmtree(folder / f"step_{step}")


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the checkpoint that `folder/latest` names, None when there is none yet."""
    pointer = folder / "latest"
    if not pointer.is_file():
        return None
    path = folder / pointer.read_text(encoding="utf-8").strip()
    try:
        values = json.loads((path / "values.json").read_text(encoding="utf-8"))
        parts = {p: load_file(path / f"{p}.safetensors") for p in PARTS}
    except Exception as err:
        raise CheckpointError(
            f"The checkpoint {path} cannot be read ({err}): remove {pointer} to start the run anew."
        ) from err
    return Checkpoint(values.pop("step"), **parts, values=values)


def drop_checkpoints(folder: Path) -> None:
    """Remove the resume checkpoints of a finished run; its delivered model stays."""
    (folder / "latest").unlink(missing_ok=True)
    for step in _steps(folder):
        shutil.rmtree(folder / f"step_{step}")


def _steps(folder: Path) -> list[int]:
    names = (p.name.removeprefix("step_") for p in folder.glob("step_*"))
    return sorted(int(name) for name in names if name.isdigit())
