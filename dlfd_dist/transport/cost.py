"""Cost matrices between two sets of feature rows.

Shapes: x (n, d), y (m, d), cost (n, m).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def cosine_cost(x: Tensor, y: Tensor) -> Tensor:
    """Return 1 - cos(x_i, y_j), in 0..2. Rows of length below 1e-6 count as that long."""
    return 1 - F.normalize(x, dim=1, eps=1e-6) @ F.normalize(y, dim=1, eps=1e-6).T


def squared_euclidean_cost(x: Tensor, y: Tensor) -> Tensor:
    """Return |x_i - y_j|^2."""
    square = (x * x).sum(1, keepdim=True) - 2 * x @ y.T + (y * y).sum(1)
    return torch.clamp(square, min=0)


COSTS = {"cosine": cosine_cost, "squared_euclidean": squared_euclidean_cost}
