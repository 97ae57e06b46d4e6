"""What a workbench makes of a problem that was put together by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from manufactured import square
from small_problems import laplacian

import ddm
from ddm import elasticity
from ddm.coarse import constants
from ddm.interface import robin_between
from ddm.workbench import Workbench


def test_without_a_near_null_space_each_component_has_its_constant():
    problem = replace(
        elasticity(square(8), source=(0.0, 1.0), dirichlet={"left": 0.0}), near_nullspace=None
    )
    bench = Workbench(problem, subdomain=20)
    n = len(problem.b)
    assert np.array_equal(bench.near_nullspace, constants(n, 2))
    P = bench.prolongation(20, 1, smoothing=0)
    assert P.shape[1] == 2 * bench.decomposition(20, 1).n_subdomains


@pytest.mark.parametrize("overlap", [1, 2])
@pytest.mark.parametrize("kind", ["matrix", "elements"])
def test_the_exterior_is_what_the_neumann_matrices_lack(kind, overlap):
    problem = ddm.random_problem("elasticity", 1, 300)
    bench = Workbench(ddm.from_matrix(laplacian(14)) if kind == "matrix" else problem)
    N = bench.neumann(40, overlap)
    expected = -robin_between(bench.matrix, bench.decomposition(40, overlap), N, 0.0)
    assert expected.abs().max() > 0
    torch.testing.assert_close(bench.exterior(40, overlap), expected)


def test_without_elements_the_exterior_is_for_m_matrices():
    A = ddm.random_problem("elasticity", 1, 300).A
    with pytest.raises(ValueError, match="A: algebraic Neumann matrices need a symmetric M-matrix"):
        Workbench(ddm.from_matrix(A, block_size=2)).exterior(40, 1)


def test_a_prolongation_that_there_is_not():
    bench = Workbench(ddm.from_matrix(laplacian(9)))
    with pytest.raises(ValueError, match="smoothing: expected at least 0 Jacobi steps, got -1"):
        bench.prolongation(20, 1, smoothing=-1)
    with pytest.raises(ValueError, match="vectors: expected 'near_nullspace' or 'linear', got 'x'"):
        bench.prolongation(20, 1, "x")
    with pytest.raises(ValueError, match="problem: its unknowns have no coordinates"):
        bench.prolongation(20, 1, "linear")
