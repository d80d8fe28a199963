"""The plan between the rows of all ranks, at the price of one small gather."""

from __future__ import annotations

from torch import Tensor

from ..runtime.collectives import Collectives
from .cost import COSTS
from .solve import OTResult, solve


def solve_global(
    features: Tensor,
    forget_features: Tensor,
    *,
    total: int,
    collectives: Collectives,
    cost: str = "cosine",
    solver: str = "auto",
    reg: float = 0.01,
    max_iter: int = 1000,
) -> OTResult:
    """Solve transport between the global retain rows and the forget rows.

    The features are gathered without gradient, every rank solves the same plan P and keeps its own
    rows, so the sum over ranks of `value` is the one global cost <P, C>, and the gradient with
    respect to a rank's features is that of the global cost. There is no backward communication.

    Parameters
    ----------
    features : (n_local, d) this rank's rows, with gradient
    forget_features : (m, d) all forget rows, the same on every rank, without gradient
    total : rows over all ranks, sharded as Collectives.shard says
    """
    gathered = collectives.gather_rows(features, total)
    matrix = COSTS[cost](gathered, forget_features)
    solved = solve(matrix, solver=solver, reg=reg, max_iter=max_iter)
    own = COSTS[cost](features, forget_features)
    plan = solved.plan[collectives.shard(total)]
    return solved._replace(value=(plan * own).sum(), plan=plan)


def solve_rank(
    features: Tensor,
    forget_features: Tensor,
    *,
    total: int,
    collectives: Collectives,
    cost: str = "cosine",
    solver: str = "auto",
    reg: float = 0.01,
    max_iter: int = 1000,
) -> OTResult:
    """Solve a plan of this rank's rows alone (ot.scope=rank), weighted by its share of the rows.

    Cheaper for very large batches, and another objective: it depends on the world size.
    """
    matrix = COSTS[cost](features, forget_features)
    if len(features) == 0:
        return OTResult(matrix.sum(), matrix.detach(), 0.0, 0, True, solver)
    solved = solve(matrix, solver=solver, reg=reg, max_iter=max_iter)
    return solved._replace(value=solved.value * (len(features) / total))


SCOPES = {"global": solve_global, "rank": solve_rank}
