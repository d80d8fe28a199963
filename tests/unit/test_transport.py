"""transport: POT, torch and finite differences as oracles."""

from __future__ import annotations

import time
import warnings

import numpy as np
import ot
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.transport import (
    COSTS,
    LaggedSolve,
    cosine_cost,
    marginal_error,
    solve,
    solve_global,
    solve_rank,
    squared_euclidean_cost,
)
from dlfd_dist.transport import solve as solve_function

SIDES = st.integers(1, 12)
SOLVE = __import__(solve_function.__module__, fromlist=["AUTO_EXACT_LIMIT"])
"""The module, which the package hides behind its function."""


def rows(n: int, dim: int = 5, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def some_cost(n: int, m: int, seed: int = 0) -> Tensor:
    return cosine_cost(rows(n, seed=2 * seed), rows(m, seed=2 * seed + 1))


def emd2(cost: Tensor) -> float:
    n, m = cost.shape
    return float(ot.emd2(np.full(n, 1 / n), np.full(m, 1 / m), cost.detach().numpy()))


def central_differences(function, x: Tensor, step: float) -> Tensor:
    """Return the gradient of a scalar function by central differences, entry by entry."""
    gradient = torch.zeros_like(x)
    for index in np.ndindex(*x.shape):
        ends = []
        for sign in (1, -1):
            moved = x.detach().clone()
            moved[index] += sign * step
            ends.append(float(function(moved)))
        gradient[index] = (ends[0] - ends[1]) / (2 * step)
    return gradient


@given(n=SIDES, m=SIDES, seed=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_exact_marginals_equal_the_weights(n, m, seed):
    plan = solve(some_cost(n, m, seed), solver="exact").plan
    # The network simplex moves whole masses: rounding of 1 / n and 1 / m alone remains.
    torch.testing.assert_close(plan.sum(1), torch.full_like(plan[:, 0], 1 / n), rtol=0, atol=1e-12)
    torch.testing.assert_close(plan.sum(0), torch.full_like(plan[0], 1 / m), rtol=0, atol=1e-12)
    assert plan.min() >= 0


@given(n=SIDES, m=SIDES, seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_entropic_marginals_equal_the_weights_within_its_tolerance(n, m, seed):
    solved = solve(some_cost(n, m, seed), solver="entropic", reg=0.1, max_iter=5000)
    assert solved.converged
    # `converged` means a relative deviation of at most 1e-3 (1e3 * MARGINAL_TOLERANCE).
    torch.testing.assert_close(
        solved.plan.sum(1), torch.full_like(solved.plan[:, 0], 1 / n), rtol=1e-3, atol=0
    )
    torch.testing.assert_close(
        solved.plan.sum(0), torch.full_like(solved.plan[0], 1 / m), rtol=1e-3, atol=0
    )
    assert solved.marginal_error <= 1e-3


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 6), (6, 6), (5, 9), (40, 32)])
def test_exact_value_is_pots(cost, n, m):
    matrix = COSTS[cost](rows(n, seed=1), rows(m, seed=2))
    # The same simplex, the sum taken in another order.
    assert float(solve(matrix, solver="exact").value) == pytest.approx(emd2(matrix), rel=1e-12)


def test_exact_value_of_equal_sizes_is_the_best_assignment():
    from scipy.optimize import linear_sum_assignment

    matrix = some_cost(8, 8)
    best = matrix.numpy()[linear_sum_assignment(matrix.numpy())].mean()
    # An independent solver: rounding of eight terms.
    assert float(solve(matrix).value) == pytest.approx(best, rel=1e-12)


def test_entropic_plan_is_pots():
    matrix = some_cost(7, 5)
    solved = solve(matrix, solver="entropic", reg=0.1, max_iter=10000)
    expected = ot.sinkhorn(
        np.full(7, 1 / 7), np.full(5, 1 / 5), matrix.numpy(), 0.1, stopThr=1e-12, numItermax=10000
    )
    # Ours stops at marginals of 1e-6, the plain-domain oracle at 1e-12.
    np.testing.assert_allclose(solved.plan, expected, rtol=0, atol=1e-5)


def test_an_entropic_plan_begun_at_a_similar_ones_potentials_takes_fewer_iterations():
    near, matrix = some_cost(30, 20), some_cost(30, 20) + 0.01 * some_cost(30, 20, seed=5)
    words = {"solver": "entropic", "reg": 0.05, "max_iter": 20_000}
    cold, warm = (solve(matrix, start=start, **words) for start in (None, solve(near, **words)[-1]))
    assert warm.num_iters < 0.7 * cold.num_iters
    assert (warm.converged, cold.converged) == (True, True)
    # Both stop at marginals of 1e-6.
    torch.testing.assert_close(warm.plan, cold.plan, rtol=0, atol=1e-5)


def test_the_exact_plan_has_no_potentials_and_needs_no_start():
    matrix = some_cost(6, 4)
    begun = solve(matrix, solver="exact", start=(torch.ones(6), torch.ones(4)))
    assert begun.potentials is None
    assert torch.equal(begun.plan, solve(matrix, solver="exact").plan)


@pytest.mark.parametrize("seconds", [0.0, 0.05], ids=["fast host", "slow host"])
def test_a_lagged_plan_is_that_of_the_problem_before(seconds, monkeypatch):
    solved_exactly = SOLVE._exact

    def exact(cost: Tensor):
        time.sleep(seconds)
        return solved_exactly(cost)

    monkeypatch.setattr(SOLVE, "_exact", exact)
    matrices = [some_cost(7, 5, seed).requires_grad_(True) for seed in (3, 4, 5, 6)]
    plans = [solve(matrix, solver="exact").plan for matrix in matrices]
    assert not any(torch.equal(*pair) for pair in zip(plans, plans[1:], strict=False))
    lagged = LaggedSolve()
    for matrix, plan in zip(matrices, [plans[0], *plans], strict=False):
        found = lagged(matrix)
        assert torch.equal(found.plan, plan)
        assert torch.equal(found.value, (plan * matrix).sum())
        assert torch.equal(torch.autograd.grad(found.value, matrix)[0], plan)


def test_what_fails_in_the_thread_of_a_lagged_plan_is_raised(monkeypatch):
    lagged = LaggedSolve()
    lagged(some_cost(4, 3))

    def broken(_cost: Tensor):
        raise MemoryError("no room for the plan")

    monkeypatch.setattr(SOLVE, "_exact", broken)
    lagged(some_cost(4, 3, seed=1))
    with pytest.raises(MemoryError, match="no room for the plan"):
        lagged(some_cost(4, 3, seed=2))


def test_an_entropic_plan_does_not_lag():
    lagged, words = LaggedSolve(), {"solver": "entropic", "reg": 0.1}
    for seed in range(3):
        matrix = some_cost(7, 5, seed)
        assert torch.equal(lagged(matrix, **words).plan, solve(matrix, **words).plan)


def test_entropic_cost_falls_to_the_exact_one_as_reg_shrinks():
    matrix = some_cost(9, 7)
    exact = float(solve(matrix, solver="exact").value)
    costs = [
        float(solve(matrix, solver="entropic", reg=reg, max_iter=100_000).value)
        for reg in (1.0, 0.3, 0.1, 0.03, 0.01)
    ]
    # <P, C> rises with reg in theory; a plan whose marginals are off by 1e-6 may break it so much.
    slack = 1e-5
    assert all(later <= earlier + slack for earlier, later in zip(costs, costs[1:], strict=False))
    assert all(cost >= exact - slack for cost in costs)
    # The bias is at most reg * log(n m) = 0.01 * log 63 = 0.041; it decays faster than that.
    assert costs[-1] == pytest.approx(exact, abs=0.01 * np.log(63))
    assert costs[0] - exact > 10 * (costs[-1] - exact)


def test_cosine_cost_is_one_minus_torchs_similarity():
    x, y = rows(6, seed=1), rows(4, seed=2)
    expected = 1 - F.cosine_similarity(x[:, None], y[None], dim=2)
    # Normalising before or after the product: rounding of float64.
    torch.testing.assert_close(cosine_cost(x, y), expected, rtol=1e-12, atol=1e-14)


@given(n=SIDES, m=SIDES, seed=st.integers(0, 1000), scale=st.sampled_from([1e-3, 1.0, 1e3]))
@settings(max_examples=40, deadline=None)
def test_cosine_cost_lies_between_0_and_2_whatever_the_lengths(n, m, seed, scale):
    x, y = rows(n, seed=seed), rows(m, seed=seed + 1)
    cost = cosine_cost(scale * x, y)
    # Unit vectors may be longer than 1 by a rounding.
    assert cost.min() >= -1e-12
    assert cost.max() <= 2 + 1e-12
    torch.testing.assert_close(cost, cosine_cost(x, y), rtol=0, atol=1e-12)


def test_cosine_cost_of_equal_and_opposite_rows():
    x = rows(3)
    # 1 - 1 and 1 + 1 up to the rounding of a unit vector's length.
    torch.testing.assert_close(
        cosine_cost(x, x).diagonal(), torch.zeros(3).double(), rtol=0, atol=1e-12
    )
    torch.testing.assert_close(
        cosine_cost(x, -x).diagonal(), torch.full((3,), 2.0).double(), rtol=0, atol=1e-12
    )


def test_squared_euclidean_cost_is_cdist_squared():
    x, y = rows(6, seed=1), rows(4, seed=2)
    # |x|^2 - 2xy + |y|^2 cancels: about 1e-16 of |x|^2 + |y|^2, some 10 here.
    torch.testing.assert_close(
        squared_euclidean_cost(x, y), torch.cdist(x, y) ** 2, rtol=1e-12, atol=1e-13
    )


def test_squared_euclidean_cost_is_never_negative():
    x = 1e4 * rows(20, dtype=torch.float32)
    assert squared_euclidean_cost(x, x).min() == 0


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize(("n", "m"), [(1, 4), (4, 4), (5, 3)])
def test_envelope_gradient_is_that_of_the_optimal_value(cost, n, m):
    """The plan is held constant in backward, and that is the true gradient at generic points."""
    features, forget = rows(n, 3, seed=3), rows(m, 3, seed=4)
    moving = features.clone().requires_grad_(True)
    solved = solve(COSTS[cost](moving, forget), solver="exact")
    (gradient,) = torch.autograd.grad(solved.value, moving)
    expected = central_differences(lambda x: emd2(COSTS[cost](x, forget)), features, 1e-5)
    # Central differences err by step^2 = 1e-10 times third derivatives, and by 1e-16 / 1e-5.
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-8)
    assert gradient.abs().max() > 1e-3


@pytest.mark.parametrize("solver", ["exact", "entropic"])
def test_gradient_with_respect_to_the_cost_is_the_plan(solver):
    matrix = some_cost(5, 4).requires_grad_(True)
    solved = solve(matrix, solver=solver, reg=0.1)
    (gradient,) = torch.autograd.grad(solved.value, matrix)
    assert torch.equal(gradient, solved.plan)
    assert not solved.plan.requires_grad


def test_gradient_with_respect_to_the_cost_is_that_of_the_optimal_value():
    matrix = some_cost(4, 3)
    expected = central_differences(emd2, matrix, 1e-6)
    # The optimal value is piecewise linear in the cost: no truncation error, 1e-16 / 1e-6 rounding.
    torch.testing.assert_close(solve(matrix).plan, expected, rtol=0, atol=1e-8)


def test_not_converged_warns_with_the_settings_to_change():
    with pytest.warns(UserWarning, match=r"did not converge in 1 .*raise ot.max_iter or ot.reg"):
        solved = solve(some_cost(9, 7), solver="entropic", reg=1e-3, max_iter=1)
    assert not solved.converged
    assert solved.marginal_error > 1e-3
    assert solved.num_iters == 1


def test_a_solved_problem_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for solver in ("exact", "entropic"):
            assert solve(some_cost(6, 6), solver=solver, reg=0.1).converged


@pytest.mark.parametrize("solver", [solve, LaggedSolve()], ids=["solve", "lagged"])
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (3,), (2, 2, 2)])
def test_cost_of_a_wrong_shape_is_refused(shape, solver):
    with pytest.raises(ValueError, match=r"cost_matrix must be \(n, m\) with n, m >= 1, not"):
        solver(torch.ones(shape))


@pytest.mark.parametrize("solver", [solve, LaggedSolve()], ids=["solve", "lagged"])
@pytest.mark.parametrize("reg", [0.0, -1.0])
def test_regularisation_must_be_positive(reg, solver):
    with pytest.raises(ValueError, match="reg must be > 0, not"):
        solver(torch.ones(2, 2), reg=reg)


@pytest.mark.parametrize(
    ("shape", "expected"), [((4, 4), "exact"), ((5, 2), "entropic"), ((2, 5), "entropic")]
)
def test_auto_takes_the_exact_solver_up_to_the_limit_of_the_larger_side(
    shape, expected, monkeypatch
):
    assert SOLVE.AUTO_EXACT_LIMIT == {"cpu": 2048, "cuda": 1024}
    monkeypatch.setitem(SOLVE.AUTO_EXACT_LIMIT, "cpu", 4)
    assert solve(some_cost(*shape), solver="auto", reg=0.1).solver == expected


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("solver", ["exact", "entropic"])
def test_rows_of_zeros_give_no_nan_in_value_or_gradient(cost, solver):
    features, forget = rows(4, dtype=torch.float32), rows(3, seed=1, dtype=torch.float32)
    features[1], forget[2] = 0, 0
    features.requires_grad_(True)
    solved = solve(COSTS[cost](features, forget), solver=solver, reg=0.1)
    (gradient,) = torch.autograd.grad(solved.value, features)
    assert torch.isfinite(solved.value)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("solver", ["exact", "entropic"])
def test_plan_and_value_have_the_dtype_of_the_cost(solver, dtype):
    solved = solve(some_cost(4, 3).to(dtype), solver=solver, reg=0.1)
    assert (solved.value.dtype, solved.plan.dtype) == (dtype, dtype)


def test_float32_gives_the_value_of_float64():
    matrix = some_cost(12, 9)
    found = float(solve(matrix.float()).value)
    # float32 keeps 7 digits of the cost.
    assert found == pytest.approx(float(solve(matrix).value), rel=1e-6)


def test_marginal_error_is_the_largest_relative_deviation():
    plan = torch.full((2, 4), 1 / 8, dtype=torch.float64)
    assert marginal_error(plan) == 0
    plan[0, 0] += 0.01
    # The row sum 1/2 is off by 0.01 (2 %), the column sum 1/4 by 0.01 (4 %).
    assert marginal_error(plan) == pytest.approx(0.04, rel=1e-9)  # rounding


@pytest.mark.parametrize("scope", [solve_global, solve_rank])
def test_one_rank_solves_the_plain_problem(scope):
    features, forget = rows(5).requires_grad_(True), rows(4, seed=1)
    solved = scope(features, forget, total=5, collectives=Collectives())
    plain = solve(cosine_cost(features, forget))
    assert torch.equal(solved.plan, plain.plan)
    assert torch.equal(solved.value, plain.value)


class TwoRanks(Collectives):
    """One of two ranks whose gather is known beforehand."""

    def __init__(self, rank: int, whole: Tensor):
        super().__init__(rank, 2)
        self.whole = whole

    def gather_rows(self, rows: Tensor, total: int) -> Tensor:
        return self.whole.detach()


def test_shares_of_two_ranks_add_up_to_the_global_cost_and_gradient():
    features, forget = rows(5), rows(4, seed=1)
    whole = features.clone().requires_grad_(True)
    plain = solve(cosine_cost(whole, forget))
    (expected,) = torch.autograd.grad(plain.value, whole)
    values, gradients = [], []
    for rank in range(2):
        group = TwoRanks(rank, features)
        own = features[group.shard(5)].clone().requires_grad_(True)
        solved = solve_global(own, forget, total=5, collectives=group)
        values.append(solved.value)
        gradients += torch.autograd.grad(solved.value, own)
    # The same plan, a sum taken in two parts.
    torch.testing.assert_close(sum(values), plain.value, rtol=1e-12, atol=0)
    torch.testing.assert_close(torch.cat(gradients), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("total", "expected"), [(5, "exact"), (6, "entropic")])
def test_auto_decides_by_the_rows_of_all_ranks(total, expected, monkeypatch):
    monkeypatch.setitem(SOLVE.AUTO_EXACT_LIMIT, "cpu", 5)
    features, forget = rows(total), rows(4, seed=1)
    for rank in range(2):
        group = TwoRanks(rank, features)
        own = features[group.shard(total)]
        solved = solve_global(own, forget, total=total, collectives=group, reg=0.1)
        assert solved.solver == expected


def test_rank_scope_weighs_a_ranks_own_plan_by_its_share():
    features, forget = rows(3), rows(4, seed=1)
    solved = solve_rank(features, forget, total=5, collectives=TwoRanks(0, rows(5)))
    expected = emd2(cosine_cost(features, forget)) * 3 / 5
    assert float(solved.value) == pytest.approx(expected, rel=1e-12)  # rounding


@pytest.mark.parametrize("scope", [solve_global, solve_rank])
def test_a_rank_without_rows_adds_nothing_and_keeps_its_graph(scope):
    own, forget = rows(1)[:0].clone().requires_grad_(True), rows(4, seed=1)
    solved = scope(own, forget, total=1, collectives=TwoRanks(1, rows(1)))
    assert solved.value.detach() == 0
    (gradient,) = torch.autograd.grad(solved.value, own)
    assert gradient.shape == (0, 5)
