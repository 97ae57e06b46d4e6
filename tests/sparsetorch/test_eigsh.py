"""Eigenpairs and singular triplets: against dense and SciPy's, with derivatives of both."""

from typing import Any

import pytest
import scipy.sparse.linalg as sl
import torch
from random_matrices import dense, random_csr, random_square
from torch.autograd import gradcheck, gradgradcheck

from sparsetorch import CSRTensor, poisson
from sparsetorch.linalg import SolveError, Status, eigsh, svds
from sparsetorch.linalg.thick_restart import WANTED, thick_restart

WAYS = [{"which": which} for which in WANTED] + [{"sigma": 0.9}, {"sigma": 0.0, "which": "LA"}]
every_way = pytest.mark.parametrize("options", WAYS, ids=str)


@pytest.fixture(autouse=True)
def _one_thread():
    # Many small operations: on a busy machine threads spend their time waiting for each other.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def symmetric(seed: int = 3) -> CSRTensor:
    return random_square(8, seed=seed, symmetric=True)


def part(A: CSRTensor, values: torch.Tensor) -> CSRTensor:
    """Perturbed in single entries, a matrix is not symmetric any more; this is."""
    M = A.with_values(values)
    return (M + M.T) / 2


def wanted(w: torch.Tensor, k: int, which: str = "LM", sigma: float | None = None):
    """Positions of what SciPy's documentation says that `which` and `sigma` mean."""
    measure = w if sigma is None else 1 / (w - sigma)
    return (
        sorted(WANTED[which](measure.numpy(), k))
        if sigma is None
        else sorted(
            measure.argsort()[WANTED[which](measure.sort().values.numpy(), k).copy()].tolist()
        )
    )


@every_way
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_pairs_are_those_of_the_dense_matrix(options, dtype):
    A = symmetric().detach().to(dtype)
    w, V = eigsh(A, 3, **options)
    exact = torch.linalg.eigvalsh(A.to_dense())
    rounding = 1e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(w, exact[wanted(exact, 3, **options)], rtol=0, atol=rounding)
    torch.testing.assert_close(A @ V, V * w, rtol=0, atol=rounding)
    torch.testing.assert_close(V.T @ V, torch.eye(3, dtype=dtype), rtol=0, atol=rounding)
    assert bool((V.gather(0, V.abs().argmax(0, keepdim=True)) > 0).all())
    torch.testing.assert_close(eigsh(A, 3, return_eigenvectors=False, **options), w)


def test_finds_the_known_spectrum_of_the_laplacian():
    n = 200
    A = poisson(n, dtype=torch.float64)
    exact = 2 - 2 * torch.cos(torch.arange(1.0, 6.0).double() * torch.pi / (n + 1))
    torch.testing.assert_close(eigsh(A, 5, sigma=0.0)[0], exact, rtol=1e-10, atol=0)
    by_scipy = sl.eigsh(A.to_scipy(), 5, which="LA")[0]
    torch.testing.assert_close(eigsh(A, 5, which="LA")[0], torch.from_numpy(by_scipy))


@pytest.mark.parametrize("which", list(WANTED))
def test_thick_restart_agrees_with_arpack(which):
    # The method of other devices than the CPU; the spectrum has pairs of equal values.
    A = poisson(12, 12, dtype=torch.float64)
    A = A.add_diagonal(torch.full((144,), -3.3).double())
    start = torch.randn(144, generator=torch.Generator().manual_seed(0)).double()
    found = thick_restart(A.matvec, start, 4, which, 60 if which == "SM" else 20, 0.0, 500)
    assert found.converged
    by_arpack = eigsh(A, 4, which=which, ncv=60)[0]
    torch.testing.assert_close(torch.from_numpy(found.w).sort().values, by_arpack)
    w = torch.from_numpy(found.w)
    torch.testing.assert_close(A @ found.V, found.V * w, rtol=0, atol=1e-10)
    whole = thick_restart(A.matvec, start, 4, which, 144, 0.0, 0)
    torch.testing.assert_close(torch.from_numpy(whole.w).sort().values, by_arpack)


def test_thick_restart_goes_on_beside_an_invariant_subspace():
    A = CSRTensor.diag(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).double())
    start = torch.zeros(6, dtype=torch.float64)
    start[0] = 1  # an eigenvector
    found = thick_restart(A.matvec, start, 2, "LA", 4, 0.0, 100)
    torch.testing.assert_close(torch.from_numpy(found.w), torch.tensor([6.0, 5.0]).double())


@every_way
def test_derivatives_of_first_and_second_order(options):
    A = symmetric()

    def pairs(values):
        return eigsh(part(A, values), 3, adjoint_rtol=1e-13, **options)

    fast = {"fast_mode": True, "atol": 1e-6}
    assert gradcheck(pairs, (A.values,), check_forward_ad=True, check_batched_grad=True, **fast)
    assert gradgradcheck(pairs, (A.values,), check_fwd_over_rev=True, **fast)


def test_gradients_are_those_of_the_dense_symmetric_part():
    A = symmetric()
    weights = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)).double()

    def loss(w, V):
        return (w**3).sum() + (weights * V).sum() ** 2

    got = torch.autograd.grad(loss(*eigsh(A, 3, which="LA")), A.values)[0]
    D = dense(A)
    w, V = torch.linalg.eigh((D + D.T) / 2)
    signs = V.gather(0, V.abs().argmax(0, keepdim=True)).sign()
    expected = torch.autograd.grad(loss(w[-3:], (V * signs)[:, -3:]), A.values)[0]
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(A.with_values(got).T.values, got)


@pytest.mark.parametrize("shape", [(10, 4), (8, 9)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
@pytest.mark.parametrize("pencil", [False, True])
def test_derivatives_of_eigenvectors_in_single_precision(shape, dtype, pencil):
    """The vectors are orthonormal to some 1e-6 only, where an iteration beside them may stall."""
    gradients = []
    for kind in (dtype, torch.complex128 if dtype.is_complex else torch.float64):
        A = poisson(*shape, dtype=kind)
        M = CSRTensor.diag(torch.linspace(1, 2, A.shape[0]).to(kind)) if pencil else None
        values = A.values.clone().requires_grad_()
        _, V = eigsh(A.with_values(values), 3, M=M, which="SA")
        (gradient,) = torch.autograd.grad((V.real**3).sum(), values)
        gradients.append(gradient)
    got, want = gradients
    assert got.dtype == dtype
    assert (got - want).norm() <= 1e-4 * want.norm()


def test_transformations_by_value():
    A = symmetric()

    def energy(values):
        w, V = eigsh(part(A, values), 2, which="SA", adjoint_rtol=1e-13)
        return (w[..., 0] * V[:, 1] ** 3).sum()

    def reference(values):
        D = dense(A.with_values(values))
        w, V = torch.linalg.eigh((D + D.T) / 2)
        signs = V.detach().gather(0, V.detach().abs().argmax(0, keepdim=True)).sign()
        return (w[0] * (V * signs)[:, 1] ** 3).sum()

    values = A.values.detach()
    tangent = torch.randn_like(values)
    _, got, *_ = torch.func.jvp(energy, (values,), (tangent,))
    _, expected, *_ = torch.func.jvp(reference, (values,), (tangent,))
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(
        torch.func.hessian(energy)(values), torch.autograd.functional.hessian(reference, values)
    )
    batch = torch.stack([values, values**2])
    mapped = torch.vmap(torch.func.grad(energy))(batch)
    torch.testing.assert_close(mapped[1], torch.autograd.functional.jacobian(reference, batch[1]))


class TestEqualEigenvalues:
    """The Laplacian of a square: its second and third smallest eigenvalues are equal."""

    def setup_method(self):
        self.A = poisson(6, 6, dtype=torch.float64).requires_grad_()

    def dense_pairs(self):
        D = dense(self.A)
        return torch.linalg.eigh((D + D.T) / 2)

    def test_symmetric_functions_have_the_right_gradient(self):
        projected = torch.diag(torch.arange(36.0)).double()
        w, V = eigsh(self.A, 3, sigma=0.0)
        assert abs(w[1] - w[2]) < 1e-12
        loss = (w**2).sum() + (V @ V.T * projected).sum()
        (got,) = torch.autograd.grad(loss, self.A.values)
        tangent = self.A.values.detach() * torch.linspace(0, 1, 36)[self.A.pattern.row.long()]
        tangent = (tangent + self.A.with_values(tangent).T.values) / 2
        h = 1e-5

        def value(t):
            D = dense(self.A.detach().with_values(self.A.values.detach() + t * tangent))
            w, V = torch.linalg.eigh(D)
            return (w[:3] ** 2).sum() + (V[:, :3] @ V[:, :3].T * projected).sum()

        numeric = (value(h) - value(-h)) / (2 * h)
        torch.testing.assert_close((got * tangent).sum(), numeric, rtol=1e-6, atol=1e-9)

    def test_single_vectors_have_none_and_say_so(self):
        _, V = eigsh(self.A, 3, sigma=0.0)
        with pytest.raises(RuntimeError, match="single eigenvectors is undefined"):
            (V[:, 1] ** 4).sum().backward()

        def pairs(values):
            return eigsh(self.A.with_values(values), 3, sigma=0.0)

        values = self.A.values.detach()
        tangent = values * (self.A.pattern.row + self.A.pattern.col) ** 2
        dw, dV = torch.func.jvp(pairs, (values,), (tangent,))[1]
        assert bool(dw.isfinite().all())
        assert bool(dV[:, 1:].isnan().all())

    def test_second_derivatives_raise(self):
        w, _ = eigsh(self.A, 3, sigma=0.0)
        (gradient,) = torch.autograd.grad((w**2).sum(), self.A.values, create_graph=True)
        with pytest.raises(RuntimeError, match="second derivatives need distinct eigenvalues"):
            gradient.sum().backward()

    def test_a_cluster_that_is_cut_has_no_vectors_to_differentiate(self):
        _, V = eigsh(self.A, 2, which="SA")
        with pytest.raises(SolveError, match=r"derivative of eigenvector 1.* try a larger k"):
            (V[:, 1] ** 4).sum().backward()


def test_failures():
    A = poisson(30, 30, dtype=torch.float64)
    with pytest.raises(SolveError, match=r"maxiter after 1 iterations: .* of 6 eigenpairs") as info:
        eigsh(A, which="SA", maxiter=1)
    assert info.value.solution.status is Status.MAXITER
    found = thick_restart(A.matvec, torch.ones(900).double(), 6, "SA", 20, 0.0, 1)
    assert not found.converged
    with pytest.raises(SolveError, match="singular"):
        eigsh(CSRTensor.eye(5).to(torch.float64), 2, sigma=1.0)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"k": 8}, ValueError, r"k: expected 1 <= k < 8 .* torch.linalg.eigh\(A.to_dense\(\)\)"),
        ({"k": 0}, ValueError, r"k: expected at least 1 eigenpair, got 0"),
        ({"which": "LR"}, ValueError, r"which: expected one of 'LA', .*, got 'LR'"),
        ({"sigma": float("nan")}, ValueError, r"sigma: expected a finite number"),
        ({"ncv": 2, "k": 2}, ValueError, r"ncv: expected an integer with k = 2 < ncv <= 8"),
        ({"maxiter": 0}, ValueError, r"maxiter: expected at least 1 restart, got 0"),
        ({"tol": -1.0}, ValueError, r"^tol: expected a number of at least 0, got -1"),
        ({"adjoint_rtol": "1"}, TypeError, r"^adjoint_rtol: expected a number"),
        ({"v0": torch.ones(7)}, ValueError, r"v0: expected torch.float64 of shape \(8,\)"),
        ({"A": torch.eye(3)}, TypeError, r"A: expected a CSRTensor, got Tensor"),
        ({"A": random_csr(3, 4)}, ValueError, r"A: expected a square matrix"),
        ({"A": random_csr(4, 4, batch=(2,))}, ValueError, r"A: expected one matrix, got a batch"),
        ({"A": random_csr(5, 5)}, ValueError, r"A: expected a symmetric .*pass \(A \+ A.T\) / 2"),
        (
            {"A": random_csr(5, 5, density=1.1)},
            ValueError,
            r"A: expected a symmetric matrix, got entries that differ .*pass \(A \+ A.T\) / 2",
        ),
        ({"A": CSRTensor.diag(torch.tensor([1.0, torch.inf, 2]))}, ValueError, r"finite numbers"),
        ({"A": CSRTensor.eye(5).to(torch.float16)}, TypeError, r"float64, complex64 or"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        eigsh(**({"A": symmetric(), "k": 2} | arguments))


@pytest.mark.parametrize("shape", [(9, 5), (5, 9), (6, 6), (1, 4)], ids=str)
def test_singular_triplets_are_those_of_the_dense_matrix(shape):
    A = random_csr(*shape, density=1.1, seed=1).detach()
    k = min(3, *shape)
    U, S, Vh = svds(A, k)
    torch.testing.assert_close(S, torch.linalg.svdvals(dense(A))[:k])
    torch.testing.assert_close(A @ Vh.T, U * S)
    torch.testing.assert_close(U.T @ U, torch.eye(k).double())
    torch.testing.assert_close(Vh @ Vh.T, torch.eye(k).double())
    torch.testing.assert_close(svds(A, k, return_singular_vectors=False), S)
    if k < min(shape):
        by_scipy: Any = sl.svds(A.to_scipy(), k, return_singular_vectors=False)
        torch.testing.assert_close(S.flip(0), torch.tensor(by_scipy.copy()))


def test_derivatives_of_singular_triplets():
    A = random_csr(7, 5, density=0.6, seed=2)

    def triplets(values):
        return svds(A.with_values(values), 2, adjoint_rtol=1e-13)

    fast = {"fast_mode": True, "atol": 1e-6}
    assert gradcheck(triplets, (A.values,), check_forward_ad=True, **fast)
    assert gradgradcheck(triplets, (A.values,), check_fwd_over_rev=True, **fast)
    mapped = torch.vmap(lambda v: svds(A.with_values(v), 2)[1])(torch.stack([A.values] * 2))
    torch.testing.assert_close(mapped[1], svds(A, 2)[1])


def test_the_nuclear_norm_has_its_known_gradient():
    A = random_csr(4, 6, density=1.1, seed=2)
    U, S, Vh = svds(A, 4)
    S.sum().backward()
    assert A.values.grad is not None
    torch.testing.assert_close(A.values.grad, (U @ Vh).detach().flatten())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"k": 5}, ValueError, r"k: expected 1 <= k <= 4"),
        ({"which": "SA"}, ValueError, r"which: expected 'LM' or 'SM'"),
        ({"which": "SM", "k": 4}, ValueError, r"k: expected 1 <= k <= 3 .*svd"),
        ({"A": random_csr(4, 4, batch=(2,))}, ValueError, r"got a batch"),
        ({"A": torch.ones(2, 2)}, TypeError, r"A: expected a CSRTensor"),
        ({"A": CSRTensor.diag(torch.tensor([1.0, 2.0, 0.0, 0.0])), "k": 3}, ValueError, r"try k=2"),
    ],
)
def test_bad_arguments_of_svds_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        svds(**({"A": random_csr(4, 6, density=1.1), "k": 2} | arguments))


def test_some_of_equal_smallest_singular_values_are_right_or_refused():
    # Which of them ARPACK finds depends on random numbers that it goes on with from call to call.
    A = CSRTensor.eye(5, torch.float64)
    for _ in range(3):
        try:
            U, S, Vh = svds(A, 4, which="SM")
        except ValueError as error:
            assert "are equal" in str(error)  # noqa: PT017
        else:
            torch.testing.assert_close(S, torch.ones(4, dtype=torch.float64))
            torch.testing.assert_close(U, Vh.mT)
            torch.testing.assert_close(Vh @ Vh.mT, torch.eye(4, dtype=torch.float64))


@pytest.mark.parametrize("scale", [1e-20, 1e-200, 1e200])
class TestUnits:
    """ARPACK takes |w| < 4e-11 for zero; a matrix in other units is the same matrix."""

    A = poisson(12, 5, dtype=torch.float64)

    def close(self, got, expected, scale, rtol=1e-12):
        torch.testing.assert_close(got / scale, expected, rtol=rtol, atol=rtol)

    @pytest.mark.parametrize("options", [{}, {"which": "SM"}, {"sigma": 1.0}], ids=str)
    def test_of_the_matrix(self, scale, options):
        w, V = eigsh(self.A, 3, **options)
        moved = {name: o * scale if name == "sigma" else o for name, o in options.items()}
        got, vectors = eigsh(self.A * scale, 3, **moved)
        self.close(got, w, scale)
        self.close(vectors, V, 1.0, 1e-9)

    @pytest.mark.parametrize("sigma", [None, 0.5])
    def test_of_a_pencil(self, scale, sigma):
        M = CSRTensor.diag(torch.arange(1.0, 61, dtype=torch.float64))
        w, V = eigsh(self.A, 3, M=M, sigma=sigma)
        shift = None if sigma is None else sigma / scale
        got, vectors = eigsh(self.A, 3, M=M * scale, sigma=shift)
        self.close(got, w, 1 / scale)
        self.close(vectors, V, scale**-0.5, 1e-9)

    @pytest.mark.parametrize("which", ["LM", "SM"])
    def test_of_singular_values(self, scale, which):
        for A in (self.A, self.A.submatrix(slice(None), slice(40))):
            expected = svds(A, 2, which=which)[1]
            self.close(svds(A * scale, 2, which=which)[1], expected, scale)

    def test_derivatives(self, scale):
        def loss(values: torch.Tensor, unit: float) -> torch.Tensor:
            w, V = eigsh(self.A.with_values(values), 2, which="LA")
            return w.sum() / unit + (V[:, 1] ** 3).sum()

        gradient = torch.func.grad(loss)
        got = gradient(self.A.values * scale, scale) * scale
        torch.testing.assert_close(got, gradient(self.A.values, 1.0), rtol=1e-7, atol=1e-9)
