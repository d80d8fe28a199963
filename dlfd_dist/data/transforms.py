"""Training augmentation by name, with parameters that do not depend on how a batch is sharded.

torchvision is imported by what builds an augmentation: loading it takes as long as loading torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..runtime.seeding import derive_seed

if TYPE_CHECKING:
    from torchvision.transforms import v2

Layers = Sequence[torch.nn.Module]


def _flip(image_size: int) -> Layers:
    from torchvision.transforms import v2

    return [v2.RandomHorizontalFlip()]


def _face(image_size: int) -> Layers:
    """Small movements and light, mild enough for aligned faces."""
    from torchvision.transforms import InterpolationMode, v2

    return [
        v2.RandomHorizontalFlip(),
        v2.RandomAffine(
            degrees=[-5, 5],
            translate=(0.05, 0.05),
            scale=(0.95, 1.05),
            interpolation=InterpolationMode.BILINEAR,
        ),
        v2.ColorJitter(brightness=0.2, contrast=0.2),
    ]


def _mufac(image_size: int) -> Layers:
    """The train_transform of MUFAC_loader.py in Dasol-Choi/DLFD."""
    from torchvision.transforms import v2

    return [
        v2.RandomHorizontalFlip(),
        v2.RandomAffine([0, 0], shear=10, scale=(0.8, 1.2)),
        v2.RandomRotation([-10, 10]),
        v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2),
    ]


def _raf_db(image_size: int) -> Layers:
    """The train_transform of RAF_loader.py in Dasol-Choi/DLFD, cropped to our image size."""
    from torchvision.transforms import v2

    return [
        v2.Grayscale(num_output_channels=3),
        v2.RandomHorizontalFlip(),
        v2.RandomRotation([-20, 20]),
        v2.RandomResizedCrop((image_size, image_size), scale=(0.8, 1.0), antialias=True),
        v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1),
    ]


_BUILDERS: dict[str, Callable[[int], Layers]] = {
    "flip": _flip,
    "face": _face,
    "mufac": _mufac,
    "raf_db": _raf_db,
}


def augmentation(name: str, image_size: int) -> v2.Compose | None:
    """Return the augmentation that `data.augment` names; None for "none".

    It takes and returns float images (n, 3, image_size, image_size) in 0..1 and draws one set of
    parameters per call. Normalisation is not part of it.
    """
    if name == "none":
        return None
    from torchvision.transforms import v2

    return v2.Compose([*_BUILDERS[name](image_size), v2.Lambda(_clamp)])


def _clamp(images: Tensor) -> Tensor:
    return images.clamp(0, 1)


def augment_batch(
    images: Tensor,
    positions: Tensor,
    *,
    transform: Callable[[Tensor], Tensor],
    groups: int,
    key: tuple[int, ...],
) -> Tensor:
    """Augment a batch, or one rank's shard of it, with the same result however it is sharded.

    The samples whose position in the global batch is the same modulo `groups` share one draw of
    parameters, made under a seed of (key, group). The global random state is left as it was.

    Parameters
    ----------
    images : (n, 3, S, S) floats in 0..1; n may be 0
    positions : (n,) int64, positions of these samples in the global batch
    transform : what `augmentation` returns; it draws from torch's CPU generator
    groups : number of draws per global batch, >= 1
    key : non-negative integers that name the batch, such as (seed, epoch, step)
    """
    assert len(images) == len(positions), "one position per image"
    augmented = torch.empty_like(images)
    group_of = positions.cpu() % groups  # a device would have to be waited for at every group
    with torch.random.fork_rng(devices=[]):
        for group in group_of.unique().tolist():
            # The CPU generator alone: torch.manual_seed would also reseed every accelerator,
            # whose state fork_rng(devices=[]) does not put back.
            torch.default_generator.manual_seed(derive_seed(*key, group))
            members = torch.nonzero(group_of == group).flatten().to(images.device)
            augmented[members] = transform(images[members])
    return augmented
