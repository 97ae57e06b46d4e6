"""Rates and iteration counts against the dense propagator."""

import math

import pytest
import torch
from dense_schwarz import propagator
from small_problems import random_interface, small_setup

from ddm.nullspace import NullSpace
from ddm.rates import THETAS, best_theta, convergence_factor, is_exact, iterations_to_reduce
from ddm.schwarz import Schwarz, robin


def dense_propagator(setup, theta: float) -> torch.Tensor:
    d = setup.decomposition
    return propagator(setup.A.to_dense(), d, robin(d, theta), setup.P.to_dense())


@pytest.mark.parametrize("theta", [1.0, 0.5])
@pytest.mark.parametrize("smoothing", [0, 1])
def test_the_convergence_factor_is_the_spectral_radius(theta, smoothing):
    setup = small_setup(14, 6, smoothing=smoothing)
    radius = float(torch.linalg.eigvals(dense_propagator(setup, theta)).abs().max())
    method = setup.classical(theta)
    assert convergence_factor(method, iterations=300) == pytest.approx(radius, rel=0.01)
    assert convergence_factor(method) == pytest.approx(radius, rel=0.15)


@pytest.mark.parametrize("vectors", [1, 2])
def test_an_exact_method_has_the_factor_zero_and_an_overflowing_one_infinity(vectors):
    class Fake:
        def __init__(self, A, factor):
            self.A, self.shape, self.factor = A, (36, 36), factor
            self.null: NullSpace | None = None

        def propagate(self, e, /):
            return e * self.factor

    A = small_setup(8, 4).A
    for factor, expected in ((0.0, 0.0), (math.inf, math.inf), (math.nan, math.inf), (-0.25, 0.25)):
        found = convergence_factor(Fake(A, factor), vectors=vectors)
        assert found == pytest.approx(expected)


def test_one_iteration_solves_with_one_subdomain_only():
    assert is_exact(small_setup(8, 1).classical())
    assert not is_exact(small_setup(8, 4).classical())


@pytest.mark.parametrize("factor", [1e-2, 1e-8])
def test_iterations_are_counted_until_all_errors_have_fallen(factor):
    setup = small_setup(14, 6)
    T = dense_propagator(setup, 0.5)
    count = iterations_to_reduce(setup.classical(0.5), factor, vectors=3, seed=4)
    generator = torch.Generator().manual_seed(4)
    e = torch.randn(len(T), 3, dtype=torch.float64, generator=generator)
    before, after = (
        ((torch.linalg.matrix_power(T, k) @ e).norm(dim=0) / e.norm(dim=0)).max()
        for k in (count - 1, count)
    )
    assert after <= factor < before


def test_methods_that_do_not_get_there_count_as_the_limit():
    setup = small_setup(14, 6)
    assert iterations_to_reduce(setup.classical(), 1e-8, maxiter=3) == 3
    diverging = Schwarz(setup.A, setup.decomposition, interface=random_interface(setup, size=3.0))
    assert convergence_factor(diverging) > 1
    assert iterations_to_reduce(diverging, 1e-8) == 500


def test_one_subdomain_takes_one_iteration():
    assert iterations_to_reduce(small_setup(8, 1).classical(), 1e-8) == 1


@pytest.mark.parametrize("smoothing", [0, 1])
def test_the_best_theta_needs_the_fewest_iterations(smoothing):
    setup = small_setup(16, 8, smoothing=smoothing)
    counts = {theta: iterations_to_reduce(setup.classical(theta), 1e-8) for theta in THETAS}
    best = best_theta(setup.A, setup.decomposition, setup.P)
    assert counts[best] == min(counts.values())
    assert counts[best] < counts[1.0]
    assert best_theta(setup.A, setup.decomposition, setup.P, candidates=(0.9, 1.0)) in (0.9, 1.0)


@pytest.mark.parametrize("smoothing", [0, 1])
def test_the_best_theta_of_a_small_mesh_serves_for_a_large_one(smoothing):
    """Nine times as many subdomains of the same size."""
    small, large = (small_setup(n, s, smoothing=smoothing) for n, s in ((16, 8), (48, 72)))
    best = best_theta(small.A, small.decomposition, small.P)
    counts = {theta: iterations_to_reduce(large.classical(theta), 1e-8) for theta in THETAS}
    assert counts[best] <= 1.1 * min(counts.values())
