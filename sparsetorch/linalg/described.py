"""Preconditioners as an operator of compiled code takes them: a kind, tensors, and a number.

`describe` runs while a function is compiled, `restore` while the compiled function runs. Those that
consist of a few tensors pass through the graph, so that new ones, or ones made in it, compile
nothing again. Any other object stays outside and gets a number, to which the graph is then bound.
"""

from __future__ import annotations

from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.torch_version import TorchVersion

from sparsetorch.csr import CSRTensor
from sparsetorch.linalg.krylov import Preconditioner
from sparsetorch.pattern import Pattern

# Classes that are made of tensors alone, with the names of these; `precond.pytrees` fills it.
MADE_OF: dict[type, tuple[str, ...]] = {}
# What compiled code refers to has to live as long as that code, whose end nobody tells.
_OBJECTS: list[Any] = []
_NUMBERS: dict[int, int] = {}
# Before, the compiler took no object for an argument of what it calls itself.
KNOWS_OBJECTS = TorchVersion(torch.__version__) >= "2.12"


class Described(NamedTuple):
    """A preconditioner without structure that a graph could not hold."""

    kind: str
    tensors: list[Tensor]
    number: int


def describe(name: str, preconditioner: Preconditioner | None) -> Described:
    """What `restore` needs; traced by the compiler.

    Raises:
        TypeError: a function, which the compiler does not tell from another of the same code.
    """
    if preconditioner is None:
        return Described("none", [], 0)
    if isinstance(preconditioner, CSRTensor):
        pattern = preconditioner.pattern
        values = preconditioner.values.detach()
        return Described("matrix", [pattern.crow, pattern.col, values], pattern.shape[1])
    names = MADE_OF.get(type(preconditioner), ())
    parts = [getattr(preconditioner, name) for name in names]
    if parts and all(isinstance(part, Tensor) for part in parts):
        return Described(_name(type(preconditioner)), [part.detach() for part in parts], 0)
    if isinstance(preconditioner, FunctionType | MethodType | BuiltinFunctionType):
        raise TypeError(
            f"{name}: compiled code takes a CSRTensor or an object, made outside of it, but no "
            "function; make a class with __call__ or apply(r) of it"
        )
    return Described("object", [], numbered(preconditioner))


def restore(described: Described) -> Preconditioner | None:
    """The preconditioner that was described, or its like made of other tensors."""
    kind, tensors, number = described
    if kind == "none":
        return None
    if kind == "object":
        return object_of(number)
    if kind == "matrix":
        crow, col, values = tensors
        return CSRTensor(Pattern.trusted(crow, col, (len(crow) - 1, number)), values)
    (cls,) = (cls for cls in MADE_OF if _name(cls) == kind)
    preconditioner = object.__new__(cls)
    for name, tensor in zip(MADE_OF[cls], tensors):
        setattr(preconditioner, name, tensor)
    return preconditioner


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def numbered(thing: Any) -> int:
    """The object's number; traced by the compiler.

    Raises:
        NotImplementedError: PyTorch is too old for it.
    """
    if not KNOWS_OBJECTS:
        raise NotImplementedError(
            f"compiled code knows {type(thing).__name__} from PyTorch 2.12 on, and this is "
            f"{torch.__version__}; solve outside of it, or take a CSRTensor or Jacobi(A) to "
            "precondition with"
        )
    return _numbered(thing)


@torch.compiler.assume_constant_result
def _numbered(thing: Any) -> int:
    """The compiler calls this itself, and guards the object's identity."""
    number = _NUMBERS.get(id(thing))
    if number is None:
        number = _NUMBERS[id(thing)] = len(_OBJECTS)
        _OBJECTS.append(thing)
    return number


def object_of(number: int) -> Any:
    """The object with this number."""
    return _OBJECTS[number]
