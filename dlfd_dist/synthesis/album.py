"""The first synthesised images, kept because people want to see them (synthesis.save=N)."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..run_dir import replacing


class Album:
    """Up to `limit` pairs of original and synthesised images, written after every addition.

    Parameters
    ----------
    folder : gets images.safetensors (uint8, (n, channels, H, W) each) and contact_sheet.png
    """

    def __init__(self, folder: Path, limit: int):
        self.folder = folder
        self.limit = limit
        self.ids = torch.empty(0, dtype=torch.int64)
        self.original = torch.empty(0, dtype=torch.uint8)
        self.synthesised = torch.empty(0, dtype=torch.uint8)

    @property
    def full(self) -> bool:
        return len(self.ids) >= self.limit

    def add(self, ids: Tensor, original: Tensor, synthesised: Tensor) -> None:
        room = self.limit - len(self.ids)
        parts = (("ids", ids), ("original", original), ("synthesised", synthesised))
        for name, new in parts:
            stored = getattr(self, name)
            setattr(self, name, torch.cat([stored, new[:room]]) if len(stored) else new[:room])

    def write(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = {"ids": self.ids, "original": self.original, "synthesised": self.synthesised}
        with replacing(self.folder / "images.safetensors") as partial:
            save_file({k: v.contiguous() for k, v in tensors.items()}, partial)
        with replacing(self.folder / "contact_sheet.png") as partial:
            contact_sheet(self.original, self.synthesised).save(partial, format="png")

    def restore(self, count: int) -> None:
        """Go back to the first `count` pairs, as they were when a checkpoint was written."""
        if count:
            stored = load_file(self.folder / "images.safetensors")
            self.ids, self.original, self.synthesised = (
                stored[name][:count] for name in ("ids", "original", "synthesised")
            )


def contact_sheet(original: Tensor, synthesised: Tensor, columns: int = 8) -> Image.Image:
    """Return a sheet of pairs: a row of originals, under it the row of what became of them."""
    height, width = original.shape[-2:]
    columns = min(columns, len(original))
    rows = -(-len(original) // columns)
    sheet = Image.new("RGB", (columns * width, 2 * rows * height), "white")
    for index, pair in enumerate(zip(original, synthesised, strict=True)):
        row, column = divmod(index, columns)
        for k, image in enumerate(pair):
            picture = Image.fromarray(_colours(image).permute(1, 2, 0).numpy())
            sheet.paste(picture, (column * width, (2 * row + k) * height))
    return sheet


def _colours(image: Tensor) -> Tensor:
    """Return an image of three channels: the first three, or the first one as grey."""
    return image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
