"""Products and solves that cuSPARSE makes faster than kernels of one's own, called by PyTorch.

Which ones, `docs/benchmarks.md` has measured: products of matrices with a few very long rows, for
which one program of `csr.triton` would wait, and substitution. PyTorch calls MKL for the same on
the CPU, where these functions are tested.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from sparsetorch_kernels.layout import Layout, uniform

LONG_ROW = 256
"""Entries; up to here a row is no work to speak of."""
SKEW = 8
"""How many times longer than the mean a row has to be, besides."""

# Found once for each pattern, since the GPU has to be waited for.
_skewed: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def serves(layout: Layout, values: Tensor, x: Tensor) -> bool:
    """Whether `spmm` is the faster one here; PyTorch may have been asked for the same sums in every
    run, which cuSPARSE does not promise."""
    if torch.are_deterministic_algorithms_enabled() or not (values.numel() and x.numel()):
        return False
    return has_long_rows(layout)


def has_long_rows(layout: Layout) -> bool:
    """Whether some rows are far longer than the others."""
    found = _skewed.get(layout.crow)
    if found is None:
        longest = int(layout.crow.diff().max()) if layout.n_rows else 0
        mean = layout.col.shape[0] / max(layout.n_rows, 1)
        found = _skewed[layout.crow] = longest > max(LONG_ROW, SKEW * mean)
    return found


def spmm(layout: Layout, values: Tensor, x: Tensor) -> Tensor:
    """values (B or 1, nnz), x (B or 1, n_cols, k) -> (B or 1, n_rows, k); float32 or float64."""
    return _each(lambda matrix, columns: matrix @ columns, layout, values, x)


def solve_triangular(layout: Layout, values: Tensor, b: Tensor, lower: bool, unit: bool) -> Tensor:
    """values (B or 1, nnz), b (B or 1, n, k) -> x (B or 1, n, k); no zero is on the diagonal."""
    return _each(
        lambda matrix, columns: torch.triangular_solve(
            columns, matrix, upper=not lower, unitriangular=unit
        )[0],
        layout,
        values,
        b,
    )


def _each(
    product: Callable[[Tensor, Tensor], Tensor], layout: Layout, values: Tensor, x: Tensor
) -> Tensor:
    """A product of each matrix; one matrix takes the columns of all batches at once."""
    _warn_no_more()
    if values.shape[0] == 1:
        y = product(_matrix(layout, values[0]), _dense(x.transpose(0, 1).flatten(1)))
        return y.unflatten(1, (x.shape[0], -1)).transpose(0, 1).contiguous()
    pairs = zip(values, x.expand(len(values), -1, -1))
    return torch.stack([product(_matrix(layout, v), _dense(y)) for v, y in pairs])


def _matrix(layout: Layout, values: Tensor) -> Tensor:
    """One matrix with these values (nnz,) as PyTorch's."""
    layout = uniform(layout)
    if layout.perm is not None:
        values = values.index_select(0, layout.perm)
    shape = layout.n_rows, layout.n_cols
    return torch.sparse_csr_tensor(
        layout.crow, layout.col, _dense(values), shape, check_invariants=False
    )


def _dense(x: Tensor) -> Tensor:
    """As it lies in memory, nothing left to be conjugated or negated."""
    return x.resolve_conj().resolve_neg().contiguous()


@functools.cache
def _warn_no_more() -> None:
    """Have PyTorch say here, where nobody hears it, that its CSR tensors are in beta: it says so
    once, to users who have asked for none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_csr_tensor([0, 0], [], [], (1, 1))
