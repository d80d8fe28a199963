"""The method does what it says, by its name and its settings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import dlfd_dist as dlfd


def people(numbers: range) -> list[tuple[Any, ...]]:
    """Return four images of each person, who is of one of two classes."""
    rows = []
    for who in numbers:
        generator = torch.Generator().manual_seed(who)
        face = torch.randn(1, 6, 6, generator=generator)
        for _ in range(4):
            noise = torch.randn(1, 6, 6, generator=generator) / 4
            rows.append((face + noise + who % 2, who % 2, f"person {who}"))
    return rows


def trained(rows: list[tuple[Any, ...]]) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 16), nn.Tanh(), nn.Linear(16, 2))
    images, labels = torch.stack([r[0] for r in rows]), torch.tensor([r[1] for r in rows])
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return model


@pytest.fixture
def run(tmp_path):
    """Return a maker of runs with settings of the method."""

    def make(name: str = "run", **settings: Any) -> dlfd.Run:
        retain, forget = people(range(8)), people(range(8, 10))
        return dlfd.unlearn(
            trained(retain + forget), retain=retain, forget=forget, val=people(range(10, 14)),
            test=people(range(14, 18)), method="random_label", out=tmp_path / name,
            settings={
                "method.lr": 0.05, "method.epochs": 30, "method.global_batch_size": 8,
                "metrics.num_bootstrap": 5, "metrics.resurface_steps": 0, **settings,
            },
        )  # fmt: skip

    return make


def test_forgotten_people_are_taken_for_the_other_class(run):
    result = run().result
    assert result["retain_accuracy"] > 0.9
    assert result["forget_accuracy"] < 0.3


def test_the_weight_of_the_forget_images_counts(run):
    strong, weak = run("strong"), run("weak", **{"method.forget_weight": 0.01})
    assert weak.result["forget_accuracy"] > strong.result["forget_accuracy"]


def test_a_weight_that_is_not_allowed_is_refused(run):
    with pytest.raises(dlfd.DlfdError, match="method.forget_weight=0.0 is not allowed"):
        run(**{"method.forget_weight": 0})
