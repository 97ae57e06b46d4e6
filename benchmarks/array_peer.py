"""The peer with SciPy's interface: CuPy on CUDA, SciPy itself on the CPU.

Both have the same names for what the benchmarks call, so that the CPU, where CuPy cannot run,
tests the code that calls it.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import numpy as np
import scipy.sparse.linalg
import torch
from torch import Tensor

from sparsetorch import CSRTensor

DTYPES = (torch.float32, torch.float64)  # what their sparse matrices hold


class ArrayPeer:
    """`xp`, `sparse` and `linalg` of one of the two libraries, and the way there and back."""

    def __init__(self, name: str, version: str, xp: Any, sparse: Any, linalg: Any):
        self.name, self.version, self.xp, self.sparse = name, version, xp, sparse
        self.spsolve_triangular = linalg.spsolve_triangular
        self._cg = linalg.cg
        self._rtol = "rtol" if "rtol" in inspect.signature(linalg.cg).parameters else "tol"

    def array(self, x: Tensor) -> Any:
        """The same memory."""
        return self.xp.from_dlpack(x.detach())

    def matrix(self, A: CSRTensor) -> Any:
        """A CSR matrix in the same memory."""
        arrays = (A.values, A.pattern.col, A.pattern.crow)
        return self.sparse.csr_matrix(tuple(map(self.array, arrays)), shape=A.pattern.shape)

    def tensor(self, result: Any) -> Tensor:
        """A dense result, or the values of a sparse one with its columns sorted."""
        if self.sparse.issparse(result):
            result = result.tocsr()
            result.sort_indices()
            result = result.data
        return torch.from_dlpack(result)

    def cg(self, A: Any, b: Any, iterations: int) -> Any:
        return self._cg(A, b, maxiter=iterations, atol=0.0, **{self._rtol: 0.0})[0]


def array_peer(device: torch.device) -> ArrayPeer | None:
    """CuPy or SciPy, by device; None where CuPy is not installed."""
    if device.type == "cpu":
        return ArrayPeer("SciPy", scipy.__version__, np, scipy.sparse, scipy.sparse.linalg)
    try:
        cupy = importlib.import_module("cupy")
        sparse = importlib.import_module("cupyx.scipy.sparse")
        linalg = importlib.import_module("cupyx.scipy.sparse.linalg")
    except ImportError:
        return None
    return ArrayPeer("CuPy", cupy.__version__, cupy, sparse, linalg)
