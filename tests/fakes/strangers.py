"""A stranger's project: a network and sets of their own, that know nothing of ours."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

QUICK: dict[str, Any] = {
    "method.lr": 0.02, "method.global_batch_size": 8, "method.max_steps": 3,
    "method.select": "last", "synthesis.steps": 2, "metrics.num_bootstrap": 5,
    "metrics.resurface_steps": 0, "runtime.dtype": "float64", "runtime.threads_per_rank": 1,
}  # fmt: skip
"""Settings of a run of a second."""
WORDS = tuple(f"{name}={value}" for name, value in QUICK.items())


class Faces(Dataset[Any]):
    """People whose images are drawn from their numbers; four each, of two classes by turns."""

    def __init__(
        self,
        people: range,
        *,
        shape: tuple[int, ...] = (1, 12, 10),
        labels: int = 0,
        kind: str = "",
    ):
        self.rows = [(person, number) for person in people for number in range(4)]
        self.shape, self.labels, self.kind = shape, labels, kind
        self.reads = 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        self.reads += 1
        person, number = self.rows[index]
        generator = torch.Generator().manual_seed(100 * person + number)
        image = torch.randn(self.shape, generator=generator) / 2 + number % 2
        if self.kind:
            image = (image.clamp(-2, 3) * 800 + 1600).to(getattr(torch, self.kind))
        label: Any = number % 2
        if self.labels:
            label = torch.tensor([(number >> bit) & 1 for bit in range(self.labels)])
        return image, label, f"person {person}"


def splits(num_retain: int = 6, **more: Any) -> dict[str, Faces]:
    """Return the sets of a project by name."""
    starts = (0, num_retain, num_retain + 2, num_retain + 5, num_retain + 8)
    names = ("retain", "forget", "val", "test")
    ranges = map(range, starts[:-1], starts[1:])
    return {name: Faces(people, **more) for name, people in zip(names, ranges, strict=True)}


class Net(nn.Module):
    """A network with BatchNorm and dropout, whose names are like nobody else's."""

    def __init__(self, channels: int = 1, outputs: int = 2, dropout: float = 0.3):
        super().__init__()
        self.stem = nn.Conv2d(channels, 6, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.trunk = nn.Linear(24, 10)
        self.scale = nn.BatchNorm1d(10)
        self.drop = nn.Dropout(dropout)
        self.answer = nn.Linear(10, outputs)

    def embed(self, images: Tensor) -> Tensor:
        maps = torch.tanh(self.norm(self.stem(images)))
        pooled = nn.functional.adaptive_avg_pool2d(maps, 2).flatten(1)
        return self.drop(torch.tanh(self.scale(self.trunk(pooled))))

    def forward(self, images: Tensor) -> Tensor:
        return self.answer(self.embed(images))


def build(channels: int = 1, outputs: int = 2, dropout: float = 0.3) -> Net:
    """Return the network as its owner trained it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return Net(channels, outputs, dropout)


def both(net: Net, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return features and logits in one pass."""
    features = net.embed(images)
    return features, net.answer(features)
