"""A project as there are many: its own network, its own Dataset, its own loop, torch.save.

    python project.py model.pth

The portraits are drawn: each of 60 people has a face of random waves, and smiles in half of them.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

SIZE, IMAGES = 16, 6


class Portraits(Dataset[Any]):
    """Grey portraits of some people, with whether they smile and who they are."""

    def __init__(self, people: range):
        self.rows = [(person, number) for person in people for number in range(IMAGES)]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        person, number = self.rows[index]
        return draw(person, number), number % 2, person


@functools.cache
def draw(person: int, number: int) -> Tensor:
    """Return a portrait (1, SIZE, SIZE); those with an odd number smile."""
    face, noise = np.random.default_rng(person), np.random.default_rng([person, number])
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    parts = face.uniform(0, 3, (4, 3))
    waves = sum(np.sin(2 * np.pi * (a * x + b * y) + c) for a, b, c in parts)
    smile = np.exp(-80 * (y - 0.75 + (1 - 2 * (number % 2)) * (x - 0.5) ** 2) ** 2)
    image = 0.3 * waves + smile + 2.0 * noise.standard_normal((SIZE, SIZE))
    return torch.from_numpy(image.astype(np.float32))[None]


class SmileNet(nn.Module):
    """Two convolutions and two linear layers."""

    def __init__(self, width: int = 16):
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(1, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        )  # fmt: skip
        self.hidden = nn.Linear(width * (SIZE // 4) ** 2, 32)
        self.answer = nn.Linear(32, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.answer(torch.relu(self.hidden(self.convolutions(images).flatten(1))))


def train(path: str, *, epochs: int = 12, people: int = 40) -> None:
    """Train on the first people and save the weights with what else the loop knows."""
    torch.manual_seed(0)
    net = SmileNet()
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(epochs):
        for images, labels, _ in DataLoader(Portraits(range(people)), 32, shuffle=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images), labels).backward()
            optimizer.step()
    torch.save({"epoch": epochs, "state_dict": net.state_dict()}, path)


if __name__ == "__main__":
    train(sys.argv[1])
