"""A coarse problem that is itself solved by a Schwarz method."""

import numpy as np
import pytest
import torch
from dense_elements import elasticity
from small_problems import laplacian, random_matrix

from ddm.coarse import nicolaides, partition_of_unity, smooth
from ddm.multilevel import Repeated, recursive
from ddm.partition import decompose, partition
from ddm.schwarz import Schwarz
from sparsetorch import CSRTensor
from sparsetorch.linalg import cg, fgmres

A = laplacian(40)
MATRIX = CSRTensor.from_scipy(A)
D = decompose(A, partition(A, 90))
P = smooth(partition_of_unity(D), MATRIX)


def test_a_small_coarse_matrix_is_factorized():
    exact = Schwarz(MATRIX, D, P=P)
    got = Schwarz(MATRIX, D, P=P, coarse=recursive(P))
    r = random_matrix(D.n, 2)
    torch.testing.assert_close(got.apply(r), exact.apply(r))
    torch.testing.assert_close(got.apply_transposed(r), exact.apply_transposed(r))


@pytest.mark.parametrize("sweeps", [1, 3])
def test_the_third_level_is_the_stationary_iteration_of_a_coarse_method(sweeps):
    make = recursive(P, direct_up_to=20, subdomain=8, sweeps=sweeps)
    A0 = P.T @ (MATRIX @ P)
    inner = make(A0)
    assert isinstance(inner, Repeated)
    assert inner.method.P is not None
    assert inner.method.P.shape[1] < 20
    M = inner.method.apply(torch.eye(90, dtype=torch.float64))
    T = torch.eye(90, dtype=torch.float64) - M @ A0.to_dense()
    expected = (
        torch.eye(90, dtype=torch.float64) - torch.linalg.matrix_power(T, sweeps)
    ) @ torch.linalg.inv(A0.to_dense())
    r = random_matrix(90, 2)
    torch.testing.assert_close(inner.apply(r), expected @ r, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(inner.apply_transposed(r), expected.T @ r, rtol=1e-8, atol=1e-9)


def test_it_costs_few_iterations_more():
    b = random_matrix(D.n, 1)[:, 0]
    exact = fgmres(MATRIX, b, preconditioner=Schwarz(MATRIX, D, P=P), rtol=1e-8)
    none = fgmres(MATRIX, b, preconditioner=Schwarz(MATRIX, D), rtol=1e-8)
    deep = Schwarz(MATRIX, D, P=P, coarse=recursive(P, direct_up_to=5, subdomain=6))
    assert isinstance(deep.coarse.method, Repeated)
    assert isinstance(deep.coarse.method.method.coarse.method, Repeated)  # a fourth level
    got = fgmres(MATRIX, b, preconditioner=deep, rtol=1e-8)
    assert got.converged
    assert got.iterations <= exact.iterations + 5 < none.iterations


@pytest.mark.parametrize("name", ["diffusion", "elasticity"])
@pytest.mark.parametrize("levels", ["balanced", "symmetric"])
def test_a_symmetric_third_level_is_safe_in_cg(name, levels):
    if name == "diffusion":
        matrix, d, vectors, B = MATRIX, D, P, np.ones((D.n, 1))
    else:
        problem = elasticity(14)
        matrix, B = CSRTensor.from_scipy(problem.A), problem.near_nullspace
        d = decompose(problem.A, partition(problem.A, 24, block_size=2), block_size=2)
        vectors = smooth(nicolaides(d, B), matrix, block_size=2)
    coarse = recursive(
        vectors, B, direct_up_to=20, subdomain=12, form="additive", levels="symmetric"
    )
    method = Schwarz(matrix, d, P=vectors, form="additive", levels=levels, coarse=coarse)
    M = method.apply(torch.eye(d.n, dtype=torch.float64))
    torch.testing.assert_close(M, M.T, rtol=1e-8, atol=1e-9 * float(M.abs().max()))
    assert float(torch.linalg.eigvalsh((M + M.T) / 2)[0]) > 0
    b = random_matrix(d.n, 1)[:, 0]
    got = cg(matrix, b, preconditioner=method, rtol=1e-9, maxiter=120)
    exact = Schwarz(matrix, d, P=vectors, form="additive", levels=levels)
    assert got.converged
    assert got.iterations <= 1.4 * cg(matrix, b, preconditioner=exact, rtol=1e-9).iterations


def test_arguments_out_of_range_are_refused():
    for name, argument in (
        ("subdomain", "subdomain"), ("sweeps", "sweeps"), ("direct_up_to", "direct_up_to"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"{name}: expected a positive integer, got 0"):
            recursive(P, **{argument: 0})  # type: ignore
