"""Image classifiers that transformers saved into a folder: made, read and saved without a network.

A folder holds config.json, model.safetensors and, where its owner saved one, the settings of an
image processor. Code of a folder is never run, and a pickle is never read.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import shutil
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn

LIBRARY = "huggingface"
"""What model.library and data.name call it."""
PACKAGE = "transformers"
CONFIG, WEIGHTS, PROCESSOR = "config.json", "model.safetensors", "preprocessor_config.json"
LOCAL = {"local_files_only": True, "trust_remote_code": False}
BYTE = 1 / 255
"""What an image processor multiplies pixels with before mean and standard deviation."""


def holds_model(folder: Path) -> bool:
    """Whether a folder holds a model that transformers saved as safetensors, in one file."""
    try:
        config = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "model_type" in config and (folder / WEIGHTS).is_file()


def lacking(folder: Path) -> str | None:
    """Return what keeps the weights of a folder from being read, with advice; None: nothing."""
    if (folder / f"{WEIGHTS}.index.json").is_file():
        return f"holds its weights in several files: save it with one {WEIGHTS} (max_shard_size)"
    if (folder / "pytorch_model.bin").is_file() and not (folder / WEIGHTS).is_file():
        return (
            "holds its weights as a pickle (pytorch_model.bin), which is never read: save it with "
            "save_pretrained, which writes safetensors"
        )
    return None


def check_folder(folder: str) -> None:
    """Raise ConfigError for a folder that holds no image classifier of transformers."""
    config = _config(folder)
    kinds = _transformers().MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING
    if type(config) not in kinds:
        raise ConfigError(
            f"model.folder={folder} holds a model of the type {config.model_type}, for which "
            "transformers has no image classifier."
        )


def _config(folder: str) -> Any:
    """Return what config.json says, as transformers reads it."""
    settings = _read(Path(folder), CONFIG)
    if settings is None or "model_type" not in settings:
        lack = f"has no {CONFIG}" if settings is None else f"has a {CONFIG} without a model_type"
        raise ConfigError(
            f"model.folder={folder} {lack}: give a folder that save_pretrained of transformers "
            "wrote."
        )
    transformers = _transformers()
    try:
        return transformers.AutoConfig.from_pretrained(folder, **LOCAL)
    # transformers raises many kinds for what it does not know.
    except Exception as err:
        why = (
            "it names code of its own (auto_map), which is never run"
            if "auto_map" in settings
            else _first_line(err)
        )
        raise ConfigError(
            f"model.folder={folder} holds a {CONFIG} that transformers {version(PACKAGE)} does not "
            f"read ({why})."
        ) from err


def _read(folder: Path, name: str) -> dict[str, Any] | None:
    """Return a JSON file of a folder; None where there is none."""
    if not folder.is_dir():
        raise ConfigError(f"model.folder={folder} is not a folder.")
    try:
        settings = json.loads((folder / name).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as err:
        raise ConfigError(f"{folder / name} cannot be read ({_first_line(err)}).") from err
    if not isinstance(settings, dict):
        raise ConfigError(f"{folder / name} holds no settings: it must be a JSON object.")
    return settings


def _first_line(err: Exception) -> str:
    lines = str(err).strip().splitlines() or [type(err).__name__]
    return lines[0].rstrip(".:")


def _transformers() -> ModuleType:
    try:
        return importlib.import_module(PACKAGE)
    except ImportError as err:
        raise ConfigError(
            "model=huggingface needs the package transformers. Install it with: "
            "pip install 'dlfd-dist[huggingface]'"
        ) from err


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Let transformers draw no progress and log errors alone inside the block."""
    logging = _transformers().utils.logging
    level, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()


def digests(folder: str) -> dict[str, str]:
    """Return SHA-256 of the name and version of transformers, and of config.json."""
    code = hashlib.sha256(f"{PACKAGE}=={version(PACKAGE)}".encode()).hexdigest()
    config = hashlib.sha256((Path(folder) / CONFIG).read_bytes()).hexdigest()
    return {"model_code": code, "model_config": config}


def normalisation(folder: str) -> tuple[list[float], list[float]] | None:
    """Return mean and standard deviation by channel of the image processor; None without one.

    Raises ConfigError where it brings pixels elsewhere than to 0..1 before.
    """
    settings = _read(Path(folder), PROCESSOR)
    if settings is None:
        return None
    factor = settings.get("rescale_factor", BYTE) if settings.get("do_rescale", True) else 1
    if not isinstance(factor, float) or abs(factor - BYTE) > 1e-6:
        raise ConfigError(
            f"{Path(folder) / PROCESSOR} multiplies pixels with {factor}, not with 1/255: give "
            "data.mean and data.std of pixels in 0..1."
        )
    if not settings.get("do_normalize", True):
        return [0.0] * 3, [1.0] * 3
    mean, std = (settings.get(name) for name in ("image_mean", "image_std"))
    if not (isinstance(mean, list) and isinstance(std, list) and _numbers([*mean, *std])):
        raise ConfigError(
            f"{Path(folder) / PROCESSOR} has no image_mean and image_std: give data.mean and "
            "data.std."
        )
    return mean, std


def _numbers(values: list[Any]) -> bool:
    return all(isinstance(value, int | float) for value in values)


def label_names(folder: str) -> list[str] | None:
    """Return the names of the classes by their numbers; None of those that nobody named."""
    names = _config(folder).id2label
    listed = [str(names[number]) for number in sorted(names)]
    return None if listed == [f"LABEL_{i}" for i in range(len(listed))] else listed


def build(folder: str) -> nn.Module:
    """Return the classifier of a folder with new weights in float32; its forward gives logits."""
    import torch

    transformers = _transformers()
    with _quiet():
        module = transformers.AutoModelForImageClassification.from_config(
            _config(folder), dtype=torch.float32, trust_remote_code=False
        )
    return _giving_logits(module)


def _giving_logits(module: nn.Module) -> nn.Module:
    """Let the forward pass of a classifier return its logits alone, under its own names."""
    kind: Any = type(module)
    module.config.return_dict = True  # type: ignore[union-attr]

    def forward(self: nn.Module, images: Tensor) -> Tensor:
        return kind.forward(self, pixel_values=images).logits

    own = {"forward": forward, "__module__": kind.__module__}
    module.__class__ = type(kind.__name__, (kind,), own)
    return module


def load(folder: Path) -> Any:
    """Return the classifier of a folder as transformers has it, with its weights.

    Raises CheckpointError where the weights are not those of the model that config.json says.
    """
    transformers = _transformers()
    try:
        with _quiet():
            module, info = transformers.AutoModelForImageClassification.from_pretrained(
                folder, use_safetensors=True, output_loading_info=True, **LOCAL
            )
    except Exception as err:
        raise CheckpointError(f"transformers does not read {folder} ({_first_line(err)}).") from err
    for what, verb in (("missing_keys", "lacks"), ("unexpected_keys", "has others than")):
        if names := sorted(map(str, info[what])):
            raise CheckpointError(
                f"{folder / WEIGHTS} {verb} {len(names)} weights of the model that its {CONFIG} "
                f"says ({names[0]}, ...): give the folder of a whole image classifier."
            )
    return module.eval()


def tensors(folder: Path) -> dict[str, Tensor]:
    """Return the weights of a folder under the names that they have in the model.

    In the file they may have others: transformers renames them when it reads and writes.
    """
    return dict(load(folder).state_dict())


def save(folder: Path, state: Mapping[str, Tensor], out: Path) -> None:
    """Write the classifier of a folder with other weights, as save_pretrained does.

    What the folder has of an image processor is copied.
    """
    module = load(folder)
    own = module.state_dict()
    module.load_state_dict({name: state[name].to(tensor.dtype) for name, tensor in own.items()})
    with _quiet():
        module.save_pretrained(out)
    if (folder / PROCESSOR).is_file():
        shutil.copyfile(folder / PROCESSOR, out / PROCESSOR)


def is_of_transformers(module: nn.Module) -> bool:
    return type(module).__module__.startswith(f"{PACKAGE}.")


def blocks(module: nn.Module) -> list[list[str]]:
    """Return the names of the layers of each block, in forward order.

    A list of layers is divided into them; a norm belongs to the block before it.
    """
    from torch import nn

    groups: list[list[str]] = []
    for name, unit in _units(module, ""):
        if groups and isinstance(unit, nn.LayerNorm | nn.BatchNorm2d):
            groups[-1].append(name)
        else:
            groups.append([name])
    return groups


def _units(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    from torch import nn

    for name, child in module.named_children():
        if any(isinstance(layer, nn.ModuleList) for layer in child.modules()):
            yield from _units(child, f"{prefix}{name}.")
        elif next(child.parameters(), None) is not None:
            yield f"{prefix}{name}", child
