"""Every form of one level with every combination of two, against dense matrices, and in CG."""

from functools import partial
from typing import get_args

import numpy as np
import pytest
import torch
from dense_elements import Assembled, diffusion, elasticity, helmholtz
from dense_schwarz import one_level, two_levels
from scipy.sparse.linalg import cg as scipy_cg
from small_problems import random_matrix, small_setup
from torch.autograd import gradcheck, gradgradcheck

from ddm.coarse import nicolaides, smooth
from ddm.interface import robin
from ddm.partition import decompose, partition
from ddm.schwarz import Levels, Schwarz
from ddm.transfer import Form
from sparsetorch import CSRTensor
from sparsetorch.linalg import block_cg, cg, fgmres, gmres, richardson

FORMS, LEVELS = get_args(Form), get_args(Levels)
PROBLEMS = {"diffusion": diffusion(7), "elasticity": elasticity(6), "helmholtz": helmholtz(7)}
COMBINATIONS = [
    (form, levels)
    for form in FORMS
    for levels in (None, *LEVELS)
    if (form, levels) != ("restricted", "symmetric")
]
POSITIVE = [
    (form, levels)
    for form in ("additive", "symmetric")
    for levels in (None, "additive", "balanced", "symmetric")
]


def parts(problem: Assembled, n_parts: int = 4, overlap: int = 1):
    bs = problem.block_size
    owner = partition(problem.A, n_parts, block_size=bs)
    d = decompose(problem.A, owner, overlap, block_size=bs)
    return CSRTensor.from_scipy(problem.A), d, nicolaides(d, problem.near_nullspace)


def method(A, d, P, form, levels, **options) -> Schwarz:
    if levels is None:
        return Schwarz(A, d, form=form, **options)
    return Schwarz(A, d, P=P, form=form, levels=levels, **options)


def dense(A, d, P, form, levels, interface=None, damping=0.4) -> torch.Tensor:
    matrix = A.to_dense()
    F = one_level(matrix, d, interface, form)
    return F if levels is None else two_levels(matrix, F, P.to_dense(), levels, damping)


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize(("form", "levels"), COMBINATIONS)
@pytest.mark.parametrize("solver", ["dense", "sparse"])
def test_is_the_formula_of_the_literature(name, form, levels, solver):
    A, d, P = parts(PROBLEMS[name], overlap=2 if solver == "dense" else 1)
    generator = torch.Generator().manual_seed(0)
    L = 0.1 * torch.randn(len(d.interface), generator=generator, dtype=A.dtype)
    M = dense(A, d, P, form, levels, L)
    got = method(A, d, P, form, levels, interface=L, local=solver, coarse=solver, damping=0.4)
    x = random_matrix(d.n, 3).to(A.dtype)
    if A.dtype.is_complex:
        x = x + 1j * random_matrix(d.n, 3, seed=1)
    close = partial(torch.testing.assert_close, rtol=1e-8, atol=1e-9)
    close(got.apply(x), M @ x)
    close(got.apply(x[:, 0]), M @ x[:, 0])
    close(got.apply_transposed(x), M.T @ x)
    operator = got.as_linear_operator()
    assert np.allclose(operator.matmat(x.numpy()), (M @ x).numpy())
    assert np.allclose(operator.rmatvec(x[:, 0].numpy()), (M.mH @ x[:, 0]).numpy())


@pytest.mark.parametrize("name", ["diffusion", "elasticity"])
@pytest.mark.parametrize(("form", "levels"), COMBINATIONS)
def test_knows_whether_it_is_symmetric(name, form, levels):
    A, d, P = parts(PROBLEMS[name])
    M = dense(A, d, P, form, levels)
    symmetric = bool((M - M.T).abs().max() < 1e-10 * M.abs().max())
    assert method(A, d, P, form, levels).is_symmetric == symmetric


@pytest.mark.parametrize("name", ["diffusion", "elasticity"])
@pytest.mark.parametrize(("form", "levels"), POSITIVE)
@pytest.mark.parametrize("theta", [1.0, 0.5])
def test_symmetric_methods_are_positive_definite_and_serve_cg(name, form, levels, theta):
    problem = PROBLEMS[name]
    A, d, P = parts(problem)
    if name == "elasticity":
        theta = 1.0 + theta  # more than Dirichlet: `robin` with less is for M-matrices
    L = robin(d, theta)
    got = method(A, d, P, form, levels, interface=L)
    M = dense(A, d, P, form, levels, L, got.damping)
    assert float(torch.linalg.eigvalsh((M + M.T) / 2)[0]) > 0
    if levels == "symmetric":
        spectrum = torch.linalg.eigvals(M @ A.to_dense()).real
        assert float(spectrum.max()) < 1 + 1e-10
    b = random_matrix(d.n, 1)[:, 0]
    solution = cg(A, b, preconditioner=got, rtol=1e-10, maxiter=200)
    assert solution.converged
    torch.testing.assert_close(A @ solution.x, b, rtol=0, atol=1e-9 * float(b.norm()))
    x, info = scipy_cg(problem.A, b.numpy(), M=got.as_linear_operator(), rtol=1e-10)
    assert info == 0
    assert np.allclose(x, solution.x.numpy(), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["diffusion", "elasticity"])
def test_two_adapted_deflations_and_balancing_have_one_spectrum(name):
    """Tang et al. (2009), theorem 3.3: for a symmetric F."""
    A, d, P = parts(PROBLEMS[name])
    spectra = [
        torch.linalg.eigvals(dense(A, d, P, "additive", levels) @ A.to_dense()).real.sort()[0]
        for levels in ("multiplicative", "adef1", "balanced")
    ]
    for other in spectra[1:]:
        torch.testing.assert_close(other, spectra[0], rtol=1e-6, atol=1e-8)
    smallest = spectra[0][0]
    one = torch.linalg.eigvals(dense(A, d, P, "additive", None) @ A.to_dense()).real.min()
    assert smallest > 2 * one


@pytest.mark.parametrize("form", ["additive", "symmetric"])
@pytest.mark.parametrize("overlap", [1, 3])
def test_the_damping_of_the_v_cycle_is_the_inverse_of_the_largest_eigenvalue(form, overlap):
    A, d, P = parts(diffusion(9), 6, overlap)
    F = dense(A, d, P, form, None)
    largest = float(torch.linalg.eigvals(F @ A.to_dense()).real.max())
    assert 1 / method(A, d, P, form, "symmetric").damping == pytest.approx(largest, rel=0.1)
    assert largest > (1.5 if form == "additive" else 0.5)


@pytest.mark.parametrize("form", ["additive", "symmetric"])
def test_columns_share_their_space_in_block_cg(form):
    A, d, P = parts(diffusion(12), 6)
    got = method(A, d, P, form, "balanced")
    b = random_matrix(d.n, 5)
    alone = cg(A, b, preconditioner=got, rtol=1e-10)
    together = block_cg(A, b, preconditioner=got, rtol=1e-10)
    assert alone.converged
    assert together.converged
    torch.testing.assert_close(together.x, alone.x, rtol=1e-7, atol=1e-8)
    assert together.iterations < 0.8 * alone.iterations


@pytest.mark.parametrize("solver", [gmres, fgmres])
@pytest.mark.parametrize(("form", "levels"), [(f, v) for f, v in COMBINATIONS if v])
def test_every_combination_serves_gmres(form, levels, solver):
    A, d, P = parts(PROBLEMS["helmholtz"], overlap=2)
    b = random_matrix(d.n, 2).to(A.dtype)
    solution = solver(A, b, preconditioner=method(A, d, P, form, levels), rtol=1e-10, maxiter=100)
    assert solution.converged
    torch.testing.assert_close(A @ solution.x, b, rtol=0, atol=1e-8 * float(b.abs().max()))


@pytest.mark.parametrize(
    ("form", "levels"),
    [("restricted", "multiplicative"), ("restricted", "adef1"), ("additive", "symmetric")],
)
def test_multiplicative_combinations_converge_alone(form, levels):
    A, d, P = parts(diffusion(12), 6)
    P = smooth(P, A)
    b = random_matrix(d.n, 1)[:, 0]
    got = method(A, d, P, form, levels)
    assert richardson(A, b, preconditioner=got, rtol=1e-10, maxiter=200).converged


@pytest.mark.parametrize(("form", "levels"), [(f, v) for f, v in COMBINATIONS if v])
def test_derivatives_of_first_and_second_order(form, levels):
    setup = small_setup(5, 2)
    r = random_matrix(setup.decomposition.n, 1).requires_grad_()
    interface = robin(setup.decomposition, 0.6).requires_grad_()
    p_values = setup.P.values.clone().requires_grad_()

    def function(interface, p_values, r):
        P = setup.P.with_values(p_values)
        built = Schwarz(
            setup.A, setup.decomposition, interface=interface, P=P, form=form, levels=levels,
            damping=0.4,
        )  # fmt: skip
        return torch.cat([built.apply(r), built.apply_transposed(r)])

    assert gradcheck(function, (interface, p_values, r))
    if (form, levels) == ("symmetric", "balanced"):
        assert gradgradcheck(function, (interface, p_values, r), fast_mode=True)


@pytest.mark.parametrize("solver", ["dense", "sparse"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_factors_in_single_precision_serve_a_method_in_double(name, solver):
    A, d, P = parts(PROBLEMS[name])
    single = torch.complex64 if A.dtype.is_complex else torch.float32
    exact = Schwarz(A, d, P=P, local=solver)
    got = Schwarz(A, d, P=P, local=solver, factor_dtype=single)
    x = random_matrix(d.n, 2).to(A.dtype)
    z = got.apply(x)
    assert z.dtype == A.dtype
    error = float((z - exact.apply(x)).norm() / z.norm())
    assert 1e-12 < error < 1e-4
    b = x[:, 0].contiguous()
    solution = fgmres(A, b, preconditioner=got, rtol=1e-11, maxiter=100)
    assert solution.converged
    assert solution.iterations <= fgmres(A, b, preconditioner=exact, rtol=1e-11).iterations + 1


def test_wrong_names_are_refused():
    A, d, P = parts(PROBLEMS["diffusion"])
    with pytest.raises(ValueError, match=r"form: expected one of \['additive', 'restricted', 's"):
        Schwarz(A, d, form="ras")  # type: ignore
    with pytest.raises(ValueError, match=r"levels: expected one of \['additive', 'adef1', 'bal"):
        Schwarz(A, d, P=P, levels="adef2")  # type: ignore
    with pytest.raises(ValueError, match="levels: a V-cycle of restricted sweeps is indefinite"):
        Schwarz(A, d, P=P, levels="symmetric")
    for damping in (0.0, float("nan")):
        with pytest.raises(ValueError, match="damping: expected a positive number, got"):
            Schwarz(A, d, P=P, form="additive", levels="symmetric", damping=damping)
    interface = robin(d, 0.5).requires_grad_()
    with pytest.raises(ValueError, match="damping: its estimate has no gradient; give the numb"):
        Schwarz(A, d, interface=interface, P=P, form="additive", levels="symmetric")
    for dtype in (torch.float16, torch.complex64):
        with pytest.raises(TypeError, match=r"factor_dtype: expected torch\.float32 or"):
            Schwarz(A, d, factor_dtype=dtype)
