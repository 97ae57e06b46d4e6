"""What `eigsh` is asked, the eigenpairs by ARPACK or Lanczos, and the gaps between eigenvalues."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator
from scipy.sparse.linalg import eigsh as arpack
from torch import Tensor

from sparsetorch.csr import CSRTensor
from sparsetorch.linalg.bordered import Border, Inverse
from sparsetorch.linalg.direct import factorized
from sparsetorch.linalg.solution import Solution, SolveError, Status
from sparsetorch.linalg.solvers import product
from sparsetorch.linalg.thick_restart import thick_restart
from sparsetorch.pattern import Pattern
from sparsetorch.structure import outside_transforms, plain
from sparsetorch_kernels import nestable

REMEDY = "; for the symmetric part of a matrix, pass (A + A.T) / 2"


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
        self.check_symmetric("A", values)
        S = CSRTensor(self.pattern, self.symmetric(values))
        if self.sigma is None and not bool(values.any()):
            # There is no Krylov space, and any basis will do.
            return S.values.new_zeros(self.k), torch.eye(S.shape[0], self.k).to(S.values)
        return in_order(*(self._by_arpack(S) if S.device.type == "cpu" else self._by_lanczos(S)))

    def check_symmetric(self, name: str, values: Tensor) -> None:
        """Raise ValueError unless values (nnz,) are finite and, but for rounding, symmetric."""
        mirror = CSRTensor(self.pattern, values).T.values
        if values.numel():
            largest, asymmetry = values.abs().max(), (values - mirror).abs().max()
            if not bool(largest.isfinite()):
                raise ValueError(f"{name}.values: expected finite numbers, got NaN or infinity")
            if bool(asymmetry > math.sqrt(torch.finfo(values.dtype).eps) * largest):
                raise ValueError(
                    f"{name}: expected a symmetric matrix, got entries that differ from their "
                    f"mirrors by {float(asymmetry):.1e}{REMEDY}"
                )

    def symmetric(self, values: Tensor) -> Tensor:
        """The values of (A + A^T) / 2; differentiable."""
        return (values + CSRTensor(self.pattern, values).T.values) / 2

    def _by_arpack(self, S: CSRTensor) -> tuple[Tensor, Tensor]:
        options: dict[str, Any] = {}
        if self.sigma is not None:
            shifted = S.add_diagonal(S.values.new_full((S.shape[0],), -self.sigma))
            options["OPinv"] = self.shifted_inverse(shifted)
        return self.by_arpack(S, **options)

    def shifted_inverse(self, shifted: CSRTensor) -> Any:
        """The inverse of A - sigma M for ARPACK; kept for derivatives."""
        assert self.sigma is not None
        factors = factorized(shifted)
        self.inverse.append(Inverse(factors, self.sigma))
        return self.operator(factors.solve)

    def by_arpack(self, S: CSRTensor, **options: Any) -> tuple[Tensor, Tensor]:
        """(w, V) in ARPACK's order, with what is particular to a problem as options."""
        options |= {"which": self.which, "sigma": self.sigma, "v0": self.v0.numpy()}
        options |= {"ncv": self.ncv, "maxiter": self.maxiter, "tol": self.tol}
        try:
            w, V = arpack(self.operator(S.matvec), self.k, **options)
        except ArpackNoConvergence as error:
            self._fail(torch.from_numpy(error.eigenvectors), len(error.eigenvalues), [])
        return torch.from_numpy(w).to(S.dtype), torch.from_numpy(V).to(S.dtype)

    def operator(self, multiply: Any) -> Any:
        """A function of vectors (n,) for ARPACK."""
        n = self.v0.shape[0]

        def apply(x: np.ndarray) -> np.ndarray:
            return multiply(torch.from_numpy(np.ascontiguousarray(x).reshape(n))).numpy()

        shape, dtype = (n, n), self.v0.numpy().dtype
        return LinearOperator(shape, matvec=apply, dtype=dtype)  # pyright: ignore[reportCallIssue]

    def bound(self, values: Tensor) -> Tensor:
        """A bound on the absolute values of the eigenvalues, 0-d: the largest sum of a row."""
        ones = torch.ones_like(self.v0)
        return product(self.pattern.layout, values.detach().abs(), ones).amax(-1)

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


def in_order(w: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
    """Ascending, with the largest component of each vector positive."""
    w, order = w.sort()
    V = V[:, order]
    return w, V * V.gather(0, V.abs().argmax(0, keepdim=True)).sign()


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
