"""The delivered model of a run in the form that other programs read, under the names it came with.

What is written is read back by its own reader and compared before it gets its name: a file that
answers otherwise than the model is never there.
"""

from __future__ import annotations

import importlib
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .. import huggingface
from ..config import JobConfig
from ..digests import file_digest
from ..errors import CheckpointError, ConfigError, ExportError, ModelError
from ..models import build_model, load_weights, weights_path
from ..models.weights import names_in_file, opened, tensors_of
from ..run_dir import RunDir, replacing, write_text

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""By the precision of the file, the largest difference of a logit, in units of the largest."""
BATCHES = (4, 3)
"""Images that outputs are compared on; two sizes show that the file takes any."""
OUTPUTS = f"outputs of {' and '.join(str(number) for number in BATCHES)} images"


@dataclass(frozen=True)
class Incoming:
    """How the file that a model came from holds its weights."""

    names: Mapping[str, str]
    """The name in the file, by the model's own."""
    keys: tuple[str, ...]
    """The keys of the dictionaries around the weights."""
    dtypes: Mapping[str, torch.dtype]
    """By the model's own name."""
    suffix: str


@dataclass(frozen=True)
class Exported:
    """A file that was written, and what was compared."""

    file: Path
    form: str
    compared: str
    largest_difference: float
    """Of a logit; of a state dict whose module nobody named, of a weight."""


def incoming(
    run: RunDir, config: JobConfig, checkpoint: str | None, load: Callable[[Path], JobConfig]
) -> Incoming:
    """Return how the file that a run began with, or the run before it, holds its weights.

    Parameters
    ----------
    checkpoint : where that file lies now; None: where it lay
    load : reads the configuration of an earlier run

    Raises
    ------
    CheckpointError where the file is gone, or is another one.
    """
    own = load_file(run.model)
    path = checkpoint or config.checkpoint
    if path is None:
        names, dtypes = {n: n for n in own}, {n: t.dtype for n, t in own.items()}
        return Incoming(names, (), dtypes, ".safetensors")
    if Path(path).is_dir() and RunDir(Path(path)).model.is_file():
        before = RunDir(Path(path))
        return incoming(before, load(before.config), None, load)
    try:
        file = weights_path(path)
    except CheckpointError as err:
        raise CheckpointError(
            f"{path} is not there any more, from which {run.path} began and whose names the export "
            "takes: give checkpoint=PATH of where it lies now."
        ) from err
    if file_digest(file) != _inputs(run).get("checkpoint"):
        raise CheckpointError(
            f"{file} is not the file that {run.path} began with, whose names the export takes: "
            "give checkpoint=PATH of that file."
        )
    tensors, keys = opened(file)
    names = {n: theirs for n, theirs in names_in_file(tensors, own).items() if n in own}
    dtypes = {name: tensors[theirs].dtype for name, theirs in names.items()}
    return Incoming(names, keys, dtypes, file.suffix)


def _inputs(run: RunDir) -> dict[str, str]:
    return json.loads(run.identity.read_text(encoding="utf-8"))["inputs"]


def module_of(run: RunDir, config: JobConfig) -> nn.Module:
    """Return the module of a finished run with its delivered weights, in evaluation mode."""
    shape = _image_shape(run)
    model = build_model(
        config.model, image_size=shape[-1], channels=shape[0], seed=0,
        num_outputs=len(run.read_result()["label_names"]),
    )  # fmt: skip
    model.to(next(t.dtype for t in load_file(run.model).values() if t.is_floating_point()))
    load_weights(model, run.path)
    return model.module.eval()


def _image_shape(run: RunDir) -> tuple[int, int, int]:
    """Return channels, height and width of the images; the first convolution has the channels."""
    size = run.read_result()["image_size"]
    height, width = (size, size) if isinstance(size, int) else size
    weights = [t for t in tensors_of(run.model).values() if t.ndim == 4]
    return weights[0].shape[1] if weights else 3, height, width


def export(
    run: RunDir, module: nn.Module | None, came: Incoming, form: str, file: Path
) -> Exported:
    """Write the model of a run, compare it, and only then give it its name.

    Parameters
    ----------
    module : that of the run; None: not known here, which a state dict allows

    Raises
    ------
    ModelError where torch cannot export the module; ExportError where the file answers otherwise.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as partial:
        # Readers look at the ending.
        named = partial.with_name(f"{partial.name}{file.suffix}")
        try:
            if form == "state-dict":
                difference = _state_dict(run, module, came, named)
            else:
                assert module is not None
                difference = _program(run, module, came, form, named)
            named.replace(partial)
        finally:
            named.unlink(missing_ok=True)
    return Exported(file, form, OUTPUTS if module is not None else "weights", difference)


def export_folder(
    run: RunDir, module: nn.Module, folder: Path, out: Path, *, card: str | None = None
) -> Exported:
    """Write the model of a run as transformers saves it, compare it, and then give it its name.

    Parameters
    ----------
    module : that of the run
    folder : where the run's model came from, whose settings and precision are kept
    card : text of README.md

    Raises
    ------
    ExportError where transformers reads a model that answers otherwise.
    """
    dtype = next(module.parameters()).dtype
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as partial:
        huggingface.save(folder, module.state_dict(), partial)
        if card is not None:
            write_text(partial / "README.md", card)
        written = huggingface.load(partial)
        kinds = [p.dtype for p in written.parameters()]
        coarsest = min(kinds, key=lambda kind: torch.finfo(kind).bits)
        written.to(dtype)
        difference = _compared(
            run, module, lambda images: written(pixel_values=images).logits, coarsest
        )
    return Exported(out, huggingface.LIBRARY, OUTPUTS, difference)


def check_folder_of(run: RunDir, folder: Path) -> None:
    """Raise ConfigError where a folder is not that which the model of a run came from."""
    huggingface.check_folder(str(folder))
    if huggingface.digests(str(folder))["model_config"] != _inputs(run).get("model_config"):
        raise ConfigError(
            f"model.folder={folder} has another config.json than the model of {run.path} was made "
            "by: give model.folder=DIR of where that folder lies now."
        )


def _state_dict(run: RunDir, module: nn.Module | None, came: Incoming, file: Path) -> float:
    own = load_file(run.model)
    tensors = {theirs: own[name].to(came.dtypes[name]) for name, theirs in came.names.items()}
    if file.suffix == ".safetensors":
        save_file(tensors, file)
    else:
        content: Any = tensors
        for key in reversed(came.keys):
            content = {key: content}
        torch.save(content, file)
    read = tensors_of(file)
    weights = {name: read[theirs].to(own[name].dtype) for name, theirs in came.names.items()}
    kinds = [came.dtypes[name] for name, t in own.items() if t.is_floating_point()]
    coarsest = min(kinds, key=lambda kind: torch.finfo(kind).bits)
    if module is None:
        pairs = [(own[name].double(), t.double()) for name, t in weights.items()]
        difference = float(torch.stack([(a - b).abs().max() for a, b in pairs]).max())
        largest = float(torch.stack([a.abs().max() for a, _ in pairs]).max())
        _require_close(difference, largest, coarsest)
        return difference

    def answer(images: Tensor) -> Tensor:
        # What the file has not, such as counts of batches, stays as it is.
        return torch.func.functional_call(module, weights, (images,))

    return _compared(run, module, answer, coarsest)


def _program(run: RunDir, module: nn.Module, came: Incoming, form: str, file: Path) -> float:
    renamed = Renamed(module, came.names).eval()
    dtype = next(module.parameters()).dtype
    images = _images(run, BATCHES[0], dtype)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.export.export(
                renamed, (images,), dynamic_shapes=({0: torch.export.Dim.AUTO},)
            )
            if form == "torch-export":
                torch.export.save(program, file)
            else:
                _write_onnx(program, file)
    except (ConfigError, OSError):
        raise
    # torch raises many kinds for what it cannot trace or translate.
    except Exception as err:
        lines = str(err).strip().splitlines() or [type(err).__name__]
        raise ModelError(
            f"torch cannot export the model as {form} ({type(err).__name__}: "
            f"{lines[0].rstrip('.')}): take --to state-dict."
        ) from err
    answer = _read_onnx(file) if form == "onnx" else torch.export.load(file).module()
    return _compared(run, module, answer, dtype)


def _write_onnx(program: Any, file: Path) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        require_package(package)
    # optimize=True would fold BatchNorm into convolutions, and its names would be gone.
    written = torch.onnx.export(
        program, input_names=["images"], output_names=["logits"], optimize=False, verbose=False
    )
    assert written is not None
    written.save(file, external_data=False)


def _read_onnx(file: Path) -> Callable[[Tensor], Tensor]:
    onnxruntime = importlib.import_module("onnxruntime")
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def require_package(name: str) -> None:
    """Raise ConfigError where a package that writes or reads ONNX is missing."""
    try:
        importlib.import_module(name)
    except ImportError as err:
        raise ConfigError(
            f"'dlfd export --to onnx' needs the package {name}. Install it with: pip install "
            "'dlfd-dist[export]'"
        ) from err


def _images(run: RunDir, number: int, dtype: torch.dtype) -> Tensor:
    drawn = np.random.default_rng(number).standard_normal((number, *_image_shape(run)))
    return torch.from_numpy(drawn).to(dtype)


@torch.no_grad()
def _compared(
    run: RunDir, module: nn.Module, answer: Callable[[Tensor], Tensor], kind: torch.dtype
) -> float:
    """Return the largest difference of a logit; ModelError where it is too large."""
    differences, sizes = [], []
    for number in BATCHES:
        images = _images(run, number, next(module.parameters()).dtype)
        wanted = module(images)
        try:
            given = answer(images)
        # The readers raise kinds of their own.
        except Exception as err:
            lines = str(err).strip().splitlines() or [type(err).__name__]
            raise ModelError(
                f"The exported model does not take {number} images ({lines[0].rstrip('.')}): take "
                "--to state-dict. Nothing was written."
            ) from err
        differences.append((given - wanted).abs().max())
        sizes.append(wanted.abs().max())
    # torch's max keeps a NaN, which Python's may drop.
    difference = float(torch.stack(differences).max())
    _require_close(difference, float(torch.stack(sizes).max()), kind)
    return difference


def _require_close(difference: float, largest: float, kind: torch.dtype) -> None:
    # not <=: a NaN is no small difference
    if not difference <= TOLERANCE[kind] * max(largest, 1.0):
        raise ExportError(
            f"The exported model answers otherwise than the run's: they differ by "
            f"{difference:.2g}, and the largest value is {largest:.2g}. Nothing was written."
        )


class Renamed(nn.Module):
    """A module whose weights bear the names of the file that they came from."""

    _inner: nn.Module
    _names: dict[str, str]

    def __init__(self, module: nn.Module, names: Mapping[str, str]):
        super().__init__()
        # Not registered: its weights would be there twice.
        object.__setattr__(self, "_inner", module)
        self._names = dict(names)
        own = {
            **dict(module.named_parameters(remove_duplicate=False)),
            **dict(module.named_buffers()),
        }
        for name, theirs in names.items():
            *path, last = theirs.split(".")
            place: nn.Module = self
            for part in path:
                if part not in place._modules:
                    place.add_module(part, nn.Module())
                place = place.get_submodule(part)
            if isinstance(tensor := own[name], nn.Parameter):
                place.register_parameter(last, tensor)
            else:
                place.register_buffer(last, tensor)

    def forward(self, images: Tensor) -> Tensor:
        tensors = _tensors(self)
        weights = {name: tensors[there] for name, there in self._names.items()}
        return torch.func.functional_call(self._inner, weights, (images,))


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by name; shared ones under each of their names."""
    parameters = module.named_parameters(remove_duplicate=False)
    return {**dict(parameters), **dict(module.named_buffers(remove_duplicate=False))}
