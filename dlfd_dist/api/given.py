"""What a program gives to a run, under names that a configuration can hold."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import nn

from ..errors import CheckpointError, ConfigError, DataError, ModelError
from ..factories import GIVEN, called
from ..models import require_module, save_weights
from ..runtime.collectives import Collectives

FOLDER = "given"
"""Beside the run directories: the weights of the models that came in."""


@dataclass
class Given:
    """The objects of a call, by name, and the settings that name them."""

    objects: dict[str, Callable[..., Any]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def add(self, setting: str, make: Callable[..., Any], *described: Any) -> None:
        """Let a setting name an object that `described` tells from others."""
        digest = hashlib.sha256(repr(described).encode()).hexdigest()[:16]
        self.objects[f"{GIVEN}{digest}"] = make
        self.settings[setting] = f"{GIVEN}{digest}"


def name_model(
    given: Given, model: Any, features: Any, args: Mapping[str, Any]
) -> Callable[[], nn.Module]:
    """Name the model and its features; return what gives the module.

    args : of the function, where the model is the import path of one
    """
    _name_features(given, features)
    if isinstance(model, str):
        given.settings["model.factory"] = model
        return functools.partial(called, "model.factory", model, args)
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"The model is an object of the type {type(model).__name__}: give a torch.nn.Module, "
            "or the import path of a function that returns one, as in 'mypkg.nets:build'."
        )
    require_module(model, "The model is")
    shapes = [(name, tuple(t.shape)) for name, t in model.state_dict().items()]
    given.add("model.factory", lambda: model, type(model).__qualname__, repr(model), shapes)
    return lambda: model


def _name_features(given: Given, features: Any) -> None:
    if callable(features):
        given.add("model.features", features, _source(features))
    elif features is not None:
        given.settings["model.features"] = features


def _source(function: Callable[..., Any]) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return getattr(function, "__qualname__", type(function).__qualname__)


def name_sets(given: Given, sets: Mapping[str, Any], data: str | None) -> None:
    """Name the sets: those of the call, or the function that returns them."""
    parts = {name: part for name, part in sets.items() if part is not None}
    if data is not None and parts:
        raise ConfigError(
            f"data={data} and the sets {', '.join(parts)} are both given: give the function that "
            "returns all sets, or the sets."
        )
    if data is not None:
        given.settings["data.factory"] = data
        return
    if not parts:
        raise DataError(
            "There is no data: give the Datasets retain, forget, val and test, or data='MODULE:"
            "FUNCTION', a function that returns them."
        )
    # What is in them is part of the identity of a run by itself.
    given.add("data.factory", lambda: parts, list(parts))


@dataclass(frozen=True)
class Weights:
    """The weights of a module as a file that a configuration can name.

    The file bears the digest of what it holds, so that runs share it and nothing is written over.
    """

    module: nn.Module
    path: Path

    @classmethod
    def of(cls, module: nn.Module, folder: Path) -> Weights:
        digest = hashlib.sha256()
        for name, tensor in module.state_dict().items():
            values = tensor.detach().cpu().contiguous()
            digest.update(f"{name} {tuple(values.shape)} {values.dtype} ".encode())
            digest.update(values.flatten().view(-1).numpy(force=True).tobytes())
        return cls(module, folder / FOLDER / f"{digest.hexdigest()[:16]}.safetensors")

    def write(self, collectives: Collectives) -> None:
        """Write the file where it is not there; a rank with other weights writes its own."""
        if collectives.is_main and not self.path.is_file():
            save_weights(self.module, self.path)
        collectives.barrier()
        if not self.path.is_file():
            save_weights(self.module, self.path)


def load_into(module: nn.Module, path: Path) -> nn.Module:
    """Put delivered weights into a module, whose names they bear."""
    if not path.is_file():
        raise CheckpointError(f"There is no {path}: the run has delivered no model.")
    module.load_state_dict(load_file(path))
    return module
