"""Optimal transport between feature distributions, over POT."""

from .cost import COSTS, cosine_cost, squared_euclidean_cost
from .quantiles import match_quantiles, quantiles_at
from .sharded import SCOPES, solve_by_class, solve_global, solve_rank
from .solve import (
    LaggedSolve,
    OTResult,
    Potentials,
    chosen_solver,
    marginal_error,
    solve,
)

__all__ = [
    "COSTS",
    "SCOPES",
    "LaggedSolve",
    "OTResult",
    "Potentials",
    "chosen_solver",
    "cosine_cost",
    "marginal_error",
    "match_quantiles",
    "quantiles_at",
    "solve",
    "solve_by_class",
    "solve_global",
    "solve_rank",
    "squared_euclidean_cost",
]
