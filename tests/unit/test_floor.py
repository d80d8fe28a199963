"""What an iteration moves in memory, as `dlfd bench` counts it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dlfd_dist.config import ModelConfig
from dlfd_dist.models import FoldedClassifier, build_model
from dlfd_dist.synthesis import floor_iterations, traffic_bytes

X, Y, OUT = torch.ones(6, 5), torch.ones(5, 7), torch.ones(6, 5)


@pytest.mark.parametrize(
    ("call", "numbers"),
    [
        (lambda: X @ Y, 6 * 5 + 5 * 7 + 6 * 7),
        (lambda: X + 1, 2 * 30),
        (lambda: X.to(torch.bfloat16), 30 + 30 / 2),
        (lambda: torch.cat([X, OUT]), 2 * 60),
        (lambda: OUT.add_(X), 3 * 30),
        (lambda: X.T, 0),
        (lambda: X.reshape(5, 6)[1:].expand(2, 4, 6), 0),
        (lambda: torch.empty_like(X), 0),
        (lambda: X.new_empty(4), 0),
    ],
    ids=[
        "product", "sum", "dtype", "concatenation", "in place", "transposed", "view", "empty",
        "new empty",
    ],
)  # fmt: skip
def test_an_operation_moves_what_it_is_given_and_returns(call, numbers):
    assert traffic_bytes(call) == 4 * numbers


def test_a_backward_pass_counts_as_well():
    x = X.clone().requires_grad_(True)
    # Forward reads x and writes y; backward makes dy = 1, reads dy and y, and writes dx.
    moved = traffic_bytes(lambda: torch.autograd.grad(x.relu(), x, torch.ones_like(x)))
    assert moved == 4 * 30 * (2 + 2 + 3)


def test_folding_moves_less():
    model = build_model(ModelConfig(name="small"), image_size=32, num_outputs=3, seed=0)
    images = torch.rand(4, 3, 32, 32)
    with FoldedClassifier(model).computed_in(images.shape, bfloat16=False) as folded:
        moved = [traffic_bytes(lambda m=m: floor_iterations(m, images, 1)) for m in (model, folded)]
    assert moved[1] < 0.9 * moved[0]


def test_twice_the_iterations_move_twice_as_much():
    model, images = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), torch.rand(2, 3, 2, 2)

    def iterations(number: int) -> int:
        return traffic_bytes(lambda: [model(images) for _ in range(number)])

    assert iterations(4) == 2 * iterations(2) > 0
