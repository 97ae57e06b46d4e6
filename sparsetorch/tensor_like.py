"""What matrices have in common with `torch.Tensor`: a dtype, a device, copies, a place in a module.

`nn.Module.register_buffer` takes a CSRTensor: what follows here is all that a module asks of its
buffers to move and convert, save, load and copy them. PyTorch's C++ code takes tensors only, so
that `torch.compile`, `torch.export` and DistributedDataParallel refuse modules with such a buffer:
for them register `A.values`, and make the matrix by `A.with_values(self.values)`, or keep the
matrix as a plain attribute (for DDP see `_set_params_and_buffers_to_ignore_for_model`, too).
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from sparsetorch.checks import check_tensor
from sparsetorch.pattern import Pattern, check_pattern
from sparsetorch_kernels import HALF

DTYPES = (*HALF, torch.float32, torch.float64, torch.complex64, torch.complex128)


class Movable:
    """The short names of `to`."""

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Another dtype or device, with the arguments of `torch.Tensor.to`."""
        raise NotImplementedError

    def half(self) -> Self:
        """In float16."""
        return self.to(torch.float16)

    def bfloat16(self) -> Self:
        """In bfloat16."""
        return self.to(torch.bfloat16)

    def float(self) -> Self:
        """In float32."""
        return self.to(torch.float32)

    def double(self) -> Self:
        """In float64."""
        return self.to(torch.float64)

    def cpu(self) -> Self:
        """On the CPU."""
        return self.to("cpu")

    def cuda(self, device: torch.device | int | str | None = None, **kwargs: Any) -> Self:
        """On a CUDA device, the current one by default."""
        return self.to("cuda" if device is None else torch.device(device), **kwargs)


class TensorLike(Movable):
    """A pattern and its values, as a tensor: attributes, conversions, copies."""

    pattern: Pattern
    values: Tensor

    def __init__(self, pattern: Pattern, values: Tensor):
        check_pattern("pattern", pattern)
        check_tensor("values", values)
        if values.ndim < 1 or values.shape[-1] != pattern.nnz:
            raise ValueError(
                f"values: expected (*batch, {pattern.nnz}) for {pattern!r}, got shape "
                f"{tuple(values.shape)}"
            )
        if values.device != pattern.device:
            raise ValueError(
                f"values: expected on {pattern.device} like the pattern, got {values.device}; "
                "move one with .to(device)"
            )
        if values.dtype not in DTYPES:
            raise TypeError(
                "values: expected float16, bfloat16, float32, float64, complex64 or complex128, "
                f"got {values.dtype}; convert them with .to(dtype)"
            )
        self.pattern = pattern
        self.values = values
        if not torch.compiler.is_compiling():
            _ = pattern.layout  # compiled code can read the structure but not compute it

    def with_values(self, values: Tensor) -> Self:
        """The matrix with this pattern and other values, (*batch, nnz)."""
        return type(self)(self.pattern, values)

    @property
    def shape(self) -> torch.Size:
        """(*batch, n_rows, n_cols)."""
        return torch.Size((*self.values.shape[:-1], *self.pattern.shape))

    def size(self, dim: int | None = None) -> torch.Size | int:
        """The shape, or the size in one dimension."""
        return self.shape if dim is None else self.shape[dim]

    @property
    def ndim(self) -> int:
        """2 plus the number of batch dimensions."""
        return self.values.ndim + 1

    def dim(self) -> int:
        """`ndim`."""
        return self.ndim

    @property
    def nnz(self) -> int:
        """Number of stored entries of each matrix."""
        return self.pattern.nnz

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the values."""
        return self.values.dtype

    def is_floating_point(self) -> bool:
        """Whether the values are real: they are floating or complex numbers."""
        return self.values.is_floating_point()

    def is_complex(self) -> bool:
        """Whether the values are complex."""
        return self.values.is_complex()

    @property
    def device(self) -> torch.device:
        """Where pattern and values are."""
        return self.values.device

    @property
    def is_cuda(self) -> bool:
        """Whether pattern and values are on CUDA."""
        return self.values.is_cuda

    @property
    def is_meta(self) -> bool:
        """Whether pattern and values are on the meta device, without contents."""
        return self.values.is_meta

    @property
    def requires_grad(self) -> bool:
        """Whether the values do."""
        return self.values.requires_grad

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Ask for gradients of the values, in place."""
        self.values.requires_grad_(requires_grad)
        return self

    def _become_parameter(self, _: bool) -> None:
        raise TypeError(
            "nn.Parameter: expected a tensor, got a CSRTensor, which no module would register; "
            "keep nn.Parameter(A.values), and make CSRTensor(A.pattern, parameter) of it"
        )

    _is_param = property(fset=_become_parameter)  # what `nn.Parameter(A)` sets

    def detach(self) -> Self:
        """The same matrix, cut from the graph of its values."""
        return self.with_values(self.values.detach())

    def clone(self) -> Self:
        """A copy of the values on the same pattern; differentiable."""
        return self.with_values(self.values.clone())

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Another dtype or device, with the arguments of `torch.Tensor.to`."""
        values = self.values.to(*args, **kwargs)
        if self.dtype.is_complex and not values.dtype.is_complex:
            raise TypeError(
                f"to: {values.dtype} would lose the imaginary part; take A.map(torch.real)"
            )
        return type(self)(self.pattern.to(values.device), values)

    def share_memory_(self) -> Self:
        """Move the values to memory that processes share, in place, as `Tensor.share_memory_`."""
        self.values.share_memory_()
        return self

    def copy_(self, source: Self, non_blocking: bool = False) -> Self:
        """Write the values of a matrix with the same entries here, in place.

        As `Tensor.copy_`, from any device and dtype; it is what `load_state_dict` does with a
        buffer.

        Raises:
            TypeError: something else than a CSRTensor, or complex numbers for real ones.
            ValueError: other entries, or a batch that does not fit.
        """
        if not isinstance(source, TensorLike):
            raise TypeError(
                f"copy_: expected a CSRTensor, got {type(source).__name__}; "
                "A.values.copy_(values) takes a tensor of values"
            )
        if source.is_complex() and not self.is_complex():
            raise TypeError(
                f"copy_: {self.dtype} would lose the imaginary part of {source.dtype}; take "
                "source.map(torch.real)"
            )
        if not same_entries(self.pattern, source.pattern):
            raise ValueError(
                f"copy_: expected the entries of {self.pattern!r}, got others, of "
                f"{source.pattern!r}; replace the matrix as a whole (for a module's buffer: "
                "load_state_dict(state, assign=True))"
            )
        try:
            torch.broadcast_to(source.values, self.values.shape)
        except RuntimeError:
            raise ValueError(
                f"copy_: expected a batch that fits shape {tuple(self.shape)}, got "
                f"{tuple(source.shape)}"
            ) from None
        self.values.copy_(source.values, non_blocking)
        return self


def same_entries(first: Pattern, second: Pattern) -> bool:
    """Whether two patterns, on any devices and of any index dtypes, store the same places."""
    if first is second:
        return True
    if (first.shape, first.nnz) != (second.shape, second.nnz):
        return False
    arrays = ((first.crow, second.crow), (first.col, second.col))
    return all(torch.equal(a.long(), b.to(a.device, torch.int64)) for a, b in arrays)
