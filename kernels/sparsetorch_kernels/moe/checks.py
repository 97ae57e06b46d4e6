"""What the experts' products accept; everything else is refused here, by the argument's name."""

import torch
from torch import Tensor

from sparsetorch_kernels.csr.checks import HALF, check_layout
from sparsetorch_kernels.layout import Layout

DTYPES = (*HALF, torch.float32, torch.float64)


def check_experts(x: Tensor, up: Tensor, down: Tensor) -> None:
    """Raise unless x (n, D), up (E, M, D) and down (E, D, M) fit, with one dtype and device.

    Raises TypeError for a dtype and ValueError for a shape or device.
    """
    if x.dtype not in DTYPES:
        raise TypeError(f"x is {x.dtype}; expected one of {', '.join(map(str, DTYPES))}")
    for name, tensor in (("up", up), ("down", down)):
        if tensor.dtype != x.dtype:
            raise TypeError(
                f"{name} is {tensor.dtype} and x {x.dtype}; convert one with .to(dtype)"
            )
        if tensor.device != x.device:
            raise ValueError(f"{name} is on {tensor.device}; x is on {x.device}")
    if x.ndim != 2:
        raise ValueError(f"x has shape {tuple(x.shape)}; expected (n, d)")
    if up.ndim != 3 or up.shape[2] != x.shape[1]:
        raise ValueError(
            f"up has shape {tuple(up.shape)}; expected (experts, width, {x.shape[1]}) for x of "
            f"shape {tuple(x.shape)}"
        )
    if down.shape != (want := (up.shape[0], up.shape[2], up.shape[1])):
        raise ValueError(f"down has shape {tuple(down.shape)}; expected {want}, as up says")


def check_ptr(ptr: Tensor, n_rows: int, n_experts: int, device: torch.device) -> None:
    """Raise unless ptr rises from 0 to n_rows; on a GPU its contents are trusted.

    Raises TypeError for a dtype and ValueError for a shape, device or bound.
    """
    if ptr.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"ptr is {ptr.dtype}; expected torch.int32 or torch.int64")
    if ptr.shape != (n_experts + 1,):
        raise ValueError(f"ptr has shape {tuple(ptr.shape)}; expected ({n_experts + 1},)")
    if ptr.device != device:
        raise ValueError(f"ptr is on {ptr.device}; x is on {device}")
    if device.type == "cpu" and not torch.compiler.is_compiling():
        bounds = ptr.tolist()
        if bounds[0] != 0 or bounds[-1] != n_rows or sorted(bounds) != bounds:
            raise ValueError(f"ptr: expected to rise from 0 to {n_rows}, the rows of x, got {ptr}")


def check_routes(layout: Layout, gate: Tensor, x: Tensor, n_experts: int) -> None:
    """Raise unless the layout is an (E, T) matrix with a transpose, and gate its values.

    Raises TypeError for a dtype and ValueError for a shape or device.
    """
    check_layout("layout", layout)
    if layout.t_perm is None or layout.perm is not None:
        raise ValueError(
            "layout: expected that of a matrix with its transpose, as pattern.layout; this one has "
            "no transpose or is one, and reads values through a permutation"
        )
    if (layout.n_rows, layout.n_cols) != (n_experts, x.shape[0]):
        raise ValueError(
            f"layout has shape ({layout.n_rows}, {layout.n_cols}); expected ({n_experts}, "
            f"{x.shape[0]}), experts and tokens"
        )
    if gate.shape != layout.col.shape:
        raise ValueError(f"gate has shape {tuple(gate.shape)}; expected {tuple(layout.col.shape)}")
    _check_gate(gate, x)
    if layout.col.device != x.device:
        raise ValueError(f"layout is on {layout.col.device}; x is on {x.device}")


def check_choice(expert: Tensor, gate: Tensor, x: Tensor, n_experts: int) -> None:
    """Raise unless expert and gate are (T, K) on the CPU, and experts from 0 to n_experts - 1.

    Raises TypeError for a dtype and ValueError for a shape, device or expert.
    """
    if not x.is_cpu:
        raise ValueError(f"x is on {x.device}; expected it on the CPU: use routed_mlp elsewhere")
    if expert.ndim != 2 or expert.shape[0] != x.shape[0]:
        raise ValueError(
            f"expert has shape {tuple(expert.shape)}; expected ({x.shape[0]}, k), as x has rows"
        )
    if expert.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"expert is {expert.dtype}; expected torch.int32 or torch.int64")
    if gate.shape != expert.shape:
        raise ValueError(f"gate has shape {tuple(gate.shape)}; expected {tuple(expert.shape)}")
    _check_gate(gate, x)
    numbers = expert.flatten().tolist()
    if numbers and not 0 <= min(numbers) <= max(numbers) < n_experts:
        raise ValueError(
            f"expert: expected 0 to {n_experts - 1}, got {min(numbers)} to {max(numbers)}"
        )


def _check_gate(gate: Tensor, x: Tensor) -> None:
    if gate.dtype != (wide := torch.promote_types(x.dtype, torch.float32)):
        raise TypeError(f"gate is {gate.dtype}; expected {wide} for x in {x.dtype}")
    if gate.device != x.device:
        raise ValueError(f"gate is on {gate.device}; x is on {x.device}")
