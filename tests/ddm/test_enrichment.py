"""Coarse spaces get pieces of what a method itself is slow at."""

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp
import torch
from dense_schwarz import one_level, two_levels
from small_problems import delaunay, laplacian, random_interface, small_setup

import ddm
from ddm.classical import Classical
from ddm.coarse import nicolaides
from ddm.enrichment import enriched, slow_subspace
from ddm.multilevel import recursive
from ddm.partition import decompose, partition
from ddm.problems import checkerboard
from ddm.rates import convergence_factor, iterations_to_reduce
from ddm.schwarz import Schwarz
from ddm.workbench import Workbench
from sparsetorch import CSRTensor
from sparsetorch.linalg import cg, fgmres


@pytest.fixture(scope="module")
def jumps():
    """Coefficients that jump by 1e4 inside subdomains."""
    mesh = delaunay(26)
    return ddm.diffusion(mesh, checkerboard(mesh, 0, contrast=1e4))


def propagator(method: Schwarz) -> torch.Tensor:
    """T, (n, n)."""
    return method.propagate(torch.eye(method.shape[0], dtype=method.A.dtype))


def test_the_errors_span_the_slowest_modes():
    method = small_setup(12, 6).classical()
    T = propagator(method)
    eigenvalues, modes = np.linalg.eig(T.numpy())
    order = np.argsort(-abs(eigenvalues))
    sizes = abs(eigenvalues[order])
    count = 2 + int(np.argmin(sizes[2:8] / sizes[1:7]))  # where a gap follows
    assert sizes[count] < 0.9 * sizes[count - 1]
    E = slow_subspace(method, count, iterations=200)
    torch.testing.assert_close(E.mT @ E, torch.eye(count, dtype=E.dtype))
    want = modes[:, order[:count]]
    assert np.abs(want - E.numpy() @ (E.numpy().T @ want)).max() < 1e-6


def test_of_a_symmetric_method_they_are_those_that_cg_is_slow_at():
    setup = small_setup(12, 6)
    method = Schwarz(setup.A, setup.decomposition, P=setup.P, form="additive", levels="balanced")
    A = setup.A.to_dense().numpy()
    M = method.apply(torch.eye(len(A), dtype=torch.float64)).numpy()
    eigenvalues, modes = scipy.linalg.eigh(A @ M @ A, A)
    assert eigenvalues[-1] - 1 > 1 - eigenvalues[0]  # I - M A alone would find the other end
    E = slow_subspace(method, 1, iterations=400)[:, 0].numpy()
    lowest = modes[:, 0] / np.linalg.norm(modes[:, 0])
    assert abs(lowest @ E) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("levels", ["multiplicative", "adef1", "additive"])
def test_the_method_is_the_textbooks_with_more_columns(levels):
    setup = small_setup(10, 5)
    interface = random_interface(setup)
    d = setup.decomposition
    method = Schwarz(setup.A, d, interface=interface, P=setup.P, levels=levels)
    E = slow_subspace(method, 2, seed=3)
    pieces = torch.zeros(d.n, 2 * d.n_subdomains, dtype=torch.float64)
    for i in range(d.n_subdomains):
        owned = torch.from_numpy(d.owner == i)
        pieces[owned, 2 * i : 2 * i + 2] = E[owned]
    A = setup.A.to_dense()
    P = torch.hstack([setup.P.to_dense(), pieces])
    want = two_levels(A, one_level(A, d, interface), P, levels)
    found = enriched(method, 2, seed=3)
    assert found.P is not None
    assert found.P.shape == P.shape
    eye = torch.eye(d.n, dtype=torch.float64)
    torch.testing.assert_close(found(eye), want)
    assert method.P is setup.P  # as it was
    before = two_levels(A, one_level(A, d, interface), setup.P.to_dense(), levels)
    torch.testing.assert_close(method(eye), before)


def test_what_jumps_make_slow_becomes_fast(jumps):
    method = Classical(theta=0.5, subdomain=80)(Workbench(jumps))
    before = iterations_to_reduce(method, 1e-8, maxiter=2000)
    counts = [iterations_to_reduce(enriched(method, k), 1e-8) for k in (1, 2, 4)]
    assert counts[0] < before
    assert counts[1] < before / 2
    assert counts[2] < before / 3


@pytest.mark.parametrize("levels", ["additive", "balanced", "symmetric"])
def test_symmetric_methods_stay_so_and_get_faster_in_cg(jumps, levels):
    method = Classical(subdomain=80, form="additive", levels=levels)(Workbench(jumps))
    found = enriched(method, 4)
    assert found.is_symmetric
    assert found.damping == method.damping
    b = torch.from_numpy(jumps.b)
    r = torch.randn(2, len(b), dtype=b.dtype, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(r[0] @ found(r[1]), r[1] @ found(r[0]))
    before, after = (cg(m.A, b, preconditioner=m, rtol=1e-8) for m in (method, found))
    assert after.converged
    assert after.iterations < 0.8 * before.iterations


def test_one_level_gets_a_second():
    setup = small_setup(16, 8)
    method = Schwarz(setup.A, setup.decomposition)
    found = enriched(method, 3)
    assert found.P is not None
    assert found.P.shape == (setup.A.shape[0], 24)
    assert iterations_to_reduce(found, 1e-8) < iterations_to_reduce(method, 1e-8) / 2
    V_cycle = Schwarz(setup.A, setup.decomposition, form="additive", levels="symmetric")
    with pytest.raises(ValueError, match="levels: this method has no damping for a V-cycle"):
        enriched(V_cycle, 3)


def test_more_rounds_go_on_from_the_last(jumps):
    method = Classical(theta=0.5, subdomain=80)(Workbench(jumps))
    once = enriched(method, 1)
    twice = enriched(once, 1)
    assert once.P is not None
    assert twice.P is not None
    assert twice.P.shape[1] > once.P.shape[1]
    assert convergence_factor(twice) < convergence_factor(once) < convergence_factor(method)


@pytest.mark.parametrize("levels", [1, 2])
def test_singular_matrices(levels):
    """A Laplacian without boundary conditions: constants are its null space."""
    A = laplacian(14)
    A = sp.csr_array(A - sp.diags_array(A @ np.ones(A.shape[0])))
    d = decompose(A, partition(A, 6), 1)
    matrix = CSRTensor.from_scipy(A)
    ones = np.ones((d.n, 1))
    P = nicolaides(d, ones) if levels == 2 else None
    method = Schwarz(matrix, d, P=P, nullspace=ones)
    found = enriched(method, 2)
    b = torch.randn(d.n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    b = b - b.mean()
    before, after = (fgmres(matrix, b, preconditioner=m, rtol=1e-10) for m in (method, found))
    assert after.converged
    assert after.iterations < before.iterations


def test_complex_matrices():
    problem = ddm.helmholtz(delaunay(16), wavenumber=4.0)
    method = Classical(subdomain=30)(Workbench(problem))
    found = enriched(method, 2)
    assert found.P is not None
    assert found.P.dtype == torch.complex128
    b = torch.from_numpy(problem.b)
    before, after = (fgmres(m.A, b, preconditioner=m, rtol=1e-8) for m in (method, found))
    assert after.converged
    assert after.iterations < before.iterations


def test_blocks_and_single_precision():
    problem = ddm.elasticity(delaunay(14), dirichlet={lambda x, y: x < 1e-9: 0.0})
    owner = partition(problem.A, 6, block_size=2)
    for dtype, factor_dtype in ((torch.float32, None), (torch.float64, torch.float32)):
        setup = ddm.set_up(problem, owner, overlap=2, dtype=dtype, factor_dtype=factor_dtype)
        method = setup.classical(0.5)
        found = enriched(method, 4)
        assert found.A.dtype == dtype
        assert found.factors is method.factors
        rtol = 1e-4 if dtype == torch.float32 else 1e-10
        before, after = (iterations_to_reduce(m, rtol) for m in (method, found))
        assert after < before


def test_subdomains_without_error_get_no_columns():
    """One component is one subdomain, solved at once."""
    A = laplacian(12)
    owner = partition(A, 5)
    both = sp.csr_array(sp.block_diag([A, laplacian(6)]))
    d = decompose(both, np.concatenate([owner, np.full(both.shape[0] - len(owner), 5)]), 1)
    found = enriched(Schwarz(CSRTensor.from_scipy(both), d), 2)
    assert found.P is not None
    assert found.P.shape[1] == 2 * 5
    assert found.P.to_dense()[len(owner) :].count_nonzero() == 0


def test_tiny_subdomains_get_none():
    """What repairs of a partition leave may have all its unknowns in P already."""
    A = laplacian(12)
    owner = partition(A, 5)
    owner[:3] = 5
    d = decompose(A, owner, 1)
    found = enriched(Schwarz(CSRTensor.from_scipy(A), d), 2)
    assert found.P is not None
    assert found.P.shape[1] == 2 * 5
    assert found.P.to_dense()[:3].count_nonzero() == 0


def test_another_coarse_solver_is_not_kept():
    setup = small_setup(16, 8)
    coarse = recursive(setup.P, direct_up_to=4, subdomain=2)
    method = Schwarz(setup.A, setup.decomposition, P=setup.P, coarse=coarse)
    direct = setup.classical()
    found = enriched(method, 2)
    assert not method.coarse.is_symmetric
    assert found.coarse.is_symmetric
    assert convergence_factor(found) < convergence_factor(direct)


def test_gradients_reach_the_method_through_its_own_columns():
    setup = small_setup(8, 4)
    interface = random_interface(setup).requires_grad_()
    values = setup.P.values.clone().requires_grad_()
    P = setup.P.with_values(values)
    method = Schwarz(setup.A, setup.decomposition, interface=interface, P=P)
    x = torch.randn(setup.A.shape[0], 1, dtype=torch.float64)
    found = enriched(method, 2)
    plain = Schwarz(setup.A, setup.decomposition, interface=interface.detach(), P=setup.P)
    torch.testing.assert_close(found(x), enriched(plain, 2)(x))
    gradients = torch.autograd.grad(found(x).square().sum(), (interface, values))
    assert all(g.abs().max() > 0 for g in gradients)


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ((0,), ValueError, "vectors: expected at least 1 error, got 0"),
        ((2.5,), ValueError, "vectors: expected at least 1 error, got 2.5"),
        (("2",), TypeError, "vectors: expected a whole number, got str"),
        ((8,), ValueError, "larger subdomains: none of 5 owns more than 16 unknowns, twice the 8"),
    ],
    ids=["none", "fraction", "text", "many"],
)
def test_bad_numbers_are_refused(arguments, error, said):
    method = small_setup(10, 5).classical()
    with pytest.raises(error, match=said):
        enriched(method, *arguments)


def test_whole_floats_are_numbers_of_errors_and_iterations():
    method = small_setup(10, 5).classical()
    found = enriched(method, 2.0, iterations=8.0)  # pyright: ignore[reportArgumentType]
    x = torch.ones(method.shape[0], dtype=torch.float64)
    assert torch.equal(found.apply(x), enriched(method, 2, iterations=8).apply(x))
    assert slow_subspace(method, np.float64(2)).shape == (64, 2)  # pyright: ignore[reportArgumentType]


def test_other_arguments_are_refused():
    method = small_setup(10, 5).classical()
    with pytest.raises(ValueError, match="iterations: expected at least 1 iteration"):
        enriched(method, 2, iterations=0)
    with pytest.raises(TypeError, match=r"method: expected a ddm\.Schwarz, got CSRTensor"):
        enriched(method.A, 2)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="vectors: expected at most 64, the unknowns, got 65"):
        slow_subspace(method, 65)


def test_a_setup_gives_them_to_all_its_methods():
    setup = small_setup(16, 8)
    method = setup.classical(0.5)
    first = setup.enriched(method, 2)
    assert iterations_to_reduce(first.classical(0.5), 1e-8) == iterations_to_reduce(
        enriched(method, 2), 1e-8
    )
    second = first.enriched(first.classical(0.5), 1)
    for made, added in ((setup, 0), (first, 2), (second, 3)):
        for other in (made, made.in_precision(torch.float32)):
            P = other.classical().P
            assert P is not None
            assert P.shape[1] == 8 * (1 + added)
            assert P.dtype == other.A.dtype
    assert convergence_factor(second.classical(0.5)) < convergence_factor(first.classical(0.5))


@pytest.mark.parametrize("form", ["additive", "symmetric"])
def test_a_method_of_one_level_for_cg_stays_one(form):
    setup = small_setup(14, 7)
    one = Schwarz(setup.A, setup.decomposition, form=form)
    two = enriched(one, 2)
    assert (one.is_symmetric, two.is_symmetric, two.levels) == (True, True, "balanced")
    b = torch.ones(setup.A.shape[0], dtype=torch.float64)
    with_errors, without = (cg(setup.A, b, preconditioner=m, rtol=1e-10) for m in (two, one))
    assert with_errors.converged
    assert with_errors.iterations < without.iterations
    assert enriched(Schwarz(setup.A, setup.decomposition), 2).levels == "multiplicative"
    assert two.P is not None
    with pytest.raises(ValueError, match="levels: this method has no damping for a V-cycle"):
        two.with_coarse_space(two.P, levels="symmetric")
    with pytest.raises(ValueError, match="levels: expected one of"):
        two.with_coarse_space(two.P, levels="both")  # type: ignore
