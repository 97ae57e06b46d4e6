"""Preconditioners as SciPy takes them: `M=method`, or `M=method.as_linear_operator()`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from sparsetorch import CSRTensor


class ScipyOperator:
    """What SciPy asks of an operator, by `apply` and, for the adjoint, `apply_transposed`.

    Arrays are read in the precision of A; complex ones by a real operator part by part.
    """

    A: CSRTensor

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        return (self.A.shape[0], self.A.shape[0])

    def apply(self, r: Tensor) -> Tensor:
        """`M r` for r (n,) or (n, k)."""
        raise NotImplementedError

    def apply_transposed(self, r: Tensor) -> Tensor:
        """`M^T r` for r (n,) or (n, k)."""
        raise NotImplementedError(f"{type(self).__name__} has no transpose")

    def matvec(self, x: np.ndarray) -> np.ndarray:
        """`M x`, for SciPy, which takes an object with this for an operator."""
        return self._on_arrays(self.apply, x)

    def rmatvec(self, x: np.ndarray) -> np.ndarray:
        """`M^H x`, for SciPy."""
        return self._on_arrays(lambda r: self.apply_transposed(r.conj()).conj(), x)

    def as_linear_operator(self) -> LinearOperator:
        """The preconditioner as SciPy's `M`, with its adjoint."""
        operator: Any = LinearOperator  # its __new__ takes what type checkers look for in __init__
        return operator(
            self.shape,
            matvec=self.matvec,
            rmatvec=self.rmatvec,
            matmat=self.matvec,
            dtype=torch.empty(0, dtype=self.A.dtype, device="cpu").numpy().dtype,
        )

    def _on_arrays(self, function: Callable[[Tensor], Tensor], x: np.ndarray) -> np.ndarray:
        if np.iscomplexobj(x) and not self.A.dtype.is_complex:
            parts = (self._on_arrays(function, part) for part in (np.real(x), np.imag(x)))
            return next(parts) + 1j * next(parts)
        # Torch takes no negative strides, and no bytes in another order.
        contiguous = np.ascontiguousarray(x, dtype=np.asarray(x).dtype.newbyteorder("="))
        moved = torch.as_tensor(contiguous, dtype=self.A.dtype, device=self.A.device)
        return function(moved).detach().resolve_conj().cpu().numpy()
