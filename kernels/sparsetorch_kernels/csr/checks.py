"""What the products accept; everything else is refused here, by the name of the argument.

The kernels index raw memory, so shapes, dtypes and devices are all checked. The contents of a
layout are not: they were, when it was made.
"""

import torch
from torch import Tensor

from sparsetorch_kernels.layout import Layout

Operand = tuple[str, Tensor, tuple[int | None, ...]]  # name, tensor, trailing shape (None: any)

_INDEX_DTYPES = (torch.int32, torch.int64)
HALF = (torch.float16, torch.bfloat16)
VALUE_DTYPES = (*HALF, torch.float32, torch.float64, torch.complex64, torch.complex128)


def check_operands(name: str, layout: Layout, first: Operand, second: Operand) -> None:
    """Check a layout and two floating-point operands, of one dtype and on the layout's device.

    Raises TypeError for a dtype and ValueError for a shape or device that does not fit.
    """
    check_layout(name, layout)
    device = layout.col.device
    for operand, tensor, tail in (first, second):
        shape = tensor.shape
        if tensor.dtype not in VALUE_DTYPES:
            names = ", ".join(str(dtype) for dtype in VALUE_DTYPES)
            raise TypeError(f"{operand} is {tensor.dtype}; expected one of {names}")
        if tensor.device != device:
            raise ValueError(f"{operand} is on {tensor.device}; {name} is on {device}")
        # None matches any size of the last dimension.
        known = tail if tail[-1] is not None else tail[:-1]
        if len(shape) < len(tail) or shape[-len(tail) :][: len(known)] != known:
            wanted = ", ".join("k" if n is None else str(n) for n in tail)
            raise ValueError(f"{operand} has shape {tuple(shape)}; expected (..., {wanted})")
    if first[1].dtype != second[1].dtype:
        raise TypeError(
            f"{second[0]} is {second[1].dtype} and {first[0]} {first[1].dtype}; they must agree"
        )


def check_product(a: Layout, b: Layout, c: Layout | None = None) -> None:
    """Check that A B is defined and, if given, that c has its shape; a has been checked.

    Raises TypeError for an index dtype and ValueError for a shape or device that does not fit.
    """
    if a.n_cols != b.n_rows:
        raise ValueError(f"a has {a.n_cols} columns and b {b.n_rows} rows; they must agree")
    if c is not None and (c.n_rows, c.n_cols) != (a.n_rows, b.n_cols):
        raise ValueError(
            f"c has shape ({c.n_rows}, {c.n_cols}); the product has ({a.n_rows}, {b.n_cols})"
        )
    for name, other in (("b", b), ("c", c)):
        if other is None:
            continue
        check_layout(name, other)
        if other.col.dtype != a.col.dtype:
            raise TypeError(f"{name} has {other.col.dtype} indices; a has {a.col.dtype}")
        if other.col.device != a.col.device:
            raise ValueError(f"{name} is on {other.col.device}; a is on {a.col.device}")


def check_layout(name: str, layout: Layout) -> None:
    """Check a layout's shapes, dtypes and devices (not its contents)."""
    crow, col, perm, t_crow, t_col, t_perm, n_rows, n_cols = layout
    dtype, pointers, device, shape = col.dtype, crow.dtype, col.device, col.shape
    if dtype not in _INDEX_DTYPES:
        raise TypeError(f"{name}.col is {dtype}; expected torch.int32 or torch.int64")
    if pointers not in (dtype, torch.int64):
        raise TypeError(f"{name}.crow is {pointers}; {name}.col is {dtype}")
    if len(shape) != 1:
        raise ValueError(f"{name}.col has shape {tuple(shape)}; expected one dimension")
    for part, tensor, want, kind in (
        ("crow", crow, (n_rows + 1,), pointers),
        ("perm", perm, shape, pointers),
        ("t_crow", t_crow, (n_cols + 1,), pointers),
        ("t_col", t_col, shape, dtype),
        ("t_perm", t_perm, shape, pointers),
    ):
        if tensor is None:
            if part in ("perm", "t_perm") or t_crow is t_col is None:
                continue
            raise TypeError(f"{name}.{part} is None; expected a tensor")
        if tensor.shape != want:
            have = tuple(tensor.shape)
            raise ValueError(f"{name}.{part} has shape {have}; expected {tuple(want)}")
        if tensor.dtype != kind:
            raise TypeError(f"{name}.{part} is {tensor.dtype}; expected {kind}")
        if tensor.device != device:
            raise ValueError(f"{name}.{part} is on {tensor.device}; {name}.col is on {device}")
