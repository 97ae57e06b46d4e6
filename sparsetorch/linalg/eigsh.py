"""Some eigenpairs of a sparse symmetric matrix, and their derivatives.

With S v_i = w_i v_i, V^T V = I and a tangent dS,

    dw_i = v_i . dS v_i,
    dv_i = sum over j of v_j (v_j . dS v_i) / (w_i - w_j)  +  u_i,
    (S - w_i) u_i = -dS v_i on the complement of V,

where j runs over the other computed pairs (Magnus 1985; Giles 2008, section 3.1). Only the last
line needs a solve, on a space that lacks the eigenvalues close to w_i. All of it is made of
differentiable operations, so derivatives of every order are exact up to the tolerance of the solve.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NoReturn, TypedDict, Unpack, overload

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator
from scipy.sparse.linalg import eigsh as arpack
from torch import Tensor

from sparsetorch.csr import CSRTensor
from sparsetorch.linalg.batched_gradients import map_gradients
from sparsetorch.linalg.bordered import Border, Bordered, Inverse
from sparsetorch.linalg.direct import factorized
from sparsetorch.linalg.dtypes import REAL
from sparsetorch.linalg.krylov import check_system, check_tolerances, starting_point
from sparsetorch.linalg.solution import Solution, SolveError, Status
from sparsetorch.linalg.solvers import product
from sparsetorch.linalg.thick_restart import WANTED, thick_restart
from sparsetorch.pattern import Pattern
from sparsetorch.structure import outside_transforms, plain
from sparsetorch_kernels import sddmm

Which = Literal["LM", "SM", "LA", "SA", "BE"]
REMEDY = "; for the symmetric part of a matrix, pass (A + A.T) / 2"


class Options(TypedDict, total=False):
    """The options of `eigsh`, as it describes them."""

    sigma: float | None
    which: Which
    v0: Tensor | None
    ncv: int | None
    maxiter: int | None
    tol: float
    adjoint_rtol: float | None


@overload
def eigsh(
    A: CSRTensor,
    k: int = ...,
    *,
    return_eigenvectors: Literal[False],
    **options: Unpack[Options],
) -> Tensor: ...
@overload
def eigsh(
    A: CSRTensor,
    k: int = ...,
    *,
    return_eigenvectors: Literal[True] = ...,
    **options: Unpack[Options],
) -> tuple[Tensor, Tensor]: ...
def eigsh(
    A: CSRTensor,
    k: int = 6,
    *,
    sigma: float | None = None,
    which: Which = "LM",
    v0: Tensor | None = None,
    ncv: int | None = None,
    maxiter: int | None = None,
    tol: float = 0.0,
    return_eigenvectors: bool = True,
    adjoint_rtol: float | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """k eigenvalues, ascending, and orthonormal eigenvectors of a symmetric A; differentiable.

    A: one symmetric CSRTensor (n, n), float32 or float64; k < n. which: "LM" and "SM" the largest
    and smallest in magnitude, "LA" and "SA" algebraically, "BE" half from each end. sigma: the
    eigenvalues around it, by a factorization of A - sigma I on the CPU; `which` then speaks of
    1 / (w - sigma), so that "LM" are the closest ones. The smallest eigenvalues of a positive
    definite matrix are found far sooner by sigma=0 than by "SM" or "SA". v0: (n,), the start;
    random but always the same by default. ncv: size of the basis, max(2 k + 1, 20) by default.
    maxiter: restarts, 10 n by default. tol: relative accuracy, 0 for machine precision.
    adjoint_rtol: of the solves behind derivatives of eigenvectors, 1e-6 in float32 and 1e-10 in
    float64 by default.

    Returns w (k,) and V (n, k), or w alone. The largest component of each vector is positive. On
    the CPU ARPACK computes them (`scipy.sparse.linalg.eigsh`, whose arguments these are), elsewhere
    a thick-restart Lanczos method; both may miss copies of a multiple eigenvalue.

    Derivatives are those of the eigenpairs of (A + A^T) / 2, so gradients are symmetric, like those
    of `torch.linalg.eigh` of that. The gradient of a symmetric function of equal eigenvalues, and
    of the projector V V^T on all of them, is right. That of single vectors among equal eigenvalues
    is undefined: it raises in reverse mode, and is NaN in forward mode, where `torch.linalg.eigh`
    returns NaN, infinity or noise. Second derivatives need distinct eigenvalues, and raise without.

    Raises:
        SolveError: not all k converged, or A - sigma I is singular; later, a solve for a derivative
            failed, as it does if an eigenvalue that was left out equals one of the k.
        ValueError: a batch (use torch.vmap), a matrix that is not square, symmetric and finite, or
            an option out of range; sigma where A is not on the CPU.
        TypeError: A is not a CSRTensor of float32 or float64.
        RuntimeError: derivatives that do not exist, as said above.
    """
    problem = _checked(A, k, sigma, which, v0, ncv, maxiter, tol, adjoint_rtol)
    w, V = _Eigsh.apply(A.values, problem)
    return (w, V) if return_eigenvectors else w


def _checked(
    A: CSRTensor,
    k: int,
    sigma: float | None,
    which: Which,
    v0: Tensor | None,
    ncv: int | None,
    maxiter: int | None,
    tol: float,
    adjoint_rtol: float | None,
) -> Problem:
    """The problem that valid arguments describe."""
    like = plain(A.values) if isinstance(A, CSRTensor) else torch.empty(0)
    if isinstance(A, CSRTensor) and A.ndim == 2:
        like = like.new_zeros(A.shape[0])
    check_system(A, like, dtypes=REAL)
    n = A.shape[0]
    if not A.pattern.is_symmetric:
        raise ValueError(f"A: expected a symmetric matrix, got an entry without a mirror{REMEDY}")
    if k != int(k) or not 1 <= k < n:
        raise ValueError(
            f"k: expected 1 <= k < {n} for {n} rows, got {k}; torch.linalg.eigh(A.to_dense()) "
            "finds all"
        )
    if which not in WANTED:
        raise ValueError(f"which: expected one of {', '.join(map(repr, WANTED))}, got {which!r}")
    if sigma is not None and not math.isfinite(sigma):
        raise ValueError(f"sigma: expected a finite number or None, got {sigma}")
    if sigma is not None and A.device.type != "cpu":
        raise ValueError(f"sigma: needs a factorization, on the CPU, got {A.device}; use which=")
    basis = min(n, max(2 * k + 1, 20)) if ncv is None else ncv
    if basis != int(basis) or not k < basis <= n:
        raise ValueError(f"ncv: expected an integer with k = {k} < ncv <= {n}, got {ncv}")
    check_tolerances(adjoint_rtol, tol, maxiter)
    if v0 is None:  # NumPy's generator, for vmap forbids PyTorch's
        v0 = torch.from_numpy(np.random.default_rng(0).standard_normal(n)).to(like)
    start = plain(starting_point(v0, like, (n,), "v0"))
    if not bool(start.any()) or not bool(start.isfinite().all()):
        raise ValueError("v0: expected finite numbers that are not all zero")
    return Problem(A.pattern, k, sigma, which, start, basis, maxiter or 10 * n, tol, adjoint_rtol)


@dataclass(frozen=True)
class Problem:
    """What `eigsh` was asked, and the factors of A - sigma I once they are known."""

    pattern: Pattern
    k: int
    sigma: float | None
    which: str
    v0: Tensor
    ncv: int
    maxiter: int
    tol: float
    adjoint_rtol: float | None
    inverse: list[Inverse] = field(default_factory=list)

    @property
    def border(self) -> Border:
        """The solver for derivatives of eigenvectors."""
        return Border(self.pattern, self.adjoint_rtol, self.inverse[0] if self.inverse else None)

    def independent(self) -> Problem:
        """The same problem for other values."""
        return replace(self, inverse=[])

    def solve(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """(w, V) for values (nnz,), ascending and with signs chosen."""
        S = CSRTensor(self.pattern, self.symmetric(values))
        mirror = CSRTensor(self.pattern, values).T.values
        if values.numel():
            largest, asymmetry = values.abs().max(), (values - mirror).abs().max()
            if not bool(largest.isfinite()):
                raise ValueError("A.values: expected finite numbers, got NaN or infinity")
            if bool(asymmetry > math.sqrt(torch.finfo(values.dtype).eps) * largest):
                raise ValueError(
                    "A: expected a symmetric matrix, got entries that differ from their mirrors "
                    f"by {float(asymmetry):.1e}{REMEDY}"
                )
        if self.sigma is None and not bool(values.any()):
            # There is no Krylov space, and any basis will do.
            return S.values.new_zeros(self.k), torch.eye(S.shape[0], self.k).to(S.values)
        w, V = self._by_arpack(S) if values.device.type == "cpu" else self._by_lanczos(S)
        w, order = w.sort()
        V = V[:, order]
        signs = V.gather(0, V.abs().argmax(0, keepdim=True)).sign()
        return w, V * signs

    def symmetric(self, values: Tensor) -> Tensor:
        """The values of (A + A^T) / 2; differentiable."""
        return (values + CSRTensor(self.pattern, values).T.values) / 2

    def _by_arpack(self, S: CSRTensor) -> tuple[Tensor, Tensor]:
        n, dtype = S.shape[0], self.v0.numpy().dtype
        options: dict[str, Any] = {"tol": self.tol}
        if self.sigma is not None:
            shifted = S.add_diagonal(S.values.new_full((n,), -self.sigma))
            factors = factorized(shifted)
            self.inverse.append(Inverse(factors, self.sigma))
            options["sigma"] = self.sigma
            options["OPinv"] = _operator(factors.solve, n, dtype)
        try:
            w, V = arpack(
                _operator(S.matvec, n, dtype),
                self.k,
                which=self.which,
                v0=self.v0.numpy(),
                ncv=self.ncv,
                maxiter=self.maxiter,
                **options,
            )
        except ArpackNoConvergence as error:
            self._fail(torch.from_numpy(error.eigenvectors), len(error.eigenvalues), [])
        return torch.from_numpy(w).to(S.dtype), torch.from_numpy(V).to(S.dtype)

    def _by_lanczos(self, S: CSRTensor) -> tuple[Tensor, Tensor]:
        found = thick_restart(
            S.matvec, self.v0, self.k, self.which, self.ncv, self.tol, self.maxiter
        )
        if not found.converged:
            self._fail(found.V, None, [float(found.residuals.max())])
        return torch.from_numpy(found.w).to(S.values), found.V

    def _fail(self, V: Tensor, count: int | None, residuals: list[float]) -> NoReturn:
        missing = "not all" if count is None else f"{count}"
        detail = f"{missing} of {self.k} eigenpairs converged; a larger ncv or sigma= helps most"
        raise SolveError(Solution(V, Status.MAXITER, self.maxiter, residuals, detail))


def _operator(multiply: Any, n: int, dtype: np.dtype) -> Any:
    def apply(x: np.ndarray) -> np.ndarray:
        return multiply(torch.from_numpy(np.ascontiguousarray(x).reshape(n))).numpy()

    shape: Any = (n, n)
    return LinearOperator(shape, matvec=apply, dtype=dtype)  # pyright: ignore[reportCallIssue]


class _Eigsh(torch.autograd.Function):
    """(w, V) from values."""

    @staticmethod
    def forward(values: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return problem.solve(values)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Any) -> None:
        values, ctx.problem = inputs
        ctx.save_for_backward(values, *output)
        ctx.save_for_forward(values, *output)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None):
        values, w, V = ctx.saved_tensors
        problem: Problem = ctx.problem
        gaps = Gaps(problem, values, w)
        g_w, g_V = grads
        factor = torch.zeros_like(V)
        if g_w is not None:
            factor = factor + V * g_w
        if g_V is not None:
            S, border = problem.symmetric(values), problem.border

            def adjoint(g: Tensor) -> Tensor:
                return Bordered.apply(S, w, V, g, torch.zeros_like(V.mT @ V), border)[0]

            H = V.mT @ g_V
            rotation = gaps.divide((H - H.mT) / 2, g_V)
            factor = factor + V @ rotation - map_gradients(adjoint, g_V)
        gradient = problem.symmetric(sddmm(problem.pattern.layout, factor, V))
        return (_Once.apply(gradient) if gaps.any else gradient), None

    @staticmethod
    def jvp(ctx: Any, d_values: Tensor, _: None):
        values, w, V = ctx.saved_tensors
        problem: Problem = ctx.problem
        image = product(problem.pattern.layout, problem.symmetric(d_values), V)  # dS V
        rotation = Gaps(problem, values, w).divide_or_nan(V.mT @ image, image)
        zeros = torch.zeros_like(rotation)
        rest, _ = Bordered.apply(problem.symmetric(values), w, V, -image, zeros, problem.border)
        return (V * image).sum(0), V @ rotation + rest

    @staticmethod
    def vmap(info: Any, in_dims: tuple, values: Tensor, problem: Problem):
        if in_dims[0] is None or info.batch_size == 0:
            raise ValueError("eigsh under torch.vmap: expected a mapped A with at least one member")
        pairs = [
            _Eigsh.apply(values.select(in_dims[0], i), problem.independent())
            for i in range(info.batch_size)
        ]
        return tuple(torch.stack(parts) for parts in zip(*pairs)), (0, 0)


class Gaps:
    """Differences w_i - w_j, (k, k), and which are nothing but rounding."""

    def __init__(self, problem: Problem, values: Tensor, w: Tensor):
        self._precision = torch.finfo(w.dtype).eps
        ones = torch.ones_like(problem.v0)
        bound = product(problem.pattern.layout, values.detach().abs(), ones).amax(-1)  # of |S|
        others = ~torch.eye(problem.k, dtype=torch.bool, device=w.device)
        self._differences = w.unsqueeze(-2) - w.unsqueeze(-1)
        self._equal = (self._differences.abs() <= 100 * self._precision * bound) & others
        self._keep = others & ~self._equal
        self.any = _any(self._equal)

    def divide(self, numerators: Tensor, scale: Tensor) -> Tensor:
        """Numerators over gaps, 0 on the diagonal and where both vanish.

        Raises:
            RuntimeError: a gap vanishes and its numerator does not.
        """
        if self.any and _any(self._undefined(numerators, scale)):
            raise RuntimeError(
                "eigsh: the gradient of single eigenvectors is undefined where eigenvalues are "
                "equal; use the eigenvalues or the projector V @ V.T on all of them, or change A "
                "by something that parts them"
            )
        return self._quotients(numerators)

    def divide_or_nan(self, numerators: Tensor, scale: Tensor) -> Tensor:
        """The same with NaN where it is undefined."""
        undefined = self._undefined(numerators, scale)
        return torch.where(undefined, torch.nan, self._quotients(numerators))

    def _undefined(self, numerators: Tensor, scale: Tensor) -> Tensor:
        bound = math.sqrt(self._precision) * scale.detach().abs().amax((-2, -1), keepdim=True)
        return self._equal & (numerators.detach().abs() > bound)

    def _quotients(self, numerators: Tensor) -> Tensor:
        # Twice `where`, for a division by zero would spoil the derivative of the other entries.
        safe = torch.where(self._keep, self._differences, 1)
        return torch.where(self._keep, numerators / safe, 0)


def _any(mask: Tensor) -> bool:
    """Whether one is true, in any member of a batch that is mapped over."""
    with outside_transforms():
        return bool(plain(mask).any())


class _Once(torch.autograd.Function):
    """The identity, without derivatives."""

    generate_vmap_rule = True

    @staticmethod
    def forward(gradient: Tensor) -> Tensor:
        return gradient.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Tensor):
        raise RuntimeError(
            "eigsh: second derivatives need distinct eigenvalues, and some of those computed are "
            "equal to working precision"
        )

    @staticmethod
    def jvp(ctx: Any, *tangents: Any):
        return _Once.backward(ctx, *tangents)
