"""A project in the style of Lightning: a module that trains itself, with two heads on one trunk.

    python project.py last.ckpt

The portraits are drawn: each of 60 people has a face of random waves, smiles in half of them and
wears glasses in half of them.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

SIZE, IMAGES = 16, 8


class Portraits(Dataset[Any]):
    """Grey portraits of some people: image, whether they smile and wear glasses, who they are."""

    def __init__(self, people: range):
        self.rows = [(person, number) for person in people for number in range(IMAGES)]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        person, number = self.rows[index]
        face, noise = np.random.default_rng(person), np.random.default_rng([person, number])
        smiles, has_glasses = number % 2, number // 2 % 2
        y, x = np.mgrid[:SIZE, :SIZE] / SIZE
        waves = sum(
            np.sin(2 * np.pi * (a * x + b * y) + c) for a, b, c in face.uniform(0, 3, (4, 3))
        )
        mouth = np.exp(-80 * (y - 0.75 + (1 - 2 * smiles) * (x - 0.5) ** 2) ** 2)
        glasses = has_glasses * ((y - 0.3) ** 2 < 0.01)
        image = 0.3 * waves + mouth + glasses + 0.4 * noise.standard_normal((SIZE, SIZE))
        labels = torch.tensor([smiles, has_glasses])
        return torch.from_numpy(image.astype(np.float32))[None], labels, person


class TwoHeads(nn.Module):
    """A trunk of two convolutions; a head for smiling and one for glasses."""

    def __init__(self, width: int):
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(1, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Flatten(), nn.Linear(width * (SIZE // 4) ** 2, 32), nn.ReLU(),
        )  # fmt: skip
        self.smile, self.glasses = nn.Linear(32, 1), nn.Linear(32, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.trunk(images)
        return {"smile": self.smile(features), "glasses": self.glasses(features)}


class FaceModule(nn.Module):
    """What a LightningModule would be: the network, the loss of a step, the optimizer."""

    def __init__(self, width: int = 16):
        super().__init__()
        self.model = TwoHeads(width)

    def training_step(self, batch: Any) -> Tensor:
        images, labels, _ = batch
        logits = self.model(images)
        targets = dict(zip(logits, labels.float().T, strict=True))
        return torch.stack([
            nn.functional.binary_cross_entropy_with_logits(logits[name].squeeze(1), targets[name])
            for name in logits
        ]).sum()  # fmt: skip

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 2e-3)


def train(path: str, *, epochs: int = 12, people: int = 40) -> None:
    """Do what a Trainer does with the module, and save the file that it saves."""
    torch.manual_seed(0)
    module = FaceModule()
    optimizer = module.configure_optimizers()
    for _ in range(epochs):
        for batch in DataLoader(Portraits(range(people)), 32, shuffle=True):
            optimizer.zero_grad()
            module.training_step(batch).backward()
            optimizer.step()
    torch.save(
        {
            "epoch": epochs, "global_step": epochs * people * IMAGES // 32,
            "pytorch-lightning_version": "2.5.5", "state_dict": module.state_dict(),
            "optimizer_states": [optimizer.state_dict()], "hyper_parameters": {"width": 16},
        },
        path,
    )  # fmt: skip


if __name__ == "__main__":
    train(sys.argv[1])
