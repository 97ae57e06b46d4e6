"""What the scan, its step and the convolution accept; the rest is refused by the argument's name.

The kernels index raw memory, so shapes, dtypes and devices are all checked, and nothing is cast.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
Sizes = dict[str, int]


def sum_dtype(dtype: torch.dtype) -> torch.dtype:
    """The precision of sums and states: float32 at least."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def check_tensors(expected: Mapping[str, tuple[Tensor | None, str]], wide: str = "") -> Sizes:
    """Check tensors against shapes such as "b l h p", and return the size of each letter.

    The first tensor sets the dtype and the device. Those that `wide` names may also be in the
    precision of its sums. A tensor may be None. Raises TypeError or ValueError.
    """
    sizes: Sizes = {}
    first: Tensor | None = None
    for name, (tensor, letters) in expected.items():
        if tensor is None:
            continue
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} is a {type(tensor).__name__}; expected a tensor ({letters})")
        first = tensor if first is None else first
        _check_shape(name, tensor, letters.split(), sizes)
        allowed = (first.dtype, sum_dtype(first.dtype)) if name in wide.split() else (first.dtype,)
        if tensor is first:
            allowed = DTYPES
        if tensor.dtype not in allowed:
            names = " or ".join(dict.fromkeys(str(dtype) for dtype in allowed))
            raise TypeError(f"{name} is {tensor.dtype}; expected {names}: convert it with .to()")
        _check_device(name, tensor, first)
    return sizes


def _check_shape(name: str, tensor: Tensor, letters: list[str], sizes: Sizes) -> None:
    fits = tensor.dim() == len(letters) and all(
        sizes.get(letter, size) == size for letter, size in zip(letters, tensor.shape)
    )
    if not fits:
        wanted = ", ".join(f"{a}={sizes[a]}" if a in sizes else a for a in letters)
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; expected ({wanted})")
    sizes.update(zip(letters, tensor.shape))


def _check_device(name: str, tensor: Tensor, first: Tensor) -> None:
    if tensor.device != first.device:
        raise ValueError(f"{name} is on {tensor.device}; the other arguments on {first.device}")


def check_groups(heads: int, groups: int) -> None:
    """Check that every group has the same number of heads."""
    if groups == 0 or heads % groups:
        raise ValueError(
            f"x has {heads} heads and B {groups} groups; the heads must be a multiple of the groups"
        )


def check_documents(seq_idx: Tensor | None, x: Tensor, name: str = "seq_idx") -> None:
    """Check the document of each position: integers (b, l) that never go back along l.

    The order is checked where reading it costs no synchronization: on the CPU, uncompiled.
    """
    if seq_idx is None:
        return
    if not isinstance(seq_idx, Tensor) or seq_idx.dtype not in (torch.int32, torch.int64):
        kind = seq_idx.dtype if isinstance(seq_idx, Tensor) else type(seq_idx).__name__
        raise TypeError(f"{name} is {kind}; expected a tensor of torch.int32 or torch.int64")
    if seq_idx.shape != x.shape[:2]:
        have, want = tuple(seq_idx.shape), tuple(x.shape[:2])
        raise ValueError(f"{name} has shape {have}; expected (b, l) = {want}")
    _check_device(name, seq_idx, x)
    if torch.compiler.is_compiling() or not seq_idx.is_cpu:
        return
    back = seq_idx[:, 1:] < seq_idx[:, :-1]
    if bool(back.any()):
        row, position = (int(i) for i in back.nonzero()[0])
        raise ValueError(
            f"{name} goes back from {int(seq_idx[row, position])} to "
            f"{int(seq_idx[row, position + 1])} at position {position + 1} of row {row}; "
            "number the documents of a row in their order"
        )


def check_chunk_size(chunk_size: int) -> None:
    """Check the length of the chunks."""
    if not isinstance(chunk_size, int) or isinstance(chunk_size, bool):
        raise TypeError(f"chunk_size is a {type(chunk_size).__name__}; expected an int")
    if chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}; expected at least 1")
