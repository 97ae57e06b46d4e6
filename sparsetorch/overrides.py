"""The way from a function of `torch` to what it does with a CSRTensor."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

# What `torch` functions do with a CSRTensor; `torch_functions` fills it.
TORCH_FUNCTIONS: dict[Any, Callable[..., Any]] = {}


def call(function: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """A function of `torch`, some arguments of which are CSRTensors.

    Raises:
        TypeError: it is not defined for them, or not with these arguments.
    """
    operation = TORCH_FUNCTIONS.get(function)
    if operation is None:
        raise TypeError(
            f"{_name(function)} is not defined for a CSRTensor; apply it to A.values (the stored "
            "entries) or to A.to_dense()"
        )
    try:
        return operation(*args, **kwargs)
    except TypeError as error:
        if _takes(operation, args, kwargs):
            raise
        raise TypeError(_unexpected(_name(function), operation, args, kwargs)) from error


def _name(function: Any) -> str:
    """The name without the underscore of those that PyTorch binds from C++: `_sparse_mm`."""
    return getattr(function, "__name__", str(function)).removeprefix("_")


def _takes(operation: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> bool:
    try:
        inspect.signature(operation).bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def _unexpected(name: str, operation: Any, args: tuple, kwargs: dict[str, Any]) -> str:
    known = inspect.signature(operation).parameters.values()
    takes = ", ".join(
        parameter.name.replace("self", "A")
        + ("" if parameter.default is parameter.empty else f"={parameter.default!r}")
        for parameter in known
    )
    given = [f"{len(args)} positional ones", *kwargs] if args else list(kwargs)
    return (
        f"{name}: with a CSRTensor it takes the arguments ({takes}), got {' and '.join(given)}; "
        "apply it to A.values (the stored entries) or to A.to_dense() for the others"
    )
