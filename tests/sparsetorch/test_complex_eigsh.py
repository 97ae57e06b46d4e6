"""Eigenpairs of complex Hermitian matrices: dense parity, phases, derivatives of every kind."""

import math
from typing import Any

import pytest
import scipy.sparse.linalg as sl
import torch
from random_matrices import dense, random_complex, random_csr, random_square
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from sparsetorch import CSRTensor, poisson
from sparsetorch.linalg import SolveError, eigsh
from sparsetorch.linalg.eigenproblem import phases
from sparsetorch.linalg.thick_restart import WANTED

WAYS: list[dict[str, Any]] = [{"which": which} for which in WANTED]
WAYS += [{"sigma": 0.9}, {"sigma": 0.0, "which": "LA"}]
every_way = pytest.mark.parametrize("options", WAYS, ids=str)
with_and_without_mass = pytest.mark.parametrize("generalized", [False, True])


@pytest.fixture(autouse=True)
def _one_thread():
    # Many small operations: on a busy machine threads spend their time waiting for each other.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def pencil(n: int = 8, dtype: torch.dtype = torch.complex128) -> tuple[CSRTensor, CSRTensor]:
    """Hermitian of distinct eigenvalues on both sides of zero, and positive definite."""
    shift = torch.linspace(-0.5, 0.5, n).to(dtype)
    A = random_complex(n, "hermitian", seed=3, dtype=dtype).detach().add_diagonal(shift)
    return A.requires_grad_(), random_complex(n, "positive", seed=5, dtype=dtype)


def hermitian(A: CSRTensor, values: Tensor) -> CSRTensor:
    """Perturbed in single entries, a matrix is not Hermitian any more; this is."""
    B = A.with_values(values)
    return (B + B.H) / 2


def by_torch(a: Tensor, m: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """All eigenpairs, differentiably: with M = L L^H, those of L^-1 A L^-H."""
    a = (a + a.mH) / 2
    inverse = torch.eye(len(a)).to(a)
    if m is not None:
        inverse = torch.linalg.inv(torch.linalg.cholesky((m + m.mH) / 2))
    w, Q = torch.linalg.eigh(inverse @ a @ inverse.mH)
    V = inverse.mH @ Q
    pivot = V.gather(0, V.detach().abs().argmax(0, keepdim=True))
    return w, V * (pivot.conj() / pivot.abs())


@every_way
@with_and_without_mass
@pytest.mark.parametrize("dtype", [torch.complex128, torch.complex64], ids=str)
def test_pairs_are_those_of_the_dense_matrix(options, generalized, dtype):
    A, M = (B.detach() for B in pencil(16, dtype))
    w, V = eigsh(A, 4, M=M if generalized else None, ncv=12, **options)
    mass = dense(M) if generalized else torch.eye(16, dtype=dtype)
    exact = by_torch(dense(A), mass)[0].double()
    measure = exact if "sigma" not in options else 1 / (exact - options["sigma"])
    ordered, places = measure.sort()
    wanted = places[WANTED[options.get("which", "LM")](ordered.numpy(), 4).copy()].sort().values
    close: Any = {"rtol": 0, "atol": 2e-5 if dtype == torch.complex64 else 1e-12}
    assert w.dtype == A.values.real.dtype
    torch.testing.assert_close(w.double(), exact[wanted], **close)
    torch.testing.assert_close(A @ V, (mass @ V) * w, **close)
    torch.testing.assert_close(V.mH @ mass @ V, torch.eye(4, dtype=dtype), **close)
    pivot = V.gather(0, V.abs().argmax(0, keepdim=True))
    torch.testing.assert_close(pivot, pivot.abs().to(dtype), **close)
    only = eigsh(A, 4, M=M if generalized else None, ncv=12, return_eigenvectors=False, **options)
    torch.testing.assert_close(only, w)


@every_way
@with_and_without_mass
def test_a_real_matrix_has_the_same_pairs_as_a_complex_one(options, generalized):
    A, M = (random_square(9, seed=s, symmetric=True).detach() for s in (3, 5))
    mass = {"M": M} if generalized else {}
    w, V = eigsh(A, 3, **mass, **options)
    mass = {"M": M.to(torch.complex128)} if generalized else {}
    got_w, got_V = eigsh(A.to(torch.complex128), 3, **mass, **options)
    torch.testing.assert_close(got_w, w)
    torch.testing.assert_close(got_V, V.to(torch.complex128))


def ring(n: int, phase: float) -> CSRTensor:
    """Hopping around a ring that encloses a flux: e^(i phase) to the right, and its conjugate."""
    D = torch.eye(n, dtype=torch.complex128).roll(1, 1) * complex(math.cos(phase), math.sin(phase))
    return CSRTensor.from_dense(D + D.mH)


def test_the_plane_waves_of_a_ring():
    """w_j = 2 cos(2 pi j / n + phase), V_kj = e^(2 pi i j k / n) / sqrt(n): all as large."""
    n, phase = 30, 0.05
    A = ring(n, phase)
    momenta = torch.tensor([-2, 2, 1, -1, 0])  # the largest, upwards: 0 > -1 > 1 > -2 > 2
    exact = (2 * torch.cos(2 * math.pi * momenta.double() / n + phase)).sort()
    w, V = eigsh(A, 5, which="LA")
    torch.testing.assert_close(w, exact.values)
    angles = 2 * math.pi * torch.arange(n).double()[:, None] * momenta[exact.indices] / n
    waves = torch.polar(torch.full_like(angles, n**-0.5), angles)
    torch.testing.assert_close(V, waves, rtol=0, atol=1e-10)
    by_scipy: Any = sl.eigsh(A.to_scipy(), 5, which="LA", return_eigenvectors=False)
    torch.testing.assert_close(w, torch.from_numpy(by_scipy.copy()).sort().values)


@pytest.mark.parametrize("options", [{"which": "BE"}, {"sigma": 0.9}], ids=str)
@with_and_without_mass
def test_derivatives_of_first_and_second_order(options, generalized):
    A, M = pencil(6)

    def pairs(a, m=None):
        mass = None if m is None else hermitian(M, m)
        return eigsh(hermitian(A, a), 2, M=mass, adjoint_rtol=1e-13, **options)

    inputs = (A.values, M.values) if generalized else (A.values,)
    fast = {"fast_mode": True, "atol": 1e-6}
    assert gradcheck(pairs, inputs, check_forward_ad=True, check_batched_grad=True, **fast)
    assert gradgradcheck(pairs, inputs, check_fwd_over_rev=True, **fast)


@with_and_without_mass
def test_gradients_are_those_of_the_dense_hermitian_part(generalized):
    A, M = pencil()
    weights = torch.randn(8, 3, generator=torch.Generator().manual_seed(0), dtype=A.dtype)

    def loss(w, V):
        return (w**3).sum() + (weights * V).sum().abs() ** 2 + V.imag.pow(3).sum()

    inputs = (A.values, M.values) if generalized else (A.values,)
    w, V = by_torch(dense(A), dense(M) if generalized else None)
    want = torch.autograd.grad(loss(w[-3:], V[:, -3:]), inputs)
    pairs = eigsh(A, 3, M=M if generalized else None, which="LA", adjoint_rtol=1e-13)
    got = torch.autograd.grad(loss(*pairs), inputs)
    for g, exact, B in zip(got, want, (A, M)):
        torch.testing.assert_close(g, exact)
        torch.testing.assert_close(B.with_values(g).H.values, g)
        assert not g.is_conj()  # NumPy would refuse it


@with_and_without_mass
def test_the_tangent_is_the_difference_of_normalized_vectors(generalized):
    A, M = (B.detach() for B in pencil())

    def pairs(a, m):
        mass = M.with_values(m) if generalized else None
        return eigsh(A.with_values(a), 3, M=mass, which="SA", adjoint_rtol=1e-13)

    at = (A.values, M.values)
    direction = tuple(hermitian(B, torch.randn_like(B.values)).values for B in (A, M))
    _, (dw, dV), *_ = torch.func.jvp(pairs, at, direction)
    h = 1e-5
    (w1, V1), (w0, V0) = (pairs(*(b + s * d for b, d in zip(at, direction))) for s in (h, -h))
    torch.testing.assert_close(dw, (w1 - w0) / (2 * h), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(dV, (V1 - V0) / (2 * h), rtol=1e-6, atol=1e-7)
    V = pairs(*at)[1]
    moved = (V.conj() * dV).sum(0).imag
    assert bool((moved.abs() > 1e-3).all())  # without the rule it would be zero, if M is none


@with_and_without_mass
def test_transformations_by_value(generalized):
    A, M = (B.detach() for B in pencil())

    def energy(values):
        matrix, mass = hermitian(A, values), M if generalized else None
        w, V = eigsh(matrix, 2, M=mass, which="SA", adjoint_rtol=1e-13)
        return (w[..., 0] * (V[:, 1] ** 3).real).sum()

    def reference(values):
        w, V = by_torch(dense(A.with_values(values)), dense(M) if generalized else None)
        return (w[0] * (V[:, 1] ** 3).real).sum()

    values = A.values
    tangent = torch.randn_like(values)
    gradient = torch.func.grad(reference)(values)
    torch.testing.assert_close(torch.func.grad(energy)(values), gradient)
    _, got, *_ = torch.func.jvp(energy, (values,), (tangent,))
    torch.testing.assert_close(got, torch.vdot(gradient, tangent).real)
    curvatures = [
        torch.func.jvp(torch.func.grad(f), (values,), (tangent,))[1] for f in (energy, reference)
    ]
    assert curvatures[1].abs().max() > 1e-3
    torch.testing.assert_close(*curvatures)
    batch = torch.stack([values, 2 * values])
    mapped = torch.vmap(torch.func.grad(energy))(batch)
    torch.testing.assert_close(mapped[1], torch.func.grad(reference)(batch[1]))


def test_equal_eigenvalues():
    """The projector on all of them has its gradient; single vectors have none, and say so."""
    A = poisson(6, 6, dtype=torch.float64).to(torch.complex128)  # w_2 = w_3
    twist = torch.exp(1j * torch.linspace(0, 3, 36).double())  # other phases, the same eigenvalues
    A = A.scale_rows(twist).scale_cols(twist.conj()).requires_grad_()
    weights = torch.randn(36, 36, generator=torch.Generator().manual_seed(0), dtype=A.dtype)
    direction = hermitian(A, torch.randn_like(A.values)).values

    def projected(values):
        _, V = eigsh(A.with_values(values), 3, sigma=0.0, adjoint_rtol=1e-13)
        return (weights * (V @ V.mH)).sum().real

    (got,) = torch.autograd.grad(projected(A.values), A.values)
    h = 1e-5
    plus, minus = (projected(A.values.detach() + s * direction) for s in (h, -h))
    torch.testing.assert_close(
        torch.vdot(got, direction).real, (plus - minus) / (2 * h), rtol=1e-5, atol=1e-7
    )
    w, V = eigsh(A, 3, sigma=0.0)
    with pytest.raises(RuntimeError, match="single eigenvectors is undefined"):
        (V[:, 1].abs() ** 4).sum().backward(retain_graph=True)
    _, (dw, dV), *_ = torch.func.jvp(
        lambda v: eigsh(A.with_values(v), 3, sigma=0.0), (A.values.detach(),), (direction,)
    )
    assert bool(dw.isfinite().all())
    assert bool(dV[:, 1:].isnan().all())
    (gradient,) = torch.autograd.grad((w**2).sum(), A.values, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivatives need distinct eigenvalues"):
        gradient.real.sum().backward()


def test_vectors_of_equal_eigenvalues_are_orthonormal():
    """Those of SciPy's are not: ARPACK does not know that a complex matrix is Hermitian."""
    Q = torch.linalg.qr(torch.randn(60, 60, dtype=torch.complex128)).Q
    d = torch.cat([torch.linspace(0, 1, 56), torch.tensor([2, 2, 2, 3])]).to(Q)
    w, V = eigsh(CSRTensor.from_dense((Q * d) @ Q.mH), 4, which="LA")
    torch.testing.assert_close(w, torch.tensor([2, 2, 2, 3]).double())
    torch.testing.assert_close(V.mH @ V, torch.eye(4).to(Q))


def test_all_but_one_pair_and_a_zero_matrix():
    A = pencil(5)[0].detach()
    for which in ("LM", "BE"):
        w, V = eigsh(A, 4, which=which)
        torch.testing.assert_close(A @ V, V * w)
    w, V = eigsh(A * 0, 2)
    assert w.tolist() == [0, 0]
    torch.testing.assert_close(V.mH @ V, torch.eye(2, dtype=A.dtype))
    two = CSRTensor.from_dense(torch.tensor([[2, 1j], [-1j, 2]], dtype=torch.complex128))
    torch.testing.assert_close(eigsh(two, 1)[0], torch.tensor([3.0]).double())


def test_rounding_does_not_choose_among_components_of_one_size():
    V = torch.tensor([[1j, 0.5], [-1, 0.5j]], dtype=torch.complex128)
    noisy = V * torch.tensor([[1, 1], [1 + 1e-12, 1 + 1e-12]])
    torch.testing.assert_close((noisy * phases(noisy))[0], torch.tensor([1, 0.5]).to(V))


COMPLEX = torch.complex128
SYMMETRIC = random_complex(5, "symmetric").detach()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"A": SYMMETRIC}, ValueError, r"A: expected a Hermitian matrix, .*linalg.eigs finds"),
        (
            {"A": random_csr(5, 5, density=1.1, dtype=COMPLEX)},
            ValueError,
            r"A: expected a Hermitian matrix, .*conjugate mirrors by .* pass \(A \+ A.H\) / 2",
        ),
        (
            {"A": random_csr(5, 5, dtype=COMPLEX)},
            ValueError,
            r"A: expected a Hermitian matrix, .* without a mirror; .* \(A \+ A.H\) / 2",
        ),
        ({"A": CSRTensor.diag(torch.ones(5) * 1j)}, ValueError, r"Hermitian .* by 2.0e\+00"),
        ({"sigma": 1j}, ValueError, r"sigma: expected a finite number, and a real one, or None"),
        ({"M": CSRTensor.eye(8)}, TypeError, r"M: expected torch.complex128 like A, got .*float32"),
        (
            {"M": CSRTensor.eye(8, dtype=COMPLEX) * -1},
            ValueError,
            r"M: expected a positive definite matrix, but",
        ),
        (
            {"M": CSRTensor.eye(8, dtype=COMPLEX) * 1j},
            ValueError,
            r"M: expected a Hermitian matrix",
        ),
        ({"v0": torch.ones(8)}, ValueError, r"v0: expected torch.complex128 of shape \(8,\)"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        eigsh(**({"A": pencil()[0], "k": 2} | arguments))


def test_failures():
    A = ring(400, 0.05)
    with pytest.raises(SolveError, match=r"maxiter after 1 iterations: .*not all of 6 eigenpairs"):
        eigsh(A, which="SA", maxiter=1)
    with pytest.raises(SolveError, match="singular"):
        eigsh(CSRTensor.eye(5, dtype=COMPLEX), 2, sigma=1.0)
