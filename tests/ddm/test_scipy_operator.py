"""Schwarz methods and peers as SciPy's solvers take them."""

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as sla
from manufactured import square

import ddm
from ddm.peers import Direct, Multigrid
from ddm.problems import poisson
from ddm.workbench import Workbench
from sparsetorch import CSRTensor

PROBLEM = poisson(square(12))
ONES = np.ones((len(PROBLEM.b), 1))


def methods():
    A = CSRTensor.from_scipy(PROBLEM.A)
    bench = Workbench(PROBLEM, subdomain=20)
    return {
        "schwarz": ddm.best_classical(bench, thetas=(1.0,), smoothings=(1,)).method,
        "direct": Direct(A),
        "amg": Multigrid(A, ONES, block_size=1, symmetric=True),
    }


@pytest.mark.parametrize("name", ["schwarz", "direct", "amg"])
def test_a_method_itself_is_an_operator(name):
    M = methods()[name]
    x, info = sla.gmres(PROBLEM.A, PROBLEM.b, M=M, rtol=1e-9)
    assert info == 0
    assert np.linalg.norm(PROBLEM.A @ x - PROBLEM.b) < 1e-7 * np.linalg.norm(PROBLEM.b)


@pytest.mark.parametrize("name", ["schwarz", "direct", "amg"])
def test_complex_right_hand_sides_of_a_real_matrix_keep_both_parts(name):
    M = methods()[name]
    rng = np.random.default_rng(0)
    b = rng.standard_normal(len(PROBLEM.b)) + 1j * rng.standard_normal(len(PROBLEM.b))
    operator = M.as_linear_operator()
    np.testing.assert_allclose(
        operator.matvec(b), operator.matvec(b.real) + 1j * operator.matvec(b.imag)
    )
    for solve in (sla.gmres, sla.bicgstab, sla.lgmres):
        x, info = solve(PROBLEM.A.astype(complex), b, M=operator, rtol=1e-9, maxiter=200)
        assert info == 0
        assert np.linalg.norm(PROBLEM.A @ x - b) < 1e-7 * np.linalg.norm(b)


@pytest.mark.parametrize("name", ["schwarz", "direct", "amg"])
def test_the_adjoint_is_the_adjoint(name):
    operator = methods()[name].as_linear_operator()
    x, y = np.random.default_rng(1).standard_normal((2, len(PROBLEM.b)))
    assert x @ operator.matvec(y) == pytest.approx(operator.rmatvec(x) @ y)
    assert operator.matvec(y[::-1]).shape == y.shape  # negative strides
    np.testing.assert_allclose(operator.matmat(np.stack([x, y], 1))[:, 1], operator.matvec(y))


@pytest.mark.parametrize("form", [">f8", "<f8", ">f4", "int32"])
def test_arrays_of_any_numbers(form):
    problem = poisson(square(3))
    method = ddm.learned_schwarz(problem, subdomain=10)
    x = np.arange(len(problem.b)).astype(form)
    np.testing.assert_array_equal(method.matvec(x), method.matvec(x.astype(float)))


def test_cycles_for_unsymmetric_matrices_have_no_adjoint():
    A = PROBLEM.A + 0.1 * sp.triu(PROBLEM.A, 1)
    M = Multigrid(CSRTensor.from_scipy(sp.csr_array(A)), ONES, block_size=1, symmetric=False)
    with pytest.raises(NotImplementedError, match="Multigrid has no transpose"):
        M.rmatvec(PROBLEM.b)
