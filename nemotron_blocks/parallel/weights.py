"""Weights that are spread over ranks as DTensors, and computed with as plain tensors.

Optimizers, checkpoints and the clipping of gradients see DTensors, which have the whole shape and
norm; the blocks' code reads this rank's part, and is that of one process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement, Replicate, distribute_tensor


class PlainParameters(nn.Module):
    """Has DTensors in `parameters()` and the state dict, and this rank's parts as attributes."""

    def __getattr__(self, name: str) -> Any:
        found = super().__getattr__(name)
        # FSDP asks for what it has sharded, over a second dimension, as it is.
        if isinstance(found, DTensor) and found.device_mesh.ndim == 1:
            return found.to_local()
        return found


def extend(module: nn.Module, kind: type[nn.Module], **attributes: Any) -> None:
    """Make a module one of `kind` besides what it is; methods of `kind` come first."""
    old = type(module)
    module.__class__ = type(f"{kind.__name__}{old.__name__}", (kind, old), {})
    for name, value in attributes.items():
        setattr(module, name, value)


@torch.no_grad()
def spread(model: nn.Module, mesh: DeviceMesh, placements: Mapping[Tensor, Placement]) -> None:
    """Make all parameters DTensors, in place: the values of the first rank, on each.

    Args:
        model: of whole weights.
        mesh: of one dimension.
        placements: of parameters over it; replicated where it has none.
    """
    made: dict[nn.Parameter, nn.Parameter] = {}
    for module in list(model.modules()):
        for name, weight in module._parameters.items():
            if weight is None:
                continue
            if weight not in made:  # tied weights stay so
                placement = placements.get(weight, Replicate())
                whole = distribute_tensor(weight.detach(), mesh, [placement])
                made[weight] = nn.Parameter(whole, requires_grad=weight.requires_grad)
            module._parameters[name] = made[weight]
        if module._parameters:
            extend(module, PlainParameters)


def full_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The state dict that the model has in one process: whole tensors on the CPU, in their order.

    Every process has to call it, and each gets all of it. `HybridLM.save_pretrained` does so.
    """
    return whole_tensors(model, model.state_dict())


@torch.no_grad()
def whole_tensors(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What is spread as the weights of these names, gradients for instance, whole on the CPU.

    Every process has to call it.
    """
    orders = {
        f"{prefix}.{name}": order
        for prefix, module in model.named_modules()
        for name, order in getattr(module, "row_orders", {}).items()
    }
    found = {}
    for name, tensor in tensors.items():
        whole = (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).cpu()
        found[name] = whole[orders[name].argsort()] if name in orders else whole
    return found


def is_spread(model: nn.Module) -> bool:
    """Whether weights are spread over processes."""
    return any(isinstance(weight, DTensor) for weight in model.parameters())


def check_whole(model: nn.Module) -> None:
    """Raise ValueError if weights are spread already."""
    if is_spread(model):
        raise ValueError(
            "model: its weights are spread over processes already; divide heads or experts first"
        )


def check_mesh(mesh: DeviceMesh) -> dist.ProcessGroup:
    """The group of a mesh of one dimension.

    Raises:
        ValueError: it has another number of dimensions.
    """
    if mesh.ndim != 1:
        raise ValueError(
            f"mesh: expected one dimension, got {mesh.ndim}; mesh[name] is the one of that name"
        )
    return mesh.get_group()
