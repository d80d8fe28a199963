"""Reading weights: our safetensors, foreign .pth files (never unpickled), the authors' names."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..errors import CheckpointError
from ..run_dir import RunDir, replacing
from .classifier import Classifier

WRAPPERS = ("state_dict", "model_state_dict", "model")
CLASSIFIERS = ("fc.", "classifier.1.", "classifier.", "heads.head.", "heads.")
"""Prefixes of the last linear layer in torchvision's models."""


def weights_path(path: str | Path) -> Path:
    """Return the file that a checkpoint setting names: itself, or a run directory's model."""
    path = Path(path)
    if path.is_dir():
        model = RunDir(path).model
        if not model.is_file():
            raise CheckpointError(f"{path} holds no finished model ({model.relative_to(path)}).")
        return model
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint at {path}.")
    return path


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors or .pth file under our names.

    A .pth is read with weights_only=True: tensors only, no code. Known are our own names, the
    authors' `base_model.` and `features.`, torchvision's plain names, DDP's `module.` prefix, and
    a state wrapped in a dictionary.
    """
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as err:
        raise CheckpointError(
            f"{path} holds more than tensors, and foreign code is never run: save its state_dict() "
            "alone, or as safetensors."
        ) from err
    except Exception as err:  # the unpickler meets any bytes: IndexError, struct.error, and more
        raise CheckpointError(f"{path} is not a readable checkpoint ({_one_line(err)}).") from err
    for key in WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()
    ):
        raise CheckpointError(f"{path} does not hold a dictionary of tensors (a state_dict).")
    return {_our_name(name): tensor for name, tensor in state.items()}


def _one_line(err: Exception) -> str:
    return (str(err).strip().splitlines() or [type(err).__name__])[0]


def _our_name(name: str) -> str:
    name = name.removeprefix("module.")
    if name.startswith(("backbone.", "head.")):
        return name
    if name.startswith("base_model."):
        return "backbone." + name.removeprefix("base_model.")
    # `features.0.weight` is the authors' head; densenet's own `features` go deeper.
    parts = name.split(".")
    if parts[0] == "features" and len(parts) == 3 and parts[1].isdigit():
        return "head." + ".".join(parts[1:])
    for prefix in CLASSIFIERS:
        if name.startswith(prefix):
            return "head.0." + name.removeprefix(prefix)
    return "backbone." + name


def load_weights(model: Classifier, path: str | Path) -> None:
    """Load a checkpoint into a model; nothing is loaded unless every tensor fits."""
    model.load_state_dict(_fitting_state(weights_path(path), model.state_dict()))


def check_weights(model: Classifier, path: str | Path) -> None:
    """Refuse a checkpoint that does not fit a model, which may be one without values."""
    _fitting_state(weights_path(path), model.state_dict())


def _fitting_state(file: Path, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint, which have the names and shapes of a model's own.

    Raises CheckpointError saying what differs: the architecture, or the number of classes.
    """
    state = read_state(file)
    for name in [n for n in own if n.endswith("num_batches_tracked")]:
        state.setdefault(name, own[name])
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or extra:
        parts = [f"lacks {len(missing)} tensors ({missing[0]}, ...)"] if missing else []
        parts += [f"has {len(extra)} others ({extra[0]}, ...)"] if extra else []
        raise CheckpointError(
            f"{file} is of another architecture: it {' and '.join(parts)}. Set model, model.head "
            "and model.small_stem as they were in training."
        )
    for name, tensor in own.items():
        if state[name].shape != tensor.shape:
            found, wanted = tuple(state[name].shape), tuple(tensor.shape)
            last = name.startswith("head.") and found[1:] == wanted[1:]
            cause = (
                f"it has {found[0]} outputs and the data {wanted[0]} classes"
                if last
                else f"{name} is {found}, the model's is {wanted}"
            )
            raise CheckpointError(
                f"{file} does not fit: {cause}. Check data.label, model, model.head and "
                "data.image_size."
            )
    return state


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the weights as safetensors, under a temporary name first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()
    }
    with replacing(path) as partial:
        save_file(state, partial)
