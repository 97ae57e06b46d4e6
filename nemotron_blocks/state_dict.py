"""Names of weights in Hugging Face's `nemotron_h` checkpoints, and here.

They differ in a prefix, in experts, which are stacked here, and in the block that predicts tokens
ahead, whose norms go with its first and last layers there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

_EXPERT = re.compile(r"(.*\.experts)\.([0-9]{1,9})\.(up|down)_proj\.weight")
_AHEAD = re.compile(r"mtp\.layers\.([0-9]{1,9})\.(.+)")


@dataclass(frozen=True)
class Place:
    """Where a tensor of a checkpoint belongs.

    Attributes:
        name: of a parameter or buffer of `HybridLM`.
        expert: which of its first dimension; None for all of it.
    """

    name: str
    expert: int | None = None


def place_of(theirs: str, mtp_layers: int) -> Place:
    """Where a tensor of a checkpoint belongs; a name of no such model is left as it is.

    Args:
        theirs: its name there.
        mtp_layers: blocks that predict tokens ahead.
    """
    name = theirs.removeprefix("backbone.").removeprefix("model.")
    if found := _AHEAD.fullmatch(name):
        number, rest = found.groups()
        shared = rest.startswith(("enorm", "hnorm", "eh_proj", "final_layernorm"))
        # Repeated predictions share one block; a checkpoint may have it more than once.
        name = f"mtp.{rest}" if shared else f"mtp.layers.{int(number) % max(mtp_layers, 1)}.{rest}"
    if found := _EXPERT.fullmatch(name):
        stack, expert, side = found.groups()
        return Place(f"{stack}.{side}", int(expert))
    return Place(name)


def tensors_of(state: dict[str, Tensor], mtp_layers: int) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a checkpoint, by their names there, from a state dict of `HybridLM`."""
    for name, tensor in state.items():
        if name == "lm_head.weight":
            yield name, tensor
        elif name.startswith("mtp."):
            yield from _experts(_ahead(name, mtp_layers), tensor)
        else:
            yield from _experts(f"backbone.{name}", tensor)


def _experts(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    stack, _, side = name.rpartition(".")
    if not stack.endswith(".experts"):
        yield name, tensor
        return
    for number, weight in enumerate(tensor):
        yield f"{stack}.{number}.{side}_proj.weight", weight


def _ahead(name: str, mtp_layers: int) -> str:
    rest = name.removeprefix("mtp.")
    if rest.startswith("layers."):
        return name
    return f"mtp.layers.{mtp_layers - 1 if rest.startswith('final') else 0}.{rest}"
