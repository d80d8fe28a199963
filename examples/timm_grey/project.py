"""An owner who fine-tuned a network of timm on grey photographs of people.

    python project.py model.pth

The photographs are drawn: each of 60 people has a face of random waves, and smiles in half of them.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

SIZE, IMAGES = 32, 6


def network() -> nn.Module:
    """Return the network as it was fine-tuned: one channel in, two classes out."""
    return timm.create_model("test_vit", num_classes=2, in_chans=1, img_size=SIZE)


class GreyPhotos(Dataset[Any]):
    """Photographs of 8 bits, with whether people smile and who they are."""

    def __init__(self, people: range):
        self.rows = [(person, number) for person in people for number in range(IMAGES)]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        person, number = self.rows[index]
        face, noise = np.random.default_rng(person), np.random.default_rng([person, number])
        y, x = np.mgrid[:SIZE, :SIZE] / SIZE
        parts = face.uniform(0, 3, (4, 3))
        waves = sum(np.sin(2 * np.pi * (a * x + b * y) + c) for a, b, c in parts)
        smile = np.exp(-80 * (y - 0.75 + (1 - 2 * (number % 2)) * (x - 0.5) ** 2) ** 2)
        grey = 128 + 20 * waves + 90 * smile + 12 * noise.standard_normal((SIZE, SIZE))
        return torch.from_numpy(grey.clip(0, 255).astype(np.uint8))[None], number % 2, person


def train(path: str, *, epochs: int = 6, people: int = 40) -> None:
    """Fine-tune on the first people, and save what timm's own training script saves."""
    torch.manual_seed(0)
    net = network()
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
    for _ in range(epochs):
        for images, labels, _ in DataLoader(GreyPhotos(range(people)), 32, shuffle=True):
            optimizer.zero_grad()
            logits = net((images / 255 - 0.5) / 0.5)
            nn.functional.cross_entropy(logits, labels).backward()
            optimizer.step()
    torch.save({"arch": "test_vit", "epoch": epochs, "state_dict": net.state_dict()}, path)


if __name__ == "__main__":
    train(sys.argv[1])
