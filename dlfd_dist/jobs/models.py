"""The model of a configuration: made, outlined, and tried on the data it is for."""

from __future__ import annotations

import numpy as np
import torch

from .. import huggingface
from ..config import JobConfig
from ..data.loaders import ResolvedRows
from ..data.pixels import Pixels
from ..errors import ModelError
from ..models import Classifier, build_model, check_classifier, load_weights, outline

DTYPES = {"float32": torch.float32, "float64": torch.float64}


def make_model(config: JobConfig, data: ResolvedRows, checkpoint: str | None) -> Classifier:
    model = build_model(
        config.model,
        image_size=data.manifest.image_shape(config.data)[-1],
        channels=data.manifest.image_shape(config.data)[0],
        num_outputs=data.manifest.num_outputs,
        seed=config.seed,
        bfloat16=config.runtime.update_in_bfloat16,
    ).to(DTYPES[config.runtime.dtype])
    if checkpoint is not None:
        load_weights(model, checkpoint)
    return model


def model_outline(config: JobConfig, data: ResolvedRows) -> Classifier:
    """Return the model, without values where it can be made so."""
    model = outline(
        config.model,
        image_size=data.manifest.image_shape(config.data)[-1],
        channels=data.manifest.image_shape(config.data)[0],
        num_outputs=data.manifest.num_outputs,
    )
    return model.to(DTYPES[config.runtime.dtype])


def checked_outline(config: JobConfig, data: ResolvedRows, world_size: int) -> Classifier:
    """Return the outline of the model; ModelError where it does not fit the images or labels.

    Our own models on images of files fit by their making. One that is not ours is tried with the
    weights of the checkpoint, where that is there already.
    """
    if config.model.library == huggingface.LIBRARY:
        _check_label_names(config, data.manifest.label_names)
    model = model_outline(config, data)
    if not config.model.is_ours and config.checkpoint is not None:
        load_weights(model, config.checkpoint)
    images = data.manifest.images
    if config.model.is_ours and images is None:
        return model
    device = next(model.parameters()).device
    if images is None:
        tried = torch.zeros(2, *data.manifest.image_shape(config.data))
    else:
        pixels = Pixels(config.data, images, dtype=torch.float32, device=torch.device("cpu"))
        tried = pixels.normalise(pixels.read(images[np.arange(2)]))
    check_classifier(
        model, tried.to(device, DTYPES[config.runtime.dtype]),
        num_outputs=data.manifest.num_outputs, multi_label=data.manifest.multi_label,
        world_size=world_size,
    )  # fmt: skip
    return model


def _check_label_names(config: JobConfig, names: list[str]) -> None:
    """Refuse a model of a folder that gives the classes of the data other numbers."""
    assert config.model.folder is not None
    own = huggingface.label_names(config.model.folder)
    if own is not None and own != names and sorted(own) == sorted(names):
        place = next(i for i, pair in enumerate(zip(own, names, strict=True)) if len({*pair}) > 1)
        raise ModelError(
            f"The class {place} is '{own[place]}' in config.json of model.folder="
            f"{config.model.folder}, and '{names[place]}' in the data: number the classes of the "
            "data as the model does."
        )


def num_bytes(model: Classifier) -> int:
    return sum(t.numel() * t.element_size() for t in model.state_dict().values())
