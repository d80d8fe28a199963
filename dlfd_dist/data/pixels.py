"""How the pixels of a data set become what a model reads, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..config import DataConfig
from ..errors import ConfigError
from .manifest import Images


class Pixels:
    """Brings whole numbers to 0..1 and normalises them; other images are read as they are.

    Attributes
    ----------
    range : lowest and highest value of a real pixel as the model reads it, (1, channels, 1, 1) each
    """

    def __init__(
        self,
        cfg: DataConfig,
        images: Images | None,
        *,
        dtype: torch.dtype,
        device: torch.device,
    ):
        self.device = device
        self.dtype = dtype
        channels = 3 if images is None else images.shape[0]
        kind = torch.uint8 if images is None else images.dtype
        self.whole = not kind.is_floating_point
        self.mean, self.std = (
            self._channels(f"data.{name}", values, channels, dtype)
            for name, values in (("mean", cfg.mean), ("std", cfg.std))
        )
        if self.whole:
            info = torch.iinfo(kind)
            low, high = cfg.pixel_range or (max(info.min, 0), info.max)
        else:
            assert images is not None
            low, high = cfg.pixel_range or images.found_range
        # Tensors of the device: by a plain number CUDA multiplies with its rounded inverse.
        wide = torch.float32 if self.whole else dtype
        self.low = self._channels("data.pixel_range", low, channels, wide)
        self.width = self._channels("data.pixel_range", high, channels, wide) - self.low
        if not bool((self.width >= 0).all()) or (self.whole and not bool(self.width.all())):
            raise ConfigError(
                f"data.pixel_range={cfg.pixel_range} is not allowed: the lightest pixel must be "
                "above the darkest."
            )
        self.shifted = bool(self.low.any())
        if self.whole:
            self.range = (0 - self.mean) / self.std, (1 - self.mean) / self.std
        else:
            self.range = self.low, self.low + self.width

    def _channels(self, setting: str, values: Any, channels: int, dtype: torch.dtype) -> Tensor:
        """Return one value a channel, (1, channels, 1, 1), of a number or of as many."""
        listed = values if isinstance(values, Sequence) else [values]
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in listed)
        if not numbers or len(listed) not in (1, channels):
            raise ConfigError(
                f"{setting}={values} is not allowed: the images have {channels} channels; give one "
                "number, or one a channel."
            )
        by_channel = torch.tensor(listed, dtype=dtype, device=self.device).expand(channels)
        return by_channel.reshape(1, channels, 1, 1)

    def read(self, raw: Tensor) -> Tensor:
        """Return images on the device: whole numbers in 0..1, others as they are."""
        images = raw.to(self.device, non_blocking=True)
        if not self.whole:
            return images
        numbers = images.to(torch.float32)
        return (numbers - self.low if self.shifted else numbers) / self.width

    def normalise(self, images: Tensor) -> Tensor:
        """Return what `read` returned as the model takes it."""
        images = images.to(self.dtype)
        return (images - self.mean) / self.std if self.whole else images

    def to_uint8(self, images: Tensor) -> Tensor:
        """Return images as the model takes them as uint8 pixels on the CPU."""
        if self.whole:
            pixels = (images * self.std + self.mean) * 255
        else:
            pixels = (images - self.low) / self.width.clamp(min=1e-12) * 255
        return pixels.round().clamp(0, 255).to("cpu", torch.uint8).contiguous()
