"""Traces, diagonals and log-determinants from products with random vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from sparsetorch.checks import check_count
from sparsetorch.csr import CSRTensor
from sparsetorch.linalg.dtypes import REAL
from sparsetorch.linalg.full_precision import in_full_precision

BlockOperator = Callable[[Tensor], Tensor]


class Estimate(NamedTuple):
    """A random number with the right mean, and what to expect of its distance from that."""

    value: Tensor  # ()
    standard_error: Tensor  # (), no gradient


def trace_estimate(
    A: CSRTensor | BlockOperator,
    n_samples: int = 30,
    *,
    method: Literal["hutchinson", "hutch++"] = "hutchinson",
    n: int | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    generator: torch.Generator | None = None,
) -> Estimate:
    """An unbiased estimate of the trace of A from products with `n_samples` random vectors.

    A: a square CSRTensor, or a callable X (n, k) -> A X with n and, unless they are PyTorch's
    defaults, dtype and device; `lambda X: solve(A, X)` gives the trace of the inverse. generator:
    on the CPU, PyTorch's global one if None; under torch.vmap pass randomness="same" there.
    Differentiable in what A is made of, of any order: the gradient is an unbiased estimate, too.

    "hutchinson": the mean of z . A z over vectors of random signs, exact for diagonal matrices;
    for a symmetric A the variance is 2 |A - diag(A)|_F^2 / n_samples (Hutchinson 1990).
    "hutch++": the exact trace on a space Q that a third of the products finds, and Hutchinson's
    estimate beside it (Meyer, Musco, Musco, Woodruff 2021): for matrices with few large eigenvalues
    the error falls as 1 / n_samples. Q is held fixed in derivatives, which leaves them unbiased.

    Returns (value, standard_error), both (). The standard error is that of the mean of the samples,
    NaN for a single one.

    Raises:
        ValueError: A is not square, a batch, or n_samples or method is out of range.
        TypeError: A is neither a CSRTensor of float32 or float64 nor a callable, or a count is no
            number.
    """
    multiply, n, like = _operator(A, n, dtype, device)
    if method == "hutchinson":
        count = check_count("n_samples", n_samples, "random vector")
        Z = signs(n, count, like, generator)
        return mean_of((Z * multiply(Z)).sum(0))
    if method != "hutch++":
        raise ValueError(f"method: expected 'hutchinson' or 'hutch++', got {method!r}")
    count = check_count("n_samples", n_samples, "random vectors", least=3)
    third = count // 3
    starts, G = (signs(n, k, like, generator) for k in (third, count - 2 * third))
    with in_full_precision(like.device):
        with torch.no_grad():
            Q, _ = torch.linalg.qr(multiply(starts))
        G = G - Q @ (Q.mT @ G)
    rest = mean_of((G * multiply(G)).sum(0))
    return Estimate((Q * multiply(Q)).sum() + rest.value, rest.standard_error)


def diagonal_estimate(
    A: CSRTensor | BlockOperator,
    n_samples: int = 30,
    *,
    n: int | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """An unbiased estimate (n,) of the diagonal: the mean of z * A z over random signs z.

    Of an operator that is not stored; for a CSRTensor `A.diagonal()` is exact. Arguments and errors
    as `trace_estimate`; differentiable. C. Bekas, E. Kokiopoulou, Y. Saad (2007).
    """
    multiply, n, like = _operator(A, n, dtype, device)
    Z = signs(n, check_count("n_samples", n_samples, "random vector"), like, generator)
    return (Z * multiply(Z)).mean(1)


def signs(n: int, count: int, like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Random signs (n, count), of the dtype and on the device of `like`."""
    bits = torch.randint(0, 2, (n, count), generator=generator)
    return (2 * bits - 1).to(like)


def _operator(
    A: CSRTensor | BlockOperator,
    n: int | None,
    dtype: torch.dtype | None,
    device: torch.device | str | None,
) -> tuple[BlockOperator, int, Tensor]:
    """The product with blocks, the size, and a tensor of its dtype and device."""
    if isinstance(A, CSRTensor):
        if (n, dtype, device) != (None, None, None):
            raise ValueError("n, dtype, device: for a callable only; a CSRTensor knows its own")
        if A.ndim != 2 or A.shape[0] != A.shape[1]:
            raise ValueError(f"A: expected one square matrix, got shape {tuple(A.shape)}")
        if A.dtype not in REAL:
            raise TypeError(f"A: expected float32 or float64, got {A.dtype}")
        return A.matmul, A.shape[0], A.values.detach()
    if not callable(A):
        raise TypeError(f"A: expected a CSRTensor or a callable, got {type(A).__name__}")
    if n is None:
        raise ValueError("n: needed for a callable, the number of rows of A")

    def multiply(X: Tensor) -> Tensor:
        with in_full_precision(X.device):
            image: Any = A(X)
        if not isinstance(image, Tensor) or image.shape != X.shape or image.dtype != X.dtype:
            got = (image.dtype, tuple(image.shape)) if isinstance(image, Tensor) else type(image)
            raise ValueError(f"A: expected {X.dtype} of shape {tuple(X.shape)} for X, got {got}")
        return image

    n = check_count("n", n, "rows", least=0)
    return multiply, n, torch.empty(0, dtype=dtype, device=device)


def mean_of(samples: Tensor) -> Estimate:
    """The mean of samples (count,) and its standard error, NaN for a single one."""
    error = samples.detach().std() if samples.numel() > 1 else samples.new_tensor(torch.nan)
    return Estimate(samples.mean(), error / max(1, samples.numel()) ** 0.5)
