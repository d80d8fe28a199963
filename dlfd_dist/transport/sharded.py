"""The plan between the rows of all ranks, at the price of one small gather."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..runtime.collectives import Collectives
from .cost import COSTS
from .solve import OTResult, Potentials, solve

Solve = Callable[..., OTResult]


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
    start: Potentials | None = None,
    solve: Solve = solve,
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
    solve : takes a cost matrix and the settings of `solve`, as a LaggedSolve does
    """
    gathered = collectives.gather_rows(features, total)
    matrix = COSTS[cost](gathered, forget_features)
    solved = solve(matrix, solver=solver, reg=reg, max_iter=max_iter, start=start)
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
    start: Potentials | None = None,
    solve: Solve = solve,
) -> OTResult:
    """Solve a plan of this rank's rows alone (ot.scope=rank), weighted by its share of the rows.

    Cheaper for large batches, and another objective: it depends on the world size.
    """
    matrix = COSTS[cost](features, forget_features)
    if len(features) == 0:
        return OTResult(matrix.sum(), matrix.detach(), 0.0, 0, True, solver)
    solved = solve(matrix, solver=solver, reg=reg, max_iter=max_iter, start=start)
    return solved._replace(value=solved.value * (len(features) / total))


def solve_by_class(
    features: Tensor,
    reference: Tensor,
    classes: Tensor,
    reference_classes: Tensor,
    *,
    total: int,
    collectives: Collectives,
    cost: str = "cosine",
    solver: str = "auto",
    reg: float = 0.01,
    max_iter: int = 1000,
) -> OTResult:
    """Solve transport between rows of the same class alone, each class weighed by its rows.

    As `solve_global`, with a plan per class. Rows of a class that the reference lacks have no
    partner and no cost, and the others keep their weight 1 / total.

    Parameters
    ----------
    features : (n_local, d) this rank's rows, with gradient
    reference : (m, d) all reference rows, the same on every rank, without gradient
    classes, reference_classes : (total,) or (total, L), and (m,) or (m, L): of all rows, the same
        on every rank; several labels are one class where all of them agree
    """
    gathered = collectives.gather_rows(features, total)
    plan = gathered.new_zeros(total, len(reference))
    parts = []
    both, code = torch.unique(torch.cat([classes, reference_classes]), dim=0, return_inverse=True)
    for number in range(len(both)):
        rows = torch.nonzero(code[:total] == number).flatten()
        columns = torch.nonzero(code[total:] == number).flatten()
        if len(rows) == 0 or len(columns) == 0:
            continue
        matrix = COSTS[cost](gathered[rows], reference[columns])
        part = solve(matrix, solver=solver, reg=reg, max_iter=max_iter)
        plan[rows[:, None], columns] = part.plan * (len(rows) / total)
        parts.append(part)
    plan = plan[collectives.shard(total)]
    return OTResult(
        (plan * COSTS[cost](features, reference)).sum(),
        plan,
        max((part.marginal_error for part in parts), default=0.0),
        max((part.num_iters for part in parts), default=0),
        all(part.converged for part in parts),
        parts[0].solver if parts else solver,
    )


SCOPES = {"global": solve_global, "rank": solve_rank}
