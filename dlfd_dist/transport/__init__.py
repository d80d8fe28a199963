"""Optimal transport between feature distributions, over POT."""

from .cost import COSTS, cosine_cost, squared_euclidean_cost
from .sharded import SCOPES, solve_global, solve_rank
from .solve import OTResult, marginal_error, solve

__all__ = [
    "COSTS",
    "SCOPES",
    "OTResult",
    "cosine_cost",
    "marginal_error",
    "solve",
    "solve_global",
    "solve_rank",
    "squared_euclidean_cost",
]
