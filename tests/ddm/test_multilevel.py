"""A coarse problem that is itself solved by a Schwarz method."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from dense_elements import diffusion as dense_diffusion
from dense_elements import elasticity
from small_problems import laplacian, random_matrix

from ddm.coarse import CoarseSolver, nicolaides, partition_of_unity, smooth
from ddm.multilevel import Repeated, recursive
from ddm.partition import decompose, partition
from ddm.schwarz import Schwarz
from sparsetorch import CSRTensor
from sparsetorch.linalg import cg, fgmres

A = laplacian(40)
MATRIX = CSRTensor.from_scipy(A)
D = decompose(A, partition(A, 90))
P = smooth(partition_of_unity(D), MATRIX)


@pytest.mark.parametrize("options", [{}, {"direct_up_to": math.inf}, {"direct_up_to": 90.0}])
def test_a_small_coarse_matrix_is_factorized(options):
    exact = Schwarz(MATRIX, D, P=P)
    got = Schwarz(MATRIX, D, P=P, coarse=recursive(P, **options))
    assert isinstance(got.coarse.method, CoarseSolver)
    r = random_matrix(D.n, 2)
    torch.testing.assert_close(got.apply(r), exact.apply(r))
    torch.testing.assert_close(got.apply_transposed(r), exact.apply_transposed(r))


@pytest.mark.parametrize("sweeps", [1, 3])
def test_the_third_level_is_the_stationary_iteration_of_a_coarse_method(sweeps):
    make = recursive(P, direct_up_to=20, subdomain=8, sweeps=sweeps)
    A0 = P.T @ (MATRIX @ P)
    inner = make(A0, None)
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


def test_its_transpose_turns_the_coarse_matrix_once(monkeypatch):
    inner = recursive(P, direct_up_to=20, subdomain=8, sweeps=3)(P.T @ (MATRIX @ P), None)
    turned: list[CSRTensor] = []
    made: Any = CSRTensor.T.fget
    monkeypatch.setattr(CSRTensor, "T", property(lambda A: turned.append(A) or made(A)))
    for _ in range(2):
        inner.apply_transposed(random_matrix(90, 2))
    assert len(turned) == 1


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


@pytest.mark.parametrize("inner", ["restricted", "additive"])
def test_a_method_is_as_symmetric_as_its_third_level(inner):
    """CG is chosen by this flag."""
    levels = "symmetric" if inner == "additive" else "multiplicative"
    coarse = recursive(P, direct_up_to=10, subdomain=8, sweeps=1, form=inner, levels=levels)
    method = Schwarz(MATRIX, D, P=P, form="additive", levels="balanced", coarse=coarse)
    M = method.apply(torch.eye(D.n, dtype=torch.float64))
    symmetric = float((M - M.T).abs().max() / M.abs().max()) < 1e-10
    assert method.is_symmetric == symmetric == (inner == "additive")
    exact = recursive(P)  # small enough to be factorized
    assert Schwarz(MATRIX, D, P=P, form="additive", levels="additive", coarse=exact).is_symmetric


def test_what_else_stands_in_for_the_coarse_solve_says_whether_it_is_symmetric():
    class Half:
        def __init__(self, A0: CSRTensor, null: torch.Tensor | None) -> None:
            self.A0, self.null = A0, null

        def apply(self, r: torch.Tensor) -> torch.Tensor:
            return r / self.A0.diagonal()[:, None]

        apply_transposed = apply

    class Symmetric(Half):
        is_symmetric = True

    for way in (Half, Symmetric):
        method = Schwarz(MATRIX, D, P=P, form="additive", levels="additive", coarse=way)
        assert method.is_symmetric == (way is Symmetric)
        assert method.coarse.method.null is None  # type: ignore


def test_a_third_level_in_single_precision():
    single, vectors = MATRIX.to(torch.float32), P.to(torch.float32)
    deep = recursive(vectors, direct_up_to=10, subdomain=8)
    b = random_matrix(D.n, 1)[:, 0].float()
    method = Schwarz(single, D, P=vectors, coarse=deep)
    assert isinstance(method.coarse.method, Repeated)
    assert fgmres(single, b, preconditioner=method, rtol=1e-5).converged


@pytest.mark.parametrize("direct_up_to", [5, 1000])
@pytest.mark.parametrize("name", ["diffusion", "elasticity"])
def test_a_third_level_of_a_singular_matrix(name, direct_up_to):
    """The null space goes down with the coarse matrices, which have one, too."""
    problem = (
        dense_diffusion(20, neumann=True) if name == "diffusion" else elasticity(12, neumann=True)
    )
    matrix, null = CSRTensor.from_scipy(problem.A), problem.near_nullspace
    size = problem.block_size
    d = decompose(problem.A, partition(problem.A, 24, block_size=size), block_size=size)
    vectors = smooth(nicolaides(d, null), matrix, block_size=size)
    b = matrix @ random_matrix(d.n, 1)[:, 0]
    deep = recursive(vectors, null, direct_up_to=direct_up_to, subdomain=12)
    exact, found = (
        fgmres(
            matrix,
            b,
            preconditioner=Schwarz(matrix, d, P=vectors, nullspace=null, coarse=coarse),
            rtol=1e-9,
        )
        for coarse in ("auto", deep)
    )
    assert found.converged
    assert exact.iterations <= found.iterations <= exact.iterations + 6
    if direct_up_to == 1000:
        torch.testing.assert_close(found.x, exact.x, rtol=1e-6, atol=1e-8)


def test_arguments_out_of_range_are_refused():
    for name in ("subdomain", "sweeps", "direct_up_to", "overlap"):
        for value in (0, 1.5, float("nan"), -float("inf")):
            with pytest.raises(ValueError, match=f"{name}: expected at least 1 .*, got {value}"):
                recursive(P, **{name: value})  # type: ignore
        with pytest.raises(TypeError, match=f"{name}: expected a whole number, got str"):
            recursive(P, **{name: "2"})  # type: ignore
    for name, least in (("subdomain", 1), ("sweeps", 1), ("smoothing", 0)):
        with pytest.raises(ValueError, match=f"{name}: expected at least {least} .*, got inf"):
            recursive(P, **{name: float("inf")})  # type: ignore
    with pytest.raises(ValueError, match=r"near_nullspace: expected finite values of shape \(1444"):
        recursive(P, np.ones(D.n))
    with pytest.raises(ValueError, match=r"form: expected one of .*, got 'foo'"):
        recursive(P, form="foo")  # type: ignore
    with pytest.raises(TypeError, match="near_nullspace: complex, but P is real"):
        recursive(P, np.ones((D.n, 1)) * 1j)
