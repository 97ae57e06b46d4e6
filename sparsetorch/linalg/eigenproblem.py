"""What `eigsh` is asked, the eigenpairs by ARPACK or Lanczos, and the gaps between eigenvalues."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator
from scipy.sparse.linalg import eigsh as arpack
from torch import Tensor

from sparsetorch.csr import CSRTensor
from sparsetorch.linalg.bordered import Border, Inverse
from sparsetorch.linalg.direct import factorized
from sparsetorch.linalg.dtypes import conjugate
from sparsetorch.linalg.krylov import Operator
from sparsetorch.linalg.smallest import n_missed
from sparsetorch.linalg.solution import Solution, SolveError, Status
from sparsetorch.linalg.solvers import product
from sparsetorch.linalg.thick_restart import thick_restart
from sparsetorch.pattern import Pattern
from sparsetorch.structure import outside_transforms, plain
from sparsetorch_kernels import nestable


def kind(A: CSRTensor) -> str:
    """What a matrix with real eigenvalues is called, in this dtype."""
    return "Hermitian" if A.dtype.is_complex else "symmetric"


def remedy(A: CSRTensor) -> str:
    """What to do with a matrix that is not symmetric, or if complex not Hermitian."""
    mirror = "H" if A.dtype.is_complex else "T"
    return f"; for the {kind(A)} part of a matrix, pass (A + A.{mirror}) / 2"


class Mass(NamedTuple):
    """The M of a generalized problem, and its inverse, as functions of vectors (n,)."""

    multiply: Operator
    solve: Operator


@dataclass(frozen=True, eq=False)
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
    size: float = 1.0  # what the matrix that was given has been divided by
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
        self.check_symmetric("A", values)
        S = CSRTensor(self.pattern, self.symmetric(values))
        inverse = None
        if self.sigma is not None:
            shift = S.values.new_full((S.shape[0],), -self.sigma)
            inverse = self.shifted_inverse(S.add_diagonal(shift))
        w, V = in_order(*self.eigenpairs(S, inverse))
        if self.which == "SM" and inverse is None and (missed := self._missed(S, w)):
            return self._around_zero(S, missed)
        return w, V

    def _missed(self, S: CSRTensor, w: Tensor) -> int:
        return n_missed(S, w, float(self.bound(S.values)))

    def _around_zero(self, S: CSRTensor, missed: int) -> tuple[Tensor, Tensor]:
        """The pairs closest to zero by the inverse, which is kept for derivatives."""
        # Another start, for the one that was given may be what has hidden them.
        start = torch.from_numpy(np.random.default_rng(1).standard_normal(S.shape[0]))
        again = replace(self, which="LM", sigma=0.0, v0=start.to(self.v0))
        try:
            w, V = again.solve(S.values)
            if not self._missed(S, w):
                return w, V
            solution = Solution(V, Status.MAXITER, self.maxiter, [])
        except SolveError as error:
            solution = error.solution
        detail = (
            f"which='SM' missed {missed} of the smallest eigenvalues, and the inverse does not "
            "find them; pass a sigma close to zero"
        )
        raise SolveError(replace(solution, detail=detail))

    def check_symmetric(self, name: str, values: Tensor) -> None:
        """Raise ValueError unless values (nnz,) are finite and, but for rounding, Hermitian."""
        A = CSRTensor(self.pattern, values)
        mirror = A.H.values
        if values.numel():
            largest, asymmetry = values.abs().max(), (values - mirror).abs().max()
            if not bool(largest.isfinite()):
                raise ValueError(f"{name}.values: expected finite numbers, got NaN or infinity")
            if bool(asymmetry > math.sqrt(torch.finfo(values.dtype).eps) * largest):
                mirrors = "conjugate mirrors" if values.is_complex() else "mirrors"
                raise ValueError(
                    f"{name}: expected a {kind(A)} matrix, got entries that differ from their "
                    f"{mirrors} by {float(asymmetry / largest):.1e} of the largest"
                    f"{self._instead(values)}"
                )

    def symmetric(self, values: Tensor) -> Tensor:
        """The values of (A + A^H) / 2; differentiable."""
        return (values + CSRTensor(self.pattern, values).H.values) / 2

    def _instead(self, values: Tensor) -> str:
        A = CSRTensor(self.pattern, values)
        if values.is_complex() and bool((values - A.T.values).abs().max() == 0):
            return (
                "; a complex A = A.T has complex eigenvalues, which scipy.sparse.linalg.eigs finds"
            )
        return remedy(A)

    def shifted_inverse(self, shifted: CSRTensor) -> Operator:
        """The inverse of A - sigma M; kept for derivatives."""
        assert self.sigma is not None
        factors = factorized(shifted)
        self.inverse.append(Inverse(factors, self.sigma))
        return factors.solve

    def eigenpairs(
        self, S: CSRTensor, inverse: Operator | None, mass: Mass | None = None
    ) -> tuple[Tensor, Tensor]:
        """(w, V) in any order: by ARPACK on the CPU where S is real and not zero, else by Lanczos.

        ARPACK takes a Hermitian matrix for a general one: its vectors lose digits of their
        orthogonality, and all of it where eigenvalues are equal. Of a zero matrix, whose Krylov
        space is empty, it finds nothing.
        """
        if S.device.type == "cpu" and not S.dtype.is_complex and bool(S.values.any()):
            return self._by_arpack(S, inverse, mass)
        return self._by_lanczos(S, inverse, mass)

    def _by_arpack(
        self, S: CSRTensor, inverse: Operator | None, mass: Mass | None
    ) -> tuple[Tensor, Tensor]:
        options: dict[str, Any] = {"which": self.which, "sigma": self.sigma, "v0": self.v0.numpy()}
        options |= {"ncv": self.ncv, "maxiter": self.maxiter, "tol": self.tol}
        if mass is not None:
            options["M"] = self._operator(mass.multiply)
        if inverse is not None:
            options["OPinv"] = self._operator(inverse)
        elif mass is not None:
            options["Minv"] = self._operator(mass.solve)
        try:
            w, V = arpack(self._operator(S.matvec), self.k, **options)
        except ArpackNoConvergence as error:
            self._fail(torch.from_numpy(error.eigenvectors), len(error.eigenvalues), [])
        return torch.from_numpy(w).to(S.dtype), torch.from_numpy(V).to(S.dtype)

    def _operator(self, multiply: Operator) -> Any:
        """A function of vectors (n,) for ARPACK."""
        n = self.v0.shape[0]

        def apply(x: np.ndarray) -> np.ndarray:
            return multiply(torch.from_numpy(np.ascontiguousarray(x).reshape(n))).numpy()

        shape, dtype = (n, n), self.v0.numpy().dtype
        return LinearOperator(shape, matvec=apply, dtype=dtype)  # pyright: ignore[reportCallIssue]

    def bound(self, values: Tensor) -> Tensor:
        """A bound on the absolute values of the eigenvalues, 0-d: the largest sum of a row."""
        ones = torch.ones_like(self.v0.real)
        return product(self.pattern.layout, values.detach().abs(), ones).amax(-1)

    def _by_lanczos(
        self, S: CSRTensor, inverse: Operator | None, mass: Mass | None
    ) -> tuple[Tensor, Tensor]:
        def multiply(x: Tensor) -> Tensor:
            if inverse is not None:
                return inverse(x if mass is None else mass.multiply(x))
            return S.matvec(x) if mass is None else mass.solve(S.matvec(x))

        asked = (self.v0, self.k, self.which, self.ncv, self.tol, self.maxiter)
        found = thick_restart(multiply, *asked, mass and mass.multiply)
        if not found.converged:
            self._fail(found.V, None, [float(found.residuals.max()) * self.size])
        w = found.w if self.sigma is None else self.sigma + 1 / found.w
        return torch.from_numpy(w).to(S.values.real), found.V

    def _fail(self, V: Tensor, count: int | None, residuals: list[float]) -> NoReturn:
        missing = "not all" if count is None else f"{count}"
        detail = f"{missing} of {self.k} eigenpairs converged; a larger ncv or sigma= helps most"
        raise SolveError(Solution(V, Status.MAXITER, self.maxiter, residuals, detail))


def in_order(w: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
    """Ascending, with the largest component of each vector real and positive."""
    w, order = w.sort()
    V = V[:, order]
    return w, V * phases(V)


def phases(V: Tensor) -> Tensor:
    """The numbers of absolute value 1, (1, k), that make V's largest components real and positive.

    Differentiable. Of components that are equal to half the digits the first one counts, so that
    rounding does not choose among the entries of a plane wave.
    """
    size = V.detach().abs()
    largest = size >= (1 - math.sqrt(torch.finfo(V.dtype).eps)) * size.amax(0, keepdim=True)
    pivot = V.gather(0, largest.int().argmax(0, keepdim=True))
    return conjugate(pivot) / pivot.abs()


class Gaps:
    """Differences w_i - w_j, (k, k), and which are nothing but rounding."""

    def __init__(self, w: Tensor, bound: Tensor):
        self._precision = torch.finfo(w.dtype).eps
        others = ~torch.eye(w.shape[-1], dtype=torch.bool, device=w.device)
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


def once_differentiable(gradient: Tensor) -> Tensor:
    """The same gradient, whose own derivatives raise RuntimeError."""
    return _Once.apply(gradient)


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
    @nestable
    def jvp(ctx: Any, *tangents: Any):
        return _Once.backward(ctx, *tangents)
