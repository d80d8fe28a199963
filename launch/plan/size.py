"""How large the network of a run is: from a table, or counted where it is somebody else's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlfd_dist.config import JobConfig

if TYPE_CHECKING:
    from dlfd_dist.data.loaders import ResolvedRows
    from dlfd_dist.models import Classifier

RELATIVE_COST = {
    "resnet18": 1.0, "densenet121": 1.6, "efficientnet_b0": 0.3, "vit_b_16": 9.7, "small": 0.08,
}  # fmt: skip
"""Multiply-adds of a forward pass, ResNet18 being 1 (torchvision's model tables; small counted)."""
MODEL_SIZES = {
    "resnet18": (11_200_000, 512), "densenet121": (7_000_000, 1024),
    "efficientnet_b0": (4_000_000, 1280), "vit_b_16": (85_800_000, 768), "small": (56_000, 48),
}  # fmt: skip
"""Parameters and features (torchvision's model tables; small counted)."""
RESNET18_FLOPS = 1.19e9
"""Of a forward pass of an image of 128 px, as torch counts them: two a multiply-add."""


@dataclass(frozen=True)
class ModelSize:
    """What the planner must know of a network."""

    cost: float
    """of a forward pass of an image of the run; that of ResNet18 at 128 px is 1"""
    parameters: int
    width: int
    """of the features that ranks gather"""
    note: str = ""
    """What the plan says of it; empty of a network of ours."""


def known_size(config: JobConfig) -> ModelSize:
    """Return the size of a network of ours; of one that no table has, that of ResNet18."""
    name = config.model.name if config.model.name in MODEL_SIZES else "resnet18"
    scale = (config.data.image_size / 128) ** 2
    return ModelSize(RELATIVE_COST[name] * scale, *MODEL_SIZES[name])


def size_of(config: JobConfig, rows: ResolvedRows) -> ModelSize:
    """Return the size of the network of a run; that of somebody else's is counted.

    It is made without values where that works. Where it cannot be counted, the note says what is
    assumed in its place.
    """
    if config.model.is_ours and config.model.name in MODEL_SIZES:
        return known_size(config)
    try:
        return _counted(config, rows)
    # A stranger's network may raise anything; whether it can run at all is checked elsewhere.
    except Exception as err:
        note = f"the network's cost is not known ({type(err).__name__}): ResNet18 is assumed"
        scale = (config.data.image_size / 128) ** 2
        return ModelSize(scale, *MODEL_SIZES["resnet18"], note)


def _counted(config: JobConfig, rows: ResolvedRows) -> ModelSize:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model = _made(config, rows).eval()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    device = next(model.parameters()).device
    image = torch.zeros(1, *rows.manifest.image_shape(config.data), device=device)
    with torch.no_grad():
        # The first reading looks for the features by a pass of its own.
        features, _ = model.read(model.module, image)
        with FlopCounterMode(display=False) as counter:
            model.module(image)
    cost = counter.get_total_flops() / RESNET18_FLOPS
    if not cost:
        raise ValueError("torch counts no operation of this network")
    note = f"a network of {parameters:,} parameters, {cost:.2g} times the cost of ResNet18"
    return ModelSize(cost, parameters, features.shape[1], note)


def _made(config: JobConfig, rows: ResolvedRows) -> Classifier:
    """Return the network without values, or with values where its maker computes with them."""
    import torch

    from dlfd_dist.jobs.models import model_outline
    from dlfd_dist.models import build_model

    channels, *_, image_size = rows.manifest.image_shape(config.data)
    try:
        with torch.device("meta"):
            model = build_model(
                config.model, image_size=image_size, channels=channels,
                num_outputs=rows.manifest.num_outputs, seed=0,
            )  # fmt: skip
            model.read(model.module, torch.zeros(1, *rows.manifest.image_shape(config.data)))
        return model
    except Exception:
        # A foreign maker may raise anything without values; what it raises with them is told.
        return model_outline(config, rows)
