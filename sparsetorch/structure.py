"""Index arithmetic behind patterns: row ids, unions and selections. No values, no gradients.

Everything is a handful of vectorised PyTorch calls, so it runs on any device. Results come back in
the index dtype of the arguments.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor
from torch._C._functorch import (
    get_unwrapped,
    is_batchedtensor,
    is_functorch_wrapped_tensor,
    maybe_get_bdim,
)
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1


@contextmanager
def finding_structure(what: str, *, kept: bool = False) -> Iterator[None]:
    """Where structure is worked out: not in compiled code, and outside of `torch.func` transforms.

    kept: whether a pattern keeps what is found, so that compiled code can read it later. Indices
    have no derivatives, and a pattern outlives the transform in which it is first needed; inside of
    one, every tensor that PyTorch makes belongs to it. The same holds for inference mode, whose
    tensors no later derivative may read.
    """
    if torch.compiler.is_compiling():
        if not kept:
            raise RuntimeError(
                f"{what}: compiled code cannot make a pattern, and none is kept of earlier calls; "
                "call it outside, pass the result in, and put other values on its pattern there "
                "with result.with_values(values)"
            )
        raise RuntimeError(
            f"{what} is not known yet, and compiled code cannot compute structure: call the "
            "function once before compiling it"
        )
    with outside_transforms(), torch.inference_mode(False):
        yield


def refuse_compiled(name: str, instead: str = "") -> None:
    """Raise NotImplementedError in compiled code, in words that PyTorch's own error lacks."""
    if torch.compiler.is_compiling():
        instead = instead or "call it outside of compiled code and pass in what it returns"
        raise NotImplementedError(
            f"{name} does not compile: {instead} (without fullgraph=True, PyTorch runs it between "
            "two graphs)"
        )


@contextmanager
def outside_transforms() -> Iterator[None]:
    """Where `plain` tensors are computed with: no `torch.func` transform sees it."""
    with temporarily_clear_interpreter_stack():
        yield


def plain(tensor: Tensor) -> Tensor:
    """The tensor that a `torch.func` transform may have wrapped; under vmap, the whole batch."""
    while isinstance(tensor, Tensor) and is_functorch_wrapped_tensor(tensor):
        tensor = get_unwrapped(tensor)
    return tensor


def members(tensor: Tensor) -> Tensor:
    """The plain tensor, with the dimensions that `torch.vmap` maps over in front."""
    mapped = []
    while is_functorch_wrapped_tensor(tensor):
        if is_batchedtensor(tensor):
            mapped.append(maybe_get_bdim(tensor))
        tensor = get_unwrapped(tensor)
    for done, dim in enumerate(reversed(mapped)):
        tensor = tensor.movedim(dim + done, 0)
    return tensor


class IndexDtypes(NamedTuple):
    """The dtypes of a pattern's arrays: crow, which counts entries, is never the smaller one."""

    crow: torch.dtype
    col: torch.dtype


def index_dtypes(shape: tuple[int, int], nnz: int) -> IndexDtypes:
    """int32 for what can be counted in it, int64 for the rest."""
    if max(shape) > INT32_MAX:
        return IndexDtypes(torch.int64, torch.int64)
    return IndexDtypes(torch.int32 if nnz <= INT32_MAX else torch.int64, torch.int32)


def wider(first: torch.dtype, second: torch.dtype) -> torch.dtype:
    """int64 if either dtype is."""
    return torch.int64 if torch.int64 in (first, second) else torch.int32


def expand_rows(crow: Tensor, nnz: int, dtype: torch.dtype | None = None) -> Tensor:
    """Row of each entry, (nnz,), from row pointers (n_rows + 1,); their dtype by default."""
    rows = torch.arange(crow.numel() - 1, dtype=dtype or crow.dtype, device=crow.device)
    return torch.repeat_interleave(rows, crow.diff(), output_size=nnz)


def compress_rows(row: Tensor, n_rows: int) -> Tensor:
    """Row pointers (n_rows + 1,) int64 from the row of each entry, (nnz,), in any order."""
    crow = torch.zeros(n_rows + 1, dtype=torch.int64, device=row.device)
    torch.cumsum(torch.bincount(row, minlength=n_rows), 0, out=crow[1:])
    return crow


def check_places(shape: tuple[int, int]) -> None:
    """Raise ValueError if a matrix has more places than int64 can number."""
    if shape[0] * shape[1] > INT64_MAX:
        raise ValueError(f"shape: {shape} has more than 2^63 places, which int64 cannot number")


def entry_keys(row: Tensor, col: Tensor, shape: tuple[int, int]) -> Tensor:
    """One int64 per entry, increasing in row-major order.

    Raises:
        ValueError: the matrix has more than 2^63 places.
    """
    check_places(shape)
    return row.long() * shape[1] + col


def sorting_order(keys: Tensor) -> Tensor | None:
    """The permutation that sorts keys; None where they are sorted, which takes little to see."""
    return None if bool((keys[1:] >= keys[:-1]).all()) else torch.argsort(keys)


def row_major_order(row: Tensor, col: Tensor, shape: tuple[int, int]) -> Tensor | None:
    """The stable permutation that sorts places by row, then by column; None if they are sorted.

    Two counting sorts, by the less important key first; where the shape is much larger than the
    number of places, or on a GPU, a sort of their numbers.
    """
    if bool(((row[1:] > row[:-1]) | ((row[1:] == row[:-1]) & (col[1:] >= col[:-1]))).all()):
        return None
    if row.device.type != "cpu" or max(shape) > 8 * row.numel():
        return torch.sort(entry_keys(row, col, shape), stable=True).indices
    by_column = _counting_sort(col, shape[1])
    by_row = _counting_sort(row.index_select(0, by_column), shape[0])
    return by_column.index_select(0, by_row).long()


def _counting_sort(index: Tensor, size: int) -> Tensor:
    """The stable permutation that sorts indices below a size: SciPy's transpose of a 0/1 matrix."""
    n = index.numel()
    dtype = np.int32 if max(n, size) <= INT32_MAX else np.int64
    arrays = (np.ones(n, np.int8), index.numpy().astype(dtype), np.arange(n + 1, dtype=dtype))
    return torch.from_numpy(sp.csr_array(arrays, (n, size)).tocsc().indices)


def split_keys(keys: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Sorted unique keys to (crow, col), in the smallest index dtypes that hold them."""
    dtypes = index_dtypes(shape, keys.numel())
    if keys.numel() == 0:
        return keys.new_zeros(shape[0] + 1, dtype=dtypes.crow), keys.to(dtypes.col)
    row = torch.div(keys, shape[1], rounding_mode="floor")
    return compress_rows(row, shape[0]).to(dtypes.crow), (keys - row * shape[1]).to(dtypes.col)


def expand_ranges(starts: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Concatenate the ranges starts[i], ..., starts[i] + counts[i] - 1.

    Returns (owner, member): i, and the number itself, for every number in turn; both int64.
    """
    counts = counts.long()
    ends = counts.cumsum(0)
    owner = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    within = torch.arange(owner.numel(), device=counts.device) - (ends - counts)[owner]
    return owner, starts.long()[owner] + within
