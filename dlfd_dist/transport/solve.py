"""One `solve` in front of POT's exact and entropic solvers."""

from __future__ import annotations

import os
import warnings
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..runtime.phases import phase

# POT looks for every library it could compute with, and JAX then takes three quarters of a GPU.
for _library in ("JAX", "CUPY", "TENSORFLOW"):
    os.environ.setdefault(f"POT_BACKEND_DISABLE_{_library}", "1")

AUTO_EXACT_LIMIT = {"cpu": 2048, "cuda": 1024}
"""Rows of the larger side up to which solver=auto takes the exact solver, by where the cost lies:
the largest size measured where on features in classes Sinkhorn was not clearly the faster one
(benchmarks/results/transport_*.md). The simplex runs on the host, Sinkhorn where the cost lies."""
MARGINAL_TOLERANCE = 1e-6


Potentials = tuple[Tensor, Tensor]


class OTResult(NamedTuple):
    """A solved transport problem.

    value : <P, C>, scalar; its gradient is the envelope gradient P (the plan is constant)
    plan : P (n, m), without gradient
    marginal_error : largest deviation of a row or column sum from its weight, times its side
    num_iters : iterations of the entropic solver; 0 for the exact one
    converged : the solver met its tolerance
    solver : exact or entropic
    potentials : log scalings of rows (n,) and columns (m,) that the entropic plan has; None: exact
    """

    value: Tensor
    plan: Tensor
    marginal_error: float
    num_iters: int
    converged: bool
    solver: str
    potentials: Potentials | None = None


def solve(
    cost_matrix: Tensor,
    *,
    solver: str = "auto",
    reg: float = 0.01,
    max_iter: int = 1000,
    start: Potentials | None = None,
) -> OTResult:
    """Solve min <P, C> over plans with uniform marginals; entropic adds reg * sum P log P.

    Parameters
    ----------
    cost_matrix : C (n, m), any float dtype and device, with or without gradient
    solver : exact (network simplex), entropic (Sinkhorn in the log domain), or auto by the size of
        this matrix and its device (AUTO_EXACT_LIMIT)
    reg : > 0, in units of the cost; entropic only
    max_iter : Sinkhorn iterations; the exact solver has its own bound
    start : potentials of a similar problem of this size, from which Sinkhorn begins; entropic only

    Returns
    -------
    OTResult whose value excludes the entropy and carries the envelope gradient dL/dC = P.

    Warns when not converged, naming the settings to change.
    References: Cuturi 2013; Bonneel et al. 2011; Flamary et al. 2021 (POT).
    """
    if cost_matrix.ndim != 2 or 0 in cost_matrix.shape:
        raise ValueError(
            f"cost_matrix must be (n, m) with n, m >= 1, not {tuple(cost_matrix.shape)}"
        )
    if reg <= 0:
        raise ValueError(f"reg must be > 0, not {reg}")
    if solver == "auto":
        limit = AUTO_EXACT_LIMIT[cost_matrix.device.type]
        solver = "exact" if max(cost_matrix.shape) <= limit else "entropic"
    with phase("transport"):
        matrix, potentials = cost_matrix.detach(), None
        if solver == "exact":
            plan, num_iters, converged = _exact(matrix)
        else:
            plan, num_iters, converged, potentials = _entropic(matrix, reg, max_iter, start)
        error = marginal_error(plan)
        plan = plan.to(cost_matrix)
    if not converged:
        warnings.warn(
            f"The {solver} transport solver did not converge in {num_iters or 'its'} iterations: "
            "raise ot.max_iter or ot.reg.",
            stacklevel=2,
        )
    value = (plan * cost_matrix).sum()
    return OTResult(value, plan, error, num_iters, converged, solver, potentials)


def marginal_error(plan: Tensor) -> float:
    """Return the largest relative deviation of a row or column sum from its uniform weight."""
    n, m = plan.shape
    rows, columns = plan.sum(1) * n - 1, plan.sum(0) * m - 1
    return float(torch.maximum(rows.abs().max(), columns.abs().max()))


def _uniform(size: int) -> np.ndarray:
    return np.full(size, 1 / size)


def _exact(cost: Tensor) -> tuple[Tensor, int, bool]:
    import ot  # loads scikit-learn, which a dry run need not wait for

    n, m = cost.shape
    # The simplex runs on the host in float64; at these sizes the copy costs less than Sinkhorn.
    matrix = np.ascontiguousarray(cost.to("cpu", torch.float64).numpy())
    plan, log = ot.emd(_uniform(n), _uniform(m), matrix, numItermax=10_000_000, log=True)
    return torch.from_numpy(plan), 0, log["warning"] is None


def _entropic(
    cost: Tensor, reg: float, max_iter: int, start: Potentials | None
) -> tuple[Tensor, int, bool, Potentials]:
    from ot.bregman import sinkhorn_log

    n, m = cost.shape
    matrix = cost.to(torch.float64)
    a, b = (torch.full((k,), 1 / k, dtype=matrix.dtype, device=matrix.device) for k in (n, m))
    plan, log = sinkhorn_log(
        a, b, matrix, reg, numItermax=max_iter, stopThr=MARGINAL_TOLERANCE, warn=False, log=True,
        warmstart=start,
    )  # fmt: skip
    converged = marginal_error(plan) <= 1e3 * MARGINAL_TOLERANCE
    potentials = (torch.as_tensor(log["log_u"]), torch.as_tensor(log["log_v"]))
    return plan, int(np.asarray(log["niter"])) + 1, converged, potentials
