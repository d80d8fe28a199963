"""Reading weights: our safetensors, foreign .pth files (never unpickled), the authors' names."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import pickle
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .. import huggingface, libraries
from ..config import ModelConfig
from ..errors import CheckpointError, ConfigError
from ..run_dir import RunDir, replacing
from .backbones import backbones
from .classifier import Classifier, outline
from .heads import HEADS

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "model_ema", "ema")
"""Under which of its keys a training's checkpoint keeps the weights."""
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "_model.")
"""What DDP, torch.compile and wrapping modules put before every name, in any order."""
CLASSIFIERS = ("fc.", "classifier.1.", "classifier.", "heads.head.", "heads.")
"""Prefixes of the last linear layer in torchvision's models."""
COMPILED = "_orig_mod."
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""Of BatchNorm: no parameters."""
DAMAGED = ("invalid load key", "Unsupported operand", "stack underflow", "truncated")
"""What the unpickler says of bytes that are no pickle, and not of foreign code."""


def weights_path(path: str | Path) -> Path:
    """Return the file that a checkpoint setting names: itself, a run's, or one of transformers."""
    path = Path(path)
    if huggingface.holds_model(path):
        return path / huggingface.WEIGHTS
    if why := huggingface.lacking(path):
        raise CheckpointError(f"{path} {why}.")
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
    authors' `base_model.` and `features.`, torchvision's plain names, the prefixes of PREFIXES, a
    classifier that is a Sequential with one Linear, and a state inside a dictionary.
    """
    return our_names(tensors_of(path))


def tensors_of(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file under the names that stand there."""
    return opened(path)[0]


def opened(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return the tensors of a file, and the keys of the dictionaries that hold them in it.

    Those of a folder of transformers are under the names that they have in the model.
    """
    if path.name == huggingface.WEIGHTS and huggingface.holds_model(path.parent):
        return huggingface.tensors(path.parent), ()
    state, keys = _opened(_load(path))
    if not isinstance(state, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()
    ):
        raise CheckpointError(f"{path} does not hold a dictionary of tensors (a state_dict).")
    if not state:
        raise CheckpointError(f"{path} holds no tensor: give the file of a model's weights.")
    return state, keys


def _load(path: Path) -> Any:
    _check_binary(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as err:
        if any(sign in str(err) for sign in DAMAGED) and not _is_plain_pickle(path):
            raise CheckpointError(f"{path} is not a readable checkpoint: it is damaged.") from err
        raise CheckpointError(
            f"{path} holds more than tensors, and foreign code is never run: save its state_dict() "
            "alone, or as safetensors."
        ) from err
    except Exception as err:  # the unpickler meets any bytes: IndexError, struct.error, and more
        raise CheckpointError(f"{path} is not a readable checkpoint ({_one_line(err)}).") from err


def _is_plain_pickle(path: Path) -> bool:
    """Return whether a file begins as Python's own pickles do, of which torch reads none."""
    with path.open("rb") as file:
        return file.read(3) in (b"\x80\x04\x95", b"\x80\x05\x95")


TEXTS = {
    "version https://git-lfs": "a git-LFS pointer: fetch the file itself with 'git lfs pull'",
    "<!doctype html": "a web page", "<html": "a web page", "<?xml": "XML", "{": "JSON",
}  # fmt: skip
"""Beginnings of text files that are met in place of checkpoints."""


def _check_binary(path: Path) -> None:
    """Refuse an empty file and a text file by what they are."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as err:
        raise CheckpointError(f"{path} may not be read ({err.strerror}).") from err
    if not head:
        raise CheckpointError(f"{path} is empty, and not a checkpoint.")
    try:
        text = head.decode("ascii")
    except UnicodeDecodeError:
        return
    if not all(sign.isprintable() or sign.isspace() for sign in text):
        return
    kinds = [kind for start, kind in TEXTS.items() if text.lstrip().lower().startswith(start)]
    raise CheckpointError(
        f"{path} is a text file{f' ({kinds[0]})' if kinds else ''}, not a checkpoint."
    )


def _opened(state: Any) -> tuple[Any, tuple[str, ...]]:
    """Return the dictionary of weights inside a training's checkpoint, and the keys to it."""
    keys: tuple[str, ...] = ()
    while isinstance(state, dict) and not all(isinstance(v, Tensor) for v in state.values()):
        inner = [key for key in WRAPPERS if isinstance(state.get(key), dict)]
        inner = inner or [key for key, value in state.items() if _holds_tensors(value)]
        if not inner or (len(inner) > 1 and not any(key in state for key in WRAPPERS)):
            break
        keys, state = (*keys, inner[0]), state[inner[0]]
    return state, keys


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(
        isinstance(v, Tensor) for v in value.values()
    )  # fmt: skip


def _one_line(err: Exception) -> str:
    return (str(err).strip().splitlines() or [type(err).__name__])[0]


def our_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under our names; names that are not known become the backbone's."""
    names = _plain_names(state)
    lone = _lone_linear(names.values())
    return {_our_name(plain, lone): state[name] for name, plain in names.items()}


def _plain_names(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Return, by the name in the file, each name without the prefixes that all of them have."""
    names = {name: name.replace(COMPILED, "") for name in state}
    while prefix := next((p for p in PREFIXES if _all_begin(names.values(), p)), ""):
        names = {name: plain.removeprefix(prefix) for name, plain in names.items()}
    return names


def _all_begin(names: Collection[str], prefix: str) -> bool:
    return bool(names) and all(name.startswith(prefix) for name in names)


def _lone_linear(names: Collection[str]) -> str:
    """Return the prefix of the one layer in a Sequential classifier, such as `fc.1.`, or nothing.

    A Sequential of dropout and Linear numbers its Linear; one with several layers is no linear
    head.
    """
    for prefix in ("fc.", "classifier.", "heads."):
        layers = {n.removeprefix(prefix).split(".")[0] for n in names if n.startswith(prefix)}
        if len(layers) == 1 and (layer := layers.pop()).isdigit():
            return f"{prefix}{layer}."
    return ""


def _our_name(name: str, lone: str) -> str:
    if name.startswith(("backbone.", "head.")):
        return name
    if name.startswith("base_model."):
        return "backbone." + name.removeprefix("base_model.")
    # `features.0.weight` is the authors' head; densenet's own `features` go deeper.
    parts = name.split(".")
    if parts[0] == "features" and len(parts) == 3 and parts[1].isdigit():
        return "head." + ".".join(parts[1:])
    for prefix in filter(None, (lone, *CLASSIFIERS)):
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
    tensors = tensors_of(file)
    state = _under_names(tensors, own)
    for name in [n for n in own if n.endswith("num_batches_tracked")]:
        state.setdefault(name, own[name])
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or extra:
        parts = [f"lacks {len(missing)} tensors ({missing[0]}, ...)"] if missing else []
        parts += [f"has {len(extra)} others ({extra[0]}, ...)"] if extra else []
        raise CheckpointError(
            f"{file} is of another architecture: it {' and '.join(parts)}. {_advice(file, tensors)}"
        )
    for name, tensor in own.items():
        if state[name].shape != tensor.shape:
            raise CheckpointError(f"{file} does not fit: {_misfit(name, state[name], tensor)}")
    return state


def _under_names(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under the names that fit a model best: ours, plain ones, or its own."""
    return {name: tensors[key] for name, key in names_in_file(tensors, own).items()}


def names_in_file(tensors: Mapping[str, Tensor], own: Collection[str]) -> dict[str, str]:
    """Return the name in a file by the name that it stands for in a model.

    Parameters
    ----------
    tensors : those of the file, by the names that stand there
    own : the names of the model
    """
    plain = _plain_names(tensors)
    lone = _lone_linear(plain.values())
    candidates = [
        {_our_name(name, lone): key for key, name in plain.items()},
        {name: key for key, name in plain.items()},
        {name: name for name in tensors},
    ]
    return min(candidates, key=lambda names: len(set(own) ^ names.keys()))


def _misfit(name: str, given: Tensor, wanted: Tensor) -> str:
    shapes = tuple(given.shape), tuple(wanted.shape)
    cause = f"{name} is {shapes[0]}, the model's is {shapes[1]}"
    is_other_number = shapes[0] and shapes[0][1:] == shapes[1][1:]
    if name.startswith(("head.", *CLASSIFIERS)) and is_other_number:
        cause = f"it has {shapes[0][0]} outputs and the data {shapes[1][0]} classes"
        if shapes[0][0] == shapes[1][0] - 1:
            cause += " (labels that begin at 1 make one class too many: number them from 0)"
    return f"{cause}. Check data.label, model, model.head and data.image_size."


def _advice(file: Path, tensors: Mapping[str, Tensor]) -> str:
    """Return the settings of a model that the tensors fit, else the names that they have."""
    for library, network in library_networks(file, tensors):
        return f"It fits model={library} model.name={network}: set these."
    for name, head, stems in fitting(tensors):
        stem = " or ".join(str(small).lower() for small in stems)
        return f"It fits model={name} model.head={head} model.small_stem={stem}: set these."
    first, *others = tensors
    shown = f"{first}, {', ..., ' if len(others) > 1 else ''}{others[-1]}" if others else first
    return (
        f"Its names are {shown}: these are of none of {', '.join(backbones.names())}. Set model, "
        "model.head and model.small_stem as they were in training."
    )


def fitting(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, str, list[bool]]]:
    """Yield model, head and the stems, small or not, that tensors fit, whatever their classes."""
    state = our_names(tensors)
    for name, head in itertools.product(backbones.names(), HEADS):
        stems = [stem for stem in (False, True) if _fits(state, name, head, stem)]
        if stems:
            yield name, head, stems


def library_networks(file: Path, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    """Yield (library, name) of the networks of timm and torchvision that a file's tensors fit.

    Tried are those that the file, its name, its folder or a config.json beside it names, and those
    of torchvision with as many parameters.
    """
    names = _plain_names(tensors)
    state = {plain: tensors[name] for name, plain in names.items()}
    for library, name in _named_networks(file, state):
        if _fits_network(state, library, name):
            yield library, name


def _named_networks(file: Path, state: Mapping[str, Tensor]) -> list[tuple[str, str]]:
    content = _load(file)
    words = [content.get(key) for key in ("arch", "architecture")]
    description = file.with_name("config.json")
    if description.is_file():
        with contextlib.suppress(OSError, ValueError):
            words.append(json.loads(description.read_bytes()).get("architecture"))
    counts = libraries.with_as_many_parameters(
        sum(t.numel() for n, t in state.items() if not n.endswith(STATISTICS)),
        [tuple(t.shape) for t in state.values() if t.ndim == 2],
    )
    said = libraries.said([w for w in words if isinstance(w, str)], f"{file.parent.name} {file}")
    return list(dict.fromkeys([*said, *counts]))


def _fits_network(state: Mapping[str, Tensor], library: str, name: str) -> bool:
    """Return whether a network has these names and shapes, but for classes and image size."""
    channels = next((t.shape[1] for t in state.values() if t.ndim == 4), 3)
    cfg = ModelConfig(name, library=library)
    try:
        module = libraries.build(
            cfg, image_size=libraries.image_size(library, name), channels=channels, num_outputs=2
        )
    except ConfigError:
        return False
    shapes = {n: tuple(t.shape) for n, t in module.state_dict().items()}
    tracked = "num_batches_tracked"
    if {n for n in state if not n.endswith(tracked)} != {
        n for n in shapes if not n.endswith(tracked)
    }:
        return False
    free = {n for n in shapes if "pos_embed" in n or "pos_embedding" in n} | set(list(shapes)[-2:])
    return all(tuple(state[n].shape) == shapes[n] for n in shapes.keys() & state.keys() - free)


def _fits(state: Mapping[str, Tensor], name: str, head: str, small_stem: bool) -> bool:
    """Return whether a model has these names and shapes, but for classes and image size."""
    shapes = _shapes(name, head, small_stem)
    names = {name for name in state if not name.endswith("num_batches_tracked")}
    if names != shapes.keys():
        return False
    free = {"backbone.encoder.pos_embedding", *list(shapes)[-2:]}
    return all(tuple(state[name].shape) == shapes[name] for name in names - free)


@functools.cache
def _shapes(name: str, head: str, small_stem: bool) -> dict[str, tuple[int, ...]]:
    """Return the shape of every weight of a model with two outputs; nothing is allocated."""
    cfg = ModelConfig(name, head, small_stem=small_stem)
    model = outline(cfg, image_size=64, num_outputs=2)
    state = model.state_dict().items()
    return {n: tuple(t.shape) for n, t in state if not n.endswith("num_batches_tracked")}


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the weights as safetensors, under a temporary name first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, tensor in model.state_dict().items():
        values = tensor.detach().cpu().contiguous()
        # safetensors refuses weights that layers share; each layer gets its own in the file.
        state[name] = values.clone() if values.data_ptr() in places else values
        places.add(values.data_ptr())
    with replacing(path) as partial:
        save_file(state, partial)
