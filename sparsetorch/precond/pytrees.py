"""Preconditioners as pytrees: their tensors can be mapped over, or belong to a transform."""

from __future__ import annotations

from typing import Any

from torch.utils import _pytree as pytree

from sparsetorch.linalg.described import MADE_OF


def register(cls: type, tensors: tuple[str, ...], others: tuple[str, ...] = ()) -> None:
    """Make a class a pytree whose children are the attributes `tensors`; `others` come along."""

    def flatten(node: Any) -> tuple[list[Any], tuple]:
        return [getattr(node, name) for name in tensors], tuple(getattr(node, n) for n in others)

    def unflatten(children: Any, context: tuple) -> Any:
        node = object.__new__(cls)
        for name, value in zip((*tensors, *others), (*children, *context)):
            setattr(node, name, value)
        return node

    if not others:
        MADE_OF[cls] = tensors
    pytree.register_pytree_node(
        cls, flatten, unflatten, serialized_type_name=f"sparsetorch.precond.{cls.__name__}"
    )
