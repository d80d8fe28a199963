"""One `solve` in front of POT's exact and entropic solvers."""

from __future__ import annotations

import os
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
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


class _Solved(NamedTuple):
    """An OTResult whose value is not taken yet."""

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
    _require_solvable(cost_matrix, reg)
    solver = chosen_solver(solver, cost_matrix)
    with phase("transport"):
        matrix = cost_matrix.detach()
        solved = _exact(matrix) if solver == "exact" else _entropic(matrix, reg, max_iter, start)
        plan = solved.plan.to(cost_matrix)
    return _valued(solved._replace(plan=plan), cost_matrix)


def chosen_solver(solver: str, cost_matrix: Tensor) -> str:
    """Return exact or entropic: `solver`, or what solver=auto takes for such a matrix.

    auto is exact while the larger side has at most AUTO_EXACT_LIMIT rows: there the exact solver is
    the faster one, or the synthesis reaches more than 1 % less of the transport cost with entropic
    plans (benchmarks/plans.py).
    """
    if solver != "auto":
        return solver
    limit = AUTO_EXACT_LIMIT[cost_matrix.device.type]
    return "exact" if max(cost_matrix.shape) <= limit else "entropic"


class LaggedSolve:
    """`solve` for a sequence of similar problems, whose exact plans come one problem late.

    The k-th call returns the plan of the matrix of call k - 1, and the first call that of its own
    matrix, however long a plan takes: a thread of the host solves the k-th problem between the
    calls k and k + 1, while the device goes on. The value is <P, C> of that plan P and this
    matrix C, so it is at least the transport cost. An entropic plan is solved where the cost lies
    and comes at once.
    """

    def __init__(self) -> None:
        self._host = ThreadPoolExecutor(1, thread_name_prefix="transport")
        self._last: Future[_Solved] | None = None

    def __call__(
        self,
        cost_matrix: Tensor,
        *,
        solver: str = "auto",
        reg: float = 0.01,
        max_iter: int = 1000,
        start: Potentials | None = None,
    ) -> OTResult:
        _require_solvable(cost_matrix, reg)
        if chosen_solver(solver, cost_matrix) == "entropic":
            return solve(cost_matrix, solver="entropic", reg=reg, max_iter=max_iter, start=start)
        with phase("transport"):
            begun = self._begin(cost_matrix.detach())
            due, self._last = self._last or begun, begun
            solved = due.result()
            plan = solved.plan.to(cost_matrix.dtype)
            if cost_matrix.is_cuda:
                # From pinned memory, the copy does not wait for what the device has still to do.
                plan = plan.pin_memory().to(cost_matrix.device, non_blocking=True)
        return _valued(solved._replace(plan=plan), cost_matrix)

    def _begin(self, matrix: Tensor) -> Future[_Solved]:
        host = matrix.to("cpu", non_blocking=True)
        copied = torch.cuda.Event() if matrix.is_cuda else None
        if copied:
            copied.record()

        def solved() -> _Solved:
            if copied:
                copied.synchronize()
            return _exact(host)

        return self._host.submit(solved)


def _require_solvable(cost_matrix: Tensor, reg: float) -> None:
    if cost_matrix.ndim != 2 or 0 in cost_matrix.shape:
        raise ValueError(
            f"cost_matrix must be (n, m) with n, m >= 1, not {tuple(cost_matrix.shape)}"
        )
    if reg <= 0:
        raise ValueError(f"reg must be > 0, not {reg}")


def _valued(solved: _Solved, cost_matrix: Tensor) -> OTResult:
    """Return the plan with its cost for this matrix; warn where it did not converge."""
    if not solved.converged:
        warnings.warn(
            f"The {solved.solver} transport solver did not converge in "
            f"{solved.num_iters or 'its'} iterations: raise ot.max_iter or ot.reg.",
            stacklevel=3,
        )
    return OTResult((solved.plan * cost_matrix).sum(), *solved)


def marginal_error(plan: Tensor) -> float:
    """Return the largest relative deviation of a row or column sum from its uniform weight."""
    n, m = plan.shape
    rows, columns = plan.sum(1) * n - 1, plan.sum(0) * m - 1
    return float(torch.maximum(rows.abs().max(), columns.abs().max()))


def _uniform(size: int) -> np.ndarray:
    return np.full(size, 1 / size)


def _exact(cost: Tensor) -> _Solved:
    import ot  # loads scikit-learn, which a dry run need not wait for

    n, m = cost.shape
    # The simplex runs on the host in float64; at these sizes the copy costs less than Sinkhorn.
    matrix = np.ascontiguousarray(cost.to("cpu", torch.float64).numpy())
    plan, log = ot.emd(_uniform(n), _uniform(m), matrix, numItermax=10_000_000, log=True)
    plan = torch.from_numpy(plan)
    return _Solved(plan, marginal_error(plan), 0, log["warning"] is None, "exact")


def _entropic(cost: Tensor, reg: float, max_iter: int, start: Potentials | None) -> _Solved:
    from ot.bregman import sinkhorn_log

    n, m = cost.shape
    matrix = cost.to(torch.float64)
    a, b = (torch.full((k,), 1 / k, dtype=matrix.dtype, device=matrix.device) for k in (n, m))
    plan, log = sinkhorn_log(
        a, b, matrix, reg, numItermax=max_iter, stopThr=MARGINAL_TOLERANCE, warn=False, log=True,
        warmstart=start,
    )  # fmt: skip
    error = marginal_error(plan)
    potentials = (torch.as_tensor(log["log_u"]), torch.as_tensor(log["log_v"]))
    num_iters = int(np.asarray(log["niter"])) + 1
    converged = error <= 1e3 * MARGINAL_TOLERANCE
    return _Solved(plan, error, num_iters, converged, "entropic", potentials)
